"""Building `index/` anew from the records alone.

Two passes: the first walks every log, verifies records and frames and notes where each record lies; the second
enters them in the order in which they were committed, by the code that the commit uses. The new index grows beside
the old one, is copied without the pages that growing it left free, and takes the old one's place by a rename.
"""

from __future__ import annotations

import errno
import logging
import os
from array import array
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field

import numpy as np

from pacs.errors import ChecksumError, StorageError
from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files import hierarchy, records
from pacs.storage.files.last_commit import LastCommit
from pacs.storage.files.records import LogError, RecordError
from pacs.storage.files.walking import walk_damaged
from pacs.storage.index import Index, ReadView, entering
from pacs.storage.index.entries import Entries
from pacs.storage.index.rows import Dirty, IndexState
from pacs.storage.layout import Root
from pacs.storage.locks import alone
from pacs.storage.recovery import known_before, recovery, set_aside, settling

_log = logging.getLogger(__name__)

_GROWN = "grown"
"""Inside the new index while it is made: what it is copied from."""
_ENTERED_AT_ONCE = 1000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_ORDINALS = 1 << 16

Progress = Callable[[str, int, int], None]
"""Called with (what is done, how much of it, of how much)."""


@dataclass(slots=True)
class Reindexed:
    """What `reindex` found."""

    instances: int = 0
    sequence: int = 0
    damaged: list[str] = field(default_factory=list)
    """Records that were left out, and why."""


def reindex(
    root: Root, *, disk: Disk | None = None, verify_frames: bool = True, progress: Progress | None = None
) -> Reindexed:
    """Build the index anew. Raises ArchiveLockedError while anybody else has the archive open.

    A record that is damaged, or whose frames are, is left out and named in the result; it stays in the log. What lies
    behind the last record of a log is copied to `set-aside/` before it is cut off. Nothing that is left out is ever
    written over: it may be readable again, and is entered then.
    """
    with ExitStack() as opened:
        opened.enter_context(alone(root))
        if disk is None:
            disk = Disk()
            opened.callback(disk.close)
        return _Reindex(root, disk, verify_frames, progress or (lambda *_: None)).run()


