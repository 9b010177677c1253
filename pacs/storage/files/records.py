"""Records: one per instance in its series' `records.log`, self-contained and walkable without any index.

    head     magic 8 | total length u64 | sequence u64 | ordinal u32 | kind u8 | levels u8 | 0 u16 | array u32 |
             chunks u32 | descriptor length u32 | parts u32 | descriptor | part table | crc32c of all this u32
    parts    one behind the other, in the order of the table

The part table has stored length u64, raw length u64, crc32c u32 and flags u32 (1: zstd) of every part. So the head's
checksum covers the parts' checksums: a record is whole when its head and each of its parts is.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from pacs.errors import ChecksumError, StorageError
from pacs.storage import layout, packing
from pacs.storage.checksum import crc32c
from pacs.storage.disk import NOT_OF_THE_DISK
from pacs.storage.files import stretch
from pacs.storage.layout import Root
from pacs.storage.model import Buffer, Descriptor, InstanceEntry, NewInstance, Part, PartLocation, Span

MAGIC = b"PACSREC1"
INSTANCE = 1
NO_ARRAY = 0xFFFFFFFF

CHUNK_TABLE, SPAN_TABLE, JSON, SKELETON, RESIDUAL, FIRST_BULK = range(6)
"""Parts of a record by number; bulk values follow from FIRST_BULK on."""

_FIXED = struct.Struct("<8sQQIBBHIIII")
_PART = struct.Struct("<QQII")
_CRC = struct.Struct("<I")
_ZSTD = 1
_LARGEST_HEAD = 256 << 20
_READ_AHEAD = 4096

_descriptor_decoder = msgspec.msgpack.Decoder(Descriptor)
_span_decoder = msgspec.msgpack.Decoder(list[Span])
_pack = msgspec.msgpack.Encoder().encode


class RecordError(ChecksumError):
    """A record is not whole. `offset` is where it begins; `next` where the one behind it would, 0 if unknown;
    `unread`: the disk could not read it."""

    def __init__(self, message: str, path: str, offset: int, next_offset: int = 0, *, unread: bool = False) -> None:
        super().__init__(f"{path}: record at byte {offset}: {message}")
        self.offset = offset
        self.next = next_offset
        self.unread = unread


class LogError(ChecksumError):
    """A log cannot be opened. `number` is the errno."""

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"{path} cannot be opened: {error.strerror}")
        self.number = error.errno

    @property
    def missing(self) -> bool:
        return self.number in (errno.ENOENT, errno.ENOTDIR)

    @property
    def ours(self) -> bool:
        """Whether the log may be as good as ever: this process, or the system, has too much open."""
        return self.number in NOT_OF_THE_DISK


class Record(NamedTuple):
    """The head of one record."""

    offset: int
    length: int
    sequence: int
    """Of the commit that wrote it."""
    ordinal: int
    """Its place in that commit."""
    levels: int
    """Number of level ends of each chunk."""
    array: int
    """k of `frames-<k>`, -1 without pixel data."""
    chunks: int
    descriptor: Descriptor
    parts: tuple[PartLocation, ...]

    @property
    def end(self) -> int:
        return self.offset + self.length


# --- writing --------------------------------------------------------------------------------------------------


_SPANS = struct.Struct(">BI")
_ARRAY_32 = 0xDD
"""How a msgpack array of any length begins."""


def _pack_each(spans: Sequence[Span]) -> bytearray:
    """The same one by one: as objects a million spans take ten times the memory that they do as bytes."""
    raw = bytearray(_SPANS.pack(_ARRAY_32, len(spans)))
    for span in spans:
        raw += _pack(span)
    return raw


def pack_spans(spans: Sequence[Span]) -> Part:
    """The span table; of many fragments it is worth compressing."""
    raw: Buffer = _pack_each(spans) if len(spans) > 1000 else _pack([*spans])
    return packing.pack(raw) if len(raw) > 256 else Part(raw, len(raw), False)


def compose(
    new: NewInstance, table: bytes, *, offset: int, sequence: int, ordinal: int, levels: int, array: int, chunks: int
) -> tuple[Record, list[Buffer]]:
    """The record of an instance at `offset` of its log, and the buffers to write there."""
    residual = new.residual if new.residual is not None else Part(b"", 0, False)
    spans = pack_spans(new.spans)
    parts = [Part(table, len(table), False), spans, new.json, new.skeleton, residual, *new.bulk]
    descriptor = _pack(new.descriptor)
    head_length = _FIXED.size + len(descriptor) + len(parts) * _PART.size + _CRC.size
    position = offset + head_length
    locations = []
    for part in parts:
        length = len(part.data)
        locations.append(PartLocation(position, length, part.raw_length, part.zstd, crc32c(part.data)))
        position += length
    record = Record(
        offset, position - offset, sequence, ordinal, levels, array, chunks, new.descriptor, tuple(locations)
    )
    head = b"".join((
        _FIXED.pack(
            MAGIC, record.length, sequence, ordinal, INSTANCE, levels, 0, array if array >= 0 else NO_ARRAY, chunks,
            len(descriptor), len(parts),
        ),
        descriptor,
        *(_PART.pack(part.length, part.raw_length, part.crc32c, _ZSTD * part.zstd) for part in locations),
    ))  # fmt: skip
    return record, [head, _CRC.pack(crc32c(head)), *(part.data for part in parts)]


# --- walking --------------------------------------------------------------------------------------------------


def read_head(descriptor: int, path: str, offset: int, end: int) -> Record:
    """The head of the record at `offset`, its checksum verified; `end` is the length of the log. Raises RecordError."""
    try:
        data = _ahead(descriptor, offset, min(_READ_AHEAD, end - offset))
    except OSError as error:
        raise RecordError(f"it cannot be read: {error.strerror}", path, offset, unread=True) from None
    if len(data) < _FIXED.size:
        raise RecordError("it ends early", path, offset)
    magic, length, sequence, ordinal, kind, levels, _, array, chunks, described, count = _FIXED.unpack_from(data)
    if magic != MAGIC or kind != INSTANCE:
        raise RecordError("it does not begin like one", path, offset)
    head = _FIXED.size + described + count * _PART.size + _CRC.size
    if head > length or head > _LARGEST_HEAD or offset + length > end:
        raise RecordError("it ends early", path, offset)
    if head > len(data):
        try:
            data += os.pread(descriptor, head - len(data), offset + len(data))
        except OSError as error:
            text = f"its head cannot be read: {error.strerror}"
            raise RecordError(text, path, offset, offset + length, unread=True) from None
    if len(data) < head or _CRC.unpack_from(data, head - _CRC.size)[0] != crc32c(data[: head - _CRC.size]):
        raise RecordError("its head does not match its checksum", path, offset, offset + length)
    parts = []
    position = offset + head
    for stored, raw, crc, flags in _PART.iter_unpack(data[_FIXED.size + described : head - _CRC.size]):
        parts.append(PartLocation(position, stored, raw, bool(flags & _ZSTD), crc))
        position += stored
    if position != offset + length or count < FIRST_BULK:
        raise RecordError("its lengths do not add up", path, offset, offset + length)
    try:
        described_as = _descriptor_decoder.decode(data[_FIXED.size : _FIXED.size + described])
    except msgspec.DecodeError as error:
        raise RecordError(f"its descriptor cannot be read: {error}", path, offset, offset + length) from None
    k = array if array != NO_ARRAY else -1
    return Record(offset, length, sequence, ordinal, levels, k, chunks, described_as, tuple(parts))


def _ahead(descriptor: int, offset: int, length: int) -> bytes:
    """As much of `length` bytes as there is, and can be read. Raises OSError."""
    try:
        return os.pread(descriptor, length, offset)
    except OSError:  # what cannot be read may lie behind the head
        return os.pread(descriptor, min(length, _READ_AHEAD - offset % _READ_AHEAD), offset)


def walk(descriptor: int, path: str, start: int, end: int) -> Iterator[Record]:
    """The heads of the records between two offsets of a log. Raises RecordError at the first that is not whole."""
    while start < end:
        record = read_head(descriptor, path, start, end)
        yield record
        start = record.end


def torn(descriptor: int, start: int, end: int, sequence: int) -> bool:
    """Whether bytes that are no record are all that commit `sequence`, cut short, can have left between two offsets:
    the beginning of one of its records, or nothing but zeros. -1: of no commit that is known. Raises OSError."""
    if end - start >= _FIXED.size:
        magic, length, of, *_ = _FIXED.unpack(os.pread(descriptor, _FIXED.size, start))
        if magic == MAGIC and of == sequence and start + length > end:
            return True
    elif sequence >= 0:
        return True
    for position in range(start, end, 1 << 20):
        piece = os.pread(descriptor, min(1 << 20, end - position), position)
        if piece.count(0) < len(piece):
            return False
    return True


def verify_parts(descriptor: int, path: str, record: Record) -> None:
    """Raises RecordError when a part does not match its checksum. Memory bounded whatever the length."""
    for number, part in enumerate(record.parts):
        try:
            found = stretch.checksum_of(descriptor, part.offset, part.length)
        except OSError as error:
            text = f"part {number} cannot be read: {error.strerror}"
            raise RecordError(text, path, record.offset, record.end) from None
        if found != part.crc32c:
            raise RecordError(f"part {number} does not match its checksum", path, record.offset, record.end)


# --- reading --------------------------------------------------------------------------------------------------


def read_location(descriptor: int, path: str, part: PartLocation) -> bytes | memoryview:
    """A part, verified and decompressed; a long one that is not compressed as a map of the file."""
    try:
        data = stretch.read(descriptor, part.offset, part.length, part.crc32c)
    except OSError as error:
        raise ChecksumError(f"{path}: byte {part.offset} cannot be read: {error.strerror}") from None
    if data is None:
        raise ChecksumError(f"{path}: part at byte {part.offset} does not match its checksum")
    if not part.zstd:
        return data
    try:
        return packing.decompress(data, part.raw_length)
    except ChecksumError as error:
        raise ChecksumError(f"{path}: part at byte {part.offset}: {error.message}") from None


def open_log(root: Root, study: str, series: str) -> tuple[int, str]:
    """(descriptor, relative path) of a series' log. Raises LogError when it is not there."""
    path = layout.log_path(study, series)
    try:
        return os.open(f"{root}/{path}", os.O_RDONLY | os.O_CLOEXEC), path
    except OSError as error:
        raise LogError(path, error) from None


