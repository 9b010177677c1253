"""The scanner against pydicom, on every file of pydicom's wheel and of the shared data that both can read."""

from __future__ import annotations

import base64
import functools
import json
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import encaps
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from pacs.dicom import attributes, charset, part10
from pacs.errors import DicomError

PYDICOM_DATA = Path(pydicom.__file__).parent / "data"
NOT_DICOM = {".py", ".pyc", ".md", ".tsv", ".txt", ".json", ".xml", ".zip", ".gz", ".dump", ".icc"}

REFUSED = {
    # One stray byte stands before the first Data Element. pydicom, forced, takes the file for a single element
    # (0820,0500) of 1.3 GB.
    "no_meta.dcm",
    "README",
}
"""Files that pydicom "reads" only with force=True, as one meaningless element: no DICOM for us."""


def dicom_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix not in NOT_DICOM:
            yield path


def bundled_files() -> list[Path]:
    """Files in the wheel only: `pydicom.data.get_testdata_files` would download the others."""
    return [*dicom_files(PYDICOM_DATA / "test_files"), *dicom_files(PYDICOM_DATA / "charset_files")]


def read(path: Path) -> Dataset:
    return pydicom.dcmread(path, force=True)


def as_binary(element: DataElement) -> bytes:
    value = element.value
    return value if isinstance(value, bytes) else b""


def swapped(value: bytes, vr: str) -> bytes:
    unit = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}.get(vr, 1)
    whole = len(value) - len(value) % unit
    return b"".join(value[i : i + unit][::-1] for i in range(0, whole, unit)) + value[whole:]


def expected(ds: Dataset, path: str = "") -> dict[str, Any]:
    """What pydicom's `to_json_dict` says, normalised. Every difference to its plain answer has its reason here."""
    found: dict[str, Any] = {}
    repertoire = str(ds._character_set)
    for tag in sorted(ds.keys(), key=int):
        number = int(tag)
        key = f"{number:08X}"
        # PS3.18 F.2: group lengths and item delimiters are no attributes of the JSON model; pydicom writes them.
        if number & 0xFFFF == 0 or number >> 16 == 0xFFFE:
            continue
        same_bytes = coded(ds, tag, repertoire)
        if same_bytes in ANSWERS:
            found[key] = ANSWERS[same_bytes]
            continue
        try:
            element = ds[tag]
        except NotImplementedError:
            found[key] = {"vr": "UN"}  # a VR that does not exist: pydicom gives up, we keep the bytes
            continue
        except pydicom.errors.BytesLengthException:
            found[key] = {"vr": "UN"}  # what config.convert_wrong_length_to_UN does; its default is to give up
            continue
        found[key] = expected_element(element, ds, f"{path}{key}")
        if same_bytes is not None and str(element.VR) in PLAIN:
            ANSWERS[same_bytes] = found[key]
    return found


ANSWERS: dict[tuple[Any, ...] | None, dict[str, Any]] = {}
"""What pydicom said of an element that was coded in the same bytes: slices of a series differ in few."""
PLAIN = {
    "AE", "AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL",
    "US", "UT",
}  # fmt: skip


def coded(ds: Dataset, tag: Any, repertoire: str) -> tuple[Any, ...] | None:
    """All that pydicom makes a value of; None where the meaning depends on other elements."""
    raw = ds.get_item(tag)
    if not isinstance(raw, RawDataElement) or (raw.VR is None and not unambiguous(int(tag))):
        return None
    return int(tag), raw.VR, raw.value, raw.is_implicit_VR, raw.is_little_endian, repertoire


@functools.cache
def unambiguous(tag: int) -> bool:
    """Whether an element that states no VR has the one of the dictionary, whatever stands beside it."""
    return not tag >> 16 & 1 and dictionary_has_tag(tag) and " " not in dictionary_VR(tag)


def expected_element(element: DataElement, ds: Dataset, path: str) -> dict[str, Any]:
    vr = str(element.VR)
    if vr == "SQ":
        items = [expected(item, f"{path}/{number}/") for number, item in enumerate(element.value)]
        # PS3.18 F.2.5: no value, no "Value"; pydicom writes an empty array.
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if vr in ("OB", "OW", "OD", "OF", "OL", "OV", "UN"):
        value = as_binary(element)
        if not value:
            return {"vr": vr}
        top_level_pixel = path in ("7FE00010", "7FE00008", "7FE00009")
        # Our threshold counts the bytes of the value, pydicom's those of base64; pixel data is always bulk data.
        if len(value) > 1024 or top_level_pixel:
            return {"vr": vr, "BulkDataURI": f"bulkdata/{path}"}
        # PS3.18 F.2.7: little endian. pydicom never swaps.
        big = ds.original_encoding[1] is False
        return {"vr": vr, "InlineBinary": base64.b64encode(swapped(value, vr) if big else value).decode()}
    try:
        answer = element.to_json_dict(None, 1024)
    except (ValueError, IndexError, TypeError, OverflowError):
        # An IS or DS that is no number, or an empty one among several: pydicom gives up. Ours: text, and null.
        return loose(element, vr)
    if element.tag == 0x00080005 and answer.get("Value"):
        answer["Value"] = ["ISO_IR 192"]  # the JSON is UTF-8, and says so. PS3.18 F.1
    return answer


