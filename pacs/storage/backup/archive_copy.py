"""A copy of an archive that is an archive itself, brought up to date while the archive is written to.

What is committed never changes and is durable before the index tells of it. So a moment of the index names bytes that
can be read at leisure, whatever is stored meanwhile, and what two moments differ in is the ends of logs: only those
records and their frames are copied, each verified on its way. They are entered into the copy's own index in the
order of their commits and in batches that end between two of them: whenever a backup is cut short, its copy is the
archive as it was at an earlier commit. What cannot be read is named and passed over, and the rest is copied: the next
backup tries again a log that ends with it, or cannot be opened, and what the index of the archive has more of a log
than the copy's. There are no hard links: the last shard and the log of a series still grow.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pacs.errors import BackupError, ChecksumError, StorageError
from pacs.storage import layout
from pacs.storage.backup import late_entries, unread
from pacs.storage.backup.copied_files import CopiedFiles
from pacs.storage.disk import Disk
from pacs.storage.files import hierarchy, records
from pacs.storage.files.last_commit import LastCommit
from pacs.storage.files.records import LogError, Record, RecordError
from pacs.storage.files.walking import walk_damaged
from pacs.storage.index import Index, ReadView, WriteView, entering
from pacs.storage.index.entries import Entries
from pacs.storage.layout import Root
from pacs.storage.locks import ArchiveLock, WriterLock
from pacs.storage.model import Counters
from pacs.storage.recovery import copying, recovery, settling

BATCH_BYTES: Final = 256 << 20
"""Copied between two syncs of the copy: what a backup that is cut short does again at most."""
_BATCH_RECORDS: Final = 5000
_COMPARED: Final = 4096
"""Bytes before the end of a log by which the copy is recognised."""
_ORDINALS: Final = 1 << 16

Progress = Callable[[int, int, int], None]
"""Called with (instances copied, of how many, bytes copied)."""


@dataclass(slots=True)
class BackedUp:
    """What `backup` did."""

    instances: int = 0
    bytes: int = 0
    """Written to logs and shards of the copy."""
    sequence: int = 0
    """The commit of the archive that the copy now stands at."""
    damaged: list[str] = field(default_factory=list)
    """What does not match its checksum in the archive, and is in the copy as it is; what cannot be read, and what its
    index has left out: the next backup that can tries again."""


class _Grown(NamedTuple):
    """A series whose log has grown since the last backup, from `start` to `end`, or lacks instances in the copy."""

    study: str
    series: str
    start: int
    end: int
    more: int
    """Instances that the archive's index has of it beyond those that the copy's has."""


def backup(
    source: Root, index: Index, target: Root, *, disk: Disk | None = None, batch_bytes: int = BATCH_BYTES,
    progress: Progress | None = None,
) -> BackedUp:  # fmt: skip
    """Bring `target` to the newest commit of the archive `source`, whose open index is `index`.

    `target` is a copy made by this before, or a directory that is missing or empty. Raises BackupError when it is
    something else or has been written to by others, ArchiveLockedError while somebody has it open, OSError when its
    disk refuses: the next run goes on from there.
    """
    _check_apart(source, target)
    description = layout.read_description(source)
    with ExitStack() as closing:
        if disk is None:
            disk = Disk()
            closing.callback(disk.close)
        if not layout.is_archive(target):
            layout.create(disk, target, description)
        elif layout.read_description(target).archive_id != description.archive_id:
            raise BackupError(f"{target} is another archive than {source}")
        lock = ArchiveLock(target, exclusive=True)
        closing.callback(lock.close)
        writer = WriterLock(target)
        closing.callback(writer.close)
        with writer:
            copy = recovery.open_index(target, disk)
            closing.callback(copy.close)
            return _Backup(source, index, target, copy, disk, batch_bytes, progress or (lambda *_: None)).run()


def _check_apart(source: Root, target: Root) -> None:
    here, there = os.path.realpath(source), os.path.realpath(target)
    if here == there or os.path.commonpath((here, there)) in (here, there):
        raise BackupError(f"{target} and {source} are not apart: one holds the other")


class _Backup:
    def __init__(
        self, source: Root, index: Index, target: Root, copy: Index, disk: Disk, batch_bytes: int, progress: Progress
    ) -> None:
        self._source, self._index = source, index
        self._target, self._copy = target, copy
        self._disk = disk
        self._files = CopiedFiles(source, target, disk)
        self._batch_bytes = batch_bytes
        self._progress = progress
        self._last = LastCommit(target, disk)
        self._counters = Counters()
        """Of the archive, at the moment that is copied."""
        self._grown: list[_Grown] = []
        self._ends: list[int] = []
        """How far the log of each grown series has been copied."""
        self._arrays: list[int] = []
        """More than the k of any array that its new records have frames in."""
        self._given_up: set[int] = set()
        """Numbers of grown series whose log cannot be read: left to the next backup."""
        self._left_out: set[int] = set()
        """Of those that have records which are not entered into the copy."""
        self._late: set[tuple[str, str]] = set()
        """(study, series) that get instances of commits that the copy was at before."""
        self._sequence = 0
        """Of the copy. What could not be read before may be of an older commit."""
        self._passed = 0
        self._done = BackedUp()
        # One row a record: order of commit, number of its series, offset, size. 32 bytes, so millions fit in memory.
        self._orders, self._places, self._offsets, self._sizes = array("Q"), array("Q"), array("Q"), array("Q")
        self._total = 0

    def run(self) -> BackedUp:
        self._compare()
        for work in (self._recognise, self._collect):
            for place, grown in enumerate(self._grown):
                if place not in self._given_up:
                    with self._reading(place):
                        work(place, grown)
        orders = np.array(self._orders, np.uint64)
        order = np.argsort(orders, kind="stable")
        self._total = len(order)
        for rows in self._batches(order):
            self._passed += len(rows)
            last = self._passed == self._total
            self._copy_batch(rows, self._done.sequence if last else int(self._orders[rows[-1]]) // _ORDINALS, last)
        if self._behind():
            self._copy_batch([], self._done.sequence, True)
        self._disk.syncfs(str(self._target))
        self._done.bytes = self._files.bytes
        with self._copy.read() as ours:
            if ours.counters() != self._counters:
                self._done.damaged.append("the copy counts otherwise than the archive: run `pacs check` on both")
        return self._done

    def _behind(self) -> bool:
        """Whether the last commits entered nothing, or a log ends with what is no record."""
        with self._copy.read() as ours:
            if ours.counters().sequence < self._done.sequence:
                return True
        return any(self._to_copy(place) for place in range(len(self._grown)))

    def _to_copy(self, place: int) -> bool:
        return place not in self._given_up and self._ends[place] < self._grown[place].end

    @contextmanager
    def _reading(self, place: int) -> Iterator[None]:
        """Leaves a log that cannot be read to the next backup. Raises StorageError when that is no fault of the log."""
        try:
            yield
        except ChecksumError as error:
            if isinstance(error, LogError) and error.ours:
                raise StorageError(error.message) from None
            self._done.damaged.append(error.message)
            self._given_up.add(place)

    # --- what is new ---

    def _compare(self) -> None:
        """Find the logs that have grown. Raises BackupError when the copy has what the archive has not."""
        known = 0
        with self._index.read() as theirs, self._copy.read() as ours:
            counters = ours.counters()
            self._counters = theirs.counters()
            self._done.sequence = self._counters.sequence
            self._sequence = counters.sequence
            for study, series, end, instances in _logs(theirs):
                start, entry = ours.log_end(study, series), ours.series(study, series)
                known += entry is not None
                if start > end:
                    raise self._foreign(f"series {series} has more than the archive's")
                more = instances - (entry.instances if entry is not None else 0)
                if start < end or more > 0:
                    self._grown.append(_Grown(study, series, start, end, more))
                elif end:
                    self._look(layout.log_path(study, series), end)
        if counters.sequence > self._done.sequence or counters.series != known:
            raise self._foreign("it has what the archive has not")
        self._ends = [grown.start for grown in self._grown]
        self._arrays = [0] * len(self._grown)

    def _look(self, path: str, end: int) -> None:
        """Whether a log of which there is nothing to copy is still in the archive."""
        try:
            size = os.stat(f"{self._source}/{path}").st_size
        except OSError as error:
            self._done.damaged.append(f"{path} cannot be read: {error.strerror}")
            return
        if size < end:
            self._done.damaged.append(f"{path} has {size} bytes, the index knows {end}")

    def _recognise(self, place: int, grown: _Grown) -> None:
        """Raises BackupError when the log of the copy is not how the archive's begins."""
        if not grown.start:
            return
        start = max(0, grown.start - _COMPARED)
        tails = []
        for root in (self._source, self._target):
            descriptor, path = records.open_log(root, grown.study, grown.series)
            try:
                tails.append(os.pread(descriptor, grown.start - start, start))
            except OSError as error:
                raise ChecksumError(f"{path}: byte {start} cannot be read: {error.strerror}") from None
            finally:
                os.close(descriptor)
        if not unread.alike(tails[0], tails[1], start):
            raise self._foreign(f"series {grown.series} is not the archive's")

    def _foreign(self, text: str) -> BackupError:
        return BackupError(f"{self._target} has been written to, not only by backups of {self._source}: {text}")

    def _collect(self, place: int, grown: _Grown) -> None:
        """Note where the new records of a series are; those that the archive's index has not are named."""
        descriptor, path = records.open_log(self._source, grown.study, grown.series)
        end, size = grown.end, os.fstat(descriptor).st_size
        try:
            if size < end:
                self._done.damaged.append(f"{path} has {size} bytes, the index knows {end}")
                end = max(size, grown.start)
            cut, more = -1, grown.more
            latest: Record | None = None
            with self._index.read() as view:
                for found in walk_damaged(descriptor, path, end, grown.start):
                    if isinstance(found, RecordError):
                        self._done.damaged.append(found.message)
                        self._left_out.add(place)
                        if found.unread and cut < 0:
                            cut = found.offset
                        continue
                    latest, cut = found, -1  # what could not be read before it is zeros in the copy
                    self._arrays[place] = max(self._arrays[place], found.array + 1)
                    if _has(view, found):
                        more -= 1
                        self._note(place, found)
                        continue
                    self._left_out.add(place)
                    self._done.damaged.append(
                        f"{path}: record at byte {found.offset}: the archive's index has no instance here, and it is "
                        "not copied: run `pacs check` on the archive"
                    )
            if latest is not None and not unread.readable(descriptor, latest.end - 1):
                self._done.damaged.append(f"{path}: the end of the record at byte {latest.offset} cannot be read")
                cut = latest.offset
                if self._offsets and (self._places[-1], self._offsets[-1]) == (place, cut):
                    for noted in (self._orders, self._places, self._offsets, self._sizes):
                        noted.pop()
            if more > 0:
                self._collect_late(place, descriptor, path, min(size, grown.start))
        finally:
            os.close(descriptor)
        self._grown[place] = grown._replace(end=cut if cut >= 0 else end)

    def _collect_late(self, place: int, descriptor: int, path: str, end: int) -> None:
        """Note what can be read again of what an earlier backup could not copy, or the archive's index did not have."""
        grown = self._grown[place]
        with self._index.read() as theirs, self._copy.read() as ours:
            for found in walk_damaged(descriptor, path, end):
                if isinstance(found, RecordError):
                    self._done.damaged.append(found.message)
                    self._left_out.add(place)
                elif _has(ours, found):
                    continue
                elif not _has(theirs, found):
                    self._left_out.add(place)
                else:
                    try:
                        entering.verify(
                            self._source, (grown.study, grown.series), descriptor, path, found, with_frames=False
                        )
                    except ChecksumError as error:
                        self._done.damaged.append(error.message)
                        self._left_out.add(place)
                        continue
                    self._note(place, found)

    def _note(self, place: int, record: Record) -> None:
        if record.sequence <= self._sequence:
            self._late.add((record.descriptor.study, record.descriptor.series))
        self._orders.append(record.sequence * _ORDINALS + record.ordinal)
        self._places.append(place)
        self._offsets.append(record.offset)
        # Frames are about half of the file; how long exactly is not worth reading the table for.
        self._sizes.append(record.length + record.descriptor.file_size // 2)

    def _batches(self, order: npt.NDArray[np.intp]) -> Iterator[list[int]]:
        """Rows in the order of commits, cut between two commits."""
        batch: list[int] = []
        size = 0
        for _, commit in groupby((int(row) for row in order), key=lambda row: self._orders[row] // _ORDINALS):
            rows = list(commit)
            amount = sum(self._sizes[row] for row in rows)
            if batch and (size + amount > self._batch_bytes or len(batch) + len(rows) > _BATCH_RECORDS):
                yield batch
                batch, size = [], 0
            batch += rows
            size += amount
        if batch:
            yield batch

    # --- copying it ---

    def _head(self, row: int) -> Record:
        grown = self._grown[self._places[row]]
        descriptor, path = records.open_log(self._source, grown.study, grown.series)
        try:
            return records.read_head(descriptor, path, self._offsets[row], grown.end)
        finally:
            os.close(descriptor)

    def _copy_batch(self, rows: Sequence[int], sequence: int, last: bool) -> None:
        """Copy these records with their frames, and be at commit `sequence`. The order is that of a commit."""
        sequence = self._sequence = max(sequence, self._sequence)
        heads: list[tuple[int, Record]] = []
        ends: dict[int, int] = {}
        for row in rows:
            place = self._places[row]
            if place not in self._given_up:
                with self._reading(place):
                    heads.append((place, self._head(row)))
                    ends[place] = max(self._ends[place], heads[-1][1].end)
        if last:  # what follows the last record that is whole
            ends.update((place, grown.end) for place, grown in enumerate(self._grown) if self._to_copy(place))
        touched = [self._grown[place] for place in sorted(ends)]
        copying.begin(self._target, self._disk, [(grown.study, grown.series) for grown in touched])
        for grown in touched:
            hierarchy.write_groups(self._disk, self._target, hierarchy.series_groups(grown.study, grown.series))
        for position, (place, record) in enumerate(heads):
            self._progress(self._done.instances + position, self._total, self._files.bytes)
            self._done.damaged += self._files.copy_frames(record)
            if record.offset < self._grown[place].start:  # what an earlier backup copied of it may be zeros
                with self._reading(place):
                    described = record.descriptor
                    self._files.copy_stretch(described.study, described.series, record.offset, record.end)
        for place, end in ends.items():
            with self._reading(place):
                self._copy_log(place, end)
        self._last.write(sequence, [])
        self._disk.syncfs(str(self._target))
        self._disk.step("copied")
        self._enter(heads, sorted(ends), sequence)
        self._disk.step("entered")
        copying.end(self._target, self._disk)
        self._done.instances += len(heads)
        self._progress(self._done.instances, self._total, self._files.bytes)

    def _copy_log(self, place: int, end: int) -> None:
        grown = self._grown[place]
        self._files.copy_stretch(grown.study, grown.series, self._ends[place], end)
        self._ends[place] = end

    # --- and entering it ---

    def _enter(self, entered: Sequence[tuple[int, Record]], touched: Sequence[int], sequence: int) -> None:
        _, settled = self._last.read()
        with self._copy.write() as view:
            entries = Entries(view, sequence)
            for place, record in entered:
                try:
                    entering.enter(self._target, entries, record)
                except ChecksumError as error:
                    self._done.damaged.append(f"left out of the index of the copy: {error.message}")
                    self._left_out.add(place)
            entries.put()
            with self._index.read() as theirs, self._copy.read() as earlier:
                late_entries.describe(view, theirs, earlier, self._late)
            for place in touched:
                self._close_log(view, place)
            dirty = {place: entry for place, entry in view.dirty().items() if entry.sequence > settled}
            view.put_dirty(entries.add_dirty(dirty))
        with self._copy.read() as reading:
            if settling.settle(self._disk, self._target, reading, reading.dirty()):
                self._last.settle(sequence)

    def _close_log(self, view: WriteView, place: int) -> None:
        """The log ends where it has been copied to, also when what it ends with is not entered."""
        grown, end = self._grown[place], self._ends[place]
        entry = view.series(grown.study, grown.series)
        if entry is None or place in self._left_out:
            view.keep(grown.study, grown.series, end, self._arrays[place])
        else:
            files = view.files(entry.number)
            files.log_end = max(files.log_end, end)
            view.put_files(entry.number, files)


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
