"""The scanner against pydicom, on every file of pydicom's wheel and of the shared data that both can read."""

from __future__ import annotations

import base64
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
from pydicom import encaps
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs import part10
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


class OracleError(Exception):
    """pydicom cannot turn this Data Element into JSON; whatever we say of it is our own affair."""


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
    for tag in sorted(ds.keys()):
        key = f"{tag:08X}"
        # PS3.18 F.2: group lengths and item delimiters are no attributes of the JSON model; pydicom writes them.
        if tag & 0xFFFF == 0 or tag >> 16 == 0xFFFE:
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
    return found


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