def loose(element: DataElement, vr: str) -> dict[str, Any]:
    values = element.value if isinstance(element.value, (list, pydicom.multival.MultiValue)) else [element.value]
    if vr == "PN":
        texts = [str(value) for value in values]
        return {"vr": vr, "Value": [{"Alphabetic": text} if text else None for text in texts]}
    return {"vr": vr, "Value": [None if value in ("", None) else value for value in values]}


def same(ours: Any, theirs: Any, vr: str) -> bool:
    if vr == "PN":
        # PS3.18 F.2.2: component groups that are empty are left out; pydicom writes "".
        theirs = {k: v for k, v in theirs.items() if v} if isinstance(theirs, dict) else theirs
        return ours == (theirs or None)
    if theirs in ("", None):
        return ours is None  # PS3.18 F.2.5: an empty value among several is null; pydicom keeps ""
    if vr in ("FL", "FD") and isinstance(theirs, float) and not math.isfinite(theirs):
        return float(ours) == theirs or (ours == "NaN" and math.isnan(theirs))  # JSON has no such numbers
    if vr in ("SV", "UV") and isinstance(ours, str):
        return int(ours) == theirs  # beyond 2^53 a string, so that no reader rounds it
    if vr == "IS" and isinstance(theirs, str) and isinstance(ours, float):
        return ours == float(theirs)  # an integer with a fraction: a number all the same
    if vr in ("IS", "DS") and isinstance(ours, str):
        return same_decimal_text(ours, theirs)
    return type(ours) is not bool and ours == theirs


def same_decimal_text(ours: str, theirs: Any) -> bool:
    """Text of an IS or DS that breaks its rules stays text with us; pydicom may read a number out of it."""
    if isinstance(theirs, str):
        return ours == theirs.strip()
    try:
        return math.isclose(float(ours), theirs) or int(float(ours)) == theirs or math.isnan(float(ours))
    except ValueError:
        return False


def differences(ours: dict[str, Any], theirs: dict[str, Any], path: str = "") -> Iterator[str]:
    assert list(ours) == sorted(ours)
    for key in sorted(ours.keys() | theirs.keys()):
        where = f"{path}{key}"
        if key not in ours or key not in theirs:
            yield f"{where}: ours {ours.get(key)!s:.200}, pydicom {theirs.get(key)!s:.200}"
            continue
        mine, other = ours[key], theirs[key]
        if mine["vr"] != other["vr"]:
            yield f"{where}: VR ours {mine['vr']}, pydicom {other['vr']} {other!s:.100}"
        elif mine["vr"] == "SQ":
            left, right = mine.get("Value", []), other.get("Value", [])
            if len(left) != len(right):
                yield f"{where}: {len(left)} items, pydicom {len(right)}"
            for number, (a, b) in enumerate(zip(left, right, strict=False)):
                yield from differences(a, b, f"{where}/{number}/")
        elif "Value" in mine or "Value" in other:
            left, right = mine.get("Value", []), other.get("Value", [])
            if len(left) != len(right) or not all(same(a, b, mine["vr"]) for a, b in zip(left, right, strict=True)):
                yield f"{where} {mine['vr']}: ours {left!s:.200}, pydicom {right!s:.200}"
        elif not (mine["vr"] == "UN" and other == {"vr": "UN"}) and mine != other:
            yield f"{where}: ours {mine!s:.200}, pydicom {other!s:.200}"


def check_against_pydicom(path: Path) -> list[str]:
    ds = read(path)
    theirs = expected(ds)
    file = path.read_bytes()
    answer = part10.scan(file)
    ours = json.loads(answer.json)
    assert msgspec.json.decode(answer.json) == ours
    found = list(differences(ours, theirs))
    found += check_spans(answer, ds)
    return found


def element_at(ds: Dataset, path: str) -> DataElement:
    parts = path.split("/")
    for tag, item in zip(parts[0:-1:2], parts[1::2], strict=True):
        ds = ds[int(tag, 16)].value[int(item)]
    return ds[int(parts[-1], 16)]


