"""Each rule of the scanner on bytes made by hand."""

from __future__ import annotations

import json
import struct
import threading
import time
import tracemalloc
import zlib
from typing import Any

import msgspec
import pytest

from pacs.dicom import attributes, charset, part10
from pacs.errors import DicomError
from pacs.geometry import FrameGeometry

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
UNDEFINED = 0xFFFFFFFF


def tag_bytes(tag: int, order: str = "<") -> bytes:
    return struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)


def element(tag: int, vr: str, value: bytes = b"", *, length: int | None = None, order: str = "<") -> bytes:
    """A Data Element in explicit VR."""
    n = len(value) if length is None else length
    tail = struct.pack(order + "HI", 0, n) if vr in LONG else struct.pack(order + "H", n)
    return tag_bytes(tag, order) + vr.encode() + tail + value


def implicit(tag: int, value: bytes = b"", *, length: int | None = None) -> bytes:
    return tag_bytes(tag) + struct.pack("<I", len(value) if length is None else length) + value


def item(content: bytes, *, undefined: bool = False) -> bytes:
    if undefined:
        return implicit(0xFFFEE000, content, length=UNDEFINED) + implicit(0xFFFEE00D)
    return implicit(0xFFFEE000, content)


END = implicit(0xFFFEE0DD)


def file(data_set: bytes, syntax: str = EXPLICIT) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    return bytes(128) + b"DICM" + element(0x00020003, "UI", b"1.2.3\0") + element(0x00020010, "UI", uid) + data_set


def scan(data_set: bytes, syntax: str = EXPLICIT) -> dict[str, Any]:
    answer = part10.scan(file(data_set, syntax))
    loaded: dict[str, Any] = json.loads(answer.json)
    assert msgspec.json.decode(answer.json) == loaded
    return loaded


def one(vr: str, value: bytes, tag: int = 0x00091001) -> dict[str, Any]:
    found: dict[str, Any] = scan(element(tag, vr, value))[f"{tag:08X}"]
    assert found.pop("vr") == vr
    return found


# --- values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("CS", b"ORIGINAL\\PRIMARY ", ["ORIGINAL", "PRIMARY"]),
        ("CS", b"A\\\\B ", ["A", None, "B"]),
        ("LO", b"one \\two ", ["one", "two"]),
        ("AE", b" ARCHIVE ", ["ARCHIVE"]),
        ("UI", b"1.2\\1.3\0", ["1.2", "1.3"]),
        ("LT", b"back\\slash  ", ["back\\slash"]),
        ("UR", b"http://a/b\\c ", ["http://a/b\\c"]),
        ("ST", b'say "x"\r\n\x01', ['say "x"\r\n\x01']),
        ("IS", b"007\\-3\\+5 ", [7, -3, 5]),
        ("IS", b"1.0\\1.5\\+12.50\\1e1\\-2E-001", [1, 1.5, 12.5, 10.0, -0.2]),
        ("IS", b"123456789012345678901\\1.2.3\\1,5 ", ["123456789012345678901", "1.2.3", "1,5"]),
        ("IS", b"1A", ["1A"]),
        ("IS", b"-0", [0]),
        ("DS", b"1.50\\-.5\\+2.\\1E+05 ", [1.5, -0.5, 2.0, 1e5]),
        ("DS", b"\\ 3", [None, 3]),
        ("DS", b"-1.024000e+003\\1.0E-010\\1e+000\\2e00", [-1024.0, 1e-10, 1.0, 2.0]),
        ("DS", b"nan\\1e999\\1_0\\.", ["nan", "1e999", "1_0", "."]),
        ("US", b"\x01\0\xff\xff", [1, 65535]),
        ("SS", b"\xff\xff", [-1]),
        ("UL", b"\xff\xff\xff\xff", [4294967295]),
        ("SL", b"\0\0\0\x80", [-2147483648]),
        ("FL", struct.pack("<2f", 0.1, -0.0), [struct.unpack("<f", struct.pack("<f", 0.1))[0], -0.0]),
        ("FD", struct.pack("<2d", 0.1, 1e300), [0.1, 1e300]),
        ("FD", struct.pack("<3d", float("nan"), float("inf"), float("-inf")), ["NaN", "Infinity", "-Infinity"]),
        ("SV", struct.pack("<2q", -(2**53), -(2**63)), [-(2**53), str(-(2**63))]),
        ("UV", struct.pack("<2Q", 2**53, 2**64 - 1), [2**53, str(2**64 - 1)]),
        ("AT", tag_bytes(0x00100020) + tag_bytes(0xABCDEF01), ["00100020", "ABCDEF01"]),
        ("PN", b"A^B=I^J=P ", [{"Alphabetic": "A^B", "Ideographic": "I^J", "Phonetic": "P"}]),
        ("PN", b"==P\\B", [{"Phonetic": "P"}, {"Alphabetic": "B"}]),
        ("PN", b"A\\\\B", [{"Alphabetic": "A"}, None, {"Alphabetic": "B"}]),
    ],
)
def test_values(vr: str, value: bytes, expected: list[Any]) -> None:
    assert one(vr, value) == {"Value": expected}


