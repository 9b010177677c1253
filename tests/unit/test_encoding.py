"""Which plan an instance's native pixel data is stored by, and that frames are right whatever the plan."""

from __future__ import annotations

import contextlib
from io import BytesIO
from pathlib import Path
from typing import NoReturn

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from pacs import encoding, ingest, uids
from pacs.archive import Archive
from pacs.errors import NotFoundError, StorageError, UnsupportedTransferSyntaxError
from pacs.storage.model import ArrayKey, Encoding, Span
from tests.objects import fragmentation

SYNTAXES = (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)


def file(frames: list[bytes], *, side: int, bits: int, stored: int, signed: bool = False, syntax: UID) -> bytes:
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data_set.SOPInstanceUID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "1.2.3", "1.2.1", "1.2.2"
    data_set.Rows = data_set.Columns = side
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = bits, stored, stored - 1
    data_set.PixelRepresentation, data_set.SamplesPerPixel = int(signed), 1
    data_set.PhotometricInterpretation, data_set.NumberOfFrames = "MONOCHROME2", len(frames)
    data_set.PixelData = b"".join(frames)
    data_set["PixelData"].VR = "OW"
    out = BytesIO()
    pydicom.dcmwrite(out, data_set, enforce_file_format=True)
    return out.getvalue()


def stored_as(path: Path, frames: list[bytes], data: bytes) -> Encoding:
    """The encoding of the stored file, whose frames and bytes are compared."""
    with Archive.open(path, create=True, threads=1) as archive:
        result = archive.store(data)
        assert result.status == "stored", result.error
        entry = archive.instance(result.study, result.series, result.instance)
        assert b"".join(archive.part10(entry)) == data
        assert [archive.native_frame(entry, number + 1) for number in range(len(frames))] == frames
        key = entry.descriptor.array_key
        assert key is not None
        return key.encoding


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("values", [(0xF801, 0x0805), (0x0805, 0x0001), (0x0001, 0x3005), (0x0001, 0x0002)])
def test_frames_whose_unused_bits_follow_different_rules(tmp_path: Path, syntax: UID, values: tuple[int, int]) -> None:
    frames = [np.full(16, value, "<u2").tobytes() for value in values]
    data = file(frames, side=4, bits=16, stored=12, signed=True, syntax=syntax)
    alike = max(values) < 0x0800
    assert stored_as(tmp_path / "archive", frames, data) is (Encoding.HTJ2K if alike else Encoding.NATIVE)


def test_many_tiny_frames_are_kept_as_received(tmp_path: Path) -> None:
    frames = [bytes([number % 256]) for number in range(encoding.MOST_TINY_FRAMES + 1)]
    data = file(frames, side=1, bits=8, stored=8, syntax=ExplicitVRLittleEndian)
    assert stored_as(tmp_path / "archive", frames, data) is Encoding.NATIVE


@pytest.mark.parametrize("most", [1 << 20, 100])
def test_used_unused_bits_of_many_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(encoding, "LARGEST_RESIDUAL", most)
    noise = np.random.default_rng(0)
    frames = [noise.integers(0, 1 << 16, 16, "<u2").tobytes() for _ in range(5)]
    data = file(frames, side=4, bits=16, stored=12, syntax=ExplicitVRLittleEndian)
    kept = stored_as(tmp_path / "archive", frames, data)
    assert kept is (Encoding.HTJ2K if most > 1000 else Encoding.NATIVE)


def test_pixel_data_is_bulk_data_under_its_own_tag_only(tmp_path: Path) -> None:
    data_set = pydicom.dcmread(BytesIO(file([bytes(36)], side=3, bits=32, stored=32, syntax=ExplicitVRLittleEndian)))
    del data_set.PixelData
    data_set.FloatPixelData = np.arange(9, dtype="<f4").tobytes()
    out = BytesIO()
    data_set.save_as(out)
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(out.getvalue())
        entry = archive.instance(result.study, result.series, result.instance)
        assert b"".join(archive.bulk(entry, "7FE00008")) == data_set.FloatPixelData
        for path in ("7FE00009", "7FE00010", "00000000"):
            with pytest.raises(NotFoundError):
                archive.bulk(entry, path)


