"""An instance in another Transfer Syntax: what stands behind its pixel data, and what decoding makes meaningless."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames, parse_basic_offsets
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pacs import rewriting, uids
from pacs.archive import Archive
from pacs.errors import UnsupportedTransferSyntaxError
from pacs.renditions import available
from pacs.rewriting import pixel_data

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
        return b"".join(archive.renditions().instance(entry, uids.EXPLICIT_VR_LITTLE_ENDIAN).pieces)


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


@pytest.mark.parametrize(
    "odd",
    [b"", b"\x51\0\x10\0OB\0\0\xff\xff\xff\xffraw!\xfe\xff\xdd\xe0\0\0\0\0"],
    ids=["", "no items in what has no length"],
)
@pytest.mark.parametrize("behind", [b"", b"\xfe\xff\xdd\xe0\0\0\0\0\xfc\xff\xfc\xffOB\0\0\4\0\0\0abcd"])
def test_what_is_behind_the_fragments_stays(tmp_path: Path, odd: bytes, behind: bytes) -> None:
    source = described(UID(uids.ENCAPSULATED_UNCOMPRESSED))
    fragments, source.ExtendedOffsetTable, source.ExtendedOffsetTableLengths = encapsulate_extended([PIXELS + b"\0"])
    data = written(source) + odd + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + fragments + behind
    read = pydicom.dcmread(BytesIO(converted(tmp_path, data)))
    assert (read.PixelData, read.PatientName) == (PIXELS + b"\0", "Good")
    assert "ExtendedOffsetTable" not in read and (0x00510010 in read) is bool(odd)
    assert (0xFFFCFFFC in read) is bool(behind)
    assert not behind or read[0xFFFCFFFC].value == b"abcd"


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


# --- other Transfer Syntaxes


def rewritten(tmp_path: Path, data: bytes, syntax: str, quality: float | None = None) -> Dataset:
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(data)
        assert result.status in ("stored", "duplicate"), result.error
        entry = archive.instance(result.study, result.series, result.instance)
        file = b"".join(archive.renditions().instance(entry, syntax, quality).pieces)
    return pydicom.dcmread(BytesIO(file))


def offered(tmp_path: Path, data: bytes) -> tuple[str, ...]:
    """The Transfer Syntaxes that the instance is said to be at hand in."""
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(data)
        assert result.status in ("stored", "duplicate"), result.error
        return available.of_instance(archive.instance(result.study, result.series, result.instance))


def picture(**more: object) -> Dataset:
    """A smooth colour image of 8 bits."""
    data_set = described(ExplicitVRLittleEndian)
    rows, columns = np.indices((40, 50))
    samples = np.stack([4 * rows, 3 * columns, 2 * rows + columns], axis=-1).astype(np.uint8)
    data_set.Rows, data_set.Columns, data_set.SamplesPerPixel = 40, 50, 3
    data_set.PhotometricInterpretation, data_set.PlanarConfiguration = "RGB", 0
    data_set.PixelData = samples.tobytes()
    data_set["PixelData"].VR = "OB"
    for keyword, value in more.items():
        setattr(data_set, keyword, value)
    return data_set


def test_a_lossy_copy_is_a_derived_image(tmp_path: Path) -> None:
    source = picture(ImageType=["ORIGINAL", "PRIMARY", "X"], SmallestImagePixelValue=3, DerivationDescription="cut")
    data = written(source)
    found = [rewritten(tmp_path, data, uids.HTJ2K, quality) for quality in (45, 45, 50)]
    first = found[0]
    assert first.SOPInstanceUID == found[1].SOPInstanceUID != source.SOPInstanceUID
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert first.ImageType == ["DERIVED", "PRIMARY", "X"]
    assert first.LossyImageCompression == "01" and first.LossyImageCompressionMethod == "ISO_15444_15"
    assert first.PhotometricInterpretation == "YBR_ICT"
    [frame] = generate_frames(first.PixelData, number_of_frames=1)
    assert first.LossyImageCompressionRatio == pytest.approx(40 * 50 * 3 / len(frame), rel=0.02)
    assert first.DerivationDescription.startswith("cut; Lossy compression with High-Throughput JPEG 2000")
    [reference] = first.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == "1.2.3"
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121320"
    assert "SmallestImagePixelValue" not in first
    assert found[2].SOPInstanceUID != first.SOPInstanceUID  # another quality is another image
    assert rewritten(tmp_path, data, uids.JPEG_2000_LOSSLESS).SOPInstanceUID == "1.2.3"


@pytest.mark.parametrize(
    ("before", "ratios", "methods"),
    [
        ({"LossyImageCompressionRatio": 8, "LossyImageCompressionMethod": "ISO_10918_1"}, 2, ["ISO_10918_1"]),
        ({"LossyImageCompressionRatio": [8, 4]}, 3, ["", ""]),
        ({"LossyImageCompressionMethod": "ISO_14495_1"}, 2, ["ISO_14495_1"]),
        ({}, 1, []),
    ],
)
def test_what_was_lossy_before_stays_told(
    tmp_path: Path, before: dict[str, object], ratios: int, methods: list[str]
) -> None:
    found = rewritten(tmp_path, written(picture(LossyImageCompression="01", **before)), uids.JPEG_BASELINE)
    said = found.LossyImageCompressionMethod
    assert [said] if isinstance(said, str) else list(said) == [*methods, "ISO_10918_1"]
    counted = found.LossyImageCompressionRatio
    assert (len(counted) if hasattr(counted, "__len__") else 1) == ratios
    assert found.PhotometricInterpretation == "YBR_FULL_422"


def test_decoding_a_lossy_image_does_not_make_it_lossless(shared_data: Path, tmp_path: Path) -> None:
    name = "transfer-syntax/jpeg-baseline/JPEGBaseline_1s_1f_u_08_08.dcm"
    source = pydicom.dcmread(shared_data / name)
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in source:
            del source[keyword]
    source.StudyInstanceUID = source.SeriesInstanceUID = "1.2.9"
    data = written(source)
    for syntax in (uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.HTJ2K_LOSSLESS_RPCL, uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN):
        found = rewritten(tmp_path, data, syntax)
        assert (found.LossyImageCompression, found.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
        assert found.SOPInstanceUID == source.SOPInstanceUID


@pytest.mark.parametrize(
    "sop_class", ["1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.2"]
)
def test_labels_and_doses_are_never_made_lossy(tmp_path: Path, sop_class: str) -> None:
    data_set = described(ExplicitVRLittleEndian)
    data_set.SOPClassUID = sop_class
    data_set.PixelData = PIXELS + b"\0"
    data_set["PixelData"].VR = "OB"
    data = written(data_set)
    found = offered(tmp_path, data)
    assert uids.JPEG_2000 in found and uids.JPEG_BASELINE not in found
    for syntax in found:
        assert rewritten(tmp_path, data, syntax).SOPInstanceUID == "1.2.3"
    # A stream without loss is valid under the label of the lossy kind, and a quality changes nothing.
    for syntax in (uids.HTJ2K, uids.JPEG_2000):
        same = rewritten(tmp_path, data, syntax, quality=20)
        assert same.SOPInstanceUID == "1.2.3" and "LossyImageCompression" not in same
        assert np.array_equal(same.pixel_array, data_set.pixel_array)


def test_what_pydicom_cannot_write_is_said_in_a_line(tmp_path: Path, shared_data: Path) -> None:
    damaged = (shared_data / "malformed/GH179A.dcm").read_bytes()
    with pytest.raises(UnsupportedTransferSyntaxError, match="0028,0120") as refused:
        rewritten(tmp_path, damaged, uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert "\n" not in refused.value.message and ".py" not in refused.value.message


def test_an_overlay_in_unused_bits_is_not_lost_silently(tmp_path: Path) -> None:
    source = described(ExplicitVRLittleEndian)
    source.BitsAllocated, source.BitsStored, source.HighBit = 16, 12, 11
    source.PixelData = (np.arange(9, dtype=np.uint16) | 0x8000 * (np.arange(9) % 2).astype(np.uint16)).tobytes()
    source["PixelData"].VR = "OW"
    for element, vr, value in (
        (0x0010, "US", 3), (0x0011, "US", 3), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]), (0x0100, "US", 16),
        (0x0102, "US", 15),
    ):  # fmt: skip
        source.add_new((0x6000, element), vr, value)
    data = written(source)
    with pytest.raises(UnsupportedTransferSyntaxError, match="overlays"):
        rewritten(tmp_path, data, uids.JPEG_2000_LOSSLESS)
    assert offered(tmp_path, data) == rewriting.NATIVE
    assert rewritten(tmp_path, data, uids.IMPLICIT_VR_LITTLE_ENDIAN).PixelData[:18] == source.PixelData[:18]
    source.add_new((0x6000, 0x3000), "OW", b"\xaa\1")  # with data of its own it goes along
    source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1"
    assert rewritten(tmp_path, written(source), uids.JPEG_2000_LOSSLESS)[0x60003000].value == b"\xaa\1"
    assert uids.JPEG_2000_LOSSLESS in offered(tmp_path, written(source))


def test_an_encapsulated_icon_goes_where_its_transfer_syntax_goes(tmp_path: Path) -> None:
    frame = np.full(10, 7, np.uint8).tobytes()
    source = described(UID(uids.ENCAPSULATED_UNCOMPRESSED))
    source.PixelData = encapsulate([frame])
    icon = described(ExplicitVRLittleEndian)
    del icon.file_meta, icon.SOPInstanceUID
    icon.PixelData = encapsulate([frame])
    for data_set in (source, icon):
        data_set["PixelData"].VR = "OB"
        data_set["PixelData"].is_undefined_length = True
    source.IconImageSequence = [icon]
    assert "IconImageSequence" not in rewritten(tmp_path, written(source), uids.EXPLICIT_VR_LITTLE_ENDIAN)
    icon.PixelData = frame
    icon["PixelData"].is_undefined_length = False
    source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1"
    kept = rewritten(tmp_path, written(source), uids.JPEG_LS_LOSSLESS)
    assert kept.IconImageSequence[0].PixelData == frame


def test_planes_become_pixels_and_palettes_stay(tmp_path: Path) -> None:
    planes = picture(PlanarConfiguration=1)
    samples = np.frombuffer(planes.PixelData, np.uint8).reshape(40, 50, 3)
    planes.PixelData = np.ascontiguousarray(samples.transpose(2, 0, 1)).tobytes()
    planes["PixelData"].VR = "OB"
    for syntax, photometric in ((uids.JPEG_2000_LOSSLESS, "YBR_RCT"), (uids.JPEG_LS_LOSSLESS, "RGB")):
        found = rewritten(tmp_path, written(planes), syntax)
        assert (found.PhotometricInterpretation, found.PlanarConfiguration) == (photometric, 0)
        assert np.array_equal(found.pixel_array, samples)
    palette = described(ExplicitVRLittleEndian)
    palette.SOPInstanceUID = "1.2.3.2"
    palette.PhotometricInterpretation = "PALETTE COLOR"
    palette.PixelData = PIXELS + b"\0"
    palette["PixelData"].VR = "OB"
    for name in ("Red", "Green", "Blue"):
        setattr(palette, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(palette, f"{name}PaletteColorLookupTableData", bytes(range(8)))
    found = rewritten(tmp_path, written(palette), uids.JPEG_2000_LOSSLESS)
    assert found.PhotometricInterpretation == "PALETTE COLOR" and "PlanarConfiguration" not in found
    assert found.RedPaletteColorLookupTableData == bytes(range(8))
    assert found.pixel_array.tobytes() == PIXELS


def test_offset_tables() -> None:
    head, length = pixel_data.encapsulated_head([3, 4, 5])
    frames = {1: b"abc", 2: b"defg", 3: b"hijkl"}
    element = head + b"".join(pixel_data.fragments(3, frames.__getitem__))
    assert len(element) == length
    read = pydicom.dcmread(BytesIO(written(described(UID(uids.JPEG_LS_LOSSLESS))) + element))
    assert parse_basic_offsets(read.PixelData) == [0, 12, 24]
    assert list(generate_frames(read.PixelData, number_of_frames=3)) == [b"abc\0", b"defg", b"hijkl\0"]
    unknown, length = pixel_data.encapsulated_head(None)
    assert length is None
    read = pydicom.dcmread(
        BytesIO(
            written(described(UID(uids.JPEG_LS_LOSSLESS)))
            + unknown
            + b"".join(pixel_data.fragments(3, frames.__getitem__))
        )
    )
    assert parse_basic_offsets(read.PixelData) == []
    assert list(generate_frames(read.PixelData, number_of_frames=3)) == [b"abc\0", b"defg", b"hijkl\0"]


def test_beyond_4_gib_the_extended_offset_table() -> None:
    lengths = [(3 << 30) + 1, 5, 7]
    head, length = pixel_data.encapsulated_head(lengths)
    assert length == len(head) + (3 << 30) + 2 + 6 + 8 + 3 * 8 + 8
    file = written(described(UID(uids.JPEG_LS_LOSSLESS))) + head + b"\xfe\xff\xdd\xe0\0\0\0\0"
    read = pydicom.dcmread(BytesIO(file))
    assert "ExtendedOffsetTable" not in read  # the Basic one still counts so far
    head, _ = pixel_data.encapsulated_head([*lengths, (2 << 30), 2, 9])
    file = written(described(UID(uids.JPEG_LS_LOSSLESS))) + head + b"\xfe\xff\xdd\xe0\0\0\0\0"
    read = pydicom.dcmread(BytesIO(file))
    offsets = np.frombuffer(read.ExtendedOffsetTable, "<u8").tolist()
    assert offsets[:3] == [0, (3 << 30) + 10, (3 << 30) + 24] and offsets[-1] > 0xFFFFFFFF
    assert np.frombuffer(read.ExtendedOffsetTableLengths, "<u8").tolist() == [*lengths, 2 << 30, 2, 9]
    assert parse_basic_offsets(read.PixelData) == []


def test_native_pixel_data_beyond_4_gib_is_refused() -> None:
    with pytest.raises(UnsupportedTransferSyntaxError):
        pixel_data.native_head(0x7FE00010, (1 << 32) - 1, 16, implicit=False)


def functional_groups(count: int, *, implicit: bool) -> bytes:
    """Per-frame Functional Groups Sequence, its own length and every other item's undefined, the others' known."""
    long = b"" if implicit else b"SQ\0\0"
    value = b"\x20\0\x32\0" + (b"\4\0\0\0" if implicit else b"DS\4\0") + b"1\\2 "
    inner = b"\xfe\xff\0\xe0" + len(value).to_bytes(4, "little") + value
    inside = b"\x20\0\x13\x91" + long + len(inner).to_bytes(4, "little") + inner
    known = b"\xfe\xff\0\xe0" + len(inside).to_bytes(4, "little") + inside
    unknown = b"\xfe\xff\0\xe0\xff\xff\xff\xff" + inside + b"\xfe\xff\x0d\xe0\0\0\0\0"
    items = b"".join(unknown if number % 2 else known for number in range(count))
    return b"\0\x52\x30\x92" + long + b"\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.mark.parametrize(
    ("arrival", "syntax"),
    [
        (ImplicitVRLittleEndian, uids.EXPLICIT_VR_LITTLE_ENDIAN),
        (ImplicitVRLittleEndian, uids.HTJ2K),
        (UID(uids.ENCAPSULATED_UNCOMPRESSED), uids.EXPLICIT_VR_LITTLE_ENDIAN),
        (UID(uids.ENCAPSULATED_UNCOMPRESSED), uids.IMPLICIT_VR_LITTLE_ENDIAN),
        (UID(uids.ENCAPSULATED_UNCOMPRESSED), uids.HTJ2K),
    ],
)
def test_functional_groups_never_become_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrival: UID, syntax: str
) -> None:
    count = 3000
    source = described(arrival)
    implicit = arrival == ImplicitVRLittleEndian
    head = written(source) + functional_groups(count, implicit=implicit)
    pixels = b"\xe0\x7f\x10\0\x0a\0\0\0" + PIXELS + b"\0"
    if not implicit:
        fragments = encapsulate([PIXELS + b"\0"])
        pixels = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + fragments + b"\xfe\xff\xdd\xe0\0\0\0\0"
    made = 0
    begin = Dataset.__init__

    def counted(self: Dataset, *args: object, **named: object) -> None:
        nonlocal made
        made += 1
        begin(self, *args, **named)

    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(head + pixels)
        assert result.status == "stored", result.error
        entry = archive.instance(result.study, result.series, result.instance)
        with monkeypatch.context() as patched:
            patched.setattr(Dataset, "__init__", counted)
            file = b"".join(archive.renditions().instance(entry, syntax, 50).pieces)
    assert 0 < made < 50
    assert functional_groups(count, implicit=syntax == uids.IMPLICIT_VR_LITTLE_ENDIAN) in file
    read = pydicom.dcmread(BytesIO(file))
    assert len(read.PerFrameFunctionalGroupsSequence) == count
    assert "PixelData" in read and read.PatientName == "Good"


def test_a_source_image_is_added_to_those_of_an_unknown_representation(tmp_path: Path) -> None:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3.4"
    data = written(picture(SourceImageSequence=[item]))
    found = rewritten(tmp_path, data.replace(b"\x08\0\x12\x21SQ", b"\x08\0\x12\x21UN"), uids.HTJ2K, 45)
    assert [image.ReferencedSOPInstanceUID for image in found.SourceImageSequence] == ["1.2.3.4", "1.2.3"]


@pytest.mark.parametrize("undefined", [True, False])
def test_a_source_image_is_added_to_those_that_are_there(tmp_path: Path, undefined: bool) -> None:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3.4"
    source = picture(SourceImageSequence=[item], SpecificCharacterSet="ISO_IR 100", DerivationDescription="Gr\xf6\xdfe")
    source["SourceImageSequence"].is_undefined_length = undefined
    source.SourceImageSequence[0].is_undefined_length_sequence_item = undefined
    found = rewritten(tmp_path, written(source), uids.HTJ2K, 45)
    assert [image.ReferencedSOPInstanceUID for image in found.SourceImageSequence] == ["1.2.3.4", "1.2.3"]
    assert found["SourceImageSequence"].is_undefined_length is undefined
    assert found.DerivationDescription.startswith("Gr\xf6\xdfe; Lossy")
    assert found.DerivationCodeSequence[0].CodeValue == "113040"


def test_a_damaged_file_of_many_items_is_not_rewritten(tmp_path: Path) -> None:
    # A Value Representation that does not exist: whether its length has two bytes or four cannot be known.
    data = written(described(ExplicitVRLittleEndian)) + functional_groups(9000, implicit=False)
    data += b"\x00\x60\x10\0ZZ\2\0ab"
    with pytest.raises(UnsupportedTransferSyntaxError, match="18000 items"):
        rewritten(tmp_path, data, uids.IMPLICIT_VR_LITTLE_ENDIAN)


def test_zeros_behind_the_data_set_are_no_element(tmp_path: Path) -> None:
    found = rewritten(tmp_path, written(described(ImplicitVRLittleEndian)) + bytes(30), uids.EXPLICIT_VR_LITTLE_ENDIAN)
    assert found.PatientName == "Good" and 0 not in found


@pytest.mark.parametrize("syntax", [uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN])
def test_a_deflated_file_is_recoded_as_others_are(tmp_path: Path, syntax: str) -> None:
    source = described(DeflatedExplicitVRLittleEndian)
    source.PixelData = PIXELS + b"\0"
    source["PixelData"].VR = "OB"
    source.add_new(0x00090010, "LO", "ACME")
    source.add_new(0x00091001, "UN", b"secret")
    found = rewritten(tmp_path, written(source), syntax)
    assert found.PixelData == PIXELS + b"\0" and found[0x00091001].value == b"secret"


def test_more_elements_than_there_are_tags_for_are_not_rewritten(tmp_path: Path) -> None:
    data = written(described(ImplicitVRLittleEndian)) + b"\x51\0\x10\0\0\0\0\0" * (1 << 17)
    with pytest.raises(UnsupportedTransferSyntaxError, match="more than 131072 Data Elements"):
        rewritten(tmp_path, data, uids.EXPLICIT_VR_LITTLE_ENDIAN)
