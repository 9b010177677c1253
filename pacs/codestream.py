"""JPEG 2000 and HTJ2K codestreams: what their headers say, and the changes that need no decoding (T.800, T.814)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple, TypeAlias

import msgspec

from pacs._codecs import codestream as _kernel
from pacs.errors import CodestreamError

Buffer: TypeAlias = bytes | bytearray | memoryview

PROGRESSIONS: Final = ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")
"""T.800 Table A.16"""

_SIZ, _COD, _TLM, _QCD, _QCC, _COC = 0xFF51, 0xFF52, 0xFF55, 0xFF5C, 0xFF5D, 0xFF53
_PLM, _PPM, _POC = 0xFF57, 0xFF60, 0xFF5F


class Component(NamedTuple):
    """One component of SIZ. T.800 A.5.1"""

    precision: int
    signed: bool
    horizontal_separation: int
    vertical_separation: int


class TilePart(NamedTuple):
    """One tile-part. `offset` and `data` (first byte behind SOD) count from SOC. T.800 A.4.2"""

    tile: int
    number: int
    """TPsot"""
    siblings: int
    """TNsot: tile-parts of the tile, 0 when it does not say."""
    offset: int
    length: int
    """Psot: from SOT to the end of its data, 0 when it lasts until EOC."""
    data: int


class Codestream(msgspec.Struct, frozen=True):
    """The headers of one codestream. Offsets count from its SOC marker, which is at `start` of the bytes given."""

    start: int
    length: int
    """Bytes that are there, from SOC to the end of the data or of the jp2c box."""
    profile: int
    """Rsiz"""
    columns: int
    rows: int
    components: tuple[Component, ...]
    tiles: int
    decompositions: int
    progression: str
    layers: int
    mct: bool
    reversible: bool
    ht: bool
    """Whether code-blocks may be HT. T.814"""
    tile_parts: tuple[TilePart, ...]
    """Those whose header is in the data."""
    tlm: tuple[int, ...]
    """Lengths of all tile-parts as TLM gives them, () without TLM."""
    tlm_agrees: bool
    """Whether TLM and the SOT markers in the data say the same."""
    packet_lengths: bool
    """Whether PLT or PLM is present."""
    level_ends: tuple[int, ...]
    """Where the data of each resolution level ends, coarsest first; () unless each level is one tile-part of each tile,
    and those of a level follow each other."""
    promised: int
    """Where SOT and TLM say that the last tile-part ends."""
    complete: bool
    """Whether every promised byte is there. EOC is not asked for."""
    eoc: bool

    @property
    def precision(self) -> int:
        return self.components[0].precision

    @property
    def signed(self) -> bool:
        return self.components[0].signed


def parse(codestream: Buffer) -> Codestream:
    """The headers of a codestream, raw or in a JP2, JPX or JPH file.

    Data may end anywhere behind the main header: `complete` and `promised` tell. Raises CodestreamError with the
    offset (in the bytes given) where the headers contradict the standard. T.800 Annex A, T.814 Annex A
    """
    headers = _kernel.scan(codestream)
    start = headers.start
    tile_parts = tuple(
        TilePart(tile, index, count, offset - start, length, data - start)
        for tile, index, count, offset, length, data in headers.tile_parts
    )
    # Entries keep their order inside a segment; segments are ordered by Ztlm. T.800 A.7.1
    entries = sorted(headers.tlm, key=lambda entry: entry[0])
    tlm = tuple(length for _, _, length in entries)
    tlm_agrees = bool(tlm) and _agree(tile_parts, entries)
    length = headers.end - start
    main_header = headers.segments[-1][1] + headers.segments[-1][2] - start
    promised = _promised(tile_parts, tlm if tlm_agrees else (), main_header, length, headers.saw_eoc)
    return Codestream(
        start=start,
        length=length,
        profile=headers.profile,
        columns=headers.columns - headers.x0,
        rows=headers.rows - headers.y0,
        components=tuple(Component(*component) for component in headers.components),
        tiles=headers.tiles,
        decompositions=headers.decompositions,
        progression=PROGRESSIONS[headers.progression],
        layers=headers.layers,
        mct=headers.mct == 1,
        reversible=headers.transform == 1,
        ht=bool(headers.ht or headers.style & 0x40),
        tile_parts=tile_parts,
        tlm=tlm,
        tlm_agrees=tlm_agrees,
        packet_lengths=bool(headers.has_packet_lengths),
        level_ends=_level_ends(headers, tile_parts, entries if tlm_agrees else (), main_header),
        promised=promised,
        complete=promised <= length and _all_tile_parts(tile_parts, tlm if tlm_agrees else (), headers.tiles),
        eoc=bool(headers.saw_eoc),
    )


def _agree(tile_parts: tuple[TilePart, ...], entries: list[tuple[int, int, int]]) -> bool:
    """Whether the tile-parts seen are the first of those that TLM lists."""
    if len(tile_parts) > len(entries):
        return False
    seen = zip(tile_parts, entries, strict=False)
    return all(part.length in (0, length) and tile in (-1, part.tile) for part, (_, tile, length) in seen)


def _promised(tile_parts: tuple[TilePart, ...], tlm: tuple[int, ...], main_header: int, length: int, eoc: bool) -> int:
    if tlm:
        return main_header + sum(tlm)
    if not tile_parts:
        return main_header
    last = tile_parts[-1]
    return last.offset + last.length if last.length else length - 2 * eoc


def _all_tile_parts(tile_parts: tuple[TilePart, ...], tlm: tuple[int, ...], tiles: int) -> bool:
    """Whether each tile has as many tile-parts as it or TLM says, one at least."""
    if tlm:
        return len(tile_parts) == len(tlm)
    seen: dict[int, int] = {}
    expected: dict[int, int] = {}
    for part in tile_parts:
        seen[part.tile] = seen.get(part.tile, 0) + 1
        expected[part.tile] = max(expected.get(part.tile, 1), part.siblings)
    return len(seen) == tiles and all(seen[tile] >= count for tile, count in expected.items())


def _level_ends(
    headers: _kernel.Headers,
    tile_parts: tuple[TilePart, ...],
    entries: Sequence[tuple[int, int, int]],
    main_header: int,
) -> tuple[int, ...]:
    """Ends of the resolution levels when every tile has one tile-part for each, level by level, else ().

    `entries` are those of a TLM that agrees. That each tile-part holds just its level is taken from their number and
    a progression that starts with the resolution.
    """
    levels, tiles = headers.decompositions + 1, headers.tiles
    if headers.progression not in (1, 2) or headers.has_poc or not headers.uniform:
        return ()
    parts = [(tile, length) for _, tile, length in entries] or [(part.tile, part.length) for part in tile_parts]
    if len(parts) != levels * tiles or any(length == 0 for _, length in parts):
        return ()
    if any(part.siblings not in (0, levels) or part.number != i // tiles for i, part in enumerate(tile_parts)):
        return ()
    if tiles > 1 and any(len({tile for tile, _ in parts[i : i + tiles]}) != tiles for i in range(0, len(parts), tiles)):
        return ()
    ends = tuple(accumulate((length for _, length in parts), initial=main_header))
    if any(part.offset != end for part, end in zip(tile_parts, ends, strict=False)):
        return ()
    return ends[tiles::tiles]


def set_precision(codestream: bytearray, bits: int, signed: bool) -> None:
    """Declare `bits` and sign for every component: their Ssiz bytes, nothing else. T.800 A.5.1"""
    if not 1 <= bits <= 38:
        raise ValueError(f"a precision of {bits} bits")
    headers = _kernel.scan(codestream)
    first = headers.segments[0][1] + 40
    value = (0x80 if signed else 0) | (bits - 1)
    for i in range(len(headers.components)):
        codestream[first + 3 * i] = value


def reduce(codestream: Buffer, levels_dropped: int) -> bytes:
    """A codestream of its own with the finest `levels_dropped` resolution levels left out; no sample is decoded.

    It decodes to what a decoder gives for the original when told to discard that many levels. Needs one tile-part
    per resolution level, and no more of `codestream` than its data up to the last level kept. Raises
    CodestreamError. T.800 A.4.2 (SOT), A.5.1 (SIZ), A.6.1 (COD), A.6.4 (QCD), A.7.1 (TLM)
    """
    headers = _kernel.scan(codestream)
    parsed = parse(codestream)
    kept = parsed.decompositions + 1 - levels_dropped
    if levels_dropped < 0 or kept < 1:
        raise CodestreamError(f"{levels_dropped} of {parsed.decompositions} levels cannot be dropped")
    if not parsed.level_ends or parsed.tiles != 1 or headers.tile_coding:
        raise CodestreamError("not one tile-part per resolution level of one tile, coded as the main header says")
    data = memoryview(codestream)[parsed.start :]
    if parsed.level_ends[kept - 1] > len(data) or len(parsed.tile_parts) < kept:
        raise CodestreamError("the data ends before the last level kept", len(data))
    if levels_dropped == 0:
        return bytes(data[: parsed.level_ends[-1]]) + b"\xff\xd9"
    ends = [parsed.tile_parts[0].offset, *parsed.level_ends[:kept]]
    out, tlm = bytearray(b"\xff\x4f"), _tlm([stop - start for start, stop in pairwise(ends)])
    for marker, offset, length in headers.segments:
        at = offset - parsed.start
        segment = bytearray(data[at : at + length])
        if marker in (_PPM, _POC):
            raise CodestreamError("packed packet headers or a POC cannot be cut", offset)
        if marker == _TLM:
            out, tlm = out + tlm, bytearray()
        elif marker != _PLM:
            out += reduced_segment(marker, segment, len(parsed.components), levels_dropped)
    for part, end in zip(parsed.tile_parts, parsed.level_ends[:kept], strict=False):
        # The last one may leave its length to EOC; the smaller stream says it.
        piece = bytearray(data[part.offset : end])
        piece[6:10] = len(piece).to_bytes(4, "big")
        piece[11] = kept if part.siblings else 0
        out += piece
    out += b"\xff\xd9"
    # An image that does not start at the origin can have no sample at all on a coarse level.
    _kernel.scan(out)
    return bytes(out)


def reduced_segment(marker: int, segment: bytearray, components: int, dropped: int) -> bytearray:
    """`segment`, marker included, as a codestream without its finest `dropped` levels has it.

    SIZ, COD, COC, QCD and QCC change, others do not. Of SIZ every size and offset is divided: tiles stay right only
    where there is one. Where there are fewer levels none is left: that no component has fewer is for the caller to
    see to, for a COD and QCD that COC and QCC override have no say. T.800 A.5.1, A.6
    """
    if not dropped:
        return segment
    if marker == _SIZ:
        for at in range(6, 38, 4):
            value = int.from_bytes(segment[at : at + 4], "big")
            segment[at : at + 4] = (-(-value >> dropped)).to_bytes(4, "big")
    elif marker in (_COD, _COC):
        at = 9 if marker == _COD else 6 + (components >= 257)
        segment[at] = max(segment[at] - dropped, 0)
        if len(segment) > at + 5:
            del segment[at + 6 + segment[at] :]
    elif marker in (_QCD, _QCC):
        at = 4 if marker == _QCD else 5 + (components >= 257)
        # Style 1 gives one value, from which those of all levels follow: it stays.
        width = {0: 1, 2: 2}.get(segment[at] & 0x1F, 0) if len(segment) > at else 0
        if width:
            del segment[max(len(segment) - 3 * width * dropped, at + 1 + width) :]
    else:
        return segment
    segment[2:4] = (len(segment) - 2).to_bytes(2, "big")
    return segment


def _tlm(lengths: Sequence[int]) -> bytearray:
    """One TLM for all tile-parts of tile 0. T.800 A.7.1"""
    # Tiles are named (ST 1): to leave them out is for one tile-part a tile.
    body = b"\x00\x50" + b"".join(b"\x00" + length.to_bytes(4, "big") for length in lengths)
    return bytearray(_TLM.to_bytes(2, "big") + (len(body) + 2).to_bytes(2, "big") + body)
