"""A Part 10 file in one pass: where everything lies, and its Data Set as DICOM JSON (PS3.10, PS3.18 Annex F)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class BulkSpan:
    """A long binary value that the JSON only names."""

    path: str
    """`GGGGEEEE`, or `GGGGEEEE/item/GGGGEEEE…` inside sequences, items counted from 0: what follows `bulkdata/`."""
    vr: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PixelSpan:
    """The value of top-level Pixel Data, Float Pixel Data or Double Float Pixel Data."""

    tag: int
    vr: str
    offset: int
    """First byte of the value: of the samples, or of the Basic Offset Table's item when encapsulated."""
    length: int
    """Up to the end of the value; encapsulated: up to and including the Sequence Delimitation Item (if there)."""
    encapsulated: bool
    fragments: tuple[tuple[int, int], ...] = ()
    """(offset, length) of each fragment's value, the Basic Offset Table's item not among them."""
    basic_offset_table: tuple[int, ...] = ()
    extended_offset_table: tuple[int, ...] = ()
    extended_offset_table_lengths: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Part10:
    """The structure of one file. Offsets count in `data`."""

    data: memoryview
    """The bytes the spans refer to: the file as given; of a deflated one, meta header plus inflated Data Set."""
    deflated: bool
    transfer_syntax: str
    """(0002,0010), or what the bytes showed when it is missing or wrong."""
    media_storage_sop_instance_uid: str
    """(0002,0003), "" when absent."""
    big_endian: bool
    json: bytes
    """UTF-8 DICOM JSON object of the Data Set (no group 0002), tags ascending, BulkDataURI "bulkdata/<path>"."""
    bulk: tuple[BulkSpan, ...]
    pixel: PixelSpan | None
    warnings: tuple[str, ...]


