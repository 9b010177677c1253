"""Connections as clients leave, keep and end them, over sockets, on the event loop that the server runs on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import io
import json
import re
import socket
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import uvloop

from pacs import demo
from pacs.archive import Archive
from pacs.dicomweb import qido, stow, worker
from pacs.dicomweb.app import Dicomweb
from pacs.dicomweb.intake import Intake
from pacs.settings import Settings

TYPE = 'multipart/related; type="application/dicom"; boundary=b'
SEARCH = b"GET /dicomweb/studies HTTP/1.1\r\nHost: localhost\r\n\r\n"


def head(length: int, path: str = "/dicomweb/studies", *fields: str, version: str = "1.1") -> bytes:
    """Of an upload."""
    lines = (f"POST {path} HTTP/{version}", "Host: localhost", f"Content-Type: {TYPE}", f"Content-Length: {length}")
    return "\r\n".join((*lines, *fields, "", "")).encode()


def body(*files: bytes) -> bytes:
    return b"".join(b"--b\r\n\r\n" + file + b"\r\n" for file in files) + b"--b--"


def slices(count: int, name: str, rows: int = 512) -> list[bytes]:
    return list(demo.head_slices(count, rows=rows, name=f"connections {name}"))


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Status and header lines of the next one, whose body is read over."""
        async with asyncio.timeout(120):
            lines = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\r\nContent-Length: ([0-9]+)", lines)
            await self.reader.readexactly(int(length[1]) if length is not None else 0)
        return int(lines.split()[1]), lines

    async def ended(self) -> bytes:
        """What still comes until the server closes the connection."""
        async with asyncio.timeout(120):
            return await self.reader.read()


class Here:
    """The server in this process."""

    def __init__(self, archive: Archive, handler: Dicomweb, server: worker._Server, port: int) -> None:
        self.archive, self.handler, self.server = archive, handler, server
        self._port = port
        self._clients: list[Client] = []

    async def connect(self, *, slow: bool = False) -> Client:
        """`slow`: the kernel takes little for it."""
        connection = socket.socket()
        if slow:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
        limit = 1 if slow else 1 << 16
        self._clients.append(Client(*await asyncio.open_connection(sock=connection, limit=limit)))
        return self._clients[-1]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(120):
            while not condition():  # noqa: ASYNC110 - what the server does is seen from outside
                await asyncio.sleep(0.005)

    def close(self) -> None:
        for client in self._clients:
            client.writer.close()


@contextlib.asynccontextmanager
async def serving(path: Path, settings: Settings | None = None) -> AsyncIterator[Here]:
    with Archive.open(path, create=True) as archive:
        handler = Dicomweb(archive, settings or Settings())
        server = worker._Server(handler)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        # Of connections too: so that little is enough for a reader who takes nothing.
        listening.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        here = Here(archive, handler, server, listening.sockets[0].getsockname()[1])
        try:
            yield here
        finally:
            here.close()
            listening.close()
            await server.shutdown(1)
            handler.close()


def run(path: Path, test: Callable[[Here], Coroutine[Any, Any, None]], settings: Settings | None = None) -> None:
    async def main() -> None:
        async with serving(path / "archive", settings) as here:
            await test(here)

    uvloop.run(main())


# --- what is held for uploads


@contextlib.contextmanager
def traced_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/dicomweb/studies", 200), ("/dicomweb/studies/1.2/series", 405), ("/dicomweb/studies/x", 400)],
)
def test_an_answered_upload_is_let_go_of(tmp_path: Path, path: str, status: int) -> None:
    count = 6
    files = slices(count, "held")

    async def test(here: Here) -> None:
        with contextlib.ExitStack() as tracing:
            await uploads(here, tracing)

    async def uploads(here: Here, tracing: contextlib.ExitStack) -> None:
        held = Intake.held
        for number, file in enumerate(files):
            client = await here.connect()
            data = body(file)
            await client.send(head(len(data), path))
            await here.until(lambda: Intake.held > held)
            await client.send(data)
            assert (await client.answer())[0] == status
            await here.until(lambda: Intake.held == held)
            if number == 0:
                gc.collect()
                tracing.enter_context(traced_memory())
        gc.collect()
        traced, _ = tracemalloc.get_traced_memory()
        assert len(here.server.connections) == count
        assert traced < sum(map(len, files[1:])) / 2

    run(tmp_path, test)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("path", ["/dicomweb/studies", "/dicomweb/studies/x"])
