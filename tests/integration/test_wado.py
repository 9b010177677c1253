"""Frames, instances, metadata and bulk data as viewers ask for them. PS3.18 10.4"""

from __future__ import annotations

import gzip
import http.client
import io
import json
import random
import re
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import zstandard

from pacs import demo
from tests.conftest import StartServer
from tests.integration.exchange import Client, Stored

VIEWER = "multipart/related; type=application/octet-stream; transfer-syntax=*"
PART = "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.202"
NATIVE = "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
DICOM_PARTS = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.fixture
def ct(client: Client) -> list[Stored]:
    files = list(demo.head_slices(4, rows=256, name="wado"))
    client.store(*files)
    return [Stored(file) for file in files]


@pytest.fixture
def long(client: Client) -> Stored:
    """Ten frames in one instance."""
    data = pydicom.dcmread(io.BytesIO(next(demo.head_slices(1, rows=64, name="wado long"))))
    frames = [np.roll(data.pixel_array, 3 * number, axis=0) for number in range(10)]
    data.NumberOfFrames = len(frames)
    data.PixelData = np.stack(frames).tobytes()
    out = io.BytesIO()
    data.save_as(out)
    client.store(out.getvalue())
    return Stored(out.getvalue())


# --- frames


def test_a_frame_as_viewers_ask_for_it(client: Client, ct: list[Stored]) -> None:
    reply = client.get(ct[0].path + "/frames/1", VIEWER)
    assert reply.status == 200
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert "content-encoding" not in reply.headers and "transfer-encoding" not in reply.headers
    found = re.fullmatch(r'multipart/related; type="image/jphc"; boundary=(\w+)', reply.headers["content-type"])
    assert found
    head = f"--{found[1]}\r\nContent-Type: {PART}\r\n\r\n".encode()
    assert reply.body.startswith(head)
    assert reply.body.endswith(f"\r\n--{found[1]}--\r\n".encode())
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["etag"].startswith('"')
    assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "Accept" in reply.headers["vary"] and "Origin" in reply.headers["vary"]
    [(_, codestream)] = reply.parts
    assert np.array_equal(imagecodecs.htj2k_decode(codestream), ct[0].data.pixel_array)


@pytest.mark.parametrize("accept", [None, "*/*", VIEWER.replace("=a", '="a').replace("stream;", 'stream";')])
def test_the_same_entity_by_every_spelling(client: Client, ct: list[Stored], accept: str | None) -> None:
    path = ct[0].path + "/frames/1"
    first = client.get(path, VIEWER)
    again = client.get(path, accept)
    assert (again.status, again.body, again.headers["etag"]) == (200, first.body, first.headers["etag"])
    quoted = "multipart%2Frelated%3B%20type%3D%22application%2Foctet-stream%22%3B%20transfer-syntax%3D*"
    queried = client.get(f"{path}?accept={quoted}", "text/html")
    assert queried.body == first.body


def test_single_parts_only_when_asked_for(client: Client, ct: list[Stored]) -> None:
    path = ct[0].path + "/frames/1"
    single = client.get(path, "image/jphc")
    assert single.headers["content-type"] == PART
    assert single.body == client.get(path, VIEWER).parts[0][1]
    native = client.get(path, "application/octet-stream")
    assert (native.headers["content-type"], native.body) == (NATIVE, ct[0].data.PixelData)
    parts = client.get(path, 'multipart/related; type="application/octet-stream"').parts
    assert parts == [({"Content-Type": NATIVE}, ct[0].data.PixelData)]


