"""What a committed instance holds: its parts, its frames as stored or decoded, its bulk values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from pacs import export, pixels, tags, transcode, uids
from pacs.dicom.byteorder import WORD_SIZES, swapped
from pacs.errors import NotFoundError, PixelError, UnsupportedTransferSyntaxError
from pacs.storage import packing
from pacs.storage.files import frames, records
from pacs.storage.index import Index, ReadView
from pacs.storage.model import Buffer, ChunkLocation, Descriptor, Encoding, InstanceEntry, Span


class Committed:
    """A committed instance as an `export.Source`. Every read verifies its checksum.

    Each look-up is a read transaction of its own: a download of an hour must not pin the index's old pages.
    """

    def __init__(self, root: Path, index: Index, entry: InstanceEntry) -> None:
        self.entry = entry
        self._root = root
        self._index = index
        self._residual: Buffer | None = None

    @property
    def descriptor(self) -> Descriptor:
        return self.entry.descriptor

    @property
    def chunk_count(self) -> int:
        return self.entry.chunks

    def spans(self) -> Sequence[Span]:
        return records.read_spans(self._root, self.entry)

    def skeleton(self) -> Buffer:
        return records.read_part(self._root, self.entry, records.SKELETON)

    def residual(self) -> Buffer:
        if self._residual is None:  # every frame needs a piece of it
            self._residual = records.read_part(self._root, self.entry, records.RESIDUAL)
        return self._residual

    def bulk(self, index: int) -> Buffer:
        return records.read_bulk(self._root, self.entry, index)

    def chunk(self, index: int) -> Buffer:
        with self._index.read() as view:
            location = view.chunk(self.entry, index)
        return frames.read_chunk(self._root, location)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it is stored."""

    entry: InstanceEntry
    number: int
    """From 1, as in a DICOMweb URL."""
    transfer_syntax: str
    """Of the stored bytes; explicit VR little endian when they are native."""
    length: int
    """In bytes, as `Archive.read_frame` returns them."""
    level_ends: tuple[int, ...]
    """Bytes up to the end of each resolution level, coarsest first; () where a prefix is not an image."""
    etag: str
    """A strong validator of these bytes, without quotes."""
    chunks: tuple[ChunkLocation, ...]


def metadata_length(entry: InstanceEntry) -> int:
    """Bytes of its DICOM JSON."""
    return entry.parts[records.JSON].raw_length


