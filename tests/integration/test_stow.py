"""Uploads over real sockets: what is stored, what is refused, and what the answer says. PS3.18 10.5"""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacs import demo
from pacs.dicomweb import intake, stow
from tests.conftest import Server, StartServer

BOUNDARY = "part-boundary"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def body_of(*parts: bytes, end: bytes = b"--\r\n", part_type: str = "application/dicom") -> bytes:
    head = f"\r\nContent-Type: {part_type}\r\n\r\n".encode()
    delimiter = b"--" + BOUNDARY.encode()
    return b"".join(b"\r\n" + delimiter + head + part for part in parts) + b"\r\n" + delimiter + end


def post(
    server: Server, body: Any, *, path: str = "/dicomweb/studies", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any], dict[str, str]]:
    connection = server.connect()
    try:
        connection.request("POST", path, body, {"Content-Type": TYPE, **(headers or {})})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}"), dict(response.getheaders())
    finally:
        connection.close()


def slices(name: str, count: int = 2) -> list[bytes]:
    return list(demo.head_slices(count, rows=32, name=f"stow {name}"))


def sop(file: bytes) -> tuple[str, str, str]:
    data = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
    return data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID


def path_of(file: bytes) -> str:
    study, series, instance = sop(file)
    return f"/dicomweb/studies/{study}/series/{series}/instances/{instance}"


