"""Read-only verification of everything: records, frames, index blocks, shapes, and the index in both directions.

Nothing is written, not even what could be repaired. It works beside a running server: a series is read under one
snapshot of the index, and what looks wrong because it just changed is looked at again under a newer one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from pacs import tags
from pacs.errors import ChecksumError, PacsError
from pacs.storage import frames, hierarchy, layout, matching, records, recovery, shard
from pacs.storage.disk import Disk
from pacs.storage.index import Index
from pacs.storage.last_commit import LastCommit
from pacs.storage.layout import Root
from pacs.storage.model import InstanceEntry, SeriesEntry, StudyEntry
from pacs.storage.records import Record, RecordError
from pacs.storage.views import ReadView
from pacs.storage.walking import walk_damaged

Verify = Callable[[InstanceEntry], None]
"""Rebuilds the received file of an instance and compares its SHA-256; raises a PacsError."""
Progress = Callable[[str, int, int], None]


class Severity(StrEnum):
    ERROR = "error"
    """Something stored is damaged, missing or contradictory."""
    NOTE = "note"
    """Something left over that harms nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    path: str
    """Relative to the archive."""
    text: str


def check(
    root: Root, index: Index, *, verify: Verify | None = None, progress: Progress | None = None
) -> Iterator[Finding]:
    """Everything that is wrong with an archive, and what is left over in it."""
    yield from _Check(root, index, verify, progress or (lambda *_: None)).run()


def _error(path: str, text: str) -> Finding:
    return Finding(Severity.ERROR, path, text)


def _note(path: str, text: str) -> Finding:
    return Finding(Severity.NOTE, path, text)