def test_of_a_client_that_is_gone_nothing_is_held(tmp_path: Path, path: str, reset: bool) -> None:
    (file,) = slices(1, "gone")

    async def test(here: Here) -> None:
        held = Intake.held
        gc.disable()
        try:
            client = await here.connect()
            data = body(file)
            await client.send(head(len(data), path) + data[:1000])
            await here.until(lambda: Intake.held > held)
            client.writer.transport.abort() if reset else client.writer.close()
            await here.until(lambda: Intake.held == held)
        finally:
            gc.enable()

    run(tmp_path, test)


# --- the end of the server


@pytest.mark.parametrize("refused", [False, True])
def test_when_the_server_ends(tmp_path: Path, refused: bool) -> None:
    """Idle connections end at once, others with the answer to what is in work, which says so."""
    (file,) = slices(1, "end", rows=64)
    data = b"no part" if refused else body(file)

    async def test(here: Here) -> None:
        uploading, idle, fresh = [await here.connect() for _ in range(3)]
        await idle.send(SEARCH)
        assert (await idle.answer())[0] == 200
        await uploading.send(head(len(data)) + data[:5])
        await here.until(lambda: here.handler.active and len(here.server.connections) == 3)
        ending = asyncio.ensure_future(worker._finish(here.handler, here.server, 120))
        assert await idle.ended() == await fresh.ended() == b""
        await uploading.send(data[5:])
        status, lines = await uploading.answer()
        assert status == (400 if refused else 200) and b"\r\nConnection: close\r\n" in lines
        assert await uploading.ended() == b""
        await ending

    run(tmp_path, test)


# --- requests behind each other


@pytest.mark.parametrize("uploads", [0, 1, 34])
def test_requests_behind_uploads_are_all_answered(tmp_path: Path, uploads: int) -> None:
    """aiohttp reads these bodies itself: they are too short for another way."""
    requests = 100

    async def test(here: Here) -> None:
        client = await here.connect()
        for file in slices(uploads, "pipelined", rows=64):
            data = body(file)
            await client.send(head(len(data)))
            await here.until(lambda: here.handler.active)
            await client.send(data)
            assert (await client.answer())[0] == 200
        await client.send(SEARCH * requests)
        assert [(await client.answer())[0] for _ in range(requests)] == [200] * requests

    run(tmp_path, test)


def test_requests_in_the_segment_that_ends_an_upload(tmp_path: Path) -> None:
    (file,) = slices(1, "same segment", rows=64)

    async def test(here: Here) -> None:
        client = await here.connect()
        data = body(file)
        await client.send(head(len(data)) + data[:5])
        await here.until(lambda: here.handler.active)
        await client.send(data[5:] + SEARCH * 100)
        assert [(await client.answer())[0] for _ in range(101)] == [200] * 101

    run(tmp_path, test)


def test_an_upgrade_that_is_not_known_here(tmp_path: Path) -> None:
    """aiohttp drops what follows it: that is told. Alone it is a request as others."""
    upgrade = SEARCH[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"

    async def test(here: Here) -> None:
        client = await here.connect()
        for _ in range(2):
            await client.send(upgrade)
            status, lines = await client.answer()
            assert status == 200 and b"Connection: close" not in lines
        await client.send(upgrade + SEARCH * 3)
        status, lines = await client.answer()
        assert status == 200 and b"\r\nConnection: close\r\n" in lines
        assert await client.ended() == b""

    run(tmp_path, test)


# --- bodies that are held back


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("POST /dicomweb/studies/1.2/series", 405),
        ("POST /dicomweb/studies/x", 400),
        ("POST /dicomweb/studies", 415),
        ("GET /dicomweb/studies", 200),
    ],
)
@pytest.mark.parametrize("length", [1000, 1_000_000])
def test_a_body_held_back_that_nobody_wants(tmp_path: Path, request_line: str, status: int, length: int) -> None:
    async def test(here: Here) -> None:
        client = await here.connect()
        fields = f"Content-Length: {length}\r\nContent-Type: text/plain\r\nExpect: 100-continue"
        await client.send(f"{request_line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n".encode())
        found, lines = await client.answer()
        assert found == status and b"\r\nConnection: close\r\n" in lines
        assert await client.ended() == b""

    run(tmp_path, test)


