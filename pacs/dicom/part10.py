"""A Part 10 file in one pass: where everything lies, and its Data Set as DICOM JSON (PS3.10, PS3.18 Annex F)."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, overload

from pacs import uids
from pacs._codecs import part10 as kernel
from pacs.dicom import charset, marks
from pacs.dicom.dictionary import dictionary
from pacs.errors import DicomError, UidError

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class BulkSpan:
    """A long value, binary or above 1 MiB, that the JSON only names."""

    path: str
    """`GGGGEEEE`, or `GGGGEEEE/item/GGGGEEEE…` inside sequences, items counted from 0: what follows `bulkdata/`."""
    vr: str
    offset: int
    length: int


Fragment: TypeAlias = tuple[int, int]
"""(offset, length) of a fragment's value."""


class Fragments(Sequence[Fragment]):
    """Many of them, without an object for each."""

    def __init__(self, numbers: array[int]) -> None:
        self._numbers = memoryview(numbers)

    def __len__(self) -> int:
        return len(self._numbers) // 2

    def __iter__(self) -> Iterator[Fragment]:
        return zip(self._numbers[::2], self._numbers[1::2], strict=True)

    @overload
    def __getitem__(self, index: int) -> Fragment: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Fragment, ...]: ...
    def __getitem__(self, index: int | slice) -> Fragment | tuple[Fragment, ...]:
        if isinstance(index, slice):
            return tuple([self[number] for number in range(*index.indices(len(self)))])
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = 2 * (index % len(self))
        return self._numbers[at], self._numbers[at + 1]


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
    fragments: Sequence[Fragment] = ()
    """Of each fragment's value, the Basic Offset Table's item not among them."""
    basic_offset_table: Sequence[int] = ()
    """Tables of more entries than there are fragments cannot be true and count as absent."""
    extended_offset_table: Sequence[int] = ()
    extended_offset_table_lengths: Sequence[int] = ()


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


_INFLATED_LIMIT = 128 << 20
"""Inflated size beyond which a deflated file is not read: it is in memory whole, and deflate expands 1,032 times."""

_INFLATE_STEP = 1 << 20
"""Bytes that are inflated at once, so that the limit is seen before it is passed."""


def scan(data: Buffer) -> Part10:
    """Structure, attributes as DICOM JSON and spans of one file, with or without preamble and File Meta Information.

    Raises DicomError, with the offset, when the bytes are no DICOM. What could be read in spite of an error is in
    `warnings`.

    PS3.10 7, PS3.5 7, PS3.18 F
    """
    view = memoryview(data).cast("B").toreadonly() if not isinstance(data, bytes) else memoryview(data)
    if not view.nbytes:
        raise DicomError("the file is empty")
    head = _start(view)
    start, meta_syntax, meta_instance = kernel.scan_meta(view, head)
    stated = meta_syntax.decode("latin_1").strip()
    deflated, shortage = False, ""
    if uids.transfer_syntax(stated).deflated:
        inflated, sentence = _inflated(view, start)
        if inflated.nbytes > start:  # what does not even begin as a deflate stream is none
            view, deflated, shortage = inflated, True, sentence
    implicit, big_endian = _encoding(view, start, stated)
    if not head and start == head:
        _check_first_element(view, implicit, big_endian)
    answer = kernel.scan_data_set(view, start, implicit, big_endian, dictionary(), charset.repertoire)
    if answer[4] is not None:
        answer = kernel.scan_data_set(view, start, implicit, big_endian, dictionary(), charset.repertoire, *answer[4])
    json, bulk, pixel, warnings, _ = answer
    span = _pixel_span(*pixel) if pixel is not None else None
    found, doubt = _syntax(view, stated, implicit, big_endian, span, deflated)
    sentences = [f"{sentence} (byte {offset})" for sentence, offset in warnings.items()]
    return Part10(
        data=view,
        deflated=deflated,
        transfer_syntax=found,
        media_storage_sop_instance_uid=meta_instance.decode("latin_1").strip(),
        big_endian=big_endian,
        json=json,
        bulk=tuple([BulkSpan(*entry) for entry in bulk]),
        pixel=span,
        warnings=tuple([*doubt, *sentences, shortage] if shortage else doubt + sentences),
    )


def _pixel_span(
    tag: int, vr: str, offset: int, length: int, encapsulated: bool, fragments: array[int] | None = None,
    *tables: Sequence[int],
) -> PixelSpan:  # fmt: skip
    found = Fragments(fragments) if fragments is not None else ()
    return PixelSpan(tag, vr, offset, length, encapsulated, found, *tables)


class Beginning(NamedTuple):
    """How a file begins. PS3.10 7.1"""

    meta: int
    """Offset of the File Meta Information: 132 behind preamble and prefix, less where they are missing."""
    data_set: int
    transfer_syntax: str
    """(0002,0010), "" when it is not there."""

    @property
    def proper(self) -> bool:
        """Whether there are a preamble, a prefix and a File Meta Information."""
        return self.meta == _PREAMBLE + 4 and self.data_set > self.meta


def beginning(data: Buffer) -> Beginning:
    """Where the Data Set of a file that was scanned before begins, and the Transfer Syntax that is stated for it."""
    view = memoryview(data)
    meta = _start(view)
    end, stated, _ = kernel.scan_meta(view, meta)
    return Beginning(meta, end, stated.decode("latin_1").strip())