def test_what_an_accept_refuses_is_not_sent(client: Client, ct: list[Stored]) -> None:
    """Whatever else it takes. RFC 9110 12.5.1"""
    refusing = "*/*;q=0.5, image/jphc;q=0"
    for path in ("/frames/1", "/frames/1,1"):
        reply = client.get(ct[0].path + path, refusing)
        assert {headers["Content-Type"] for headers, _ in reply.parts} == {NATIVE}
    for path in ("/frames/1?level=1", "/frames/1?quality=40"):
        reply = client.get(ct[0].path + path, refusing)
        assert reply.status == 406 or "jphc" not in reply.headers["content-type"]
    assert client.get(ct[0].series + "/stream", refusing).status == 406
    assert client.get(ct[0].path + "/frames/1", "*/*, multipart/*;q=0").headers["content-type"] == PART
    assert client.get(ct[0].path + "/rendered", "*/*, image/jpeg;q=0").headers["content-type"] == "image/png"
    assert client.get(ct[0].series + "/rendered", "image/png, multipart/*;q=0").status == 406
    assert client.get(ct[0].path, "*/*, application/dicom;q=0").status == 406
    native = "1.2.840.10008.1.2.1"
    for path in (ct[0].path, ct[0].series):
        reply = client.get(path, f"{DICOM_PARTS}, application/dicom; transfer-syntax={native};q=0")
        assert reply.status == 200
        assert all(native not in headers["Content-Type"].split("=") for headers, _ in reply.parts)
    # Which no instance can be had in, and what it came in is refused.
    neither = f"{DICOM_PARTS[:-1]}1.2.840.10008.1.2.4.110, application/dicom; transfer-syntax={native};q=0"
    assert client.get(ct[0].series, neither).status == 406


def test_an_accept_of_several_lines_and_in_the_query(client: Client, ct: list[Stored]) -> None:
    path = "/dicomweb" + ct[0].path + "/frames/1"
    client.connection.putrequest("GET", path)
    for line in ("image/jphc;q=0", "*/*"):
        client.connection.putheader("Accept", line)
    client.connection.endheaders()
    response = client.connection.getresponse()
    assert response.read() and "octet-stream" in response.headers["Content-Type"]
    # What the query names first, then what the header does. PS3.18 8.7.8.1
    for query, header, found in (
        ("image/jls", "image/jphc", "image/jls"), ("image/jxl", "image/jls", "image/jls"), ("", "image/png", ""),
    ):  # fmt: skip
        reply = client.get(f"{path}?accept={query}", header)
        assert reply.headers["content-type"].startswith(found) if found else reply.status == 406


def test_ranges_are_cut_from_the_whole_entity(client: Client, ct: list[Stored]) -> None:
    path = ct[0].path + "/frames/1"
    whole = client.get(path, VIEWER)
    size = len(whole.body)
    collected = b""
    step = size // 7
    for start in range(0, size, step):
        part = client.get(path, VIEWER, Range=f"bytes={start}-{start + step - 1}")
        assert part.status == 206
        end = min(start + step, size)
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert int(part.headers["content-length"]) == len(part.body) == end - start
        assert part.headers["etag"] == whole.headers["etag"]
        assert part.headers["content-type"] == whole.headers["content-type"]
        collected += part.body
    assert collected == whole.body
    assert client.get(path, VIEWER, Range="bytes=-9").body == whole.body[-9:]
    assert client.get(path, VIEWER, Range="bytes=5-").body == whole.body[5:]
    beyond = client.get(path, VIEWER, Range=f"bytes={size}-")
    assert (beyond.status, beyond.body) == (416, b"")
    assert beyond.headers["cache-control"] == "no-store", "kept, it would answer requests without a Range as well"
    assert beyond.headers["content-range"] == f"bytes */{size}"
    covering = client.get(path, VIEWER, Range="bytes=20-29,5-6")
    assert (covering.status, covering.body) == (206, whole.body[5:30])
    assert covering.headers["content-range"] == f"bytes 5-29/{size}"
    endless = client.get(path, VIEWER, Range=f"bytes=5-{10**25}")
    assert (endless.status, endless.body) == (206, whole.body[5:])
    assert client.get(path, VIEWER, Range=f"bytes={10**25}-").status == 416


