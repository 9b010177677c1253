"""Copying a log of which the disk cannot read all: blocks that it cannot read are zeros in the copy."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Final

_BLOCK: Final = 4096


def readable(descriptor: int, position: int) -> bool:
    """Whether the disk can read a byte."""
    try:
        os.pread(descriptor, 1, position)
    except OSError:
        return False
    return True


def alike(theirs: bytes, ours: bytes, start: int) -> bool:
    """Whether two stretches from `start` on are the same, but for blocks that could not be read when they were
    copied: they are zeros in ours."""
    if len(theirs) != len(ours):
        return False
    bounds = [0, *range(_BLOCK - start % _BLOCK, len(ours), _BLOCK), len(ours)]
    return all(
        theirs[first:end] == ours[first:end] or ours.count(0, first, end) == end - first
        for first, end in pairwise(bounds)
    )


def read(descriptor: int, start: int, length: int) -> bytes:
    """A stretch of a log. Blocks that the disk cannot read are zeros."""
    try:
        return os.pread(descriptor, length, start)
    except OSError:
        if length <= _BLOCK and start // _BLOCK == (start + length - 1) // _BLOCK:
            return bytes(length)
    middle = _BLOCK - start % _BLOCK
    while 2 * middle < length:
        middle *= 2
    return read(descriptor, start, middle) + read(descriptor, start + middle, length - middle)
