"""Shards that stay open for a moment: the frames of a series are asked for one by one, and lie in one or two files.

A descriptor names a file, not a path. What it reads is believed when its checksum is right; else the path is opened
anew before anything is said against the frame. Nothing stays open for longer than the time between two calls of
`let_go`, so a shard that was deleted gives its space back.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from google_crc32c import value

from pacs.storage import layout
from pacs.storage.files import frames, stretch
from pacs.storage.model import ChunkLocation

_MOST = 64
"""Descriptors of one archive."""


class KeptShards:
    """Reads chunks that the page cache has. Every method may be called from any thread."""

    def __init__(self, root: layout.Root) -> None:
        self._root = str(root)
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self, location: ChunkLocation) -> memoryview | None:
        """The stored bytes of an inner chunk, its checksum verified; None where that would have to wait for the disk,
        the file ends before, or the chunk is long. Raises ChecksumError."""
        if location.length >= stretch.MAPPED_FROM:
            return None
        with self._lock:
            try:
                descriptor = self._descriptors.get(location.path)
                if descriptor is not None:
                    data = _cached(descriptor, location)
                    if data is not None and value(data) == location.crc32c:
                        return memoryview(data)
                    os.close(self._descriptors.pop(location.path))
                data = _cached(self._open(location.path), location)
            except OSError:  # also where it is not cached, or the file system has no RWF_NOWAIT: the file stays open
                return None
        if data is None:
            return None
        if value(data) != location.crc32c:
            raise frames.mismatch(location)
        return memoryview(data)

    def _open(self, path: str) -> int:
        descriptor = os.open(f"{self._root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        if len(self._descriptors) >= _MOST:
            os.close(self._descriptors.pop(next(iter(self._descriptors))))
        self._descriptors[path] = descriptor
        return descriptor

    def let_go(self) -> None:
        """Close all of them."""
        with self._lock:
            while self._descriptors:
                os.close(self._descriptors.popitem()[1])


def _cached(descriptor: int, location: ChunkLocation) -> Any:
    """What lies there as an array, or None where the page cache or the file has less. Raises OSError."""
    data: Any = np.empty(location.length, np.uint8)  # a bytearray would be filled with zeros first
    return data if os.preadv(descriptor, [data], location.offset, os.RWF_NOWAIT) == location.length else None
