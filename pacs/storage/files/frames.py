"""Inner chunks: reading one by its location, and writing the array of an instance that fills shards of its own."""

from __future__ import annotations

import os

from pacs.errors import ChecksumError, PacsError, StorageError
from pacs.storage import layout
from pacs.storage.disk import NOT_OF_THE_DISK, Disk
from pacs.storage.files import shard, stretch
from pacs.storage.files.shard import TableRow
from pacs.storage.model import ArrayKey, Chunk, ChunkLocation

# --- reading --------------------------------------------------------------------------------------------------


def mismatch(location: ChunkLocation) -> ChecksumError:
    return ChecksumError(f"{location.path}: the frame at byte {location.offset} does not match its checksum")


def read_chunk(root: layout.Root, location: ChunkLocation) -> bytes | memoryview:
    """The stored bytes of an inner chunk, its checksum verified; a long one as a map of the file.

    May wait for the disk. Raises ChecksumError; StorageError where nothing is known of the bytes, because too much is
    open.
    """
    descriptor = open_shard(root, location.path)
    try:
        data = stretch.read(descriptor, location.offset, location.length, location.crc32c)
    except OSError as error:
        raise _unread(error, f"{location.path}: byte {location.offset} cannot be read") from None
    finally:
        os.close(descriptor)
    if data is None:
        raise mismatch(location)
    return data


def open_shard(root: layout.Root, path: str) -> int:
    """The descriptor of a shard, to read from. Raises ChecksumError; StorageError where too much is open."""
    try:
        return os.open(f"{root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unread(error, f"{path} cannot be opened") from None


def _unread(error: OSError, what: str) -> PacsError:
    kind = StorageError if error.errno in NOT_OF_THE_DISK else ChecksumError
    return kind(f"{what}: {error.strerror}")


def verify_chunk(descriptor: int, location: ChunkLocation) -> None:
    """Read an inner chunk of the open shard and the checksum behind it, in memory bounded whatever its length.

    Our own readers take the checksum from the chunk table; those of Zarr from there. Raises ChecksumError.
    """
    end = location.offset + location.length
    try:
        crc, behind = stretch.checksum_and_tail(descriptor, location.offset, location.length, shard.CHECKSUM.size)
    except OSError as error:
        raise ChecksumError(f"{location.path}: byte {location.offset} cannot be read: {error.strerror}") from None
    if crc != location.crc32c:
        raise mismatch(location)
    if behind != shard.CHECKSUM.pack(location.crc32c):
        raise ChecksumError(f"{location.path}: the checksum at byte {end} is not that of the frame before it")


# --- an array of its own --------------------------------------------------------------------------------------


class StagedArray:
    """The array of one instance that fills a shard or more, written and synced before the writer's lock is taken.

    It grows under `staging/` and gets its place and name in the commit, by one rename. So it needs to know neither
    the index nor the series, and what a killed process leaves behind lies where nothing else does.
    """

    def __init__(self, disk: Disk, path: str, key: ArrayKey, levels: int) -> None:
        self._disk = disk
        self.path = path
        """Absolute."""
        self.key = key
        self.levels = levels
        self.table = bytearray()
        """Rows of the chunk table."""
        self.count = 0
        self._entries = bytearray()
        self._sealed = False
        disk.mkdir(path)

    def _shard(self, number: int) -> str:
        return f"{self.path}/{layout.shard_name(self.key, number)}"

    def append(self, chunk: Chunk) -> None:
        """Write one more chunk. Raises StorageError."""
        capacity = self.key.capacity
        path = self._shard(self.count // capacity)
        if len(chunk.level_ends) != self.levels:
            raise StorageError("chunks of one instance differ in their number of resolution levels")
        length = len(chunk.data) + sum(map(len, chunk.more))
        row = TableRow(self.count, shard.end(self._entries, capacity), length, chunk.crc32c, tuple(chunk.level_ends))
        packed = shard.pack_row(row)
        try:
            if not self._entries:
                self._disk.create(path)
            self._disk.write(path, row.offset, [chunk.data, *chunk.more, shard.CHECKSUM.pack(chunk.crc32c)])
            self.table += packed
            self.count += 1
            self._entries += shard.entry(row)
            if len(self._entries) == capacity * shard.ENTRY.size:
                self._finish_shard(path)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error

    def _finish_shard(self, path: str) -> None:
        self._disk.write(path, 0, [shard.index_block(self._entries, self.key.capacity)])
        self._disk.sync([path])
        self._entries.clear()

    def seal(self) -> None:
        """Make all of it durable. Raises StorageError."""
        try:
            if self._entries:
                self._finish_shard(self._shard(self.count // self.key.capacity))
            self._disk.sync([self.path])
        except OSError as error:
            raise StorageError(f"{self.path} cannot be synced: {error.strerror}") from error
        self._sealed = True

    @property
    def sealed(self) -> bool:
        return self._sealed

    def location(self, index: int) -> ChunkLocation:
        row = shard.read_row(self.table, self.levels, index)
        path = layout.shard_name(self.key, index // self.key.capacity)
        return ChunkLocation(path, row.offset, row.length, row.crc32c, row.level_ends)

    def read(self, index: int) -> bytes | memoryview:
        """One chunk back from the disk, verified."""
        return read_chunk(self.path, self.location(index))

    def discard(self) -> None:
        """Unlink everything; also after a failure half-way."""
        try:
            self._disk.remove_tree(self.path)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be removed: {error.strerror}") from error
