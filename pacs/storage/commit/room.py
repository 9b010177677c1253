"""How much room an archive has, and whether its disk takes anything: for those who watch over a node."""

from __future__ import annotations

import os
import tempfile
from typing import NamedTuple

from pacs.storage.index import Index
from pacs.storage.layout import Root


class Room(NamedTuple):
    """Told in a few system calls, whatever the archive holds. In bytes, unless it says otherwise."""

    disk_free: int
    """Of the archive's file system, for users other than root."""
    disk_size: int
    files_free: int
    """Inodes; a file system without a table of them says 0, and `files` too."""
    files: int
    index_used: int
    """Of the memory map: pages that have ever been used. Those that are free again are used first."""
    index_limit: int
    """Size of the memory map."""
    index_readers: int
    """Slots of read transactions that are taken, a number."""


def room(root: Root, index: Index) -> Room:
    """Raises OSError where the file system does not answer."""
    found = os.statvfs(root)
    return Room(
        found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail, found.f_files, *index.size()
    )


def probe(root: Root) -> None:
    """Write a page and sync it, in a file without a name: nothing is left of it. Raises OSError."""
    with tempfile.TemporaryFile(dir=root, buffering=0) as file:
        file.write(bytes(4096))
        os.fdatasync(file.fileno())