def test_validators(client: Client, ct: list[Stored]) -> None:
    path = ct[0].path + "/frames/1"
    etag = client.get(path, VIEWER).headers["etag"]
    same = client.get(path, VIEWER, If_None_Match=f'"x", W/{etag}')
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
    assert client.get(path, VIEWER, If_None_Match='"x"').status == 200
    assert client.get(path, "image/jphc", If_None_Match=etag).status == 200
    assert client.get(path, VIEWER, Range="bytes=0-3", If_Range=etag).status == 206
    assert client.get(path, VIEWER, Range="bytes=0-3", If_Range='"x"').status == 200
    assert client.get(path, VIEWER, If_Match='"x"').status == 412
    # If-Match is looked at first. RFC 9110 13.2.2
    assert client.get(path, VIEWER, If_Match='"x"', If_None_Match=etag).status == 412
    assert client.get(path, VIEWER, If_Match=etag, If_None_Match=etag).status == 304
    for name, first, second, status in (
        ("If-None-Match", '"x"', etag, 304), ("If-None-Match", etag, '"x"', 304), ("If-None-Match", '"x"', '"y"', 200),
        ("If-Match", '"x"', etag, 200), ("If-Match", '"x"', '"y"', 412),
    ):  # fmt: skip
        client.connection.putrequest("GET", "/dicomweb" + path)
        for field, value in (("Accept", VIEWER), (name, first), (name, second)):
            client.connection.putheader(field, value)
        client.connection.endheaders()
        response = client.connection.getresponse()
        response.read()
        assert response.status == status, (name, first, second)
    others = {client.get(other.path + "/frames/1", VIEWER).headers["etag"] for other in ct}
    assert len(others) == len(ct)


def test_only_what_never_changes_is_kept_for_ever(client: Client, ct: list[Stored]) -> None:
    """A series that is fetched while it arrives must not be that series for a year."""
    for path in (ct[0].study, ct[0].series, f"{ct[0].series}/rendered", f"{ct[0].series}/metadata"):
        reply = client.get(path)
        assert (reply.status, reply.headers["cache-control"]) == (200, "private, no-cache"), path
    etag = client.get(ct[0].series).headers["etag"]
    assert client.get(ct[0].series, If_None_Match=etag).status == 304
    for path in (ct[0].path, f"{ct[0].path}/frames/1"):
        for accept in (None, "*/*"):
            assert "immutable" in client.get(path, accept).headers["cache-control"], path


def test_lists_of_frames(client: Client, long: Stored) -> None:
    frames = long.data.pixel_array
    reply = client.get(long.path + "/frames/1,3,3,10", VIEWER)
    assert int(reply.headers["content-length"]) == len(reply.body)
    decoded = [imagecodecs.htj2k_decode(data) for headers, data in reply.parts if headers == {"Content-Type": PART}]
    assert np.array_equal(np.stack(decoded), frames[[0, 2, 2, 9]])
    middle = client.get(long.path + "/frames/1,3,3,10", VIEWER, Range="bytes=500-2999")
    assert middle.body == reply.body[500:3000]
    native = client.get(long.path + "/frames/2,1", 'multipart/related; type="application/octet-stream"')
    assert [data for _, data in native.parts] == [frames[1].tobytes(), frames[0].tobytes()]
    assert client.get(long.path + "/frames/1,11", VIEWER).status == 404
    assert client.get(long.path + "/frames/1,2", "image/jphc").status == 406
    assert client.get(long.path + "/frames/0", VIEWER).status == 400


def test_head_is_get_without_a_body(client: Client, ct: list[Stored]) -> None:
    for path, accept in (("/frames/1", VIEWER), ("/metadata", "*/*"), ("", "application/dicom; transfer-syntax=*")):
        got = client.get(ct[0].path + path, accept)
        head = client.request("HEAD", ct[0].path + path, {"Accept": accept})
        assert (head.status, head.body) == (200, b"")
        for name in ("etag", "content-type", "content-length"):
            if name in head.headers and name in got.headers:
                assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("/frames/2", VIEWER, 404),
        ("/frames/x", VIEWER, 400),
        ("/frames/1", "image/jxl", 406),
        ("/frames/1", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.50", 406),
        ("/bulkdata/00990099", "*/*", 404),
        ("/bulkdata/%2e%2e%2f%2e%2e%2fetc", "*/*", 404),
        ("/metadata", "application/dicom+xml", 406),
        ("/rendered", "image/tiff", 406),
        ("", "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.110", 406),
        ("", "image/png", 406),
        ("/nothing", "*/*", 404),
        ("0", "*/*", 404),
        ("./frames/1", "*/*", 400),
    ],
)
def test_errors_are_json(client: Client, ct: list[Stored], path: str, accept: str, status: int) -> None:
    reply = client.get(ct[0].path + path, accept)
    assert reply.status == status
    assert set(reply.json) >= {"code", "message"}
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
    if status == 406:
        assert reply.json["offered"]


