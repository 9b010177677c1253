"""The upload client against servers that behave as servers do: busy, broken, strict, gone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pacs import demo
from pacs.cli import USAGE, main
from pacs.client import answer, files, upload
from pacs.client.tally import NAMES_KEPT, Result, Status, Tally
from pacs.errors import UploadError
from tests.conftest import CtSlices

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Recorder:
    """A STOW-RS endpoint that answers as its script says and remembers what it was sent."""

    def __init__(self) -> None:
        self.requests: list[list[bytes]] = []
        self.script: list[Callable[[list[bytes]], web.Response]] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        assert len(body) == int(request.headers["Content-Length"])
        match = re.fullmatch(
            r'multipart/related; type="application/dicom"; boundary=(\w+)', request.headers["Content-Type"]
        )
        assert match is not None
        pieces = body.split(b"\r\n--" + match[1].encode())
        assert pieces[0] == b"" and pieces[-1] == b"--\r\n"
        parts = [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]]
        self.requests.append(parts)
        if self.script:
            return self.script.pop(0)(parts)
        return stored(parts)


def stored(parts: list[bytes]) -> web.Response:
    return report(referenced=[uid_of(part) for part in parts])


def report(
    referenced: list[str], failed: dict[str, int] | None = None, nameless: list[int] | None = None
) -> web.Response:
    def element(vr: str, value: object) -> dict[str, object]:
        return {"vr": vr, "Value": [value]}

    answer: dict[str, object] = {
        "00081199": {"vr": "SQ", "Value": [{"00081155": element("UI", uid)} for uid in referenced]},
        "00081198": {
            "vr": "SQ",
            "Value": [
                {"00081155": element("UI", uid), "00081197": element("US", reason)}
                for uid, reason in (failed or {}).items()
            ],
        },
        "0008119A": {"vr": "SQ", "Value": [{"00081197": element("US", reason)} for reason in nameless or []]},
    }
    status = 200 if not failed and not nameless else 202 if referenced else 409
    return web.Response(status=status, text=json.dumps(answer), content_type="application/dicom+json")


def uid_of(part: bytes) -> str:
    found = re.search(rb"\x08\0\x18\0UI..([0-9.]+)", part, re.DOTALL)
    return found[1].decode() if found else ""


@pytest.fixture
async def endpoint() -> AsyncIterator[tuple[str, Recorder]]:
    recorder = Recorder()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/dicomweb/studies", recorder.answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/dicomweb")), recorder


@pytest.fixture
def folder(tmp_path: Path, ct_slices: CtSlices) -> Path:
    for number, data in enumerate(ct_slices(5)):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    return tmp_path


async def send(url: str, *paths: Path, **options: int) -> tuple[Tally, list[Result]]:
    results: list[Result] = []
    target = upload.Target(url, patience=0.01, **options)
    return await upload.upload(files.walk(paths), target, results.append), results


async def test_files_arrive_whole_and_in_batches(endpoint: tuple[str, Recorder], folder: Path) -> None:
    url, recorder = endpoint
    tally, results = await send(url, folder, per_request=2, jobs=2)
    assert tally.files[Status.STORED] == 5 and tally.in_order
    assert sorted(map(len, recorder.requests)) == [1, 2, 2]
    sent = {part for request in recorder.requests for part in request}
    names = [folder / f"{number}.dcm" for number in range(5)]
    assert sent == {path.read_bytes() for path in names}
    assert {result.path for result in results} == set(names)


async def test_large_file_is_streamed_alone(endpoint: tuple[str, Recorder], folder: Path) -> None:
    url, recorder = endpoint
    large = folder / "large"
    large.write_bytes((folder / "0.dcm").read_bytes() + b"\xfe" * (upload.BATCH_BYTES + 12345))
    tally, _ = await send(url, folder, jobs=1)
    assert tally.files[Status.STORED] == 6
    assert [large.read_bytes()] in recorder.requests


async def test_busy_server_is_asked_again(endpoint: tuple[str, Recorder], folder: Path) -> None:
    url, recorder = endpoint
    recorder.script = [
        lambda _: web.Response(status=503, headers={"Retry-After": "1"}),
        lambda _: web.Response(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        lambda _: web.Response(status=503, headers={"Retry-After": "soon"}),
    ]
    tally, _ = await send(url, folder, jobs=1)
    assert tally.files[Status.STORED] == 5
    assert len(recorder.requests) == 4 and len(set(map(len, recorder.requests))) == 1


async def test_server_that_stays_busy_refuses_in_the_end(endpoint: tuple[str, Recorder], folder: Path) -> None:
    url, recorder = endpoint
    recorder.script = [lambda _: web.Response(status=503, headers={"Retry-After": "0"})] * upload.ATTEMPTS
    tally, _ = await send(url, folder, jobs=1)
    assert tally.files[Status.REFUSED] == 5 and not tally.in_order
    assert [reason for reason, _ in tally.groups(Status.REFUSED)] == ["HTTP status 503"]


async def test_refused_instances_are_told_by_file(endpoint: tuple[str, Recorder], folder: Path) -> None:
    url, recorder = endpoint
    uids = {number: uid_of((folder / f"{number}.dcm").read_bytes()) for number in range(5)}
    (folder / "5.dcm").write_bytes(b"\x08\0\x05\0CS\n\0ISO_IR 100")
    recorder.script = [
        lambda _: report([uids[0], uids[2], uids[4]], {uids[1]: 0x0111, uids[3]: 0xA701}, nameless=[0xC000])
    ]
    _, results = await send(url, folder, jobs=1)
    reasons = {result.path.name: result.reason for result in results}
    assert reasons == {
        "0.dcm": "", "2.dcm": "", "4.dcm": "",
        "1.dcm": "stored already with other bytes (0111H)",
        "3.dcm": "out of resources (A701H)",
        "5.dcm": "cannot be understood (C000H)",
    }  # fmt: skip


async def test_request_refused_as_a_whole_is_split(endpoint: tuple[str, Recorder], folder: Path) -> None:
    """Some servers answer 400 to a mixed request: one bad file must not take its neighbours along."""
    url, recorder = endpoint
    bad = (folder / "3.dcm").read_bytes()

    def strict(parts: list[bytes]) -> web.Response:
        return web.json_response({"code": "X", "message": "no"}, status=400) if bad in parts else stored(parts)

    recorder.script = [strict] * 20
    _, results = await send(url, folder, jobs=1)
    refused = [(result.path.name, result.detail) for result in results if result.status is Status.REFUSED]
    assert refused == [("3.dcm", "X: no")]
    assert len(results) == 5


async def test_file_that_vanishes_does_not_take_others_along(endpoint: tuple[str, Recorder], folder: Path) -> None:
    url, _ = endpoint
    found = list(files.walk([folder]))
    (folder / "1.dcm").unlink()
    (folder / "2.dcm").write_bytes(b"shorter")
    tally = await upload.upload(found, upload.Target(url, patience=0.01))
    assert tally.files[Status.STORED] == 3
    reasons = {reason: group.first[0][0].name for reason, group in tally.groups(Status.UNREADABLE)}
    assert reasons == {"no such file or directory": "1.dcm", "changed while it was read": "2.dcm"}


async def test_nobody_there(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/dicomweb"
        with pytest.raises(UploadError, match="nobody answers at"):
            await send(url, folder)


async def test_nobody_takes_the_connection(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full is silent, as a firewall is."""
    monkeypatch.setattr(upload, "CONNECT_SECONDS", 0.2)
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        target = upload.Target(f"http://127.0.0.1:{listener.getsockname()[1]}/dicomweb")
        with pytest.raises(UploadError, match="nobody answers"):
            await upload.upload(files.walk([folder]), target)


