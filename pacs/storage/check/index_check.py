"""Whether the index agrees with itself, and its arrays with the chunk tables: for `pacs check`."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator

from pacs import tags
from pacs.storage import layout
from pacs.storage.check.expected import ExpectedSeries
from pacs.storage.check.findings import Finding, Severity, error, index_error, note
from pacs.storage.files import hierarchy, shard
from pacs.storage.index import ReadView, matching
from pacs.storage.index.rows import ArrayState, encode
from pacs.storage.model import SeriesEntry, StudyEntry

_ARRAY = struct.Struct(">QI")
_SEQUENCE = struct.Struct(">Q")
_EMPTY_ENTRY = b"\xff" * shard.ENTRY.size


# --- the arrays of a series -----------------------------------------------------------------------------------


def array_findings(
    root: layout.Root, view: ReadView, study: str, series: str, place: tuple[int, int], settled: int
) -> list[Finding]:
    """An array, its place (series number, k), in the index and on the disk.

    `settled` is what `last-commit` said before: of a commit after that, index blocks and shape may be written later.
    """
    state = view.array(*place)
    if state is None:
        return []
    late = view.get(b"dirty", _ARRAY.pack(*place))
    severity = Severity.NOTE if late is not None and _SEQUENCE.unpack_from(late)[0] > settled else Severity.ERROR
    path = layout.array_path(study, series, place[1])
    capacity = state.key.capacity
    found = []
    instances = list(view.array_instances(*place))
    expected = _shards(view, place[1], capacity, instances)
    filled = 0
    for number in range(-(-state.count // capacity)):
        name = f"{path}/{layout.shard_name(state.key, number)}"
        entries = view.shard_entries(*place, number)
        filled += bool(entries)
        if entries != next(expected, b""):
            found.append(index_error(f"{path}: chunks of shard {number} lie elsewhere than their records say"))
        if hierarchy.read_start(f"{root}/{name}", shard.index_size(capacity)) != shard.index_block(entries, capacity):
            found.append(Finding(severity, name, "its index block is not that of its committed chunks"))
        elif os.stat(f"{root}/{name}").st_size > shard.end(entries, capacity):
            found.append(note(name, "has bytes behind its last committed chunk"))
    if next(expected, None) is not None or rows_of(view, b"shards", _ARRAY.pack(*place)) != filled:
        found.append(index_error(f"{path}: another number of shards than its records say"))
    content = hierarchy.encode(hierarchy.array_metadata(state.key, state.count, instances))
    if hierarchy.read_start(f"{root}/{path}/{layout.ZARR_JSON}", len(content) + 1) != content:
        found.append(Finding(severity, f"{path}/{layout.ZARR_JSON}", "is not that of the committed array"))
    return found


def _shards(view: ReadView, k: int, capacity: int, instances: list[tuple[str, int, int]]) -> Iterator[bytes]:
    """The entries of each shard, made from the chunk tables of an array's instances in their order."""
    entries = bytearray()
    current = 0
    for uid, first, count in instances:
        entry = view.instance(uid)
        if entry is None or entry.array != k or entry.chunks != count:
            yield b"?"  # no instance that is there: like nothing that could be in the index
            return
        for number, row in enumerate(shard.rows(view.table(uid), entry.levels), first):
            shard_number, place = divmod(row.position, capacity)
            if row.position != number or shard_number < current:
                yield b"?"
                return
            while current < shard_number:
                yield bytes(entries)
                entries.clear()
                current += 1
            entries += _EMPTY_ENTRY * (place - len(entries) // shard.ENTRY.size) + shard.entry(row)
    if entries:
        yield bytes(entries)


def shard_names(state: ArrayState) -> set[str]:
    """What the directory of an array holds."""
    numbers = range(-(-state.count // state.key.capacity))
    return {layout.ZARR_JSON, *(layout.shard_name(state.key, number) for number in numbers)}


def keys_of(view: ReadView, database: bytes, prefix: bytes) -> Iterator[bytes]:
    """The keys of a database that begin so."""
    cursor = view.cursor(database)
    more = cursor.set_range(prefix)
    while more and (key := bytes(cursor.key())).startswith(prefix):
        yield key
        more = cursor.next()


def rows_of(view: ReadView, database: bytes, prefix: bytes) -> int:
    return sum(1 for _ in keys_of(view, database, prefix))


def series_findings(view: ReadView, path: str, entry: SeriesEntry, expected: ExpectedSeries) -> Iterator[Finding]:
    """A series in the index against what all its records say together; `expected` is of the same moment as `view`."""
    if expected.mixed:
        yield error(path, "instances of different kinds share an array")
    number = entry.number
    if view.series_uids(number) != (entry.study, entry.uid):
        yield index_error(f"takes series {number} for another one than {path}")
    arrays = dict(view.arrays(number))
    said = {k: ArrayState(array.key, array.count) for k, array in expected.arrays.items()}
    if arrays != said:
        yield index_error(f"{path}: other arrays, or other lengths of them, than the records say")
    if view.files(number).next_array <= max(said, default=-1):
        yield index_error(f"{path}: would give the name of an array again")
    for key, k in expected.open_arrays.items():
        if view.open_array(number, key) not in (None, k):
            yield index_error(f"{path}: would append to another array than the last")
    prefix = number.to_bytes(8, "big")
    if not {prefix + encode(key) for key in expected.open_arrays}.issuperset(keys_of(view, b"open_arrays", prefix)):
        yield index_error(f"{path}: would append to an array of another kind")
    for k, array in expected.arrays.items():
        if rows_of(view, b"array_instances", _ARRAY.pack(number, k)) != array.instances:
            yield index_error(f"{path}: other instances in array {k} than the records say")


# --- studies and sums -----------------------------------------------------------------------------------------


def whole_index_findings(view: ReadView) -> list[Finding]:
    """Studies, postings and sums, in one moment of the index."""
    found = []
    state = view.state()
    rows: Counter[bytes] = Counter()
    days: Counter[bytes] = Counter()
    instances = highest = 0
    for key, uid in view.cursor(matching.ORDER):
        study = view.study(bytes(uid).decode())
        if study is None or study.sort_key != bytes(key) or study.uid.encode() != bytes(uid):
            found.append(index_error(f"lists a study {bytes(uid)!r} that is none"))
            continue
        days[study.sort_key[: matching.DAY]] += 1
        listed = list(view.series_of(study.uid))
        rows[b"studies"] += 1
        rows[b"series"] += len(listed)
        instances += study.instances
        highest = max(highest, 1 + max((series.number for series in listed), default=-1))
        found += study_findings(view, study, listed, rows)
    if days != {bytes(day): matching.COUNT.unpack(count)[0] for day, count in view.cursor(matching.DAYS)}:
        found.append(index_error("miscounts the studies of a day"))
    counters = state.counters
    sums = {"studies": rows[b"studies"], "series": rows[b"series"], "instances": instances}
    for name, value in sums.items():
        if getattr(counters, name) != value:
            found.append(index_error(f"counts {getattr(counters, name)} {name} and has {value}"))
    if state.next_series < highest:
        found.append(index_error("would give the number of a series again"))
    rows[matching.ORDER] = rows[b"studies"]
    rows[b"series_numbers"] = rows[b"files"] = rows[b"series"]
    rows[b"instances"] = rows[b"series_instances"] = instances
    found += row_findings(view, rows)
    for key, value in view.cursor(b"open_arrays"):
        number, k = int.from_bytes(bytes(key[:8]), "big"), int.from_bytes(bytes(value), "little")
        array = view.array(number, k)
        if array is None or encode(array.key) != bytes(key[8:]):
            found.append(index_error(f"would append to an array {k} of series {number} that is none, or another"))
    for place, late in view.dirty().items():
        array = view.array(*place)
        last = -(-array.count // array.key.capacity) if array is not None else 0
        if late.sequence > counters.sequence or any(number >= last for number in late.shards):
            found.append(index_error("is to write again what there is not"))
    return found


def row_findings(view: ReadView, rows: Counter[bytes]) -> list[Finding]:
    """Databases that have another number of rows than those that were looked up."""
    return [
        index_error(f"has {there} rows of {name.decode()} instead of {wanted}")
        for name, wanted in sorted(rows.items())
        if (there := view.txn.stat(view.databases[name])["entries"]) != wanted
    ]


def study_findings(view: ReadView, study: StudyEntry, listed: list[SeriesEntry], rows: Counter[bytes]) -> list[Finding]:
    """A study against its series and postings; the postings are added to `rows`, by database."""
    path = layout.study_path(study.uid)
    found = []
    if study.series != len(listed) or study.instances != sum(series.instances for series in listed):
        found.append(error(path, "the index miscounts its series or instances"))
    modalities: Counter[str] = Counter()
    postings = matching.study_postings(study)
    for series in listed:
        fragment = matching.decode(series.attributes.get(tags.MODALITY))
        modalities.update(code for code in matching.element_values(fragment) if code)
        postings |= matching.series_postings(study, series)
    if dict(modalities) != study.modalities:
        found.append(error(path, "the index miscounts its modalities"))
    cursors = {database: view.cursor(database) for database in matching.DATABASES}
    for database, key, value in postings:
        rows[database] += database != matching.ORDER
        cursor = cursors[database]
        there = cursor.set_key_dup(key, value) if database == matching.POSTINGS else cursor.set_key(key)
        if not there or bytes(cursor.value()) != value:
            found.append(error(path, f"the index lacks the posting {key!r}"))
    return found