def test_other_methods(client: Client, ct: list[Stored]) -> None:
    reply = client.request("DELETE", ct[0].study)
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, POST, HEAD, OPTIONS"
    assert client.request("PUT", ct[0].path).json["code"] == "WEB-03"


# --- metadata


def test_metadata_at_three_levels(client: Client, ct: list[Stored]) -> None:
    reply = client.get(ct[0].series + "/metadata", "application/dicom+json")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/dicom+json")
    found = reply.json
    assert [item["00080018"]["Value"][0] for item in found] == [file.data.SOPInstanceUID for file in ct]
    assert client.get(ct[0].study + "/metadata").json == found
    assert client.get(ct[2].path + "/metadata").json == [found[2]]
    assert found[1]["00100010"]["Value"][0]["Alphabetic"] == str(ct[1].data.PatientName)
    uri = found[3]["7FE00010"]["BulkDataURI"]
    assert uri == f"{client.server.url}{ct[3].path}/bulkdata/7FE00010"
    assert client.get("/" + uri.partition("/dicomweb/")[2]).body == ct[3].data.PixelData


def test_metadata_is_compressed_and_cached(client: Client, ct: list[Stored]) -> None:
    path = ct[0].series + "/metadata"
    plain = client.get(path, Accept_Encoding="identity").body
    for coding in ("gzip", "zstd"):
        for _ in range(4):  # either worker, before and after it has the body ready
            reply = client.get(path, Accept_Encoding=coding)
            assert reply.headers["content-encoding"] == coding
            assert "Accept-Encoding" in reply.headers["vary"]
            assert expanded(coding, reply.body) == plain
            etag = reply.headers["etag"]
        assert client.get(path, Accept_Encoding=coding, If_None_Match=etag).status == 304
    assert client.get(path, Accept_Encoding="br").body == plain
    [more] = demo.head_slices(1, rows=32, name="wado cached")
    client.store(more)
    lonely = Stored(more)
    before = client.get(lonely.series + "/metadata")
    data = lonely.data
    data.SOPInstanceUID += ".1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    out = io.BytesIO()
    data.save_as(out)
    client.store(out.getvalue())
    after = client.get(lonely.series + "/metadata", If_None_Match=before.headers["etag"])
    assert (len(before.json), after.status, len(after.json)) == (1, 200, 2)


def expanded(coding: str, body: bytes) -> bytes:
    if coding == "gzip":
        return gzip.decompress(body)
    return zstandard.ZstdDecompressor().decompressobj().decompress(body)


# --- instances


def test_instances_come_back_as_they_were_sent(client: Client, ct: list[Stored]) -> None:
    single = client.get(ct[0].path, "application/dicom; transfer-syntax=*")
    assert single.body == ct[0].file
    part = client.get(ct[0].path, "application/dicom; transfer-syntax=*", Range="bytes=100-299")
    assert (part.status, part.body) == (206, ct[0].file[100:300])
    for path in (ct[0].series, ct[0].study):
        reply = client.get(path, DICOM_PARTS)
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert [data for _, data in reply.parts] == [file.file for file in ct]
        assert {headers["Content-Type"] for headers, _ in reply.parts} == {
            f"application/dicom; transfer-syntax={ct[0].data.file_meta.TransferSyntaxUID}"
        }
    assert [data for _, data in client.get(ct[1].path).parts] == [ct[1].file]
    assert client.get(ct[0].series, "application/dicom").status == 406


