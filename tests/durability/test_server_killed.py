"""SIGKILL of a worker or of the whole server while four clients upload: nothing acknowledged is lost, nothing half there."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pacs import part10

STEPS = ("placed", "frames-written", "records-written", "synced", "index-written", "index-committed", "settled")
CRASH = Path(__file__).parent / "crash"
CLIENTS = 4


def upload(address: str, data: bytes) -> bool:
    """Whether the instance was acknowledged. Raises OSError or HTTPException when the connection breaks."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n"
        content = 'multipart/related; type="application/dicom"; boundary=b'
        connection.request("POST", "/dicomweb/studies", body, {"Content-Type": content})
        response = connection.getresponse()
        answer = response.read()
        if response.status == 200:
            assert json.loads(answer)["00081199"]["Value"]
            return True
        assert response.status in (409, 503), answer
        return False
    finally:
        connection.close()


class Load:
    """Clients that upload until all is acknowledged or the server is gone."""

    def __init__(self, address: str, files: Iterable[bytes], *, until_all: bool) -> None:
        self._address = address
        self._waiting = list(files)
        self._until_all = until_all
        self.acknowledged: list[bytes] = []
        self.failures: list[BaseException] = []
        self._clients = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for client in self._clients:
            client.start()

    def _run(self) -> None:
        deadline = time.monotonic() + 30
        while self._waiting and time.monotonic() < deadline:
            try:
                data = self._waiting.pop()
            except IndexError:
                return
            try:
                if upload(self._address, data):
                    self.acknowledged.append(data)
                    continue
            except (OSError, http.client.HTTPException) as error:
                if not self._until_all:
                    self.failures.append(error)
                    return
            except AssertionError as error:
                self.failures.append(error)
                return
            self._waiting.append(data)

    def join(self) -> None:
        for client in self._clients:
            client.join(60)
            assert not client.is_alive()


def stored_files(server: Any, data: bytes) -> bytes | None:
    """The exact file that the server gives back for this one."""
    found = part10.uids(part10.scan(data).json)
    connection = server.connect()
    try:
        path = f"/dicomweb/studies/{found.study}/series/{found.series}/instances/{found.instance}"
        connection.request("GET", path, headers={"Accept": "application/dicom; transfer-syntax=*"})
        response = connection.getresponse()
        body = response.read()
        return body if response.status == 200 else None
    finally:
        connection.close()


def assert_sound(server: Any, load: Load, files: list[bytes], pacs_command: Callable[..., Any]) -> None:
    """What was acknowledged is there, the rest can be sent again, the check is clean."""
    for data in load.acknowledged:
        assert stored_files(server, data) == data
    for data in files:
        assert upload(server.address, data)
        assert stored_files(server, data) == data
    server.stop()
    checked = pacs_command("check", "--archive", server.archive)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture
def files(ct_slices: Callable[..., list[bytes]]) -> list[bytes]:
    """Two studies of small slices, mixed."""
    made = [*ct_slices(12, rows=64), *ct_slices(12, rows=64)]
    random.Random(1).shuffle(made)
    return made


def crash_environment(step: str, tmp_path: Path, *, group: bool) -> dict[str, str]:
    return {
        "PYTHONPATH": str(CRASH),
        "CRASH_STEP": step,
        "CRASH_COUNT": "2" if step != "settled" else "1",
        "CRASH_ONCE": str(tmp_path / "crashed"),
        "CRASH_GROUP": "1" if group else "0",
    }


@pytest.mark.parametrize("step", STEPS)
def test_one_worker_killed_at_a_step(
    step: str, tmp_path: Path, files: list[bytes], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    server = start_server(tmp_path / "archive", workers=2, env=crash_environment(step, tmp_path, group=False))
    load = Load(server.address, files, until_all=True)
    load.join()
    wait_for((tmp_path / "crashed").exists)
    assert not load.failures
    assert len(load.acknowledged) == len(files)
    assert_sound(server, load, files, pacs_command)


@pytest.mark.parametrize("step", STEPS)
def test_whole_server_killed_at_a_step(
    step: str, tmp_path: Path, files: list[bytes], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    server = start_server(tmp_path / "archive", workers=2, env=crash_environment(step, tmp_path, group=True))
    load = Load(server.address, files, until_all=False)
    load.join()
    wait_for(lambda: server.process.poll() is not None)
    assert_sound(start_server(tmp_path / "archive", workers=2), load, files, pacs_command)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(
    seed: int, tmp_path: Path, ct_slices: Callable[..., list[bytes]], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    """Twice a worker, then everything at once, each at any moment of an upload."""
    chance = random.Random(seed)
    files = [*ct_slices(60, rows=64), *ct_slices(30, rows=128)]
    server = start_server(tmp_path / "archive", workers=2)
    load = Load(server.address, files, until_all=True)
    for delay in (chance.uniform(0, 0.3), chance.uniform(0, 0.5)):
        wait_for(lambda: len(server.workers) == 2)
        started = time.monotonic()
        wait_for(lambda started=started, delay=delay: time.monotonic() - started >= delay)
        os.kill(chance.choice(server.workers), signal.SIGKILL)
    load.join()
    assert not load.failures
    late = Load(server.address, ct_slices(60, rows=64, name=f"late {seed}"), until_all=False)
    moment = chance.uniform(0, 0.4)
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started >= moment)
    server.kill()
    late.join()
    load.acknowledged += late.acknowledged
    assert_sound(start_server(tmp_path / "archive", workers=2), load, files, pacs_command)
