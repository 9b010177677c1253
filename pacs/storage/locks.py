"""The two locks of an archive. flock: the kernel lets go of them when their holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import TracebackType

from pacs.errors import ArchiveLockedError, StorageError
from pacs.storage import layout

_ATTEMPTS = 10
_BETWEEN = 0.02
_MAY_NOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)


def _open(path: str, reading: tuple[int, ...] = (errno.EROFS,)) -> int:
    """The descriptor of a lock; one for reading, which locks as well, where opening it fails with one of `reading`."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in reading:  # what can still be read of a failing disk must be reachable
            with suppress(OSError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise StorageError(f"{path} cannot be opened: {error.strerror}") from None


class ArchiveLock:
    """`lock`: shared by everyone who works with the archive, exclusive for who rebuilds parts of it.

    Open it after a fork, not before: a forked process shares the lock of its parent.
    """

    def __init__(self, root: layout.Root, *, exclusive: bool = False) -> None:
        self._descriptor = _open(f"{root}/{layout.LOCK}", _MAY_NOT_WRITE)
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        # A reader that cannot be noted has it for itself for a moment: no server may fail for that.
        for attempts_left in reversed(range(1 if exclusive else _ATTEMPTS)):
            try:
                fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
                return
            except OSError:
                if attempts_left:
                    time.sleep(_BETWEEN)
        self.close()
        wanted = "for itself alone" if exclusive else "while another process has it for itself alone"
        raise ArchiveLockedError(f"the archive {root} is in use: it cannot be opened {wanted}")

    def share(self) -> None:
        """Go on without having it alone. Raises ArchiveLockedError."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # between the two kinds the kernel lets go of it
            raise ArchiveLockedError("the archive has just been opened by another process") from None

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class WriterLock:
    """`write.lock`: at most one thread of one process changes the archive. Waits."""

    def __init__(self, root: layout.Root) -> None:
        self._descriptor = _open(f"{root}/{layout.WRITE_LOCK}")
        self._threads = threading.Lock()  # flock knows open files, not threads

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._threads.release()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def alone(root: layout.Root) -> Iterator[None]:
    """Hold both, so that nobody else has the archive open. Raises ArchiveLockedError, StorageError."""
    with closing(ArchiveLock(root, exclusive=True)), closing(WriterLock(root)) as writer, writer:
        yield
