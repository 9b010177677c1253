"""A cheap HTTP client for load: prepared requests, kept-alive connections, bodies counted and mostly not kept.

Beside a server on the same cores it takes from what it measures: its own CPU time is always told.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import ssl
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias, cast

import uvloop

from pacs.client.together import together


@dataclass(frozen=True, slots=True)
class Request:
    """Bytes to send as they are."""

    pieces: tuple[bytes | memoryview, ...]
    instances: int = 0
    """Of an upload."""
    name: str = ""
    """Under which its latency is kept apart too."""


def get(path: str, host: str, accept: str = "*/*", headers: Mapping[str, str] | None = None) -> Request:
    """A GET request."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", f"Accept: {accept}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return Request(("\r\n".join([*lines, "", ""]).encode("latin-1"),))


File: TypeAlias = bytes | Sequence[bytes | memoryview]
"""A Part 10 file, whole or in pieces."""


def stow(path: str, host: str, files: Sequence[File], headers: Mapping[str, str] | None = None) -> Request:
    """A STOW-RS request of several instances."""
    boundary = "benchmark-0123456789"
    part = f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    closing = f"\r\n--{boundary}--\r\n".encode()
    bodies = [(file,) if isinstance(file, bytes) else tuple(file) for file in files]
    length = sum(len(part) + sum(map(len, body)) for body in bodies) + len(closing)
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/dicom+json\r\n{more}"
        f'Content-Type: multipart/related; type="application/dicom"; boundary={boundary}\r\n'
        f"Content-Length: {length}\r\n\r\n"
    )
    pieces: list[bytes | memoryview] = [head.encode("latin-1")]
    for body in bodies:
        pieces += [part, *body]
    return Request((*pieces, closing), len(files))


@dataclass(slots=True)
class Response:
    """What came back. `body` is empty unless it was asked for."""

    status: int
    headers: dict[str, str]
    length: int
    body: bytes


@dataclass(slots=True)
class Load:
    """What a run of requests took."""

    requests: int = 0
    instances: int = 0
    """Uploaded."""
    bytes: int = 0
    """Received in bodies."""
    seconds: float = 0.0
    client_seconds: float = 0.0
    """CPU time of this process meanwhile."""
    latencies: list[float] = field(default_factory=list)
    by_name: dict[str, list[float]] = field(default_factory=dict)
    """Latencies of requests that have a name."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def add(self, other: Load) -> None:
        """Another process ran beside this one."""
        self.requests += other.requests
        self.instances += other.instances
        self.bytes += other.bytes
        self.seconds = max(self.seconds, other.seconds)
        self.client_seconds += other.client_seconds
        self.latencies += other.latencies
        for name, latencies in other.by_name.items():
            self.by_name.setdefault(name, []).extend(latencies)

    def quantile(self, q: float) -> float:
        """Latency in milliseconds that the share `q` of requests does not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1e3

    @property
    def median(self) -> float:
        return statistics.median(self.latencies) * 1e3


Address: TypeAlias = tuple[str, int]


class RequestFailedError(Exception):
    """A server that does not answer as it should: a figure would mean nothing."""