def test_a_body_held_back_is_asked_for(tmp_path: Path) -> None:
    first, second = slices(2, "held back")

    async def test(here: Here) -> None:
        client = await here.connect()
        for file in (first, second):
            data = body(file)
            await client.send(head(len(data), "/dicomweb/studies", "Expect: 100-continue"))
            assert await client.answer() == (100, b"HTTP/1.1 100 Continue\r\n\r\n")
            await client.send(data)
            status, lines = await client.answer()
            assert status == 200 and b"Connection: close" not in lines

    run(tmp_path, test)


def test_http_1_0_is_not_told_to_continue(tmp_path: Path) -> None:
    (file,) = slices(1, "1.0")

    async def test(here: Here) -> None:
        client = await here.connect()
        data = body(file)
        await client.send(head(len(data), "/dicomweb/studies", "Expect: 100-continue", version="1.0") + data)
        assert (await client.answer())[0] == 200

    run(tmp_path, test)


# --- clients that send no more


@pytest.mark.parametrize("rows", [64, 512])
@pytest.mark.parametrize("pieces", [1, 2])
def test_who_has_sent_an_upload_and_sends_no_more_is_answered(tmp_path: Path, rows: int, pieces: int) -> None:
    files = slices(2, "half", rows=rows)

    async def test(here: Here) -> None:
        client = await here.connect()
        datas = [body(file) for file in files]
        requests = b"".join(head(len(data)) + data for data in datas)
        if pieces == 1:
            await client.send(requests)
        else:
            await client.send(requests[:300])
            await here.until(lambda: here.handler.active)
            await client.send(requests[300:])
        client.writer.write_eof()
        for _ in files:
            assert (await client.answer())[0] == 200
        assert await client.ended() == b""
        await here.until(lambda: not here.server.connections)
        assert here.archive.counters().instances == len(files)

    run(tmp_path, test)


def test_who_leaves_behind_an_upload_holds_nothing(tmp_path: Path) -> None:
    (file,) = slices(1, "left")

    async def test(here: Here) -> None:
        held = Intake.held
        client = await here.connect()
        data = body(file)
        await client.send(head(len(data)) + data)
        client.writer.close()
        await here.until(lambda: here.archive.counters().instances == 1)
        await here.until(lambda: not here.server.connections and not here.handler.active)
        await here.until(lambda: Intake.held == held)

    run(tmp_path, test)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress"])
def test_a_coding_that_is_not_read(tmp_path: Path, coding: str) -> None:
    async def test(here: Here) -> None:
        client = await here.connect()
        await client.send(head(9, "/dicomweb/studies", f"Content-Encoding: {coding}") + b"something")
        assert (await client.answer())[0] == 415

    run(tmp_path, test)


