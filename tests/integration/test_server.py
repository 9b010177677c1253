"""The processes: dealing connections, dying workers, stopping, and HTTP that is none."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pacs import demo
from pacs.dicomweb import server as server_module
from pacs.errors import SettingsError
from pacs.settings import Settings
from tests.conftest import ROOT, Server, StartServer
from tests.integration.exchange import Client, Stored


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def established(pid: int) -> int:
    """Connections of clients that a process holds."""
    return sum(item.status == psutil.CONN_ESTABLISHED for item in psutil.Process(pid).net_connections("tcp"))


def test_connections_are_dealt_evenly(start_server: StartServer, archive_dir: Path) -> None:
    server = start_server(archive_dir, workers=2)
    clients = [server.connect() for _ in range(8)]
    for client in clients:
        client.request("GET", "/dicomweb/studies")
        assert client.getresponse().read() == b"[]"
    # The kernel's list, read while other programs connect, may for once leave one out.
    until(lambda: [established(pid) for pid in server.workers] == [4, 4])
    for client in clients:
        client.close()


def test_a_worker_that_dies_is_replaced(start_server: StartServer, archive_dir: Path) -> None:
    server = start_server(archive_dir, workers=2)
    file = next(demo.head_slices(1, rows=32, name="dies"))
    client = Client(server)
    client.store(file)
    client.close()
    first = server.workers
    os.kill(first[0], signal.SIGKILL)
    until(lambda: len(server.workers) == 2 and server.workers != first)

    def answers() -> bool:
        client = Client(server)
        try:
            return client.get(Stored(file).path, "application/dicom; transfer-syntax=*").body == file
        except (ConnectionError, http.client.HTTPException):
            return False  # dealt to the worker as it died
        finally:
            client.close()

    until(answers)
    assert all(answers() for _ in range(6))
    assert server.logged("died with status -9"), server.log


def test_connections_wait_while_all_workers_start_again(start_server: StartServer, archive_dir: Path) -> None:
    server = start_server(archive_dir, workers=2)
    first = server.workers
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not set(first) & set(server.workers))
    for _ in range(4):
        connection = server.connect()
        connection.request("GET", "/dicomweb/studies")
        assert connection.getresponse().status == 200
        connection.close()


def test_workers_end_with_their_parent(start_server: StartServer, archive_dir: Path) -> None:
    server = start_server(archive_dir, workers=2)
    workers = [psutil.Process(pid) for pid in server.workers]
    assert len(workers) == 2
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_lets_requests_finish(start_server: StartServer, archive_dir: Path, number: int) -> None:
    server = start_server(archive_dir, workers=2, env={"PACS_SHUTDOWN_GRACE": "60"})
    file = next(demo.head_slices(1, rows=32, name=f"stop {number}"))
    boundary = b"b"
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--b--"
    host, port = server.address.split(":")
    with (
        socket.create_connection((host, int(port))),  # idle
        socket.create_connection((host, int(port)), timeout=60) as connection,
        connection.makefile("rb") as answers,
    ):
        head = f"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: multipart/related; boundary={boundary.decode()}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        # Asked for the body: the request is in work, and not only on its way to a worker.
        assert (answers.readline(), answers.readline()) == (b"HTTP/1.1 100 Continue\r\n", b"\r\n")
        connection.sendall(body[:500])
        until(lambda: sum(established(pid) for pid in server.workers) == 2)
        os.kill(server.process.pid, number)
        until(lambda: refuses(host, int(port)))
        connection.sendall(body[500:])
        assert answers.readline().startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(60) == 0
    server.stop()
    assert "Traceback" not in server.log


def refuses(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=60).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it was in the backlog of the closing listener
        return True
    return False


def test_a_second_start_is_quick(start_server: StartServer, archive_dir: Path) -> None:
    """By the processor's time: the clock's depends on what else the machine does."""
    start_server(archive_dir, fresh=True).stop()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start_server(archive_dir, fresh=True).stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert 0 < after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def test_an_archive_that_cannot_be_opened_is_told(archive_dir: Path) -> None:
    archive_dir.mkdir()
    (archive_dir / "archive.json").write_text('{"format": 999}')
    command = [sys.executable, "-m", "pacs", "serve", "--archive", str(archive_dir), "--port", "0"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert found.returncode != 0
    assert "ready" not in found.stdout
    assert "STO-05" in found.stderr + found.stdout or "version" in found.stderr + found.stdout


def test_other_addresses_need_a_word(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.org"):
        with pytest.raises(SettingsError):
            server_module.serve(tmp_path / "archive", host, 0, 1, Settings())


def test_an_address_in_use(server: Server, tmp_path: Path) -> None:
    port = int(server.address.split(":")[1])
    with pytest.raises(SettingsError, match="cannot listen"):
        server_module.serve(tmp_path / "archive", "127.0.0.1", port, 1, Settings())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /dicomweb/studies HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"GET /dicomweb/studies HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
        b"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/related; boundary=b\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_http_that_is_none(server: Server, request_bytes: bytes) -> None:
    host, port = server.address.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(request_bytes)
        with contextlib.suppress(OSError):  # it may have been ended already
            connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65_536):
            answer += piece
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert 400 <= int(head.split()[1]) < 500, head
        assert json.loads(body)["code"].startswith("WEB-")


def test_requests_in_a_row_on_one_connection(server: Server) -> None:
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        one = b"GET /dicomweb/studies/1..2 HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.sendall(one * 5 + b"HEAD / HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    assert answer.count(b"HTTP/1.1 400 ") == 5
    assert answer.count(b"UID-01") == 5
    assert answer.rstrip().count(b"HTTP/1.1 200 ") == 1


def test_a_slow_reader_holds_little(start_server: StartServer, archive_dir: Path) -> None:
    """Forty readers that take nothing of a large frame leave the worker small and answering others."""
    server = start_server(archive_dir, workers=1, env={"PACS_WRITE_BUFFER": "65536"})
    client = Client(server)
    file = next(demo.head_slices(1, rows=2048, name="slow"))
    client.store(file)
    path = "/dicomweb" + Stored(file).path
    size = len(client.get(path + "/frames/1", "application/octet-stream").body)
    assert size == 2 * 2048 * 2048
    worker = psutil.Process(server.workers[0])
    before = own_memory(worker)
    host, port = server.address.split(":")
    with contextlib.ExitStack() as slow:
        for _ in range(40):
            connection = slow.enter_context(socket.socket())
            connection.settimeout(60)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(f"GET {path}/frames/1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(10).startswith(b"HTTP/1.1"), "it is being answered"
        assert client.get(path + "/metadata").status == 200
        assert own_memory(worker) - before < 50 << 20
    assert client.get(path + "/metadata").status == 200
    client.close()


def own_memory(process: psutil.Process) -> int:
    """Bytes without the files that are mapped."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def test_many_readers_at_once(server: Server) -> None:
    files = list(demo.head_slices(6, rows=128, name="many"))
    client = Client(server)
    client.store(*files)
    client.close()
    paths = [Stored(file).path for file in files]
    wrong: list[object] = []

    def read(seed: int) -> None:
        mine = Client(server)
        for turn in range(40):
            number = (seed + turn) % len(paths)
            reply = mine.get(paths[number], "application/dicom; transfer-syntax=*")
            if reply.body != files[number]:
                wrong.append(reply.status)
        mine.close()

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_name_that_is_not_ours_is_refused(start_server: StartServer, archive_dir: Path) -> None:
    """DNS rebinding: a page elsewhere whose name was made to point here must not read patients."""
    server = start_server(archive_dir, workers=1, env={"PACS_ALLOWED_HOSTS": "pacs.example"})

    def status(host: str) -> int:
        connection = server.connect()
        try:
            connection.request("GET", "/dicomweb/studies", headers={"Host": host})
            return connection.getresponse().status
        finally:
            connection.close()

    refused = [host for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example") if status(host) == 421]
    assert refused == ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"]
    for host in ("localhost", "127.0.0.1:1", "[::1]:8080", "pacs.example", "PACS.example:80"):
        assert status(host) == 200


def test_a_long_list_of_frames_fits_in_the_request_line(start_server: StartServer, archive_dir: Path) -> None:
    server = start_server(archive_dir, workers=1)
    frames = ",".join(map(str, range(1, 5000)))
    connection = server.connect()
    connection.request("GET", f"/dicomweb/studies/1/series/2/instances/3/frames/{frames}")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (404, "ARC-01")
    connection.close()
