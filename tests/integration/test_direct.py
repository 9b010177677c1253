"""Frames that are answered without a request object: the same bytes as from the general handler, or left to it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pacs import demo
from pacs.archive import Archive
from pacs.dicomweb.answer import SLICE
from pacs.dicomweb.app import Dicomweb
from pacs.dicomweb.worker import _Protocol, _Server
from pacs.settings import Settings
from tests.integration.exchange import Stored
from tests.objects import images

STORED = "multipart/related; type=application/octet-stream; transfer-syntax=*"
SETTINGS = Settings(cors_origins=("http://viewer.example",))


class Here:
    """The server in this process, one connection to it, and whether requests were answered directly."""

    def __init__(self, handler: Dicomweb, server: _Server, path: str) -> None:
        self.handler = handler
        self.server = server
        self.path = path
        self.direct: list[bool] = []
        answer = handler.direct.answer

        def told(*request: object) -> bool:
            self.direct.append(answer(*request))  # type: ignore[arg-type]
            return self.direct[-1]

        handler.direct.answer = told  # type: ignore[method-assign, assignment]

    async def connect(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what the server does beside."""
        async with asyncio.timeout(120):
            while not condition():  # noqa: ASYNC110 - it is seen from outside
                await asyncio.sleep(0)

    def request(self, path: str = "", *, method: str = "GET", accept: str = STORED, fields: str = "") -> bytes:
        head = f"{method} {path or self.path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n{fields}\r\n"
        return head.encode()

    async def answer(self, *, body: bool = True) -> tuple[bytes, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: ([0-9]+)", head)
        read = await self.reader.readexactly(int(length[1])) if body and length is not None else b""
        return re.sub(rb"\r\nDate: [^\r]*", b"", head), read

    async def asked(self, request: bytes, *, body: bool = True) -> tuple[bytes, bytes]:
        self.writer.write(request)
        return await self.answer(body=body)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Archive, Stored]]:
    file = next(demo.head_slices(1, rows=128, name="direct"))
    with Archive.open(tmp_path / "archive", create=True) as archive:
        archive.store(file)
        yield archive, Stored(file)


@pytest.fixture
async def here(archive: tuple[Archive, Stored]) -> AsyncIterator[Here]:
    handler = Dicomweb(archive[0], SETTINGS)
    server = _Server(handler)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    found = Here(handler, server, f"/dicomweb{archive[1].path}/frames/1")
    await found.connect(listening.sockets[0].getsockname()[1])
    await found.until(lambda: server.connections)
    yield found
    found.writer.close()
    listening.close()
    await server.shutdown(1)
    handler.close()


GENERAL = "X-Unknown: 1\r\n"


@pytest.mark.parametrize(
    "accept", [STORED, "image/jphc; transfer-syntax=*", "*/*", 'multipart/related; type="image/jphc"']
)
@pytest.mark.parametrize(
    "fields", ["", "Origin: http://viewer.example\r\n", "Origin: http://else.example\r\n", "Sec-Fetch-Mode: cors\r\n"]
)
async def test_the_same_bytes_as_from_the_general_handler(here: Here, accept: str, fields: str) -> None:
    direct = await here.asked(here.request(accept=accept, fields=fields))
    assert here.direct == [True]
    assert direct == await here.asked(here.request(accept=accept, fields=fields + GENERAL))
    assert here.direct == [True]
    assert direct[0].startswith(b"HTTP/1.1 200 OK\r\n") and len(direct[1]) > 1000
    assert await here.asked(here.request(accept=accept, fields=fields)) == direct
    assert here.direct == [True, True]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"fields": "Range: bytes=0-9\r\n"}, 206), ({"method": "HEAD"}, 200), ({"accept": "image/gif"}, 406),
        ({"fields": "If-None-Match: *\r\n"}, 304), ({"fields": "Accept: image/gif\r\n"}, 200),
        ({"accept": 'multipart/related; type="application/octet-stream"'}, 200), ({"path": "/dicomweb/nothing"}, 404),
        ({"fields": "Host: rebound.example\r\n"}, 400), ({"method": "DELETE"}, 405),
    ],
)  # fmt: skip
async def test_the_rest_is_left_to_the_general_handler(here: Here, change: dict[str, str], status: int) -> None:
    plain = await here.asked(here.request())
    head, _ = await here.asked(here.request(**change), body=change.get("method") != "HEAD")
    assert int(head.split()[1]) == status
    assert here.direct.count(True) == 1
    if status != 400:  # after which the connection ends
        assert await here.asked(here.request()) == plain


