"""Walking a log that may be damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pacs.storage import records
from pacs.storage.records import Record, RecordError


def walk_damaged(descriptor: int, path: str, end: int, start: int = 0) -> Iterator[Record | RecordError]:
    """Every record of a log from `start` on, going on behind those whose head is damaged."""
    position = start
    while position < end:
        try:
            record = records.read_head(descriptor, path, position, end)
        except RecordError as error:
            yield error
            position = _next_magic(descriptor, position + 1, end)
            continue
        yield record
        position = record.end


def _next_magic(descriptor: int, start: int, end: int) -> int:
    """Where a record may begin. Bytes of a bulk value may look like it: then that is one more error, no record."""
    piece_length = 1 << 20
    while start < end:
        piece = os.pread(descriptor, piece_length, start)
        found = piece.find(records.MAGIC)
        if found >= 0:
            return min(start + found, end)
        if len(piece) < piece_length:
            break
        start += len(piece) - len(records.MAGIC) + 1
    return end
