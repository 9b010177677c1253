"""The bytes of a frame as far as they are here: which image they are, and never more than that."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import google_crc32c
from numpy.typing import NDArray

from pacs import codestream as j2k
from pacs import uids
from pacs._codecs import codestream as kernel
from pacs.client.index import IndexedFrame
from pacs.client.rungs import FINAL, Rank, Rung
from pacs.errors import AnswerError, CodestreamError, PixelError, RemoteChangedError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry

Samples = NDArray[Any]

_JPEG_2000 = frozenset(
    uid for uid, row in uids.TRANSFER_SYNTAXES.items() if row.media_type in ("image/jp2", "image/jphc")
)
_COD, _TLM, _PLM = 0xFF52, 0xFF55, 0xFF57


@dataclass(frozen=True, slots=True)
class Step:
    """An image that the first bytes of a codestream are."""

    rank: Rank
    rung: str
    """`level=2`, `layer=3`, `quality=45`, `lossless`."""
    end: int
    """Bytes of it."""
    levels_dropped: int = 0
    layers: int = 0
    """Quality layers that it consists of; 0: all."""

    @property
    def final(self) -> bool:
        return self.rank == FINAL


class HeldCodestream:
    """The bytes of one codestream of a frame that have been received, from the first on without a gap."""

    def __init__(
        self, frame: IndexedFrame, transfer_syntax: str, length: int, lossy: Rung | None = None
    ) -> None:
        """`length`: bytes of the whole. `lossy`: the rung that the whole is, if it is not the frame itself."""
        self.frame = frame
        self.transfer_syntax = transfer_syntax
        self.length = length
        self.data = bytearray()
        self.etag = ""
        """Of the answers that the bytes came in, where ranges were asked for."""
        self.lossy = lossy
        self.described = transfer_syntax == frame.transfer_syntax and length == frame.length
        """Whether it is the codestream that the index describes."""

    @property
    def received(self) -> int:
        """Bytes from the first on."""
        return len(self.data)

    def add(self, start: int, piece: bytes | memoryview) -> None:
        """Take bytes that begin at `start`. Those that were here before must be the same. Raises AnswerError,
        RemoteChangedError."""
        here = len(self.data)
        if start > here or start + len(piece) > self.length:
            raise AnswerError(self.frame.path, f"bytes {start} to {start + len(piece)} where {here} are here")
        known = min(here - start, len(piece))
        if known and not self.data.startswith(bytes(piece[:known]), start):
            self.data = bytearray()
            raise RemoteChangedError(self.frame.path, "bytes that were received before are others now")
        self.data += piece[known:]

    def sharpest(self) -> Step | None:
        """The sharpest image that is whole, None when there is none yet.

        Ends of levels are those of the index or of the codestream's own header; layers are tile-parts. Nothing is
        taken from how many bytes there are but that all of them are there.
        """
        if self.received == self.length:
            if self.lossy is not None:
                return Step((1, self.lossy.value), self.lossy.name, self.length)
            return Step(FINAL, "lossless", self.length)
        if self.lossy is not None or not self.data:
            return None
        if self.described:
            return self._level(self.frame.ends)
        if self.transfer_syntax not in _JPEG_2000:
            return None
        try:
            parsed = j2k.parse(self.data)
        except CodestreamError:
            return None  # the header is not all there
        # The end marker belongs to the finest level.
        return self._level((*parsed.level_ends[:-1], self.length)) if parsed.level_ends else self._layer(parsed)

    def _level(self, ends: tuple[int, ...]) -> Step | None:
        level = bisect_right(ends, self.received) - 1
        if level < 0 or level >= len(ends) - 1:
            return None
        return Step((0, level), f"level={level}", ends[level], levels_dropped=len(ends) - 1 - level)

    def _layer(self, parsed: j2k.Codestream) -> Step | None:
        if not _is_layered(parsed):
            return None
        whole = [part for part in parsed.tile_parts if part.offset + part.length <= self.received]
        if not whole:
            return None
        count = len(whole)
        return Step((1, count), f"layer={count}", whole[-1].offset + whole[-1].length, layers=count)

    def snapshot(self, step: Step) -> bytes:
        """The bytes of an image."""
        return bytes(memoryview(self.data)[: step.end])


def _is_layered(parsed: j2k.Codestream) -> bool:
    """Whether each tile-part of it is a quality layer of the whole image. T.800 B.12.1.1 (LRCP)"""
    numbered = all(
        part.number == number and part.siblings == parsed.layers and part.length
        for number, part in enumerate(parsed.tile_parts)
    )
    return numbered and parsed.progression == "LRCP" and parsed.tiles == 1 and parsed.start == 0


def first_layers(data: bytes, count: int) -> bytes:
    """A codestream of its own of the first `count` layers, which are tile-parts. T.800 A.4.2 (SOT), A.6.1 (COD)"""
    parsed = j2k.parse(data)
    if not _is_layered(parsed) or len(parsed.tile_parts) < count:
        raise CodestreamError("not a tile-part for each quality layer")
    out = bytearray(b"\xff\x4f")
    for marker, offset, length in kernel.scan(data).segments:
        segment = bytearray(data[offset : offset + length])
        if marker == _COD:
            segment[6:8] = count.to_bytes(2, "big")
        if marker not in (_TLM, _PLM):
            out += segment
    for part in parsed.tile_parts[:count]:
        piece = bytearray(data[part.offset : part.offset + part.length])
        piece[11] = count
        out += piece
    return bytes(out + b"\xff\xd9")


def decode(
    held: HeldCodestream, step: Step, data: bytes, geometry: FrameGeometry, *, floating: bool = False
) -> Samples:
    """(rows, columns[, samples]) of a step, of which `data` are the bytes. Raises AnswerError, PixelError and
    UnsupportedTransferSyntaxError.

    The final one must have the checksum that the server named, if it did, and a decoder must find all that the
    codestream's own header promises.
    """
    from pacs import transcode

    frame, syntax = held.frame, held.transfer_syntax
    if len(data) != step.end:
        raise AnswerError(frame.path, f"{len(data)} bytes where {step.end} are {step.rung}")
    if step.final and held.described and frame.crc32c is not None and google_crc32c.value(data) != frame.crc32c:
        raise AnswerError(frame.path, "its bytes do not have the checksum that the server names")
    if step.layers:
        try:
            data = first_layers(data, step.layers)
        except CodestreamError as error:
            raise PixelError(error.message) from None
    array: Samples
    if step.levels_dropped:
        array = transcode.decode_frame(data, geometry, syntax, levels_dropped=step.levels_dropped)
    else:
        array = samples(data, syntax, geometry, floating=floating)
    wanted = (-(-frame.rows >> step.levels_dropped), -(-frame.columns >> step.levels_dropped))
    if array.shape[:2] != wanted:
        raise AnswerError(frame.path, f"{step.rung} is {array.shape[:2]} where {wanted} rows, columns are described")
    return array


def provisional_geometry(data: bytes, transfer_syntax: str) -> FrameGeometry | None:
    """What a codestream says of its samples, for an image that is not final; None for what is no JPEG 2000.

    The Data Set's word counts in the end: a codestream does not know Bits Allocated, and its sign may be another.
    """
    if transfer_syntax not in _JPEG_2000:
        return None
    try:
        parsed = j2k.parse(data)
    except CodestreamError:
        return None
    several = len(parsed.components) > 1
    return FrameGeometry(
        parsed.rows, parsed.columns, len(parsed.components), 8 if parsed.precision <= 8 else 16, parsed.precision,
        parsed.precision - 1, int(parsed.signed), 0, "RGB" if several else "MONOCHROME2", 1,
    )  # fmt: skip


def samples(data: bytes, transfer_syntax: str, geometry: FrameGeometry, *, floating: bool = False) -> Samples:
    """One whole frame, native or encapsulated, as (rows, columns[, samples]). Raises PixelError,
    UnsupportedTransferSyntaxError."""
    from pacs import transcode

    syntax = uids.transfer_syntax(transfer_syntax)
    if transfer_syntax not in uids.TRANSFER_SYNTAXES:
        raise UnsupportedTransferSyntaxError(f"no decoder for {syntax.name}")
    if syntax.encapsulated:
        decoded: Samples = transcode.decode_frame(data, geometry, transfer_syntax)
        return decoded
    expected = -(-geometry.frame_bits // 8)
    if len(data) not in (expected, expected + expected % 2):
        raise PixelError(f"a native frame of {len(data)} bytes where {expected} are described")
    big = transfer_syntax == uids.EXPLICIT_VR_BIG_ENDIAN
    native: Samples = transcode.decode_native(data, geometry, big_endian=big, floating=floating)
    return native
