"""What lies behind the committed end of a log: records that are whole, and what is to be cut off behind them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pacs.errors import ChecksumError, IndexMismatchError, StorageError
from pacs.storage import layout
from pacs.storage.disk import Disk, SyncError
from pacs.storage.files import records
from pacs.storage.files.records import LogError, Record
from pacs.storage.files.walking import walk_damaged
from pacs.storage.index import ReadView, entering
from pacs.storage.layout import Root
from pacs.storage.recovery import set_aside

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tail:
    """What lies behind the committed end of a log."""

    series: tuple[str, str]
    whole: list[Record]
    """Up to the first that is not whole."""
    end: int
    """Of these; the committed end without any."""
    size: int
    """Of the log."""
    arrays: int | None = None
    """When something of it may have been promised to somebody and is not entered: the number of arrays that it may
    have frames in, over which nothing is to be written."""
    stays: bool = False
    """It could not be set aside."""
    copy: str = ""
    """Where it was."""

    def cut_off(self, root: Root, disk: Disk) -> None:
        if self.size > self.end and not self.stays:
            path = f"{root}/{layout.log_path(*self.series)}"
            disk.truncate(path, self.end)
            kept = f", kept in {self.copy}" if self.copy else ""
            _log.warning("%s: cut at byte %d, behind the last whole record%s", path, self.end, kept)


def look(root: Root, view: ReadView, series: tuple[str, str], sequence: int) -> Tail:
    """The tail of a log, where commit `sequence` or an older one that the index does not have may have grown it.

    Raises StorageError when it cannot be opened, IndexMismatchError when it has a record of a later commit.
    """
    start = view.log_end(*series)
    tail = Tail(series, [], start, 0)
    try:
        descriptor, path = records.open_log(root, *series)
    except LogError as error:
        if error.missing:
            return tail
        raise StorageError(error.message) from None
    try:
        tail.size = os.fstat(descriptor).st_size
        for record in records.walk(descriptor, path, start, tail.size):
            if view.instance(record.descriptor.instance) is not None:
                break  # of a batch that failed and could not be taken back, stored since
            if record.sequence > sequence:
                raise IndexMismatchError(
                    f"{path} has a record of commit {record.sequence} where {sequence} was to come: run `pacs reindex`"
                )
            entering.verify(root, series, descriptor, path, record)
            tail.whole.append(record)
            tail.end = record.end
    except ChecksumError:
        pass  # torn, or damaged: this one and what follows is cut off
    finally:
        os.close(descriptor)
    return tail


def put_aside(root: Root, disk: Disk, tail: Tail, never_ended: int) -> None:
    """Copy what is going to be cut off a log, when it may have been promised to somebody; where that fails, it stays.

    `never_ended`: the commit whose records nobody was promised, however whole they are; -1: nobody knows.
    """
    try:
        descriptor, path = records.open_log(root, *tail.series)
    except LogError as error:
        if not error.missing:
            raise StorageError(error.message) from None
        if never_ended < 0 and os.path.isdir(f"{root}/{layout.series_path(*tail.series)}"):
            tail.arrays = 0
        return
    try:
        if never_ended < 0 and (tail.size > tail.end or not tail.whole):
            tail.arrays = 0  # also when all that there was is gone: its frames may be there
        if tail.size <= tail.end:
            return
        torn = _behind(descriptor, path, tail.series, tail.end, tail.size, never_ended)
        if _begins_whole(descriptor, path, torn, tail.size) or not records.torn(
            descriptor, torn, tail.size, never_ended
        ):
            tail.arrays = max((array + 1 for array in _arrays_named(descriptor, path, tail.end, tail.size)), default=0)
            tail.copy = set_aside.keep(root, disk, descriptor, path, tail.end, tail.size)
    except SyncError:
        raise
    except (OSError, ChecksumError) as error:
        reason = error.message if isinstance(error, ChecksumError) else error.strerror
        _log.error("%s: what lies behind byte %d cannot be set aside, and stays: %s", path, tail.end, reason)
        tail.stays = True
    finally:
        os.close(descriptor)


def _behind(descriptor: int, path: str, series: tuple[str, str], start: int, end: int, sequence: int) -> int:
    """Where the heads that are whole, of records of this series and this commit, end."""
    position = start
    with suppress(ChecksumError):
        while position < end:
            record = records.read_head(descriptor, path, position, end)
            if record.sequence != sequence or (record.descriptor.study, record.descriptor.series) != series:
                break
            position = record.end
    return position


def _arrays_named(descriptor: int, path: str, start: int, end: int) -> Iterator[int]:
    """k that heads which are whole name, also where the log ends before their parts do."""
    for found in walk_damaged(descriptor, path, end, start):
        with suppress(ChecksumError):
            yield records.read_head(descriptor, path, found.offset, sys.maxsize).array


def _begins_whole(descriptor: int, path: str, start: int, end: int) -> bool:
    try:
        records.read_head(descriptor, path, start, end)
    except ChecksumError:
        return False
    return True
