"""A frame that was made of a stored one, and the memory for those made last."""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from typing import Final, NamedTuple, Self

from pacs.storage.checksum import crc32c
from pacs.storage.model import Buffer

_COUNT: Final = struct.Struct("<I")


class Made(NamedTuple):
    """A frame as it was made."""

    data: Buffer
    level_ends: tuple[int, ...]
    """Bytes up to the end of each resolution level, coarsest first; () where a prefix is not an image."""
    crc32c: int

    def packed(self) -> bytes:
        """As it is kept in a file, which has a checksum of its own."""
        ends = self.level_ends
        return b"".join((_COUNT.pack(len(ends)), struct.pack(f"<{len(ends)}Q", *ends), self.data))

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        """The frame that `packed` gave."""
        count = _COUNT.unpack_from(packed)[0]
        data = packed[_COUNT.size + 8 * count :]
        return cls(data, struct.unpack_from(f"<{count}Q", packed, _COUNT.size), crc32c(data))


class Recent:
    """The frames used last, within a number of bytes. For any thread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._frames: OrderedDict[str, Made] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Made | None:
        with self._lock:
            made = self._frames.get(key)
            if made is not None:
                self._frames.move_to_end(key)
            return made

    def put(self, key: str, made: Made) -> None:
        """Keep a frame, unless it would take more than a quarter of the whole."""
        if len(made.data) > self._capacity // 4:
            return
        with self._lock:
            self._drop(key)
            self._frames[key] = made
            self._size += len(made.data)
            while self._size > self._capacity:
                self._size -= len(self._frames.popitem(last=False)[1].data)

    def forget(self, prefix: str) -> None:
        with self._lock:
            for key in [key for key in self._frames if key.startswith(prefix)]:
                self._drop(key)

    def _drop(self, key: str) -> None:
        made = self._frames.pop(key, None)
        if made is not None:
            self._size -= len(made.data)
