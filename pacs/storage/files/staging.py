"""Where arrays of big instances grow before they are committed."""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
import uuid
from contextlib import suppress

from pacs.errors import StorageError
from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files.frames import StagedArray
from pacs.storage.model import ArrayKey


class Staging:
    """A directory of this process below `staging/`, held by a flock that dies with the process."""

    def __init__(self, root: layout.Root, disk: Disk) -> None:
        self._disk = disk
        self._parent = f"{root}/{layout.STAGING}"
        self._path = ""
        self._descriptor = -1
        self._numbers = itertools.count()
        self._opening = threading.Lock()

    def _open(self) -> str:
        with self._opening:
            while not self._path:
                self._disk.mkdir(self._parent)
                path = f"{self._parent}/{uuid.uuid4().hex}"
                self._disk.mkdir(path)
                try:
                    descriptor = _locked(path)
                except OSError:
                    with suppress(OSError):
                        self._disk.rmdir(path)
                    raise
                if os.path.exists(path):
                    self._path, self._descriptor = path, descriptor
                else:  # another process took it for abandoned, between mkdir and flock
                    os.close(descriptor)
            return self._path

    def new_array(self, key: ArrayKey, levels: int) -> StagedArray:
        """Raises StorageError."""
        try:
            return StagedArray(self._disk, f"{self._open()}/{next(self._numbers)}", key, levels)
        except OSError as error:
            raise StorageError(f"the disk refused: {error.strerror}") from error

    def close(self) -> None:
        if self._path:
            self._disk.remove_tree(self._path)
            os.close(self._descriptor)
            self._path = ""


def _locked(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_abandoned(root: layout.Root, disk: Disk) -> None:
    """Remove what processes that died have left behind."""
    try:
        paths = [entry.path for entry in os.scandir(f"{root}/{layout.STAGING}")]
    except FileNotFoundError:
        return
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            disk.remove_tree(path)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
