"""Walking a log that may be damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pacs.storage.files import records
from pacs.storage.files.records import Record, RecordError

_PIECE = 1 << 20
_BLOCK = 4096
"""What a disk reads, or cannot read, at a time."""


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
    """Where a record may begin. Bytes of a bulk value may look like it: then that is one more error, no record.

    What the disk cannot read is passed over block by block, in longer and longer steps as long as nothing can be read.
    """
    length, step = _PIECE, _BLOCK
    while start < end:
        wanted = length - start % _BLOCK
        if wanted < len(records.MAGIC):
            wanted += _BLOCK
        try:
            piece = os.pread(descriptor, wanted, start)
        except OSError:
            if length == _BLOCK:
                start += step - start % _BLOCK
                step = min(2 * step, _PIECE)
            length = _BLOCK
            continue
        found = piece.find(records.MAGIC)
        if found >= 0:
            return min(start + found, end)
        if len(piece) < wanted:
            break
        start += len(piece) - len(records.MAGIC) + 1
        length, step = min(2 * length, _PIECE), _BLOCK
    return end
