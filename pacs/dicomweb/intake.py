"""The body of a short upload, read from the socket straight into one buffer.

aiohttp copies what it reads three times before a handler has it, and gathering it costs two copies more: of a CT slice
that is a third of what the event loop does. Where the length is known and small, the rest of the body is therefore
read past its parser, which is replaced by a fresh one behind the body.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.web import BaseRequest

LARGEST: Final = 2 << 20
"""Bytes of a body that is read whole. Parts of longer ones are stored while the next ones arrive."""
_SMALLEST: Final = 64 << 10
"""Bytes still to come below which nothing is gained."""


class Intake(asyncio.BufferedProtocol):
    """Takes the place of a connection's protocol until the body is there or the connection is lost."""

    def __init__(self, http: web.RequestHandler, content: StreamReader, length: int) -> None:
        # A body may begin with its first delimiter: the line break before it is there for `multipart.Parser`.
        self.buffer = bytearray(b"\r\n") + bytearray(length)
        self._view = memoryview(self.buffer)
        self._filled = 2
        self._http = http
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self.touched = self._loop.time()
        """When something came last, by the clock of the loop."""
        self._add(content.read_nowait())

    def _add(self, data: bytes) -> None:
        self._view[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    async def whole(self) -> bytearray:
        """The body behind a line break; shorter than promised when the connection was lost or `stop` was called."""
        transport = cast(asyncio.Transport, self._http.transport)
        transport.pause_reading()
        transport.set_protocol(self)
        transport.resume_reading()
        try:
            await self._done
        except BaseException:
            self.stop()
            raise
        finally:
            if self._http.transport is not None:
                transport.set_protocol(self._http)
        self._view.release()
        if self._filled == len(self.buffer):
            cast(Any, self._http)._parser = _fresh_parser(self._http)
            self._content.feed_eof()
            return self.buffer
        return self.buffer[: self._filled]

    def stop(self) -> None:
        """Wait no longer. The connection has to be closed: what still comes is no beginning of a request."""
        if self._http.transport is not None:
            self._http.transport.pause_reading()
        self._finish()

    # --- of the transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._content.total_bytes += nbytes
        self.touched = self._loop.time()
        if self._filled == len(self.buffer):
            # What follows is another request, and the parser's.
            cast(asyncio.Transport, self._http.transport).pause_reading()
            self._finish()

    def eof_received(self) -> None:
        self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)
        self._finish()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


def of(request: BaseRequest, memory: int) -> Intake | None:
    """An intake for the body of `request`, of which nothing was read yet; None where aiohttp has to read it.

    `memory` bytes may be taken for it.
    """
    http: Any = request.protocol
    content = request.content
    headers = request.headers
    length = headers.get("Content-Length", "")
    if (
        not _POSSIBLE
        or not length.isdecimal()
        or not _SMALLEST + content.total_bytes <= int(length) <= min(LARGEST, memory)
        or "Transfer-Encoding" in headers
        or "Content-Encoding" in headers
        or content.is_eof()
        or http.transport is None
        or http.transport.is_closing()
        or http._reading_paused
        or http._buffer_paused
        or http._messages
    ):
        return None
    return Intake(http, content, int(length))


def _fresh_parser(http: Any) -> Any:
    """A parser as `web.RequestHandler` makes it, at the beginning of a request."""
    return type(http._parser)(
        http, http._loop, http._read_bufsize, max_line_size=http.max_line_size, max_field_size=http.max_field_size,
        max_headers=http.max_headers, payload_exception=web.RequestPayloadError,
        max_msg_queue_size=http._max_msg_queue_size,
    )  # fmt: skip


_POSSIBLE: Final = all(
    hasattr(web.RequestHandler, name)
    for name in ("_parser", "_reading_paused", "_buffer_paused", "_messages", "_read_bufsize", "_max_msg_queue_size")
)
"""Whether this aiohttp is built as those that this was written for (3.14); with others it reads the body itself."""
