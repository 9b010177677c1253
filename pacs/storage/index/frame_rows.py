"""One frame, found in the index without what else it says of the instance.

Readers ask for frames one by one, thousands a second, and an entry has five times as many fields as finding a frame
takes. Those that decide on the form of an answer are the same throughout a series: they stay as they are spelled, for
what was made of them to be found again by.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import msgspec

from pacs import tags
from pacs.storage import layout
from pacs.storage.files import shard
from pacs.storage.index.environment import Index
from pacs.storage.model import ArrayKey, ChunkLocation, Encoding, Form

_SERIES_NUMBER = 8
"""Bytes of it at the beginning of an instance's place."""
_LENGTH = struct.Struct("<I")


class DescriptorStart(msgspec.Struct, array_like=True, gc=False):
    """`model.Descriptor` up to the last field that is needed here."""

    study: msgspec.Raw
    series: msgspec.Raw
    instance: msgspec.Raw
    transfer_syntax: str
    sha256: msgspec.Raw
    file_size: int
    received: int
    whole_file: bool
    geometry: msgspec.Raw
    array_key: msgspec.Raw
    pixel_tag: int


class EntryStart(msgspec.Struct, array_like=True, gc=False):
    """`model.InstanceEntry` with such a descriptor."""

    descriptor: DescriptorStart
    attributes: dict[int, bytes]
    series_number: int
    record_offset: int
    parts: msgspec.Raw
    array: int
    levels: int
    sequence: int
    chunks: int


_decode = msgspec.msgpack.Decoder(EntryStart).decode
_decode_key = msgspec.msgpack.Decoder(ArrayKey | None).decode


@lru_cache(maxsize=256)
def _shards(array_key: bytes) -> tuple[ArrayKey, int] | None:
    """The key and the capacity of a shard; None where a chunk is not one frame."""
    key = _decode_key(array_key)
    return None if key is None or key.encoding is Encoding.NATIVE else (key, key.capacity)


class FrameRows:
    """Finds frames. Its method may be called from any thread.

    It uses LMDB without a view between: here that is a third of the time.
    """

    def __init__(self, index: Index) -> None:
        self._begin = index.begin
        self._instances = index.databases[b"instances"]
        self._numbers = index.databases[b"series_numbers"]
        self._entries = index.databases[b"series_instances"]

    def find(self, study: str, series: str, instance: str, number: int) -> tuple[Form, ChunkLocation] | None:
        """Inner chunk `number`, from 1, of an instance; None where there is none that is a frame, whatever the cause.

        Whether the frames can be told apart, `reading.locate_frame` says: the same for every one of a form.
        """
        uid = instance.encode()
        with self._begin(buffers=True) as txn:
            get = txn.get
            found = get(uid, None, self._instances)
            if found is None:
                return None
            place = bytes(found)
            named = get(place[:_SERIES_NUMBER], None, self._numbers)
            row = get(place + uid, None, self._entries)
            if row is None or named is None or bytes(named) != f"{study}\0{series}".encode():
                return None
            table = _LENGTH.size + _LENGTH.unpack_from(row)[0]
            entry = _decode(row[_LENGTH.size : table])
            levels, chunks = entry.levels, entry.chunks
            descriptor = entry.descriptor
            array_key = bytes(descriptor.array_key)
            shards = _shards(array_key)
            if shards is None or not 1 <= number <= chunks:
                return None
            rows = shard.row_struct(levels)
            position, offset, length, crc, *level_ends = rows.unpack_from(row, table + (number - 1) * rows.size)
            # In here: what is left as it is spelled lies in the pages of the index, which others may use again.
            form = Form(
                descriptor.transfer_syntax, bytes(descriptor.geometry), array_key, descriptor.pixel_tag,
                entry.attributes.get(tags.SOP_CLASS_UID, b""), levels, chunks,
            )  # fmt: skip
        name = layout.shard_name(shards[0], position // shards[1])
        path = f"{layout.array_path(study, series, entry.array)}/{name}"
        return form, ChunkLocation(path, offset, length, crc, tuple(level_ends))