def test_explicit_vr_little_endian_when_no_syntax_is_named(client: Client, shared_data: Path) -> None:
    files = (shared_data / "transfer-syntax" / "one-ct-in-many").glob("*")
    for number, path in enumerate(sorted(files)):
        content = path.read_bytes()
        stored = Stored(content)
        name = stored.data.file_meta.get("TransferSyntaxUID", "")
        if not name.is_compressed or "SOPInstanceUID" not in stored.data:
            continue
        uid = stored.data.SOPInstanceUID
        fresh = f"{uid[:-6]}{800_000 + number}"  # the files share one UID
        content = content.replace(uid.encode(), fresh.encode())
        client.store(content)
        stored = Stored(content)
        reply = client.get(stored.path, "application/dicom")
        assert reply.status == 200, (path.name, reply.body[:200])
        back = pydicom.dcmread(io.BytesIO(reply.body))
        assert back.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert back.Rows * back.Columns * back.BitsAllocated // 8 == len(back.PixelData)
        assert client.get(stored.path, "application/dicom; transfer-syntax=*").body == content


def test_a_study_is_sent_whole_whatever_is_in_it(client: Client) -> None:
    """What cannot be decoded comes as it was received, and says so; what is long comes in one part, too."""
    image, damaged, long = (Stored(file) for file in demo.head_slices(3, rows=64, name="wado mixed"))
    client.store(image.file)
    damaged = stored_as_jpeg_ls(client, damaged.data, [b"\xff\xd8\xff\xf7 no codestream"])
    long.data.add_new(0x00091001, "OB", random.Random(2).randbytes(600 << 10))
    long = stored_again(client, long.data)
    found = {}
    for headers, body in client.get(image.study, 'multipart/related; type="application/dicom"').parts:
        found[pydicom.dcmread(io.BytesIO(body), stop_before_pixels=True).SOPInstanceUID] = headers, body
    native, jpeg_ls = "application/dicom; transfer-syntax=1.2.840.10008.1.2.1", pydicom.uid.JPEGLSLossless
    assert found == {
        image.data.SOPInstanceUID: ({"Content-Type": native}, image.file),
        damaged.data.SOPInstanceUID: ({"Content-Type": f"application/dicom; transfer-syntax={jpeg_ls}"}, damaged.file),
        long.data.SOPInstanceUID: ({"Content-Type": native}, long.file),
    }
    assert client.get(damaged.path, "application/dicom").status == 406
    refusing = f'multipart/related; type="application/dicom", application/dicom; transfer-syntax={jpeg_ls};q=0'
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        client.get(image.study, refusing)


# --- bulk data


def test_bulk_data_with_ranges(client: Client, long: Stored) -> None:
    path = long.path + "/bulkdata/7FE00010"
    reply = client.get(path, "application/octet-stream")
    assert reply.body == long.data.PixelData
    assert client.get(path, "*/*", Range="bytes=1000-1999").body == long.data.PixelData[1000:2000]
    [(headers, data)] = client.get(path, 'multipart/related; type="application/octet-stream"').parts
    assert (headers["Content-Type"], data) == (NATIVE, long.data.PixelData)
    assert client.get(path, "image/png").status == 406
    assert client.get(path, "image/png, application/octet-stream").body == long.data.PixelData


def stored_as_jpeg_ls(client: Client, data: pydicom.Dataset, frames: list[bytes]) -> Stored:
    data.NumberOfFrames = len(frames)
    data.PixelData = pydicom.encaps.encapsulate(frames, has_bot=False)
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    return stored_again(client, data)


def stored_again(client: Client, data: pydicom.Dataset) -> Stored:
    out = io.BytesIO()
    data.save_as(out)
    client.store(out.getvalue())
    return Stored(out.getvalue())


@pytest.mark.parametrize("frames", [1, 2])
def test_bulk_data_of_compressed_pixels_is_its_frames(client: Client, frames: int) -> None:
    data = Stored(next(demo.head_slices(1, rows=64, name=f"wado bulk {frames}"))).data
    encoded = [imagecodecs.jpegls_encode(np.roll(data.pixel_array, number, axis=0)) for number in range(frames)]
    encoded = [frame + bytes(len(frame) % 2) for frame in encoded]
    path = stored_as_jpeg_ls(client, data, encoded).path + "/bulkdata/7FE00010"
    found = client.get(path, VIEWER).parts
    part = {"Content-Type": "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80"}
    assert found == [(part, frame) for frame in encoded]


