"""Reading a stretch of a file, its checksum verified: into memory, or as a map of it when it is long."""

from __future__ import annotations

import mmap
import os

from pacs.storage.checksum import crc32c

MAPPED_FROM = 1 << 20
"""A video is one chunk of gigabytes: mapped, it is in the page cache and nowhere else."""

_PIECE = 1 << 20


def checksum_of(descriptor: int, offset: int, length: int) -> int | None:
    """CRC-32C of `length` bytes at `offset`, None where the file ends before. Raises OSError."""
    crc, position, end = 0, offset, offset + length
    while position < end:
        piece = os.pread(descriptor, min(_PIECE, end - position), position)
        if not piece:
            return None
        crc = crc32c(piece, crc)
        position += len(piece)
    return crc


def checksum_and_tail(descriptor: int, offset: int, length: int, tail: int) -> tuple[int | None, bytes]:
    """CRC-32C of `length` bytes at `offset`, None where the file ends before, and the `tail` bytes behind them."""
    if length < MAPPED_FROM:
        data = os.pread(descriptor, length + tail, offset)
        return (crc32c(data[:length]) if len(data) >= length else None), data[length:]
    return checksum_of(descriptor, offset, length), os.pread(descriptor, tail, offset + length)


def read(descriptor: int, offset: int, length: int, checksum: int) -> bytes | memoryview | None:
    """`length` bytes at `offset` whose CRC-32C is `checksum`; None when it is another. Raises OSError."""
    if length < MAPPED_FROM:
        data = os.pread(descriptor, length, offset)
        return data if len(data) == length and crc32c(data) == checksum else None
    # Read once before it is mapped: a failing disk is an OSError here, and would be a SIGBUS in the map.
    if checksum_of(descriptor, offset, length) != checksum:
        return None
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    mapped = mmap.mmap(descriptor, offset + length - start, mmap.MAP_SHARED, mmap.PROT_READ, offset=start)
    mapped.madvise(mmap.MADV_SEQUENTIAL)
    return memoryview(mapped)[offset - start :]
