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
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Final

from pacs.errors import BackupError, ChecksumError
from pacs.storage import layout
from pacs.storage.backup import late_entries
from pacs.storage.backup.copied_files import CopiedFiles
from pacs.storage.backup.new_records import GrownLog, NewRecords
from pacs.storage.disk import Disk
from pacs.storage.files import hierarchy
from pacs.storage.files.last_commit import LastCommit
from pacs.storage.files.records import Record
from pacs.storage.index import Index, WriteView, entering
from pacs.storage.index.entries import Entries
from pacs.storage.layout import Root
from pacs.storage.locks import alone
from pacs.storage.recovery import copying, recovery, settling

BATCH_BYTES: Final = 256 << 20
"""Copied between two syncs of the copy: what a backup that is cut short does again at most."""

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
    with ExitStack() as opened:
        if disk is None:
            disk = Disk()
            opened.callback(disk.close)
        if not layout.is_archive(target):
            layout.create(disk, target, description)
        elif layout.read_description(target).archive_id != description.archive_id:
            raise BackupError(f"{target} is another archive than {source}")
        opened.enter_context(alone(target))
        copy = opened.enter_context(closing(recovery.open_index(target, disk)))
        return _Backup(source, index, target, copy, disk, batch_bytes, progress or (lambda *_: None)).run()


def _check_apart(source: Root, target: Root) -> None:
    here, there = os.path.realpath(source), os.path.realpath(target)
    if here == there or os.path.commonpath((here, there)) in (here, there):
        raise BackupError(f"{target} and {source} are not apart: one holds the other")


class _Backup:
    def __init__(
        self, source: Root, index: Index, target: Root, copy: Index, disk: Disk, batch_bytes: int, progress: Progress
    ) -> None:
        self._index = index
        self._target, self._copy = target, copy
        self._disk = disk
        self._batch_bytes = batch_bytes
        self._progress = progress
        self._done = BackedUp()
        self._new = NewRecords(source, index, target, copy, self._done.damaged)
        self._files = CopiedFiles(source, target, disk)
        self._last = LastCommit(target, disk)
        self._sequence = 0
        """Of the copy. What could not be read before may be of an older commit."""

    def run(self) -> BackedUp:
        new = self._new
        new.find()
        self._sequence, self._done.sequence = new.sequence, new.counters.sequence
        passed = 0
        for rows in new.batches(self._batch_bytes):
            passed += len(rows)
            last = passed == len(new)
            self._copy_batch(rows, self._done.sequence if last else new.commit(rows[-1]), last)
        if self._behind():
            self._copy_batch([], self._done.sequence, True)
        self._disk.syncfs(str(self._target))
        self._done.bytes = self._files.bytes
        with self._copy.read() as ours:
            if ours.counters() != new.counters:
                self._done.damaged.append("the copy counts otherwise than the archive: run `pacs check` on both")
        return self._done

    def _behind(self) -> bool:
        """Whether the last commits entered nothing, or a log ends with what is no record."""
        with self._copy.read() as ours:
            if ours.counters().sequence < self._done.sequence:
                return True
        return any(log.unfinished for log in self._new.logs)

    # --- copying ---

    def _copy_batch(self, rows: Sequence[int], sequence: int, last: bool) -> None:
        """Copy these records with their frames, and be at commit `sequence`. The order is that of a commit."""
        sequence = self._sequence = max(sequence, self._sequence)
        heads: list[tuple[GrownLog, Record]] = []
        ends: dict[GrownLog, int] = {}
        for row in rows:
            log = self._new.log(row)
            if not log.given_up:
                with self._new.reading(log):
                    heads.append((log, self._new.head(row)))
                    ends[log] = max(log.copied, heads[-1][1].end)
        if last:  # what follows the last record that is whole
            ends.update((log, log.end) for log in self._new.logs if log.unfinished)
        copying.begin(self._target, self._disk, [(log.study, log.series) for log in ends])
        for log in ends:
            hierarchy.write_groups(self._disk, self._target, hierarchy.series_groups(log.study, log.series))
        for position, (log, record) in enumerate(heads):
            self._progress(self._done.instances + position, len(self._new), self._files.bytes)
            self._done.damaged += self._files.copy_frames(record)
            if record.offset < log.start:  # what an earlier backup copied of it may be zeros
                with self._new.reading(log):
                    self._files.copy_stretch(log.study, log.series, record.offset, record.end)
        for log, end in ends.items():
            with self._new.reading(log):
                self._files.copy_stretch(log.study, log.series, log.copied, end)
                log.copied = end
        self._last.stand_at(sequence)
        self._disk.syncfs(str(self._target))
        self._disk.step("copied")
        self._enter(heads, ends, sequence)
        self._disk.step("entered")
        copying.end(self._target, self._disk)
        self._done.instances += len(heads)
        self._progress(self._done.instances, len(self._new), self._files.bytes)

    # --- and entering ---

    def _enter(self, entered: Sequence[tuple[GrownLog, Record]], touched: Iterable[GrownLog], sequence: int) -> None:
        _, settled = self._last.read()
        with self._copy.write() as view:
            entries = Entries(view, sequence)
            for log, record in entered:
                try:
                    entering.enter(self._target, entries, record)
                except ChecksumError as error:
                    self._done.damaged.append(f"left out of the index of the copy: {error.message}")
                    log.left_out = True
            entries.put()
            with self._index.read() as theirs, self._copy.read() as earlier:
                late_entries.describe(view, theirs, earlier, self._new.late)
            for log in touched:
                _close_log(view, log)
            dirty = {place: entry for place, entry in view.dirty().items() if entry.sequence > settled}
            view.put_dirty(entries.add_dirty(dirty))
        with self._copy.read() as reading:
            if settling.settle(self._disk, self._target, reading, reading.dirty()):
                self._last.settle(sequence)


def _close_log(view: WriteView, log: GrownLog) -> None:
    """The log ends where it has been copied to, also when what it ends with is not entered."""
    entry = view.series(log.study, log.series)
    if entry is None or log.left_out:
        view.keep(log.study, log.series, log.copied, log.arrays)
    else:
        files = view.files(entry.number)
        files.log_end = max(files.log_end, log.copied)
        view.put_files(entry.number, files)
