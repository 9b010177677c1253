"""Frames and instances in other forms than the stored one, as clients of all kinds ask for them. PS3.18 10.4, 8.7"""

from __future__ import annotations

import io
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.encaps import encapsulate

from pacs import codestream, demo, uids
from tests.conftest import StartServer
from tests.integration.exchange import Client, Stored

VIEWER = "multipart/related; type=application/octet-stream; transfer-syntax=*"
FORMS = {
    uids.JPEG_2000_LOSSLESS: ("image/jp2", imagecodecs.jpeg2k_decode),
    uids.JPEG_LS_LOSSLESS: ("image/jls", imagecodecs.jpegls_decode),
    uids.JPEG_LOSSLESS_SV1: ("image/jpeg", imagecodecs.jpeg8_decode),
    uids.HTJ2K_LOSSLESS: ("image/jphc", imagecodecs.htj2k_decode),
}


def written(data: pydicom.Dataset) -> bytes:
    out = io.BytesIO()
    data.save_as(out)
    return out.getvalue()


def cine(name: str, frames: int = 6, syntax: str = "") -> Stored:
    """A multi-frame image, native or as JPEG 2000 in LRCP, each frame in two fragments."""
    data = pydicom.dcmread(io.BytesIO(next(demo.head_slices(1, rows=64, name=name))))
    samples = np.stack([np.roll(data.pixel_array, 5 * number, axis=1) for number in range(frames)])
    data.NumberOfFrames = frames
    data.PixelData = samples.tobytes()
    if syntax:
        streams = [imagecodecs.jpeg2k_encode(of, level=0, codecformat="J2K") for of in samples]
        data.PixelData = encapsulate([of + bytes(len(of) % 2) for of in streams], fragments_per_frame=2)
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    return Stored(written(data))


@pytest.fixture
def ct(client: Client) -> Stored:
    stored = Stored(next(demo.head_slices(1, rows=128, name="forms")))
    client.store(stored.file)
    return stored


@pytest.mark.parametrize("syntax", FORMS)
def test_a_frame_in_another_form(client: Client, ct: Stored, syntax: str) -> None:
    media_type, decode = FORMS[syntax]
    single = client.get(ct.path + "/frames/1", f"{media_type}; transfer-syntax={syntax}")
    assert single.headers["content-type"] == f"{media_type}; transfer-syntax={syntax}"
    assert int(single.headers["content-length"]) == len(single.body)
    samples = decode(single.body).astype(np.uint16) << (16 - ct.data.BitsStored)
    expected = ct.data.pixel_array.view(np.uint16) << (16 - ct.data.BitsStored)
    assert np.array_equal(samples, expected)
    several = client.get(ct.path + "/frames/1", f'multipart/related; type="{media_type}"; transfer-syntax={syntax}')
    assert several.parts == [({"Content-Type": f"{media_type}; transfer-syntax={syntax}"}, single.body)]
    assert several.headers["etag"] != single.headers["etag"]


def test_every_worker_sends_the_same_entity(ct: Stored, client: Client) -> None:
    accept = f'multipart/related; type="image/jls"; transfer-syntax={uids.JPEG_LS_LOSSLESS}'
    first = client.get(ct.path + "/frames/1", accept)
    size, etag = len(first.body), first.headers["etag"]
    for _ in range(6):  # a connection each: the workers take turns
        other = Client(client.server)
        part = other.get(ct.path + "/frames/1", accept, Range=f"bytes=100-{size - 2}", If_Range=etag)
        assert (part.status, part.body) == (206, first.body[100 : size - 1])
        assert other.get(ct.path + "/frames/1", accept, If_None_Match=etag).status == 304
        other.close()


def test_representations_have_tags_of_their_own(client: Client, ct: Stored) -> None:
    path = ct.path + "/frames/1"
    tags = [client.get(path, accept).headers["etag"] for accept in (VIEWER, "image/jphc", "application/octet-stream")]
    tags += [client.get(path, f"{FORMS[syntax][0]}; transfer-syntax={syntax}").headers["etag"] for syntax in FORMS]
    lossy = f"image/jphc; transfer-syntax={uids.HTJ2K}"
    tags += [client.get(f"{path}?quality={quality}", lossy).headers["etag"] for quality in (40, 50)]
    assert len(set(tags)) == len(tags)


