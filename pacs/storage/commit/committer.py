"""The one way into the archive: a batch of instances becomes durable and visible, or leaves nothing.

See `Committer._commit` for the order, and for what a crash at each step leaves.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import lmdb

from pacs.errors import ConflictError, IndexMismatchError, PacsError, StorageError
from pacs.measure import Measure, Observe, nobody, timed
from pacs.storage import layout
from pacs.storage.commit.placement import Placement, TailError
from pacs.storage.disk import Disk, SyncError
from pacs.storage.files import last_commit
from pacs.storage.files.frames import StagedArray
from pacs.storage.files.last_commit import LastCommit
from pacs.storage.files.staging import Staging
from pacs.storage.index import Index, ReadView, WriteView
from pacs.storage.index.entries import Entries
from pacs.storage.locks import WriterLock
from pacs.storage.model import ArrayKey, NewInstance
from pacs.storage.recovery import recovery, settling

_log = logging.getLogger(__name__)

_SETTLE_AFTER = 0.5
"""Seconds that index blocks and shapes may lag behind while batches follow each other."""


class Status(StrEnum):
    """What became of an instance."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """The same bytes are stored already; nothing was written."""
    CONFLICT = "conflict"
    """Other bytes are stored under this SOP Instance UID; they stay."""
    FAILED = "failed"
    """The disk or the index refused; nothing of it is left."""


_OF_ONE_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM}


def _of_one(cause: BaseException | None) -> bool:
    """Whether a batch failed for one of its instances: a key too long, a file of its series that is gone."""
    return isinstance(cause, lmdb.BadValsizeError) or (isinstance(cause, OSError) and cause.errno in _OF_ONE_PATH)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer for one instance of a batch, given when everything of it is durable."""

    status: Status
    warnings: tuple[str, ...] = ()
    error: PacsError | None = None
    """Why it is CONFLICT or FAILED."""


