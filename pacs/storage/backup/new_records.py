"""What an archive has that its copy has not: logs that have grown, and their new records in the order of commits."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np

from pacs.errors import BackupError, ChecksumError, StorageError
from pacs.storage import layout
from pacs.storage.backup import unread
from pacs.storage.files import records
from pacs.storage.files.records import LogError, Record, RecordError
from pacs.storage.files.walking import walk_damaged
from pacs.storage.index import Index, ReadView, entering
from pacs.storage.layout import Root
from pacs.storage.model import Counters

_BATCH_RECORDS: Final = 5000
_COMPARED: Final = 4096
"""Bytes before the end of a log by which the copy is recognised."""
_ORDINALS: Final = 1 << 16


@dataclass(slots=True, eq=False)
class GrownLog:
    """The log of a series that has grown since the last backup, or that lacks instances in the copy."""

    study: str
    series: str
    start: int
    """How far the last backup has copied it."""
    end: int
    """How far this one does."""
    more: int
    """Instances that the archive's index has of it beyond those that the copy's has."""
    copied: int
    """How far it is copied by now."""
    arrays: int = 0
    """More than the k of any array that its new records have frames in."""
    given_up: bool = False
    """It cannot be read: left to the next backup."""
    left_out: bool = False
    """It has records that are not entered into the copy."""

    @property
    def unfinished(self) -> bool:
        return not self.given_up and self.copied < self.end


class NewRecords:
    """The records to copy from `source` to `target`, whose indices are `index` and `copy`.

    What cannot be read is named in `damaged` and passed over.
    """

    def __init__(self, source: Root, index: Index, target: Root, copy: Index, damaged: list[str]) -> None:
        self._source, self._index = source, index
        self._target, self._copy = target, copy
        self._damaged = damaged
        self.counters = Counters()
        """Of the archive, at the moment that is copied."""
        self.logs: list[GrownLog] = []
        self.late: set[tuple[str, str]] = set()
        """(study, series) that get instances of commits that the copy was at before."""
        self.sequence = 0
        """The commit that the copy is at."""
        # One row a record: order of commit, number of its log, offset, size. 32 bytes, so millions fit in memory.
        self._orders, self._places, self._offsets, self._sizes = array("Q"), array("Q"), array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._orders)

    def find(self) -> None:
        """Raises BackupError when the copy has what the archive has not."""
        self._compare()
        for log in self.logs:
            with self.reading(log):
                self._recognise(log)
        for place, log in enumerate(self.logs):
            if not log.given_up:
                with self.reading(log):
                    self._collect(place, log)

    @contextmanager
    def reading(self, log: GrownLog) -> Iterator[None]:
        """Leaves a log that cannot be read to the next backup. Raises StorageError when that is no fault of the log."""
        try:
            yield
        except ChecksumError as error:
            if isinstance(error, LogError) and error.ours:
                raise StorageError(error.message) from None
            self._damaged.append(error.message)
            log.given_up = True

    # --- logs that have grown ---

    def _compare(self) -> None:
        known = 0
        with self._index.read() as theirs, self._copy.read() as ours:
            counters = ours.counters()
            self.counters = theirs.counters()
            self.sequence = counters.sequence
            for study, series, end, instances in _logs(theirs):
                start, entry = ours.log_end(study, series), ours.series(study, series)
                known += entry is not None
                if start > end:
                    raise self._foreign(f"series {series} has more than the archive's")
                more = instances - (entry.instances if entry is not None else 0)
                if start < end or more > 0:
                    self.logs.append(GrownLog(study, series, start, end, more, copied=start))
                elif end:
                    self._look(layout.log_path(study, series), end)
        if counters.sequence > self.counters.sequence or counters.series != known:
            raise self._foreign("it has what the archive has not")

    def _look(self, path: str, end: int) -> None:
        """Whether a log of which there is nothing to copy is still in the archive."""
        try:
            size = os.stat(f"{self._source}/{path}").st_size
        except OSError as error:
            self._damaged.append(f"{path} cannot be read: {error.strerror}")
            return
        if size < end:
            self._damaged.append(f"{path} has {size} bytes, the index knows {end}")

    def _recognise(self, log: GrownLog) -> None:
        """Raises BackupError when the log of the copy is not how the archive's begins."""
        if not log.start:
            return
        start = max(0, log.start - _COMPARED)
        tails = []
        for root in (self._source, self._target):
            descriptor, path = records.open_log(root, log.study, log.series)
            try:
                tails.append(os.pread(descriptor, log.start - start, start))
            except OSError as error:
                raise ChecksumError(f"{path}: byte {start} cannot be read: {error.strerror}") from None
            finally:
                os.close(descriptor)
        if not unread.alike(tails[0], tails[1], start):
            raise self._foreign(f"series {log.series} is not the archive's")

    def _foreign(self, text: str) -> BackupError:
        return BackupError(f"{self._target} has been written to, not only by backups of {self._source}: {text}")

    # --- their records ---

    def _collect(self, place: int, log: GrownLog) -> None:
        """Note where the new records of a series are; those that the archive's index has not are named."""
        descriptor, path = records.open_log(self._source, log.study, log.series)
        end, size = log.end, os.fstat(descriptor).st_size
        try:
            if size < end:
                self._damaged.append(f"{path} has {size} bytes, the index knows {end}")
                end = max(size, log.start)
            cut, more = -1, log.more
            latest: Record | None = None
            with self._index.read() as view:
                for found in walk_damaged(descriptor, path, end, log.start):
                    if isinstance(found, RecordError):
                        self._damaged.append(found.message)
                        log.left_out = True
                        if found.unread and cut < 0:
                            cut = found.offset
                        continue
                    latest, cut = found, -1  # what could not be read before it is zeros in the copy
                    log.arrays = max(log.arrays, found.array + 1)
                    if _has(view, found):
                        more -= 1
                        self._note(place, found)
                        continue
                    log.left_out = True
                    self._damaged.append(
                        f"{path}: record at byte {found.offset}: the archive's index has no instance here, and it is "
                        "not copied: run `pacs check` on the archive"
                    )
            if latest is not None and not unread.readable(descriptor, latest.end - 1):
                self._damaged.append(f"{path}: the end of the record at byte {latest.offset} cannot be read")
                cut = latest.offset
                if self._offsets and (self._places[-1], self._offsets[-1]) == (place, cut):
                    for noted in (self._orders, self._places, self._offsets, self._sizes):
                        noted.pop()
            if more > 0:
                self._collect_late(place, descriptor, path, min(size, log.start))
        finally:
            os.close(descriptor)
        log.end = cut if cut >= 0 else end

    def _collect_late(self, place: int, descriptor: int, path: str, end: int) -> None:
        """Note what can be read again of what an earlier backup could not copy, or the archive's index did not have."""
        log = self.logs[place]
        with self._index.read() as theirs, self._copy.read() as ours:
            for found in walk_damaged(descriptor, path, end):
                if isinstance(found, RecordError):
                    self._damaged.append(found.message)
                    log.left_out = True
                elif _has(ours, found):
                    continue
                elif not _has(theirs, found):
                    log.left_out = True
                else:
                    try:
                        entering.verify(
                            self._source, (log.study, log.series), descriptor, path, found, with_frames=False
                        )
                    except ChecksumError as error:
                        self._damaged.append(error.message)
                        log.left_out = True
                        continue
                    self._note(place, found)

    def _note(self, place: int, record: Record) -> None:
        if record.sequence <= self.sequence:
            self.late.add((record.descriptor.study, record.descriptor.series))
        self._orders.append(record.sequence * _ORDINALS + record.ordinal)
        self._places.append(place)
        self._offsets.append(record.offset)
        # Frames are about half of the file; how long exactly is not worth reading the table for.
        self._sizes.append(record.length + record.descriptor.file_size // 2)

    # --- in the order of commits ---

    def batches(self, most_bytes: int) -> Iterator[list[int]]:
        """Rows for `head`, of about `most_bytes` bytes together, cut between two commits."""
        order = np.argsort(np.array(self._orders, np.uint64), kind="stable")
        batch: list[int] = []
        size = 0
        for _, commit in groupby((int(row) for row in order), key=self.commit):
            rows = list(commit)
            amount = sum(self._sizes[row] for row in rows)
            if batch and (size + amount > most_bytes or len(batch) + len(rows) > _BATCH_RECORDS):
                yield batch
                batch, size = [], 0
            batch += rows
            size += amount
        if batch:
            yield batch

    def commit(self, row: int) -> int:
        """The sequence number of the commit that a record is of."""
        return self._orders[row] // _ORDINALS

    def log(self, row: int) -> GrownLog:
        """That a record is in."""
        return self.logs[self._places[row]]

    def head(self, row: int) -> Record:
        """A record, read again. Raises ChecksumError."""
        log = self.log(row)
        descriptor, path = records.open_log(self._source, log.study, log.series)
        try:
            return records.read_head(descriptor, path, self._offsets[row], log.end)
        finally:
            os.close(descriptor)


def _has(view: ReadView, record: Record) -> bool:
    """Whether the index has the instance of a record, and there."""
    entry = view.instance(record.descriptor.instance)
    return entry is not None and (entry.record_offset, entry.sequence) == (record.offset, record.sequence)


def _logs(view: ReadView) -> Iterator[tuple[str, str, int, int]]:
    """(study, series, committed length, instances in the index) of every log."""
    for study in view.studies():
        for series in view.series_of(study.uid):
            yield study.uid, series.uid, view.files(series.number).log_end, series.instances
    for study_uid, uid in view.left():
        yield study_uid, uid, view.left_files(study_uid, uid).log_end, 0
