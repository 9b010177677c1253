"""The throttled link: rate shared by all, delay, stalls, cuts.

A link is never faster than it should be. Whether it is slower is looked at until it is not, since a machine that does
much else makes it so now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from benchmarks.link import Link, Shape, link_thread, open_link

RATE = 8e6
BLOCK = 100_000
"""A tenth of a second at RATE."""
LIMIT = 120
"""Seconds until a link that is too slow is a fault of its own."""


@contextlib.asynccontextmanager
async def linked(shape: Shape) -> AsyncIterator[Link]:
    """A link to a server that answers each line `N` with N bytes, and `close` by closing; it notes who came."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sources.append(writer.get_extra_info("peername")[0])
        task = asyncio.current_task()
        assert task is not None
        answering.append(task)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(bytes(range(256)) * (int(line) // 256) + b"x" * (int(line) % 256))
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    answering: list[asyncio.Task[None]] = []
    sources: list[str] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    link = await open_link(server.sockets[0].getsockname()[:2], shape)
    link.sources = sources  # type: ignore[attr-defined]
    try:
        yield link
    finally:
        await link.close()
        server.close()
        await asyncio.gather(*answering)


@contextlib.asynccontextmanager
async def connected(link: Link) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*link.address, limit=1 << 14)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(link: Link, count: int, *, times: int = 1) -> list[float]:
    """Seconds of each of `times` exchanges on one connection."""
    seconds = []
    started = time.perf_counter()
    async with connected(link) as (reader, writer):
        for _ in range(times):
            writer.write(b"%d\n" % count)
            body = await reader.readexactly(count)
            seconds.append(time.perf_counter() - started)
            assert body == (bytes(range(256)) * (count // 256) + b"x" * (count % 256))
            started = time.perf_counter()
    return seconds


async def test_rate_is_shared_by_all_connections() -> None:
    alone, together, apart = [], [], []
    async with linked(Shape(RATE)) as link, asyncio.timeout(LIMIT):
        while len(alone) < 3 or min(alone) > 0.4 or min(together) > 0.8 or min(apart) > 0.4:
            alone += await ask(link, 2 * BLOCK)
            started = time.perf_counter()
            [first], [second] = await asyncio.gather(ask(link, 2 * BLOCK), ask(link, 2 * BLOCK))
            together.append(time.perf_counter() - started)
            apart.append(abs(first - second) / max(first, second))  # neither waits for the other
    assert min(alone) > 0.19
    assert min(together) > 0.38


async def test_delay_and_handshake() -> None:
    firsts, later = [], []
    async with linked(Shape(0, rtt=0.1)) as link, asyncio.timeout(LIMIT):
        while not firsts or min(firsts) > 0.6 or min(later) > 0.18:
            first, *others = await ask(link, 10, times=4)
            firsts.append(first)
            later += others
    assert min(firsts) > 0.19, "a round trip for the connection, one for the exchange"
    assert min(later) > 0.095


async def test_stalls_hold_a_connection_back_and_repeat_with_the_seed() -> None:
    counts = []
    for _ in range(2):
        async with linked(Shape(RATE * 4, rtt=0.004, stalls=0.05, seed=7)) as link:
            await ask(link, 10, times=70)  # a segment each
            counts.append(link.down.stalls)
    assert counts[0] == counts[1]
    assert 1 <= counts[0] <= 12, "of 70 segments"
    late = []
    async with linked(Shape(RATE * 4, rtt=0.05, stalls=1.0)) as link, asyncio.timeout(LIMIT):
        while not late or min(late) > 0.4:
            late += (await ask(link, 10, times=3))[1:]
    assert min(late) > 0.14, "there and back, and a repeat each way"


async def test_counts() -> None:
    async with linked(Shape(RATE, rtt=0.02)) as link:
        await ask(link, BLOCK)
        await ask(link, 10)
        assert link.down.bytes == BLOCK + 10 and link.up.bytes == len("100000\n10\n")
        assert link.connections == 2
        marks = link.down.marks
        assert marks[-1][1] == BLOCK + 10 and [mark for mark, _ in marks] == sorted(mark for mark, _ in marks)
        assert link.down.first < link.down.last <= link.now()


async def test_a_connection_is_cut_after_so_many_bytes() -> None:
    async with linked(Shape(RATE, rtt=0.01)) as link:
        link.cut_after(5000)
        async with connected(link) as (reader, writer):
            writer.write(b"%d\n" % BLOCK)
            assert len(await reader.read(-1)) == 5000
        link.cut_after(5000, "reset")
        async with connected(link) as (reader, writer):
            writer.write(b"%d\n" % BLOCK)
            with pytest.raises(ConnectionError):
                await reader.readexactly(BLOCK)
        await ask(link, 6000)


async def test_address_change_silences_what_is_open() -> None:
    async with linked(Shape(RATE, rtt=0.01)) as link, connected(link) as (reader, writer):
        writer.write(b"1000\n")
        await reader.readexactly(1000)
        link.change_address()
        writer.write(b"1000\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        await ask(link, 1000)
        assert link.sources == ["127.0.0.1", "127.0.0.2"]  # type: ignore[attr-defined]


async def test_a_slow_reader_holds_the_sender_back() -> None:
    """What nobody reads is not taken from the server either, and others go on meanwhile."""
    async with linked(Shape(RATE * 10)) as link, connected(link) as (reader, writer):
        writer.write(b"%d\n" % (40 * BLOCK))
        await reader.readexactly(1000)
        async with asyncio.timeout(LIMIT):
            await ask(link, 2 * BLOCK)
        assert link.down.bytes < 30 * BLOCK
        assert len(await reader.readexactly(40 * BLOCK - 1000)) == 40 * BLOCK - 1000


async def test_a_server_that_is_away_ends_the_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        link = await open_link(unused.getsockname(), Shape())
        try:
            async with connected(link) as (reader, _):
                assert await reader.read(1) == b""
        finally:
            await link.close()


def test_in_a_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        shape = Shape(RATE, 0.02)
        with link_thread(server.getsockname(), shape) as link, socket.create_connection(link.address) as client:
            client.sendall(b"hello")
            connection, _ = server.accept()
            with connection:
                assert connection.recv(5) == b"hello"
                connection.sendall(b"welcome")
                connection.shutdown(socket.SHUT_WR)
                received = b""
                while data := client.recv(100):
                    received += data
        assert received == b"welcome" and link.down.bytes == 7
