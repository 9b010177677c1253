"""What the index has to say of a study, made from its records alone: in one pass, series by series.

`entries.py` makes the index, with every batch from what was there before. Here nothing is there before, and records
come in the order of their series: what the first instance with a value says is kept with its place in the order of
commits. Both ways have to come to the same, to the byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pacs import tags
from pacs.storage.files import records, shard
from pacs.storage.files.records import Record
from pacs.storage.index import matching
from pacs.storage.model import ArrayKey, InstanceEntry, SeriesEntry, StudyEntry

_HAS_VALUE = b'"Value":'
_ORDINALS = 1 << 32


class Said:
    """Of every element the first value in the order of commits; the first one that is empty where none has any."""

    def __init__(self, wanted: tuple[int, ...]) -> None:
        self._wanted = wanted
        self._kept: dict[int, tuple[bool, int, bytes]] = {}
        """By tag: whether it is empty, its place in the order of commits, the element."""

    def add(self, order: int, attributes: Mapping[int, bytes]) -> None:
        for tag in self._wanted:
            kept = self._kept.get(tag)
            if kept is not None and kept[1] < order and not kept[0]:
                continue
            fragment = attributes.get(tag)
            if fragment is None:
                continue
            new = (_HAS_VALUE not in fragment, order, fragment)
            if kept is None or new[:2] < kept[:2]:
                self._kept[tag] = new

    def attributes(self) -> dict[int, bytes]:
        return {tag: fragment for tag, (_, _, fragment) in self._kept.items()}


@dataclass(slots=True)
class ExpectedArray:
    """What the records of a series say of one of its arrays."""

    key: ArrayKey
    count: int = 0
    instances: int = 0


@dataclass(slots=True)
class ExpectedSeries:
    """What the records of a series, those that the index has, say of it together."""

    study: str
    uid: str
    number: int
    """As the index has it."""
    said: Said = field(default_factory=lambda: Said(tags.SERIES_TAGS))
    instances: int = 0
    sequence: int = 0
    arrays: dict[int, ExpectedArray] = field(default_factory=dict)
    open_arrays: dict[ArrayKey, int] = field(default_factory=dict)
    mixed: bool = False
    """An array has instances of different keys."""

    def differs(self, entry: SeriesEntry) -> bool:
        said = SeriesEntry(
            self.study, self.uid, self.number, self.said.attributes(), self.instances, self.sequence
        )  # fmt: skip
        return entry != said


@dataclass(slots=True)
class ExpectedStudy:
    """The same of a study."""

    uid: str
    said: Said = field(default_factory=lambda: Said(tags.STUDY_TAGS))
    sop_classes: Counter[str] = field(default_factory=Counter)
    series: int = 0
    instances: int = 0
    sequence: int = 0
    received_bytes: int = 0
    stored_bytes: int = 0
    whole: bool = True
    """No record is damaged: all has been said."""

    def differs(self, entry: StudyEntry) -> bool:
        attributes = self.said.attributes()
        return (
            (entry.uid, entry.attributes) != (self.uid, attributes)
            or entry.sort_key != matching.sort_key(attributes, self.uid)
            or entry.sop_classes != dict(self.sop_classes)
            or (entry.series, entry.instances, entry.sequence) != (self.series, self.instances, self.sequence)
        )

    def add(self, series: ExpectedSeries, record: Record, table: bytes, attributes: Mapping[int, bytes]) -> None:
        order = record.sequence * _ORDINALS + record.ordinal
        self.said.add(order, attributes)
        series.said.add(order, attributes)
        self.sop_classes.update(_codes(attributes.get(tags.SOP_CLASS_UID)))
        self.series += not series.instances
        self.instances += 1
        series.instances += 1
        self.sequence = max(self.sequence, record.sequence)
        series.sequence = max(series.sequence, record.sequence)
        self.received_bytes += record.descriptor.file_size
        self.stored_bytes += record.length
        key = record.descriptor.array_key
        if record.array < 0 or key is None:
            return
        found = series.arrays.get(record.array)
        if found is None:
            found = series.arrays[record.array] = ExpectedArray(key)
        series.mixed = series.mixed or found.key != key
        for row in shard.rows(table, record.levels):
            self.stored_bytes += row.length + shard.CHECKSUM.size
            found.count = max(found.count, row.position + 1)
        found.instances += record.chunks > 0
        if record.chunks < key.capacity:
            series.open_arrays[key] = record.array


@lru_cache(maxsize=256)
def _codes(fragment: bytes | None) -> tuple[str, ...]:
    return tuple(text for text in matching.element_values(matching.decode(fragment)) if text)


def instance_entry(record: Record, attributes: Mapping[int, bytes], series: int) -> InstanceEntry:
    """What the index has to say of an instance in series number `series`."""
    return InstanceEntry(
        descriptor=record.descriptor,
        attributes={tag: attributes[tag] for tag in tags.INSTANCE_TAGS if tag in attributes},
        series_number=series,
        record_offset=record.offset,
        parts=record.parts[: records.FIRST_BULK],
        array=record.array,
        levels=record.levels,
        sequence=record.sequence,
        chunks=record.chunks,
    )
