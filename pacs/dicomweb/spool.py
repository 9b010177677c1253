"""Where the bytes of an uploaded part wait until it is whole: in memory, or a long one in an unnamed file."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from pacs.errors import StorageError, TooLargeError

_WRITE: Final = 1 << 20
"""Bytes gathered before they are written to the file."""


class Budget:
    """Memory that parts not yet whole may hold together. Who finds it spent spools earlier; nobody waits for it,
    since those who hold it would wait for each other."""

    def __init__(self, capacity: int) -> None:
        self.free = capacity


class Collected:
    """Takes the data of one part. `close` must be called, whatever happens."""

    def __init__(self, directory: Path, threshold: int, longest: int, budget: Budget, least_free: int = 0) -> None:
        """`least_free` bytes of the disk are left to those whose parts are short, and to the archive itself."""
        self._directory = directory
        self._threshold = threshold
        self._longest = longest
        self._budget = budget
        self._least_free = least_free
        self._pieces: list[bytes | memoryview] = []
        self._held = 0
        self._file = -1
        self.length = 0

    def add(self, data: bytes | memoryview) -> bool:
        """Take more data; True: `spool` should be called (in a thread) before there is more. Raises TooLargeError."""
        self.length += len(data)
        if self.length > self._longest:
            raise TooLargeError(f"a part of more than {self._longest} bytes")
        self._pieces.append(data)
        self._held += len(data)
        self._budget.free -= len(data)
        if self._file >= 0:
            return self._held >= _WRITE
        return self.length > self._threshold or (self._budget.free < 0 and self._held >= _WRITE)

    def spool(self) -> None:
        """Write what is held to the file. Raises StorageError."""
        try:
            if self._file < 0:
                self._file = _unnamed(self._directory)
            disk = os.fstatvfs(self._file)
            if disk.f_bavail * disk.f_frsize - self._held < self._least_free:
                raise OSError(errno.ENOSPC, f"{self._least_free} bytes of the disk are not for uploads")
            for piece in self._pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._file, view) :]
        except OSError as error:
            raise StorageError(f"an upload could not be spooled: {error.strerror}") from error
        self._release()

    def take(self) -> tuple[bytes | memoryview, Callable[[], None] | None]:
        """The whole part, readable until the last reference to it goes. Call `spool` first where `spooled`.

        Of a spooled one also a call that gives back the memory of the pages read so far: they are in the file, and
        come back when they are read again. Who reads gigabytes calls it now and then.
        """
        if self._file < 0:
            return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces), None
        mapped = mmap.mmap(self._file, self.length, mmap.MAP_PRIVATE, mmap.PROT_READ)
        mapped.madvise(mmap.MADV_SEQUENTIAL)
        return memoryview(mapped), partial(mapped.madvise, mmap.MADV_DONTNEED)

    @property
    def spooled(self) -> bool:
        return self._file >= 0

    def close(self) -> None:
        """Let go of memory and file; what `take` gave stays."""
        self._release()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _release(self) -> None:
        self._budget.free += self._held
        self._held = 0
        self._pieces = []


def _unnamed(directory: Path) -> int:
    """A file that nobody can find and that is gone with its last user, crash or not."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        # File systems without O_TMPFILE (some network ones) leave a short moment in which the file has a name.
        handle, name = tempfile.mkstemp(dir=directory, prefix=".upload-")
        Path(name).unlink()
        return handle