class _Reindex:
    def __init__(self, root: Root, disk: Disk, verify_frames: bool, progress: Progress) -> None:
        self._root = root
        self._disk = disk
        self._verify_frames = verify_frames
        self._progress = progress
        self._found = Reindexed()
        self._series: list[tuple[str, str]] = []
        self._set_aside_of = set_aside.names(root)
        self._kept: dict[tuple[str, str], tuple[int, int]] = {}
        """(length of the log, arrays) of series of which something is left out: see WriteView.keep."""
        self._late: dict[tuple[int, int], Dirty] = {}
        """Arrays whose index blocks or shapes could not be written: tried again at every open."""
        self._answered = -1
        """The newest commit that is known to have ended; -1: nobody knows."""
        self._left_out = 0
        """The newest commit of a record that is left out, but stays: the next reindex is not to take it for one that
        never ended."""
        # One row a record: order of commit, number of its series, offset. 24 bytes, so millions fit in memory.
        self._orders, self._places, self._offsets = array("Q"), array("Q"), array("Q")

    def run(self) -> Reindexed:
        root, disk = self._root, self._disk
        archive_id = layout.read_description(root).archive_id
        last = LastCommit(root, disk)
        state, settled = last.read()
        before = state.sequence
        self._answered = max(before - 1, settled) if last.whole else -1
        self._collect()
        new, old = f"{root}/{layout.NEW_INDEX}", f"{root}/{layout.OLD_INDEX}"
        recovery.put_back_index(root, disk)
        disk.remove_tree(new)
        disk.remove_tree(old)
        try:
            self._build(new, archive_id, before)
            self._take_its_place(last, last.whole and before == self._found.sequence)
        except BaseException:
            with suppress(OSError):
                disk.remove_tree(new)  # on a full disk it would only be in the way
            raise
        try:
            if os.path.lexists(old):
                disk.rename(old, new)  # under that name nobody takes it for an index
                disk.remove_tree(new)
        except OSError as error:
            _log.warning("%s is left for the next reindex to remove: %s", error.filename, error.strerror)
        return self._found

    def _take_its_place(self, last: LastCommit, known: bool) -> None:
        """Put the new index in the place of the old one. When that fails, the old one is there as before.

        `known`: `last-commit` tells of the commit that both are of, and is not touched.
        """
        root, disk, sequence = self._root, self._disk, self._found.sequence
        path, new, old = (f"{root}/{name}" for name in (layout.INDEX, layout.NEW_INDEX, layout.OLD_INDEX))
        settled = sequence - 1 if self._late else sequence
        if known:
            last.settle(settled)
        disk.syncfs(str(root))
        try:
            if os.path.lexists(path):
                disk.rename(path, old)
            disk.rename(new, path)
            if not known:
                last.renew(sequence, settled)
        except BaseException:
            if not os.path.lexists(new):
                disk.rename(path, new)
            recovery.put_back_index(root, disk)
            raise
        disk.syncfs(str(root))

    def _build(self, path: str, archive_id: str, before: int) -> None:
        grown = f"{path}/{_GROWN}"
        with closing(recovery.create_index(grown, archive_id, sync=False)) as index:
            self._enter_all(index, before)
            with index.read() as view:
                self._found.sequence = view.counters().sequence
                self._write_derived(view)
                self._compare(view, archive_id)
            with index.write() as writing:
                writing.put_dirty(self._late)
                for study, series in self._series:
                    taken = set_aside.next_array(self._set_aside_of, study, series)
                    if taken:
                        writing.reserve(study, series, taken)
            # Growing leaves pages half full, and those that each transaction replaced: copied in order, it is a
            # third to a half smaller.
            with closing(Index(path, create=True, sync=False)) as packed:
                self._progress("pack the index", 0, 1)
                index.copy_to(packed)
                packed.flush()
        self._disk.remove_tree(grown)
        self._progress("pack the index", 1, 1)

    # --- first pass ---

    def _collect(self) -> None:
        self._series = list(layout.series_on_disk(self._root))
        for number, (study, series) in enumerate(self._series):
            self._progress("verify series", number, len(self._series))
            try:
                descriptor, path = records.open_log(self._root, study, series)
            except LogError as error:
                self._collect_no_log(study, series, error)
                continue
            try:
                self._collect_series(number, descriptor, path)
            finally:
                os.close(descriptor)
        self._progress("verify series", len(self._series), len(self._series))

    def _collect_no_log(self, study: str, series: str, error: LogError) -> None:
        """A directory that a batch made before it failed; or a log that is lost, or cannot be opened now."""
        if error.ours:
            raise StorageError(error.message)
        arrays = layout.arrays_on_disk(self._root, study, series)
        end = 0
        if not error.missing:
            end = os.stat(f"{self._root}/{layout.log_path(study, series)}").st_size
        # Only what was committed has a shape.
        elif not any(
            os.path.lexists(f"{self._root}/{layout.array_path(study, series, k)}/{layout.ZARR_JSON}") for k in arrays
        ):
            return
        self._found.damaged.append(error.message)
        self._kept[study, series] = (end, max(arrays, default=-1) + 1)

    def _collect_series(self, number: int, descriptor: int, path: str) -> None:
        size = os.fstat(descriptor).st_size
        whole_end = 0
        arrays = 0
        damage: list[str] = []
        for found in walk_damaged(descriptor, path, size):
            if isinstance(found, RecordError):
                damage.append(found.message)
                continue
            arrays = max(arrays, found.array + 1)
            try:
                entering.verify(
                    self._root, self._series[number], descriptor, path, found, with_frames=self._verify_frames
                )
            except ChecksumError as error:
                damage.append(error.message)
                # Its head is whole, so it is a record. Somebody was told that it is stored: it stays where it is, for
                # what is damaged or cannot be read now may be there again later.
                if self._answered < 0 or found.sequence <= self._answered:
                    whole_end = found.end
                    self._left_out = max(self._left_out, found.sequence)
                continue
            self._orders.append(found.sequence * _ORDINALS + found.ordinal)
            self._places.append(number)
            self._offsets.append(found.offset)
            whole_end = found.end
        if damage:
            self._found.damaged += damage
            if whole_end < size:
                whole_end = self._set_aside(descriptor, path, whole_end, size)
        # What was set aside before may be put back by hand: its frames are not written over either.
        if damage or set_aside.holds(self._set_aside_of, path):
            self._kept[self._series[number]] = (whole_end, arrays)

    def _set_aside(self, descriptor: int, path: str, start: int, end: int) -> int:
        """Keep a copy of what is no record, then cut it off; where the log ends then."""
        try:
            target = set_aside.keep(self._root, self._disk, descriptor, path, start, end)
        except ChecksumError as error:  # what cannot be read now stays where it is
            self._found.damaged.append(error.message)
            return end
        self._disk.truncate(f"{self._root}/{path}", start)
        self._found.damaged.append(f"{path}: {end - start} bytes from byte {start} on are kept in {target}")
        return start

    # --- second pass ---

    def _enter_all(self, index: Index, before: int) -> None:
        order = np.argsort(np.frombuffer(self._orders, np.uint64), kind="stable") if self._orders else np.zeros(0, int)
        sequence = max(before, self._left_out)
        total = len(order)
        for start in range(0, total, _ENTERED_AT_ONCE):
            self._progress("enter instances", start, total)
            chosen = order[start : start + _ENTERED_AT_ONCE]
            sequence = max(sequence, self._orders[chosen[-1]] // _ORDINALS)
            with index.write() as view:
                entries = Entries(view, sequence)
                for row in chosen:
                    self._enter(entries, self._series[self._places[row]], self._offsets[row])
                entries.put()
        with index.write() as view:
            state: IndexState = view.state()
            state.counters.sequence = sequence
            view.put_state(state)
            for (study, series), (end, arrays) in self._kept.items():
                view.keep(study, series, end, arrays)
        self._progress("enter instances", total, total)

    def _enter(self, entries: Entries, series: tuple[str, str], offset: int) -> None:
        size, arrays = os.stat(f"{self._root}/{layout.log_path(*series)}").st_size, 0
        try:
            descriptor, path = records.open_log(self._root, *series)
            try:
                record = records.read_head(descriptor, path, offset, size)
            finally:
                os.close(descriptor)
            arrays = record.array + 1
            instance = record.descriptor.instance
            if entries.view.instance(instance) is not None:
                raise RecordError(f"SOP Instance UID {instance} again", path, offset)
            entering.enter(self._root, entries, record)
            self._found.instances += 1
        except ChecksumError as error:
            if isinstance(error, LogError) and error.ours:
                raise StorageError(error.message) from None
            self._found.damaged.append(error.message)
            end, before = self._kept.get(series, (size, 0))
            self._kept[series] = (end, max(before, arrays))

    # --- what the index before knew ---

    def _compare(self, view: ReadView, archive_id: str) -> None:
        """Name what is gone without a trace: that a log was deleted, or cut between two records, no file tells."""
        named = self._kept.keys()
        for before in known_before.series(f"{self._root}/{layout.INDEX}", archive_id):
            if (before.study, before.uid) in named:
                continue  # the damage has been told
            now = view.series(before.study, before.uid)
            there = now.instances if now is not None else 0
            if there < before.instances:
                path = layout.log_path(before.study, before.uid)
                text = f"the index before knew {before.instances} of this series, its log has {there}"
                self._found.damaged.append(f"{path}: {text}")

    # --- what is derived ---

    def _write_derived(self, view: ReadView) -> None:
        """Group files, shapes and index blocks, where they are not as the records say."""
        root, disk = self._root, self._disk
        hierarchy.write_groups(disk, root, hierarchy.archive_groups())
        for study in view.studies():
            for series in view.series_of(study.uid):
                hierarchy.write_groups(disk, root, hierarchy.series_groups(study.uid, series.uid))
                for k, state in view.arrays(series.number):
                    shards = range(-(-state.count // state.key.capacity))
                    try:
                        settling.settle_array(disk, root, view, series.number, k, shards, only_different=True)
                    except OSError as error:
                        if error.errno in _FULL:
                            raise
                        self._found.damaged.append(f"{error.filename} cannot be written: {error.strerror}")
                        self._late[series.number, k] = Dirty(self._found.sequence, set(shards))
