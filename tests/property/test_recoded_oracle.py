"""The recoder of explicit and implicit VR against an encoder of the tests and against pydicom."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ImplicitVRLittleEndian

from pacs._codecs.recode import recode
from pacs.dicom.dictionary import dictionary
from pacs.errors import DicomError
from tests.property.test_part10_oracle import bundled_files, dicom_files

LONG_FORM = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
SEQUENCES = (0x00081115, 0x00089215, 0x00400260, 0x00082112, 0x52009230)
CREATOR = b"SIEMENS CSA HEADER"
PLAIN = {
    0x00080005: ("CS", [b"ISO_IR 100", b""]),
    0x00080018: ("UI", [b"1.2.3\0", b"1.2.34"]),
    0x00080060: ("CS", [b"CT", b""]),
    0x00081030: ("LO", [b"M\xfcnchen ", b"a\\b "]),
    0x00100010: ("PN", [b"Doe^J ", b""]),
    0x00100020: ("LO", [b"A" * 64]),
    0x00180050: ("DS", [b"1.50", b"2\\3\\"]),
    0x00189810: ("US", [b"\1\0"]),
    0x00200013: ("IS", [b"12"]),
    0x00280009: ("AT", [b"\x18\0\x63\x10", b""]),
    0x00280010: ("US", [b"\3\0"]),
    0x00280106: ("US", [b"\xff\xff"]),
    0x00281201: ("OW", [bytes(range(256)), b""]),
    0x00700022: ("FL", [bytes(range(16))]),
    0x0040A160: ("UT", [b"text" * 20000, b"", b"xx"]),
    0x00290010: ("LO", [CREATOR]),
    0x00291008: ("CS", [b"IMAGE NUM 4 "]),
    0x00291010: ("OB", [bytes(100)]),
    0x00311001: ("UN", [b"whatever", bytes(70000)]),
    0x60003000: ("OW", [b"\1\2\3\4"]),
}
"""VRs as the dictionary has them, with values of even length; Pixel Representation is not there, so samples are US."""


@dataclass
class Sequence:
    items: list[tuple[list[Element], bool]]
    undefined: bool


@dataclass
class Element:
    tag: int
    vr: str
    value: bytes | Sequence


def data_set(choose: random.Random, depth: int = 0) -> list[Element]:
    known = {tag: PLAIN[tag] for tag in choose.sample(sorted(PLAIN), choose.randint(0, 6))}
    if 0x00291008 in known or 0x00291010 in known:
        known[0x00290010] = PLAIN[0x00290010]
    elements = [Element(tag, vr, choose.choice(values)) for tag, (vr, values) in known.items()]
    for tag in choose.sample(SEQUENCES, choose.randint(0, 2) if depth < 4 else 0):
        items = [(data_set(choose, depth + 1), choose.random() < 0.5) for _ in range(choose.randint(0, 3))]
        elements.append(Element(tag, "SQ", Sequence(items, choose.random() < 0.5)))
    return sorted(elements, key=lambda element: element.tag)


def encoded(elements: list[Element], *, implicit: bool) -> bytes:
    """As PS3.5 7.1 says, in the length forms that the elements have."""
    out = b""
    for element in elements:
        tag = struct.pack("<HH", *divmod(element.tag, 1 << 16))
        end, value = b"", element.value
        if isinstance(value, Sequence):
            undefined, end = value.undefined, b"\xfe\xff\xdd\xe0\0\0\0\0"
            items = b""
            for elements_of_item, undefined_item in value.items:
                inside = encoded(elements_of_item, implicit=implicit)
                size = 0xFFFFFFFF if undefined_item else len(inside)
                items += b"\xfe\xff\0\xe0" + struct.pack("<I", size) + inside
                items += b"\xfe\xff\x0d\xe0\0\0\0\0" if undefined_item else b""
            value = items
        else:
            undefined = False
        size = 0xFFFFFFFF if undefined else len(value)
        if implicit:
            head = struct.pack("<I", size)
        elif element.vr in LONG_FORM:
            head = element.vr.encode() + struct.pack("<HI", 0, size)
        else:
            head = element.vr.encode() + struct.pack("<H", size)
        out += tag + head + value + (end if undefined else b"")
    return out


def recoded(data: bytes, *, implicit: bool, to_implicit: bool) -> bytes:
    elements, out, _, _ = recode(data, 0, implicit, to_implicit, dictionary())
    return b"".join((out if new else data)[start : start + length] for _, new, start, length in elements)


@pytest.mark.parametrize("seed", range(300))
def test_both_encodings_of_one_data_set_become_each_other(seed: int) -> None:
    elements = data_set(random.Random(seed))
    explicit, implicit = encoded(elements, implicit=False), encoded(elements, implicit=True)
    assert recoded(implicit, implicit=True, to_implicit=False) == explicit
    assert recoded(explicit, implicit=False, to_implicit=True) == implicit
    assert recoded(explicit, implicit=False, to_implicit=False) == explicit
    assert recoded(implicit, implicit=True, to_implicit=True) == implicit


def meaning(found: Dataset) -> dict[str, Any]:
    """What pydicom reads, without pads, group lengths and the ends of what is damaged."""
    said: dict[str, Any] = {}
    for tag in sorted(found.keys()):
        if tag.element == 0:
            continue
        try:
            element = found[tag]
        except Exception:  # noqa: BLE001 - pydicom raises anything for a length that does not fit
            said[str(tag)] = ("", (found.get_item(tag).value or b"").rstrip(b"\0 "))
            continue
        value: Any = element.value
        if element.VR == "SQ":
            value = [meaning(item) for item in value]
        elif isinstance(value, bytes):
            value = value.rstrip(b"\0 ")
        said[str(tag)] = (element.VR, value if element.VR == "SQ" else repr(value or "").replace("'", ""))
    return said


def read(data: bytes, *, implicit: bool) -> Dataset:
    return read_dataset(BytesIO(data), implicit, True)


def by_pydicom(data: bytes, *, implicit: bool, to_implicit: bool) -> bytes:
    out = BytesIO()
    found = read(data, implicit=implicit)
    pydicom.dcmwrite(out, found, implicit_vr=to_implicit, little_endian=True, force_encoding=True)
    return out.getvalue()


def outcome(call: Callable[[], bytes]) -> bytes | None:
    """None for a Data Set that cannot be written."""
    try:
        return call()
    except Exception:  # noqa: BLE001 - pydicom raises anything
        return None


def little_endian(root: Path | None) -> Iterator[tuple[Path, bytes, bool]]:
    """(path, Data Set, whether implicit) of the files that are little endian and not compressed as a whole."""
    seen: dict[Path, int] = {}
    for path in bundled_files() if root is None else dicom_files(root):
        seen[path.parent] = seen.get(path.parent, 0) + 1
        if path.stat().st_size > 200_000 or (root is not None and seen[path.parent] > 10):
            continue  # a series of hundreds says no more than its first images
        try:
            meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
        except Exception:  # noqa: BLE001 - no DICOM
            continue
        syntax = meta.get("TransferSyntaxUID")
        if syntax in (None, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"):
            continue
        data = path.read_bytes()
        start = 144 + int.from_bytes(data[140:144], "little")
        yield path, data[start:], syntax == ImplicitVRLittleEndian


@pytest.mark.parametrize("corpus", ["pydicom", "shared"])
@pytest.mark.usefixtures("quiet")
def test_files_mean_the_same_as_pydicom_writes(corpus: str, request: pytest.FixtureRequest) -> None:
    root = None if corpus == "pydicom" else request.getfixturevalue("shared_data")
    compared = 0
    for path, data, implicit in little_endian(root):
        for to_implicit in (True, False):
            expected = outcome(lambda: by_pydicom(data, implicit=implicit, to_implicit=to_implicit))  # noqa: B023
            try:
                found = recoded(data, implicit=implicit, to_implicit=to_implicit)
            except DicomError:
                continue
            if expected is None:
                continue
            compared += 1
            assert meaning(read(found, implicit=to_implicit)) == meaning(read(expected, implicit=to_implicit)), path
    assert compared > 100


@pytest.mark.parametrize("seed", range(150))
@pytest.mark.usefixtures("quiet")
def test_what_is_damaged_is_refused_or_means_the_same(seed: int) -> None:
    choose = random.Random(1000 + seed)
    elements = data_set(choose)
    for implicit in (False, True):
        whole = encoded(elements, implicit=implicit)
        if not whole:
            continue
        for _ in range(20):
            damaged = bytearray(whole[:3000])
            for _ in range(choose.randint(1, 3)):
                damaged[choose.randrange(len(damaged))] = choose.choice((0, 1, 8, 0x10, 0xE0, 0xFE, 0xFF))
            data = bytes(damaged)
            for to_implicit in (False, True):
                try:
                    found = recoded(data, implicit=implicit, to_implicit=to_implicit)
                except DicomError:
                    continue
                compare(data, found, implicit=implicit, to_implicit=to_implicit)


def compare(data: bytes, found: bytes, *, implicit: bool, to_implicit: bool) -> None:
    written = outcome(lambda: by_pydicom(data, implicit=implicit, to_implicit=to_implicit))
    if written is None:
        return
    try:
        expected = meaning(read(written, implicit=to_implicit))
    except Exception:  # noqa: BLE001 - what pydicom wrote it does not always read
        return
    assert meaning(read(found, implicit=to_implicit)) == expected


def test_samples_are_signed_as_the_nearest_pixel_representation_says() -> None:
    value = Dataset()
    value.SmallestImagePixelValue, value.PixelRepresentation = 1, 0
    inner, outer = Dataset(), Dataset()
    inner.SmallestImagePixelValue = -5
    outer.PixelRepresentation, outer.LargestImagePixelValue = 1, -2
    outer.SourceImageSequence = [value]
    outer.PerFrameFunctionalGroupsSequence = [inner, value]
    out = BytesIO()
    pydicom.dcmwrite(out, outer, implicit_vr=True, little_endian=True, force_encoding=True)
    elements, made, _, _ = recode(out.getvalue(), 0, True, False, dictionary(), 0, 1)
    found = read(b"".join(bytes(made[start : start + length]) for _, _, start, length in elements), implicit=False)
    assert found[0x00280107].VR == "SS" and found.LargestImagePixelValue == -2
    assert [item[0x00280106].VR for item in found.PerFrameFunctionalGroupsSequence] == ["SS", "US"]
    assert found.SourceImageSequence[0][0x00280106].VR == "US"


def test_what_depends_on_a_later_element_of_an_item_is_refused() -> None:
    item = b"\x18\0\x10\x98\x02\0\0\0\xff\xff" + b"\x28\0\x03\x01\x02\0\0\0\1\0"
    data = (
        b"\0\x52\x30\x92" + struct.pack("<I", len(item) + 8) + b"\xfe\xff\0\xe0" + struct.pack("<I", len(item)) + item
    )
    with pytest.raises(DicomError, match="Pixel Representation comes after"):
        recoded(data, implicit=True, to_implicit=False)


def test_a_text_that_is_too_long_is_un() -> None:
    value = b"1\\" * 40000
    data = b"\x18\0\x50\0" + struct.pack("<I", len(value)) + value
    assert recoded(data, implicit=True, to_implicit=False) == b"\x18\0\x50\0UN\0\0" + struct.pack("<I", 80000) + value
    assert recoded(data[:8] + value, implicit=True, to_implicit=True) == data


@pytest.mark.parametrize(("tag", "vr", "pad"), [(b"\x10\0\x20\0", b"LO", b" "), (b"\x08\0\x18\0", b"UI", b"\0")])
def test_odd_values_get_a_pad(tag: bytes, vr: bytes, pad: bytes) -> None:
    assert recoded(tag + b"\3\0\0\0abc", implicit=True, to_implicit=False) == tag + vr + b"\4\0abc" + pad


def test_a_sequence_that_is_called_un_is_implicit_inside() -> None:
    inside = b"\xfe\xff\0\xe0\xff\xff\xff\xff" + b"\x08\0\x60\0\2\0\0\0CT" + b"\xfe\xff\x0d\xe0\0\0\0\0"
    value = inside + b"\xfe\xff\xdd\xe0\0\0\0\0"
    data = b"\x08\0\x15\x11UN\0\0\xff\xff\xff\xff" + value
    assert recoded(data, implicit=False, to_implicit=False) == data
    assert recoded(data, implicit=False, to_implicit=True) == b"\x08\0\x15\x11\xff\xff\xff\xff" + value


def test_an_implicit_element_in_explicit_vr_gets_its_vr() -> None:
    data = b"\x08\0\x60\0CS\2\0CT" + b"\x10\0\x20\0\4\0\0\0Abcd" + b"\x20\0\x13\0IS\2\0" + b"12"
    expected = b"\x08\0\x60\0CS\2\0CT" + b"\x10\0\x20\0LO\4\0Abcd" + b"\x20\0\x13\0IS\2\0" + b"12"
    assert recoded(data, implicit=False, to_implicit=False) == expected


def test_group_lengths_go_and_zeros_at_the_end_too() -> None:
    data = b"\x08\0\0\0\4\0\0\0\x0a\0\0\0" + b"\x08\0\x60\0\2\0\0\0CT" + bytes(40)
    assert recoded(data, implicit=True, to_implicit=False) == b"\x08\0\x60\0CS\2\0CT"
    assert recoded(data, implicit=True, to_implicit=True) == b"\x08\0\x60\0\2\0\0\0CT"


@pytest.mark.parametrize("depth", [60, 64, 100_000])
def test_nesting_has_a_limit(depth: int) -> None:
    head = b"\0\x52\x30\x92\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    data = depth * head + depth * (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0")
    if depth < 64:
        assert len(recoded(data, implicit=True, to_implicit=False)) == len(data) + 4 * depth
        return
    for to_implicit in (True, False):
        with pytest.raises(DicomError, match="too deeply"):
            recoded(data, implicit=True, to_implicit=to_implicit)


def test_pixel_data_ends_the_walk() -> None:
    data = b"\x28\0\x10\0US\2\0\3\0" + b"\xe0\x7f\x10\0OW\0\0\x12\0\0\0"
    elements, _, pixel, _ = recode(data, 0, False, False, dictionary(), 0x7FE00010)
    assert [element[0] for element in elements] == [0x00280010] and pixel == (len(data), 18)
    assert recode(data[:10], 0, False, False, dictionary(), 0x7FE00010)[2] is None


@pytest.mark.parametrize("undefined", [True, False])
def test_an_encapsulated_icon_is_seen(undefined: bool) -> None:
    pixels = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    size = b"\xff\xff\xff\xff" if undefined else struct.pack("<I", len(pixels) + 8)
    data = b"\x88\0\0\x02SQ\0\0" + size + b"\xfe\xff\0\xe0" + struct.pack("<I", len(pixels)) + pixels
    data += b"\xfe\xff\xdd\xe0\0\0\0\0" if undefined else b""
    for to_implicit in (False, True):
        assert recode(data, 0, False, to_implicit, dictionary())[3]
    assert not recode(b"\x89" + data[1:], 0, False, False, dictionary())[3]


@pytest.mark.parametrize("nested", [False, True])
def test_zeros_behind_an_unknown_vr_may_belong_to_a_long_length(nested: bool) -> None:
    """Read as a length of two bytes, the next elements would be cut at the wrong places, and sorted."""
    data = b"\x10\0\x20\0ZZ\0\0" + b"\x08\0\0\0" + b"AB\0\0\x04\0\x01\0" + b"\x20\0\x13\0IS\2\0" + b"12"
    if nested:
        end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
        data = b"\0\x52\x30\x92SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" + data + end
    for to_implicit in (False, True):
        with pytest.raises(DicomError, match="does not exist"):
            recoded(data, implicit=False, to_implicit=to_implicit)


def test_what_explicit_elements_say_counts_for_implicit_ones_behind_them() -> None:
    said = b"\x28\0\x03\x01US\2\0\1\0"
    value = b"\x28\0\x06\x01\2\0\0\0\xfb\xff"
    creator = b"\x29\0\x10\0LO\x12\0" + CREATOR
    private = b"\x29\0\x08\x10\4\0\0\0MOSA"
    assert recoded(said + value + creator + private, implicit=False, to_implicit=False) == (
        said + b"\x28\0\x06\x01SS\2\0\xfb\xff" + creator + b"\x29\0\x08\x10CS\4\0MOSA"
    )