@pytest.mark.parametrize("vr", ["CS", "DS", "IS", "PN", "US", "FD", "AT", "OB", "UN", "UT", "UI"])
def test_an_empty_value_has_no_member(vr: str) -> None:
    assert one(vr, b"") == {}


@pytest.mark.parametrize("vr", ["CS", "DS", "IS", "PN", "UI", "LO", "UT", "AE"])
def test_padding_alone_is_empty(vr: str) -> None:
    assert one(vr, b"  ") == {}


def test_short_binary_is_inline_and_long_is_a_span() -> None:
    assert one("OB", b"\x01\x02\x03") == {"InlineBinary": "AQID"}
    value = bytes(range(256)) * 5
    answer = part10.scan(file(element(0x00091001, "OW", value)))
    assert json.loads(answer.json) == {"00091001": {"vr": "OW", "BulkDataURI": "bulkdata/00091001"}}
    (span,) = answer.bulk
    assert (span.path, span.vr) == ("00091001", "OW")
    assert bytes(answer.data[span.offset : span.offset + span.length]) == value


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x0008030E, "UT"), (0x00080119, "UC"), (0x001021B0, "LT"), (0x00080081, "ST"), (0x00082130, "DS"),
        (0x00280010, "US"), (0x00081163, "FD"), (0x0008010E, "UR"), (0x00080070, "LO"),
    ],
)  # fmt: skip
def test_long_text_and_numbers_are_a_span(tag: int, vr: str) -> None:
    """In implicit VR a value of any kind has four bytes of length."""
    value = b"1234567\\" * (1 << 17)
    shorter = part10.scan(file(implicit(tag, value), "1.2.840.10008.1.2"))
    assert shorter.bulk == () and len(shorter.json) > 1 << 20
    value += b"12345678"
    answer = part10.scan(file(implicit(tag, value), "1.2.840.10008.1.2"))
    named = vr if vr not in ("UR", "LO") else "UN"
    name = f"{tag:08X}"
    assert json.loads(answer.json) == {name: {"vr": named, "BulkDataURI": f"bulkdata/{name}"}}
    (span,) = answer.bulk
    assert (span.path, span.vr) == (name, named)
    assert bytes(answer.data[span.offset : span.offset + span.length]) == value
    assert bool(answer.warnings) is (named == "UN")


def test_inline_binary_is_little_endian() -> None:
    values = element(0x00091001, "OW", b"\x01\x02\x03\x04\x05", order=">") + element(
        0x00091002, "OL", b"\x01\x02\x03\x04", order=">"
    )
    found = scan(values + element(0x00280010, "US", b"\x02\0", order=">"), BIG)
    assert found["00091001"]["InlineBinary"] == "AgEEAwU="
    assert found["00091002"]["InlineBinary"] == "BAMCAQ=="
    assert found["00280010"]["Value"] == [512]


def test_a_length_that_does_not_fit_the_vr_makes_it_unknown() -> None:
    assert scan(element(0x00280010, "US", b"\x01\x02\x03")) == {"00280010": {"vr": "UN", "InlineBinary": "AQID"}}


