"""`set-aside/`: copies of ends of logs that were cut off and may be more than what a crash left; arrays that no record
names, moved there."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from contextlib import suppress
from typing import Final

from pacs.errors import ChecksumError
from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.layout import Root

SET_ASIDE: Final = "set-aside"
_PIECE: Final = 1 << 20


def keep(root: Root, disk: Disk, descriptor: int, path: str, start: int, end: int) -> str:
    """Copy a stretch of the log at `path`, relative to the archive, and make the copy durable; where it is.

    Never in the place of another; a copy of the same bytes is not made again: what cannot be cut off is set aside at
    every try. Raises ChecksumError when the log cannot be read, OSError when the copy cannot be
    written.
    """
    directory = f"{root}/{SET_ASIDE}"
    disk.mkdir(directory)
    first = target = f"{directory}/{_name(path)}-{start}"
    again = 1
    while os.path.lexists(target):
        if _is_copy(target, descriptor, path, start, end):
            disk.syncfs(str(root))
            return target
        again += 1
        target = f"{first}.{again}"
    try:
        disk.create(target)
        for offset in range(start, end, _PIECE):
            disk.write(target, offset - start, [_read(descriptor, path, offset, min(_PIECE, end - offset))])
    except BaseException:
        with suppress(OSError):
            disk.unlink(target)
        raise
    disk.syncfs(str(root))
    return target


def move(root: Root, disk: Disk, path: str) -> str:
    """Move a directory of the archive here, never in the place of another; where it is. Raises OSError."""
    disk.mkdir(f"{root}/{SET_ASIDE}")
    first = target = f"{SET_ASIDE}/{_name(path)}"
    again = 1
    while os.path.lexists(f"{root}/{target}"):
        again += 1
        target = f"{first}.{again}"
    disk.rename(f"{root}/{path}", f"{root}/{target}")
    return target


def names(root: Root) -> dict[str, int]:
    """What `holds` and `next_array` ask: of every log and series the highest number behind its name."""
    found: dict[str, int] = {}
    try:
        listed = os.listdir(f"{root}/{SET_ASIDE}")
    except FileNotFoundError:
        return found
    for name in listed:
        stem, _, number = name.rpartition("-")
        number = number.partition(".")[0]
        found[stem] = max(found.get(stem, 0), int(number) if number.isdecimal() else 0)
    return found


def holds(found: Container[str], path: str) -> bool:
    """Whether there is a copy of any end of the log at `path`, relative to the archive."""
    return _name(path) in found


def next_array(found: Mapping[str, int], study: str, series: str) -> int:
    """The first k above those of all arrays of a series that lie here."""
    return found.get(_name(layout.array_path(study, series, 0)).removesuffix("-0"), -1) + 1


def _name(path: str) -> str:
    return path.replace("/", "-")


def _is_copy(target: str, descriptor: int, path: str, start: int, end: int) -> bool:
    """Raises ChecksumError when the log cannot be read."""
    try:
        with open(target, "rb") as copy:
            return os.fstat(copy.fileno()).st_size == end - start and all(
                copy.read(_PIECE) == _read(descriptor, path, offset, min(_PIECE, end - offset))
                for offset in range(start, end, _PIECE)
            )
    except OSError:  # another copy, then
        return False


def _read(descriptor: int, path: str, offset: int, length: int) -> bytes:
    try:
        data = os.pread(descriptor, length, offset)
    except OSError as error:
        raise ChecksumError(f"{path}: byte {offset} cannot be read: {error.strerror}") from None
    if len(data) < length:
        raise ChecksumError(f"{path}: it ends before byte {offset + length}")
    return data