async def test_frames_that_are_not_there(here: Here) -> None:
    for path in (here.path[:-1] + "2", here.path[:-1] + "0", here.path.replace("instances/", "instances/1")):
        head, body = await here.asked(here.request(path))
        assert head.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")) and b'"message"' in body
    assert True not in here.direct


@pytest.mark.parametrize("cut", [3, -1])
async def test_a_request_in_two_pieces(here: Here, cut: int) -> None:
    whole = here.request()
    plain = await here.asked(whole)
    connection = next(iter(here.server.connections))
    assert isinstance(connection, _Protocol)
    here.writer.write(whole[:cut])
    while connection._between:  # noqa: ASYNC110 - what the server does is seen from outside
        await asyncio.sleep(0)
    assert await here.asked(whole[cut:]) == plain
    assert await here.asked(whole) == plain
    assert here.direct == [True]


async def test_answers_go_out_in_the_order_of_requests(here: Here) -> None:
    whole, with_body = here.request(), here.request(fields="Content-Length: 3\r\n") + b"GET"
    plain = await here.asked(whole)
    here.writer.write(whole + here.request(method="HEAD") + whole + with_body + whole)
    answers = [await here.answer(body=number != 1) for number in range(5)]
    assert [answer[0] for answer in answers] == [plain[0]] * 5
    assert [answer[1] for answer in answers] == [plain[1], b"", *[plain[1]] * 3]
    assert here.direct == [True]


async def test_a_body_is_not_taken_for_a_request(here: Here) -> None:
    whole = here.request()
    here.writer.write(here.request(fields=f"Content-Length: {len(whole)}\r\n"))
    await here.answer()
    here.direct.clear()
    here.writer.write(whole)  # the body
    assert (await here.asked(here.request(method="HEAD"), body=False))[0].startswith(b"HTTP/1.1 200 ")
    assert here.direct == []


@pytest.mark.parametrize("accept", [STORED, "*/*"])
async def test_frames_of_every_form(here: Here, archive: tuple[Archive, Stored], accept: str) -> None:
    for built in (*images.compressions(), images.native("native", [images.pattern(40, 40, 12)]), images.slide(2, 2)):
        archive[0].store(built.file)
        for number in (1, 2):
            path = f"/dicomweb{Stored(built.file).path}/frames/{number}"
            plain = await here.asked(here.request(path, accept=accept))
            assert plain == await here.asked(here.request(path, accept=accept, fields=GENERAL)), built.name
            assert plain == await here.asked(here.request(path, accept=accept)), built.name
    assert len(set(here.direct)) == 2


async def test_forms_are_not_remembered_without_end(here: Here) -> None:
    plain = await here.asked(here.request())
    for number in range(300):
        assert await here.asked(here.request(accept=f"{STORED}, image/x-{number}")) == plain
    assert len(here.direct) == 301 and all(here.direct)
    assert len(here.handler.direct._around) <= 256


@pytest.mark.parametrize("line", ["/frames/1 HTTP/1.1 x", "/frames/1 x", "/frames/1?", "/frames/1/", "/frames/1,1"])
async def test_a_request_line_with_more_in_it(here: Here, line: str) -> None:
    await here.asked(here.request(here.path.replace("/frames/1", line)))
    assert True not in here.direct


def _shard(archive: Archive, path: str) -> tuple[Path, int]:
    """The file that the frame is in, and where it begins."""
    (chunk,) = archive.located(*_named(path), 1).chunks
    return archive.root / chunk.path, chunk.offset


def _damaged(shard: Path, offset: int) -> bytes:
    data = bytearray(shard.read_bytes())
    data[offset + 100] ^= 1
    return bytes(data)


async def _refused(here: Here, log: pytest.LogCaptureFixture) -> None:
    log.clear()
    head, _ = await here.asked(here.request())
    assert head.startswith(b"HTTP/1.1 500 ") and here.direct[-1] is False
    assert "ALARM" in log.text