def test_a_vr_that_does_not_exist_makes_it_unknown() -> None:
    assert scan(element(0x00091001, "ZZ", b"ab")) == {"00091001": {"vr": "UN", "InlineBinary": "YWI="}}


# --- structure ------------------------------------------------------------------------------------------------


def test_sequences_of_every_length() -> None:
    inner = element(0x00080100, "SH", b"CODE")
    expected = [{"00080100": {"vr": "SH", "Value": ["CODE"]}}] * 2
    for content in (item(inner) * 2, item(inner, undefined=True) * 2):
        assert one("SQ", content, 0x00081140) == {"Value": expected}
        found = scan(element(0x00081140, "SQ", content + END, length=UNDEFINED) + element(0x00100020, "LO", b"id"))
        assert found["00081140"]["Value"] == expected
        assert found["00100020"]["Value"] == ["id"]
    assert one("SQ", item(b""), 0x00081140) == {"Value": [{}]}
    assert one("SQ", b"", 0x00081140) == {}


def test_unknown_of_undefined_length_is_an_implicit_sequence() -> None:
    content = item(implicit(0x00080100, b"CODE"), undefined=True) + END
    found = scan(element(0x00091001, "UN", content, length=UNDEFINED))
    assert found == {"00091001": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["CODE"]}}]}}


def test_unknown_of_a_known_tag_gets_its_vr() -> None:
    found = scan(element(0x00100020, "UN", b"id") + element(0x00280010, "UN", b"\x02\0"))
    assert found["00100020"] == {"vr": "LO", "Value": ["id"]}
    assert found["00280010"] == {"vr": "US", "Value": [2]}


def test_private_elements_of_implicit_vr() -> None:
    found = scan(
        implicit(0x00190010, b"SIEMENS MR HEADER ") + implicit(0x0019100C, b"1000") + implicit(0x001910FE, b"ab"),
        IMPLICIT,
    )
    assert found["00190010"] == {"vr": "LO", "Value": ["SIEMENS MR HEADER"]}
    assert found["0019100C"] == {"vr": "IS", "Value": [1000]}
    assert found["001910FE"] == {"vr": "UN", "InlineBinary": "YWI="}


@pytest.mark.parametrize(("representation", "vr", "value"), [(0, "US", 65535), (1, "SS", -1)])
def test_us_or_ss_follows_pixel_representation(representation: int, vr: str, value: int) -> None:
    low = implicit(0x00189810, b"\xff\xff")  # stands before Pixel Representation: needs a second pass
    high = implicit(0x00280106, b"\xff\xff")
    found = scan(low + implicit(0x00280103, struct.pack("<H", representation)) + high, IMPLICIT)
    assert found["00280106"] == found["00189810"] == {"vr": vr, "Value": [value]}


def test_lut_descriptor_counts_are_unsigned() -> None:
    found = scan(implicit(0x00280103, b"\x01\0") + implicit(0x00281101, b"\0\xf0\xfe\xff\x10\0"), IMPLICIT)
    assert found["00281101"] == {"vr": "SS", "Value": [0xF000, -2, 16]}


def test_tags_ascend_and_the_last_of_equals_stays() -> None:
    long = bytes(2000)
    answer = part10.scan(
        file(
            element(0x00100020, "LO", b"id")
            + element(0x00091001, "OB", long)
            + element(0x00100020, "LO", b"last")
            + element(0x00091001, "OB", long)
            + element(0x00080050, "SH", b"acc ")
        )
    )
    found = json.loads(answer.json)
    assert list(found) == ["00080050", "00091001", "00100020"]
    assert found["00100020"]["Value"] == ["last"]
    assert [span.path for span in answer.bulk] == ["00091001"]
    assert answer.json.count(b"00100020") == 1
    assert any("order" in warning for warning in answer.warnings)


def test_group_lengths_are_left_out() -> None:
    assert scan(element(0x00080000, "UL", b"\0\0\0\0") + element(0x00080050, "SH")) == {"00080050": {"vr": "SH"}}


