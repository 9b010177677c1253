"""The types that cross the storage layer's border: what ingest hands over, what the index answers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec

from pacs.geometry import FrameGeometry

Buffer: TypeAlias = bytes | bytearray | memoryview


class Encoding(StrEnum):
    """How the inner chunks of an array are encoded."""

    HTJ2K = "htj2k"
    """One frame an inner chunk, HTJ2K lossless RPCL (.202): a pixel array."""
    ENCAPSULATED = "encapsulated"
    """One frame an inner chunk, its fragments joined, in the Transfer Syntax of arrival."""
    NATIVE = "native"
    """The value of (Float, Double Float) Pixel Data cut into pieces of `ArrayKey.chunk_bytes`, each zstd."""


class UnusedBits(StrEnum):
    """What the bits above Bits Stored held on arrival. PS3.5 8.1.1"""

    ZERO = "zero"
    SIGN = "sign"
    """Copies of the sign bit."""
    RESIDUAL = "residual"
    """Anything else (old overlays): kept in a part of the record."""


class ArrayKey(msgspec.Struct, frozen=True, array_like=True):
    """Frames with an equal key share an array."""

    encoding: Encoding
    rows: int
    columns: int
    samples_per_pixel: int
    dtype: str
    """numpy's name of the sample type of a pixel array, "uint8" of pieces, "" of an encapsulated array."""
    transfer_syntax: str
    """Of an encapsulated array, else ""."""
    chunk_bytes: int
    """Raw bytes of an inner chunk: of a native frame, or of a piece."""

    @property
    def capacity(self) -> int:
        """Inner chunks of a shard."""
        return max(1, min(255, (64 << 20) // max(1, self.chunk_bytes)))


class Chunk(msgspec.Struct, frozen=True):
    """One encoded inner chunk. The crc32c is of `data`; on disk its four bytes follow, little endian."""

    data: Buffer
    crc32c: int
    level_ends: tuple[int, ...] = ()
    """Bytes up to the end of each resolution level, coarsest first; the same count in a whole instance."""
    more: tuple[Buffer, ...] = ()
    """What follows `data` in a chunk too long to be joined in memory, which an array of its own takes (StagedArray)."""


class Part(msgspec.Struct, frozen=True):
    """A separately readable piece of a record."""

    data: Buffer
    """As stored."""
    raw_length: int
    zstd: bool
    """Whether `data` is one zstd frame; else it is the bytes themselves."""


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Where a piece of the received file went. What lies between spans is in the skeleton."""

    offset: int
    length: int
    bulk: int
    """Index of the bulk part that holds these bytes, or -1: they come from the chunks, in order."""
    path: str = ""
    """Of a bulk value: what follows `bulkdata/` in its BulkDataURI."""
    vr: str = ""
    """Of a bulk value."""


class Descriptor(msgspec.Struct, frozen=True, array_like=True):
    """What a record says of its instance beside the tables and parts: enough to rebuild file and index entry.

    On disk it is a msgpack array in this order: add new fields at the end, with a default.
    """

    study: str
    series: str
    instance: str
    transfer_syntax: str
    sha256: bytes
    """Of the Part 10 file as received."""
    file_size: int
    received: int
    """Milliseconds since 1970, UTC."""
    whole_file: bool = False
    """The skeleton is the received file itself (deflated Data Sets); chunks only serve frames."""
    geometry: FrameGeometry | None = None
    array_key: ArrayKey | None = None
    pixel_tag: int = 0
    """Of (Float, Double Float) Pixel Data, 0 without it."""
    value_length: int = 0
    """Bytes that the chunks stand for in the received file: of all native frames, or of the cut value."""
    big_endian: bool = False
    unused_bits: UnusedBits = UnusedBits.ZERO
    fragments: tuple[int, ...] = ()
    """Empty: which fragments make a frame is in the chunk and span tables. What earlier versions wrote is not read."""
    word_swapped: bool = False
    """Samples of 1 or 8 bits in big endian words (OW), bytes two by two the wrong way round. PS3.5 8.2, D.2"""
    overlay_in_samples: bool = False
    """An overlay lies in unused bits of the samples, which a codestream has no place for. PS3.5 8.1.2"""


class NewInstance(msgspec.Struct):
    """An instance ready to be committed: encoded, and proven to rebuild the received file."""

    descriptor: Descriptor
    json: Part
    """The Data Set as DICOM JSON, with BulkDataURI relative to the instance."""
    skeleton: Part
    residual: Part | None
    bulk: Sequence[Part]
    spans: Sequence[Span]
    chunks: Sequence[Chunk]
    """Empty when `staged` has them."""
    staged: object | None
    """A `frames.StagedArray` already on disk and synced, for an instance that fills a shard or more."""
    attributes: dict[int, bytes]
    """JSON text of the Data Elements that the index keeps (`pacs.tags`), by tag."""


class StudyEntry(msgspec.Struct, array_like=True):
    """What the index keeps of a study."""

    uid: str
    sort_key: bytes
    """12 bytes, unique; ascending is newest study first."""
    attributes: dict[int, bytes]
    """STUDY_TAGS that have been seen, from the first instance that had them: JSON text by tag."""
    modalities: dict[str, int]
    """Number of series by Modality."""
    sop_classes: dict[str, int]
    """Number of instances by SOP Class UID."""
    series: int
    instances: int
    sequence: int
    """Of the last commit that changed it."""


class SeriesEntry(msgspec.Struct, array_like=True):
    """What the index keeps of a series."""

    study: str
    uid: str
    number: int
    """Dense id of the series inside the index; not stable across `reindex`."""
    attributes: dict[int, bytes]
    """SERIES_TAGS, as in StudyEntry."""
    instances: int
    sequence: int


class PartLocation(NamedTuple):
    """Where a part of a record lies in `records.log`."""

    offset: int
    length: int
    """As stored."""
    raw_length: int
    zstd: bool
    crc32c: int
    """Of the stored bytes."""


class InstanceEntry(msgspec.Struct, array_like=True):
    """What the index keeps of an instance."""

    descriptor: Descriptor
    attributes: dict[int, bytes]
    """INSTANCE_TAGS, as in StudyEntry."""
    series_number: int
    """SeriesEntry.number."""
    record_offset: int
    """Of its record in the series' `records.log`."""
    parts: tuple[PartLocation, ...]
    """Of the record's first five parts; bulk values are found through the record's own table."""
    array: int
    """k of `frames-<k>`, or -1 without pixel data."""
    levels: int
    """Number of level ends of each chunk."""
    sequence: int
    chunks: int = 0
    """Number of inner chunks."""


class Counters(msgspec.Struct, array_like=True):
    """Sums over the archive."""

    studies: int = 0
    series: int = 0
    instances: int = 0
    received_bytes: int = 0
    """Of the Part 10 files as they came."""
    stored_bytes: int = 0
    """Of records and encoded frames."""
    sequence: int = 0
    """Of the last commit."""


class ChunkLocation(msgspec.Struct, frozen=True):
    """Where an inner chunk lies: `length` bytes at `offset` of the shard, then its crc32c."""

    path: str
    """Of the shard, relative to the archive."""
    offset: int
    length: int
    crc32c: int
    level_ends: tuple[int, ...]


class Form(msgspec.Struct, frozen=True, gc=False):
    """What decides on the forms that the frames of an instance can be sent in; see `frame_rows`."""

    transfer_syntax: str
    """Of arrival."""
    geometry: bytes
    array_key: bytes
    """Both as in the index."""
    pixel_tag: int
    sop_class: bytes
    levels: int
    """Number of level ends of each chunk."""
    chunks: int