async def test_who_asks_for_a_password_is_told_of(endpoint: tuple[str, Recorder], folder: Path) -> None:
    endpoint[1].script = [lambda _: web.Response(status=401, text="")]
    with pytest.raises(UploadError, match=r"answered 401; it asks who is there: --header 'Authorization: "):
        await send(endpoint[0], folder)


async def test_wrong_root_stops_at_once(endpoint: tuple[str, Recorder], folder: Path) -> None:
    url, recorder = endpoint
    with pytest.raises(UploadError, match=r"404: .*DICOMweb root"):
        await send(url + "/nowhere", folder)
    assert recorder.requests == []


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1/x", "http://[::1"])
async def test_url_that_is_none(url: str, folder: Path) -> None:
    with pytest.raises(UploadError):
        await send(url, folder)


async def test_server_that_hangs_up_is_asked_again(folder: Path) -> None:
    calls = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        body = await request.read()
        if calls == 1:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return report([uid_of(part) for part in re.split(rb"\r\n--\w+", body)[1:-1]])

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/studies", answer)
    async with TestServer(app) as server:
        tally, _ = await send(str(server.make_url("/")), folder, jobs=1)
    assert tally.files[Status.STORED] == 5 and calls == 2


# --- which files -------------------------------------------------------------------------------------------------


