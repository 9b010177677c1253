"""What lies in the index: the databases, their keys and values.

    database          key                                                  value
    meta              "state"                                              IndexState
                      "left", 0, Study Instance UID, 0, Series Instance UID
                                                                           SeriesFiles of a log that has no record
                                                                           which could be entered
    studies           Study Instance UID                                   StudyEntry
    series            Study Instance UID, 0, Series Instance UID           SeriesEntry
    series_numbers    series number u64                                    Study Instance UID, 0, Series Instance UID
    files             series number u64                                    SeriesFiles
    instances         SOP Instance UID                                     series number u64, Instance Number
    series_instances  series number u64, Instance Number, SOP Instance UID length u32, InstanceEntry, chunk table
    arrays            series number u64, k u32                             ArrayState
    open_arrays       series number u64, ArrayKey                          k u32
    array_instances   series number u64, k u32, first position u32         number of chunks u32, SOP Instance UID
    shards            series number u64, k u32, shard u32                  entries of its index block
    dirty             series number u64, k u32                             sequence u64, shards to write again u32 each

and those of `matching.py`. Integers in keys are big endian, so that they sort. The entries of a series lie side by
side: a list of its instances reads a page for every eight of them, whatever their UIDs, and new ones of many series
touch few pages.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgspec

from pacs import tags
from pacs.storage.index import matching
from pacs.storage.index.search_fields import Kind
from pacs.storage.model import ArrayKey, Counters, InstanceEntry, SeriesEntry, StudyEntry

INDEX_FORMAT = 2

NAMES = (
    b"meta", b"studies", b"series", b"series_numbers", b"files", b"instances", b"series_instances", b"arrays",
    b"open_arrays", b"array_instances", b"shards", b"dirty",
)  # fmt: skip

STATE = b"state"
LEFT = b"left\0"
PLACE = 16
"""Bytes before the SOP Instance UID in a key of `series_instances`."""
U32 = struct.Struct("<I")
SERIES = struct.Struct(">Q")
ARRAY = struct.Struct(">QI")
SHARD = struct.Struct(">QII")


class IndexState(msgspec.Struct, array_like=True):
    """What the index knows about itself."""

    index_format: int
    archive_id: str
    counters: Counters
    next_series: int = 0
    boot: str = ""
    """Id of the system's boot during which the logs were last known to end where the index says."""


class SeriesFiles(msgspec.Struct, array_like=True):
    """How far the files of a series are committed."""

    log_end: int = 0
    next_array: int = 0


class ArrayState(msgspec.Struct, array_like=True):
    """How far an array is committed."""

    key: ArrayKey
    count: int = 0
    """Inner chunks."""


class Dirty(NamedTuple):
    """What has to be written again of an array, beside its `zarr.json`."""

    sequence: int
    """Of a commit that changed the array; none had been settled between it and the newest that did."""
    shards: set[int]
    """Their index blocks."""


def _decoder(kind: Any) -> Any:
    return msgspec.msgpack.Decoder(kind).decode


encode = msgspec.msgpack.Encoder().encode
decode_state = _decoder(IndexState)
decode_study = _decoder(StudyEntry)
decode_series = _decoder(SeriesEntry)
_decode_instance = _decoder(InstanceEntry)
decode_files = _decoder(SeriesFiles)
decode_array = _decoder(ArrayState)


def _number_key(fragment: bytes | None) -> bytes:
    """Instance Number so that it sorts; instances without one come last."""
    for text in matching.normal_values(Kind.NUMBER, matching.decode(fragment)):
        try:
            number = int(text)
        except ValueError:
            continue
        if abs(number) < 1 << 62:
            return SERIES.pack(number + (1 << 63))
    return b"\xff" * 8


def _uid_element(uid: str) -> bytes:
    return b'{"vr":"UI","Value":["%s"]}' % uid.encode()


def nameless(entry: InstanceEntry) -> InstanceEntry:
    """The entry without the UIDs that its key and its series tell: 270 of 700 bytes."""
    descriptor = msgspec.structs.replace(entry.descriptor, study="", series="", instance="")
    attributes = {tag: text for tag, text in entry.attributes.items() if tag != tags.SOP_INSTANCE_UID}
    return msgspec.structs.replace(entry, descriptor=descriptor, attributes=attributes)


def instance_row(entry: InstanceEntry, table: bytes) -> tuple[bytes, bytes]:
    """(its row in `instances`, its row in `series_instances`)"""
    packed = encode(nameless(entry))
    place = SERIES.pack(entry.series_number) + _number_key(entry.attributes.get(tags.INSTANCE_NUMBER))
    return place, b"".join((U32.pack(len(packed)), packed, table))


def instance_entry(found: memoryview, study: str, series: str, instance: str) -> InstanceEntry:
    """The entry in a row of `series_instances`, with its UIDs."""
    entry: InstanceEntry = _decode_instance(found[4 : 4 + U32.unpack_from(found)[0]])
    # Nobody else has seen this object yet, so it may still change; a copy would cost more than the rest of reading.
    msgspec.structs.force_setattr(entry.descriptor, "study", study)
    msgspec.structs.force_setattr(entry.descriptor, "series", series)
    msgspec.structs.force_setattr(entry.descriptor, "instance", instance)
    entry.attributes[tags.SOP_INSTANCE_UID] = _uid_element(instance)
    return entry


def series_key(study: str, series: str) -> bytes:
    return f"{study}\0{series}".encode()