def test_frames_that_are_not_there(client: Client) -> None:
    """Pixel data that ends early has those before; of fragments that no frame can be made of, the value is there."""
    data = Stored(next(demo.head_slices(1, rows=64, name="wado short"))).data
    frame = data.PixelData
    data.NumberOfFrames = 3
    data.PixelData = 2 * frame + frame[:-2]
    short = stored_again(client, data)
    assert client.get(short.path + "/frames/2", "application/octet-stream").body == frame
    for numbers in ("3", "4", "1,3"):
        reply = client.get(f"{short.path}/frames/{numbers}")
        assert (reply.status, reply.json["code"]) == (404, "ARC-01")
    data = Stored(next(demo.head_slices(1, rows=64, name="wado fragments"))).data
    pieces = stored_as_jpeg_ls(client, data, [b"of what", b" frame", b" is this"])
    pieces.data.NumberOfFrames = 2
    pieces.data.SOPInstanceUID = pieces.data.file_meta.MediaStorageSOPInstanceUID = pieces.data.SOPInstanceUID + ".1"
    pieces = stored_again(client, pieces.data)
    for view in ("/frames/1", "/rendered"):
        assert client.get(pieces.path + view).status == 404
    value = client.get(pieces.path + "/bulkdata/7FE00010", "*/*")
    assert (value.headers["content-type"], value.body) == ("application/octet-stream", b"of what\0 frame is this")
    data = Stored(next(demo.head_slices(1, rows=64, name="wado undescribed"))).data
    del data.Rows
    [(_, found)] = client.get(stored_as_jpeg_ls(client, data, [b"undescribed "]).path + "/frames/1", VIEWER).parts
    assert found == b"undescribed "


def test_a_value_too_long_to_be_held_is_sent_in_pieces(client: Client) -> None:
    data = pydicom.dcmread(io.BytesIO(next(demo.head_slices(1, rows=64, name="wado long value"))))
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    del data.PixelData
    value = random.Random(1).randbytes(1 << 16) * ((33 << 20) >> 16)
    data.EncapsulatedDocument = value
    path = stored_again(client, data).path + "/bulkdata/00420011"
    alone = client.get(path, "application/octet-stream")
    assert int(alone.headers["content-length"]) == len(value) and alone.body == value
    end = client.get(path, 'multipart/related; type="application/octet-stream"', Range="bytes=-1000")
    boundary = re.search(r"boundary=(\w+)", end.headers["content-type"])
    assert boundary
    head = f"--{boundary[1]}\r\nContent-Type: {NATIVE}\r\n\r\n".encode()
    tail = f"\r\n--{boundary[1]}--\r\n".encode()
    assert (end.status, end.body) == (206, (value[-1000:] + tail)[-1000:])
    total = len(head) + len(value) + len(tail)
    assert end.headers["content-range"] == f"bytes {total - 1000}-{total - 1}/{total}"


# --- cross-origin requests and URLs


def test_cors(client: Client, ct: list[Stored]) -> None:
    path = ct[0].path + "/frames/1"
    reply = client.get(path, VIEWER, Origin="http://localhost:3000")
    assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
    exposed = {name.strip() for name in reply.headers["access-control-expose-headers"].split(",")}
    assert exposed >= {
        "Content-Length", "Content-Range", "Content-Type", "Content-Location", "Accept-Ranges", "ETag", "Last-Modified",
        "Location", "Warning", "Retry-After", "X-Total-Count",
    }  # fmt: skip
    for origin in ("https://evil.example", "http://localhost.evil.example", "null"):
        assert "access-control-allow-origin" not in client.get(path, VIEWER, Origin=origin).headers
    error = client.get("/studies/1.2.3.4.5.6.7/metadata", Origin="http://127.0.0.1:8042")
    assert error.headers["access-control-allow-origin"] == "http://127.0.0.1:8042"
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "GET",
             "Access-Control-Request-Headers": "range,accept"}  # fmt: skip
    preflight = client.request("OPTIONS", path, asked)
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-headers"] == "range,accept"
    assert "GET" in preflight.headers["access-control-allow-methods"]
    assert int(preflight.headers["access-control-max-age"]) >= 3600
    evil = client.request("OPTIONS", path, {**asked, "Origin": "https://evil.example"})
    assert "access-control-allow-methods" not in evil.headers