def test_what_is_not_dicom_is_left_out(tmp_path: Path) -> None:
    ct = next(demo.head_slices(1, rows=32))
    (tmp_path / "a.dcm").write_bytes(ct)
    (tmp_path / "b-without-preamble").write_bytes(ct[132:])
    (tmp_path / "c.txt").write_text("not DICOM at all, just a longer text than eight bytes")
    (tmp_path / "d-empty").touch()
    (tmp_path / "e-DICOMDIR").write_bytes(ct[:144] + b"1.2.840.10008.1.3.10\0" + ct[144:])
    os.mkfifo(tmp_path / "f-fifo")
    (tmp_path / "g-dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "h-loop").symlink_to(tmp_path)
    (tmp_path / "i-self").symlink_to("i-self")
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "k.dcm").symlink_to(tmp_path / "a.dcm")
    path = str(tmp_path / "l-socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path) if len(path) < 100 else (tmp_path / "l-socket").touch()
        found = {item.path.name: item for item in files.walk([tmp_path])}
    assert sorted(name for name, item in found.items() if item.usable) == ["a.dcm", "b-without-preamble", "k.dcm"]
    assert {name: item.skipped for name, item in found.items() if item.skipped and name != "l-socket"} == {
        "c.txt": "not DICOM",
        "d-empty": "empty",
        "e-DICOMDIR": "a DICOMDIR, not an instance",
        "f-fifo": "not a regular file",
    }
    assert {name for name, item in found.items() if item.unreadable} == {"g-dangling", "i-self"}


def test_file_asked_for_by_name_must_be_dicom(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("some text that is not DICOM")
    (found,) = files.walk([tmp_path / "x"])
    assert found.unreadable == "not DICOM"
    (missing,) = files.walk([tmp_path / "y"])
    assert missing.unreadable == "no such file or directory"


def test_every_shared_file_looks_like_dicom(shared_data: Path, manifest: list[dict[str, str]]) -> None:
    skipped = {}
    for row in manifest:
        path = shared_data / row["path"]
        with path.open("rb") as file:
            reason = files.why_not_dicom(file.read(512), path.stat().st_size)
        if reason:
            skipped[row["path"]] = reason
    # The second lacks meta header and preamble, and begins with a stray byte: no Data Element to be seen.
    assert skipped == {
        "dicomdir/media-set/DICOMDIR": "a DICOMDIR, not an instance",
        "malformed/no_meta.dcm": "not DICOM",
    }


def test_tally_keeps_a_few_names_of_each_reason() -> None:
    tally = Tally()
    for number in range(1000):
        tally.add(Result(Path(f"{number}"), 10, Status.REFUSED, f"reason {number % 2}", "x"))
    ((_, group), _) = tally.groups(Status.REFUSED)
    assert group.count == 500 and len(group.first) == NAMES_KEPT
    assert tally.files[Status.REFUSED] == 1000 and tally.bytes[Status.REFUSED] == 10000


def test_tally_gathers_warnings_of_one_kind() -> None:
    tally = Tally()
    for number in range(5):
        tally.add(Result(Path("x"), 1, Status.STORED, warnings=(f"the meta header names '1.2.{number}'",)))
    ((kind, group),) = tally.warnings.items()
    assert kind == "the meta header names …" and group.count == 5
    assert group.first[1][1] == "the meta header names '1.2.1'"


def test_an_answer_that_names_nothing_says_nothing() -> None:
    assert answer.read(b'{"00081199": {"Value": [1, null, "x", {}]}}') is None
    assert answer.read(b"[" * 100_000) is None
    assert answer.explain(b"[" * 100_000) == "[" * 160


@pytest.mark.parametrize("header", ["no colon", ": x", "X y: z", "X: a\nb", "X: a\r\nB: c"])
def test_headers_that_are_none(header: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", ".", "--url", "http://127.0.0.1:1", "--header", header]) == USAGE
    assert "is not of the form" in capsys.readouterr().err
