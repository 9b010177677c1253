"""An instance in another Transfer Syntax: what stands behind its pixel data, and what decoding makes meaningless."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pacs import uids
from pacs.archive import Archive
from pacs.errors import UnsupportedTransferSyntaxError

PIXELS = bytes(range(1, 10))
TRAILING = {
    ImplicitVRLittleEndian: b"\xfc\xff\xfc\xff\x04\0\0\0abcd",
    ExplicitVRBigEndian: b"\xff\xfc\xff\xfcOW\0\0\0\0\0\x04badc",
}
PATIENT_NAME = {
    ImplicitVRLittleEndian: b"\x10\0\x10\0\x04\0\0\0Evil",
    ExplicitVRBigEndian: b"\0\x10\0\x10PN\0\x04Evil",
}


def described(syntax: UID) -> Dataset:
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data_set.SOPInstanceUID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "1.2.3", "1.2.1", "1.2.2"
    data_set.PatientName = "Good"
    data_set.Rows = data_set.Columns = 3
    data_set.BitsAllocated = data_set.BitsStored = 8
    data_set.HighBit, data_set.PixelRepresentation, data_set.SamplesPerPixel = 7, 0, 1
    data_set.PhotometricInterpretation = "MONOCHROME2"
    return data_set


def written(data_set: Dataset) -> bytes:
    out = BytesIO()
    pydicom.dcmwrite(out, data_set, enforce_file_format=True)
    return out.getvalue()


def with_pixels(syntax: UID, value: bytes, length: int) -> bytes:
    """A file whose native pixel data is `value`, said to be `length` bytes, with an element behind it."""
    name = b"\xe0\x7f\x10\0" + length.to_bytes(4, "little")
    if syntax == ExplicitVRBigEndian:
        name = b"\x7f\xe0\0\x10OB\0\0" + length.to_bytes(4, "big")
    return written(described(syntax)) + name + value + TRAILING[syntax]


def converted(tmp_path: Path, data: bytes) -> bytes:
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(data)
        assert result.status == "stored", result.error
        entry = archive.instance(result.study, result.series, result.instance)
        return b"".join(archive.part10_explicit(entry))


@pytest.mark.parametrize("syntax", TRAILING)
@pytest.mark.parametrize("surplus", ["pad", "no pad", "zeros", "an element"])
def test_what_is_behind_the_frames_is_not_taken_for_elements(tmp_path: Path, syntax: UID, surplus: str) -> None:
    rest = {"pad": b"\0", "no pad": b"", "zeros": bytes(7), "an element": b"\0" + PATIENT_NAME[syntax]}[surplus]
    value = PIXELS + rest
    read = pydicom.dcmread(BytesIO(converted(tmp_path, with_pixels(syntax, value, len(value)))))
    assert read.PixelData == PIXELS + b"\0"
    assert read.PatientName == "Good"
    assert read[0xFFFCFFFC].value == b"abcd"


def test_elements_of_a_deflated_file_stay_in_order(tmp_path: Path) -> None:
    data_set = described(DeflatedExplicitVRLittleEndian)
    data_set.PixelData = PIXELS + b"\0"
    data_set["PixelData"].VR = "OB"
    data_set.add_new(0xFFFCFFFC, "OB", b"abcd")
    data = converted(tmp_path, written(data_set))
    assert data.index(PIXELS) < data.index(b"\xfc\xff\xfc\xff")
    assert pydicom.dcmread(BytesIO(data))[0xFFFCFFFC].value == b"abcd"


def test_decoded_frames_have_no_offset_table(tmp_path: Path) -> None:
    frames = [np.full(10, number, np.uint8).tobytes() for number in range(2)]
    data_set = described(UID(uids.ENCAPSULATED_UNCOMPRESSED))
    data_set.NumberOfFrames = 2
    data_set.PixelData, data_set.ExtendedOffsetTable, data_set.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    read = pydicom.dcmread(BytesIO(converted(tmp_path, written(data_set))))
    assert "ExtendedOffsetTable" not in read
    assert read.pixel_array.tolist() == [[[number] * 3] * 3 for number in range(2)]


@pytest.mark.parametrize("name", ["rtdose_rle.dcm", "rtdose_rle_1frame.dcm", "SC_rgb_rle_32bit.dcm"])
def test_frames_of_32_bits(tmp_path: Path, name: str) -> None:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    read = pydicom.dcmread(BytesIO(converted(tmp_path, Path(path).read_bytes())))
    expected = pydicom.dcmread(path)
    assert read.file_meta.TransferSyntaxUID == uids.EXPLICIT_VR_LITTLE_ENDIAN
    assert np.array_equal(read.pixel_array, expected.pixel_array)


@pytest.mark.parametrize("name", ["rle/liver_rle", "j2k-lossless/liver_j2k", "deflated-image-frame/liver_deflate"])
def test_frames_of_1_bit(shared_data: Path, tmp_path: Path, name: str) -> None:
    data = converted(tmp_path, (shared_data / "transfer-syntax" / f"{name}.dcm").read_bytes())
    original = pydicom.dcmread(shared_data / "non-image" / "seg" / "liver.dcm")
    assert pydicom.dcmread(BytesIO(data)).PixelData == original.PixelData


def test_frames_of_1_bit_follow_without_a_gap(tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 2, (5, 9), np.uint8)
    data_set = described(UID(uids.ENCAPSULATED_UNCOMPRESSED))
    data_set.NumberOfFrames, data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = 5, 1, 1, 0
    data_set.PixelData = encapsulate([np.packbits(frame, bitorder="little").tobytes() for frame in frames])
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    read = pydicom.dcmread(BytesIO(converted(tmp_path, written(data_set))))
    assert read.PixelData == np.packbits(frames, bitorder="little").tobytes()


def test_a_frame_of_32_bits_by_plane(tmp_path: Path) -> None:
    planes = np.arange(27, dtype="<u4")
    data_set = described(UID(uids.ENCAPSULATED_UNCOMPRESSED))
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = 32, 32, 31
    data_set.SamplesPerPixel, data_set.PlanarConfiguration, data_set.PhotometricInterpretation = 3, 1, "RGB"
    data_set.PixelData = encapsulate([planes.tobytes()])
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    assert pydicom.dcmread(BytesIO(converted(tmp_path, written(data_set)))).PixelData == planes.tobytes()


@pytest.mark.parametrize("name", ["ExplVR_LitEndNoMeta.dcm", "20-wrong-transfer-syntax.dcm"])
def test_a_file_without_the_right_meta_information_gets_it(shared_data: Path, tmp_path: Path, name: str) -> None:
    received = (shared_data / "malformed" / name).read_bytes()
    data = converted(tmp_path, received)
    read, original = pydicom.dcmread(BytesIO(data)), pydicom.dcmread(BytesIO(received), force=True)
    assert data[128:132] == b"DICM"
    assert read.file_meta.TransferSyntaxUID == uids.EXPLICIT_VR_LITTLE_ENDIAN
    assert read.file_meta.MediaStorageSOPInstanceUID == original.SOPInstanceUID
    assert read.get("PixelData") == original.get("PixelData")
    assert [element.tag for element in read] == [element.tag for element in original if element.tag.element]


@pytest.mark.parametrize("beginning", ["preamble", "prefix alone", "meta alone", "wrong syntax", "nothing"])
def test_a_proper_beginning(tmp_path: Path, beginning: str) -> None:
    data_set = described(ExplicitVRLittleEndian)
    data_set.PixelData = PIXELS + b"\0"
    data_set["PixelData"].VR = "OB"
    whole = written(data_set)
    meta = 132 + 12 + int.from_bytes(whole[140:144], "little")
    received = {
        "preamble": whole,
        "prefix alone": whole[128:],
        "meta alone": whole[132:],
        "wrong syntax": whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"),
        "nothing": whole[meta:],
    }[beginning]
    data = converted(tmp_path, received)
    assert (data == received) is (beginning == "preamble")
    assert data[128:132] == b"DICM"
    read = pydicom.dcmread(BytesIO(data))
    assert read.file_meta.TransferSyntaxUID == uids.EXPLICIT_VR_LITTLE_ENDIAN
    assert read.PatientName == "Good" and read.PixelData == PIXELS + b"\0"


def test_fragments_that_are_no_frames_cannot_be_decoded(tmp_path: Path) -> None:
    data_set = described(UID(uids.ENCAPSULATED_UNCOMPRESSED))
    data_set.NumberOfFrames = 3
    data_set.PixelData = b"\xfe\xff\0\xe0\0\0\0\0"
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    with pytest.raises(UnsupportedTransferSyntaxError, match=r"3 frames .* 0 fragments"):
        converted(tmp_path, written(data_set))