def test_a_deflated_body_that_is_cut_short(tmp_path: Path) -> None:
    """Its reader waits for the rest of it when the parser finds that it has ended."""
    packed = zlib.compress(body(*slices(1, "deflated", rows=128)))
    cut = packed[: len(packed) // 2]

    async def test(here: Here) -> None:
        client = await here.connect()
        await client.send(head(len(cut), "/dicomweb/studies", "Content-Encoding: deflate") + cut[:1000])
        await here.until(lambda: here.handler.active)
        await client.send(cut[1000:])
        assert (await client.answer())[0] == 400
        whole = await here.connect()
        await whole.send(head(len(packed), "/dicomweb/studies", "Content-Encoding: deflate") + packed)
        assert (await whole.answer())[0] == 200

    run(tmp_path, test)


def test_a_coding_of_a_body_that_nobody_reads(tmp_path: Path) -> None:
    """It is passed over as it came: to take the coding off could take a thousand times its length."""

    async def test(here: Here) -> None:
        client = await here.connect()
        await client.send(head(9, "/dicomweb/nowhere", "Content-Encoding: gzip") + b"something" + SEARCH)
        assert [(await client.answer())[0] for _ in range(2)] == [404, 200]

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("data", "fields", "status"),
    [
        (gzip.compress(bytes(100_000_000), 1), ("Content-Encoding: gzip",), 400),
        (b"\r\n--b" * 8_000, (), 409),
    ],
    ids=["inflated", "parts"],
)  # fmt: skip
def test_a_body_that_is_never_waited_for_leaves_turns_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, fields: tuple[str, ...], status: int
) -> None:
    monkeypatch.setattr(stow, "_ANSWERED_AT_ONCE", len(data))  # nothing is waited for at all

    async def test(here: Here) -> None:
        client, turns = await here.connect(), 0
        sending = asyncio.ensure_future(client.send(head(len(data), "/dicomweb/studies", *fields) + data))
        answer = asyncio.ensure_future(client.answer())
        while not answer.done():
            await asyncio.sleep(0)
            turns += bool(here.handler.active)
        await sending
        assert (await answer)[0] == status
        assert turns > 10

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("resource", "accept"),
    [
        ("", "application/dicom"),
        ("/frames/1,1,1,1,1,1,1,1,1,1,1,1?level=9", "*/*"),
        ("/frames/1,1,1,1,1,1,1,1,1,1,1,1/rendered", 'multipart/related; type="image/png"'),
    ],
    ids=["instance", "rungs", "pictures"],
)  # fmt: skip
def test_who_takes_nothing_goes_when_another_wants_the_memory(tmp_path: Path, resource: str, accept: str) -> None:
    (file,) = slices(1, f"stalled {resource}", rows=1024)
    data = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
    path = f"/dicomweb/studies/{data.StudyInstanceUID}/series/{data.SeriesInstanceUID}/instances/{data.SOPInstanceUID}"
    asked = f"GET {path}{resource} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode()

    async def test(here: Here) -> None:
        first, second = await here.connect(slow=True), await here.connect()
        await second.send(head(len(body(file))) + body(file))
        assert (await second.answer())[0] == 200
        outgoing, stalled = here.handler.service.outgoing, here.handler.active
        await first.send(asked)
        await here.until(lambda: any(one.transport and one.transport.get_write_buffer_size() for one in stalled))
        (connection,) = stalled
        now = time.monotonic()
        outgoing.look(now)
        outgoing.look(now + 61)
        assert connection.transport is not None and not connection.transport.is_closing()  # nobody wants it
        await second.send(asked)
        await here.until(lambda: outgoing.waiting)
        outgoing.look(now + 61)
        async with asyncio.timeout(120):
            assert await second.reader.readexactly(15) == b"HTTP/1.1 200 OK"
        assert connection.transport is None

    run(tmp_path, test, Settings(outgoing_memory=200_000))


def with_long_text(file: bytes) -> bytes:
    """Just short of bulk data."""
    data = pydicom.dcmread(io.BytesIO(file))
    data.add_new(0x0040A160, "UT", "text " * 140_000)
    written = io.BytesIO()
    data.save_as(written)
    return written.getvalue()


def test_answers_of_long_data_sets_are_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each instance has 700 KB of JSON: a reader is sent a megabyte or so at a time, and a search ends somewhere."""
    monkeypatch.setattr(qido, "_MOST_BYTES", 1_000_000)
    files = [with_long_text(file) for file in slices(5, "long", rows=16)]
    study = pydicom.dcmread(io.BytesIO(files[0])).StudyInstanceUID

    def get(resource: str) -> bytes:
        return f"GET /dicomweb/studies/{study}/{resource} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    async def test(here: Here) -> None:
        client = await here.connect()
        await client.send(head(len(body(*files))) + body(*files))
        assert (await client.answer())[0] == 200
        await client.send(get("metadata"))
        await client.reader.readuntil(b"\r\n\r\n")
        chunks = [b""]
        while not chunks[1:] or chunks[-1]:
            length = int(await client.reader.readuntil(b"\r\n"), 16)
            chunks.append((await client.reader.readexactly(length + 2))[:-2])
        assert len(json.loads(b"".join(chunks))) == 5
        assert max(map(len, chunks)) < 2_000_000
        assert here.handler.service.remembering == 0
        for offset, count in ((0, 2), (2, 2), (4, 1)):
            await client.send(get(f"instances?includefield=all&offset={offset}"))
            lines = await client.reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"\r\nContent-Length: ([0-9]+)", lines)
            assert found is not None
            assert len(json.loads(await client.reader.readexactly(int(found[1])))) == count
            assert (b"\r\nWarning: 299" in lines, b"X-Total-Count: 5" in lines) == (count == 2, True)

    run(tmp_path, test)