_PREAMBLE = 128


def _start(view: memoryview) -> int:
    """Where the first Data Element is: behind preamble and prefix, behind a prefix alone, or at once."""
    if bytes(view[_PREAMBLE : _PREAMBLE + 4]) == b"DICM":
        return _PREAMBLE + 4
    return 4 if bytes(view[:4]) == b"DICM" else 0


def _encoding(view: memoryview, start: int, stated: str) -> tuple[bool, bool]:
    """(implicit VR, big endian): as the Transfer Syntax says unless the first Data Element shows otherwise."""
    first = bytes(view[start : start + 6])
    big_endian = stated == uids.EXPLICIT_VR_BIG_ENDIAN
    if len(first) < 6:
        return uids.transfer_syntax(stated).implicit, big_endian
    explicit = 64 < first[4] < 91 and 64 < first[5] < 91
    # The first group is a small number: read in the wrong order it is 256 or more times as large.
    little = int.from_bytes(first[:2], "little")
    if big_endian:
        big_endian = first[1] != 0 or little == 0
    elif little >= 0x0400:
        big_endian = first[0] < 0x04
    return not explicit, big_endian and explicit


def _check_first_element(view: memoryview, implicit: bool, big_endian: bool) -> None:
    """Refuse what has neither prefix nor File Meta Information and does not begin as a Data Set does."""
    order: Literal["big", "little"] = "big" if big_endian else "little"
    group = int.from_bytes(view[:2], order)
    if view.nbytes < 8 or group > 0x00FF or (group % 2 and group < 0x0009):
        raise DicomError("neither the DICM prefix nor a Data Element is there")
    length = int.from_bytes(view[4:8], order) if implicit else int.from_bytes(view[6:8], order)
    if 8 + length > view.nbytes and length != 0xFFFFFFFF:
        raise DicomError("neither the DICM prefix nor a whole Data Element is there")


def _syntax(
    view: memoryview, stated: str, implicit: bool, big_endian: bool, pixel: PixelSpan | None, deflated: bool
) -> tuple[str, list[str]]:  # fmt: skip
    """The Transfer Syntax that the bytes are in, and a sentence if that is not the stated one."""
    if implicit:
        seen = uids.IMPLICIT_VR_LITTLE_ENDIAN
    else:
        seen = uids.EXPLICIT_VR_BIG_ENDIAN if big_endian else uids.EXPLICIT_VR_LITTLE_ENDIAN
    if not stated:
        return seen, ["no Transfer Syntax is stated"]
    known = uids.transfer_syntax(stated)
    if not known.known:
        try:
            uids.check(stated, "the Transfer Syntax UID")
        except UidError as error:
            return seen, [error.message]
        return stated, [f"Transfer Syntax {stated} is not known here: the instance is kept as received"]
    if deflated:
        return stated, ["the Data Set is in implicit VR, against its Transfer Syntax"] if implicit else []
    if known.encapsulated:
        if pixel is not None and not pixel.encapsulated:
            if marks.transfer_syntax(view[pixel.offset : pixel.offset + pixel.length]):
                return stated, ["the pixel data is compressed but not encapsulated"]
            return seen, [f"the pixel data is native, against the stated Transfer Syntax {stated}"]
        return stated, ["the Data Set is in implicit VR, against its Transfer Syntax"] if implicit else []
    if pixel is not None and pixel.encapsulated:
        offset, length = pixel.fragments[0] if pixel.fragments else (0, 0)
        found = marks.transfer_syntax(view[offset : offset + length]) or uids.ENCAPSULATED_UNCOMPRESSED
        return found, [f"the pixel data is encapsulated, against the stated Transfer Syntax {stated}"]
    if (known.implicit, known.big_endian, known.deflated) == (implicit, big_endian, deflated):
        return stated, []
    return seen, [f"the Data Set is not in the stated Transfer Syntax {stated}"]


def _inflated(view: memoryview, start: int) -> tuple[memoryview, str]:
    """The file with its Data Set inflated, as far as that goes, and a sentence if it is not the whole. PS3.5 A.5

    Bounded by what a deflated stream can hold. Some writers put the header of zlib before the stream.
    """
    header = bytes(view[start : start + 2])
    wrapped = len(header) == 2 and header[0] & 0x8F == 0x08 and int.from_bytes(header, "big") % 31 == 0
    inflater = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    whole = bytearray(view[:start])
    offset, shortage = start, ""
    try:
        while not inflater.eof and (offset < view.nbytes or inflater.unconsumed_tail):
            waiting: Buffer = inflater.unconsumed_tail
            if not waiting:
                waiting = view[offset : offset + _INFLATE_STEP]
                offset += _INFLATE_STEP
            whole += inflater.decompress(waiting, _INFLATE_STEP)
            if len(whole) > _INFLATED_LIMIT:
                shortage = "the Data Set inflates to more than 128 MiB and is not read beyond"
                break
        else:
            shortage = "" if inflater.eof else "the deflated Data Set is not complete"
    except zlib.error as error:
        shortage = f"the deflated Data Set cannot be inflated to its end ({error})"
    return memoryview(whole).toreadonly(), shortage
