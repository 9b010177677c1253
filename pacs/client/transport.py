"""One server over HTTP: its URLs, its connections, single attempts at requests (RFC 9110)."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from pacs.client import answer
from pacs.client.patience import Patience
from pacs.client.resource import http_url
from pacs.client.silence import WatchedSockets
from pacs.errors import PacsError, RemoteError, UnreachableError

LOST = (aiohttp.ClientError, OSError)
"""What a connection fails with; TimeoutError is an OSError."""
_MOST_EXPLANATION = 64 << 10
_HELD = 1 << 20
"""Bytes of a body that wait for their reader; then the connection has to."""
_TEMPORARY = frozenset((429, 502, 503, 504))


class Transport:
    """Connections to one DICOMweb server."""

    def __init__(
        self, root: str, headers: Mapping[str, str] | None = None, patience: Patience | None = None,
        connections: int = 6,
    ) -> None:  # fmt: skip
        """`root` is the DICOMweb root. Raises UnreachableError for what is no http or https URL."""
        self.root = root.rstrip("/")
        try:
            self._origin = http_url(self.root).origin()
        except ValueError:
            raise UnreachableError(root, "this is not a URL of http or https") from None
        self.patience = patience if patience is not None else Patience()
        self._headers = dict(headers or {})
        self._connections = max(1, connections)
        self._pool: _Pool | None = None
        self._retired: set[_Pool] = set()
        self.reached = False
        """Whether the server ever answered."""
        self.on_received: Callable[[int], None] | None = None
        """Hears how many bytes of a body have arrived, each time some do."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        pools, self._pool = [*self._retired, *([self._pool] if self._pool else [])], None
        self._retired.clear()
        for pool in pools:
            await pool.session.close()

    @property
    def headers(self) -> Mapping[str, str]:
        """What is sent with every request."""
        return self._headers

    def url(self, *segments: str, query: Mapping[str, str] | None = None) -> str:
        """The URL of a resource below the root."""
        url = URL("/".join((self.root, *(quote(segment, safe=",") for segment in segments))), encoded=True)
        return str(url.update_query(query) if query else url)

    def below(self, base: str, reference: str) -> str:
        """The URL that a server's `reference` means, seen from `base`, which ends in a slash if it is a folder.

        Raises UnreachableError for one of another origin: our headers may hold a password, and a server must not send
        us to others in its name.
        """
        try:
            joined = URL(base).join(URL(reference))
            if joined.origin() == self._origin:
                return str(joined)
        except ValueError:
            pass
        raise UnreachableError(base, f"it refers to {reference[:200]}, which lies elsewhere")

    async def send(self, url: str, headers: Mapping[str, str]) -> Exchange:
        """One GET up to the head of its answer, which is 200 or 206. Raises FailedError."""
        pool = self._take()
        response = None
        try:
            async with asyncio.timeout(self.patience.connect + self.patience.answer):
                response = await pool.session.get(URL(url, encoded=True), headers=headers, allow_redirects=False)
            self.reached = True
            exchange = Exchange(self, pool, response)
        except LOST as error:
            await self.give_back(pool, response, distrusted=True)
            raise self.failure(url, error) from None
        except BaseException:
            await self.give_back(pool, response)
            raise
        if response.status in (200, 204, 206, 416):
            exchange.receive()
            return exchange
        try:
            raise await self._refused(url, exchange)
        finally:
            await exchange.close()

    def failure(self, url: str, error: Exception) -> FailedError:
        """What `error` of a connection means: whether to try again is for FailedError to say."""
        if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
            return FailedError(UnreachableError(url, "this is not a URL"), hopeless=True)
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
            return FailedError(UnreachableError(url, untrusted(error)), hopeless=True)
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            cause = nobody(error)
            # Before the first answer it is rather the URL that is wrong.
            return FailedError(UnreachableError(url, f"nobody answers: {cause}"), hopeless=not self.reached)
        text = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return FailedError(UnreachableError(url, f"the connection failed: {text}"))

    async def _refused(self, url: str, exchange: Exchange) -> FailedError:
        response = exchange.response
        status = response.status
        if 300 <= status < 400:
            where = response.headers.get("Location", "elsewhere")[:200]
            return FailedError(RemoteError(url, status, f"it lies at {where} now"), hopeless=True)
        text, problem = "", None
        try:
            async with asyncio.timeout(self.patience.stall):
                body = await response.content.read(_MOST_EXPLANATION)
            text = answer.explain(body)
            decoded = msgspec.json.decode(body)
            problem = decoded if isinstance(decoded, dict) else None
        except (*LOST, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        error = RemoteError(url, status, text, problem)
        return FailedError(error, status not in _TEMPORARY, response.headers.get("Retry-After"))

    def _take(self) -> _Pool:
        if self._pool is None:
            connect = self.patience.connect
            sockets = WatchedSockets(self.patience.stall)
            watching = aiohttp.TraceConfig()
            watching.on_connection_create_end.append(sockets.connected)
            self._pool = _Pool(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=self._connections, socket_factory=sockets.make),
                    trace_configs=[watching],
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
                    headers=self._headers,
                    skip_auto_headers=("Accept-Encoding",),
                    # Ranges count in what is sent: it is unpacked once it is whole.
                    auto_decompress=False,
                )
            )
        self._pool.users += 1
        return self._pool

    async def give_back(
        self, pool: _Pool, response: aiohttp.ClientResponse | None, *, distrusted: bool = False
    ) -> None:
        """End an exchange. After a `distrusted` one no idle connection is used again: all of them may come from an
        address that this machine no longer has. Transfers that still run are left alone."""
        if response is not None:
            response.close()  # a connection whose answer was read to its end is back with the others already
        pool.users -= 1
        if distrusted and pool is self._pool:
            self._pool = None
            self._retired.add(pool)
        if pool in self._retired and not pool.users:
            self._retired.discard(pool)
            await pool.session.close()


