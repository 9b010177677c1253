"""A worker of `pacs serve`: its own process, event loop and archive; connections come from the parent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import uvloop
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web import BaseRequest, StreamResponse

from pacs.archive import Archive
from pacs.dicomweb import allocator, intake, metrics, metrics_directory, problems
from pacs.dicomweb.app import Dicomweb
from pacs.dicomweb.direct import Direct
from pacs.dicomweb.metrics_directory import DIRECTORY
from pacs.errors import PacsError, RequestError
from pacs.settings import Settings

_log = logging.getLogger("pacs.server")

_SWITCH_INTERVAL: Final = 0.0005
"""Seconds. A thread that comes back from a codec waits this long at most for the loop's thread, and it for that."""
_UNSENT: Final = 128 << 10
"""Bytes the kernel takes ahead of the network: more would only stand in the way of what is asked for next."""
_READ_BUFFER: Final = 256 << 10
_KEEP_ALIVE: Final = 75.0
_LAST_MOMENT: Final = 0.5
"""Seconds for what was sent last to leave."""
_FIRST_REQUEST: Final = 30.0
"""Seconds that a connection may take until it has sent the header of a request."""
_LONGEST_LINE: Final = 64 << 10
"""Bytes of a request line: a list of frames or of fields can be long."""
_MOST_PASSED: Final = 16
"""Descriptors taken in one message."""
_NOTHING: Final = memoryview(b"")
LEAVING: Final = b'{"leaving": true}'
"""Said to the parent: this worker can serve no more and wants another in its place."""


