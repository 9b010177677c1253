"""Small parts of the HTTP layer on their own: budgets, caches, origins, addresses, errors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import socket
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp.test_utils import RawTestServer, make_mocked_request
from aiohttp.web import BaseRequest

from pacs import demo, errors
from pacs.archive import Archive, StoreResult
from pacs.dicomweb import intake, problems, stow, urls, worker
from pacs.dicomweb.answer import SLICE
from pacs.dicomweb.app import Dicomweb
from pacs.dicomweb.askers import Shared
from pacs.dicomweb.cors import CorsPolicy
from pacs.dicomweb.offload import ByteCache, ByteSemaphore, Offload, Once
from pacs.dicomweb.outgoing import Outgoing
from pacs.dicomweb.sending import slices
from pacs.dicomweb.spool import Budget, Collected
from pacs.errors import BusyError, PacsError, RequestError, StorageError, TooLargeError
from pacs.settings import Settings


async def test_work_is_admitted_by_its_bytes_in_turn() -> None:
    semaphore = ByteSemaphore(100)
    first = await semaphore.acquire(60)
    large = asyncio.ensure_future(semaphore.acquire(1000))
    small = asyncio.ensure_future(semaphore.acquire(10))
    await asyncio.sleep(0)
    assert not large.done() and not small.done()  # nobody overtakes
    semaphore.release(first)
    taken = await large
    assert taken == 100 and not small.done()
    semaphore.release(taken)
    semaphore.release(await small)
    assert semaphore.free == 100


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
async def test_what_is_made_already_waits_for_nobody() -> None:
    outgoing = Outgoing(16 << 20)
    requests = [make_mocked_request("GET", "/") for _ in range(5)]
    await outgoing.hold(requests[0], 12 << 20)
    waiting = asyncio.ensure_future(outgoing.hold(requests[1], 8 << 20))
    await asyncio.sleep(0)
    assert outgoing.waiting == 1
    outgoing.hold_made(requests[2], 4 << 20)
    outgoing.hold_made(requests[3], 2 << 20)  # a list goes out although images hold everything
    with pytest.raises(BusyError):
        outgoing.hold_made(requests[4], 1 << 20)
    for request in requests:
        outgoing.release(request)
    await waiting
    outgoing.release(requests[1])
    await asyncio.wait_for(outgoing.hold(requests[4], 16 << 20), 1)  # all of it came back


async def test_who_gives_up_waiting_takes_nothing() -> None:
    semaphore = ByteSemaphore(10)
    held = await semaphore.acquire(10)
    waiting = [asyncio.ensure_future(semaphore.acquire(8)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    semaphore.release(held)
    waiting[1].cancel()  # admitted, and cancelled before it knows
    semaphore.release(await waiting[2])
    assert semaphore.free == 10


async def test_concurrent_askers_share_one_making() -> None:
    once: Once[bytes] = Once()
    made = 0

    async def make() -> bytes:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return b"x"

    askers = [asyncio.ensure_future(once("key", make)) for _ in range(5)]
    await asyncio.sleep(0)
    askers[0].cancel()
    assert await asyncio.gather(*askers[1:]) == [b"x"] * 4
    assert made == 1
    await once("key", make)
    assert made == 2


class _Lane:
    """Calls whose turn comes when a test says so, as `Offload.compute` tells of them: from a callback of the loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Future[bytes], Callable[[], bytes]]] = []

    def compute(self, seconds: float, call: Callable[[], bytes]) -> asyncio.Future[bytes]:
        self._waiting.append((asyncio.get_running_loop().create_future(), call))
        return self._waiting[-1][0]

    def turn(self) -> None:
        future, call = self._waiting.pop(0)
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)


async def test_work_whose_turn_comes_at_once_has_its_asker() -> None:
    class Idle(_Lane):
        turns = 0

        def compute(self, seconds: float, call: Callable[[], bytes]) -> asyncio.Future[bytes]:
            self.turns += 1
            assert self.turns == 1
            future = super().compute(seconds, call)
            self.turn()
            return future

    shared: Shared[bytes] = Shared(cast(Offload, Idle()))
    assert await shared("key", 0, lambda: b"x", None) == b"x"


