"""Commits of the index that are not synced: what a power loss leaves of them, and how the index is made sound again.

An LMDB file keeps its two newest snapshots: each commit writes pages that neither of them uses, then its own meta page
in place of the older one. The sync of a batch comes before its LMDB commit, so that when a commit begins, the one
before it is durable. A power loss can therefore spoil the newest snapshot alone, and which one that is the disk tells:
the one that is newest there. It is forgotten, and what it and up to two batches after it held is entered from the
records again (`recovery`).

`index/unsynced` holds the boot id of the system while that may be so. It is durable before the first such commit.
"""

from __future__ import annotations

import os
import struct

import lmdb

from pacs.errors import IndexMismatchError
from pacs.storage import layout
from pacs.storage.disk import Disk

MOST_BEHIND = 3
"""Batches that the index may be behind the records once its newest snapshot is forgotten: that one, one that never
reached the disk, and one of which only records did."""

_META = struct.Struct("<16xII8x8xI92x8xQ")
"""mdb.c of LMDB 0.9: page header, magic, version, page size (of the free list's MDB_db), transaction."""
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = 16
"""Of a page: its number, which stays."""


def possible(root: layout.Root, boot: str) -> bool:
    """Whether the index may do without syncs: after a power loss the boot id tells, and a sync of the archive's file
    system is one of the index."""
    if not boot or lmdb.version()[:2] != (0, 9):
        return False
    try:
        return os.stat(f"{root}/{layout.INDEX}").st_dev == os.stat(root).st_dev
    except FileNotFoundError:
        return False


def boot_of(root: layout.Root) -> str | None:
    """The boot in which commits were not synced; None: all of them were."""
    try:
        with open(_mark(root), encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return None


def begin(root: layout.Root, disk: Disk, boot: str) -> None:
    """Say durably that commits of this boot are not synced. Both snapshots must be durable."""
    disk.replace(_mark(root), boot.encode("ascii"))
    disk.syncfs(str(root))


def end(root: layout.Root, disk: Disk) -> None:
    """All commits are synced again. Both snapshots must be durable."""
    disk.unlink(_mark(root))
    disk.syncfs(str(root))


def forget_newest(path: str) -> None:
    """Make the older snapshot of an LMDB file the newest, durably. Nobody may have it open.

    Doing it again changes nothing. Raises IndexMismatchError when the file is no LMDB 0.9.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size, first = _meta(descriptor, 0, path)
        _, second = _meta(descriptor, size, path)
        if first != second:
            older, newer = (size, 0) if first > second else (0, size)
            meta = os.pread(descriptor, _META.size - _HEADER, older + _HEADER)
            os.pwrite(descriptor, meta, newer + _HEADER)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _meta(descriptor: int, offset: int, path: str) -> tuple[int, int]:
    """(page size, number of the transaction) of a meta page."""
    data = os.pread(descriptor, _META.size, offset)
    if len(data) == _META.size:
        magic, version, size, transaction = _META.unpack(data)
        if (magic, version) == (_MAGIC, _VERSION) and 512 <= size <= 1 << 16:
            return size, transaction
    raise IndexMismatchError(f"{path} is no index of LMDB 0.9: run `pacs reindex`")


def _mark(root: layout.Root) -> str:
    return f"{root}/{layout.INDEX}/unsynced"
