"""What the allocator does with memory that is freed."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""malloc.h"""
_KEPT: Final = 64 << 20
_LARGEST: Final = 32 << 20
"""Bytes. glibc arrives at these by itself once a frame of that size was freed; until then it gives the memory of each
upload back to the kernel, which fills it with zeros again for the next one."""


def keep_freed() -> None:
    """Let this process keep up to 64 MiB that it has freed. Without effect where the C library is another."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