async def test_who_asks_at_the_moment_when_work_is_dropped_is_answered() -> None:
    lane = _Lane()
    shared: Shared[bytes] = Shared(cast(Offload, lane))
    left, here = cast(BaseRequest, SimpleNamespace(transport=None)), None
    first = asyncio.ensure_future(shared("key", 0, lambda: b"x", left))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(lane.turn)
    newcomers = [asyncio.ensure_future(shared("key", 0, lambda: b"x", here)) for _ in range(3)]
    with pytest.raises(ConnectionResetError):
        await first
    assert len(lane._waiting) == 1
    lane.turn()
    assert await asyncio.gather(*newcomers) == [b"x"] * 3
    await asyncio.sleep(0)
    assert not shared._running


def test_a_cache_keeps_what_was_used_last_within_its_bytes() -> None:
    cache = ByteCache(100)
    for name in "abcdef":
        cache.put(name, bytes(20))
        cache.get("a")
    assert [name for name in "abcdef" if cache.get(name)] == ["a", "c", "d", "e", "f"]
    cache.put("big", bytes(26))
    assert cache.get("big") is None


def test_slices_end_where_levels_do() -> None:
    assert slices(1000, (10, 500)) == [1000]
    assert slices(300_000, (20_000, 60_000, 290_000)) == [60_000, 60_000 + SLICE, 300_000]
    ends = slices(10 * SLICE + 1, ())
    assert len(ends) == 11 and max(end - start for start, end in itertools.pairwise([0, *ends])) == SLICE


def test_origins() -> None:
    policy = CorsPolicy(("http://localhost:*", "https://viewer.example", "https://*.hospital.example"))
    ours = ("http://localhost:3000", "https://viewer.example", "https://a.hospital.example", "HTTPS://VIEWER.example")
    for origin in ours:
        assert policy.allows(origin)
        assert f"Access-Control-Allow-Origin: {origin}".encode() in policy.lines(origin)
    others = ("https://viewer.example.evil", "http://viewer.example", "null", "", "https://localhost:1", "x\r\nA: y")
    for origin in others:
        assert not policy.allows(origin)
        assert b"Allow-Origin" not in policy.lines(origin)
    everyone = CorsPolicy(("*",))
    assert b"Credentials" not in everyone.lines("https://anyone.example")
    assert b"Allow-Origin: https://anyone.example" in everyone.lines("https://anyone.example")


@pytest.mark.parametrize(
    ("headers", "settings", "expected"),
    [
        ({"Host": "pacs:8080"}, {}, "http://pacs:8080/dicomweb"),
        ({"Host": "pacs"}, {"public_url": "https://x.example/dicomweb/"}, "https://x.example/dicomweb"),
        ({"Host": "a:1", "X-Forwarded-Host": "b:2", "X-Forwarded-Proto": "https"}, {}, "http://a:1/dicomweb"),
        ({"Host": "a:1", "X-Forwarded-Host": "b:2", "X-Forwarded-Proto": "https"}, {"trusted_proxies": ("10.0.0.0/8",)},
         "https://b:2/dicomweb"),
        ({"Host": "a:1", "X-Forwarded-Prefix": "/pacs/"}, {"trusted_proxies": ("10.1.2.3",)}, "http://a:1/pacs/dicomweb"),
        ({"Host": "a", "Forwarded": 'for=1.2.3.4;proto=http, for=x;proto=https;host="b:444"'},
         {"trusted_proxies": ("10.1.2.3",)}, "https://b:444/dicomweb"),
        ({"Host": "a:1", "Forwarded": "host=evil"}, {"trusted_proxies": ("10.9.9.9",)}, "http://a:1/dicomweb"),
    ],
)  # fmt: skip
def test_the_address_that_clients_see(headers: dict[str, str], settings: dict[str, object], expected: str) -> None:
    request = make_mocked_request("GET", "/", headers=headers).clone(remote="10.1.2.3")
    assert urls.base(request, Settings(**settings)) == expected  # type: ignore[arg-type]


def test_a_proxy_that_names_no_url() -> None:
    request = make_mocked_request("GET", "/", headers={"Host": "a", "X-Forwarded-Proto": "javascript"})
    with pytest.raises(RequestError):
        urls.base(request.clone(remote="10.1.2.3"), Settings(trusted_proxies=("10.1.2.3",)))


