"""Frames in other forms: made once, kept within bounds, never those of another image."""

from __future__ import annotations

import io
import shutil
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info

from pacs import codestream, reading, transcode, uids
from pacs.archive import Archive
from pacs.errors import PixelError, UnsupportedTransferSyntaxError
from pacs.reading import Frame
from pacs.renditions import Renditions, available
from pacs.storage.layout import RENDITIONS
from pacs.transcode import Rendition

MB = 1 << 20
NOISE = np.random.default_rng(7).integers(0, 4000, (6, 96, 80)).astype(np.uint16)


def image(samples: np.ndarray[Any, Any], syntax: str = uids.EXPLICIT_VR_LITTLE_ENDIAN, uid: str = "1.2.3",
          frames: list[bytes] | None = None) -> bytes:  # fmt: skip
    """A multi-frame image of 12 bits with one patient's pixels."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7.3", uid
    data.StudyInstanceUID, data.SeriesInstanceUID, data.PatientID = "1.2.1", "1.2.2", "a"
    data.NumberOfFrames, data.Rows, data.Columns = samples.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = encapsulate(frames) if frames else samples.tobytes()
    data["PixelData"].VR = "OB" if frames else "OW"
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        assert archive.store(image(NOISE)).status == "stored"
        yield archive


def frame(archive: Archive, number: int = 1, uid: str = "1.2.3") -> Frame:
    return archive.frame(archive.instance("1.2.1", "1.2.2", uid), number)


def to(of: Frame, syntax: str) -> Rendition:
    found = next(one for one in available.of_frames(available.stored(of.entry)) if one.transfer_syntax == syntax)
    assert isinstance(found, Rendition)
    return found


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(imagecodecs.jpegls_decode(bytes(data)))


def test_askers_at_once_share_one_making(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    made = archive.renditions(MB, MB)
    first = frame(archive)
    began, go = threading.Semaphore(0), threading.Event()
    encode = transcode.encode

    def slowly(*args: Any, **kwargs: Any) -> bytes:
        began.release()
        go.wait()
        return encode(*args, **kwargs)

    monkeypatch.setattr(reading.transcode, "encode", slowly)
    with ThreadPoolExecutor(8) as pool:
        askers = [pool.submit(made.frame, first, to(first, uids.JPEG_LS_LOSSLESS)) for _ in range(8)]
        try:
            assert began.acquire(timeout=120)
        finally:
            go.set()
        results = {bytes(asker.result().data) for asker in askers}
    assert len(results) == 1 and made.made == 1
    assert np.array_equal(decoded(results.pop()), NOISE[0])


def test_a_failure_is_told_to_all_and_tried_again(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    made = archive.renditions(MB, MB)
    first = frame(archive)
    wanted = to(first, uids.JPEG_LS_LOSSLESS)

    def fails(*args: Any, **kwargs: Any) -> bytes:
        raise PixelError("no")

    with monkeypatch.context() as patched:
        patched.setattr(reading.transcode, "encode", fails)
        for _ in range(2):
            with pytest.raises(PixelError):
                made.frame(first, wanted)
    assert np.array_equal(decoded(made.frame(first, wanted).data), NOISE[0])


def test_what_was_made_is_found_in_memory_then_on_disk(archive: Archive) -> None:
    made, other = archive.renditions(MB, MB), archive.renditions(MB, MB)  # as in two workers
    for number in range(1, 7):
        of = frame(archive, number)
        wanted = to(of, uids.JPEG_LS_LOSSLESS)
        assert made.recent(of, wanted) is None
        data = made.frame(of, wanted).data
        assert made.recent(of, wanted) is not None and other.recent(of, wanted) is None
        assert other.frame(of, wanted).data == data
        assert np.array_equal(decoded(data), NOISE[number - 1])
    assert (made.made, other.made) == (6, 0)


def test_level_ends_are_kept_too(archive: Archive) -> None:
    of = frame(archive)
    wanted = available.irreversible(available.stored(of.entry), uids.HTJ2K)
    assert wanted is not None
    made = archive.renditions(0, MB).frame(of, wanted, 45)
    found = archive.renditions(0, MB).frame(of, wanted, 45)
    assert found == made and found.level_ends == codestream.parse(made.data).level_ends != ()


def test_memory_and_disk_have_bounds(archive: Archive) -> None:
    size = len(archive.renditions().frame(frame(archive), to(frame(archive), uids.RLE_LOSSLESS)).data)
    made = archive.renditions(4 * size + 8, 0)
    for number in range(1, 7):
        made.frame(frame(archive, number), to(frame(archive), uids.RLE_LOSSLESS))
    wanted = to(frame(archive), uids.RLE_LOSSLESS)
    assert [number for number in range(1, 7) if made.recent(frame(archive, number), wanted)] == [3, 4, 5, 6]
    assert not (archive.root / RENDITIONS).exists()


def test_a_download_passes_by_the_memory(archive: Archive) -> None:
    made = archive.renditions(MB, MB)
    entry = archive.instance("1.2.1", "1.2.2", "1.2.3")
    whole = b"".join(made.instance(entry, uids.JPEG_LS_LOSSLESS).pieces)
    assert not any(made.recent(frame(archive, n), to(frame(archive), uids.JPEG_LS_LOSSLESS)) for n in range(1, 7))
    assert made.made == 6
    assert b"".join(made.instance(entry, uids.JPEG_LS_LOSSLESS).pieces) == whole
    assert made.made == 6  # the disk has them


def test_a_rotten_or_missing_file_is_made_again(archive: Archive) -> None:
    of = frame(archive)
    wanted = to(of, uids.JPEG_LS_LOSSLESS)
    archive.renditions(0, MB).frame(of, wanted)
    [path] = list((archive.root / RENDITIONS).rglob("*-*"))
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    again = archive.renditions(0, MB)
    assert np.array_equal(decoded(again.frame(of, wanted).data), NOISE[0])
    assert again.made == 1
    shutil.rmtree(archive.root / RENDITIONS)
    assert np.array_equal(decoded(again.frame(of, wanted).data), NOISE[0])
    assert again.made == 2


def test_other_content_under_the_same_uid_is_never_answered_with_the_old(tmp_path: Path) -> None:
    """An instance that is deleted and sent again, with other pixels: here by another archive around the old files."""
    root = tmp_path / "archive"
    with Archive.open(root, create=True, threads=1) as archive:
        archive.store(image(NOISE))
        archive.renditions(0, MB).frame(frame(archive), to(frame(archive), uids.JPEG_LS_LOSSLESS))
        (root / RENDITIONS).rename(tmp_path / "kept")
    shutil.rmtree(root)
    with Archive.open(root, create=True, threads=1) as archive:
        (tmp_path / "kept").rename(root / RENDITIONS)
        archive.store(image(NOISE[::-1]))
        made = archive.renditions(0, MB)
        now = made.frame(frame(archive), to(frame(archive), uids.JPEG_LS_LOSSLESS))
        assert np.array_equal(decoded(now.data), NOISE[5])
        assert made.made == 1


def test_an_instance_is_forgotten(archive: Archive) -> None:
    archive.store(image(NOISE[:1], uid="1.2.4"))
    made = archive.renditions(MB, MB)
    frames = [frame(archive), frame(archive, 2), frame(archive, uid="1.2.4")]
    for of in frames:
        made.frame(of, to(of, uids.JPEG_LS_LOSSLESS))
    made.forget(frames[0].entry)
    assert [made.recent(of, to(of, uids.JPEG_LS_LOSSLESS)) is not None for of in frames] == [False, False, True]
    assert len(list((archive.root / RENDITIONS).rglob("*-*"))) == 1


# --- JPEG 2000 as it came


def j2k(progression: str = "LRCP") -> list[bytes]:
    return [imagecodecs.jpeg2k_encode(of, level=0, codecformat="J2K", bitspersample=12) for of in NOISE]


def test_a_frame_in_another_order_is_re_ordered_to_stream(archive: Archive) -> None:
    came = j2k()
    assert codestream.parse(came[0]).progression == "LRCP" and not codestream.parse(came[0]).level_ends
    archive.store(image(NOISE, uids.JPEG_2000_LOSSLESS, "1.2.5", came))
    of = frame(archive, 3, "1.2.5")
    stored = to(of, uids.JPEG_2000_LOSSLESS)
    made = archive.renditions(MB, MB)
    assert stored.kind == "stored" and not made.direct(of, stored)
    sent = made.frame(of, stored)
    parsed = codestream.parse(sent.data)
    assert parsed.progression == "RPCL" and sent.level_ends == parsed.level_ends != ()
    assert np.array_equal(imagecodecs.jpeg2k_decode(bytes(sent.data)), NOISE[2])
    small = codestream.reduce(sent.data[: sent.level_ends[-3]], 2)
    assert imagecodecs.jpeg2k_decode(small).shape == (24, 20)
    entry = archive.instance("1.2.1", "1.2.2", "1.2.5")
    assert came[2] in b"".join(archive.part10(entry))  # the file is what it was
    assert made.frame(of, to(of, uids.JPEG_2000)).data == sent.data


def test_a_stream_that_cannot_be_walked_goes_out_as_it_is(archive: Archive) -> None:
    came = [stream[:-40] for stream in j2k()]
    archive.store(image(NOISE, uids.JPEG_2000_LOSSLESS, "1.2.6", came))
    of = frame(archive, 1, "1.2.6")
    sent = archive.renditions(MB, MB).frame(of, to(of, uids.JPEG_2000_LOSSLESS))
    assert (bytes(sent.data).rstrip(b"\0"), sent.level_ends) == (came[0].rstrip(b"\0"), ())


@pytest.mark.parametrize("levels", [5, 1])
def test_lossless_htj2k_becomes_rpcl_by_moving_packets(
    archive: Archive, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it has too few levels, which .202 wants to leave a base of 64 samples."""
    wide = np.tile(NOISE, (1, 2, 2)).astype(np.int16)
    came = [imagecodecs.htj2k_encode(of, reversible=True, resolutions=levels) for of in wide]
    file = pydicom.dcmread(io.BytesIO(image(wide, uids.HTJ2K_LOSSLESS, "1.2.10", came)))
    file.PixelRepresentation, file.BitsStored, file.HighBit = 1, 16, 15
    out = io.BytesIO()
    file.save_as(out)
    archive.store(out.getvalue())
    of = frame(archive, 2, "1.2.10")
    encoded: list[object] = []
    encode = transcode.encode
    monkeypatch.setattr(reading.transcode, "encode", lambda *a, **k: encoded.append(a) or encode(*a, **k))
    made = archive.renditions(MB, MB).frame(of, to(of, uids.HTJ2K_LOSSLESS_RPCL))
    parsed = codestream.parse(made.data)
    assert parsed.progression == "RPCL" and parsed.tlm_agrees and len(parsed.level_ends) == 6
    assert np.array_equal(imagecodecs.htj2k_decode(bytes(made.data)), wide[1])
    assert bool(encoded) == (levels == 1)


