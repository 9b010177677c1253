"""Which of the files that a user names are worth sending: everything that begins like DICOM, nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count as count_from
from pathlib import Path

from pacs.client.tally import Result, Status

_MEDIA_STORAGE_DIRECTORY = b"1.2.840.10008.1.3.10"
_HEAD = 512


@dataclass(frozen=True, slots=True)
class Found:
    """A file to send; or one to leave out, and why."""

    path: Path
    size: int
    skipped: str = ""
    """Not an instance: of no interest."""
    unreadable: str = ""
    """May be an instance, and could not be read, or was asked for by name: the user must know."""
    content: bytes | None = None
    """What to send where there is no file; `path` is then a name for people."""

    @property
    def usable(self) -> bool:
        return not self.skipped and not self.unreadable


def of_sources(sources: Iterable[str | Path | bytes]) -> Iterator[Found]:
    """Files and folders as `walk` finds them, and bytes of Part 10 files, which are numbered from 1."""
    numbers = count_from(1)
    for source in sources:
        if isinstance(source, bytes):
            name = Path(f"<bytes {next(numbers)}>")
            reason = why_not_dicom(source[:_HEAD], len(source))
            yield Found(name, len(source), unreadable=reason, content=source)
        else:
            yield from walk((Path(source),))


def walk(paths: Iterable[Path]) -> Iterator[Found]:
    """Every file under `paths`, folders in the order of names. Links are followed, each folder is seen once."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            yield Found(path, 0, unreadable=_reason(error))
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _walk_folder(path, status, seen)
            continue
        found = _look(path, status)
        # A file that was asked for by name and is not DICOM is a mistake; one that lies in a folder is not.
        yield Found(path, found.size, unreadable=found.skipped) if found.skipped else found


def _walk_folder(folder: Path, status: os.stat_result, seen: set[tuple[int, int]]) -> Iterator[Found]:
    waiting = [(folder, status)]
    while waiting:
        folder, status = waiting.pop()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            yield Found(folder, 0, unreadable=_reason(error))
            continue
        folders = []
        for name in names:
            path = folder / name
            try:
                status = path.stat()
            except OSError as error:
                yield Found(path, 0, unreadable=_reason(error))
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append((path, status))
            else:
                yield _look(path, status)
        waiting.extend(reversed(folders))


def _look(path: Path, status: os.stat_result) -> Found:
    if not stat.S_ISREG(status.st_mode):
        return Found(path, 0, skipped="not a regular file")
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_HEAD)
    except OSError as error:
        return Found(path, status.st_size, unreadable=_reason(error))
    return Found(path, status.st_size, skipped=why_not_dicom(head, status.st_size))


def why_not_dicom(head: bytes, size: int) -> str:
    """"" when a file of `size` bytes that begins with `head` looks like DICOM, with or without its preamble."""
    if size == 0:
        return "empty"
    if head[128:132] == b"DICM":
        return "a DICOMDIR, not an instance" if _MEDIA_STORAGE_DIRECTORY in head[132:] else ""
    return "" if _starts_with_element(head, size) else "not DICOM"


def _starts_with_element(head: bytes, size: int) -> bool:
    """Whether the first bytes are a Data Element of group 0002 or 0008 that fits into the file. PS3.5 7.1"""
    if len(head) < 8 or head[:2] not in (b"\2\0", b"\x08\0", b"\0\x08"):
        return False
    if head[4:6].isalpha() and head[4:6].isupper():
        return True
    return 8 + int.from_bytes(head[4:8], "little") <= size


def usable(found: Iterable[Found], settle: Callable[[Result], None]) -> Iterator[Found]:
    """What of `found` is to be sent; `settle` hears of the others."""
    for file in found:
        if file.usable:
            yield file
        else:
            status = Status.SKIPPED if file.skipped else Status.UNREADABLE
            settle(Result(file.path, file.size, status, file.skipped or file.unreadable))


def count(paths: Iterable[Path]) -> int:
    """How many files `walk` will look at, for a progress bar; errors are left to `walk`."""
    total = 0
    for path in paths:
        if not path.is_dir():
            total += 1
            continue
        for _, _, names in os.walk(path):
            total += len(names)
    return total


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