def test_nested_bulk_paths() -> None:
    long = bytes(2000)
    inner = element(0x00091002, "OB", long)
    content = item(b"") + item(element(0x00081140, "SQ", item(inner)))
    answer = part10.scan(file(element(0x00081115, "SQ", content)))
    assert [span.path for span in answer.bulk] == ["00081115/1/00081140/0/00091002"]
    assert b'"bulkdata/00081115/1/00081140/0/00091002"' in answer.json


def test_a_broken_sequence_of_known_length_is_kept_as_bytes() -> None:
    found = scan(element(0x00081140, "SQ", b"garbage!") + element(0x00100020, "LO", b"id"))
    assert found["00081140"] == {"vr": "UN", "InlineBinary": "Z2FyYmFnZSE="}
    assert found["00100020"]["Value"] == ["id"]


def test_a_broken_sequence_of_undefined_length_ends_what_is_read() -> None:
    before = element(0x00080050, "SH", b"acc ")
    long = element(0x00091001, "OB", bytes(2000))
    broken = element(0x00081140, "SQ", item(long) + item(b"garbage!"), length=UNDEFINED)
    data = file(before + long + broken)
    answer = part10.scan(data)
    assert list(json.loads(answer.json)) == ["00080050", "00091001"]
    assert [span.path for span in answer.bulk] == ["00091001"]
    assert answer.warnings[-1].endswith(f"the Data Set is not read beyond (byte {len(data)})")


def test_an_item_with_a_wrong_tag_in_a_sequence_of_undefined_length() -> None:
    wrong = tag_bytes(0xFFFEE001) + item(element(0x00080100, "SH", b"CODE"))[4:]
    answer = part10.scan(file(element(0x00081140, "SQ", wrong + END, length=UNDEFINED)))
    assert json.loads(answer.json)["00081140"]["Value"] == [{"00080100": {"vr": "SH", "Value": ["CODE"]}}]
    assert len(answer.warnings) == 1


def test_nesting_is_limited() -> None:
    nested = b""
    for _ in range(60):
        nested = element(0x00081140, "SQ", item(nested))
    assert "00081140" in scan(nested)
    opening = element(0x00081140, "SQ", length=UNDEFINED) + implicit(0xFFFEE000, length=UNDEFINED)
    answer = part10.scan(file(element(0x00080050, "SH", b"acc ") + opening * 100_000))
    assert list(json.loads(answer.json)) == ["00080050"]
    assert any("deeply" in warning for warning in answer.warnings)


# --- pixel data -----------------------------------------------------------------------------------------------


def test_native_pixel_data_is_always_a_span() -> None:
    answer = part10.scan(file(element(0x7FE00010, "OW", b"\x01\x02") + element(0xFFFCFFFC, "OB", b"\0\0")))
    assert answer.pixel is not None and not answer.pixel.encapsulated
    assert bytes(answer.data[answer.pixel.offset :][: answer.pixel.length]) == b"\x01\x02"
    found = json.loads(answer.json)
    assert found["7FE00010"] == {"vr": "OW", "BulkDataURI": "bulkdata/7FE00010"}
    assert "FFFCFFFC" in found and answer.bulk == ()


def test_encapsulated_pixel_data() -> None:
    table = struct.pack("<2I", 0, 12)
    extended = element(0x7FE00001, "OV", struct.pack("<2Q", 0, 12))
    extended += element(0x7FE00002, "OV", struct.pack("<2Q", 4, 2))
    value = implicit(0xFFFEE000, table) + implicit(0xFFFEE000, b"abcd") + implicit(0xFFFEE000, b"ef") + END
    answer = part10.scan(file(extended + element(0x7FE00010, "OB", value, length=UNDEFINED), JPEG))
    pixel = answer.pixel
    assert pixel is not None and pixel.encapsulated and pixel.vr == "OB"
    assert list(pixel.basic_offset_table) == list(pixel.extended_offset_table) == [0, 12]
    assert list(pixel.extended_offset_table_lengths) == [4, 2]
    assert pixel.fragments[1] == pixel.fragments[-1] == list(pixel.fragments)[1]
    assert pixel.fragments[:1] == (pixel.fragments[0],) and len(pixel.fragments) == 2
    assert [bytes(answer.data[at : at + n]) for at, n in pixel.fragments] == [b"abcd", b"ef"]
    assert bytes(answer.data[pixel.offset :][: pixel.length]) == value
    assert answer.transfer_syntax == JPEG and answer.warnings == ()