def test_lists_of_frames_in_another_form(client: Client) -> None:
    stored = cine("forms cine")
    client.store(stored.file)
    frames = stored.data.pixel_array
    for media_type, syntax, decode in (
        ("image/jls", uids.JPEG_LS_LOSSLESS, imagecodecs.jpegls_decode),
        ("image/jp2", uids.JPEG_2000_LOSSLESS, imagecodecs.jpeg2k_decode),
    ):
        accept = f'multipart/related; type="{media_type}"; transfer-syntax={syntax}'
        reply = client.get(stored.path + "/frames/6,1,1,2", accept)
        low = [decode(data).view(np.uint16) & 0xFFF for _, data in reply.parts]
        assert np.array_equal(low, frames[[5, 0, 0, 1]].view(np.uint16) & 0xFFF)
        assert client.get(stored.path + "/frames/6,1,1,2", accept, If_None_Match=reply.headers["etag"]).status == 304
        assert client.get(stored.path + "/frames/1,7", accept).status == 404
        assert client.get(stored.path + "/frames/1,2", media_type).status == 406


def test_jpeg_2000_of_a_modality_streams_like_our_own(client: Client) -> None:
    stored = cine("forms lrcp", 3, uids.JPEG_2000_LOSSLESS)
    client.store(stored.file)
    expected = stored.data.pixel_array
    whole = client.get(stored.path + "/frames/2", VIEWER)
    [(headers, data)] = whole.parts
    assert headers == {"Content-Type": f"image/jp2; transfer-syntax={uids.JPEG_2000_LOSSLESS}"}
    parsed = codestream.parse(data)
    assert (parsed.progression, len(parsed.level_ends)) == ("RPCL", parsed.decompositions + 1)
    assert np.array_equal(imagecodecs.jpeg2k_decode(data), expected[1])
    prefix = client.get(stored.path + "/frames/2", "image/jp2", Range=f"bytes=0-{parsed.level_ends[-2] - 1}")
    assert prefix.status == 206
    half = imagecodecs.jpeg2k_decode(codestream.reduce(prefix.body, 1))
    assert half.shape == (32, 32)
    reply = client.get(stored.path + "/frames/3,1", VIEWER)
    decoded = [imagecodecs.jpeg2k_decode(data) for _, data in reply.parts]
    assert np.array_equal(np.stack(decoded), expected[[2, 0]])
    assert all(codestream.parse(data).level_ends for _, data in reply.parts)
    assert client.get(stored.path, "application/dicom; transfer-syntax=*").body == stored.file


def test_lossy_only_by_name_or_quality(client: Client, ct: Stored) -> None:
    path = ct.path + "/frames/1"
    stored = client.get(path, "image/jphc").body
    assert client.get(path, f"image/jphc; transfer-syntax={uids.HTJ2K}").body == stored  # lossless satisfies it
    sizes = []
    for quality in (60, 45, 30):
        reply = client.get(f"{path}?quality={quality}", f"image/jphc; transfer-syntax={uids.HTJ2K}")
        assert reply.headers["content-type"] == f"image/jphc; transfer-syntax={uids.HTJ2K}"
        assert not codestream.parse(reply.body).reversible
        sizes.append(len(reply.body))
    assert len(stored) > sizes[0] > sizes[1] > sizes[2]
    assert client.get(f"{path}?quality=30", f"image/jls; transfer-syntax={uids.JPEG_LS_LOSSLESS}").status == 200
    lossless = client.get(f"{path}?quality=30", f"image/jp2; transfer-syntax={uids.JPEG_2000_LOSSLESS}")
    assert codestream.parse(lossless.body).reversible
    for wrong in ("0", "101", "x", "-5", "1e1", "nan"):
        assert client.get(f"{path}?quality={wrong}", VIEWER).json["code"] == "WEB-01"


def test_what_cannot_be_made_names_what_can(client: Client, ct: Stored) -> None:
    for path, accept in ((ct.path + "/frames/1", "image/jxl"), (ct.path, "application/dicom; transfer-syntax=1.2.3")):
        reply = client.get(path, accept)
        assert reply.status == 406
        for syntax in (uids.JPEG_2000_LOSSLESS, uids.HTJ2K_LOSSLESS_RPCL, uids.EXPLICIT_VR_LITTLE_ENDIAN):
            assert any(syntax in offered for offered in reply.json["offered"])
        assert uids.JPEG_BASELINE not in str(reply.json["offered"])  # more than 8 bits