def test_a_host_that_is_none_is_refused(client: Client, ct: list[Stored]) -> None:
    for host in ('evil"/><script>', "a b", "x/y", "x\\y"):
        assert client.get(ct[0].path + "/metadata", Host=host).status == 400
    found = client.get(ct[0].path + "/metadata", Host="pacs:8443", X_Forwarded_Proto="https")
    assert b"http://pacs:8443/dicomweb/studies/" in found.body


def test_a_query_that_is_too_long_is_refused(client: Client) -> None:
    longest = "PatientName=" + "x" * ((32 << 10) - len("PatientName="))
    assert client.get(f"/studies?{longest}").json == []
    refused = client.get(f"/studies?{longest}x")
    assert (refused.status, refused.json["code"]) == (400, "QRY-01")


def test_every_path_answers_hostile_text_with_json(client: Client) -> None:
    hostile = ["%00", "%ff", "..%2f..", "'", '"', "<script>", "{study}", "*", "a" * 4000, "1/../x", "%", "%%%", ";"]
    for text in hostile:
        for path in (f"/studies/{text}", f"/studies/1/series/{text}", f"/studies/1/series/2/instances/3/frames/{text}",
                     f"/studies/1/series/2/instances/3/bulkdata/{text}", f"/{text}", f"/studies?{text}",
                     f"/studies/1/series/2/instances/3/rendered?window={text}"):  # fmt: skip
            reply = client.request("GET", path.replace(" ", "%20"))
            assert 200 <= reply.status < 500, path
            if reply.status >= 400:
                assert json.loads(reply.body)["code"]


def test_the_log_quotes_no_values_of_odd_files(start_server: StartServer, archive_dir: Path) -> None:
    server = start_server(archive_dir, workers=1)
    client = Client(server)
    stored = Stored(next(demo.head_slices(1, rows=32, name="odd")))
    file = stored.file.replace(b"ISO_IR 1", b"ISO-IR 1")
    assert file != stored.file
    client.store(file)
    answer = client.get(stored.path, "application/dicom; transfer-syntax=1.2.840.10008.1.2")
    assert answer.status == 200 and b"ISO-IR 1" in answer.body
    client.close()
    server.stop()
    assert "ISO-IR" not in server.log


def test_a_flipped_bit_is_an_alarm_and_never_an_image(start_server: StartServer, archive_dir: Path) -> None:
    server = start_server(archive_dir, workers=1)
    client = Client(server)
    stored = Stored(next(demo.head_slices(1, rows=128, name="flipped")))
    client.store(stored.file)
    codestream = client.get(stored.path + "/frames/1", "image/jphc").body
    files = (path for path in (archive_dir / "studies").rglob("*") if path.is_file())
    [shard] = [path for path in files if codestream in path.read_bytes()]
    content = bytearray(shard.read_bytes())
    content[content.index(codestream) + len(codestream) // 2] ^= 1
    shard.write_bytes(content)
    views = ("/frames/1", "/rendered", "/thumbnail", "/bulkdata/7FE00010")
    others = [("/frames/1", "application/octet-stream"), ("", "application/dicom")]
    for path, accept in [(view, "*/*") for view in views] + others:
        reply = client.get(stored.path + path, accept)
        assert (reply.status, reply.json["code"]) == (500, "STO-02"), path
    assert client.get(stored.path + "/metadata").status == 200
    client.close()
    server.stop()
    assert server.log.count("ALARM") >= len(views)
