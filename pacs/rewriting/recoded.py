"""A received Data Set in the encoding of another Transfer Syntax, of which pydicom sees only what may have to change.

The rest is bytes: as they came where the encoding is the same, from the native recoder where it is not. Sequences of a
million items never become objects. PS3.5 7.1, A.1, A.2
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Final, NamedTuple

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence

from pacs import tags
from pacs._codecs import recode as kernel
from pacs.dicom.dictionary import dictionary
from pacs.errors import DicomError
from pacs.rewriting import received
from pacs.rewriting.received import Received
from pacs.storage.model import Buffer

_SPECIFIC_CHARACTER_SET: Final = 0x00080005
_ICON_IMAGE_SEQUENCE: Final = 0x00880200
_GROWING: Final = (0x00082112, 0x00089215)
"""Source Image Sequence, Derivation Code Sequence: items are added to those that are there."""
_LOOKED_AT: Final = frozenset((
    0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00082111, 0x00280004, 0x00280006, 0x00280008, 0x00280100,
    0x00280101, 0x00280102, 0x00280103, 0x00280106, 0x00280107, 0x00280108, 0x00280109, 0x00282110, 0x00282112,
    0x00282114, 0x4FFE0001, 0xFFFAFFFA,
))  # fmt: skip
"""What `description` reads, sets or drops, beside sequences and overlays."""
_OVERLAY_GROUPS: Final = range(0x6000, 0x6020, 2)
_SEQUENCE_DELIMITER: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
_UNDEFINED: Final = b"\xff\xff\xff\xff"


class Stretch(NamedTuple):
    """Bytes of a buffer."""

    data: memoryview
    start: int
    stop: int

    @property
    def bytes(self) -> memoryview:
        return self.data[self.start : self.stop]


class Recoded:
    """The top-level Data Elements of an instance in explicit or implicit VR little endian, without its pixel data."""

    def __init__(self, given: Received, *, implicit: bool) -> None:
        """Raises DicomError for what cannot be recoded with certainty."""
        self._implicit = implicit
        self._pixel_tag = given.descriptor.pixel_tag
        found, self._encapsulated_icon = _elements(given, implicit)
        self._elements: dict[int, tuple[Stretch, ...]] = {tag: (found[tag],) for tag in sorted(found)}

    def context(self) -> Dataset:
        """The elements that `description` looks at or changes. What is long is there by name alone, or not at all."""
        looked_at = [parts for tag, parts in self._elements.items() if tag in _LOOKED_AT]
        stream = BytesIO(b"".join(part.bytes for parts in looked_at for part in parts))
        data_set = read_dataset(stream, self._implicit, True)
        for tag in (group << 16 | element for group in _OVERLAY_GROUPS for element in (0x0010, 0x3000)):
            if tag in self._elements:
                data_set.add_new(tag, "OW", b"")
        if self._encapsulated_icon:
            item = Dataset()
            item.add_new(tags.PIXEL_DATA, "OB", b"")
            item["PixelData"].is_undefined_length = True
            data_set.add_new(_ICON_IMAGE_SEQUENCE, "SQ", Sequence([item]))
        return data_set

    def change(self, described: Dataset) -> None:
        """Take what became of `context()`."""
        before = self.context()
        changed = Dataset()
        for tag in {*before.keys()} - {*described.keys()}:
            del self._elements[tag]
        for tag in list(described.keys()):
            if not described.get_item(tag).is_raw and (tag not in before or before[tag] != described[tag]):
                changed[tag] = described[tag]
        if not changed:
            return
        if "SpecificCharacterSet" in described:  # which texts are written in
            changed["SpecificCharacterSet"] = described["SpecificCharacterSet"]
        data = memoryview(received.written(changed, implicit=self._implicit))
        elements, _, _, _ = kernel.recode(data, 0, self._implicit, self._implicit, dictionary())
        for number, _, offset, length in elements:
            new = Stretch(data, offset, offset + length)
            if number in _GROWING and number in self._elements:
                self._elements[number] = self._longer(self._elements[number][0], new)
            elif number != _SPECIFIC_CHARACTER_SET:
                self._elements[number] = (new,)
        self._elements = {number: self._elements[number] for number in sorted(self._elements)}

    def pieces(self) -> tuple[list[Buffer], list[Buffer]]:
        """What stands before the pixel data, and behind it."""
        limit = self._pixel_tag or 1 << 32
        return (
            _joined(part for tag, parts in self._elements.items() if tag < limit for part in parts),
            _joined(part for tag, parts in self._elements.items() if tag > limit for part in parts),
        )

    def _longer(self, old: Stretch, new: Stretch) -> tuple[Stretch, ...]:
        """A sequence with the items of another behind its own, in the form its length came in. PS3.5 7.5"""
        head = 8 if self._implicit else 12
        value, items = old.bytes[head:], new.bytes[head:]
        beginning = bytes(old.bytes[:head])
        if not self._implicit and beginning[4:6] != b"SQ":
            raise DicomError(f"an element that has to be a sequence is {beginning[4:6].decode('latin_1')}")
        if beginning[-4:] == _UNDEFINED:
            parts: tuple[Buffer, ...] = (old.bytes[:-8], items, _SEQUENCE_DELIMITER)
        else:
            parts = (beginning[:-4] + (len(value) + len(items)).to_bytes(4, "little"), value, items)
        return tuple(Stretch(memoryview(part), 0, len(part)) for part in parts)


def _elements(given: Received, implicit: bool) -> tuple[Mapping[int, Stretch], bool]:
    """(elements by tag: of two with one tag the last, whether an icon is encapsulated)."""
    descriptor = given.descriptor
    geometry = descriptor.geometry
    signed = geometry.pixel_representation if geometry is not None else -1
    table = dictionary()
    elements, out, pixel, icon = kernel.recode(
        given.head, given.data_set, given.implicit, implicit, table, descriptor.pixel_tag, signed
    )
    found = _stretches(given.head, out, elements)
    if descriptor.pixel_tag:
        if pixel is None:
            raise DicomError("the pixel data is not where it was")
        tail = given.tail_behind(*pixel)
        elements, out, _, in_tail = kernel.recode(tail, 0, given.implicit, implicit, table, 0, signed)
        found |= _stretches(tail, out, elements)
        icon |= in_tail
    for tag in given.dropped:
        found.pop(tag, None)
    return found, icon


def _stretches(data: Buffer, out: bytearray, elements: Iterable[tuple[int, bool, int, int]]) -> dict[int, Stretch]:
    given, made = memoryview(data), memoryview(out)
    return {tag: Stretch(made if recoded else given, start, start + length) for tag, recoded, start, length in elements}


def _joined(parts: Iterable[Stretch]) -> list[Buffer]:
    """The bytes of parts one behind the other, in as few pieces as they lie in."""
    pieces: list[Buffer] = []
    last: Stretch | None = None
    for part in parts:
        if last is not None and part.data is last.data and part.start == last.stop:
            last = Stretch(last.data, last.start, part.stop)
            pieces[-1] = last.bytes
        else:
            last = part
            pieces.append(last.bytes)
    return pieces
