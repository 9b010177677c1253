"""The bytes of a shard's index block and of an instance's chunk table.

A shard is what Zarr's `sharding_indexed` codec with `index_location: start` says: a block of fixed size with offset
and length of every inner chunk and a crc32c, then the chunks. The block has its size from the beginning, so a shard
is valid while it grows, and what the block says is never read back to change it: it is composed from the index.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pacs.errors import StorageError
from pacs.storage.checksum import crc32c
from pacs.storage.model import Buffer

ENTRY = struct.Struct("<QQ")
_EMPTY = b"\xff" * ENTRY.size
CHECKSUM = struct.Struct("<I")
_TABLE: dict[int, struct.Struct] = {}


class TableRow(NamedTuple):
    """One inner chunk of an instance, as its record's chunk table says it."""

    position: int
    """In the array."""
    offset: int
    """In the shard."""
    length: int
    """Without the crc32c behind it."""
    crc32c: int
    level_ends: tuple[int, ...]


def index_size(capacity: int) -> int:
    """Bytes of the index block: where the first chunk of a shard begins."""
    return capacity * ENTRY.size + CHECKSUM.size


def entry(row: TableRow) -> bytes:
    """The entry of an inner chunk: Zarr counts its crc32c in its length."""
    return ENTRY.pack(row.offset, row.length + CHECKSUM.size)


def index_block(entries: Buffer, capacity: int) -> bytes:
    """The index block of a shard that holds the chunks of `entries`, packed one behind the other."""
    block = bytes(entries) + _EMPTY * (capacity - len(entries) // ENTRY.size)
    return block + CHECKSUM.pack(crc32c(block))


def end(entries: Buffer, capacity: int) -> int:
    """Where the next chunk goes: behind the last of `entries`."""
    if not len(entries):
        return index_size(capacity)
    offset, length = ENTRY.unpack_from(entries, len(entries) - ENTRY.size)
    return int(offset + length)


def row_struct(levels: int) -> struct.Struct:
    """position u32, offset u64, length u64, crc32c u32, `levels` level ends u32."""
    found = _TABLE.get(levels)
    if found is None:
        found = _TABLE[levels] = struct.Struct(f"<IQQI{levels}I")
    return found


def pack_row(row: TableRow) -> bytes:
    """Raises StorageError when a number does not fit its field."""
    try:
        return row_struct(len(row.level_ends)).pack(*row[:4], *row.level_ends)
    except struct.error as error:
        raise StorageError(f"an inner chunk of {row.length} bytes does not fit the chunk table: {error}") from None


def read_row(table: Buffer, levels: int, n: int) -> TableRow:
    layout = row_struct(levels)
    position, offset, length, crc, *level_ends = layout.unpack_from(table, n * layout.size)
    return TableRow(position, offset, length, crc, tuple(level_ends))


def rows(table: Buffer, levels: int) -> Iterator[TableRow]:
    """All rows of a chunk table."""
    for position, offset, length, crc, *level_ends in row_struct(levels).iter_unpack(table):
        yield TableRow(position, offset, length, crc, tuple(level_ends))
