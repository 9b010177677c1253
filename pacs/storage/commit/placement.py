"""Where a batch puts its chunks and records, decided before anything is written; and how to take it back."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field

from pacs.errors import IndexMismatchError, StorageError
from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files import hierarchy, records, shard
from pacs.storage.files.frames import StagedArray
from pacs.storage.files.shard import TableRow
from pacs.storage.index.entries import Entries, SeriesChange
from pacs.storage.model import Buffer, NewInstance

_log = logging.getLogger(__name__)


class TailError(Exception):
    """Behind the committed end of a log lie bytes that no batch has accounted for: to be looked at first."""

    def __init__(self, study: str, series: str) -> None:
        super().__init__(study, series)
        self.series = (study, series)


@dataclass(slots=True)
class Append:
    """What goes behind the committed end of one file."""

    start: int
    """The committed end; 0 of a file that is new."""
    fresh: bool
    offset: int = 0
    buffers: list[Buffer] = field(default_factory=list)
    length: int = 0


class Placement:
    """The changes of one batch to files."""

    def __init__(self, root: layout.Root, entries: Entries) -> None:
        self.root = root
        self.entries = entries
        self.groups: list[str] = []
        """Of new series, relative."""
        self.directories: list[str] = []
        """Of new shared arrays, absolute."""
        self.staged: list[tuple[StagedArray, str]] = []
        """Arrays of their own, and their place."""
        self.shards: dict[str, Append] = {}
        self.logs: dict[str, Append] = {}
        self.series: list[tuple[str, str]] = []
        self.arrays: list[tuple[int, int]] = []
        """(place in `series`, k) of all new arrays."""
        self._ordinal = 0
        self._begun = False

    @property
    def empty(self) -> bool:
        return not self.logs

    def add(self, new: NewInstance) -> tuple[str, ...]:
        """Place an instance and enter it; its warnings.

        Raises StorageError or IndexMismatchError, with nothing placed, and TailError.
        """
        _check(new)
        descriptor = new.descriptor
        series = self.entries.series_change(descriptor.study, descriptor.series)
        log = self._log(series)
        array, levels, table = self._place_chunks(series, new)
        count = len(table) // shard.row_struct(levels).size
        record, buffers = records.compose(
            new, table, offset=log.start + log.length, sequence=self.entries.sequence, ordinal=self._ordinal,
            levels=levels, array=array, chunks=count,
        )  # fmt: skip
        self._ordinal += 1
        log.buffers += buffers
        log.length += record.length
        return self.entries.add(record, table, new.attributes)

    def _log(self, series: SeriesChange) -> Append:
        study, uid = series.entry.study, series.entry.uid
        path = f"{self.root}/{layout.log_path(study, uid)}"
        log = self.logs.get(path)
        if log is not None:
            return log
        end = series.files.log_end
        size = _size(path)
        if size > end:
            raise TailError(study, uid)
        if size < end:
            raise IndexMismatchError(f"{path} has {size} bytes, the index knows {end}: run `pacs check`")
        log = self.logs[path] = Append(end, fresh=end == 0, offset=end)
        self.series.append((study, uid))
        if series.before is None:
            groups = hierarchy.series_groups(study, uid)
            self.groups += [group for group in groups if group not in self.groups]
        return log

    def _place_chunks(self, series: SeriesChange, new: NewInstance) -> tuple[int, int, bytes]:
        """(k, levels, chunk table) of an instance."""
        key = new.descriptor.array_key
        staged = new.staged
        if staged is not None:
            assert isinstance(staged, StagedArray)
            array = self._next_array(series)
            place = layout.array_path(series.entry.study, series.entry.uid, array)
            self.staged.append((staged, f"{self.root}/{place}"))
            return array, staged.levels, bytes(staged.table)
        if key is None or not new.chunks:
            return -1, 0, b""
        levels = len(new.chunks[0].level_ends)
        own = len(new.chunks) >= key.capacity
        found = None if own else self.entries.open_array(series, key)
        array = self._new_array(series) if found is None else found
        change = self.entries.array_change(series, array, key)
        table = bytearray()
        directory = f"{self.root}/{layout.array_path(series.entry.study, series.entry.uid, array)}"
        append: Append | None = None
        end = 0
        for position, chunk in enumerate(new.chunks, change.state.count):
            number, place_in_shard = divmod(position, key.capacity)
            if append is None or place_in_shard == 0:
                path = f"{directory}/{layout.shard_name(key, number)}"
                entries = self.entries.shard_entries(series, array, change, number)
                end = shard.end(entries, key.capacity)
                append = self._shard(path, end, fresh=place_in_shard == 0)
            row = TableRow(position, end, len(chunk.data), chunk.crc32c, tuple(chunk.level_ends))
            table += shard.pack_row(row)
            append.buffers += (chunk.data, shard.CHECKSUM.pack(chunk.crc32c))
            end += row.length + shard.CHECKSUM.size
            append.length = end - append.offset
        return array, levels, bytes(table)

    def _shard(self, path: str, end: int, *, fresh: bool) -> Append:
        append = self.shards.get(path)
        if append is None:
            append = self.shards[path] = Append(0 if fresh else end, fresh, offset=end)
        return append

    def _next_array(self, series: SeriesChange) -> int:
        """A k that neither the index nor a file has ever used."""
        array = series.files.next_array
        while os.path.lexists(f"{self.root}/{layout.array_path(series.entry.study, series.entry.uid, array)}"):
            array += 1
        series.files.next_array = array + 1
        self.arrays.append((self.series.index((series.entry.study, series.entry.uid)), array))
        return array

    def _new_array(self, series: SeriesChange) -> int:
        array = self._next_array(series)
        path = layout.array_path(series.entry.study, series.entry.uid, array)
        self.directories.append(f"{self.root}/{path}")
        return array

    # --- writing it ---

    def write_frames(self, disk: Disk) -> None:
        """New directories and logs, arrays of their own, and chunks behind the committed end of shards."""
        self._begun = True
        if self.groups:
            hierarchy.write_groups(disk, self.root, self.groups)
        # Before any array: where a log is missing, it is lost, and its arrays are not what a killed batch left.
        _create(disk, self.logs)
        for directory in self.directories:
            disk.mkdir(directory)
        for staged, place in self.staged:
            disk.rename(staged.path, place)
        _create(disk, self.shards)
        self._append(disk, self.shards)

    def write_records(self, disk: Disk) -> None:
        self._append(disk, self.logs)

    def _append(self, disk: Disk, appends: dict[str, Append]) -> None:
        for path, append in appends.items():
            if not append.fresh and _size(path) > append.start:
                disk.truncate(path, append.start)  # of a batch that never was committed
            disk.write(path, append.offset, append.buffers)

    def take_back(self, disk: Disk) -> None:
        """Leave the files as they were; what cannot be taken back, the next batch deals with.

        Arrays of their own go back to where they came from: their instances may be committed once more, without the
        one that the batch failed for.
        """
        if not self._begun:
            return
        for path, append in (*self.logs.items(), *self.shards.items()):
            try:
                if append.fresh:
                    if os.path.lexists(path):
                        disk.unlink(path)
                elif _size(path) > append.start:
                    disk.truncate(path, append.start)
            except OSError as error:
                _log.error("%s could not be taken back: %s", path, error.strerror)
        for staged, place in self.staged:
            if not os.path.lexists(place):
                continue
            try:
                disk.rename(place, staged.path)
            except OSError as error:
                _log.error("%s could not be taken back: %s", place, error.strerror)
                _try_remove(disk, place)
        for directory in self.directories:
            _try_remove(disk, directory)


def _check(new: NewInstance) -> None:
    """Raises StorageError for what no ingest should hand over."""
    if isinstance(new.staged, StagedArray):
        if not new.staged.sealed or new.staged.key != new.descriptor.array_key:
            raise StorageError("an array of its own is not sealed, or not of this instance")
    elif new.chunks:
        levels = {len(chunk.level_ends) for chunk in new.chunks}
        longest = max(len(chunk.data) for chunk in new.chunks)
        if new.descriptor.array_key is None or len(levels) != 1 or (levels != {0} and longest >= 1 << 32):
            raise StorageError("the chunks of an instance do not make an array")


def _create(disk: Disk, appends: dict[str, Append]) -> None:
    for path, append in appends.items():
        if append.fresh:
            disk.create(path)


def _try_remove(disk: Disk, path: str) -> None:
    try:
        disk.remove_tree(path)
    except OSError as error:
        _log.error("%s could not be removed: %s", path, error.strerror)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