def frame_count(entry: InstanceEntry) -> int:
    """How many frames `locate_frame` finds, whatever Number of Frames says."""
    descriptor = entry.descriptor
    geometry, key = descriptor.geometry, descriptor.array_key
    if key is None:
        return 0
    if key.encoding is not Encoding.NATIVE:
        return entry.chunks if geometry is None or max(1, geometry.frames) == entry.chunks else 0
    if geometry is None or not geometry.frame_bits:
        return 0
    return min(geometry.frames, 8 * descriptor.value_length // geometry.frame_bits)


def locate_frame(view: ReadView, entry: InstanceEntry, number: int) -> Frame:
    """Where frame `number` lies. Raises NotFoundError for a number that has no frame of its own.

    Costs the same for every number: one entry of the chunk table is read, or those of the pieces it touches.
    """
    key, geometry = entry.descriptor.array_key, entry.descriptor.geometry
    if key is None:
        raise NotFoundError(f"instance {entry.descriptor.instance} has no frames")
    if key.encoding is Encoding.NATIVE:
        return _locate_native(view, entry, number)
    count = entry.chunks
    if not 1 <= number <= count or (geometry is not None and number > max(1, geometry.frames)):
        raise NotFoundError(f"instance {entry.descriptor.instance} has no frame {number}")
    if geometry is not None and geometry.frames != count:
        raise NotFoundError(
            f"the {geometry.frames} frames of instance {entry.descriptor.instance} cannot be told apart in its "
            f"{count} fragments; its bulk data has the whole value"
        )
    chunk = view.chunk(entry, number - 1)
    pixel_array = key.encoding is Encoding.HTJ2K
    syntax = uids.HTJ2K_LOSSLESS_RPCL if pixel_array else entry.descriptor.transfer_syntax
    return Frame(entry, number, syntax, chunk.length, chunk.level_ends, validator(chunk), (chunk,))


def validator(chunk: ChunkLocation) -> str:
    """`Frame.etag` of a frame that is one inner chunk."""
    return f"{chunk.crc32c:08x}-{chunk.length:x}"


def _locate_native(view: ReadView, entry: InstanceEntry, number: int) -> Frame:
    geometry, key = entry.descriptor.geometry, entry.descriptor.array_key
    assert key is not None
    if geometry is None or not 1 <= number <= geometry.frames or not geometry.frame_bits:
        raise NotFoundError(f"instance {entry.descriptor.instance} has no frame {number}")
    start = (number - 1) * geometry.frame_bits // 8
    end = -(-number * geometry.frame_bits // 8)
    if end > entry.descriptor.value_length:
        raise NotFoundError(f"the pixel data of instance {entry.descriptor.instance} ends before frame {number}")
    pieces = range(start // key.chunk_bytes, -(-end // key.chunk_bytes))
    chunks = tuple(view.chunk(entry, index) for index in pieces)
    digest = hashlib.sha256(b"".join(chunk.crc32c.to_bytes(4, "little") for chunk in chunks)).hexdigest()[:16]
    length = -(-geometry.frame_bits // 8)
    # What a private Transfer Syntax means by native is its secret: its name stays with the bytes.
    arrival = entry.descriptor.transfer_syntax
    syntax = uids.EXPLICIT_VR_LITTLE_ENDIAN if uids.transfer_syntax(arrival).known else arrival
    return Frame(entry, number, syntax, length, (), f"{digest}-{number:x}", chunks)


def native_bits(root: Path, frame: Frame) -> tuple[memoryview, int]:
    """The bytes that a native frame touches, and the bit where it starts in them.

    In the byte order of arrival, but what lies in swapped words is put in order: a frame may begin within one.
    """
    key, geometry = frame.entry.descriptor.array_key, frame.entry.descriptor.geometry
    assert key is not None and geometry is not None
    value = b"".join(
        packing.decompress(frames.read_chunk(root, chunk), key.chunk_bytes) for chunk in frame.chunks
    )
    first_bit = (frame.number - 1) * geometry.frame_bits
    first_piece = first_bit // 8 // key.chunk_bytes
    start = first_bit // 8 - first_piece * key.chunk_bytes
    length = -(-(first_bit % 8 + geometry.frame_bits) // 8)
    if frame.entry.descriptor.word_swapped:
        before = start % 2
        words = memoryview(value)[start - before : start + length + (start + length) % 2]
        return memoryview(swapped(words, 2))[before : before + length], first_bit % 8
    return memoryview(value)[start : start + length], first_bit % 8


def stored_frame(root: Path, frame: Frame) -> bytes | memoryview:
    """The frame as stored; a native one in little endian. Raises ChecksumError."""
    return _native_little_endian(root, frame) if is_native(frame) else frames.read_chunk(root, frame.chunks[0])


def is_native(frame: Frame) -> bool:
    """Whether the frame lies in pieces of the value as received."""
    key = frame.entry.descriptor.array_key
    return key is not None and key.encoding is Encoding.NATIVE


def _native_little_endian(root: Path, frame: Frame) -> bytes:
    descriptor, geometry = frame.entry.descriptor, frame.entry.descriptor.geometry
    assert geometry is not None
    value, bit = native_bits(root, frame)
    if geometry.bits_allocated == 1:
        return _repacked(value, bit, geometry.frame_bits)
    return bytes(value) if descriptor.word_swapped else swapped(value, _word(descriptor))


def _word(descriptor: Descriptor) -> int:
    """Bytes of the words whose byte order has to be turned for little endian; 1 for none."""
    if not descriptor.big_endian or descriptor.geometry is None:
        return 1
    return 2 if descriptor.word_swapped else max(1, descriptor.geometry.bits_allocated // 8)


def _repacked(value: memoryview, bit: int, length: int) -> bytes:
    """`length` bits from `bit` on, moved to the start of a byte. Bits count from the lowest. PS3.5 8.1.1"""
    if bit == 0 and length % 8 == 0:
        return bytes(value)
    bits = np.unpackbits(np.frombuffer(value, np.uint8), bitorder="little")[bit : bit + length]
    return np.packbits(bits, bitorder="little").tobytes()


def samples(root: Path, frame: Frame, levels_dropped: int = 0) -> npt.NDArray[np.generic]:
    """The decoded samples, (rows, columns[, samples]). Raises PixelError, UnsupportedTransferSyntaxError."""
    descriptor, geometry = frame.entry.descriptor, frame.entry.descriptor.geometry
    if geometry is None:
        raise PixelError(f"instance {descriptor.instance} does not describe its pixel data")
    if is_native(frame):
        if not uids.transfer_syntax(descriptor.transfer_syntax).known:
            raise UnsupportedTransferSyntaxError(f"no decoder for unknown {descriptor.transfer_syntax}")
        value, bit = native_bits(root, frame)
        return pixels.decode_native(
            value, geometry, big_endian=descriptor.big_endian, bit_offset=bit,
            floating=descriptor.pixel_tag != tags.PIXEL_DATA,
        )  # fmt: skip
    stored = frames.read_chunk(root, frame.chunks[0])
    return transcode.decode_frame(stored, geometry, frame.transfer_syntax, levels_dropped=levels_dropped)


def small_samples(root: Path, frame: Frame, most_dropped: int) -> npt.NDArray[np.generic]:
    """The samples with as many resolution levels left out as the stored frame has, `most_dropped` at most.

    A frame of another kind than JPEG 2000 comes whole. Raises PixelError, UnsupportedTransferSyntaxError.
    """
    geometry = frame.entry.descriptor.geometry
    if is_native(frame) or not most_dropped or geometry is None:
        return samples(root, frame)
    stored = frames.read_chunk(root, frame.chunks[0])
    key = frame.entry.descriptor.array_key
    if key is not None and key.encoding is Encoding.HTJ2K and frame.level_ends:
        dropped = min(most_dropped, len(frame.level_ends) - 1)
        # What the decoder is not given it need not copy and pass over.
        stored = memoryview(stored)[: frame.level_ends[-1 - dropped]]
    else:
        dropped = min(most_dropped, transcode.droppable_levels(stored, frame.transfer_syntax))
    return transcode.decode_frame(stored, geometry, frame.transfer_syntax, levels_dropped=dropped)


def native_frame(root: Path, frame: Frame, source: Committed) -> bytes:
    """The frame as native little endian bytes, in the layout its Data Set describes. PS3.18 8.7.3.3.2"""
    descriptor, geometry = frame.entry.descriptor, frame.entry.descriptor.geometry
    if geometry is None:
        raise PixelError(f"instance {descriptor.instance} does not describe its pixel data")
    if is_native(frame):
        return _native_little_endian(root, frame)
    if descriptor.array_key is not None and descriptor.array_key.encoding is Encoding.HTJ2K:
        return export.native_frame(source, frame.number - 1)
    # Decoders double the chroma of YBR_FULL_422: what they give is YBR_FULL.
    if geometry.photometric_interpretation == "YBR_FULL_422":
        geometry = msgspec.structs.replace(geometry, photometric_interpretation="YBR_FULL")
    return pixels.encode_native(samples(root, frame), geometry)


def encoded_frame(
    root: Path, frame: Frame, rendition: transcode.Rendition, quality: float | None = None
) -> bytes:
    """The frame decoded and encoded again as `rendition`, of kind "encoded", says."""
    geometry = frame.entry.descriptor.geometry
    if geometry is None:
        raise PixelError(f"instance {frame.entry.descriptor.instance} does not describe its pixel data")
    return transcode.encode(samples(root, frame), geometry, rendition, quality=quality)


def layered_frame(root: Path, frame: Frame) -> transcode.LayeredFrame:
    """The frame as JPEG 2000 with quality layers. Raises PixelError, UnsupportedTransferSyntaxError."""
    geometry = frame.entry.descriptor.geometry
    if geometry is None:
        raise PixelError(f"instance {frame.entry.descriptor.instance} does not describe its pixel data")
    return transcode.layered(samples(root, frame), geometry)


def chunk_lengths(index: Index, entry: InstanceEntry) -> list[int]:
    """Bytes of each inner chunk as stored."""
    with index.read() as view:
        return [view.chunk(entry, number).length for number in range(entry.chunks)]


def bulk_value(source: Committed, path: str) -> Iterator[Buffer]:
    """The value that a BulkDataURI names, little endian. Raises NotFoundError."""
    descriptor = source.descriptor
    if descriptor.array_key is not None and path == tags.text(descriptor.pixel_tag):
        return pixel_value(source)
    for span in source.spans():
        if path and span.bulk >= 0 and span.path == path:  # a stretch without a path is no value
            value = source.bulk(span.bulk)
            size = WORD_SIZES.get(span.vr, 1) if descriptor.big_endian else 1
            return iter((swapped(value, size) if size > 1 else value,))
    raise NotFoundError(f"instance {descriptor.instance} has no bulk data {path[:64]}")


def pixel_value(source: Committed) -> Iterator[Buffer]:
    """The value of (Float, Double Float) Pixel Data: native frames in little endian, or joined fragments."""
    descriptor = source.descriptor
    assert descriptor.array_key is not None
    if descriptor.array_key.encoding is Encoding.HTJ2K:
        for index in range(source.chunk_count):
            yield export.native_frame(source, index)
        return
    size = _word(descriptor)
    for piece in export.pixel_value(source):
        yield swapped(piece, size) if size > 1 else piece
