"""What the index holds, read and written inside one LMDB transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pacs.errors import IndexMismatchError
from pacs.storage import layout
from pacs.storage.files import shard
from pacs.storage.index import matching
from pacs.storage.index.rows import (
    ARRAY,
    INDEX_FORMAT,
    LEFT,
    PLACE,
    SERIES,
    SHARD,
    STATE,
    U32,
    ArrayState,
    Dirty,
    IndexState,
    SeriesFiles,
    decode_array,
    decode_files,
    decode_series,
    decode_state,
    decode_study,
    encode,
    instance_entry,
    instance_row,
    series_key,
)
from pacs.storage.model import ArrayKey, ChunkLocation, Counters, InstanceEntry, SeriesEntry, StudyEntry


class ReadView:
    """The index as it was at one moment: one LMDB read transaction. Buffers it gives die with it."""

    def __init__(self, txn: Any, databases: Mapping[bytes, Any]) -> None:
        self.txn = txn
        self.databases = databases
        self._last: tuple[str, memoryview] | None = None
        """The instance that was read last, and its row."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The end of a read transaction: there is nothing to commit."""
        self.txn.abort()

    def get(self, database: bytes, key: bytes) -> memoryview | None:
        found: memoryview | None = self.txn.get(key, None, self.databases[database])
        return found

    def cursor(self, database: bytes) -> Any:
        return self.txn.cursor(db=self.databases[database])

    def _prefixed(self, database: bytes, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
        cursor = self.cursor(database)
        if not cursor.set_range(prefix):
            return
        for key, value in cursor:
            name = bytes(key)
            if not name.startswith(prefix):
                return
            yield name, value

    def state(self) -> IndexState:
        found = self.get(b"meta", STATE)
        if found is None:
            raise IndexMismatchError("the index is not complete: run `pacs reindex`")
        state: IndexState = decode_state(found)
        if state.index_format != INDEX_FORMAT:
            raise IndexMismatchError(
                f"the index is of format {state.index_format} instead of {INDEX_FORMAT}: run `pacs reindex`"
            )
        return state

    def counters(self) -> Counters:
        return self.state().counters

    def study(self, uid: str) -> StudyEntry | None:
        found = self.get(b"studies", uid.encode())
        return decode_study(found) if found is not None else None

    def series(self, study: str, uid: str) -> SeriesEntry | None:
        found = self.get(b"series", series_key(study, uid))
        return decode_series(found) if found is not None else None

    def instance(self, uid: str) -> InstanceEntry | None:
        """By SOP Instance UID."""
        place = self.get(b"instances", uid.encode())
        if place is None:
            return None
        found = self._row(bytes(place), uid)
        number = SERIES.unpack_from(place)[0]
        return instance_entry(found, *self.series_uids(number), uid)

    def _row(self, place: bytes, uid: str) -> memoryview:
        """The entry and chunk table of an instance that lies at `place`."""
        found = self.get(b"series_instances", place + uid.encode())
        if found is None:
            raise IndexMismatchError(f"the index lacks its instance {uid}: run `pacs reindex`")
        self._last = uid, found
        return found

    def studies(self) -> Iterator[StudyEntry]:
        """Newest first."""
        for _, uid in self.cursor(matching.ORDER):
            entry = self.study(bytes(uid).decode())
            if entry is not None:
                yield entry

    def series_of(self, study: str) -> Iterator[SeriesEntry]:
        for _, value in self._prefixed(b"series", series_key(study, "")):
            yield decode_series(value)

    def instances_of(self, series: SeriesEntry) -> Iterator[InstanceEntry]:
        """By Instance Number, then UID."""
        for key, value in self._prefixed(b"series_instances", SERIES.pack(series.number)):
            yield instance_entry(value, series.study, series.uid, key[PLACE:].decode())

    def chunk(self, entry: InstanceEntry, n: int) -> ChunkLocation:
        """Where inner chunk `n` of an instance, from 0, lies: one read however many it has. Raises IndexError."""
        descriptor = entry.descriptor
        key = descriptor.array_key
        if key is None or not 0 <= n < entry.chunks:
            raise IndexError(f"chunk {n} of {entry.chunks}")
        row = shard.read_row(self.table(descriptor.instance), entry.levels, n)
        path = layout.array_path(descriptor.study, descriptor.series, entry.array)
        name = layout.shard_name(key, row.position // key.capacity)
        return ChunkLocation(f"{path}/{name}", row.offset, row.length, row.crc32c, row.level_ends)

    def chunk_count(self, entry: InstanceEntry) -> int:
        """Inner chunks of an instance."""
        return entry.chunks

    def table(self, instance: str) -> memoryview:
        """The chunk table of an instance."""
        if self._last is not None and self._last[0] == instance:
            found = self._last[1]
        else:
            place = self.get(b"instances", instance.encode())
            if place is None:
                raise IndexError(f"instance {instance} is not in the index")
            found = self._row(bytes(place), instance)
        return found[4 + U32.unpack_from(found)[0] :]

    # --- how far files are committed: for the layers that write ---

    def files(self, series: int) -> SeriesFiles:
        found = self.get(b"files", SERIES.pack(series))
        return decode_files(found) if found is not None else SeriesFiles()

    def left_files(self, study: str, series: str) -> SeriesFiles:
        """Of a series that is not in the index, for none of its records could be entered; else empty."""
        found = self.get(b"meta", LEFT + series_key(study, series))
        return decode_files(found) if found is not None else SeriesFiles()

    def left(self) -> Iterator[tuple[str, str]]:
        """(study, series) of all these."""
        for key, _ in self._prefixed(b"meta", LEFT):
            study, series = key[len(LEFT) :].decode().split("\0")
            yield study, series

    def log_end(self, study: str, series: str) -> int:
        """How far the log of a series is committed, whether the series is in the index or not."""
        entry = self.series(study, series)
        return (self.files(entry.number) if entry is not None else self.left_files(study, series)).log_end

    def series_uids(self, series: int) -> tuple[str, str]:
        """(study, series) of a series number."""
        found = self.get(b"series_numbers", SERIES.pack(series))
        if found is None:
            raise IndexMismatchError(f"the index does not know its series {series}: run `pacs reindex`")
        study, uid = bytes(found).decode().split("\0")
        return study, uid

    def array(self, series: int, array: int) -> ArrayState | None:
        found = self.get(b"arrays", ARRAY.pack(series, array))
        return decode_array(found) if found is not None else None

    def arrays(self, series: int) -> Iterator[tuple[int, ArrayState]]:
        """(k, state) of the arrays of a series."""
        for key, value in self._prefixed(b"arrays", SERIES.pack(series)):
            yield ARRAY.unpack(key)[1], decode_array(value)

    def open_array(self, series: int, key: ArrayKey) -> int | None:
        """k of the array that instances with this key are appended to."""
        found = self.get(b"open_arrays", SERIES.pack(series) + encode(key))
        return int(U32.unpack(found)[0]) if found is not None else None

    def array_instances(self, series: int, array: int) -> Iterator[tuple[str, int, int]]:
        """(SOP Instance UID, first position, number of chunks) in the order of an array."""
        for key, value in self._prefixed(b"array_instances", ARRAY.pack(series, array)):
            yield bytes(value[4:]).decode(), SHARD.unpack(key)[2], U32.unpack_from(value)[0]

    def shard_entries(self, series: int, array: int, number: int) -> bytes:
        found = self.get(b"shards", SHARD.pack(series, array, number))
        return bytes(found) if found is not None else b""

    def dirty(self) -> dict[tuple[int, int], Dirty]:
        """By (series number, k): arrays whose derived files may not be on the disk as they are here."""
        found = {}
        for key, value in self.cursor(b"dirty"):
            (sequence,) = SERIES.unpack_from(value)
            numbers = {number for (number,) in U32.iter_unpack(value[SERIES.size :])}
            found[ARRAY.unpack(bytes(key))] = Dirty(sequence, numbers)
        return found


class WriteView(ReadView):
    """The write transaction of a batch. Keeps postings in step with entries."""

    def _row(self, place: bytes, uid: str) -> memoryview:
        found = super()._row(place, uid)
        self._last = None  # the next write may move it
        return found

    def put(self, database: bytes, key: bytes, value: bytes) -> None:
        self.txn.put(key, value, db=self.databases[database])

    def put_state(self, state: IndexState) -> None:
        self.put(b"meta", STATE, encode(state))

    def put_study(self, entry: StudyEntry, before: StudyEntry | None) -> None:
        """Put a study in place of `before`. A new sort key takes the postings of its series along."""
        self.put(b"studies", entry.uid.encode(), encode(entry))
        # Deriving postings costs as much as the rest of a small commit, and most instances only raise the counts.
        if before is not None and matching.found_alike(before, entry):
            return
        old = matching.study_postings(before) if before is not None else set()
        new = matching.study_postings(entry)
        if before is not None and before.sort_key != entry.sort_key:
            for series in self.series_of(entry.uid):
                old |= matching.series_postings(before, series)
                new |= matching.series_postings(entry, series)
        if old != new:
            matching.update(self.txn, self.databases, old, new)

    def put_series(self, study: StudyEntry, entry: SeriesEntry, before: SeriesEntry | None) -> None:
        """Put a series in place of `before`, with the postings it gives to its study as it is now.

        Attributes of a series are only ever added, and other series may give the same postings: none is removed.
        """
        self.put(b"series", series_key(entry.study, entry.uid), encode(entry))
        if before is None or before.attributes != entry.attributes:
            matching.update(self.txn, self.databases, (), matching.series_postings(study, entry))

    def put_series_number(self, entry: SeriesEntry) -> None:
        """What instances of a new series need to be read."""
        self.txn.delete(LEFT + series_key(entry.study, entry.uid), db=self.databases[b"meta"])
        self.put(b"series_numbers", SERIES.pack(entry.number), series_key(entry.study, entry.uid))

    def put_files(self, series: int, files: SeriesFiles) -> None:
        self.put(b"files", SERIES.pack(series), encode(files))

    def keep(self, study: str, series: str, end: int, next_array: int = 0) -> None:
        """Never write over what was left out of the index: up to `end` of the log, in arrays below `next_array`, and
        behind the last chunk that is known of any array that there is now."""
        entry = self.series(study, series)
        before = self.files(entry.number) if entry is not None else self.left_files(study, series)
        files = SeriesFiles(max(before.log_end, end), max(before.next_array, next_array))
        if entry is None:
            self.put(b"meta", LEFT + series_key(study, series), encode(files))
        else:
            self.put_files(entry.number, files)
            self.delete_open_arrays(entry.number)

    def reserve(self, study: str, series: str, next_array: int) -> None:
        """Make no array below `next_array` in a series, and change nothing else of it."""
        entry = self.series(study, series)
        if entry is None:
            self.keep(study, series, 0, next_array)
            return
        files = self.files(entry.number)
        if files.next_array < next_array:
            self.put_files(entry.number, SeriesFiles(files.log_end, next_array))

    def put_instance(self, entry: InstanceEntry, table: bytes) -> None:
        uid = entry.descriptor.instance.encode()
        place, row = instance_row(entry, table)
        self.put(b"instances", uid, place)
        self.put(b"series_instances", place + uid, row)

    def put_array(self, series: int, array: int, state: ArrayState) -> None:
        self.put(b"arrays", ARRAY.pack(series, array), encode(state))

    def put_open_array(self, series: int, key: ArrayKey, array: int) -> None:
        self.put(b"open_arrays", SERIES.pack(series) + encode(key), U32.pack(array))

    def delete_open_arrays(self, series: int) -> None:
        for key in [key for key, _ in self._prefixed(b"open_arrays", SERIES.pack(series))]:
            self.txn.delete(key, db=self.databases[b"open_arrays"])

    def put_array_instance(self, series: int, array: int, first: int, count: int, instance: str) -> None:
        self.put(b"array_instances", SHARD.pack(series, array, first), U32.pack(count) + instance.encode())

    def put_shard(self, series: int, array: int, number: int, entries: bytes) -> None:
        self.put(b"shards", SHARD.pack(series, array, number), entries)

    def put_dirty(self, dirty: Mapping[tuple[int, int], Dirty]) -> None:
        """In place of all that was there."""
        self.txn.drop(self.databases[b"dirty"], delete=False)
        for (series, array), entry in dirty.items():
            value = b"".join((SERIES.pack(entry.sequence), *map(U32.pack, sorted(entry.shards))))
            self.put(b"dirty", ARRAY.pack(series, array), value)
