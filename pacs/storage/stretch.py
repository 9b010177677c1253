"""Reading a stretch of a file: into memory, or as a map of it when it is long."""

from __future__ import annotations

import mmap
import os

MAPPED_FROM = 16 << 20
"""A video is one chunk of gigabytes: mapped, it is in the page cache and nowhere else."""


def read(descriptor: int, offset: int, length: int) -> bytes | memoryview:
    """`length` bytes at `offset`, fewer where the file ends before. Raises OSError."""
    if length < MAPPED_FROM:
        return os.pread(descriptor, length, offset)
    length = min(length, os.fstat(descriptor).st_size - offset)
    if length <= 0:
        return b""
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    mapped = mmap.mmap(descriptor, offset - start + length, mmap.MAP_SHARED, mmap.PROT_READ, offset=start)
    mapped.madvise(mmap.MADV_SEQUENTIAL)
    return memoryview(mapped)[offset - start :]