def test_every_kind_of_error_has_a_row() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PacsError)}
    elsewhere = {  # of the start, and of clients
        errors.SettingsError, errors.FormatVersionError, errors.UploadError, errors.RemoteError,
        errors.UnreachableError, errors.AnswerError, errors.RemoteChangedError, errors.BenchError,
    }  # fmt: skip
    assert kinds - elsewhere <= set(problems.PROBLEMS)


def test_what_clients_act_upon() -> None:
    """Whether to ask for something else, to give up, or to come back later."""
    named = {
        "NotFoundError": 404, "ViewerError": 404, "UnsupportedTransferSyntaxError": 406, "PixelError": 406,
        "ConflictError": 409, "ChangedError": 412, "TooLargeError": 413, "BusyError": 503, "StorageError": 503,
        "ChecksumError": 500, "PacsError": 500,
    }  # fmt: skip
    for name, status in named.items():
        found = problems.answer(getattr(errors, name)("told"), "/dicomweb/studies/{study}")
        assert (found.status, "Retry-After" in dict(found.headers)) == (status, status == 503), name


def test_faults_of_ours_show_nothing(caplog: pytest.LogCaptureFixture) -> None:
    answer = problems.answer(KeyError("Patient^Name"), "/dicomweb/studies/{study}")
    assert answer.status == 500
    assert isinstance(answer.body, bytes) and b"Patient" not in answer.body
    assert "KeyError" in caplog.text


def test_statuses_of_a_store_response() -> None:
    stored = StoreResult("stored", "1", "2", "3", "4")
    refused = StoreResult("refused", "1", "2", "5", "4", errors.ConflictError("other bytes"))
    full = StoreResult("refused", "1", "2", "6", "4", StorageError("full"))
    warned = StoreResult("stored", "1", "2", "3", "4", None, ("a leading zero",))
    cases = [([stored], 200), ([warned], 202), ([stored, refused], 202), ([refused], 409), ([refused, full], 409),
             ([full], 503), ([stored, full], 202)]  # fmt: skip
    for results, status in cases:
        assert stow.response(results, "http://x/dicomweb", None).status == status


def test_a_part_is_collected_in_memory_or_in_a_file(tmp_path: Path) -> None:
    budget = Budget(10_000)
    short = Collected(tmp_path, 1000, 1 << 30, budget)
    assert not short.add(b"abc") and not short.add(b"def")
    assert budget.free == 10_000 - 6
    assert short.take()[0] == b"abcdef"
    short.close()
    assert budget.free == 10_000
    long = Collected(tmp_path, 1000, 5000, budget)
    assert long.add(bytes(1500))
    long.spool()
    assert budget.free == 10_000 and list(tmp_path.iterdir()) == []
    long.add(b"tail")
    long.spool()
    data, forget = long.take()
    long.close()
    assert forget is not None
    forget()
    assert bytes(data) == bytes(1500) + b"tail"
    with pytest.raises(TooLargeError):
        Collected(tmp_path, 1000, 5000, budget).add(bytes(5001))
    crowded = Collected(tmp_path, 1000, 5000, budget, least_free=1 << 62)
    crowded.add(bytes(1500))
    with pytest.raises(StorageError, match="not for uploads"):
        crowded.spool()
    crowded.close()
    assert budget.free == 10_000