def test_damaged_pixel_data_is_taken_with_a_warning() -> None:
    native = part10.scan(file(element(0x7FE00010, "OW", b"\x01\x02", length=100)))
    assert native.pixel is not None and native.pixel.length == 2 and len(native.warnings) == 1
    value = implicit(0xFFFEE000) + implicit(0xFFFEE000, b"abcd", length=100)
    cut = part10.scan(file(element(0x7FE00010, "OB", value, length=UNDEFINED), JPEG))
    assert cut.pixel is not None and [n for _, n in cut.pixel.fragments] == [4]
    assert cut.warnings


def test_what_fragments_take_in_memory_is_bounded() -> None:
    def encapsulated(table: bytes, count: int) -> bytes:
        value = implicit(0xFFFEE000, table) + implicit(0xFFFEE000) * count + END
        return element(0x7FE00010, "OB", value, length=UNDEFINED)

    answer = part10.scan(file(encapsulated(b"", 1 << 20), JPEG))
    assert answer.pixel is not None and len(answer.pixel.fragments) == 1 << 20
    data = file(encapsulated(b"", (1 << 20) + 1) + element(0xFFFCFFFC, "OB", b"\0\0"), JPEG)
    crowded = part10.scan(data)
    assert crowded.pixel is None
    (span,) = crowded.bulk
    assert (span.path, span.vr) == ("7FE00010", "OB")
    assert data[span.offset : span.offset + span.length] == implicit(0xFFFEE000) * ((1 << 20) + 2) + END
    assert list(json.loads(crowded.json)) == ["7FE00010", "FFFCFFFC"]
    assert any("1048576 fragments" in warning for warning in crowded.warnings)
    extended = element(0x7FE00001, "OV", struct.pack("<3Q", 0, 8, 16))
    pixel = part10.scan(file(extended + encapsulated(struct.pack("<3I", 0, 8, 16), 2), JPEG)).pixel
    assert pixel is not None and pixel.basic_offset_table == pixel.extended_offset_table == ()


def test_pixel_data_in_an_item_is_an_ordinary_value() -> None:
    encapsulated = implicit(0xFFFEE000) + implicit(0xFFFEE000, b"abcd")
    icon = element(0x7FE00010, "OB", encapsulated + END, length=UNDEFINED)
    answer = part10.scan(file(element(0x00880200, "SQ", item(icon)), JPEG))
    assert answer.pixel is None
    value = json.loads(answer.json)["00880200"]["Value"][0]["7FE00010"]
    assert value["InlineBinary"] == "/v8A4AAAAAD+/wDgBAAAAGFiY2Q="


# --- files ----------------------------------------------------------------------------------------------------


DATA_SET = element(0x00080018, "UI", b"1.2\0") + element(0x00100020, "LO", b"id")
WANTED = {"00080018": {"vr": "UI", "Value": ["1.2"]}, "00100020": {"vr": "LO", "Value": ["id"]}}
IMPLICIT_SET = implicit(0x00080018, b"1.2\0") + implicit(0x00100020, b"id")
BIG_SET = element(0x00080018, "UI", b"1.2\0", order=">") + element(0x00100020, "LO", b"id", order=">")


