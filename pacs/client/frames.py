"""Frames by request: whole as they are stored, a prefix of one, or a rung that is a codestream of its own
(PS3.18 10.4)."""

from __future__ import annotations

from dataclasses import dataclass

from pacs.client import parts
from pacs.client.body import Body, CutError
from pacs.client.held import HeldCodestream
from pacs.client.index import IndexedFrame
from pacs.client.patience import Attempts
from pacs.client.rungs import Rung
from pacs.client.transport import Transport
from pacs.errors import AnswerError, RemoteChangedError

AS_STORED = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
"""What every server takes; the type stands for any. PS3.18 8.7.3"""
_ANY_IMAGE = 'multipart/related; type="image/*"; transfer-syntax=*'
LARGEST_FRAME = 2 << 30
"""Bytes of one frame that are taken from a server."""


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """One whole frame as a server stores it, or as it chose to send it."""

    number: int
    """From 1, in its instance."""
    transfer_syntax: str
    media_type: str
    data: bytes


async def stored(transport: Transport, url: str, number: int, accept: str = AS_STORED) -> StoredFrame:
    """The frame at `url`. Raises RemoteError, UnreachableError, AnswerError, RemoteChangedError."""
    attempts = Attempts(transport.patience)
    while True:
        found = None
        try:
            async with Body(transport, url, {"Accept": accept}, attempts=attempts) as body:
                async for headers, data in parts.whole(body, LARGEST_FRAME):
                    if found is not None:
                        raise AnswerError(url, "several parts where one frame was asked for")
                    content_type = headers.get("content-type", body.content_type)
                    found = StoredFrame(
                        number, parts.transfer_syntax(content_type), parts.media_type(content_type), data
                    )
        except CutError as error:
            await attempts.wait(error)
            continue
        if found is None or not found.data:
            raise AnswerError(url, "no frame is in the answer")
        return found


async def prefix(transport: Transport, base: str, held: HeldCodestream, stop: int) -> None:
    """Bring `held` up to byte `stop`, asking for the missing bytes alone. `base`: URL of the series and a slash.

    Raises what `stored` raises; what has been received by then stays in `held`.
    """
    frame = held.frame
    url = transport.below(base, frame.path)
    accept = {"Accept": _single(frame)}
    attempts = Attempts(transport.patience)
    while held.received < stop:
        at = held.received
        end = stop if stop < held.length else None
        try:
            async with Body(
                transport, url, accept, start=at, stop=end, etag=held.etag, attempts=attempts
            ) as body:
                _check(body, frame)
                if body.length is not None and body.length != held.length:
                    raise RemoteChangedError(body.url)
                held.etag = body.etag
                async for chunk in body:
                    held.add(at, chunk)
                    at += len(chunk)
        except CutError as error:
            await attempts.wait(error)
            continue
        if held.received < stop:
            raise AnswerError(url, f"{held.received} bytes where {stop} are announced")


def _single(frame: IndexedFrame) -> str:
    """A single part, so that positions in it are positions in the codestream."""
    return f"{frame.media_type}; transfer-syntax={frame.transfer_syntax}"


def _check(body: Body, frame: IndexedFrame) -> None:
    media_type = parts.media_type(body.content_type)
    if media_type != frame.media_type:
        raise AnswerError(body.url, f"{media_type[:80] or 'nothing'} where {frame.media_type} was asked for")


async def whole(transport: Transport, base: str, frame: IndexedFrame) -> StoredFrame:
    """A frame that an index names, whole; in the form that the index says where that can be had."""
    accept = AS_STORED
    if frame.media_type:
        accept = f'multipart/related; type="{frame.media_type}"; transfer-syntax={frame.transfer_syntax}, {AS_STORED}'
    return await stored(transport, transport.below(base, frame.path), frame.frame, accept)


async def alone(transport: Transport, base: str, frame: IndexedFrame, rung: Rung) -> StoredFrame:
    """A rung as a codestream of its own. Raises RemoteError of status 406 for a frame that has none."""
    return await stored(transport, _of_rung(transport, base, frame, rung), frame.frame, _ANY_IMAGE)


async def length_alone(transport: Transport, base: str, frame: IndexedFrame, rung: Rung) -> int:
    """About how many bytes `alone` would bring, for one of them; 0 when the server does not say. Raises as `alone`."""
    url = _of_rung(transport, base, frame, rung)
    async with Body(transport, url, {"Accept": _ANY_IMAGE}, stop=1) as body:
        return body.length or 0


def _of_rung(transport: Transport, base: str, frame: IndexedFrame, rung: Rung) -> str:
    return f"{transport.below(base, frame.path)}?{rung.kind}={rung.value}"
