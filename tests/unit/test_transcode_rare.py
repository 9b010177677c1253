"""Streams under Transfer Syntaxes that hardly anybody sends: JPEG 2000 Part 2 (T.801), retired processes of JPEG."""

from __future__ import annotations

import base64

import imagecodecs
import libjpeg
import numpy as np
import pytest

from pacs import codestream, transcode, uids
from pacs.errors import PixelError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry

GRAY = FrameGeometry(24, 24, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
SAMPLES = np.random.default_rng(2).integers(0, 4096, (24, 24)).astype(np.uint16)
PART_2 = (uids.JPEG_2000_PART_2_LOSSLESS, uids.JPEG_2000_PART_2)


def part_1() -> bytearray:
    return bytearray(imagecodecs.jpeg2k_encode(SAMPLES, level=0, codecformat="J2K", reversible=True, bitspersample=12))


def at_segment(stream: bytes, marker: int) -> int:
    """Where the contents of a segment of the main header begin."""
    return bytes(stream).index(b"\xff" + bytes([marker])) + 4


@pytest.mark.parametrize("profile", [0x0000, 0x8000])
@pytest.mark.parametrize("syntax", PART_2)
def test_streams_of_part_1_are_decoded(syntax: str, profile: int) -> None:
    stream = part_1()
    stream[6:8] = profile.to_bytes(2, "big")
    assert codestream.parse(stream).profile == profile
    assert np.array_equal(transcode.decode_frame(stream, GRAY, syntax), SAMPLES)
    small = transcode.decode_reduced(stream, GRAY, syntax, 1)
    assert small.shape == (12, 12)
    offered = {rendition.transfer_syntax for rendition in transcode.renditions(syntax, GRAY)}
    assert offered == {syntax, *transcode.table.NATIVE, *transcode.table.TARGETS} - {uids.JPEG_BASELINE}


def part_2() -> dict[str, bytearray]:
    """Streams that name an extension, by what the refusal says. The rest of each is Part 1."""
    found = {}
    for capability in (0x8100, 0x8001, 0xA000):
        found[f"Rsiz {capability:04X}"] = part_1()
        found[f"Rsiz {capability:04X}"][6:8] = capability.to_bytes(2, "big")
    names = {0x70: "DCO", 0x72: "DFS", 0x74: "MCT", 0x75: "MCC", 0x76: "NLT", 0x77: "MCO", 0x78: "CBD", 0x79: "ATK"}
    for marker, name in names.items():
        stream = part_1()
        stream[6:8] = b"\x80\0"
        sot = bytes(stream).index(b"\xff\x90")
        stream[sot:sot] = bytes((0xFF, marker, 0, 4, 0, 0))
        found[name] = stream
    in_tile = part_1()
    sot = bytes(in_tile).index(b"\xff\x90")
    in_tile[sot + 12 : sot + 12] = b"\xff\x79\0\4\0\0"
    in_tile[sot + 6 : sot + 10] = (int.from_bytes(in_tile[sot + 6 : sot + 10], "big") + 6).to_bytes(4, "big")
    found["Part 2: ATK"] = in_tile
    for name, marker, place, value in (
        ("multiple component transform", 0x52, 4, 2), ("wavelet transform", 0x52, 9, 2), ("Scod", 0x52, 0, 0x08),
        ("quantization", 0x5C, 0, 0x49),
    ):  # fmt: skip
        found[name] = part_1()
        found[name][at_segment(found[name], marker) + place] = value
    sot = bytes(part_1()).index(b"\xff\x90")
    for name, segment in (
        ("region of interest", b"\xff\x5e\0\5\0\1\0"), ("Part 2: wavelet transform", b"\xff\x53\0\x09\0\0\5\4\4\0\2"),
    ):  # fmt: skip
        found[name] = part_1()
        found[name][sot:sot] = segment
    return found


@pytest.mark.parametrize("name", part_2())
def test_extensions_of_part_2_are_refused(name: str) -> None:
    """OpenJPEG passes over most of them. Whatever the label says."""
    for syntax in (*PART_2, uids.JPEG_2000):
        with pytest.raises(PixelError, match=name):
            transcode.decode_frame(part_2()[name], GRAY, syntax)


def test_packets_of_part_2_are_not_moved_under_another_label() -> None:
    """.201 becomes .202 without being decoded: what no decoder here takes is refused all the same."""
    stream = transcode.encode_frame(SAMPLES, GRAY).codestream
    assert transcode.as_rpcl(stream, GRAY)
    sot = stream.index(b"\xff\x90")
    assert transcode.as_rpcl(stream[:sot] + b"\xff\x76\0\6\0\0\0\0" + stream[sot:], GRAY) is None
    assert transcode.as_rpcl(stream[:6] + b"\xc0\1" + stream[8:], GRAY) is None


RETIRED = {
    # cjpeg -quality 60 -grayscale, with -arithmetic, -progressive, and both.
    "52": (
        0xC9,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
        "UlNSMj5aYVpQYEpRUk//yQALCAAYABgBAREA/8wABgAQEAX/2gAIAQEAAD8A0jNvMZdOrWbxVSOx4QAKN4XI6p/noTKxh5EQ/Z4H"
        "0KjuYBzKIBUzPeTP8B0IYjgyT1I95HYth5ezyImryo+7tlfEHbBukioSgP/Z",
    ),
    "55": (
        0xC2,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
        "UlNSMj5aYVpQYEpRUk//wgALCAAYABgBAREA/8QAGAAAAwEBAAAAAAAAAAAAAAAAAgQGAQX/2gAIAQEAAAABeKabx/iBWf/EABsQ"
        "AAICAwEAAAAAAAAAAAAAAAIDAAEREjEE/9oACAEBAAEFAklinHmnBmyZrBbtBVtPR1HUc//EABQQAQAAAAAAAAAAAAAAAAAAADD/"
        "2gAIAQEABj8CH//EABcQAQEBAQAAAAAAAAAAAAAAABEAASH/2gAIAQEAAT8hz7WF7c54zhipY1ljS28Lf//aAAgBAQAAABB//wD/"
        "xAAYEAEBAQEBAAAAAAAAAAAAAAABABExIf/aAAgBAQABPxA6KWAnJIidhjJNmtgBa2T6Ow/Z2L4OX//Z",
    ),
    "56": (
        0xCA,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
        "UlNSMj5aYVpQYEpRUk//ygALCAAYABgBAREA/8wABAAQ/9oACAEBAAAAAdGDDUPaiKta9TC3/8wABBAF/9oACAEBAAEFAhN7V356"
        "I9zaVmcaUjTbtJBe4P/MAAQQBf/aAAgBAQAGPwLA/8wABBAF/9oACAEBAAE/IfqhlnN3lghMjlRfe2immv/aAAgBAQAAABAegP/M"
        "AAQQBf/aAAgBAQABPxD0ctXSLQb/AHdelTp5kvuhkk7B+eK2/9k=",
    ),
}


@pytest.mark.parametrize("number", RETIRED)
def test_retired_processes_of_jpeg(number: str) -> None:
    """As another implementation than libjpeg-turbo decodes them: within its rounding of the DCT."""
    marker, text = RETIRED[number]
    stream = base64.b64decode(text)
    assert bytes((0xFF, marker, 0)) in stream
    geometry = FrameGeometry(24, 24, 1, 8, 8, 7, 0, 0, "MONOCHROME2", 1)
    found = transcode.decode_frame(stream, geometry, f"1.2.840.10008.1.2.4.{number}")
    assert np.abs(found.astype(int) - libjpeg.decode(stream)).max() <= 1 and np.ptp(found) > 200


@pytest.mark.parametrize("number", [58, *range(59, 67)])
def test_hierarchical_processes_and_arithmetic_lossless_are_left(number: int) -> None:
    syntax = f"1.2.840.10008.1.2.4.{number}"
    with pytest.raises(UnsupportedTransferSyntaxError):
        transcode.decode_frame(b"\xff\xd8", GRAY, syntax)
    assert [rendition.kind for rendition in transcode.renditions(syntax, GRAY)] == ["stored"]


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_a_jpeg_inside_jpeg_xl_has_the_colours_its_data_set_names(photometric: str) -> None:
    """The decoder undoes the colour transform whatever the Data Set says. PS3.5 8.2.15"""
    rows, columns = np.mgrid[0:48, 0:64]
    picture = np.stack((rows * 5, columns * 4, 255 - rows * 3), axis=-1).astype(np.uint8)
    jpeg = imagecodecs.jpeg_encode(picture, level=95, subsampling="444")
    stream = imagecodecs.jpegxl_encode_jpeg(jpeg, usecontainer=False)
    geometry = FrameGeometry(48, 64, 3, 8, 8, 7, 0, 0, photometric, 1)
    found = transcode.decode_frame(stream, geometry, uids.JPEG_XL_RECOMPRESSION).astype(int)
    expected = imagecodecs.jpeg8_decode(jpeg, outcolorspace="RGB" if photometric == "RGB" else "YCBCR")
    assert np.abs(found - expected).max() <= 3
