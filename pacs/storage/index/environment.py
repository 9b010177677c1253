"""The index: an LMDB environment under `index/` that answers where everything is. Disposable: `reindex` makes it anew.

What it holds is described in `rows.py` and `matching.py`.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import lmdb

from pacs.errors import IndexMismatchError, StorageError
from pacs.storage.index import matching
from pacs.storage.index.rows import NAMES
from pacs.storage.index.views import ReadView, WriteView
from pacs.storage.model import Buffer, Counters

__all__ = ["Counters", "Index", "ReadView", "WriteView"]

_LARGEST_MAP = 1 << 40
"""Address space, not disk: the file is as long as its content."""
_SMALLEST_MAP = 4 << 30
_READERS = 2048
_LOCK_FILE = 64 * _READERS + 4096
"""Bytes, or some more: a cache line for each reader, and a head."""
_REFUSALS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC,
    errno.EDQUOT,
)  # fmt: skip
"""What the system says that is not about the content of the files."""
_ROWS_AT_ONCE = 10_000
_BYTES_AT_ONCE = 16 << 20
"""Of one transaction: it is in memory until it is committed."""


def map_size(path: str) -> int:
    """Bytes of address space for an index: 1 TiB, or what leaves as much for everything else where there is less
    (kernels with 39 bits, RLIMIT_AS), but room to grow and 4 GiB at least."""
    try:
        used = os.stat(f"{path}/data.mdb").st_size
    except OSError:
        used = 0
    size = _LARGEST_MAP
    while size // 2 >= max(_SMALLEST_MAP, 2 * used) and not _mappable(2 * size):
        size //= 2
    return size


def _allocate(path: str) -> None:
    """LMDB writes its table of readers through a map: a page of it that the disk has no room for ends the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        os.posix_fallocate(descriptor, 0, _LOCK_FILE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # others do not know how
            raise
    finally:
        os.close(descriptor)


def _mappable(length: int) -> bool:
    try:
        mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


class Index:
    """The open environment. Open it in the process that uses it, never before a fork."""

    def __init__(
        self, path: str, *, create: bool = False, readonly: bool = False, sync: bool = True, lock: bool = True
    ) -> None:
        """`sync` false: durable only after `flush`. `lock` false: who writes does not know of these readers."""
        self.path = path
        self._data = f"{path}/data.mdb"
        size = map_size(path)
        try:
            if create:
                _allocate(f"{path}/lock.mdb")
            else:
                os.stat(self._data)
            self._env = lmdb.open(
                path, map_size=size, max_dbs=len(NAMES) + len(matching.DATABASES), max_readers=_READERS,
                readahead=False, create=create, readonly=readonly, sync=sync, metasync=sync, lock=lock,
            )  # fmt: skip
            if lock:
                self._env.reader_check()
            self.databases: dict[bytes, Any] = {
                name: self._env.open_db(
                    name, create=create, dupsort=name == matching.POSTINGS, dupfixed=name == matching.POSTINGS
                )
                for name in (*NAMES, *matching.DATABASES)
            }
        except (FileNotFoundError, NotADirectoryError):
            raise IndexMismatchError(f"{path} is missing: run `pacs reindex`") from None
        except OSError as error:
            raise StorageError(f"the index cannot be opened: {path}: {error.strerror}") from None
        except lmdb.Error as error:
            number = getattr(error, "code", 0)
            if number == errno.ENOMEM and not _mappable(size):
                raise StorageError(
                    f"the index cannot be opened: it needs {size >> 30} GiB of address space, and this process does "
                    f"not get them (`ulimit -v`, RLIMIT_AS)"
                ) from None
            if number in _REFUSALS:
                raise StorageError(f"the index cannot be opened: {error}") from None
            raise IndexMismatchError(f"{path} cannot be opened ({error}): run `pacs reindex`") from None
        self._identity = self._identity_on_disk()
        self.begin = self._env.begin
        """A transaction of LMDB, without a view."""

    def _identity_on_disk(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._data)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @property
    def in_place(self) -> bool:
        """Whether the file that is open is still the one under `index/`: not deleted, not replaced."""
        return self._identity is not None and self._identity == self._identity_on_disk()

    @property
    def written(self) -> int:
        """When the file was written last, or put where it is: nanoseconds of the file system's clock."""
        return os.stat(self._data).st_ctime_ns

    @property
    def failed(self) -> bool:
        """Whether LMDB does nothing more in this process: its meta page could not be written, and it does not know
        what stands there. Another process may open the file anew."""
        try:
            self._env.begin().abort()
        except lmdb.PanicError:
            return True
        except lmdb.Error:
            return False
        return False

    def read(self) -> ReadView:
        """A consistent view, to be used in a `with` block; cheap enough for every request. Raises StorageError."""
        try:
            return ReadView(self._env.begin(buffers=True), self.databases)
        except lmdb.Error as error:
            raise StorageError(f"the index cannot be read: {error}") from error

    @contextmanager
    def write(self) -> Iterator[WriteView]:
        """The write transaction: committed and synced at the end of the block, dropped when it raises.

        Raises StorageError when LMDB cannot commit. Only under the writer's lock.
        """
        try:
            with self._env.begin(write=True, buffers=True) as txn:
                yield WriteView(txn, self.databases)
        except lmdb.Error as error:
            raise StorageError(f"the index cannot be written: {error}") from error

    def size(self) -> tuple[int, int, int]:
        """(bytes of the map that have ever been used, bytes of the map, reader slots taken)."""
        found = self._env.info()
        return (found["last_pgno"] + 1) * self._env.stat()["psize"], found["map_size"], found["num_readers"]

    def reader_check(self) -> int:
        """Free the slots of readers that died; the number of them. Their snapshots keep pages from being reused."""
        return int(self._env.reader_check())

    def copy_to(self, other: Index) -> None:
        """Write all rows to `other`, an empty index, in the order of their keys: its pages are full, none is free.

        LMDB's own compacting copy ends in a segmentation fault (0.9.36), and would keep pages half full.
        """
        with self.read() as source:
            for name in self.databases:
                other.append(name, source.cursor(name))

    def append(self, database: bytes, rows: Iterable[tuple[Buffer, Buffer]]) -> None:
        """Write rows in ascending order behind those of `database`, in transactions of bounded size."""
        for chunk in _batches(rows):
            with self.write() as view, view.txn.cursor(db=self.databases[database]) as cursor:
                cursor.putmulti(chunk, append=True)

    def flush(self) -> None:
        """Make an index that was opened with `sync` false durable. Raises StorageError."""
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise StorageError(f"the index cannot be synced: {error}") from error

    def close(self) -> None:
        self._env.close()


def _batches(rows: Iterable[tuple[Buffer, Buffer]]) -> Iterator[list[tuple[Buffer, Buffer]]]:
    batch: list[tuple[Buffer, Buffer]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row[1])
        if len(batch) >= _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
