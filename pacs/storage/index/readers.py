"""An archive for those who only read it: nothing is repaired or written by looking at it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from pacs.errors import ArchiveLockedError, IndexMismatchError
from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files.last_commit import LastCommit
from pacs.storage.index.environment import Index, map_size
from pacs.storage.locks import ArchiveLock

_WALK = """
import sys, lmdb
path, lock, size = sys.argv[1:]
env = lmdb.open(path, readonly=True, lock=lock == "1", max_dbs=99, map_size=int(size), readahead=False)
with env.begin(buffers=True) as txn:
    for name in list(txn.cursor().iternext(values=False)):
        database = env.open_db(bytes(name), txn=txn, create=False)
        looked_up, before = txn.cursor(database), b""
        for key, value in txn.cursor(database):
            value[-1:]
            if before != key:
                before = bytes(key)
                looked_up.set_key(before)
"""
"""Touches every page, also those that only a look-up goes through."""


@contextmanager
def reading(root: layout.Root) -> Iterator[Index]:
    """The index of an archive. Raises StorageError, IndexMismatchError, ArchiveLockedError.

    A reader is noted in LMDB's lock file, so that no page it reads is used again. Who may not write that file begins
    only while nobody else has the archive open, and is told at the end when something was stored meanwhile. On a
    read-only file system nobody writes.
    """
    with _locked(root) as noted:
        _check_in_place(root)
        with closing(Index(f"{root}/{layout.INDEX}", readonly=True, lock=noted)) as index:
            yield index


def _check_in_place(root: layout.Root) -> None:
    """Raises IndexMismatchError where a `reindex` was killed between two renames: no other index need be made."""
    path = f"{root}/{layout.INDEX}"
    if not os.path.lexists(path) and os.path.lexists(f"{root}/{layout.OLD_INDEX}"):
        raise IndexMismatchError(
            f"{path} is missing: `pacs reindex` was cut short while it replaced it. It lies in {layout.OLD_INDEX} and "
            f"is put back when `pacs serve`, or whatever else stores, opens the archive"
        )


def kills(root: layout.Root) -> str:
    """The signal that ends who reads all of the index; "" for none.

    LMDB takes the numbers in its pages for right: damaged ones lead it behind the end of the file. Another process
    tries it first. Raises ArchiveLockedError, StorageError.
    """
    with _locked(root) as noted:
        # -P: no module of the working directory is run.
        path = f"{root}/{layout.INDEX}"
        command = [sys.executable, "-P", "-c", _WALK, path, "1" if noted else "0", str(map_size(path))]
        ended = subprocess.run(command, capture_output=True, check=False).returncode
    return signal.Signals(-ended).name if ended < 0 else ""


@contextmanager
def _locked(root: layout.Root) -> Iterator[bool]:
    """Holds the archive's lock, shared, so that nobody has to wait for a reader; whether LMDB may note one."""
    path = f"{root}/{layout.INDEX}"
    noted = _may_be_noted(path)
    try:
        lock = ArchiveLock(root, exclusive=not noted)
    except ArchiveLockedError:
        if noted:
            raise
        raise ArchiveLockedError(
            f"the archive {root} is in use: who may not write {path}/lock.mdb can read only while nobody has it open"
        ) from None
    with closing(lock):
        if noted:
            yield True
            return
        lock.share()
        last = LastCommit(root, Disk())
        before = last.read()
        try:
            yield False
        finally:
            if last.read() != before:
                # LMDB has used pages again that were being read.
                raise ArchiveLockedError(
                    f"something was stored in {root} meanwhile, what was read may be wrong: "
                    f"who may not write {path}/lock.mdb can read only while nobody has it open"
                )


def check_newest(root: layout.Root, index: Index) -> None:
    """Raises IndexMismatchError when an index is not of this archive, or not of its newest commit: what was stored
    later would be missing without a word. The newest may be under way; a disk that cannot tell it says nothing."""
    newest = 0
    with suppress(OSError):  # what such a disk still reads is to be saved
        newest = LastCommit(root, Disk()).read()[0].sequence
    with index.read() as view:
        state = view.state()
    if state.archive_id != layout.read_description(root).archive_id:
        raise IndexMismatchError(f"{index.path} belongs to another archive: run `pacs reindex`")
    # Read first: batches may be committed meanwhile.
    if newest > state.counters.sequence + 1:
        text = f"is of commit {state.counters.sequence}, the archive of commit {newest}: run `pacs reindex`"
        raise IndexMismatchError(f"{index.path} {text}")


def _may_be_noted(path: str) -> bool:
    lock = f"{path}/lock.mdb"
    try:
        os.close(os.open(lock, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return os.access(path, os.W_OK) or bool(os.statvfs(os.path.dirname(path)).f_flag & os.ST_RDONLY)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EPERM)
    return True
