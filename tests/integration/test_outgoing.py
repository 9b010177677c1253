"""What answers hold until slow readers have taken them."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from pathlib import Path

import pytest

from pacs import demo
from tests.conftest import Server, StartServer
from tests.integration.exchange import Client, Stored

DECODED = (
    "application/dicom",
    "/frames/1 application/octet-stream",
    "/frames/1,1 multipart/related;type=application/octet-stream",
)
SIZE = 2 * 2048 * 2048
"""Of a frame: more than the kernel takes in for a reader."""


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return list(demo.head_slices(1, rows=2048, name="outgoing"))


def ask(server: Server, path: str, accept: str, slow: contextlib.ExitStack) -> socket.socket:
    """A connection that has asked and takes nothing of the answer by itself."""
    connection = slow.enter_context(socket.socket())
    connection.settimeout(120)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = server.address.split(":")
    connection.connect((host, int(port)))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
    return connection


def answered(connections: list[socket.socket]) -> list[socket.socket]:
    return select.select(connections, [], [], 0)[0]


@pytest.mark.parametrize("asked", DECODED)
def test_more_wait_for_those_before_them(
    start_server: StartServer, archive_dir: Path, files: list[bytes], asked: str
) -> None:
    resource, _, accept = asked.rpartition(" ")
    # Three of them.
    server = start_server(archive_dir, workers=1, env={"PACS_OUTGOING_MEMORY": str(3 * SIZE + SIZE // 2)})
    with contextlib.closing(Client(server)) as client:
        client.store(*files)
        path = f"/dicomweb{Stored(files[0]).path}{resource}"
        with contextlib.ExitStack() as slow:
            waiting = [ask(server, path, accept, slow) for _ in range(5)]
            until = time.monotonic() + 120
            while len(answered(waiting)) < 3:
                assert time.monotonic() < until
                time.sleep(0.01)
            # Stored frames and other answers have nothing to wait for.
            frame = client.get(f"{Stored(files[0]).path}/frames/1")
            assert frame.status == 200 and len(frame.body) < SIZE
            assert client.get(f"{Stored(files[0]).path}/metadata").status == 200
            assert len(answered(waiting)) == 3
            for connection in answered(waiting):
                waiting.remove(connection)
                connection.close()
            for connection in waiting:
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert client.get(f"{Stored(files[0]).path}{resource}", accept=accept).status == 200


def test_who_waits_in_vain_is_told_to_come_back(
    start_server: StartServer, archive_dir: Path, files: list[bytes]
) -> None:
    server = start_server(archive_dir, workers=1, env={"PACS_OUTGOING_MEMORY": str(SIZE // 2)})
    with contextlib.closing(Client(server)) as client:
        client.store(*files)
        path = Stored(files[0]).path
        with contextlib.ExitStack() as slow:
            first = ask(server, f"/dicomweb{path}", "application/dicom", slow)
            assert first.recv(15) == b"HTTP/1.1 200 OK"
            refused = client.get(path, accept="application/dicom")
            assert refused.status == 503 and refused.headers["retry-after"]
            assert "too many large answers" in json.loads(refused.body)["message"]
            picture = client.get(f"{path}/rendered", accept="image/png")
            assert picture.status == 503
        # It has gone, and a frame larger than all of the memory is sent alone.
        assert client.get(path, accept="application/dicom").status == 200
