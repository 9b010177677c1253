"""Bodies that break off, fall silent, change or lie: each byte arrives once and of one entity, or there is an error."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import zstandard

from pacs.client import patience as waiting
from pacs.client.body import Body, CutError, read
from pacs.client.patience import Attempts, Patience
from pacs.client.transport import Transport
from pacs.errors import AnswerError, NotFoundError, RemoteChangedError, RemoteError, UnreachableError
from tests.unit.origin import QUICK, Asked, Origin, Reply, entity, origin

BODY = bytes(range(256)) * 3 + b"the end"
ETAG = {"ETag": '"one"', "Accept-Ranges": "bytes"}


@pytest.fixture
async def server() -> AsyncIterator[Origin]:
    async with origin() as found:
        yield found


@pytest.fixture
async def transport(server: Origin) -> AsyncIterator[Transport]:
    async with Transport(server.url, {"Authorization": "secret"}, QUICK) as found:
        yield found


async def everything(body: Body) -> bytes:
    async with body:
        return b"".join([chunk async for chunk in body])


async def test_a_body_cut_at_every_byte_goes_on_there(server: Origin, transport: Transport) -> None:
    text = BODY[:40]
    for count in range(len(text)):
        server.asked.clear()
        server.answers.clear()
        server.will(entity(text, cut=count), entity(text))
        assert await everything(Body(transport, server.url + "/x", {})) == text
        again = server.asked[1]
        assert len(server.asked) == 2
        if count:
            assert again.headers["range"] == f"bytes={count}-"
        assert again.headers.get("if-range", '"one"') == '"one"'


async def test_a_body_that_breaks_again_and_again(server: Origin, transport: Transport) -> None:
    server.will(*(entity(BODY, cut=97) for _ in range(8)), entity(BODY))
    body = Body(transport, server.url, {})
    assert await everything(body) == BODY
    assert [asked.start for asked in server.asked] == list(range(0, len(BODY), 97))
    assert body.length == len(BODY) and body.etag == '"one"'


@pytest.mark.parametrize("silent", [False, True])
async def test_a_silent_connection_is_replaced(server: Origin, transport: Transport, silent: bool) -> None:
    received = 0

    def arrived(count: int) -> None:
        nonlocal received
        received += count
        if received == 300:  # not before: a slow machine is not to be taken for a silent server
            transport.patience = replace(QUICK, stall=0.05)

    def again(asked: Asked) -> Reply:
        transport.patience = QUICK
        return entity(BODY)(asked)

    transport.on_received = arrived
    server.will(entity(BODY, cut=300, silent=silent), again)
    async with asyncio.timeout(30):
        assert await everything(Body(transport, server.url, {})) == BODY
    assert [asked.start for asked in server.asked] == [0, 300] and server.connections == 2


async def test_a_part_of_a_body(server: Origin, transport: Transport) -> None:
    server.will(entity(BODY, cut=10), entity(BODY))
    body = Body(transport, server.url, {}, start=100, stop=150, etag='"one"')
    assert await everything(body) == BODY[100:150]
    assert [asked.headers["range"] for asked in server.asked] == ["bytes=100-149", "bytes=110-149"]
    assert body.length == len(BODY)
    assert await everything(Body(transport, server.url, {}, start=700, stop=99999)) == BODY[700:]
    assert await everything(Body(transport, server.url, {}, start=len(BODY), etag='"one"')) == b""


async def test_a_server_that_ignores_ranges(server: Origin, transport: Transport) -> None:
    server.will(Reply(BODY, 200, ETAG, cut=500), Reply(BODY, 200, ETAG))
    assert await everything(Body(transport, server.url, {})) == BODY
    assert await everything(Body(transport, server.url, {}, start=100, stop=150)) == BODY[100:150]


async def test_two_entities_are_never_joined(server: Origin, transport: Transport) -> None:
    other = entity(bytes(reversed(BODY)), '"two"')
    server.will(entity(BODY, cut=100), other)
    with pytest.raises(RemoteChangedError):
        await everything(Body(transport, server.url, {}))
    with pytest.raises(RemoteChangedError):
        await everything(Body(transport, server.url, {}, start=5, etag='"one"'))
    # The same length under the same name, by a server that does not look at If-Range.
    server.answers.clear()
    blind = {**ETAG, "ETag": '"two"', "Content-Range": f"bytes 100-{len(BODY) - 1}/{len(BODY)}"}
    server.will(entity(BODY, cut=100), Reply(BODY[100:], 206, blind))
    with pytest.raises(RemoteChangedError):
        await everything(Body(transport, server.url, {}))


async def test_without_a_strong_validator_nothing_goes_on(server: Origin, transport: Transport) -> None:
    for headers in ({}, {"ETag": 'W/"one"', "Accept-Ranges": "bytes"}, {"ETag": '"one"'}):
        server.answers.clear()
        server.will(Reply(BODY, 200, headers, cut=100), Reply(BODY, 200, headers))
        with pytest.raises(CutError):
            await everything(Body(transport, server.url, {}))
        server.will(Reply(BODY, 200, headers, cut=100), Reply(BODY, 200, headers))
        assert (await read(transport, server.url, "*/*")).data == BODY


@pytest.mark.parametrize(
    "content_range",
    [
        "", "bytes 99-774/775", "bytes 101-774/775", "bytes 100-774/*", "bytes 100-775/775", "bytes */775",
        "octets 100-774/775",
    ],
)  # fmt: skip
async def test_a_range_that_was_not_asked_for(server: Origin, transport: Transport, content_range: str) -> None:
    assert len(BODY) == 775
    server.will(entity(BODY, cut=100), Reply(BODY[100:], 206, {**ETAG, "Content-Range": content_range}))
    with pytest.raises(AnswerError):
        await everything(Body(transport, server.url, {}))


async def test_a_body_whose_end_is_not_marked(server: Origin, transport: Transport) -> None:
    server.will(Reply(BODY, 200, {}, length=False))
    body = Body(transport, server.url, {})
    assert await everything(body) == BODY
    assert not body.delimited


async def test_busy_servers_are_asked_again_and_others_are_not(server: Origin, transport: Transport) -> None:
    for status in (429, 502, 503, 504):
        server.answers.clear()
        server.asked.clear()
        server.will(Reply(b"", status, {"Retry-After": "0"}), Reply(b"", status), entity(BODY))
        assert (await read(transport, server.url, "*/*")).data == BODY
        assert len(server.asked) == 3
    for status in (400, 401, 403, 404, 406, 409, 410, 412, 500):
        server.answers.clear()
        server.asked.clear()
        server.will(Reply(b"", status))
        with pytest.raises(RemoteError) as caught:
            await read(transport, server.url, "*/*")
        assert caught.value.status == status and len(server.asked) == 1


async def test_patience_ends(server: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0

    def a_second_later(asked: Asked) -> Reply:
        nonlocal seconds
        seconds += 1
        return Reply(b"", 503)

    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: seconds))
    server.will(a_second_later)
    short = Patience(total=10.5, pause=0.001, longest_pause=0.001)
    async with Transport(server.url, {}, short) as transport:
        with pytest.raises(RemoteError) as caught:
            await read(transport, server.url, "*/*")
        assert caught.value.status == 503 and len(server.asked) == 11
        server.asked.clear()
        server.answers.clear()
        server.will(Reply(b"", 503, {"Retry-After": "3600"}))
        with pytest.raises(RemoteError):
            await read(transport, server.url, "*/*")
        assert len(server.asked) == 1, "it asked again without waiting as long as it was told to"


async def test_an_error_names_the_url_and_the_problem(server: Origin, transport: Transport) -> None:
    problem = {"code": "ARC-01", "message": "no such study", "more": [1]}
    server.will(Reply(json.dumps(problem).encode(), 404))
    with pytest.raises(RemoteError) as caught:
        await read(transport, server.url + "/studies/1", "*/*")
    error = caught.value
    assert error.url == server.url + "/studies/1" and error.status == 404 and error.problem == problem
    assert "/studies/1 answered 404: ARC-01: no such study" in error.message
    assert not isinstance(error, NotFoundError)
    server.answers.clear()
    server.will(Reply(b"<html>" * 50_000, 500))
    with pytest.raises(RemoteError) as caught:
        await read(transport, server.url, "*/*")
    assert caught.value.problem == {} and len(caught.value.message) < 200


async def test_redirects_are_told_and_not_followed(server: Origin, transport: Transport) -> None:
    server.will(Reply(b"", 307, {"Location": "http://elsewhere.example/"}))
    with pytest.raises(RemoteError, match=r"it lies at http://elsewhere\.example/ now"):
        await read(transport, server.url, "*/*")
    assert len(server.asked) == 1 and server.asked[0].headers["authorization"] == "secret"


def test_references_stay_with_the_server() -> None:
    transport = Transport("http://127.0.0.1:8080/dicomweb")
    base = transport.url("studies", "1.2", "series", "3") + "/"
    assert transport.below(base, "instances/4/frames/1") == base + "instances/4/frames/1"
    assert transport.below(base, "/other?x=1") == "http://127.0.0.1:8080/other?x=1"
    for elsewhere in ("http://127.0.0.1:8081/", "https://127.0.0.1:8080/", "//evil.example/x", "file:///etc/passwd"):
        with pytest.raises(UnreachableError):
            transport.below(base, elsewhere)


def test_segments_cannot_leave_their_place() -> None:
    transport = Transport("http://h/dicomweb/")
    assert transport.url("studies", "../../x?y#z") == "http://h/dicomweb/studies/..%2F..%2Fx%3Fy%23z"


async def test_nobody_there_is_said_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with Transport(url) as transport, asyncio.timeout(transport.patience.total / 2):
            with pytest.raises(UnreachableError, match="nobody answers"):
                await read(transport, url, "*/*")
    for nonsense in ("", "ftp://x/", "no url", "http://", "http://[::1"):
        with pytest.raises(UnreachableError):
            Transport(nonsense)


async def test_connections_are_kept_and_dead_ones_are_not_trusted(server: Origin, transport: Transport) -> None:
    server.will(entity(BODY))
    for _ in range(5):
        assert await everything(Body(transport, server.url, {})) == BODY
        assert await everything(Body(transport, server.url, {}, start=5, stop=20)) == BODY[5:20]
    assert server.connections == 1
    server.answers.clear()
    server.will(Reply(b"", 404), entity(BODY))
    with pytest.raises(RemoteError):
        await everything(Body(transport, server.url, {}))
    assert await everything(Body(transport, server.url, {})) == BODY
    assert server.connections == 1, "an error that the server explains costs no connection"
    # Two idle connections; one of them turns out to be dead, so the other is not used again either.
    server.answers.clear()
    asked_for, dies = asyncio.Event(), asyncio.Event()

    def falls_silent(asked: Asked) -> Reply:
        asked_for.set()
        return replace(entity(BODY, cut=10, silent=True)(asked), ends=dies)

    server.will(falls_silent, entity(BODY))
    slow = asyncio.ensure_future(everything(Body(transport, server.url, {})))
    await asked_for.wait()
    assert await everything(Body(transport, server.url, {})) == BODY
    assert server.connections == 2
    dies.set()
    assert await slow == BODY
    assert server.connections == 3


async def test_content_codings(server: Origin, transport: Transport) -> None:
    text = b"[" + b"1," * 5000 + b"1]"
    for coding, data in (
        ("zstd", zstandard.compress(text)),
        ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress(text)),
        ("gzip", gzip.compress(text)),
        ("identity", text),
    ):
        server.answers.clear()
        server.will(Reply(data, 200, {"Content-Encoding": coding}))
        assert (await read(transport, server.url, "*/*")).data == text
        assert server.asked[-1].headers["accept-encoding"] == "zstd, gzip"
    for coding, data in (
        ("br", text), ("gzip", gzip.compress(text)[:-9]), ("gzip", text), ("zstd", text), ("zstd", b""),
        ("zstd", zstandard.compress(text)[:-1]),
    ):  # fmt: skip
        server.answers.clear()
        server.will(Reply(data, 200, {"Content-Encoding": coding}))
        with pytest.raises(AnswerError):
            await read(transport, server.url, "*/*")


async def test_a_document_is_not_larger_than_allowed(server: Origin, transport: Transport) -> None:
    bomb = bytes(10_000_000)
    for coding, data in (("gzip", gzip.compress(bomb)), ("zstd", zstandard.compress(bomb)), ("", bomb)):
        server.answers.clear()
        server.will(Reply(data, 200, {"Content-Encoding": coding}))
        with pytest.raises(AnswerError, match="more than 1000000 bytes"):
            await read(transport, server.url, "*/*", most=1_000_000)


async def test_few_bytes_do_not_become_many(server: Origin, transport: Transport) -> None:
    bomb = b"[" + b"{}," * 8_000_000 + b"{}]"
    server.will(Reply(zstandard.compress(bomb), 200, {"Content-Encoding": "zstd"}))
    with pytest.raises(AnswerError, match="more than 16777216 bytes"):
        await read(transport, server.url, "*/*")


def test_retry_after() -> None:
    assert waiting.retry_after(None) is None
    assert waiting.retry_after(" 7 ") == 7
    assert waiting.retry_after("99999999999") == waiting.LONGEST_RETRY_AFTER
    assert waiting.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert waiting.retry_after("Fri, 31 Dec 9999 23:59:59 GMT") == waiting.LONGEST_RETRY_AFTER
    for nonsense in ("", "soon", "-1", "²"):
        assert waiting.retry_after(nonsense) is None


async def test_only_new_bytes_are_progress() -> None:
    attempts = Attempts(Patience(total=0.1, pause=0.06, longest_pause=0.06))
    error = UnreachableError("http://x/", "gone")
    attempts.progress(10)
    with pytest.raises(UnreachableError):
        for _ in range(5):
            attempts.progress(10)
            await attempts.wait(error)


async def test_patience_for_days() -> None:
    """After some thousand attempts the pause is as long as it may be."""
    attempts = Attempts(Patience(total=60, pause=1e-6, longest_pause=1e-5))
    for _ in range(1100):
        await attempts.wait(UnreachableError("http://x/", "gone"))


@pytest.mark.parametrize("stall", [0.3, 1, 5, 15, 60])
async def test_a_connection_is_watched_while_no_answer_comes(server: Origin, stall: float) -> None:
    server.will(Reply(b"here"))
    async with Transport(server.url, patience=Patience(stall=stall)) as transport:
        await read(transport, server.url, "*/*")
        assert transport._pool is not None
        [[(protocol, _)]] = transport._pool.session.connector._conns.values()  # type: ignore[union-attr]
        assert protocol.transport is not None
        connection = protocol.transport.get_extra_info("socket")
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, interval, count, waits = (
            connection.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        )
        assert waits == 1000 * max(1, stall)
        # The kernel gives a silent connection up at the first probe after that time.
        assert stall <= idle + interval * count <= max(2, 1.2 * stall)
        assert idle + interval <= max(2, stall)