class Clock:
    """Of the running loop: it goes forward when a test says so."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        genuine, self._ahead = loop.time, 0.0
        patched.setattr(loop, "time", lambda: genuine() + self._ahead)

    async def forward(self, seconds: float) -> None:
        self._ahead += seconds
        for _ in range(3):  # timers that are due
            await asyncio.sleep(0)


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[stow._Body]:
    """Of the requests that are in work, in the order in which their bodies were begun."""
    begun: list[stow._Body] = []

    class Known(stow._Body):
        def __init__(self, request: BaseRequest) -> None:
            super().__init__(request)
            begun.append(self)

    monkeypatch.setattr(stow, "_Body", Known)
    return begun


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def connected(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_an_upload_that_falls_silent_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bodies: list[stow._Body]
) -> None:
    """408, on a connection that is closed: a client that pauses must not hold memory for ever."""
    head = (
        b"POST /dicomweb/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
        b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n'
    )
    sent = b"--b\r\n\r\n"
    with Archive.open(tmp_path / "archive", create=True) as archive, closing(Dicomweb(archive, Settings())) as handler:
        async with (
            RawTestServer(handler) as server,
            connected(server.host, server.port or 0) as (reader, writer),
        ):
            writer.write(head + sent)
            await until(lambda: bool(bodies))
            [body] = bodies
            clock = Clock(monkeypatch)
            for number in range(6):
                received = len(sent) + 4 * number
                await until(lambda: body._content.total_bytes == received and body._waiting_since < math.inf)  # noqa: B023
                # Slow, but never silent for as long as that.
                await clock.forward(stow._SILENT * 0.9)
                assert not body._stalled
                writer.write(b"more")
            await until(lambda: body._content.total_bytes == len(sent) + 24 and body._waiting_since < math.inf)
            await clock.forward(stow._SILENT * 0.9)
            await clock.forward(stow._SILENT)
            answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ") and b"nothing more of the body came" in answer
    assert b"Connection: close" in answer


async def test_of_a_short_body_that_falls_silent_the_complete_parts_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bodies: list[stow._Body]
) -> None:
    """Its rest is read past aiohttp, which must not change what becomes of it."""
    (file,) = demo.head_slices(1, rows=256, name="silent")
    part = b"--b\r\n\r\n" + file + b"\r\n"
    head = (
        b"POST /dicomweb/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n'
    )
    with Archive.open(tmp_path / "archive", create=True) as archive:
        handler = Dicomweb(archive, Settings())
        server = await asyncio.get_running_loop().create_server(worker._Server(handler), "127.0.0.1", 0)
        taken = intake.Intake.held
        try:
            async with connected(*server.sockets[0].getsockname()) as (reader, writer):
                writer.write(head + part[:50_000])
                await until(lambda: bool(bodies))
                assert intake.Intake.held == taken + 1_000_000
                writer.write(part[50_000:] + part[:1000])
                await until(lambda: bodies[0]._content.total_bytes == len(part) + 1000)
                assert intake.Intake.held == taken + 1_000_000
                clock = Clock(monkeypatch)
                await clock.forward(stow._SILENT + 1)
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 408 ") and b"Connection: close" in answer
        finally:
            server.close()
            handler.close()
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.counters().instances == 1
    assert intake.Intake.held == taken


async def test_a_body_is_read_past_aiohttp_before_it_waits_for_the_request(tmp_path: Path) -> None:
    """A client sends its next upload while aiohttp is still at the end of the one before; what came with the head goes
    into the same buffer, and what follows the body is a request."""
    (file,) = demo.head_slices(1, rows=256, name="at once")
    body = b"--b\r\n\r\n" + file + b"\r\n--b--"
    head = (
        b"POST /dicomweb/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
        b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n' % len(body)
    )
    behind = b"GET /dicomweb/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    held = intake.Intake.held
    with Archive.open(tmp_path / "archive", create=True) as archive:
        handler = Dicomweb(archive, Settings())
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        try:
            protocol = worker._Server(handler)()
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            protocol.data_received(head + body[:50_000])
            assert protocol._waiter is None and intake.Intake.held == held + len(body)
            writer.write(body[50_000:] + behind)
            answers = await reader.read()
        finally:
            writer.close()
            transport.abort()
            handler.close()
        assert answers.startswith(b"HTTP/1.1 200 ") and answers.count(b"HTTP/1.1 404 ") == 1
        assert archive.counters().instances == 1
    assert intake.Intake.held == held


def test_a_message_may_quote_any_header() -> None:
    """aiohttp reads bytes that are not UTF-8 as surrogates, which no encoder takes."""
    assert json.loads(problems.body("WEB-05", "a body of type \udcff/x")) == {
        "code": "WEB-05",
        "message": "a body of type ?/x",
    }


def test_a_refusal_keeps_nothing_of_the_file(tmp_path: Path) -> None:
    class File(bytearray):
        """Can be watched."""

    with Archive.open(tmp_path / "archive", create=True) as archive:
        for content in (b"", b"\0" * 128 + b"DICM" + b"\0" * 1000):
            file = File(content)
            watched = weakref.ref(file)
            future = archive.submit(file)
            result = future.result()
            assert result.status == "refused" and result.error is not None
            del file
            deadline = time.monotonic() + 60
            while watched() is not None and time.monotonic() < deadline:
                time.sleep(0.01)  # the thread is leaving its frames
            assert watched() is None