def test_lengths_that_are_known_are_told(client: Client, ct: Stored) -> None:
    stored = cine("forms lengths")
    client.store(stored.file)
    for syntax, known in (
        (uids.IMPLICIT_VR_LITTLE_ENDIAN, True), (uids.HTJ2K_LOSSLESS_RPCL, True), (uids.JPEG_LS_LOSSLESS, False),
        (uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, False),
    ):  # fmt: skip
        accept = f"application/dicom; transfer-syntax={syntax}"
        reply = client.get(stored.path, accept)
        assert ("content-length" in reply.headers) is known
        data = pydicom.dcmread(io.BytesIO(reply.body))
        assert np.array_equal(data.pixel_array, stored.data.pixel_array), syntax
        again = client.get(stored.path, accept)
        assert (again.body, again.headers["etag"]) == (reply.body, reply.headers["etag"])
        assert client.get(stored.path, accept, If_None_Match=again.headers["etag"]).status == 304
        if known:
            part = client.get(stored.path, accept, Range="bytes=1000-2999")
            assert (part.status, part.body) == (206, reply.body[1000:3000])
    single = client.get(ct.path, f"application/dicom; transfer-syntax={uids.JPEG_2000_LOSSLESS}")
    assert int(single.headers["content-length"]) == len(single.body)


def test_a_report_among_images_comes_as_it_is(client: Client) -> None:
    images = [Stored(file) for file in demo.head_slices(2, rows=32, name="forms study")]
    report = pydicom.dcmread(io.BytesIO(images[0].file))
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        del report[keyword]
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", images[0].data.SOPInstanceUID + ".9"
    report.SeriesInstanceUID += ".9"
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID
    client.store(*(image.file for image in images), written(report))
    several = 'multipart/related; type="application/dicom"; transfer-syntax='
    reply = client.get(images[0].study, several + uids.RLE_LOSSLESS)
    syntaxes = [pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID for _, data in reply.parts]
    assert syntaxes == [headers["Content-Type"].split("=")[1] for headers, _ in reply.parts]
    assert sorted(syntaxes) == [uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.RLE_LOSSLESS, uids.RLE_LOSSLESS]
    assert written(report) in [data for _, data in reply.parts]
    only = f"application/dicom; transfer-syntax={uids.RLE_LOSSLESS}"
    path = f"{images[0].study}/series/{report.SeriesInstanceUID}/instances/{report.SOPInstanceUID}"
    assert client.get(path, only).status == 406
    assert client.get(images[0].study, several + uids.JPEG_XL).status == 406


def test_search_tells_what_is_at_hand(client: Client, ct: Stored) -> None:
    plain = client.get(ct.series + "/instances").json
    assert "00083002" not in plain[0]
    [metadata] = client.get(ct.path + "/metadata").json
    for field in ("00083002", "AvailableTransferSyntaxUID", "all"):
        [item] = client.get(f"{ct.series}/instances?includefield={field}").json
        assert item["00083002"] == metadata["00083002"]
    assert uids.JPEG_2000_LOSSLESS in metadata["00083002"]["Value"]
    assert list(metadata) == sorted(metadata)


def test_the_client_library_asks_for_forms(client: Client, ct: Stored) -> None:
    library = DICOMwebClient(url=client.server.url)
    study, series, instance = ct.data.StudyInstanceUID, ct.data.SeriesInstanceUID, ct.data.SOPInstanceUID
    [stream] = library.retrieve_instance_frames(
        study, series, instance, [1], media_types=(("image/jp2", uids.JPEG_2000_LOSSLESS),)
    )
    assert np.array_equal(imagecodecs.jpeg2k_decode(stream), ct.data.pixel_array)
    for syntax in (uids.JPEG_LS_LOSSLESS, uids.RLE_LOSSLESS):
        data = library.retrieve_instance(study, series, instance, media_types=(("application/dicom", syntax),))
        assert data.file_meta.TransferSyntaxUID == syntax
        assert np.array_equal(data.pixel_array, ct.data.pixel_array)
    library._session.close()