def test_our_own_frames_are_sent_from_where_they_lie(archive: Archive) -> None:
    made = archive.renditions(MB, MB)
    for syntax in (uids.HTJ2K_LOSSLESS_RPCL, uids.HTJ2K_LOSSLESS, uids.HTJ2K):
        assert made.direct(frame(archive), to(frame(archive), syntax))


# --- instances


def test_what_an_instance_is_at_hand_in(archive: Archive) -> None:
    offered = available.of_instance(frame(archive).entry)
    assert offered[0] == uids.EXPLICIT_VR_LITTLE_ENDIAN
    assert {uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, uids.HTJ2K_LOSSLESS_RPCL,
            uids.HTJ2K_LOSSLESS, uids.HTJ2K, uids.JPEG_2000_LOSSLESS, uids.JPEG_2000, uids.JPEG_LS_LOSSLESS,
            uids.RLE_LOSSLESS} <= set(offered)  # fmt: skip
    assert uids.JPEG_BASELINE not in offered  # 12 bits
    video = image(NOISE, "1.2.840.10008.1.2.4.102", "1.2.7", [b"\0\0\0\x18ftypmp42"])
    archive.store(video)
    entry = archive.instance("1.2.1", "1.2.2", "1.2.7")
    assert available.of_instance(entry) == ("1.2.840.10008.1.2.4.102",)
    with pytest.raises(UnsupportedTransferSyntaxError):
        archive.renditions().instance(entry, uids.JPEG_LS_LOSSLESS)
    with pytest.raises(UnsupportedTransferSyntaxError):
        archive.renditions().instance(frame(archive).entry, uids.JPEG_XL_LOSSLESS)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.7.1"])