class _Pool:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.users = 0


class Exchange:
    """An answer whose body has not been read to its end.

    The body is taken from the connection as it arrives, up to a limit: when a connection breaks, aiohttp drops what
    has been received and not been read.
    """

    def __init__(self, transport: Transport, pool: _Pool, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._transport = transport
        self._pool: _Pool | None = pool
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._end: FailedError | None = None
        self._receiving: asyncio.Task[None] | None = None

    def receive(self) -> None:
        """Begin to take the body."""
        self._receiving = asyncio.create_task(self._receive())

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises FailedError."""
        assert self._receiving is not None
        while not self._chunks:
            if self._receiving.done():
                if self._end is not None:
                    raise self._end
                return b""
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        if self._size < _HELD:
            self._room.set()
        return chunk

    async def _receive(self) -> None:
        content, url = self.response.content, str(self.response.url)
        try:
            while True:
                async with asyncio.timeout(self._transport.patience.stall):
                    chunk = await content.readany()
                if not chunk:
                    return
                self._chunks.append(chunk)
                self._size += len(chunk)
                self._changed.set()
                if self._transport.on_received is not None:
                    self._transport.on_received(len(chunk))
                if self._size >= _HELD:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            self._end = FailedError(UnreachableError(url, "nothing more was received"))
        except LOST as error:
            self._end = self._transport.failure(url, error)
        finally:
            self._changed.set()

    async def close(self, *, distrusted: bool = False) -> None:
        pool, self._pool = self._pool, None
        if self._receiving is not None and not self._receiving.done():
            self._receiving.cancel()
            with suppress(asyncio.CancelledError):
                await self._receiving
        if pool is not None:
            await self._transport.give_back(pool, self.response, distrusted=distrusted)


class FailedError(Exception):
    """An attempt failed with `error`. `hopeless`: so would every further one."""

    def __init__(self, error: PacsError, hopeless: bool = False, retry_after: str | None = None) -> None:
        super().__init__(str(error))
        self.error: Any = error
        self.hopeless = hopeless
        self.retry_after = retry_after


def untrusted(error: Exception) -> str:
    """Why there is no TLS with a server that answers."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if found := getattr(cause, "verify_message", ""):
        return f"its certificate is not trusted: {found}; SSL_CERT_FILE may name that of another authority"
    return f"no trustworthy connection: {getattr(cause, 'reason', None) or error}"


def nobody(error: aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) -> str:
    """Why there is no connection, in the system's words: asyncio's name the address and not the cause."""
    if not isinstance(error, aiohttp.ClientConnectorError):
        return "no connection in time"
    known = error.os_error
    found = os.strerror(known.errno) if known.errno is not None and known.errno > 0 else known.strerror or str(known)
    return found[:1].lower() + found[1:]
