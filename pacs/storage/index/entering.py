"""A record as it lies on the disk: verified, and entered into the index as its commit did."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from pacs import tags
from pacs.errors import ChecksumError
from pacs.storage import layout
from pacs.storage.files import frames, records, shard
from pacs.storage.files.records import Record
from pacs.storage.index.entries import Entries
from pacs.storage.layout import Root
from pacs.storage.model import ChunkLocation


def verify(
    root: Root, series: tuple[str, str], descriptor: int, path: str, record: Record, *, with_frames: bool = True
) -> bytes:
    """The chunk table of a record that belongs here and is whole, with its frames. Raises ChecksumError."""
    if (record.descriptor.study, record.descriptor.series) != series:
        raise records.RecordError("it is of another series", path, record.offset, record.end)
    records.verify_parts(descriptor, path, record)
    index_attributes(bytes(records.read_location(descriptor, path, record.parts[records.JSON])))
    table = table_of(descriptor, path, record)
    if with_frames:
        verify_frames(root, record, table)
    return table


def table_of(descriptor: int, path: str, record: Record) -> bytes:
    """The chunk table of a record; its length checked. Raises ChecksumError."""
    table = records.read_location(descriptor, path, record.parts[records.CHUNK_TABLE])
    if len(table) != record.chunks * shard.row_struct(record.levels).size:
        raise records.RecordError("its chunk table has another length", path, record.offset, record.end)
    if record.chunks and (record.array < 0 or record.descriptor.array_key is None):
        raise records.RecordError("it has chunks but no array", path, record.offset, record.end)
    return bytes(table)


def locations(record: Record, table: bytes) -> Iterator[ChunkLocation]:
    """Where the chunks of a record lie."""
    key = record.descriptor.array_key
    if key is None:
        return
    array = layout.array_path(record.descriptor.study, record.descriptor.series, record.array)
    for row in shard.rows(table, record.levels):
        path = f"{array}/{layout.shard_name(key, row.position // key.capacity)}"
        yield ChunkLocation(path, row.offset, row.length, row.crc32c, row.level_ends)


def verify_frames(root: Root, record: Record, table: bytes) -> None:
    """Raises ChecksumError when a chunk of this record is not what it should be."""
    for location in locations(record, table):
        frames.read_chunk(root, location)


def enter(root: Root, entries: Entries, record: Record) -> None:
    """Enter a record as the commit would have. Raises ChecksumError."""
    descriptor, path = records.open_log(root, record.descriptor.study, record.descriptor.series)
    try:
        table = table_of(descriptor, path, record)
        json = records.read_location(descriptor, path, record.parts[records.JSON])
    finally:
        os.close(descriptor)
    entries.add(record, table, index_attributes(bytes(json)))


_KEPT = tuple((tag, tags.text(tag)) for tag in (*tags.STUDY_TAGS, *tags.SERIES_TAGS, *tags.INSTANCE_TAGS))
_decode_elements = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def index_attributes(json: bytes) -> dict[int, bytes]:
    """JSON text by tag of the elements of a Data Set that the index keeps. Raises ChecksumError."""
    try:
        elements = _decode_elements(json)
    except msgspec.DecodeError as error:
        raise ChecksumError(f"stored DICOM JSON cannot be read: {error}") from None
    return {tag: bytes(elements[text]) for tag, text in _KEPT if text in elements}