@pytest.mark.parametrize(
    ("data", "syntax", "warned"),
    [
        (file(DATA_SET), EXPLICIT, False),
        (file(IMPLICIT_SET, IMPLICIT), IMPLICIT, False),
        (file(BIG_SET, BIG), BIG, False),
        (file(IMPLICIT_SET, EXPLICIT), IMPLICIT, True),
        (file(DATA_SET, IMPLICIT), EXPLICIT, True),
        (file(DATA_SET)[128:], EXPLICIT, False),
        (file(DATA_SET)[132:], EXPLICIT, False),
        (DATA_SET, EXPLICIT, True),
        (IMPLICIT_SET, IMPLICIT, True),
        (BIG_SET, BIG, True),
        (file(DATA_SET, "1.2.840.113619.5.2"), "1.2.840.113619.5.2", True),
        (file(IMPLICIT_SET, "1.2.840.113619.5.2"), "1.2.840.113619.5.2", True),
        (file(BIG_SET, EXPLICIT), BIG, True),
        (file(DATA_SET, BIG), EXPLICIT, True),
        (file(DATA_SET, "1.2.840.10008.1.2.4.94"), "1.2.840.10008.1.2.4.94", False),
        (file(DATA_SET + bytes(100)), EXPLICIT, True),
        (file(DATA_SET + b"\x20\0\x0d"), EXPLICIT, True),
    ],
)
def test_headers(data: bytes, syntax: str, warned: bool) -> None:
    answer = part10.scan(data)
    assert json.loads(answer.json) == WANTED
    assert answer.transfer_syntax == syntax
    assert answer.big_endian == (syntax == BIG)
    assert bool(answer.warnings) == warned
    assert answer.media_storage_sop_instance_uid == ("1.2.3" if b"1.2.3" in data else "")


def test_native_pixel_data_under_an_encapsulated_syntax() -> None:
    answer = part10.scan(file(element(0x7FE00010, "OW", b"\x01\x02"), JPEG))
    assert answer.transfer_syntax == EXPLICIT and len(answer.warnings) == 1


def test_encapsulated_pixel_data_under_a_native_syntax() -> None:
    def encapsulated(frame: bytes) -> part10.Part10:
        value = implicit(0xFFFEE000) + implicit(0xFFFEE000, frame) + END
        return part10.scan(file(element(0x7FE00010, "OB", value, length=UNDEFINED)))

    compressed = encapsulated(b"\xff\x4f\xff\x51\0\x29\0\0" + bytes(40))
    assert compressed.transfer_syntax == "1.2.840.10008.1.2.4.91" and len(compressed.warnings) == 1
    assert encapsulated(b"abcd").transfer_syntax == "1.2.840.10008.1.2.1.98"


def test_a_deflated_file() -> None:
    deflater = zlib.compressobj(wbits=-15)
    deflated = deflater.compress(DATA_SET + element(0x7FE00010, "OB", bytes(100_000))) + deflater.flush()
    data = file(deflated + b"\0", DEFLATED)
    answer = part10.scan(data)
    assert answer.deflated and answer.transfer_syntax == DEFLATED and answer.pixel is not None
    assert answer.data.nbytes == answer.pixel.offset + 100_000
    for broken in (data[:-20], data[:300] + b"\xff" * 50):
        cut = part10.scan(broken)
        assert cut.deflated and cut.transfer_syntax == DEFLATED
        assert json.loads(cut.json).items() <= json.loads(answer.json).items()
        assert any("deflated Data Set" in warning for warning in cut.warnings)


def test_a_deflated_file_with_the_header_of_zlib() -> None:
    answer = part10.scan(file(zlib.compress(DATA_SET), DEFLATED))
    assert answer.deflated and answer.json == part10.scan(file(DATA_SET)).json and answer.warnings == ()


def test_a_file_that_is_called_deflated_and_is_not() -> None:
    answer = part10.scan(file(DATA_SET, DEFLATED))
    assert not answer.deflated and answer.transfer_syntax == EXPLICIT and len(answer.warnings) == 1
    assert answer.json == part10.scan(file(DATA_SET)).json


