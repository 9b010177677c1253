"""From records to index entries. Commit, recovery and `reindex` all go through here, so they cannot disagree.

What a study or series says of itself comes from the first instance, in the order of commits, that has a value for
it: that order is in the records, so a rebuilt index says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from pacs import tags
from pacs.storage.files import shard
from pacs.storage.files.records import FIRST_BULK, Record
from pacs.storage.index import matching
from pacs.storage.index.rows import ArrayState, Dirty, SeriesFiles
from pacs.storage.index.views import WriteView
from pacs.storage.model import ArrayKey, InstanceEntry, SeriesEntry, StudyEntry

_HAS_VALUE = b'"Value":'
_EMPTY_ENTRY = b"\xff" * shard.ENTRY.size
_PATIENT = (
    tags.PATIENT_ID, tags.PATIENT_NAME, tags.PATIENT_BIRTH_DATE, tags.ISSUER_OF_PATIENT_ID, tags.PATIENT_SEX,
)  # fmt: skip
_IDENTIFYING = _PATIENT[:3]
_OF_THE_STUDY = tuple(tag for tag in tags.STUDY_TAGS if tag not in _PATIENT)


@dataclass(slots=True)
class ArrayChange:
    """An array that a batch appends to."""

    state: ArrayState
    shards: dict[int, bytearray] = field(default_factory=dict)
    """Entries of the shards that were touched."""
    touched: set[int] = field(default_factory=set)


@dataclass(slots=True)
class StudyChange:
    entry: StudyEntry
    before: StudyEntry | None
    changed: bool = False


@dataclass(slots=True)
class SeriesChange:
    """A series that a batch adds to."""

    study: StudyChange
    entry: SeriesEntry
    before: SeriesEntry | None
    files: SeriesFiles
    arrays: dict[int, ArrayChange] = field(default_factory=dict)
    open_arrays: dict[ArrayKey, int] = field(default_factory=dict)
    changed: bool = False


class Entries:
    """The entries that a batch changes: read once, changed in memory, put once."""

    def __init__(self, view: WriteView, sequence: int) -> None:
        self.view = view
        self.sequence = sequence
        self.state = view.state()
        self.state.counters.sequence = sequence
        self._studies: dict[str, StudyChange] = {}
        self.series: dict[tuple[str, str], SeriesChange] = {}

    # --- what is there ---

    def series_change(self, study: str, series: str) -> SeriesChange:
        """The series as it is after what the batch added so far; a new one if there is none."""
        found = self.series.get((study, series))
        if found is not None:
            return found
        parent = self._study_change(study)
        before = self.view.series(study, series)
        if before is None:
            entry = SeriesEntry(study, series, self.state.next_series, {}, 0, 0)
            self.state.next_series += 1
            files = self.view.left_files(study, series)
        else:
            entry = msgspec.structs.replace(before, attributes=dict(before.attributes))
            files = self.view.files(before.number)
        found = self.series[study, series] = SeriesChange(parent, entry, before, files)
        return found

    def _study_change(self, study: str) -> StudyChange:
        found = self._studies.get(study)
        if found is None:
            before = self.view.study(study)
            if before is None:
                entry = StudyEntry(study, b"", {}, {}, {}, 0, 0, 0)
            else:
                entry = msgspec.structs.replace(
                    before, attributes=dict(before.attributes), modalities=dict(before.modalities),
                    sop_classes=dict(before.sop_classes),
                )  # fmt: skip
            found = self._studies[study] = StudyChange(entry, before)
        return found

    def array_change(self, series: SeriesChange, array: int, key: ArrayKey) -> ArrayChange:
        found = series.arrays.get(array)
        if found is None:
            state = self.view.array(series.entry.number, array) if series.before is not None else None
            found = series.arrays[array] = ArrayChange(state if state is not None else ArrayState(key))
        return found

    def shard_entries(self, series: SeriesChange, array: int, change: ArrayChange, number: int) -> bytearray:
        found = change.shards.get(number)
        if found is None:
            stored = self.view.shard_entries(series.entry.number, array, number) if change.state.count else b""
            found = change.shards[number] = bytearray(stored)
        return found

    def open_array(self, series: SeriesChange, key: ArrayKey) -> int | None:
        """k of the array that small instances with this key are appended to."""
        found = series.open_arrays.get(key)
        if found is None and series.before is not None:
            found = self.view.open_array(series.entry.number, key)
        return found

    # --- what is added ---

    def add(self, record: Record, table: bytes, attributes: Mapping[int, bytes]) -> tuple[str, ...]:
        """Enter a record, with its chunk table and the elements that the index keeps; warnings about it."""
        descriptor = record.descriptor
        series = self.series_change(descriptor.study, descriptor.series)
        self._count(series, record.sequence, attributes)
        warnings = self._merge(series.study, attributes)
        entry = InstanceEntry(
            descriptor=descriptor,
            attributes={tag: attributes[tag] for tag in tags.INSTANCE_TAGS if tag in attributes},
            series_number=series.entry.number,
            record_offset=record.offset,
            parts=record.parts[:FIRST_BULK],
            array=record.array,
            levels=record.levels,
            sequence=record.sequence,
            chunks=record.chunks,
        )
        self.view.put_instance(entry, table)
        series.files.log_end = record.end
        counters = self.state.counters
        counters.instances += 1
        counters.received_bytes += descriptor.file_size
        counters.stored_bytes += record.length
        if record.array >= 0 and descriptor.array_key is not None:
            self._add_chunks(series, record, descriptor.array_key, table)
        return warnings

    def _count(self, series: SeriesChange, sequence: int, attributes: Mapping[int, bytes]) -> None:
        study = series.study
        series.changed = study.changed = True
        if study.before is None and not study.entry.instances:
            self.state.counters.studies += 1
        if series.before is None and not series.entry.instances:
            self.state.counters.series += 1
            study.entry.series += 1
            self.view.put_series_number(series.entry)
        study.entry.instances += 1
        study.entry.sequence = max(study.entry.sequence, sequence)  # one that is entered late may be older
        series.entry.sequence = max(series.entry.sequence, sequence)
        series.entry.instances += 1
        had_modality = _has_value(series.entry.attributes.get(tags.MODALITY))
        _take(series.entry.attributes, attributes, tags.SERIES_TAGS)
        if not had_modality:
            for code in _values(series.entry.attributes.get(tags.MODALITY)):
                study.entry.modalities[code] = study.entry.modalities.get(code, 0) + 1
        for uid in _values(attributes.get(tags.SOP_CLASS_UID)):
            study.entry.sop_classes[uid] = study.entry.sop_classes.get(uid, 0) + 1

    def _merge(self, study: StudyChange, attributes: Mapping[int, bytes]) -> tuple[str, ...]:
        known, sent = study.entry.attributes.get(tags.PATIENT_ID), attributes.get(tags.PATIENT_ID)
        warnings: tuple[str, ...] = ()
        if known is not None and sent is not None and _has_value(known) and _has_value(sent) and known != sent:
            warnings = (
                f"Patient ID {', '.join(_values(sent))} differs from {', '.join(_values(known))}, "
                f"which the study has from its first instance",
            )
        # One patient's birth date under the name of another would be nobody's.
        wanted = _OF_THE_STUDY if _another_patient(study.entry.attributes, attributes) else tags.STUDY_TAGS
        _take(study.entry.attributes, attributes, wanted)
        return warnings

    def _add_chunks(self, series: SeriesChange, record: Record, key: ArrayKey, table: bytes) -> None:
        array = self.array_change(series, record.array, key)
        number = series.entry.number
        first = -1
        for row in shard.rows(table, record.levels):
            shard_number, place = divmod(row.position, key.capacity)
            entries = self.shard_entries(series, record.array, array, shard_number)
            # A hole is where a damaged record was left out by `reindex`.
            entries += _EMPTY_ENTRY * (place - len(entries) // shard.ENTRY.size)
            entries[place * shard.ENTRY.size : (place + 1) * shard.ENTRY.size] = shard.entry(row)
            array.touched.add(shard_number)
            array.state.count = max(array.state.count, row.position + 1)
            self.state.counters.stored_bytes += row.length + shard.CHECKSUM.size
            if first < 0:
                first = row.position
        series.files.next_array = max(series.files.next_array, record.array + 1)
        if record.chunks < key.capacity and self.open_array(series, key) != record.array:
            series.open_arrays[key] = record.array
        if first >= 0:
            self.view.put_array_instance(number, record.array, first, record.chunks, record.descriptor.instance)

    # --- the end of the batch ---

    def put(self) -> None:
        """Put everything that changed into the index."""
        view = self.view
        for study in self._studies.values():
            if study.changed:
                if study.before is None or study.before.attributes != study.entry.attributes:
                    study.entry.sort_key = matching.sort_key(study.entry.attributes, study.entry.uid)
                view.put_study(study.entry, study.before)
        for series in self.series.values():
            if not series.changed:
                continue
            number = series.entry.number
            view.put_series(series.study.entry, series.entry, series.before)
            view.put_files(number, series.files)
            for key, k in series.open_arrays.items():
                view.put_open_array(number, key, k)
            for k, array in series.arrays.items():
                if array.touched:
                    view.put_array(number, k, array.state)
                for shard_number in array.touched:
                    view.put_shard(number, k, shard_number, bytes(array.shards[shard_number]))
        view.put_state(self.state)

    def noted(self, dirty: Mapping[tuple[int, int], Dirty]) -> bool:
        """Whether all that `add_dirty` would add is there, but for the sequence."""
        for series in self.series.values():
            for k, array in series.arrays.items():
                if array.touched:
                    before = dirty.get((series.entry.number, k))
                    if before is None or not array.touched <= before.shards:
                        return False
        return True

    def add_dirty(self, dirty: dict[tuple[int, int], Dirty]) -> dict[tuple[int, int], Dirty]:
        """`dirty` and the arrays that this batch leaves with an older index block and shape on the disk."""
        for series in self.series.values():
            for k, array in series.arrays.items():
                if array.touched:
                    before = dirty.get((series.entry.number, k))
                    shards = array.touched | before.shards if before is not None else set(array.touched)
                    dirty[series.entry.number, k] = Dirty(self.sequence, shards)
        return dirty


def _has_value(fragment: bytes | None) -> bool:
    return fragment is not None and _HAS_VALUE in fragment


def _values(fragment: bytes | None) -> list[str]:
    return [text for text in matching.element_values(matching.decode(fragment)) if text]


def _another_patient(kept: Mapping[int, bytes], sent: Mapping[int, bytes]) -> bool:
    """Whether the two differ in Patient ID, or, where one of them has none, in name or birth date."""
    for tag in _IDENTIFYING:
        one, other = kept.get(tag), sent.get(tag)
        if _has_value(one) and _has_value(other):
            if one != other:
                return True
            if tag == tags.PATIENT_ID:
                return False
    return False


def _take(kept: dict[int, bytes], sent: Mapping[int, bytes], wanted: tuple[int, ...]) -> None:
    """Add what is new; a value takes the place of an empty element."""
    for tag in wanted:
        fragment, known = sent.get(tag), kept.get(tag)
        # Most instances say the same as those before them.
        if fragment is None or fragment == known:
            continue
        if known is None or (_has_value(fragment) and not _has_value(known)):
            kept[tag] = fragment
