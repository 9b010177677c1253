"""Rebuilding what was received from what is stored, byte for byte.

The same code proves an ingest before it is committed and answers a download afterwards: only where parts and
chunks are read from differs (`Source`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from pacs import pixels, transcode, uids
from pacs.errors import ChecksumError, PixelError
from pacs.geometry import FrameGeometry
from pacs.storage import packing
from pacs.storage.model import Buffer, Descriptor, Encoding, Span


class Source(Protocol):
    """An instance whose parts and chunks can be read, committed or not."""

    @property
    def descriptor(self) -> Descriptor: ...
    @property
    def chunk_count(self) -> int: ...
    def spans(self) -> Sequence[Span]: ...
    def skeleton(self) -> Buffer: ...
    def residual(self) -> Buffer: ...
    def bulk(self, index: int) -> Buffer: ...
    def chunk(self, index: int) -> Buffer: ...


def rebuild(source: Source, skeleton: Buffer | None = None) -> Iterator[Buffer]:
    """The Part 10 file as it was received, in pieces of at most a frame, a bulk value or the skeleton.

    `skeleton` where it was read already.
    """
    skeleton = memoryview(source.skeleton() if skeleton is None else skeleton)
    if source.descriptor.whole_file:
        yield skeleton
        return
    value = _Stream(pixel_value(source))
    position = taken = 0
    for span in source.spans():
        gap = span.offset - position
        if gap:
            yield skeleton[taken : taken + gap]
            taken += gap
        if span.bulk >= 0:
            yield source.bulk(span.bulk)
        else:
            yield from value.take(span.length)
        position = span.offset + span.length
    if taken < len(skeleton):
        yield skeleton[taken:]


def pixel_value(source: Source) -> Iterator[Buffer]:
    """What the chunks stand for in the received file: native frames, pieces of the value, or joined fragments."""
    descriptor = source.descriptor
    if descriptor.array_key is None:
        return
    encoding = descriptor.array_key.encoding
    if encoding is Encoding.ENCAPSULATED:
        for index in range(source.chunk_count):
            yield source.chunk(index)
    elif encoding is Encoding.NATIVE:
        yield from _pieces(source, descriptor)
    else:
        for index in range(source.chunk_count):
            yield _frame(source, index, descriptor.big_endian)


def _pieces(source: Source, descriptor: Descriptor) -> Iterator[Buffer]:
    assert descriptor.array_key is not None
    left = descriptor.value_length
    for index in range(source.chunk_count):
        piece = packing.decompress(source.chunk(index), descriptor.array_key.chunk_bytes)
        yield piece if left >= len(piece) else memoryview(piece)[:left]
        left -= len(piece)


def native_frame(source: Source, index: int) -> bytes:
    """Frame `index` (from 0) of a pixel array as native bytes, laid out as its Data Set says, little endian."""
    return bytes(_frame(source, index, False))


def _frame(source: Source, index: int, big_endian: bool) -> Buffer:
    descriptor = source.descriptor
    geometry = descriptor.geometry
    assert geometry is not None
    samples = transcode.decode_frame(source.chunk(index), geometry, uids.HTJ2K_LOSSLESS_RPCL)
    residual: Buffer = b""
    if descriptor.unused_bits == "residual":
        size = residual_size(geometry)
        residual = memoryview(source.residual())[index * size : (index + 1) * size]
        if len(residual) != size:
            raise PixelError(f"the unused bits of frame {index + 1} are missing")
    return pixels.join(
        samples, geometry, big_endian=big_endian, unused_bits=descriptor.unused_bits, residual=residual
    )


def residual_size(geometry: FrameGeometry) -> int:
    """Bytes of unused high bits that `pixels.split` returns for a frame: one value for each sample."""
    return geometry.rows * geometry.columns * geometry.samples_per_pixel * (geometry.bits_allocated // 8)


class _Stream:
    """Cuts a stream of buffers at other places, without copying."""

    def __init__(self, buffers: Iterator[Buffer]) -> None:
        self._buffers = buffers
        self._rest = memoryview(b"")

    def take(self, length: int) -> Iterator[Buffer]:
        """The next `length` bytes. Raises ChecksumError when the stream ends before."""
        while length:
            if not self._rest:
                try:
                    self._rest = memoryview(next(self._buffers)).cast("B")
                except StopIteration:
                    raise ChecksumError(f"{length} bytes of pixel data are missing") from None
                continue
            piece = self._rest[:length]
            self._rest = self._rest[length:]
            length -= len(piece)
            yield piece