class _Connection(asyncio.BufferedProtocol):
    """One kept-alive connection; one request at a time. It reads into one buffer over and over."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(1 << 20))
        self.transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._keep = False
        self._reset()

    def _reset(self) -> None:
        self._head = bytearray()
        self._response: Response | None = None
        self._left = -1
        self._chunked = False
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._waiter is not None and not self._waiter.done():
            if self._response is not None and self._left < 0 and not self._chunked:
                self._finish()  # a body that ends with the connection
            else:
                self._waiter.set_exception(RequestFailedError(f"the connection was lost: {exc}"))

    def send(self, request: Request, keep: bool) -> asyncio.Future[Response]:
        assert self.transport is not None
        self._reset()
        self._keep = keep
        self._waiter = asyncio.get_running_loop().create_future()
        for piece in request.pieces:
            self.transport.write(piece)
        return self._waiter

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received(self._buffer[:nbytes])

    def eof_received(self) -> bool:
        return False

    def _received(self, data: memoryview) -> None:
        while self._response is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = memoryview(bytes(self._head[end + 4 :]))
            self._parse_head(bytes(self._head[:end]))
            self._head = bytearray()
        response = self._response
        assert response is not None
        if self._chunked:
            self._body += data
            # The end of a chunked body is looked for only where it can be: this client is for our own requests.
            if self._body.endswith(b"0\r\n\r\n"):
                decoded = _unchunk(self._body)
                if decoded is not None:
                    response.length = len(decoded)
                    self._body = bytearray(decoded) if self._keep else bytearray()
                    self._finish()
            return
        response.length += len(data)
        if self._keep:
            self._body += data
        if response.length == self._left:
            self._finish()

    def _parse_head(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        if status == 100:
            return
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self._response = Response(status, headers, 0, b"")
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = int(headers.get("content-length", 0 if status in (204, 304) else -1))

    def _finish(self) -> None:
        response, waiter = self._response, self._waiter
        assert response is not None and waiter is not None
        response.body = bytes(self._body)
        self._waiter = None
        if not waiter.done():
            waiter.set_result(response)


def _unchunk(data: bytearray) -> bytes | None:
    """The decoded body; None when it is not whole yet."""
    out = bytearray()
    position = 0
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return None
        size = int(bytes(data[position:end]).split(b";")[0], 16)
        if size == 0:
            return bytes(out)
        if end + 2 + size + 2 > len(data):
            return None
        out += data[end + 2 : end + 2 + size]
        position = end + 2 + size + 2


async def _run(
    address: Address, requests: Iterator[Request], clients: int, seconds: float | None,
    check: Callable[[Response], None] | None, keep: bool, tls: ssl.SSLContext | None,
) -> Load:  # fmt: skip
    loop = asyncio.get_running_loop()
    load = Load()
    name = address[0] if tls is not None else None

    async def connect() -> _Connection:
        try:
            return (await loop.create_connection(_Connection, *address, ssl=tls, server_hostname=name))[1]
        except OSError as error:
            raise RequestFailedError(f"{address[0]}:{address[1]} cannot be reached: {error}") from None

    connections = [await connect() for _ in range(clients)]
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds if seconds is not None else float("inf")

    async def work(connection: _Connection) -> None:
        for request in requests:
            sent = time.perf_counter()
            if sent > end and load.requests:  # a busy machine may need all of the time to come here
                return
            if connection.transport is None:
                connection = await connect()
            response = await connection.send(request, keep)
            load.latencies.append(time.perf_counter() - sent)
            if request.name:
                load.by_name.setdefault(request.name, []).append(load.latencies[-1])
            load.requests += 1
            load.instances += request.instances
            load.bytes += response.length
            if check is not None:
                check(response)
            elif not 200 <= response.status < 300:
                raise RequestFailedError(f"status {response.status}: {response.body[:500]!r}")

    await together(work(connection) for connection in connections)
    load.seconds = time.perf_counter() - began
    load.client_seconds = time.process_time() - cpu
    for connection in connections:
        if connection.transport is not None:
            connection.transport.close()
    await asyncio.sleep(0)
    return load


def run(
    address: Address, requests: Iterator[Request], *, clients: int = 1, seconds: float | None = None,
    check: Callable[[Response], None] | None = None, keep: bool = False, tls: ssl.SSLContext | None = None,
    processes: int = 1,
) -> Load:  # fmt: skip
    """Send `requests` over `clients` connections, until they end or `seconds` are over.

    With several `processes` each sends its share of the requests over its share of the connections: one core of
    client does not load a large machine. What `check` sees stays in its process. Raises RequestFailedError.
    """
    if processes > 1:
        return _run_in_processes(address, requests, clients, seconds, check, keep, tls, processes)
    return uvloop.run(_run(address, requests, clients, seconds, check, keep, tls))


def _run_in_processes(
    address: Address, requests: Iterator[Request], clients: int, seconds: float | None,
    check: Callable[[Response], None] | None, keep: bool, tls: ssl.SSLContext | None, processes: int,
) -> Load:  # fmt: skip
    """Forks, so that nothing of the requests is copied or pickled."""
    children: list[tuple[int, int]] = []
    for number in range(processes):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                share = islice(requests, number, None, processes)
                own = clients // processes + (number < clients % processes)
                _tell(writing, lambda share=share, own=own: run(  # type: ignore[misc]
                    address, share, clients=own, seconds=seconds, check=check, keep=keep, tls=tls))
            finally:
                os._exit(0)  # whatever happened, what the parent began is the parent's to end
        os.close(writing)
        children.append((pid, reading))
    whole, failures = Load(), []
    try:
        for _, reading in children:
            with os.fdopen(reading, "rb") as pipe:
                data = pipe.read()
            told = pickle.loads(data) if data else "a client process died"
            if isinstance(told, Load):
                whole.add(told)
            else:
                failures.append(told)
    finally:
        for pid, _ in children:  # they are done, or nobody waits for them any more
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if failures:
        raise RequestFailedError(failures[0])
    return whole


def _tell(pipe: int, work: Callable[[], Load]) -> None:
    """Write what `work` found, or why it did not."""
    found: Load | str
    try:
        found = work()
    except BaseException as error:  # noqa: BLE001
        found = f"{error}"
    with os.fdopen(pipe, "wb") as file:
        pickle.dump(found, file)


def fetch(address: Address, request: Request, tls: ssl.SSLContext | None = None) -> Response:
    """One request, its whole answer."""
    answers: list[Response] = []
    run(address, iter((request,)), check=answers.append, keep=True, tls=tls)
    return answers[0]
