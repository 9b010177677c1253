"""How an answer goes out: conditions, ranges, HEAD, a bounded write buffer."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web import BaseRequest

from pacs.dicomweb import conditional
from pacs.dicomweb.answer import SLICE, Answer, Entity, Stream
from pacs.dicomweb.heads import header_lines, whole_head
from pacs.dicomweb.turns import Turns
from pacs.errors import InternalError

_log = logging.getLogger("pacs.problems")


class Sent(web.StreamResponse):
    """What a handler returns to aiohttp once everything is on its way."""

    def __init__(
        self, status: int, length: int, keep_alive: bool, first_byte: float = 0.0, *, aborted: bool = False,
        error: str = "",
    ) -> None:  # fmt: skip
        super().__init__(status=status)
        self._keep_alive = keep_alive
        self._body_length = length
        self.first_byte = first_byte
        """When it went out, by `time.perf_counter`; 0.0 when none did."""
        self.aborted = aborted
        """Whether the transfer ended early."""
        self.error = error
        """Code of the error that it tells of, or that ended it."""

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def send(request: BaseRequest, answer: Answer, common: bytes, write_buffer: int) -> Sent:
    """Send `answer` with the header lines `common` (each ended by a line break). RFC 9110 13.2.2, 14

    Raises only before the first byte: a fault after it ends the connection, so that the client sees a broken
    transfer and not a wrong image. ConnectionError when the client is gone.
    """
    try:
        return await _send(request, answer, common, write_buffer)
    except ConnectionError as error:
        # It and the frames that it came through hold each other, and these hold the body: megabytes for each reader
        # that goes away, until the collector comes by.
        traceback.clear_frames(error.__traceback__)
    finally:
        if isinstance(answer.body, Stream):
            await _close(answer.body.blocks)
    raise ConnectionResetError("the client is gone")


async def _close(blocks: AsyncIterator[bytes]) -> None:
    if isinstance(blocks, AsyncGenerator):
        await blocks.aclose()


async def _send(request: BaseRequest, answer: Answer, common: bytes, write_buffer: int) -> Sent:
    status, headers = answer.status, answer.headers
    body = answer.body
    chosen: tuple[int, int] | None = None
    if answer.etag and status == 200:
        request_headers = request.headers
        wanted = conditional.listed(request_headers, "If-Match")
        if wanted is not None and not conditional.matches(wanted, answer.etag, weak=False):
            return await _send_head(request, 412, b"Content-Length: 0\r\n", common)
        if conditional.unchanged(request_headers, answer.etag):
            return await _send_head(request, 304, header_lines(answer, headers), common)
        length = None if isinstance(body, bytes) else body.length
        if length is not None:
            headers = (*headers, ("Accept-Ranges", "bytes"))
            asked = request_headers.get("Range")
            if asked is not None and request.method == "GET":  # for no other method. RFC 9110 14.2
                part = conditional.byte_range(asked, request_headers.get("If-Range"), answer.etag, length)
                if isinstance(part, conditional.Unsatisfiable):
                    lines = b"Content-Length: 0\r\nContent-Range: bytes */%d\r\n" % length
                    # Nothing of it may be kept: Vary does not name Range.
                    kept = tuple((name, value) for name, value in headers if name != "Cache-Control")
                    kept += (("Cache-Control", "no-store"),)
                    return await _send_head(request, 416, lines + header_lines(answer, kept), common)
                if part is not None:
                    chosen, status = part, 206
                    headers = (*headers, ("Content-Range", f"bytes {part[0]}-{part[1] - 1}/{length}"))
    lines = header_lines(answer, headers, True)
    if isinstance(body, bytes):
        return await _send_whole(request, status, body, lines, common)
    if isinstance(body, Stream):
        if chosen is not None:
            body = Stream(_window(body.blocks, *chosen), chosen[1] - chosen[0])
        return await _send_stream(request, status, body, lines, common, write_buffer)
    start, end = chosen or (0, body.length)
    return await _send_entity(request, status, body, (start, end), lines, common, write_buffer)


async def _send_head(request: BaseRequest, status: int, lines: bytes, common: bytes) -> Sent:
    keep_alive = request.keep_alive
    first_byte = time.perf_counter()
    await request.writer.write(whole_head(request, status, lines, common, keep_alive))
    return Sent(status, 0, keep_alive, first_byte)


async def _send_whole(request: BaseRequest, status: int, body: bytes, lines: bytes, common: bytes) -> Sent:
    # After an error in the middle of an upload the rest of it is not read: aiohttp lingers, then closes.
    keep_alive = request.keep_alive
    lines += b"" if status == 204 else b"Content-Length: %d\r\n" % len(body)
    head = whole_head(request, status, lines, common, keep_alive)
    length = 0
    first_byte = time.perf_counter()
    if request.method == "HEAD":
        await request.writer.write(head)
    elif len(body) <= SLICE:
        length = len(body)
        await request.writer.write(head + body)
    else:
        length = len(body)
        await request.writer.write(head)
        await _write_sliced(request, body, ())
    return Sent(status, length, keep_alive, first_byte)


async def _send_entity(
    request: BaseRequest, status: int, entity: Entity, wanted: tuple[int, int], lines: bytes, common: bytes,
    write_buffer: int,
) -> Sent:  # fmt: skip
    start, end = wanted
    keep_alive = request.keep_alive
    lines += b"Content-Length: %d\r\n" % (end - start)
    head = whole_head(request, status, lines, common, keep_alive)
    if request.method == "HEAD":
        await request.writer.write(head)
        return Sent(status, 0, keep_alive)
    bound_write_buffer(request, write_buffer)
    pending: list[bytes | memoryview] = [head]
    size = position = 0
    first_byte = 0.0
    turns = Turns()
    for piece in entity.pieces:
        length = len(piece) if isinstance(piece, bytes) else piece.length
        low, high = max(start - position, 0), min(end - position, length)
        position += length
        if low >= high:
            continue
        cuts: tuple[int, ...] = ()
        if isinstance(piece, bytes):
            data: bytes | memoryview = piece
        else:
            try:
                data = await piece.load()
                if len(data) != length:
                    raise InternalError(f"an entity changed its length from {length} to {len(data)}")
            except BaseException as error:
                if not first_byte:
                    raise
                return abort(request, error, first_byte)
            cuts = piece.cuts if low == 0 else ()
            await turns.give()
        block = data if low == 0 and high == length else memoryview(data)[low:high]
        pending.append(block)
        size += len(block)
        if size > SLICE:
            pending.pop()
            first_byte = first_byte or time.perf_counter()
            await _write_sliced(request, block, cuts, b"".join(pending))
            pending, size = [], 0
    if pending:
        first_byte = first_byte or time.perf_counter()
        # Joined and written once: one copy of a frame, one system call.
        await request.writer.write(b"".join(pending))
    return Sent(status, end - start, keep_alive, first_byte)


async def _send_stream(
    request: BaseRequest, status: int, body: Stream, lines: bytes, common: bytes, write_buffer: int
) -> Sent:
    chunked = body.length is None and request.version >= (1, 1)
    keep_alive = request.keep_alive and (chunked or body.length is not None)
    if body.length is not None:
        lines += b"Content-Length: %d\r\n" % body.length
    elif chunked:
        lines += b"Transfer-Encoding: chunked\r\n"
    head = whole_head(request, status, lines, common, keep_alive)
    if request.method == "HEAD":
        await request.writer.write(head)
        return Sent(status, 0, keep_alive)
    bound_write_buffer(request, write_buffer)
    # The first block may still turn into an error answer; nothing is sent before it.
    blocks = aiter(body.blocks)
    block: bytes | None = await anext(blocks, None)
    first_byte = time.perf_counter()
    length = 0
    pending = head
    try:
        while block is not None:
            length += len(block)
            if chunked and block:
                await request.writer.write(b"%s%x\r\n%s\r\n" % (pending, len(block), block))
            elif pending or block:
                await request.writer.write(pending + block)
            pending = b""
            block = await anext(blocks, None)
        if body.length is not None and length != body.length:
            raise InternalError(f"a body of {body.length} bytes came out as {length}")
        await request.writer.write(pending + (b"0\r\n\r\n" if chunked else b""))
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the head is out: only the connection can tell
        return abort(request, error, first_byte)
    return Sent(status, length, keep_alive, first_byte)


async def _window(blocks: AsyncIterator[bytes], start: int, end: int) -> AsyncIterator[bytes]:
    position = 0
    async for block in blocks:
        low, high = max(start - position, 0), min(end - position, len(block))
        position += len(block)
        if low < high:
            yield block[low:high]
        if position >= end:
            return


async def _write_sliced(
    request: BaseRequest, data: bytes | memoryview, cuts: tuple[int, ...], pending: bytes = b""
) -> None:
    view = memoryview(data)
    position = 0
    for end in slices(len(view), cuts):
        block = view[position:end]
        position = end
        await request.writer.write(pending + block if pending else block)
        pending = b""


def slices(length: int, cuts: tuple[int, ...]) -> list[int]:
    """Ends of the slices to send: at a level's end where one lies in the later part of a slice."""
    ends: list[int] = []
    position = 0
    while length - position > SLICE:
        near = [cut for cut in cuts if position + SLICE // 4 <= cut <= position + SLICE]
        position = near[-1] if near else position + SLICE
        ends.append(position)
    ends.append(length)
    return ends


def bound_write_buffer(request: BaseRequest, size: int) -> None:
    """Let writes wait once `size` bytes are held for a slow reader."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    transport.set_write_buffer_limits(high=size)


def abort(request: BaseRequest, error: BaseException, first_byte: float = 0.0) -> Sent:
    """End a transfer that cannot be finished, so that the client notices."""
    if request.transport is not None:
        request.transport.abort()
    if not isinstance(error, Exception):
        raise error
    _log.error("ALARM a transfer was broken off: %s", error, exc_info=None if hasattr(error, "code") else error)
    code = getattr(error, "code", InternalError.code)
    return Sent(500, request.writer.output_size, False, first_byte, aborted=True, error=code)