class _Check:
    def __init__(self, root: Root, index: Index, verify: Verify | None, progress: Progress) -> None:
        self._root = root
        self._index = index
        self._verify = verify
        self._progress = progress

    def run(self) -> Iterator[Finding]:
        with self._index.read() as view:
            known = {(series.study, series.uid) for study in view.studies() for series in view.series_of(study.uid)}
        yield from self._check_last_commit()
        yield from self._check_groups(list(hierarchy.archive_groups()))
        everything = sorted(known | set(layout.series_on_disk(self._root)))
        for number, (study, series) in enumerate(everything):
            self._progress("check series", number, len(everything))
            yield from self._check_series(study, series)
        self._progress("check series", len(everything), len(everything))
        yield from self._check_studies()
        for leftover in ("set-aside", layout.NEW_INDEX):
            if os.path.lexists(f"{self._root}/{leftover}"):
                yield _note(leftover, "left by `pacs reindex`")

    def _again(self, findings: Callable[[ReadView], list[Finding]]) -> list[Finding]:
        """What is found, and still is under a newer snapshot when the archive changed in between."""
        for _ in range(5):
            with self._index.read() as view:
                sequence = view.counters().sequence
                found = findings(view)
            with self._index.read() as view:
                if not found or view.counters().sequence == sequence:
                    break
        return found

    def _check_last_commit(self) -> Iterator[Finding]:
        def compare(view: ReadView) -> list[Finding]:
            sequence = view.counters().sequence
            last = LastCommit(self._root, Disk()).read()[0].sequence
            if last == sequence + 1:
                return [_note(layout.LAST_COMMIT, "a batch is under way, or to be finished at the next open")]
            if last != sequence:
                return [_error(layout.INDEX, f"is of commit {sequence}, the archive of {last}: run `pacs reindex`")]
            return []

        yield from self._again(compare)

    def _check_groups(self, groups: list[str]) -> Iterator[Finding]:
        content = hierarchy.group_content()
        for group in groups:
            path = f"{group}/{layout.ZARR_JSON}".lstrip("/")
            if hierarchy.read_start(f"{self._root}/{path}", len(content) + 1) != content:
                yield _error(path, "is not the description of a Zarr group")

    # --- a series ---

    def _check_series(self, study: str, series: str) -> Iterator[Finding]:
        path = layout.log_path(study, series)
        with self._index.read() as view:
            entry = view.series(study, series)
            end = view.files(entry.number).log_end if entry is not None else 0
            expected = {found.descriptor.instance: found for found in view.instances_of(entry)} if entry else {}
            if entry is not None and len(expected) != entry.instances:
                yield _error(path, f"the index counts {entry.instances} instances and has {len(expected)}")
        try:
            descriptor, _ = records.open_log(self._root, study, series)
        except ChecksumError as error:
            if entry is not None:
                yield _error(path, error.message)
            else:
                yield _note(layout.series_path(study, series), "a directory without a log")
            return
        try:
            size = os.fstat(descriptor).st_size
            if size < end:
                yield _error(path, f"has {size} bytes, the index knows {end}")
            for found in walk_damaged(descriptor, path, min(size, end)):
                if isinstance(found, RecordError):
                    yield _error(path, found.message)
                    continue
                yield from self._check_record(descriptor, path, found, expected.pop(found.descriptor.instance, None))
            yield from self._check_tail(descriptor, path, study, series, end)
        finally:
            os.close(descriptor)
        for uid in expected:
            yield _error(path, f"the index has instance {uid}, the log has no whole record of it")
        if entry is not None:
            yield from self._check_groups(list(hierarchy.series_groups(study, series)))
            yield from self._check_arrays(study, series, entry)

    def _check_record(
        self, descriptor: int, path: str, record: Record, entry: InstanceEntry | None
    ) -> Iterator[Finding]:
        series = (record.descriptor.study, record.descriptor.series)
        try:
            table = recovery.verify(self._root, series, descriptor, path, record, with_frames=False)
        except ChecksumError as error:
            yield _error(path, error.message)
            return
        for location in recovery.locations(record, table):
            try:
                frames.read_chunk(self._root, location)
            except ChecksumError as error:
                yield _error(location.path, error.message)
        if layout.log_path(*series) != path:
            yield _error(path, f"record at byte {record.offset}: it is of another series")
        if entry is None:
            yield _error(path, f"record at byte {record.offset}: the index does not have its instance here")
            return
        with self._index.read() as view:
            same_table = bytes(view.table(record.descriptor.instance)) == table
        if not same_table or not _agree(record, entry):
            yield _error(path, f"record at byte {record.offset}: the index says something else of its instance")
        if self._verify is not None:
            try:
                self._verify(entry)
            except PacsError as error:
                yield _error(path, f"instance {record.descriptor.instance}: {error.message}")

    def _check_tail(self, descriptor: int, path: str, study: str, series: str, end: int) -> Iterator[Finding]:
        size = os.fstat(descriptor).st_size
        if size <= end:
            return

        def compare(view: ReadView) -> list[Finding]:
            entry = view.series(study, series)
            committed = view.files(entry.number).log_end if entry is not None else 0
            if committed >= size:
                return []  # the server went on meanwhile
            try:
                record = records.read_head(descriptor, path, committed, size)
            except RecordError:
                return [_note(path, f"{size - committed} bytes from byte {committed} on were never committed")]
            if record.sequence > view.counters().sequence:
                return [_note(path, f"record at byte {committed}: of a batch that is not finished")]
            return [_error(path, f"record at byte {committed}: the index does not know it: run `pacs reindex`")]

        yield from self._again(compare)

    # --- its arrays ---

    def _check_arrays(self, study: str, series: str, entry: SeriesEntry) -> Iterator[Finding]:
        with self._index.read() as view:
            arrays = {k for k, _ in view.arrays(entry.number)}
        for k in sorted(arrays):
            yield from self._again(partial(self._array_findings, study, series, entry.number, k))
        directory = f"{self._root}/{layout.series_path(study, series)}"
        with self._index.read() as view:
            arrays = {k for k, _ in view.arrays(entry.number)}
        names = {f"frames-{k}" for k in arrays} | {layout.ZARR_JSON, layout.RECORDS_LOG}
        for name in sorted(os.listdir(directory)):
            if name not in names:
                yield _note(f"{layout.series_path(study, series)}/{name}", "belongs to nothing that is committed")

    def _array_findings(self, study: str, series: str, number: int, k: int, view: ReadView) -> list[Finding]:
        state = view.array(number, k)
        if state is None:
            return []
        # What `dirty` names is written again at the next open or sooner: late, not wrong.
        late = (number, k) in view.dirty()
        severity = Severity.NOTE if late else Severity.ERROR
        path = layout.array_path(study, series, k)
        found = []
        capacity = state.key.capacity
        for shard_number in range(-(-state.count // capacity)):
            name = f"{path}/{layout.shard_name(state.key, shard_number)}"
            entries = view.shard_entries(number, k, shard_number)
            if hierarchy.read_start(f"{self._root}/{name}", shard.index_size(capacity)) != shard.index_block(
                entries, capacity
            ):
                found.append(Finding(severity, name, "its index block is not that of its committed chunks"))
            elif os.stat(f"{self._root}/{name}").st_size > shard.end(entries, capacity):
                found.append(_note(name, "has bytes behind its last committed chunk"))
        instances = list(view.array_instances(number, k))
        found += _table_findings(view, path, number, k, capacity, instances)
        content = hierarchy.encode(hierarchy.array_metadata(state.key, state.count, instances))
        if hierarchy.read_start(f"{self._root}/{path}/{layout.ZARR_JSON}", len(content) + 1) != content:
            found.append(Finding(severity, f"{path}/{layout.ZARR_JSON}", "is not that of the committed array"))
        return found

    # --- studies and sums ---

    def _check_studies(self) -> Iterator[Finding]:
        def compare(view: ReadView) -> list[Finding]:
            found = []
            sums: Counter[str] = Counter()
            days: Counter[bytes] = Counter()
            for study in view.studies():
                days[study.sort_key[: matching.DAY]] += 1
                sums["studies"] += 1
                listed = list(view.series_of(study.uid))
                sums["series"] += len(listed)
                sums["instances"] += study.instances
                found += _study_findings(view, study, listed)
            if days != {bytes(day): matching.COUNT.unpack(count)[0] for day, count in view.cursor(matching.DAYS)}:
                found.append(_error(layout.INDEX, "miscounts the studies of a day"))
            counters = view.counters()
            for name, value in sums.items():
                if getattr(counters, name) != value:
                    found.append(_error(layout.INDEX, f"counts {getattr(counters, name)} {name} and has {value}"))
            return found

        yield from self._again(compare)


def _agree(record: Record, entry: InstanceEntry) -> bool:
    return (
        entry.descriptor == record.descriptor
        and entry.record_offset == record.offset
        and entry.parts == record.parts[: records.FIRST_BULK]
        and (entry.array, entry.levels, entry.chunks) == (record.array, record.levels, record.chunks)
        and entry.sequence == record.sequence
    )


def _table_findings(
    view: ReadView, path: str, number: int, k: int, capacity: int, instances: list[tuple[str, int, int]]
) -> list[Finding]:
    """Whether the entries that index blocks are made of are those of the chunk tables."""
    found = []
    cached: tuple[int, bytes] = (-1, b"")
    for uid, first, count in instances:
        entry = view.instance(uid)
        if entry is None or entry.array != k or entry.chunks != count:
            found.append(_error(layout.INDEX, f"{path}: position {first} is of no instance that is there"))
            continue
        for row in shard.rows(view.table(uid), entry.levels):
            shard_number, place = divmod(row.position, capacity)
            if cached[0] != shard_number:
                cached = (shard_number, view.shard_entries(number, k, shard_number))
            if cached[1][place * shard.ENTRY.size : (place + 1) * shard.ENTRY.size] != shard.entry(row):
                found.append(_error(layout.INDEX, f"{path}: chunk {row.position} of instance {uid} lies elsewhere"))
    return found


def _study_findings(view: ReadView, study: StudyEntry, listed: list[SeriesEntry]) -> list[Finding]:
    path = layout.study_path(study.uid)
    found = []
    if study.series != len(listed) or study.instances != sum(series.instances for series in listed):
        found.append(_error(path, "the index miscounts its series or instances"))
    modalities: Counter[str] = Counter()
    postings = matching.study_postings(study)
    for series in listed:
        fragment = matching.decode(series.attributes.get(tags.MODALITY))
        modalities.update(code for code in matching.element_values(fragment) if code)
        postings |= matching.series_postings(study, series)
    if dict(modalities) != study.modalities:
        found.append(_error(path, "the index miscounts its modalities"))
    for database, key, value in postings:
        cursor = view.cursor(database)
        there = cursor.set_key_dup(key, value) if database == matching.POSTINGS else cursor.set_key(key)
        if not there or bytes(cursor.value()) != value:
            found.append(_error(path, f"the index lacks the posting {key!r}"))
    return found
