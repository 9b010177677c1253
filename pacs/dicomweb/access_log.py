"""One line of JSON for each request: no patient data, no UIDs, no addresses.

Lines are gathered and written by a thread once a second: the requests do not wait for the file, and a worker that is
killed loses the last second of it. Whoever rotates the file moves it away; it is made anew.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from pacs.errors import SettingsError

_log = logging.getLogger("pacs.server")

STANDARD_OUTPUT: Final = "-"
_MOST_WAITING: Final = 64
"""Seconds of lines that may wait for a file that does not take them."""
_ATOMIC: Final = 4096
"""Bytes that a pipe takes in one piece, whoever else writes. PIPE_BUF"""

_encode = msgspec.json.Encoder().encode


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request, as it is logged."""

    time: str
    """UTC, when it ended."""
    request: str
    """Its id: that of a trusted proxy, or made here."""
    method: str
    route: str
    """A template without identifiers."""
    status: int
    bytes: int
    """Of the body that was sent."""
    seconds: float
    first_byte: float | None
    """Seconds from the head of the request to the first byte of the answer."""
    network: str
    aborted: bool = False
    received: int = 0
    """Bytes of the body that came."""
    error: str = ""
    """Its code."""


class AccessLog:
    """Writes to a file, or to standard output for `-`. `add` and `flush` are for one thread."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lines: list[Line] = []
        self._waiting: queue.SimpleQueue[list[Line] | None] = queue.SimpleQueue()
        self.lost = 0
        """Lines that could not be written."""
        self._descriptor = -1
        self._identity: tuple[int, int] | None = None
        self._prefix = secrets.token_hex(5)
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def request_id(self) -> str:
        """A new one: unique among workers and runs."""
        return f"{self._prefix}{next(self._numbers):06x}"

    def add(self, line: Line) -> None:
        self._lines.append(line)

    def flush(self) -> None:
        """Have what was added written."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        if self._waiting.qsize() >= _MOST_WAITING:
            self.lost += len(lines)
        else:
            self._waiting.put(lines)

    def close(self) -> None:
        """Write the rest; not for ever, if nobody takes it."""
        self.flush()
        self._waiting.put(None)
        self._thread.join(2.0)

    def _run(self) -> None:
        while (lines := self._waiting.get()) is not None:
            try:
                self._write(lines)
            except OSError as error:
                self.lost += len(lines)
                _log.error("the access log cannot be written: %s", error.strerror)
        if self._descriptor >= 0 and self._where != STANDARD_OUTPUT:
            os.close(self._descriptor)

    def _write(self, lines: list[Line]) -> None:
        descriptor = self._open()
        piece = b""
        for line in lines:
            text = _encode(line) + b"\n"
            if len(piece) + len(text) > _ATOMIC:
                _write_all(descriptor, piece)
                piece = b""
            piece += text
        _write_all(descriptor, piece)

    def _open(self) -> int:
        """The file under its name now."""
        if self._where == STANDARD_OUTPUT:
            self._descriptor = sys.stdout.fileno()
            return self._descriptor
        try:
            found = Path(self._where).stat()
            identity = (found.st_dev, found.st_ino)
        except FileNotFoundError:
            identity = None
        if self._descriptor < 0 or identity is None or identity != self._identity:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
            self._descriptor = _append_to(self._where)
            opened = os.fstat(self._descriptor)
            self._identity = (opened.st_dev, opened.st_ino)
        return self._descriptor


def _append_to(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def check(where: str) -> None:
    """Raises SettingsError where no log can be written."""
    if where and where != STANDARD_OUTPUT:
        try:
            os.close(_append_to(where))
        except OSError as error:
            raise SettingsError(f"PACS_ACCESS_LOG: {where} cannot be written: {error.strerror}") from None


_second: tuple[int, str] = (0, "")


def utc(now: float) -> str:
    """2026-01-31T12:00:00.123Z"""
    global _second
    whole = int(now)
    if _second[0] != whole:
        _second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
    return f"{_second[1]}.{int((now - whole) * 1000):03d}Z"