class _Protocol(web.RequestHandler):
    """aiohttp's, with errors told in JSON as all others, short uploads read past it, frames answered directly."""

    __slots__ = ("_between", "_direct", "in_work", "intake", "uploading")

    def __init__(self, direct: Direct, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.intake: intake.Taken | None = None
        self.in_work = False
        """Whether a request was taken in work that is not answered."""
        self.uploading: StreamReader | None = None
        """Body of the last request that was taken in work, where that was a POST."""
        self._direct = direct
        self._between = True
        """Whether the parser has only seen whole requests, so that what comes next begins one."""
        # The parser stops at a full queue by its own count, which may be one ahead (see `_count_off`): what it
        # keeps is only read on when this protocol, too, has found the queue full.
        if intake.POSSIBLE:
            self._max_msg_queue_size -= 1

    def data_received(self, data: bytes) -> None:
        if self._between:
            asked = self._direct.asked(data)
            self._between = asked is not None
            waiter = self._waiter
            # Only while nothing else is in work on this connection: answers go out in the order of requests.
            idle = waiter is not None and not waiter.done()
            if idle and asked is not None and asked.plain and self._direct.answer(self, data, asked):
                self._request_count += 1
                self._next_keepalive_close_time = self._loop.time() + _KEEP_ALIVE
                return
        head = intake.head_length(data)
        if not head:
            self._parse(data)
        elif rest := self._parse(data[:head], memoryview(data)[head:]):
            self._parse(bytes(rest))

    def _parse(self, data: bytes, behind: memoryview = _NOTHING) -> memoryview:
        """Have aiohttp's parser read `data`; what is left of `behind`, which came with it."""
        super().data_received(data)
        if self._messages:
            self._end_unreadable_body()
            if getattr(self._messages[-1][0], "upgrade", False) and not self._upgraded:
                self._end_after_upgrade(data, behind)
            taken, behind = intake.begin(self, behind)
            self.intake = taken or self.intake
        return behind

    def _end_unreadable_body(self) -> None:
        """A body that cannot be followed to its end is an error of the parser: aiohttp keeps it for the next answer,
        and who reads the body waits."""
        exc, content = getattr(self._messages[-1][0], "exc", None), self.uploading
        if exc is not None and content is not None and not content.is_eof() and content.exception() is None:
            unreadable = web.RequestPayloadError(str(exc))
            unreadable.__cause__ = exc
            content.set_exception(unreadable)

    def _end_after_upgrade(self, data: bytes, behind: memoryview) -> None:
        """aiohttp drops what follows a request for an upgrade to what it does not know in the same piece: the answer
        has to say that nothing behind it is answered. RFC 9112 9.3"""
        message, content = self._messages[-1]
        ends_here = data.find(b"\r\n\r\n") == len(data) - 4 and not behind
        if isinstance(message, RawRequestMessage) and content.is_eof() and not ends_here:
            self._messages[-1] = message._replace(should_close=True), content

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._loop.call_later(_FIRST_REQUEST, self._close_if_unused)

    def _close_if_unused(self) -> None:
        """Connections that ask for nothing would in the end use up the descriptors of everybody."""
        if self._request_handler is not None and self._current_request is None and not self._request_count:
            self.force_close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. True, which keeps the connection until it is answered, where the last that it sent
        is a whole upload: that is stored in any case. Of other requests nobody can tell whether the client waits, or
        left as readers do who scroll on: for these nothing more is done."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            return False  # nothing is in work
        message: Any = None
        content = self.uploading
        if self._messages:
            message, content = self._messages[-1]
            if getattr(message, "method", "") != "POST":
                return False
        if content is None or not content.is_eof():
            return False
        if message is None:
            self.close()
        else:
            self._messages[-1] = message._replace(should_close=True), content
        return True

    def end(self) -> None:
        """Close the connection, at once where nothing is in work on it. `close` alone would leave it open and deaf."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self.force_close()
        else:
            self.close()

    def log_exception(self, *args: Any, **more: Any) -> None:
        """A body that cannot be read on is the client's affair, and was answered."""
        if not isinstance(more.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **more)

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun, the error cannot be told")
        if status >= 500:
            _log.error("aiohttp failed on a request", exc_info=exc)
        error: PacsError = RequestError((message or "the request cannot be read").splitlines()[0][:200])
        body = problems.body(error.code, error.message)
        response = web.Response(status=status, body=body, content_type="application/json")
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.headers["Server"] = "pacs"
        response.force_close()
        return response


def _count_off(parser: Any, payload: StreamReader) -> None:
    """`parser` has just been told that one message of those it counted was taken. That of `payload` it counts when the
    body ends: in time it would take the queue to be full for ever."""
    if hasattr(parser, "message_consumed"):
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.call_soon(parser.message_consumed)

        payload.on_eof(ended)


class _Server(web.Server):
    """Makes our kind of protocol for each connection."""

    def __init__(self, handler: Dicomweb) -> None:
        super().__init__(handler, request_factory=self._request)
        self._direct = handler.direct

    def _request(
        self, message: RawRequestMessage, payload: StreamReader, protocol: web.RequestHandler,
        writer: AbstractStreamWriter, task: asyncio.Task[None],
    ) -> BaseRequest:  # fmt: skip
        if isinstance(protocol, _Protocol):
            protocol.in_work = True
            protocol.uploading = payload if message.method == "POST" else None
        if not payload.is_eof():
            _count_off(protocol._parser, payload)
        return BaseRequest(message, payload, protocol, writer, task, self._loop)

    def __call__(self) -> web.RequestHandler:
        return _Protocol(
            self._direct,
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # the handler logs, without identifiers
            keepalive_timeout=_KEEP_ALIVE,
            read_bufsize=_READ_BUFFER,
            max_line_size=_LONGEST_LINE,
            auto_decompress=False,  # see `inflating`
            logger=_log,
        )


async def _run(archive: Archive, channel: socket.socket, settings: Settings, deaths: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    handler = Dicomweb(archive, settings)
    handler.service.observer.metrics.deaths.set(deaths)
    server = _Server(handler)
    connecting: set[asyncio.Task[None]] = set()

    async def connect(connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
            await loop.connect_accepted_socket(server, connection)
        except OSError:
            connection.close()

    def receive() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(channel, 64, _MOST_PASSED)
                if not data:
                    # The parent is gone, or knows that this worker leaves: nobody will ever connect again.
                    loop.remove_reader(channel.fileno())
                    stop.set()
                    return
                for descriptor in descriptors:
                    task = loop.create_task(connect(socket.socket(fileno=descriptor)))
                    connecting.add(task)
                    task.add_done_callback(connecting.discard)

    def leave() -> None:
        # The parent then shuts down its side: connections that are on their way come before that, and are served.
        with contextlib.suppress(OSError):
            channel.send(LEAVING)

    def index_lost() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the process with it
            loop.call_soon_threadsafe(leave)

    channel.setblocking(False)
    loop.add_reader(channel.fileno(), receive)
    archive.when_index_lost(index_lost)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await stop.wait()
        loop.remove_reader(channel.fileno())
        await _finish(handler, server, settings.shutdown_grace)
    finally:
        handler.close()


async def _finish(handler: Dicomweb, server: web.Server, grace: float) -> None:
    """Let requests in work finish, uploads too, and close the other connections.

    aiohttp's own shutdown stops reading at once: an upload that is half way could only fail.
    """
    for connection in server.connections:
        if isinstance(connection, _Protocol) and connection not in handler.active:
            connection.end()
    await handler.finish(grace)
    server.pre_shutdown()
    await server.shutdown(_LAST_MOMENT)


def run(path: Path, channel: socket.socket, settings: Settings, number: int, deaths: int, parent: int) -> None:
    """Serve what comes over `channel`, in a process that `server` forked for it, until SIGTERM or the parent's end.

    `number` is its place among the workers, `deaths` how many died before, `parent` the process id of the parent.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    allocator.keep_freed()
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s"
    )
    # What it says of odd files, once a request, may quote them, patients' values among it.
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pydicom")
    metrics.join(number)
    with channel:
        try:
            archive = Archive.open(path, create=True, threads=settings.codec_threads)
        except PacsError as error:
            channel.send(json.dumps({"code": error.code, "message": error.message[:8000]}).encode())
            sys.exit(1)
        with archive:
            channel.send(b'{"ready": true}')
            uvloop.run(_run(archive, channel, settings, deaths))
    if os.getppid() != parent:
        metrics_directory.remove(os.environ[DIRECTORY])  # the parent was killed, and cannot
