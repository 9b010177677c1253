"""An open archive on disk: its lock, its index, and the one thread that commits what is ready."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from enum import Enum
from pathlib import Path
from typing import Self

import lmdb

from pacs.errors import NotFoundError, StorageError
from pacs.measure import Measure, Observe
from pacs.storage import layout
from pacs.storage.commit.committer import Committer, Outcome, Status
from pacs.storage.disk import Disk
from pacs.storage.files.frames import StagedArray
from pacs.storage.files.last_commit import LARGEST_BATCH
from pacs.storage.index import Index
from pacs.storage.locks import ArchiveLock, WriterLock
from pacs.storage.model import ArrayKey, NewInstance
from pacs.storage.recovery import recovery

_log = logging.getLogger(__name__)

_IN_A_ROW = 4
"""Batches that a thread commits for others before the commit thread takes over."""
_IDLE = 0.1
"""Seconds without an upload after which derived files are brought up to date."""

Committed = Callable[[Outcome], None]
_Waiting = tuple[NewInstance, Committed, float]
"""The last: since when, by `time.perf_counter`."""


class _Signal(Enum):
    """Told to the commit thread among the instances."""

    STOP = "no instance follows"
    WAKE = "another thread has committed: look whether it can be settled"


class CommitQueue:
    """Commits whatever is ready, together.

    One batch a time, not one instance: a modality sends a series as hundreds of small parts, and a batch pays its
    syncs once. While one batch syncs the next gathers, so nobody waits for a timer.
    """

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._waiting: queue.SimpleQueue[_Waiting | _Signal] = queue.SimpleQueue()
        self._turn = threading.Lock()
        """Held by the thread that commits."""
        self._left: deque[_Waiting] = deque()
        """Instances of threads that found another one committing: it takes them along, and nobody is woken."""
        self._asleep = False
        """Whether the commit thread waits without a limit."""
        self._last = 0.0
        """When another thread committed last."""
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def put(self, new: NewInstance, committed: Committed, *, here: bool = False) -> None:
        """Commit `new` in one of the next batches; `committed` is called from the thread that commits.

        `here`: in this thread, before this returns, unless another one is committing, which goes on with it then. A
        lone instance is not handed from thread to thread.
        """
        item = (new, committed, time.perf_counter())
        if here:
            self._left.append(item)
            self._commit_left()
        else:
            self._waiting.put(item)

    def _commit_left(self) -> None:
        """Commit what others left, unless somebody is committing: who ends a commit looks here."""
        for _ in range(_IN_A_ROW):
            if not self._left or not self._turn.acquire(blocking=False):
                return
            try:
                if not self._commit([]):
                    self._waiting.put(_Signal.STOP)  # it was meant for the commit thread
                self._last = time.perf_counter()
            finally:
                self._turn.release()
            if self._asleep and self._committer.unsettled:
                self._waiting.put(_Signal.WAKE)
        # This thread has other work; the commit thread has not.
        with suppress(IndexError):
            while True:
                self._waiting.put(self._left.popleft())

    @property
    def length(self) -> int:
        """Instances that no batch has taken up yet."""
        return self._waiting.qsize() + len(self._left)

    def close(self) -> None:
        """Commit what is waiting, then stop."""
        self._waiting.put(_Signal.STOP)
        self._thread.join()

    def _run(self) -> None:
        going_on = True
        while going_on:
            try:
                first = self._next()
            except queue.Empty:
                if time.perf_counter() - self._last >= _IDLE:
                    self._settle()
                continue
            if isinstance(first, _Signal):
                going_on = first is not _Signal.STOP
                continue
            batch = [first]
            with self._turn:
                going_on = self._commit(batch)
            self._commit_left()
            # Waiting must not keep the last uploads alive: their bytes, and the spool files behind them.
            del first, batch

        self._finish()

    def _settle(self) -> None:
        try:
            self._committer.settle()
        except Exception:  # noqa: BLE001
            # The file system may refuse the lock. Instances that come later are refused one by one, and told so.
            _log.exception("index blocks and shapes will be written later")

    def _finish(self) -> None:
        """Commit what this thread found left by others, and put behind the word that nothing more comes."""
        while True:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return
            if not isinstance(item, _Signal):
                with self._turn:
                    self._commit([item])
                self._commit_left()

    def _next(self) -> _Waiting | _Signal:
        """What is to be committed next. Raises queue.Empty when nothing came for a while and there is more to do."""
        self._asleep = True  # before looking, so that whoever commits after it sees it
        if self._committer.unsettled:
            self._asleep = False
            return self._waiting.get(timeout=_IDLE)
        try:
            return self._waiting.get()
        finally:
            self._asleep = False

    def _commit(self, batch: list[_Waiting]) -> bool:
        """Commit `batch` and what is ready when its turn comes; whether more may come."""
        going_on = True
        began = time.perf_counter()

        def ready() -> list[NewInstance]:
            nonlocal going_on, began
            began = time.perf_counter()
            while going_on and len(batch) < LARGEST_BATCH:
                item: _Waiting | _Signal
                try:
                    item = self._left.popleft() if self._left else self._waiting.get_nowait()
                except (queue.Empty, IndexError):
                    break
                if not isinstance(item, _Signal):
                    batch.append(item)
                elif item is _Signal.STOP:
                    going_on = False
            return [new for new, _, _ in batch]

        try:
            outcomes = self._committer.commit_ready(ready)
        except Exception as error:  # noqa: BLE001
            # Whatever went wrong must reach the uploaders, and must not end the only thread that commits.
            _log.exception("a commit failed")
            failure = StorageError(f"the commit failed: {type(error).__name__}")
            outcomes = [Outcome(Status.FAILED, error=failure)] * len(batch)
        if not batch:  # another thread took it along
            return going_on
        observe = self._committer.observe
        took = time.perf_counter() - began
        observe(Measure.BATCH, len(batch))
        for (_, committed, since), outcome in zip(batch, outcomes, strict=True):
            observe(Measure.COMMIT_WAIT, max(0.0, began - since))
            observe(Measure.COMMIT, took)
            try:
                committed(outcome)
            except Exception:  # noqa: BLE001
                # Whoever waits for the others must still hear of them.
                _log.exception("an uploader could not be told")
        return going_on


def _open_index(root: Path, disk: Disk) -> tuple[Index, StorageError | None]:
    """The index, in step with the records; or where LMDB could not write it, as it is, and why nothing is stored."""
    try:
        return recovery.open_index(root, disk), None
    except StorageError as error:
        # On a full disk opening is tried again, and goes well as soon as there is room.
        if not isinstance(error.__cause__, lmdb.Error) or isinstance(error.__cause__, lmdb.DiskError):
            raise
        refusal = StorageError(f"{error.message}: nothing is stored until a restart")
    index = recovery.open_index_as_it_is(root, disk)
    _log.critical("%s: %s", index.path, refusal.message)
    return index, refusal


class Engine:
    """Everything of one open archive that lasts as long as it is open."""

    def __init__(self, root: Path, *, create: bool = False, disk: Disk | None = None) -> None:
        self.disk = disk if disk is not None else Disk()
        if not layout.is_archive(root):
            if not create:
                raise NotFoundError(f"{root} is not an archive")
            try:
                layout.create(self.disk, root)
            except OSError as error:
                raise StorageError(f"{root} cannot become an archive: {error.strerror}") from None
        layout.read_description(root)
        with ExitStack() as opened:
            opened.callback(self.disk.close)
            lock = ArchiveLock(root)
            opened.callback(lock.close)
            writer = WriterLock(root)
            opened.callback(writer.close)
            with writer:
                self.index, refusal = _open_index(root, self.disk)
            opened.callback(self.index.close)
            self._committer = Committer(root, self.index, self.disk, writer, refusal)
            self._opened = opened.pop_all()
        self._commits = CommitQueue(self._committer)

    def observe(self, observe: Observe) -> None:
        """Tell `observe` what commits take."""
        self._committer.observe = observe

    def when_index_lost(self, tell: Callable[[], None]) -> None:
        """Call `tell`, from the thread that commits, when this process can use the index no more."""
        self._committer.index_lost = tell

    @property
    def waiting(self) -> int:
        """Instances that wait to be committed."""
        return self._commits.length

    @property
    def refusal(self) -> StorageError | None:
        """See Committer.refusal."""
        return self._committer.refusal

    def stage(self, key: ArrayKey, levels: int) -> StagedArray:
        """See Committer.stage."""
        return self._committer.stage(key, levels)

    def commit_soon(self, new: NewInstance, committed: Committed, *, here: bool = False) -> None:
        """See CommitQueue.put."""
        self._commits.put(new, committed, here=here)

    def settle(self) -> None:
        """See Committer.settle."""
        self._committer.settle()

    def close(self) -> None:
        """Commit what is waiting and let go of the archive."""
        self._commits.close()
        self._committer.close()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
