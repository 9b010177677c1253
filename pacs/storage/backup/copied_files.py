"""Stretches of logs and frames of records, copied from one archive into another and verified on their way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from pacs.errors import ChecksumError
from pacs.storage import layout
from pacs.storage.backup import unread
from pacs.storage.checksum import crc32c
from pacs.storage.disk import Disk
from pacs.storage.files import frames, records, shard
from pacs.storage.files.records import LogError, Record
from pacs.storage.index import entering
from pacs.storage.layout import Root
from pacs.storage.model import ChunkLocation

_PIECE: Final = 4 << 20


class CopiedFiles:
    """The files of `target`, as far as they are copied from `source`."""

    def __init__(self, source: Root, target: Root, disk: Disk) -> None:
        self._source, self._target = source, target
        self._disk = disk
        self.bytes = 0
        """Written so far."""

    def copy_stretch(self, study: str, series: str, start: int, end: int) -> None:
        """A stretch of a log. Raises ChecksumError when it cannot be opened."""
        path = layout.log_path(study, series)
        descriptor, _ = records.open_log(self._source, study, series)
        try:
            self._make(path)
            for position in range(start, end, _PIECE):
                self._write(path, position, unread.read(descriptor, position, min(_PIECE, end - position)))
        finally:
            os.close(descriptor)

    def copy_frames(self, record: Record) -> Iterator[str]:
        """Verify a record and copy its frames; what is damaged, and is copied as it is."""
        study, series = record.descriptor.study, record.descriptor.series
        try:
            descriptor, path = records.open_log(self._source, study, series)
        except LogError as error:  # and so finds who copies the log
            yield error.message
            return
        wrong = ""
        try:
            try:
                records.verify_parts(descriptor, path, record)
            except ChecksumError as error:
                wrong = error.message
            table = entering.table_of(descriptor, path, record)
        except ChecksumError as error:
            yield wrong or error.message
            return
        finally:
            os.close(descriptor)
        if wrong:
            yield wrong
        if record.chunks:
            self._disk.mkdir(f"{self._target}/{layout.array_path(study, series, record.array)}")
        for shard_path, locations in groupby(entering.locations(record, table), key=lambda location: location.path):
            try:
                self._copy_chunks(shard_path, list(locations))
            except ChecksumError as error:
                yield error.message

    def _copy_chunks(self, path: str, locations: Sequence[ChunkLocation]) -> None:
        descriptor = frames.open_shard(self._source, path)
        wrong: list[int] = []
        try:
            self._make(path)
            for location in locations:
                if not self._copy_chunk(descriptor, location):
                    wrong.append(location.offset)
        finally:
            os.close(descriptor)
        if wrong:
            raise ChecksumError(f"{path}: {len(wrong)} frames, the first at byte {wrong[0]}, do not match")

    def _copy_chunk(self, descriptor: int, location: ChunkLocation) -> bool:
        """Copy a chunk and the checksum behind it; whether it matches. A disk that cannot read it is as a mismatch."""
        crc, position, end = 0, location.offset, location.offset + location.length
        whole, behind = end + shard.CHECKSUM.size, b""
        while position < whole:
            try:
                piece = os.pread(descriptor, min(_PIECE, whole - position), position)
            except OSError:
                return False
            if not piece:
                return False
            crc = crc32c(piece[: max(0, end - position)], crc)
            behind += piece[max(0, end - position) :]
            self._write(location.path, position, piece)
            position += len(piece)
        return crc == location.crc32c and behind == shard.CHECKSUM.pack(crc)

    def _make(self, path: str) -> None:
        if not os.path.exists(f"{self._target}/{path}"):
            self._disk.create(f"{self._target}/{path}")

    def _write(self, path: str, offset: int, data: bytes) -> None:
        self.bytes += self._disk.write(f"{self._target}/{path}", offset, [data])
