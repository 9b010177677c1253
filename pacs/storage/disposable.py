"""Results that can be made again, kept in files of their own: within a number of bytes, shared by all processes.

Nothing here is part of the archive. The directory can be deleted at any time; nothing is synced, so after a crash a
file may hold anything, and its checksum tells. What is damaged or belongs to another key is as if it were not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Iterator
from typing import Final

from pacs.storage.checksum import crc32c
from pacs.storage.disk import Disk
from pacs.storage.model import Buffer

_HEAD: Final = struct.Struct("<8sIII")
"""Magic, crc32c of all that follows, length of the key, length of the value."""
_MAGIC: Final = b"PACSKEPT"
_COUNTER: Final = struct.Struct("<Q")
_EVICT_TO: Final = 0.9
"""Of the capacity: looking at every file is paid once for a tenth of it."""
_LOCK: Final = getattr(fcntl, "F_OFD_SETLK", None)
"""Locks a range of a file for an open file: threads and processes alike. Where there is none, nobody waits."""
_RANGE: Final = struct.Struct("@hhqqi0q")
"""struct flock: type, whence, start, length, pid."""
_LONGEST_WAIT: Final = 60.0
"""Seconds that one waits for what another is making: he may hang."""
_LEFT_FREE: Final = 256 << 20
"""Bytes that stay free on the disk: what is uploaded needs them more."""


class DisposableFiles:
    """Values by key, in files below `directory`. Every method may be called from any thread and process.

    A key is (group, name): all values of a group can be forgotten together. `capacity` 0 keeps nothing.
    """

    def __init__(self, directory: str, capacity: int, disk: Disk | None = None) -> None:
        self._directory = directory
        self._capacity = capacity
        self._disk = disk or Disk()
        self._new = os.path.join(directory, "new")

    def get(self, group: bytes, name: str) -> bytes | None:
        """The value kept under the key, its checksum verified, or None."""
        if not self._capacity:
            return None
        path = self._path(group, name)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            return None
        value = _value(content, _key(group, name))
        with contextlib.suppress(OSError):
            if value is None:
                self._disk.unlink(path)
            else:
                os.utime(path)  # what was used last is dropped last
        return value

    def put(self, group: bytes, name: str, value: Buffer) -> bool:
        """Keep `value`, unless it is more than a quarter of the whole or the disk is full. Whether it was kept."""
        key = _key(group, name)
        size = _HEAD.size + len(key) + len(value)
        if size > self._capacity // 4:
            return False
        path = self._path(group, name)
        head = _HEAD.pack(_MAGIC, crc32c(value, crc32c(_lengths(key, value) + key)), len(key), len(value))
        try:
            self._make_directories(path)
            room = os.statvfs(self._directory)
            if room.f_bavail * room.f_frsize < _LEFT_FREE + size:
                return False
            with self._counted(size):
                self._disk.create(self._new)
                self._disk.write(self._new, 0, [head, key, value])
                self._disk.rename(self._new, path)
        except OSError:
            # Full, read-only, or just deleted by somebody: it is made again when it is asked for again.
            return False
        return True

    @contextlib.contextmanager
    def alone(self, group: bytes, name: str) -> Iterator[None]:
        """Wait while another process is in here for the same key: what it makes is then to be had by `get`.

        The kernel lets go of a lock when its holder dies. No promise: after a minute, or where the directory cannot
        be written or was just deleted, two make the same.
        """
        if not self._capacity or _LOCK is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self._make_directories(os.path.join(self._directory, "making"))
                descriptor = os.open(
                    os.path.join(self._directory, "making"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
                )
                stack.callback(os.close, descriptor)
                # Each key has a byte of its own in this file, which stays empty.
                place = int.from_bytes(hashlib.blake2b(_key(group, name), digest_size=7).digest(), "big")
                wanted = _RANGE.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
                until = time.monotonic() + _LONGEST_WAIT
                while time.monotonic() < until:
                    try:
                        fcntl.fcntl(descriptor, _LOCK, wanted)
                        break
                    except BlockingIOError:
                        time.sleep(0.01)
            yield

    def forget(self, group: bytes) -> None:
        """Drop every value of a group."""
        directory = os.path.join(self._directory, _name(group)[:2])
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(directory)):
                if entry.name.startswith(_name(group)):
                    self._disk.unlink(entry.path)

    def size(self) -> int:
        """Bytes of all files that are there now."""
        return sum(size for _, size, _ in self._files())

    def _path(self, group: bytes, name: str) -> str:
        of_group = _name(group)
        return os.path.join(self._directory, of_group[:2], f"{of_group}-{_name(name.encode())}")

    def _make_directories(self, path: str) -> None:
        for directory in (self._directory, os.path.dirname(path)):
            if not os.path.isdir(directory):
                self._disk.mkdir(directory)

    @contextlib.contextmanager
    def _counted(self, size: int) -> Iterator[None]:
        """Count `size` bytes, make room for them, and let one process at a time write.

        Counted before they are written: a crash in between makes the count too high, never too low, and it is put
        right when files are looked at the next time.
        """
        descriptor = os.open(os.path.join(self._directory, "size"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known = os.pread(descriptor, _COUNTER.size, 0)
            total = _COUNTER.unpack(known)[0] if len(known) == _COUNTER.size else self._capacity
            if total + size > self._capacity:
                total = self._evict(size)
            os.pwrite(descriptor, _COUNTER.pack(total + size), 0)
            yield
        finally:
            os.close(descriptor)

    def _evict(self, wanted: int) -> int:
        """Drop what was used longest ago until `wanted` bytes fit; the bytes that are left."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(self._new)  # left by a process that died
        files = sorted(self._files(), reverse=True)
        total = sum(size for _, size, _ in files)
        most = max(0, min(self._capacity - wanted, int(self._capacity * _EVICT_TO)))
        while files and total > most:
            _, size, path = files.pop()
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(path)
            total -= size
        return total

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """(last use, bytes, path) of every file."""
        try:
            directories = [entry.path for entry in os.scandir(self._directory) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return
        for directory in directories:
            with contextlib.suppress(OSError):
                for entry in list(os.scandir(directory)):
                    with contextlib.suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        yield found.st_mtime, found.st_size, entry.path


def _name(of: bytes) -> str:
    return hashlib.blake2b(of, digest_size=16).hexdigest()


def _key(group: bytes, name: str) -> bytes:
    return len(group).to_bytes(2, "little") + group + name.encode()


def _value(content: bytes, key: bytes) -> bytes | None:
    """The value of a file's content if it is whole and that of `key`."""
    if len(content) < _HEAD.size:
        return None
    magic, checksum, key_length, length = _HEAD.unpack_from(content)
    start = _HEAD.size + key_length
    if magic != _MAGIC or len(content) != start + length or content[_HEAD.size : start] != key:
        return None
    value = content[start:]
    return value if crc32c(value, crc32c(_lengths(key, value) + key)) == checksum else None


def _lengths(key: bytes, value: Buffer) -> bytes:
    return struct.pack("<II", len(key), len(value))