def test_pixel_data_that_is_elsewhere_stays_there(archive: Archive, syntax: str) -> None:
    data = pydicom.dcmread(io.BytesIO(image(NOISE, uid="1.2.9")))
    del data.PixelData
    data.PixelDataProviderURL = "https://pixels.example/1"
    data.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    body, meta = io.BytesIO(), data.file_meta
    del data.file_meta
    pydicom.dcmwrite(body, data, implicit_vr=False, little_endian=True, force_encoding=True)
    deflate = zlib.compressobj(wbits=-15)
    plain = body.getvalue()[132:] if body.getvalue()[128:132] == b"DICM" else body.getvalue()
    packed = deflate.compress(plain) + deflate.flush() if uids.transfer_syntax(syntax).deflated else plain
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = False, True
    out.write(bytes(128) + b"DICM")
    write_file_meta_info(out, meta)
    result = archive.store(out.getvalue() + packed)
    assert result.status == "stored", result.error
    entry = archive.instance("1.2.1", "1.2.2", "1.2.9")
    assert available.of_instance(entry) == (syntax,)
    with pytest.raises(UnsupportedTransferSyntaxError, match="elsewhere"):
        archive.renditions().instance(entry, uids.EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_report_is_at_hand_in_every_plain_syntax(archive: Archive) -> None:
    data = pydicom.dcmread(io.BytesIO(image(NOISE, uid="1.2.8")))
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "NumberOfFrames"):
        del data[keyword]
    out = io.BytesIO()
    data.save_as(out)
    archive.store(out.getvalue())
    entry = archive.instance("1.2.1", "1.2.2", "1.2.8")
    assert available.of_instance(entry) == (
        uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    )  # fmt: skip
    for syntax in available.of_instance(entry):
        read = pydicom.dcmread(io.BytesIO(b"".join(archive.renditions().instance(entry, syntax).pieces)))
        assert (read.file_meta.TransferSyntaxUID, read.PatientID) == (syntax, "a")


def test_frames_pass_one_by_one(archive: Archive) -> None:
    """A long multi-frame is never whole in memory: the second frame is made after the first was handed out."""
    made: Renditions = archive.renditions()
    pieces = made.instance(frame(archive).entry, uids.JPEG_LS_LOSSLESS).pieces
    counts = []
    for _ in pieces:
        counts.append(made.made)
    assert counts[0] == 1 and counts[-1] == 6 and counts == sorted(counts) and set(counts) == set(range(1, 7))