def download(server: Server, file: bytes) -> tuple[int, bytes]:
    connection = server.connect()
    try:
        connection.request("GET", path_of(file), headers={"Accept": "application/dicom; transfer-syntax=*"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def items(module: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return module.get(tag, {}).get("Value", [])


def reasons(module: dict[str, Any], tag: str = "00081198") -> list[int]:
    return [item["00081197"]["Value"][0] for item in items(module, tag)]


def changed(file: bytes) -> bytes:
    """The same SOP Instance UID with another pixel."""
    return file[:-1] + bytes([file[-1] ^ 1])


def test_a_series_is_stored_and_comes_back(server: Server) -> None:
    files = slices("series", 3)
    status, module, headers = post(server, body_of(*files))
    assert status == 200, module
    assert headers["Content-Type"] == "application/dicom+json"
    study = sop(files[0])[0]
    assert module["00081190"] == {"vr": "UR", "Value": [f"{server.url}/studies/{study}"]}
    stored = items(module, "00081199")
    assert [item["00081155"]["Value"][0] for item in stored] == [sop(file)[2] for file in files]
    assert all(item["00081190"]["Value"][0].startswith(f"{server.url}/studies/{study}/series/") for item in stored)
    assert "00081198" not in module and "0008119A" not in module
    for file in files:
        assert download(server, file) == (200, file)


def test_the_same_again_is_a_success_and_other_bytes_a_conflict(server: Server) -> None:
    first, second = slices("again")
    assert post(server, body_of(first))[0] == 200
    assert post(server, body_of(first, first))[0] == 200
    status, module, _ = post(server, body_of(changed(first)))
    assert (status, reasons(module)) == (409, [0x0111])
    [item] = items(module, "00081198")
    assert (item["00081150"]["Value"], item["00081155"]["Value"]) == ([CTImageStorage], [sop(first)[2]])
    status, module, _ = post(server, body_of(changed(first), second))
    assert (status, reasons(module), len(items(module, "00081199"))) == (202, [0x0111], 1)
    assert download(server, first) == (200, first)


def test_a_broken_part_does_not_fail_its_neighbours(server: Server) -> None:
    first, second = slices("broken")
    nameless = Dataset()
    nameless.PatientName = "No^Uid"
    broken = [b"", b"not DICOM at all", first[:100], b"\0" * 128 + b"DICM" + b"\xff" * 500, part10(nameless)]
    status, module, _ = post(server, body_of(first, *broken, second))
    assert status == 202
    assert len(items(module, "00081199")) == 2
    others = items(module, "0008119A")
    assert len(others) + len(items(module, "00081198")) == len(broken)
    assert all(item["00000902"]["Value"][0] for item in others)
    assert download(server, first)[0] == download(server, second)[0] == 200


def part10(data: Dataset) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = getattr(data, "SOPInstanceUID", "1.2.3")
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


def test_a_study_may_be_named(server: Server) -> None:
    ours, other = slices("named"), slices("other")
    study = sop(ours[0])[0]
    status, module, _ = post(server, body_of(ours[0], other[0]), path=f"/dicomweb/studies/{study}")
    assert (status, reasons(module)) == (202, [0xA900])
    status, module, _ = post(server, body_of(other[0]), path=f"/dicomweb/studies/{study}")
    assert (status, reasons(module)) == (409, [0xA900])
    assert download(server, other[0])[0] == 404
    assert post(server, body_of(ours[1]), path="/dicomweb/studies/1..2")[0] == 400


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/octet-stream"}, b"x", 415),
        ({"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=a'}, b"--a--", 415),
        ({"Content-Type": "multipart/form-data; boundary=a"}, b"--a--", 415),
        ({"Content-Type": 'multipart/related; type="application/dicom"'}, b"--a--", 400),
        ({"Content-Type": f"multipart/related; boundary={'b' * 257}"}, b"--a--", 400),
        ({}, b"", 400),
        ({}, b"--another\r\n\r\nx\r\n--another--", 400),
        ({}, body_of(), 400),
        ({"Content-Encoding": "compress"}, b"x", 415),
        ({"Content-Encoding": "gzip"}, b"this is not gzip", 400),
    ],
)
def test_requests_that_are_no_upload(
    server: Server, headers: dict[str, str], body: bytes, status: int
) -> None:
    found, told, _ = post(server, body, headers=headers)
    assert found == status
    assert set(told) >= {"code", "message"}


def test_parts_of_other_types_are_refused_one_by_one(server: Server) -> None:
    first, second = slices("types")
    delimiter = b"--" + BOUNDARY.encode()
    body = delimiter + b"\r\nContent-Type: text/plain\r\n\r\n" + first + b"\r\n"
    body += delimiter + b"\r\n\r\n" + second + b"\r\n" + delimiter + b"--"
    status, module, _ = post(server, body)
    assert (status, reasons(module, "0008119A"), len(items(module, "00081199"))) == (202, [0xC000], 1)


def test_a_body_cut_off_inside_a_part(server: Server) -> None:
    first, second = slices("cut")
    body = body_of(first, second)
    status, module, _ = post(server, body[: -len(second) // 2])
    assert (status, reasons(module, "0008119A")) == (202, [0xC000])
    assert download(server, first)[0] == 200
    assert download(server, second)[0] == 404


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "X-GZIP", "identity"])
def test_a_coded_body_as_long_as_those_that_are_read_past_aiohttp(server: Server, coding: str) -> None:
    body = body_of(*slices(f"long {coding}", 24))
    sent = gzip.compress(body, 0) if "zip" in coding.lower() else body
    assert len(sent) > intake._SMALLEST
    assert post(server, sent, headers={"Content-Encoding": coding})[0] == 200


def test_chunked_compressed_and_expecting_uploads(server: Server) -> None:
    chunked, compressed, expecting, tiny = slices("transfer", 4)
    body = body_of(chunked)
    assert post(server, iter([body[:10], body[10:700], body[700:]]))[0] == 200
    assert post(server, gzip.compress(body_of(compressed)), headers={"Content-Encoding": "gzip"})[0] == 200
    with raw(server) as (connection, answer):
        body = body_of(expecting)
        head = f"POST /dicomweb/studies HTTP/1.1\r\nHost: {server.address}\r\nContent-Type: {TYPE}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answer.readline() == b"\r\n"
        connection.sendall(body)
        assert answer.readline().startswith(b"HTTP/1.1 200")
    with raw(server) as (connection, answer):
        body = body_of(tiny)
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), 97):
            connection.sendall(body[start : start + 97])
        assert answer.readline().startswith(b"HTTP/1.1 200")
    assert download(server, tiny) == (200, tiny)


class raw:
    """A plain socket to the server and a file to read its answer from."""

    def __init__(self, server: Server) -> None:
        host, port = server.address.split(":")
        self.connection = socket.create_connection((host, int(port)), timeout=120)

    def __enter__(self) -> tuple[socket.socket, io.BufferedReader]:
        self.answer = self.connection.makefile("rb")
        return self.connection, self.answer

    def __exit__(self, *_: object) -> None:
        self.answer.close()
        self.connection.close()


def until(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_client_that_vanishes_leaves_what_was_complete(start_server: StartServer, archive_dir: Path) -> None:
    server = start_server(archive_dir, workers=1, env={"PACS_SPOOL_THRESHOLD": "1000"})
    first, second = slices("vanish")
    before = open_files(server)
    for _ in range(5):
        with raw(server) as (connection, _answer):
            head = f"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\n"
            head += "Content-Length: 10000000\r\n\r\n"
            connection.sendall(head.encode() + body_of(first, second)[: -len(second) // 2])
            until(lambda: download(server, first)[0] == 200)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert download(server, second)[0] == 404
    until(lambda: open_files(server) <= before)
    # Nobody waits for the memory of the lost uploads: a whole one still goes through.
    assert post(server, body_of(first, second))[0] == 200


def large(name: str, count: int) -> list[bytes]:
    """Slices of which a body is read past aiohttp (`dicomweb.intake`)."""
    return list(demo.head_slices(count, rows=256, name=f"stow {name}"))


def test_requests_behind_each_other_on_one_connection(server: Server) -> None:
    files = large("pipelined", 4)
    requests = b"".join(
        f"POST /dicomweb/studies HTTP/1.1\r\nHost: {server.address}\r\nContent-Type: {TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        for body in map(body_of, files)
    )
    for cut in (0, 1, 200, len(requests) // 3, len(requests) - 1):
        with raw(server) as (connection, answer):
            connection.sendall(requests[:cut])
            connection.sendall(requests[cut:])
            for _ in files:
                assert answer.readline().startswith(b"HTTP/1.1 200")
                length = 0
                while (line := answer.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                assert b"00081199" in answer.read(length)
    assert all(download(server, file) == (200, file) for file in files)


def test_what_was_complete_of_a_short_body_is_stored(server: Server) -> None:
    first, second = large("short body", 2)
    with raw(server) as (connection, _):
        body = body_of(first, second)
        head = f"POST /dicomweb/studies HTTP/1.1\r\nHost: {server.address}\r\nContent-Type: {TYPE}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: -len(second) // 2])
        connection.shutdown(socket.SHUT_WR)
        until(lambda: download(server, first)[0] == 200)
    assert download(server, second)[0] == 404


def open_files(server: Server) -> int:
    """Spool files that the workers hold open."""
    found = 0
    for pid in server.workers:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found += "(deleted)" in str(link.readlink())
            except OSError:
                continue
    return found


def test_leading_zeros_are_accepted_with_a_warning(server: Server) -> None:
    file = slices("zeros")[0]
    uid = sop(file)[2].encode()
    zeros = uid[:-4] + b".007"
    status, module, _ = post(server, body_of(file.replace(uid, zeros)))
    assert status == 202
    assert "leading zero" in items(module, "00081199")[0]["00000902"]["Value"][0]


def test_the_uid_of_the_data_set_counts(server: Server) -> None:
    file = slices("uids")[0]
    uid = sop(file)[2].encode()
    other = uid[:-1] + bytes([uid[-1] ^ 1])
    named_otherwise = file.replace(uid, other, 1)  # in the File Meta Information, which comes first
    status, module, _ = post(server, body_of(named_otherwise))
    [item] = items(module, "00081199")
    assert (status, item["00081155"]["Value"]) == (202, [uid.decode()])
    assert "the Data Set's is kept" in item["00000902"]["Value"][0]
    assert download(server, file) == (200, named_otherwise)


def test_a_uid_that_is_none_is_refused_with_its_reason(server: Server) -> None:
    file = slices("no uid")[0]
    study, _, instance = sop(file)
    for uid in (study, instance):
        for wrong in (uid[:-1] + "x", uid[:-1] + ".", "\0" * len(uid)):
            status, module, _ = post(server, body_of(file.replace(uid.encode(), wrong.encode())))
            told = items(module, "00081198") + items(module, "0008119A")
            assert (status, [item["00081197"]["Value"] for item in told]) == (409, [[0xA900]]), wrong
            assert "Instance UID" in told[0]["00000902"]["Value"][0]


def test_a_full_disk_asks_to_come_back_later(start_server: StartServer, archive_dir: Path) -> None:
    """The largest file that a process may write stands in for a full disk."""
    server = start_server(archive_dir, workers=1)
    first, second = slices("full")
    assert post(server, body_of(first))[0] == 200
    worker = psutil.Process(server.workers[0])
    import resource

    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    status, module, headers = post(server, body_of(second))
    assert (status, reasons(module)) == (503, [0xA700])
    assert int(headers["Retry-After"]) > 0
    assert download(server, first) == (200, first)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert post(server, body_of(second))[0] == 200
    assert download(server, second) == (200, second)


# --- memory -------------------------------------------------------------------------------------------------------


def long_multi_frame(frames: int, *, flat: bool, rows: int = 512) -> Iterator[bytes]:
    """A multi-frame file in pieces, never whole in memory here either; flat frames are quickly encoded."""
    data = pydicom.dcmread(io.BytesIO(slices(f"long {frames}", 1)[0]))
    pixels = data.PixelData[:2] if flat else data.PixelData
    frame = (pixels * (rows * rows * 2 // len(pixels) + 1))[: rows * rows * 2]
    data.Rows = data.Columns = rows
    data.NumberOfFrames = frames
    data.PixelData = b"\1\2\3\4" * 8
    out = io.BytesIO()
    data.save_as(out)
    whole = out.getvalue()
    at = whole.index(b"\1\2\3\4" * 8)
    yield whole[: at - 4] + (frames * len(frame)).to_bytes(4, "little")
    for _ in range(frames):
        yield frame
    yield whole[at + 32 :]


@pytest.mark.parametrize("frames", [pytest.param(600, id="300MB"), pytest.param(4000, id="2GB")])
def test_memory_stays_bounded_whatever_is_uploaded(start_server: StartServer, archive_dir: Path, frames: int) -> None:
    if frames > 1000 and not os.environ.get("TEST_LARGE_UPLOADS"):
        pytest.skip("set TEST_LARGE_UPLOADS=1 for a part of 2 GB")
    server = start_server(archive_dir, workers=1)
    worker = psutil.Process(server.workers[0])
    most = 0

    def body() -> Iterator[bytes]:
        nonlocal most
        head, _, tail = body_of(b"|").partition(b"|")
        yield head
        for number, piece in enumerate(long_multi_frame(frames, flat=frames > 1000)):
            if number % 50 == 0:
                most = max(most, worker.memory_info().rss)
            yield piece
        yield tail

    connection = server.connect(timeout=600)
    connection.request("POST", "/dicomweb/studies", body(), {"Content-Type": TYPE}, encode_chunked=True)
    while not _readable(connection.sock):
        most = max(most, worker.memory_info().rss)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    connection.close()
    assert most < 200 << 20, f"{most >> 20} MB"


def _readable(connection: socket.socket) -> bool:
    import select

    return bool(select.select([connection], [], [], 0.05)[0])


def test_parts_are_counted(server: Server) -> None:
    """A few kilobytes, compressed, could begin millions of parts, each of which has to be answered."""
    body = gzip.compress(b"--%s\r\nContent-Type: x\r\n\r\n\r\n" % BOUNDARY.encode() * (stow.MAX_PARTS + 1), 1)
    status, answer, _ = post(server, body, headers={"Content-Encoding": "gzip"})
    assert (status, answer["code"]) == (413, "WEB-06")


def test_a_content_type_of_any_bytes(server: Server) -> None:
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(
            b"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: \xff/x\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 415 ") and json.loads(body)["code"] == "WEB-05"