def _opened(root: Root, study: str, series: str) -> tuple[int, str]:
    """`open_log`, where too much that is open is no damage: StorageError."""
    try:
        return open_log(root, study, series)
    except LogError as error:
        if error.ours:
            raise StorageError(error.message) from None
        raise


def read_part(root: Root, entry: InstanceEntry, number: int) -> bytes | memoryview:
    """The raw bytes of a part of an instance's record, verified. Raises ChecksumError, IndexError, StorageError."""
    descriptor, path = _opened(root, entry.descriptor.study, entry.descriptor.series)
    try:
        if number < len(entry.parts):
            return read_location(descriptor, path, entry.parts[number])
        record = read_head(descriptor, path, entry.record_offset, os.fstat(descriptor).st_size)
        return read_location(descriptor, path, record.parts[number])
    finally:
        os.close(descriptor)


def read_parts(root: Root, entries: Iterable[InstanceEntry], number: int) -> Iterator[bytes | memoryview]:
    """The same part of each of many records, one of the first five; each log is opened once."""
    for (study, series), together in itertools.groupby(
        entries, lambda entry: (entry.descriptor.study, entry.descriptor.series)
    ):
        descriptor, path = _opened(root, study, series)
        try:
            for entry in together:
                yield read_location(descriptor, path, entry.parts[number])
        finally:
            os.close(descriptor)


def read_spans(root: Root, entry: InstanceEntry) -> list[Span]:
    """Where the pieces of the received file went. Raises ChecksumError."""
    return decode_spans(read_part(root, entry, SPAN_TABLE))


def decode_spans(raw: Buffer) -> list[Span]:
    try:
        return _span_decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise ChecksumError(f"a span table cannot be read: {error}") from None


def read_bulk(root: Root, entry: InstanceEntry, index: int) -> bytes | memoryview:
    """Bulk value `index` (Span.bulk). Raises ChecksumError, IndexError."""
    return read_part(root, entry, FIRST_BULK + index)