def test_a_closed_archive_refuses(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        pass
    released: list[bool] = []
    result = archive.submit(b"", release=lambda: released.append(True)).result()
    assert result.status == "refused" and isinstance(result.error, StorageError)
    assert released == [True]


def test_packed_bulk_values_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_MOST_PACKED", 4000)
    data_set = pydicom.dcmread(BytesIO(file([bytes(9)], side=3, bits=8, stored=8, syntax=ExplicitVRLittleEndian)))
    data_set.add_new(0x00090010, "LO", "TEST")
    values = [np.random.default_rng(n).bytes(2500) + bytes(2500) for n in range(5)]
    for number, value in enumerate(values):
        data_set.add_new(0x00091000 + number, "OB", value)
    out = BytesIO()
    data_set.save_as(out)
    data = out.getvalue()
    new = ingest.prepare(data, ingest.identify(data), lambda key, levels: pytest.fail("nothing fills a shard"))
    assert [part.zstd for part in new.bulk] == [True, True, False, False, False]
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(data)
        entry = archive.instance(result.study, result.series, result.instance)
        assert [b"".join(archive.bulk(entry, f"0009100{number}")) for number in range(5)] == values
        assert b"".join(archive.part10(entry)) == data


def test_long_numbers_of_big_endian_are_little_endian_as_bulk_data(tmp_path: Path) -> None:
    data_set = pydicom.dcmread(BytesIO(file([bytes(9)], side=3, bits=8, stored=8, syntax=ExplicitVRLittleEndian)))
    del data_set.PixelData
    data_set.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    out = BytesIO()
    pydicom.dcmwrite(out, data_set, implicit_vr=False, little_endian=False, enforce_file_format=True)
    data = out.getvalue()
    kinds = {"OB": "u1", "OW": "u2", "OF": "f4", "OL": "u4", "OD": "f8", "OV": "u8", "SV": "i8", "UV": "u8"}
    values = {vr: np.arange(9 << 14 if vr[1] == "V" else 9 << 10).astype(f">{kind}") for vr, kind in kinds.items()}
    for number, (vr, value) in enumerate(values.items()):
        data += b"\0\x29\x10" + bytes([number]) + vr.encode() + b"\0\0" + value.nbytes.to_bytes(4, "big")
        data += value.tobytes()
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(data)
        assert result.status == "stored", result.error
        entry = archive.instance(result.study, result.series, result.instance)
        assert b"".join(archive.part10(entry)) == data
        explicit = archive.renditions().instance(entry, uids.EXPLICIT_VR_LITTLE_ENDIAN)
        read = pydicom.dcmread(BytesIO(b"".join(explicit.pieces)))
        for number, (vr, value) in enumerate(values.items()):
            little = value.astype(value.dtype.newbyteorder("<")).tobytes()
            assert b"".join(archive.bulk(entry, f"002910{number:02X}")) == little, vr
            found = read[0x00291000 + number].value
            assert (found if vr[0] == "O" else np.array(found, value.dtype.newbyteorder("<")).tobytes()) == little, vr


def test_what_a_private_transfer_syntax_holds_is_not_given_another_name(tmp_path: Path) -> None:
    for number, built in enumerate(fragmentation.unknown()):
        with Archive.open(tmp_path / str(number), create=True, threads=1) as archive:
            result = archive.store(built.file)
            assert result.status == "stored" and "not known" in result.warnings[0]
            entry = archive.instance(result.study, result.series, result.instance)
            assert entry.descriptor.transfer_syntax == built.transfer_syntax
            for position, frame in enumerate(built.frames or (), 1):
                located = archive.frame(entry, position)
                assert located.transfer_syntax == built.transfer_syntax and archive.read_frame(located) == frame
                with pytest.raises(UnsupportedTransferSyntaxError):
                    archive.decode_frame(entry, position)
            if built.frames:
                with pytest.raises(UnsupportedTransferSyntaxError):
                    archive.renditions().instance(entry, uids.EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_stretch_that_belongs_to_no_value_is_not_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a sequence that has no end nothing is known: the rest of the file is a value without a name."""
    monkeypatch.setattr(ingest, "_LARGEST_GAP", 3000)
    whole = file([bytes(9)], side=3, bits=8, stored=8, syntax=ExplicitVRLittleEndian)
    rest = b"\x29\0\x10\x10SQ\0\0\xff\xff\xff\xff" + np.random.default_rng(0).bytes(5000)
    for data, gaps in ((whole, 0), (whole + rest, 1)):
        new = ingest.prepare(data, ingest.identify(data), lambda key, levels: pytest.fail("nothing fills a shard"))
        spans = list(new.spans)
        assert [new.spans[number] for number in range(len(spans))] == spans == sorted(spans, key=lambda s: s.offset)
        assert [span.length > 3000 for span in spans if span.bulk >= 0] == [True] * gaps
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(whole + rest)
        assert result.status == "stored" and "not read beyond" in "; ".join(result.warnings)
        entry = archive.instance(result.study, result.series, result.instance)
        assert b"".join(archive.part10(entry)) == whole + rest
        with pytest.raises(NotFoundError):
            archive.bulk(entry, "")


@pytest.mark.parametrize("bits", [1, 32])
def test_native_frames_lie_in_pieces_as_they_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr(encoding, "_LARGEST_PIECE", 4096)
    side = 33 if bits == 32 else 232
    samples = np.random.default_rng(bits).integers(0, 1 << bits, (7, side, side)).astype(f"<u{max(1, bits // 8)}")
    value = np.packbits(samples, bitorder="little") if bits == 1 else samples
    frames = [frame.tobytes() for frame in value.reshape(7, -1)]
    data = file(frames, side=side, bits=bits, stored=bits, syntax=ExplicitVRLittleEndian)
    assert stored_as(tmp_path / "archive", frames, data) is Encoding.NATIVE
    with Archive.open(tmp_path / "archive", threads=1) as archive:
        entry = archive.instance("1.2.1", "1.2.2", "1.2.3")
        for number, frame in enumerate(samples, 1):
            assert np.array_equal(archive.decode_frame(entry, number), frame), number


def test_a_long_native_value_is_put_aside_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be encoded, too: an instance that fills a shard is not in memory while it is stored."""
    monkeypatch.setattr(encoding, "_LARGEST_PIECE", 4096)
    staged: list[ArrayKey] = []

    def stage(key: ArrayKey, levels: int) -> NoReturn:
        staged.append(key)
        raise StorageError("there is no room")

    for side, asked in ((500, 0), (512, 1)):
        data = file([bytes(4 * side * side)], side=side, bits=32, stored=32, syntax=ExplicitVRLittleEndian)
        with pytest.raises(StorageError) if asked else contextlib.nullcontext():
            ingest.prepare(data, ingest.identify(data), stage)
        assert [key.encoding for key in staged] == [Encoding.NATIVE] * asked


def test_spans_are_in_order_whatever_surrounds_the_fragments() -> None:
    bulk = [Span(10, 5, 0, "00091010", "OB"), Span(100, 5, 1, "FFFCFFFC", "OB")]
    for before in (0, 1, 2):
        named = bulk[:1] if before == 1 else bulk[before:]
        spans = ingest.Spans(named, [(40, 2), (50, 0), (60, 3)])
        assert list(spans) == spans[:] == [spans[number] for number in range(len(spans))]
        assert [spans[-number] for number in range(1, len(spans) + 1)] == list(spans)[::-1]
        assert [span.offset for span in spans] == sorted(span.offset for span in spans)
    assert list(ingest.Spans(bulk, ())) == bulk
