"""JPEG 2000 and HTJ2K packets: where each one lies, in which order, and codestreams made of some of them.

Packet headers are read, code-blocks never: what is written consists of the packets that came, moved or left out.
`docs/codestreams.md` says what is understood and what is rewritten. T.800 Annex B, T.814 Annex B
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from pacs import codestream as _codestream
from pacs._codecs import kept_packets as _kept
from pacs._codecs import progression as _kernel
from pacs._codecs import rewrite as _rewrite
from pacs._codecs.codestream import Headers
from pacs.errors import CodestreamError

Buffer: TypeAlias = bytes | bytearray | memoryview

_SIZ, _COD, _TLM, _PLM, _POC, _PPM = 0xFF51, 0xFF52, 0xFF55, 0xFF57, 0xFF5F, 0xFF60
_RPCL: Final = 2
_ALL_LAYERS: Final = 65535


class Rectangle(NamedTuple):
    """A part of an image in its own rows and columns, both from 0."""

    top: int
    left: int
    rows: int
    columns: int


class Packet(NamedTuple):
    """One packet. Offsets count from the first of the bytes given (of a JP2 file too). T.800 B.9

    The header span holds neither SOP nor EPH. Of a packed header (PPM, PPT) the offset counts in `packed_headers`
    of the index instead.
    """

    tile: int
    component: int
    resolution: int
    """Resolution level, 0 the coarsest."""
    precinct: int
    """Its number inside the resolution level of its tile-component, row by row."""
    layer: int
    header_offset: int
    header_length: int
    body_offset: int
    body_length: int
    packed: bool
    """Whether the header came in PPM or PPT."""


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """All packets of a codestream: tile by tile, and in a tile in the order in which they lie."""

    packets: tuple[Packet, ...]
    packed_headers: bytes
    """The contents of PPM or PPT put together, b"" without."""
    lengths_agree: bool | None
    """Whether PLT or PLM give the lengths that the packet headers give; None without PLT and PLM. The headers rule:
    decoders follow them."""


def index(codestream: Buffer) -> PacketIndex:
    """Every packet of a whole codestream, raw or in a JP2, JPX or JPH file.

    Raises CodestreamError, with the offset in the bytes given, when the packets cannot all be followed to their end:
    truncated data, contradicting headers, more packets than there are bytes, bytes left behind the last packet.
    """
    walked = _kernel.walk(codestream)
    packets = tuple(map(Packet._make, walked.tuples()))
    return PacketIndex(packets, bytes(walked.packed), walked.lengths_agree)


def reorder(codestream: Buffer) -> bytes:
    """The same image with its packets in RPCL order, a tile-part per tile and resolution level, TLM and PLT.

    Resolution level 0 of all tiles comes first, then 1 of all tiles, so that every level of the image is a prefix:
    `level_ends` of the result. Raises CodestreamError when a packet cannot be followed to its end.
    T.800 A.4.2, A.7.1 (TLM), A.7.3 (PLT), B.12.1.3 (RPCL)
    """
    with memoryview(codestream) as data:
        return _written(_kernel.walk(data), data, _RPCL)


def cut(
    codestream: Buffer, *, levels_dropped: int = 0, layers: int | None = None, most_bytes: int | None = None
) -> bytes:
    """A codestream of its own without the finest `levels_dropped` resolution levels, with the first `layers` quality
    layers, of at most `most_bytes` bytes.

    To fit, packets are kept in the order layer, resolution level, tile, component, precinct, whatever order they lie
    in. One that does not fit ends its precinct, whose layers build on each other; the others go on as far as they fit.
    What is left out becomes empty packets; layers in which nothing is left go. The result keeps the progression of
    `codestream`, RPCL in place of a POC, and has TLM and PLT. Raises CodestreamError when a packet cannot be followed
    to its end, when there are fewer levels, when tiles cannot be divided so often, or when not even empty packets fit.
    T.800 A.5.1, A.6
    """
    if levels_dropped < 0 or (layers is not None and layers < 1):
        raise ValueError(f"{levels_dropped} levels dropped, {layers} layers")
    with memoryview(codestream) as data:
        walked = _kernel.walk(data)
        kept = _ALL_LAYERS if layers is None else min(layers, _ALL_LAYERS)
        progression = _progression(walked)
        whole = _written(walked, data, progression, levels_dropped, kept)
        if most_bytes is None or len(whole) <= most_bytes:
            return whole
        room = most_bytes - _overhead(walked, data, progression, levels_dropped)
        fitting, keep = _kept.within(walked, levels_dropped, kept, room) if room > 0 else (0, bytearray())
        if not fitting:
            raise CodestreamError(f"{most_bytes} bytes do not hold the headers and empty packets of one layer")
        return _written(walked, data, progression, levels_dropped, fitting, keep)


def region(codestream: Buffer, rectangle: Rectangle, levels_dropped: int = 0) -> bytes:
    """A codestream of the whole image, less `levels_dropped` levels, in which only the precincts that samples of
    `rectangle` depend on carry data; the other packets are empty.

    `rectangle` counts in samples of the image that is left. Inside it the result decodes to what the whole codestream
    decodes to; outside to whatever the missing coefficients leave. Raises ValueError for a rectangle without a sample
    of the image, CodestreamError as `cut` does. T.800 B.6 (precincts), F.3 (what samples depend on)
    """
    with memoryview(codestream) as data:
        walked = _kernel.walk(data)
        headers = walked.headers
        left, right = _range(headers.x0, headers.columns, rectangle.left, rectangle.columns, levels_dropped)
        top, bottom = _range(headers.y0, headers.rows, rectangle.top, rectangle.rows, levels_dropped)
        keep = _kept.touching(walked, levels_dropped, left, top, right, bottom)
        return _written(walked, data, _progression(walked), levels_dropped, _ALL_LAYERS, keep)


def level_ends(codestream: Buffer) -> tuple[int, ...]:
    """`level_ends` of `pacs.codestream.parse`: where the data of each resolution level ends, coarsest first."""
    return _codestream.parse(codestream).level_ends


def _range(start: int, stop: int, first: int, count: int, dropped: int) -> tuple[int, int]:
    """Columns or rows `first` ... of the image, divided by 2^dropped, on its reference grid."""
    if not 0 <= dropped <= 32:
        raise ValueError(f"{dropped} levels dropped")
    start, stop = -(-start >> dropped), -(-stop >> dropped)
    first, stop = max(start, start + first), min(stop, start + first + count)
    if first >= stop:
        raise ValueError("a rectangle without a sample of the image")
    return first, stop


def _progression(walked: _kernel.Packets) -> int:
    """That of the codestream, RPCL where it has several."""
    headers = walked.headers
    of_tiles = (marker for found in walked.tile_segments.values() for marker, _, _ in found)
    return _RPCL if headers.has_poc or _COD in of_tiles else headers.progression


def _written(
    walked: _kernel.Packets,
    data: memoryview,
    progression: int,
    dropped: int = 0,
    layers: int = _ALL_LAYERS,
    keep: bytearray | None = None,
) -> bytes:
    levels = walked.decompositions()
    if dropped > levels:
        raise CodestreamError(f"{dropped} of {levels} levels cannot be dropped")
    main, tiles = _headers(walked, data, progression, dropped, layers)
    return _rewrite.write(walked, data, main, tiles, progression, dropped, layers, keep)


def _overhead(walked: _kernel.Packets, data: memoryview, progression: int, dropped: int) -> int:
    """Bytes that everything but packets and their lengths takes, rounded up."""
    main, tiles = _headers(walked, data, progression, dropped, 1)
    parts = walked.headers.tiles * _rewrite.pieces(walked, progression, dropped)
    tlm = 6 * parts + 6 * (parts // 10921 + 1)
    plt = 5 * (parts + 1 + 5 * len(walked) // 65528)
    return len(main) + sum(map(len, tiles.values())) + tlm + plt + 14 * parts + 2


def _headers(
    walked: _kernel.Packets, data: memoryview, progression: int, dropped: int, layers: int
) -> tuple[bytes, dict[int, bytes]]:
    """The main header from SOC, without TLM, and what the first tile-part of each tile says of its own."""
    headers = walked.headers

    def rewritten(segments: list[tuple[int, int, int]]) -> bytes:
        out = bytearray()
        for marker, offset, length in segments:
            if marker in (_TLM, _PLM, _POC, _PPM):
                continue
            segment = bytearray(data[offset : offset + length])
            segment = _codestream.reduced_segment(marker, segment, len(headers.components), dropped)
            if marker == _SIZ:
                _describe_image(segment, headers, dropped)
            elif marker == _COD:
                # SOP would have to be numbered anew, and EPH has gone with the headers it stood behind. A.6.1
                segment[4] &= ~0x06
                segment[5] = progression
                segment[6:8] = min(int.from_bytes(segment[6:8], "big"), layers).to_bytes(2, "big")
            out += segment
        return bytes(out)

    tiles = {tile: rewritten(segments) for tile, segments in walked.tile_segments.items()}
    return b"\xff\x4f" + rewritten(headers.segments), tiles


def _describe_image(segment: bytearray, headers: Headers, dropped: int) -> None:
    """Rsiz without a profile, which the new order may not keep; tiles that fall where the old ones do. T.800 A.5.1"""
    if headers.profile & 0x8000 == 0:
        segment[4:6] = (headers.profile & 0x4000).to_bytes(2, "big")
    if not dropped:
        return
    separations = [(dx, dy) for _, _, dx, dy in headers.components]
    x, columns = _tiles(headers.tile_x0, headers.tile_columns, headers.x0, headers.columns, dropped)
    y, rows = _tiles(headers.tile_y0, headers.tile_rows, headers.y0, headers.rows, dropped)
    for at, value in zip(range(22, 38, 4), (columns, rows, x, y), strict=True):
        segment[at : at + 4] = value.to_bytes(4, "big")
    left, top, right, bottom = (
        -(-value >> dropped) for value in (headers.x0, headers.y0, headers.columns, headers.rows)
    )
    if any(-(-left // dx) >= -(-right // dx) or -(-top // dy) >= -(-bottom // dy) for dx, dy in separations):
        raise CodestreamError("nothing is left of a component")


def _tiles(origin: int, size: int, start: int, stop: int, dropped: int) -> tuple[int, int]:
    """(XTOsiz, XTsiz) or (YTOsiz, YTsiz) for which each edge between tiles is the old one divided by 2^dropped."""
    count = -(-(stop - origin) // size)
    edges = [-(-(origin + i * size) >> dropped) for i in range(1, count)]
    start, stop = -(-start >> dropped), -(-stop >> dropped)
    if not edges:
        return -(-origin >> dropped), -(-size >> dropped)
    step = edges[1] - edges[0] if len(edges) > 1 else max(edges[0] - start, stop - edges[0])
    even = all(b - a == step for a, b in pairwise(edges))
    origin = edges[0] - step
    if not even or not 0 <= origin <= start < edges[0] or not edges[-1] < stop <= edges[-1] + step:
        raise CodestreamError(f"tiles of {size} samples cannot be divided by {1 << dropped}")
    return origin, step