class Committer:
    """Commits batches. One per process; every process of an archive may have one."""

    def __init__(
        self, root: layout.Root, index: Index, disk: Disk, lock: WriterLock, refusal: StorageError | None = None
    ) -> None:
        """`refusal`: why nothing is to be stored."""
        self.root = root
        self.index = index
        self._disk = disk
        self._lock = lock
        self._last = LastCommit(root, disk)
        self._staging = Staging(root, disk)
        self._refusal = refusal
        self.observe: Observe = nobody
        self.index_lost: Callable[[], None] = lambda: None
        """Called once when nothing can be read or written any more through this index, and a process that opens it
        anew could."""
        self._unsettled = False
        self._settled_at = time.monotonic()
        self._settled = 0
        """The last commit whose index blocks and shapes were written before the batch that is going on."""
        disk.hold(str(root))

    def stage(self, key: ArrayKey, levels: int) -> StagedArray:
        """An array of its own for an instance that fills a shard or more, to be filled before it is committed."""
        return self._staging.new_array(key, levels)

    def close(self) -> None:
        """Leave the archive settled."""
        self.settle()
        self._staging.close()

    def commit(self, batch: Sequence[NewInstance]) -> list[Outcome]:
        """Make these instances durable and visible; one Outcome for each, in order. Never raises for one of them.

        Staged arrays of instances that are not stored are removed.
        """
        outcomes: list[Outcome] = []
        for start in range(0, len(batch), last_commit.LARGEST_BATCH):
            part = batch[start : start + last_commit.LARGEST_BATCH]
            outcomes += self.commit_ready(lambda part=part: part)  # type: ignore[misc]
        return outcomes

    def commit_ready(self, ready: Callable[[], Sequence[NewInstance]]) -> list[Outcome]:
        """Commit what `ready` returns, which is asked once the writer's lock is held.

        Other workers hold the lock for the length of their syncs: what gets ready meanwhile goes in the same batch.
        At most `last_commit.LARGEST_BATCH` instances.
        """
        with self._lock:
            batch = ready()
            outcomes = self._commit_or_take_back(batch) if batch else []
        for new, outcome in zip(batch, outcomes, strict=True):
            if outcome.status is not Status.STORED and isinstance(new.staged, StagedArray):
                self._discard(new.staged)
        return outcomes

    def _discard(self, staged: StagedArray) -> None:
        try:
            staged.discard()
        except StorageError as error:
            _log.error("%s", error.message)

    def _commit_or_take_back(self, batch: Sequence[NewInstance]) -> list[Outcome]:
        failure: PacsError
        try:
            self._check_writable()
            return self._commit_over_tails(batch)
        except PacsError as error:
            if len(batch) > 1 and self._refusal is None and _of_one(error.__cause__):
                return self._one_by_one(batch)
            failure = error
            if isinstance(error.__cause__, lmdb.Error) and self._refusal is None and self.index.failed:
                failure = self._lose_index()
        except TailError as tail:
            failure = StorageError(f"the log of series {tail.series[1]} has a tail that cannot be removed")
        except SyncError as error:  # while what another process had left undone was finished
            failure = self._refuse_after(error)
        except OSError as error:
            failure = StorageError(f"the disk refused: {error.strerror}")
        except Exception as error:  # noqa: BLE001
            # One instance found a fault of ours, here or above: its neighbours must not pay for it.
            _log.exception("a batch of %d could not be committed", len(batch))
            if len(batch) > 1:
                return self._one_by_one(batch)
            failure = StorageError(f"the commit failed: {type(error).__name__}")
        return [Outcome(Status.FAILED, error=failure)] * len(batch)

    def _one_by_one(self, batch: Sequence[NewInstance]) -> list[Outcome]:
        return [outcome for new in batch for outcome in self._commit_or_take_back([new])]

    def _commit_over_tails(self, batch: Sequence[NewInstance]) -> list[Outcome]:
        """Tails are left behind by a batch that could not be taken back: rare, so they are not looked for before."""
        for _ in batch:
            try:
                return self._commit(batch)
            except TailError as tail:
                recovery.adopt_tails(self.root, self.index, self._disk, [tail.series])
                self._settled = self._last.read()[1]
        return self._commit(batch)

    def _check_writable(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        if not self.index.in_place:
            _log.critical("%s was deleted or replaced while it was in use: nothing is stored any more", self.index.path)
            raise IndexMismatchError("the index was deleted or replaced under the running server: run `pacs reindex`")
        self._settled = recovery.catch_up(self.root, self.index, self._disk, self._last)

    # --- the order ---

    def _commit(self, batch: Sequence[NewInstance]) -> list[Outcome]:
        placement: Placement | None = None
        sequence = 0
        try:
            with self.index.write() as view:
                sequence = view.counters().sequence + 1
                placement = Placement(self.root, Entries(view, sequence))
                outcomes = self._place(placement, view, batch)
                if placement.empty:
                    return outcomes
                self._disk.step("placed")
                self._write(placement, view, sequence)
                # 4. The LMDB transaction: from here on the batch is visible, and was ever since step 3 safe. A
                #    crash during it leaves step 3's state, or the whole batch.
                written = time.perf_counter()
        except SyncError as error:
            refusal = self._refuse_after(error)
            self._take_back(placement, sequence)
            raise refusal from error
        except OSError as error:
            self._take_back(placement, sequence)
            raise StorageError(f"the disk refused: {error.strerror}") from error
        except StorageError:
            self._after_index_failure(placement, sequence)
            raise
        except BaseException:
            self._take_back(placement, sequence)
            raise
        # Nothing behind the transaction stands in the block above: what is committed is never taken back.
        self.observe(Measure.INDEX, time.perf_counter() - written)
        self._disk.step("index-committed")
        # 5. Answer; later, when idle or twice a second, the index blocks of the shards and the shapes in `zarr.json`.
        #    They are derived from the index and get durable with the next batch's sync. A crash leaves some of them
        #    old or torn: `dirty` in the index names them, and they are written again at the next open.
        self._unsettled = True
        if time.monotonic() - self._settled_at >= _SETTLE_AFTER:
            self._settle()
        return outcomes

    def _place(self, placement: Placement, view: ReadView, batch: Sequence[NewInstance]) -> list[Outcome]:
        outcomes = []
        for new in batch:
            instance = new.descriptor.instance
            # Reads through the write transaction, so it sees the instances of this batch too.
            stored = view.instance(instance)
            if stored is None:
                try:
                    outcomes.append(Outcome(Status.STORED, placement.add(new)))
                except PacsError as error:  # nothing of it was placed: its neighbours go on
                    outcomes.append(Outcome(Status.FAILED, error=error))
            elif stored.descriptor.sha256 == new.descriptor.sha256:
                outcomes.append(Outcome(Status.DUPLICATE))
            else:
                conflict = ConflictError(f"SOP Instance UID {instance} is already stored with other content")
                outcomes.append(Outcome(Status.CONFLICT, error=conflict))
        return outcomes

    def _write(self, placement: Placement, view: WriteView, sequence: int) -> None:
        disk = self._disk
        # 1. `last-commit` says which logs this batch is about to grow and which arrays it makes; then directories and
        #    logs of new series, arrays of their own moved into place, frames behind the committed end of their shards.
        #    Nothing that a record points to is overwritten. A crash leaves bytes that nothing points to: overwritten
        #    by the next batch there; and arrays, which the next open or batch removes.
        self._last.write(sequence, placement.series, placement.arrays)
        placement.write_frames(disk)
        disk.step("frames-written")
        # 2. Records behind the committed end of their logs. A crash leaves some of them, perhaps torn. At the next
        #    open or batch those that are whole, and whose frames are, are entered into the index; the rest is cut
        #    off. Nobody was promised anything yet.
        placement.write_records(disk)
        disk.step("records-written")
        # 3. One sync of all this. Frames need none of their own before the records: recovery believes a record only
        #    with its frames. A crash after it leaves the whole batch, to be entered from the records.
        with timed(self.observe, Measure.SYNC):
            disk.syncfs(str(self.root))
        disk.step("synced")
        # What step 5 of earlier batches had written, this sync has made durable.
        noted = view.dirty()
        dirty = {array: entry for array, entry in noted.items() if entry.sequence > self._settled}
        placement.entries.put()
        # What is noted already, and not settled since, is settled as the index has it then.
        if len(dirty) < len(noted) or not placement.entries.noted(dirty):
            view.put_dirty(placement.entries.add_dirty(dirty))
        disk.step("index-written")

    def settle(self) -> None:
        """Step 5 for all that has been committed: the caller is idle. Never raises for what the disk refuses."""
        with self._lock:
            if self._unsettled and self.index.in_place:
                self._settle()

    @property
    def refusal(self) -> StorageError | None:
        """Why nothing is stored any more until a restart, if that is so."""
        return self._refusal

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has something to do."""
        return self._unsettled

    def _settle(self) -> None:
        try:
            with self.index.read() as view:
                sequence = view.counters().sequence
                _, settled = self._last.read()
                dirty = {array: entry for array, entry in view.dirty().items() if entry.sequence > settled}
                everything = settling.settle(self._disk, self.root, view, dirty)
            if everything:
                self._last.settle(sequence)
            self._unsettled = False
            self._disk.step("settled")
        except Exception as error:  # noqa: BLE001
            # All of this is derived: nothing of it may stop the thread that commits.
            _log.error("index blocks and shapes will be written later: %s", error)
        self._settled_at = time.monotonic()

    # --- when it fails ---

    def _refuse_after(self, error: SyncError) -> StorageError:
        """What a failed sync has written nobody knows, and the kernel does not try again: stop here."""
        self._refusal = StorageError(f"a sync failed ({error.strerror}): nothing is stored until a restart")
        _log.critical("%s: %s", error.filename, self._refusal.message)
        return self._refusal

    def _take_back(self, placement: Placement | None, sequence: int) -> None:
        if placement is None or placement.empty:
            return
        placement.take_back(self._disk)
        try:
            self._last.erase(sequence)
        except OSError as error:
            _log.error("%s could not be taken back: %s", self._last.path, error.strerror)

    def _after_index_failure(self, placement: Placement | None, sequence: int) -> None:
        """LMDB could not commit. Usually it has no space, and the batch is taken back. If it cannot say where it
        stands, the records stay: whoever opens the archive next enters them or finds them entered."""
        try:
            with self.index.read() as view:
                committed = view.counters().sequence
        except (PacsError, OSError):
            committed = -1
        if committed == sequence - 1:
            self._take_back(placement, sequence)
        else:
            self._lose_index()

    def _lose_index(self) -> StorageError:
        self._refusal = StorageError("the index failed: nothing is stored until a restart")
        _log.critical("%s: %s", self.index.path, self._refusal.message)
        self.index_lost()
        return self._refusal
