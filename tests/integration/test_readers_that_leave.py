"""A reader that goes away in the middle takes everything with it that was held for it, at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from pacs import demo
from pacs.archive import Archive
from pacs.dicomweb.app import Dicomweb
from pacs.dicomweb.askers import Shared
from pacs.dicomweb.offload import Offload, _lane
from pacs.settings import Settings
from tests.integration.exchange import Stored
from tests.objects import images

READERS = 6
SIDE = 2000
"""Of an image of noise: more than the kernel takes for a reader that does not read."""


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[Archive, Stored]]:
    noise = np.random.default_rng(5).integers(0, 65536, (SIDE, SIDE), np.uint16)
    file = images.native("noise", [noise]).file
    with Archive.open(tmp_path / "archive", create=True) as archive:
        archive.store(file)
        yield archive, Stored(file)


@contextlib.asynccontextmanager
async def serving(archive: Archive, settings: Settings) -> AsyncIterator[tuple[Dicomweb, tuple[str, int]]]:
    handler = Dicomweb(archive, settings)
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield handler, runner.addresses[0]
    finally:
        await runner.cleanup()
        handler.close()


@pytest.fixture
async def at(stored: tuple[Archive, Stored]) -> AsyncIterator[tuple[Dicomweb, tuple[str, int]]]:
    async with serving(stored[0], Settings()) as found:
        yield found


def maps(archive: Archive) -> int:
    """Frames that are mapped into memory."""
    return sum(f"{archive.root}/studies" in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("resource", ["frames/1", "frames/1,1", "stream", "stream from the middle"])
async def test_what_a_reader_leaves_behind(
    stored: tuple[Archive, Stored], at: tuple[Dicomweb, tuple[str, int]], resource: str
) -> None:
    archive, of = stored
    handler, address = at
    path = f"{of.path}/{resource}" if "frames" in resource else f"{of.series}/stream?rungs=level:1,lossless"
    extra = "Range: bytes=1000000-\r\n" if "middle" in resource else ""
    request = f"GET /dicomweb{path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode()
    loop = asyncio.get_running_loop()
    connections = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(READERS):
            connection = socket.socket()
            connections.append(connection)
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            await loop.sock_connect(connection, address)
            await loop.sock_sendall(connection, request)
            assert (await loop.sock_recv(connection, 4096)).startswith(b"HTTP/1.1 20")
        async with asyncio.timeout(120):
            # The head of an answer may be here before its frame is mapped.
            while maps(archive) < READERS or len(handler.active) < READERS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(handler.active) == READERS
        while connections:
            connections.pop().close()
        async with asyncio.timeout(120):
            while handler.active:  # noqa: ASYNC110 - what the server does is seen from outside
                await asyncio.sleep(0.01)
        # What is left may be closed in turns of the loop to come, never by the collector.
        async with asyncio.timeout(120):
            while maps(archive):  # noqa: ASYNC110 - the kernel's list
                await asyncio.sleep(0.01)
        async with asyncio.timeout(120):
            while handler.service.offload.depths() != {"read": 0, "render": 0, "encode": 0, "transcode": 0}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
        for connection in connections:
            connection.close()


@contextlib.contextmanager
def let_go() -> Iterator[threading.Event]:
    """What threads wait for, until a test is over at the latest."""
    go = threading.Event()
    try:
        yield go
    finally:
        go.set()


async def ask(address: tuple[str, int], path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"GET /dicomweb{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return reader, writer


@pytest.mark.parametrize("query", ["layer=1", "bytes=900", "quality=40"])
async def test_what_nobody_waits_for_any_more_is_not_begun(tmp_path: Path, query: str) -> None:
    """Of six images the first is asked for by one who goes and by one who stays, the second by one who stays."""
    files = list(demo.head_slices(6, rows=64, name="scrolled past"))
    with Archive.open(tmp_path / "archive", create=True) as archive:
        for file in files:
            archive.store(file)
        async with (
            serving(archive, Settings(codec_threads=1, frame_cache=0, rendition_cache=0)) as (handler, address),
            contextlib.AsyncExitStack() as held_back,
        ):
            offload, go = handler.service.offload, held_back.enter_context(let_go())
            busy = [offload.compute(seconds, go.wait) for seconds in (0.001, 0.1, 10)]
            readers = [
                await ask(address, f"{Stored(files[number]).path}/frames/1?{query}") for number in (0, 0, 1, 2, 3, 4, 5)
            ]
            gone, staying = [readers[0], *readers[3:]], readers[1:3]
            async with asyncio.timeout(120):
                while (  # noqa: ASYNC110 - what the server does is seen from outside
                    sum(offload.depths().values()) < len(busy) + len(files) or len(handler.active) < len(readers)
                ):
                    await asyncio.sleep(0.001)
                for _, writer in gone:
                    writer.close()
                while sum(one.transport is not None for one in handler.active) > len(staying):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                # Those who left do not wait for the codec.
                go.set()
                for reader, writer in staying:
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                    writer.close()
                while handler.active:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            assert handler.service.renditions.made == len(staying)


async def test_who_asks_as_the_turn_has_just_come_gets_an_answer() -> None:
    offload, go = Offload(1), threading.Event()
    seconds = 0.1
    try:
        shared: Shared[int] = Shared(offload)
        left: Any = SimpleNamespace(transport=None)
        blocked = offload.compute(seconds, go.wait)
        leaving = asyncio.ensure_future(shared("key", seconds, lambda: 7, left))
        await asyncio.sleep(0)
        go.set()
        # It is dropped in its thread, while the loop stands still and knows nothing of it.
        offload._lanes[_lane(seconds)].submit(int).result(120)
        assert await shared("key", seconds, lambda: 8, None) == 8
        with pytest.raises(ConnectionResetError):
            await leaving
        await blocked
    finally:
        offload.close()