def check_spans(answer: part10.Part10, ds: Dataset) -> Iterator[str]:
    for span in answer.bulk:
        value = bytes(answer.data[span.offset : span.offset + span.length])
        if value != as_binary(element_at(ds, span.path)):
            yield f"bulk data {span.path}: {span.length} bytes at {span.offset} are not the value"
    pixel = answer.pixel
    keys = [tag for tag in (0x7FE00010, 0x7FE00008, 0x7FE00009) if tag in ds and ds[tag].value]
    if not keys or pixel is None:
        if keys or pixel:
            yield f"pixel data: ours {pixel}, pydicom {keys}"
        return
    value = ds[keys[0]].value
    if pixel.encapsulated != ds[keys[0]].is_undefined_length:
        yield "encapsulated or not"
    if not pixel.encapsulated:
        if bytes(answer.data[pixel.offset : pixel.offset + pixel.length]) != value:
            yield "native pixel data differs"
        return
    fragments = list(encaps.generate_fragments(value))
    ours = [bytes(answer.data[offset : offset + length]) for offset, length in pixel.fragments]
    if list(pixel.basic_offset_table) != encaps.parse_basic_offsets(value):
        yield "Basic Offset Table differs"
    if ours != fragments[1:]:
        yield f"{len(ours)} fragments, pydicom {len(fragments) - 1}"


@pytest.fixture(autouse=True)
def quiet_pydicom() -> Iterator[None]:
    """pydicom warns of much in these files; the tests turn warnings into errors."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def check_all(paths: list[Path]) -> None:
    checked = 0
    problems: list[str] = []
    for path in paths:
        if path.name in REFUSED:
            with pytest.raises(DicomError):
                part10.scan(path.read_bytes())
            continue
        problems += [f"{path.name}: {sentence}" for sentence in check_against_pydicom(path)]
        checked += 1
    assert not problems, "\n".join(problems[:60])
    assert checked > 0


def test_bundled_files_mean_what_pydicom_says() -> None:
    check_all(bundled_files())


def test_shared_files_mean_what_pydicom_says(shared_data: Path) -> None:
    check_all(list(dicom_files(shared_data)))


# --- any bytes ------------------------------------------------------------------------------------------------


def seeds() -> list[bytes]:
    """The beginnings of some files, small enough to be mutated a lot."""
    names = ("CT_small", "MR_small", "SC_rgb_jpeg", "reportsi", "rtplan", "ExplVR_BigEnd", "UN_sequence", "chrH31",
             "nested_priv_SQ", "JPEG2000", "image_dfl", "liver_1frame", "badVR", "empty_charset_LEI")  # fmt: skip
    return [path.read_bytes()[:6000] for path in bundled_files() if path.name.startswith(names)]


SEEDS = seeds()
PIECES = st.sampled_from(
    [bytes(4), b"\xff\xff\xff\xff", b"\xfe\xff\0\xe0", b"\xfe\xff\xdd\xe0", b"\x1b$B\\", b"UN\0\0", b"SQ\0\0"]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(data) - 1))
        piece = draw(st.one_of(PIECES, st.binary(min_size=1, max_size=6)))
        if draw(st.booleans()):
            data[at : at + len(piece)] = piece
        else:
            data[at:at] = piece
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def check_any(data: bytes) -> None:
    try:
        answer = part10.scan(data)
    except DicomError as error:
        assert error.offset <= max(len(data), 1 << 20)
        return
    loaded = json.loads(answer.json)
    assert msgspec.json.decode(answer.json) == loaded or "NaN" in str(loaded)
    assert list(loaded) == sorted(loaded)
    for span in answer.bulk:
        assert span.offset + span.length <= answer.data.nbytes
        assert span.length > 1024
    if answer.pixel is not None:
        assert answer.pixel.offset + answer.pixel.length <= answer.data.nbytes
    attributes.geometry(answer.json)
    attributes.uids(answer.json)


@settings(max_examples=1500)
@given(damaged())
def test_damaged_files_give_an_answer_or_an_error(data: bytes) -> None:
    check_any(data)


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from([b"", b"DICM", bytes(128) + b"DICM"]))
def test_any_bytes_give_an_answer_or_an_error(data: bytes, prefix: bytes) -> None:
    check_any(prefix + data)


def test_every_truncation_of_a_file_gives_an_answer_or_an_error() -> None:
    for data in SEEDS:
        for n in range(0, min(len(data), 2500), 3):
            check_any(data[:n])


ESCAPES = st.sampled_from(sorted(charset._ESCAPES))
TERMS = st.sampled_from(sorted(set(charset._TERMS) - {"ISO_IR 203", "ISO 2022 IR 203"}))  # newer than pydicom 3


@settings(max_examples=500)
@given(st.lists(TERMS, min_size=1, max_size=3), st.lists(st.one_of(ESCAPES, st.binary(max_size=8)), max_size=4))
def test_text_is_decoded_as_pydicom_does(terms: list[str], pieces: list[bytes]) -> None:
    from pydicom.charset import convert_encodings, decode_bytes

    text = b"".join(pieces)
    theirs = decode_bytes(text, convert_encodings(list(terms)), {0x0D, 0x0A, 0x09, 0x0C})
    ours = charset.repertoire("\\".join(terms).encode())[1](text)
    if b"\x1b$)A" in text or b"\x1b-b" in text:
        return  # pydicom leaves the escape sequence of ISO-IR 58 in the text, and does not know that of ISO-IR 203
    if "\ufffd" in ours or "\ufffd" in theirs:
        return  # what replaces undecodable bytes is nobody's rule
    assert ours == theirs