@pytest.mark.skipif(shutil.which("dcmdjpeg") is None, reason="DCMTK is absent: apt-get install dcmtk")
def test_dcmtk_decodes_what_we_encode(client: Client, ct: Stored, tmp_path: Path) -> None:
    colour = pydicom.dcmread(io.BytesIO(ct.file))
    colour.SamplesPerPixel, colour.PhotometricInterpretation, colour.PlanarConfiguration = 3, "RGB", 0
    colour.BitsAllocated, colour.BitsStored, colour.HighBit, colour.PixelRepresentation = 8, 8, 7, 0
    wave = (np.indices((128, 128)).sum(axis=0) % 256).astype(np.uint8)
    colour.PixelData = np.stack([wave, wave.T // 2, 255 - wave], axis=-1).tobytes()
    for keyword in ("PixelPaddingValue", "SmallestImagePixelValue", "LargestImagePixelValue"):
        if keyword in colour:
            del colour[keyword]
    colour.SOPInstanceUID += ".3"
    colour.file_meta.MediaStorageSOPInstanceUID = colour.SOPInstanceUID
    client.store(written(colour))
    for stored in (ct, Stored(written(colour))):
        for program, syntax in (
            ("dcmdjpeg", uids.JPEG_LOSSLESS_SV1), ("dcmdjpeg", uids.JPEG_LOSSLESS), ("dcmdjpls", uids.JPEG_LS_LOSSLESS),
            ("dcmdrle", uids.RLE_LOSSLESS), ("dcmconv", uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
            ("dcmconv", uids.IMPLICIT_VR_LITTLE_ENDIAN), ("dcmdjpeg", uids.JPEG_BASELINE),
        ):  # fmt: skip
            if syntax == uids.JPEG_BASELINE and stored is ct:
                continue
            reply = client.get(stored.path, f"application/dicom; transfer-syntax={syntax}")
            assert reply.status == 200, reply.body
            source, target = tmp_path / "source.dcm", tmp_path / "target.dcm"
            source.write_bytes(reply.body)
            command = [program, *(["+te"] if program == "dcmconv" else []), str(source), str(target)]
            done = subprocess.run(command, capture_output=True, check=False)
            assert done.returncode == 0 and not done.stderr, (syntax, done.stderr)
            found = pydicom.dcmread(target).pixel_array.astype(int)
            if syntax == uids.JPEG_BASELINE:
                assert np.mean(np.abs(found - stored.data.pixel_array)) < 12
            else:
                assert np.array_equal(found, stored.data.pixel_array), (program, syntax)


def test_small_pictures_of_jpeg_2000_come_from_its_coarse_levels(client: Client, shared_data: Path) -> None:
    """The same pixels as JPEG 2000 in LRCP and as HTJ2K in RPCL give the same thumbnail."""
    pictures = []
    for number, name in enumerate(("RG3_J2KR", "RG3_JPH")):
        data = pydicom.dcmread(shared_data / "large2d" / name)
        data.SOPInstanceUID = f"{data.StudyInstanceUID}.8.{number}"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        stored = Stored(written(data))
        client.store(stored.file)
        picture = client.get(stored.path + "/thumbnail?viewport=200,200", "image/png")
        pictures.append(imagecodecs.png_decode(picture.body).astype(int))
    assert pictures[0].shape == pictures[1].shape == (200, 200)
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def large(name: str) -> Stored:
    """A noisy image that takes a core about two seconds to encode as JPEG 2000."""
    data = pydicom.dcmread(io.BytesIO(next(demo.head_slices(1, rows=32, name=name))))
    data.Rows, data.Columns = 2048, 2560
    data.PixelData = np.random.default_rng(3).integers(-900, 900, (2048, 2560)).astype("<i2").tobytes()
    return Stored(written(data))


def test_a_slow_transcode_does_not_delay_what_is_beside_it(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server(tmp_path / "archive", workers=1)
    beside = Client(server)
    slow, small = large("forms slow"), Stored(next(demo.head_slices(1, rows=32, name="forms beside")))
    beside.store(slow.file, small.file)
    accept = f"image/jp2; transfer-syntax={uids.JPEG_2000_LOSSLESS}"
    replies: list[Any] = []

    def ask() -> None:
        client = Client(server)
        replies.append(client.get(slow.path + "/frames/1", accept))
        client.close()

    askers = [threading.Thread(target=ask) for _ in range(3)]  # of one rendition: they share its making
    for asker in askers:
        asker.start()
    answered = 0
    while not replies:
        for path, accepted in (
            ("/frames/1", VIEWER), ("/frames/1", "application/octet-stream"), ("/metadata", "*/*"),
            ("/frames/1", f"image/jls; transfer-syntax={uids.JPEG_LS_LOSSLESS}"), ("", "application/dicom"),
            ("", f"application/dicom; transfer-syntax={uids.RLE_LOSSLESS}"), ("/rendered", "image/jpeg"),
        ):  # fmt: skip
            assert beside.get(small.path + path, accepted).status == 200
            answered += 1
    for asker in askers:
        asker.join()
    beside.close()
    assert answered >= 7, "of each at least one, in the time of one transcode"
    assert {reply.status for reply in replies} == {200} and len({reply.body for reply in replies}) == 1
    assert np.array_equal(imagecodecs.jpeg2k_decode(replies[0].body), slow.data.pixel_array)
    kept = list((tmp_path / "archive" / "renditions").rglob("*-*"))
    assert kept  # and the next asker finds it on disk