def test_a_deflated_file_is_not_inflated_beyond_the_limit() -> None:
    deflater = zlib.compressobj(9, wbits=-15)
    data = file(b"".join(deflater.compress(bytes(1 << 20)) for _ in range(300)) + deflater.flush(), DEFLATED)
    tracemalloc.start()
    try:
        answer = part10.scan(data)
        assert any("128 MiB" in warning for warning in answer.warnings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 << 20


@pytest.mark.parametrize("syntax", ["1.2." + "3" * 61, "1.2.x", "../.."])
def test_a_transfer_syntax_that_is_no_uid(syntax: str) -> None:
    answer = part10.scan(file(DATA_SET, syntax))
    assert answer.transfer_syntax == EXPLICIT
    assert len(answer.warnings) == 1 and "Transfer Syntax UID" in answer.warnings[0]


def test_a_geometry_beyond_its_value_representations() -> None:
    described = {
        "00280010": {"vr": "UL", "Value": [1]}, "00280011": {"vr": "US", "Value": [1]},
        "00280100": {"vr": "US", "Value": [8]}, "00280008": {"vr": "IS", "Value": [0]},
    }  # fmt: skip
    found = attributes.geometry(json.dumps(described).encode())
    assert found is not None
    assert found.frames == 1, "no frames at all are one"
    described["00280008"] = {"vr": "IS", "Value": [1 << 31]}
    found = attributes.geometry(json.dumps(described).encode())
    assert found is not None
    assert found.frames == 1
    described["00280010"] = {"vr": "UL", "Value": [1 << 16]}
    assert attributes.geometry(json.dumps(described).encode()) is None


@pytest.mark.parametrize("data", [b"", b"\0", b"no DICOM file, only text\n" * 20, b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_what_is_no_dicom(data: bytes) -> None:
    with pytest.raises(DicomError):
        part10.scan(data)


def test_any_buffer() -> None:
    data = file(DATA_SET)
    answers = [part10.scan(kind(data)) for kind in (bytes, bytearray, memoryview)]  # type: ignore[operator]
    assert len({answer.json for answer in answers}) == 1


# --- text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "encoded", "expected"),
    [
        (b"", b"M\xfcller", "Müller"),
        (b"ISO_IR 100", b"M\xfcller", "Müller"),
        (b"ISO_IR 192", "Müller 漢字 😀".encode(), "Müller 漢字 😀"),
        (b"ISO_IR 192", b"M\xfcller", "M\ufffdller"),
        (b"ISO_IR 192", b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"ISO_IR 144", "Дж".encode("iso8859_5"), "Дж"),
        (b"GB18030", "王\\小东".encode("gb18030").replace(b"\\", b"^"), "王^小东"),
        (b"GBK", "慭".encode("gbk"), "慭"),  # 91 5C: the second byte is that of a backslash
        (b"\\ISO 2022 IR 87", b"Yamada=\x1b$B;3ED\x1b(B", "Yamada=山田"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8\r\n", "김"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8\r\nM\xfcller", "김\r\nMüller"),
        (b"\\ISO 2022 IR 58", b"\x1b$)A\xb5\xda", "第"),
        (b"ISO-IR 100", b"\xfc", "ü"),
        (b"nonsense", b"\xfc", "ü"),
    ],
)
def test_character_sets(terms: bytes, encoded: bytes, expected: str) -> None:
    found = scan(element(0x00080005, "CS", terms) + element(0x00104000, "LT", encoded))
    assert "".join(found["00104000"]["Value"]).strip() == expected
    assert found["00080005"].get("Value", []) == (["ISO_IR 192"] if terms else [])


def test_items_have_a_character_set_of_their_own_or_their_parents() -> None:
    own = item(element(0x00080005, "CS", b"ISO_IR 144") + element(0x00080104, "LO", b"\xb4"))
    inherited = item(element(0x00080104, "LO", b"\xc3\xbc"))
    found = scan(element(0x00080005, "CS", b"ISO_IR 192") + element(0x00081140, "SQ", own + inherited))
    assert [i["00080104"]["Value"] for i in found["00081140"]["Value"]] == [["Д"], ["ü"]]


def test_a_character_set_that_comes_late_still_counts() -> None:
    found = scan(element(0x00100010, "PN", b"\xb4") + element(0x00080005, "CS", b"ISO_IR 144"))
    assert found["00100010"]["Value"] == [{"Alphabetic": "Д"}]


def test_codes_and_dates_are_not_decoded_by_character_set() -> None:
    found = scan(element(0x00080005, "CS", b"ISO_IR 144") + element(0x00080060, "CS", b"\xb4"))
    assert found["00080060"]["Value"] == ["\xb4"]


def test_every_codec_leaves_ascii_alone() -> None:
    ascii_text = bytes(code for code in range(128) if code != 0x1B)
    for term in charset._TERMS:
        _, decode = charset.repertoire(term.encode())
        assert decode(ascii_text) == ascii_text.decode("ascii"), term


# --- reading the JSON back ------------------------------------------------------------------------------------


GEOMETRY = b"".join(
    [
        element(0x00080016, "UI", b"1.2.840\0"),
        element(0x0020000D, "UI", b"1.2\0"),
        element(0x0020000E, "UI", b"1.3\0"),
        element(0x00280004, "CS", b"MONOCHROME2 "),
        element(0x00280010, "US", b"\x02\0"),
        element(0x00280011, "US", b"\x03\0"),
        element(0x00280100, "US", b"\x10\0"),
        element(0x00280101, "US", b"\x0c\0"),
    ]
)


def test_geometry() -> None:
    answer = part10.scan(file(GEOMETRY))
    assert attributes.geometry(answer.json) == FrameGeometry(2, 3, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
    assert attributes.geometry(b"{}") is None
    odd = b'{"00280010":{"vr":"US","Value":["x"]},"00280011":{"vr":"US"},"00280100":{"vr":"UN","InlineBinary":"AA=="}}'
    assert attributes.geometry(odd) is None


def test_uids_and_elements() -> None:
    json_text = part10.scan(file(GEOMETRY)).json
    found = attributes.uids(json_text)
    assert (found.study, found.series, found.instance, found.sop_class) == ("1.2", "1.3", "", "1.2.840")
    elements = attributes.select(json_text, [0x00280010, 0x00100010])
    assert elements == {0x00280010: b'{"vr":"US","Value":[2]}'}


# --- costs ----------------------------------------------------------------------------------------------------


def walks_over_the_same_items(count: int) -> bytes:
    """Values of undefined length, each seeming to be encapsulated until the run of items behind all of them ends."""
    size = 12 + 8 + 8
    values = [
        element(0x00091001, "OB", implicit(0xFFFEE000, length=(count - 1 - n) * size + 8), length=UNDEFINED) + END
        for n in range(count)
    ]
    return b"".join(values) + implicit(0xFFFEE000) * count


@pytest.mark.parametrize(
    "data_set",
    [
        b"".join(element(0x00091000 + n % 997, "UN", b"") for n in range(100_000, 0, -1)),
        element(0x00081140, "SQ", item(b"") * 150_000),
        element(0x7FE00010, "OB", implicit(0xFFFEE000) * 150_000 + END, length=UNDEFINED),
        walks_over_the_same_items(20_000),
        element(0x00091001, "LT", b"\\" * 60_000) * 5,
        element(0x00091001, "CS", b"\\" * 60_000) * 5,
        element(0x00091001, "OB", b"\xfe\xff" * 500_000, length=UNDEFINED),
    ],
    ids=["unordered", "items", "fragments", "walks", "text", "values", "delimiters"],
)
def test_cost_grows_with_the_input_only(data_set: bytes) -> None:
    started = time.thread_time()
    part10.scan(file(data_set))
    assert time.thread_time() - started < 2


def test_a_data_set_of_more_elements_than_there_are_is_read_in_part() -> None:
    many = element(0x00100010, "PN", b"A^B ") + (1 << 18) * element(0x00091001, "CS")
    found = part10.scan(file(many))
    assert any("too many Data Elements" in warning for warning in found.warnings)
    assert json.loads(found.json)["00100010"]["Value"] == [{"Alphabetic": "A^B"}]
    # A sequence with such an item is a value of its own, and what follows is read.
    sequence = element(0x00081140, "SQ", item((1 << 18) * element(0x00091001, "CS")))
    read = scan(sequence + element(0x00100020, "LO", b"1 "))
    assert read["00081140"]["vr"] == "UN" and read["00100020"]["Value"] == ["1"]


def test_other_threads_have_their_turns_while_a_long_data_set_is_scanned() -> None:
    long = file(bytes(32 << 20))
    thread = threading.Thread(target=part10.scan, args=(long,))
    thread.start()
    turns = 0
    while thread.is_alive():
        turns += 1
        time.sleep(0)
    assert turns > 5
