"""Pixel data into chunks: encoded frames, the frames as they came, or pieces of the value.

Three plans of which the first that can be proven is kept (`ingest.prepare`). All of them work on what a stranger sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pacs import pixels, tags, transcode, uids
from pacs.dicom.fragments import Frames
from pacs.dicom.part10 import Fragment, Part10
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry
from pacs.storage import packing
from pacs.storage.checksum import crc32c
from pacs.storage.model import ArrayKey, Buffer, Chunk, Encoding, UnusedBits

LARGEST_ENCODED_FRAME = 64 << 20
"""Raw bytes. A larger frame is kept as received: encoding takes five times that in memory."""

MOST_ENCODED_FRAMES = 1 << 20
MOST_TINY_FRAMES, TINY_FRAME = 255, 64
"""More frames, or more frames of so few bytes, are kept as received: each would cost more in tables than it holds."""

LARGEST_RESIDUAL = 4 << 20
"""Bytes of unused high bits, of a whole instance: one part of the record holds them, and each frame reads all of it."""

_SMALLEST_PIECE, _LARGEST_PIECE = 4 << 10, 1 << 20


class Staged(Protocol):
    """An array of its own that is written before the commit (storage.files.frames.StagedArray)."""

    def append(self, chunk: Chunk) -> None: ...
    def seal(self) -> None: ...
    def read(self, index: int) -> bytes | memoryview: ...
    def discard(self) -> None: ...
    @property
    def count(self) -> int: ...


Stage = Callable[[ArrayKey, int], Staged]
"""(key, number of resolution levels) -> an empty array of its own."""


@dataclass(slots=True)
class PixelStore:
    """Where the chunks of an instance are: in memory, or in an array of their own once they fill a shard."""

    key: ArrayKey
    stage: Stage
    expected: int
    """Number of chunks that will come."""
    value_length: int = 0
    stretches: Sequence[Fragment] = ()
    """(offset, length) of what the chunks stand for in the received file, in order: all frames, or each fragment."""
    unused_bits: UnusedBits = UnusedBits.ZERO
    residual: list[bytes] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    staged: Staged | None = None
    levels: int | None = None

    def fill(self, encoded: Iterable[tuple[Buffer | list[Buffer], tuple[int, ...]]]) -> None:
        """Take all the chunks, long ones in pieces. An instance that fills a shard goes to disk chunk by chunk."""
        try:
            for data, level_ends in encoded:
                if self.levels is None:
                    self.levels = len(level_ends)
                    if self.expected >= self.key.capacity:
                        self.staged = self.stage(self.key, self.levels)
                elif self.levels != len(level_ends):
                    raise PixelError("frames of one instance differ in their resolution levels")
                chunk = _chunk(data if isinstance(data, list) else [data], level_ends)
                if self.staged is not None:
                    self.staged.append(chunk)
                else:
                    self.chunks.append(chunk)
            if self.staged is not None:
                self.staged.seal()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        if self.staged is not None:
            self.staged.discard()
            self.staged = None


def encodable(file: Part10, geometry: FrameGeometry) -> bool:
    """Whether the description of native pixel data allows encoding it; the proof has the last word."""
    pixel = file.pixel
    assert pixel is not None
    frame_bytes = geometry.frame_bits // 8
    return (
        pixel.tag == tags.PIXEL_DATA
        and uids.transfer_syntax(file.transfer_syntax).known
        and geometry.bits_allocated in (8, 16)
        and not word_swapped(file, geometry)
        and 1 <= geometry.bits_stored <= geometry.bits_allocated
        and geometry.samples_per_pixel in (1, 3)
        and geometry.photometric_interpretation != "YBR_FULL_422"
        and 0 < frame_bytes <= LARGEST_ENCODED_FRAME
        and 0 < geometry.frames <= MOST_ENCODED_FRAMES
        and (geometry.frames <= MOST_TINY_FRAMES or frame_bytes >= TINY_FRAME)
        and geometry.frames * frame_bytes <= pixel.length
    )


def word_swapped(file: Part10, geometry: FrameGeometry | None) -> bool:
    """Whether samples of 8 bits or fewer lie in big endian words, their bytes two by two reversed. PS3.5 8.2, D.2"""
    return (
        file.big_endian
        and file.pixel is not None
        and file.pixel.vr == "OW"
        and geometry is not None
        and geometry.bits_allocated <= 8
    )


def encoded(file: Part10, geometry: FrameGeometry, stage: Stage) -> PixelStore:
    """Every frame as HTJ2K: a pixel array. Only of what is `encodable`."""
    assert file.pixel is not None
    start, frame_bytes = file.pixel.offset, geometry.frame_bits // 8
    key = ArrayKey(
        Encoding.HTJ2K, geometry.rows, geometry.columns, geometry.samples_per_pixel,
        np.dtype(pixels.dtype(geometry)).name, "", frame_bytes,
    )  # fmt: skip
    value_length = geometry.frames * frame_bytes
    store = PixelStore(key, stage, geometry.frames, value_length, [(start, value_length)])
    kinds: set[UnusedBits] = set()

    def encode() -> Iterator[tuple[Buffer, tuple[int, ...]]]:
        for number in range(geometry.frames):
            raw = file.data[start + number * frame_bytes : start + (number + 1) * frame_bytes]
            samples, kind, residual = pixels.split(raw, geometry, big_endian=file.big_endian)
            kinds.add(UnusedBits(kind))
            if residual:
                if geometry.frames > 1 and (len(store.residual) + 1) * len(residual) > LARGEST_RESIDUAL:
                    raise PixelError("too many unused bits are in use")
                store.residual.append(residual)
            yield transcode.encode_frame(samples, geometry)

    store.fill(encode())
    # A frame without negative samples looks the same with zeros and with sign extension: one rule for all frames,
    # and the proof tells whether it holds.
    store.unused_bits = next(
        rule for rule in (UnusedBits.RESIDUAL, UnusedBits.SIGN, UnusedBits.ZERO) if rule in kinds
    )
    return store


def as_received(file: Part10, stage: Stage) -> PixelStore:
    """The whole native value, cut into pieces that are each one zstd frame."""
    pixel = file.pixel
    assert pixel is not None
    value = file.data[pixel.offset : pixel.offset + pixel.length]
    piece = _SMALLEST_PIECE
    while piece < min(pixel.length, _LARGEST_PIECE):
        piece *= 2
    key = ArrayKey(Encoding.NATIVE, 0, 0, 0, "uint8", "", piece)
    count = -(-pixel.length // piece)
    store = PixelStore(key, stage, count, pixel.length, [(pixel.offset, pixel.length)])

    def compress() -> Iterator[tuple[Buffer, tuple[int, ...]]]:
        for start in range(0, pixel.length, piece):
            data = bytes(value[start : start + piece])
            yield packing.compress(data.ljust(piece, b"\0")), ()

    store.fill(compress())
    return store


def encapsulated(
    file: Part10, geometry: FrameGeometry | None, frames: Frames, stage: Stage
) -> PixelStore:
    """The fragments of each frame joined, in the Transfer Syntax they came in."""
    longest = max((sum(length for _, length in frame) for frame in frames), default=0)
    key = ArrayKey(
        Encoding.ENCAPSULATED,
        geometry.rows if geometry else 0,
        geometry.columns if geometry else 0,
        geometry.samples_per_pixel if geometry else 0,
        "",
        file.transfer_syntax,
        max(1, geometry.frame_bits // 8) if geometry and longest <= LARGEST_ENCODED_FRAME else LARGEST_ENCODED_FRAME,
    )
    value_length = sum(length for _, length in frames.fragments)
    store = PixelStore(key, stage, len(frames), value_length, frames.fragments)
    store.fill((_join(file.data, frame), ()) for frame in frames)
    return store


def _join(data: memoryview, frame: Sequence[Fragment]) -> Buffer | list[Buffer]:
    """The bytes of a frame; of a long one, such as a video, the pieces: it is not to be in memory."""
    pieces = [data[offset : offset + length] for offset, length in frame]
    if len(pieces) == 1:
        return pieces[0]
    return b"".join(pieces) if sum(map(len, pieces)) <= LARGEST_ENCODED_FRAME else [*pieces]


def _chunk(pieces: list[Buffer], level_ends: tuple[int, ...]) -> Chunk:
    checksum = 0
    for piece in pieces:
        checksum = crc32c(piece, checksum)
    return Chunk(pieces[0], checksum, level_ends, tuple(pieces[1:]))