async def test_a_damaged_frame_is_not_sent(
    here: Here, archive: tuple[Archive, Stored], caplog: pytest.LogCaptureFixture
) -> None:
    shard, offset = _shard(archive[0], here.path)
    whole, plain = shard.read_bytes(), await here.asked(here.request())
    shard.write_bytes(_damaged(shard, offset))  # the file that is open
    await _refused(here, caplog)
    shard.write_bytes(whole)
    assert await here.asked(here.request()) == plain
    os.truncate(shard, offset + 200)
    await _refused(here, caplog)
    shard.write_bytes(whole)
    assert await here.asked(here.request()) == plain
    assert here.direct == [True, False, True, False, True]


async def test_another_file_in_the_place_of_a_shard(
    here: Here, archive: tuple[Archive, Stored], caplog: pytest.LogCaptureFixture
) -> None:
    shard, offset = _shard(archive[0], here.path)
    plain = await here.asked(here.request())
    aside, other = shard.with_name("aside"), shard.with_name("other")
    other.write_bytes(_damaged(shard, offset))
    shard.rename(aside)
    other.rename(shard)
    assert await here.asked(here.request()) == plain  # from the file that was there, and verified
    here.handler.service.observer.flush()
    await _refused(here, caplog)
    shard.unlink()
    await _refused(here, caplog)
    aside.rename(shard)
    assert await here.asked(here.request()) == plain
    assert here.direct == [True, True, False, False, True]


async def test_a_restored_archive_is_read_without_a_restart(here: Here, archive: tuple[Archive, Stored]) -> None:
    plain = await here.asked(here.request())
    studies = archive[0].root / "studies"
    shutil.copytree(studies, studies.with_name("copy"))
    _damage_all(studies)
    studies.rename(studies.with_name("lost"))
    studies.with_name("copy").rename(studies)
    assert await here.asked(here.request()) == plain
    assert here.direct == [True, True]


def _damage_all(studies: Path) -> None:
    for shard in studies.rglob("c.0*"):
        shard.write_bytes(bytes(shard.stat().st_size))


def _named(path: str) -> tuple[str, str, str]:
    _, _, _, study, _, series, _, instance, *_ = path.split("/")
    return study, series, instance


async def test_a_slow_reader_holds_no_more_than_another(here: Here, archive: tuple[Archive, Stored]) -> None:
    noise = np.random.default_rng(6).integers(0, 65536, (200, 200), np.uint16)
    file = images.native("direct noise", [noise]).file
    archive[0].store(file)
    request = here.request(f"/dicomweb{Stored(file).path}/frames/1")
    connection = next(iter(here.server.connections))
    most = 0

    def waiting() -> int:
        nonlocal most
        assert connection.transport is not None
        most = max(most, connection.transport.get_write_buffer_size())
        return most

    for _ in range(150):
        here.writer.write(request)
        await here.writer.drain()
        await asyncio.sleep(0)
        waiting()
    await here.until(waiting)
    assert 0 < most <= SETTINGS.write_buffer + 2 * SLICE
    lengths = {len((await here.answer())[1]) for _ in range(150)}
    assert len(lengths) == 1


async def test_what_is_counted(here: Here) -> None:
    began = here.handler.service.observer
    await here.asked(here.request())
    await here.asked(here.request(fields=GENERAL))
    assert here.direct == [True]
    routes = [route for route in began._routes.values() if route.kind == "frames"]
    await here.until(lambda: routes[0].in_flight == 0)  # its client has the answer before it is over
    assert [route.statuses for route in routes] == [{200: 2}]
    assert routes[0].in_flight == 0 and routes[0].seconds.counts and routes[0].sent > 2000
    assert here.handler.service.frames_at_once == 2


async def test_a_connection_in_use_is_kept(here: Here) -> None:
    connection = next(iter(here.server.connections))
    before = connection._next_keepalive_close_time
    await here.asked(here.request())
    assert here.direct == [True]
    assert connection._next_keepalive_close_time > before and connection._request_count == 1


async def test_a_server_that_ends_answers_with_the_general_handler(here: Here) -> None:
    await here.handler.finish(0)
    head, _ = await here.asked(here.request())
    assert here.direct == [False]
    assert head.startswith(b"HTTP/1.1 200 ") and await here.reader.read() == b""
