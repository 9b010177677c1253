"""The body of a short upload, read from the socket straight into one buffer.

aiohttp copies what it reads three times before a handler has it, and gathering it costs two copies more: of a CT slice
that is a third of what the event loop does. Where the length is known and small, a body is therefore read past its
parser from the moment that the head of the request was read, and a fresh parser takes what follows.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.web import BaseRequest

from pacs.dicomweb.target import BASE

_LARGEST: Final = 2 << 20
"""Bytes of a body that is read whole. Parts of longer ones are stored while the next ones arrive."""
_UPLOADS: Final = f"{BASE}/studies"
_BEGINNING: Final = f"POST {_UPLOADS}".encode()
_SMALLEST: Final = 64 << 10
"""Bytes of a body below which nothing is gained."""
_TOGETHER: Final = 64 << 20
"""Bytes of all bodies that are being read, or whose requests are in work."""


class Intake(asyncio.BufferedProtocol):
    """Takes the place of a connection's protocol until the body is there, or the connection is lost."""

    held = 0
    """Bytes of the bodies whose requests are not answered yet, in this process."""

    def __init__(self, http: Any, content: StreamReader, length: int, first: memoryview) -> None:
        """`first` is what came with the head, and may reach behind the body."""
        self._http = http
        self._content = content
        # A body may begin with its first delimiter: the line break before it is there for `multipart.Parser`.
        self._buffer: bytearray | None = bytearray(2 + length)
        self._view: memoryview | None = memoryview(self._buffer)
        self._whole = 2 + length
        self._view[:2] = b"\r\n"
        self._view[2 : 2 + len(first)] = first[:length]
        self._filled = 2
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._reading = True
        self._wanted = True
        self.touched = self._loop.time()
        """When something came last, by the clock of the loop."""
        self._counted = length
        Intake.held += length
        self._count(min(len(first), length))
        if self._reading:
            self._switch(self)

    async def whole(self) -> bytearray:
        """The body behind a line break; shorter than promised when the connection was lost or `stop` was called. To be
        asked for once."""
        if self._reading:
            self._waiter = self._loop.create_future()
            await self._waiter
        body, self._buffer = self._buffer or bytearray(), None
        return body if self._filled == self._whole else body[: self._filled]

    def stop(self) -> None:
        """Wait no longer. The connection has to be closed: what still comes is no beginning of a request."""
        if self._reading:
            self._switch(self._http, resume=False)
            self._end()

    def _switch(self, protocol: asyncio.BaseProtocol, *, resume: bool = True) -> None:
        transport = self._http.transport
        transport.pause_reading()
        transport.set_protocol(protocol)
        if resume:
            transport.resume_reading()

    def release(self) -> None:
        """Nobody wants the body any more. What still comes of it is read until it ends."""
        self._wanted = False
        if not self._reading:
            self._buffer = None
            Intake.held -= self._counted
            self._counted = 0

    def __del__(self) -> None:
        self._reading = False  # of a connection that was lost before its request began
        self.release()

    def _count(self, nbytes: int) -> None:
        self._filled += nbytes
        self._content.total_bytes += nbytes
        if self._filled == self._whole:
            self._http._parser = _fresh_parser(self._http)
            self._content.feed_eof()
            self._end()

    def _end(self) -> None:
        # uvloop keeps the last protocol of this kind as long as the connection: nothing large may hang on it.
        self._reading = False
        self._view = None
        if not self._wanted:
            self.release()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- of the transport

    def get_buffer(self, sizehint: int) -> memoryview:
        assert self._view is not None
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self.touched = self._loop.time()
        self._count(nbytes)
        if not self._reading:
            self._switch(self._http)

    def eof_received(self) -> None:
        self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)
        self._end()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()


Taken: TypeAlias = tuple[StreamReader, Intake]
"""The body that aiohttp knows, and what reads it."""


def head_length(data: bytes) -> int:
    """Bytes of the head of an upload that `data` begins with, where something follows it; else 0."""
    if not data.startswith(_BEGINNING):
        return 0
    length = data.find(b"\r\n\r\n") + 4
    return length if 3 < length < len(data) else 0


def begin(http: Any, first: memoryview) -> tuple[Taken | None, memoryview]:
    """Called when `http`, a protocol of aiohttp's server, has taken data, and `first` came behind it: if a body has
    begun that can be read here, read it. What reads it, and what is left of `first`."""
    if not POSSIBLE or http.in_work or len(http._messages) != 1 or http.transport is None:
        return None, first
    message, content = http._messages[0]
    if not isinstance(content, StreamReader) or content.is_eof() or content.total_bytes:
        return None, first
    if message.method != "POST" or not message.path.startswith(_UPLOADS):
        return None, first
    length = message.headers.get("Content-Length", "")
    if (
        not length.isdecimal()
        or not _SMALLEST <= int(length) <= min(_LARGEST, _TOGETHER - Intake.held)
        or message.chunked
        or message.headers.get("Content-Encoding", "identity").strip().lower() != "identity"
        or message.upgrade
        or http._reading_paused
        or http._buffer_paused
        or http.transport.is_closing()
    ):
        return None, first
    return (content, Intake(http, content, int(length), first)), first[int(length) :]


def of(request: BaseRequest) -> Intake | None:
    """What reads the body of `request`; None where aiohttp does."""
    content, taken = getattr(request.protocol, "intake", None) or (None, None)
    return taken if content is request.content else None


def done(http: Any) -> None:
    """Called when the request in work on `http` is answered: let go of its body, whether it was asked for or not. The
    next one may be there before aiohttp waits for it."""
    if hasattr(http, "in_work"):
        http.in_work = False
    if getattr(http, "intake", None) is not None:
        http.intake[1].release()
        http.intake = None


def _fresh_parser(http: Any) -> Any:
    """A parser as `web.RequestHandler` makes it, at the beginning of a request."""
    return type(http._parser)(
        http, http._loop, http._read_bufsize, max_line_size=http.max_line_size, max_field_size=http.max_field_size,
        max_headers=http.max_headers, payload_exception=web.RequestPayloadError, auto_decompress=False,
        max_msg_queue_size=http._max_msg_queue_size + 1,  # see `worker`
    )  # fmt: skip


POSSIBLE: Final = all(
    hasattr(web.RequestHandler, name)
    for name in (
        "_parser", "_reading_paused", "_buffer_paused", "_messages", "_read_bufsize", "_max_msg_queue_size",
    )
)  # fmt: skip
"""Whether this aiohttp is built as those that this was written for (3.14); with others it reads the body itself."""
