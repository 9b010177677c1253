"""Clients of a server whose storage is being maltreated, and what must hold afterwards."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from pacs.dicom import attributes, part10

CLIENTS = 4
LIMIT = 300
"""Seconds: of waits that end at once when all is well."""


def upload(address: str, data: bytes) -> bool:
    """Whether the instance was acknowledged. Raises OSError or HTTPException when the connection breaks."""
    status, answer = _sent(address, data)
    if status == 200:
        assert answer["00081199"]["Value"]
        return True
    assert status in (409, 503), answer
    return False


def refusal(address: str, data: bytes) -> str:
    """Why the instance was refused, by its Error Comment."""
    status, answer = _sent(address, data)
    assert status in (409, 503), answer
    [failed] = answer["00081198"]["Value"]
    return str(failed["00000902"]["Value"][0])


def refused(address: str, data: bytes) -> bool:
    """Whether the instance was refused for now: to be sent again later. Else it was acknowledged."""
    status, answer = _sent(address, data)
    if status == 200:
        return False
    assert status == 503, answer
    [failed] = answer["00081198"]["Value"]
    assert failed["00081197"]["Value"] == [0xA700]
    return True


def _sent(address: str, data: bytes) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(address, timeout=LIMIT)
    try:
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n"
        content = 'multipart/related; type="application/dicom"; boundary=b'
        connection.request("POST", "/dicomweb/studies", body, {"Content-Type": content})
        response = connection.getresponse()
        assert (response.status == 503) == ("Retry-After" in response.headers)
        return response.status, json.loads(response.read())
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
        deadline = time.monotonic() + LIMIT
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
            time.sleep(0.01)  # a worker that is to be started needs the processor, too

    def join(self) -> None:
        for client in self._clients:
            client.join(2 * LIMIT)
            assert not client.is_alive()


def stored_files(server: Any, data: bytes) -> bytes | None:
    """The exact file that the server gives back for this one."""
    found = attributes.uids(part10.scan(data).json)
    connection = server.connect()
    try:
        path = f"/dicomweb/studies/{found.study}/series/{found.series}/instances/{found.instance}"
        connection.request("GET", path, headers={"Accept": "application/dicom; transfer-syntax=*"})
        response = connection.getresponse()
        body = response.read()
        assert response.status in (200, 404, 503), body
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


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
