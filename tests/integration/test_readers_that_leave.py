"""A reader that goes away in the middle takes everything with it that was held for it, at once."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from pacs.archive import Archive
from pacs.dicomweb.app import Dicomweb
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


@pytest.fixture
async def at(stored: tuple[Archive, Stored]) -> AsyncIterator[tuple[Dicomweb, tuple[str, int]]]:
    handler = Dicomweb(stored[0], Settings())
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield handler, runner.addresses[0]
    await runner.cleanup()
    handler.close()


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
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            await loop.sock_connect(connection, address)
            await loop.sock_sendall(connection, request)
            assert (await loop.sock_recv(connection, 4096)).startswith(b"HTTP/1.1 20")
            connections.append(connection)
        assert maps(archive) >= READERS and len(handler.active) == READERS
        while connections:
            connections.pop().close()
        async with asyncio.timeout(20):
            while handler.active:  # noqa: ASYNC110 - what the server does is seen from outside
                await asyncio.sleep(0.01)
        # What is left may be closed in turns of the loop to come, never by the collector.
        async with asyncio.timeout(5):
            while maps(archive):  # noqa: ASYNC110 - the kernel's list
                await asyncio.sleep(0.01)
        assert handler.service.offload.depths() == {"read": 0, "render": 0, "encode": 0, "transcode": 0}
    finally:
        gc.enable()
        for connection in connections:
            connection.close()
