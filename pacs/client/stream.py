"""A series that sharpens: each frame as soon as its bytes are an image, again and better as more of them arrive.

From a server of this project comes one response with the most useful bytes of all frames first
(`…/series/{series}/stream`). What it could not deliver, and everything from other servers, is asked for frame by frame.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Final

from pacs.client import frames, parts
from pacs.client.ahead import in_order
from pacs.client.body import Body, CutError
from pacs.client.held import HeldCodestream
from pacs.client.index import SeriesIndex
from pacs.client.patience import Attempts
from pacs.client.rungs import LOSSLESS, Rung, rung
from pacs.client.series import NO_SUCH_RESOURCE, read_index, segments
from pacs.client.transport import Transport
from pacs.client.views import FrameView, Views
from pacs.dicomweb.multipart import PartStart
from pacs.errors import AnswerError, PacsError, RemoteChangedError, RemoteError
from pacs.reading_order import outwards

DEFAULT_RUNGS: Final = (Rung("pixels", 128), LOSSLESS)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_CHANGED = frozenset((409, 412))
_FAULT = 500
_OF_THE_FRAME = frozenset((404, 406, 410, 500))
"""Answers to a request for a frame that say nothing of the other frames."""
_ROUNDS = 3


@dataclass(slots=True)
class _Part:
    """A part of the stream that is being received."""

    position: int
    held: HeldCodestream | None
    """Where its bytes go; None when nothing sharper than what was shown can come of them."""
    at: int
    """Of the next byte, in its codestream."""
    end: int
    shown: float
    """When the last image of it was made."""


class SeriesReader:
    """One reading of a series."""

    def __init__(
        self, transport: Transport, study: str, series: str, rungs: Sequence[Rung] = DEFAULT_RUNGS,
        first: int | None = None, *, upscale: bool = False, pause: float = 0.25, ahead: int = 4,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._study, self._series = study, series
        self._base = transport.url(*segments(study, series)) + "/"
        self._rungs = tuple(rungs)
        self._first = first
        self._pause = pause
        self._ahead = ahead
        self._views = Views(transport, study, series, upscale=upscale)

    async def views(self) -> AsyncGenerator[FrameView]:
        """Every frame again and again until it is at the last rung.

        Raises what a request raises, and at the end AnswerError when some of the frames could not be shown.
        """
        index = asyncio.create_task(self._read_index())
        # It takes its connection first: many streams at once would hold them all, and wait for their indexes.
        await asyncio.sleep(0)
        # Codecs take longer to load than the first bytes to come.
        loading = asyncio.create_task(asyncio.to_thread(import_module, "pacs.transcode"))
        try:
            async for view in self._streamed(index):
                yield view
            async for view in self._requested():
                yield view
        finally:
            index.cancel()
            with suppress(asyncio.CancelledError, PacsError):
                await index
            await loading
            await self._views.close()
        failed = self._views.failed
        if failed:
            position, error = next(iter(failed.items()))
            text = f"{len(failed)} of {len(self._views.index.frames)} frames cannot be shown"
            raise AnswerError(self._base, f"{text}, the first is {position + 1}: {error}")

    async def _read_index(self) -> SeriesIndex:
        return await read_index(self._transport, self._study, self._series)

    # --- the one response -----------------------------------------------------------------------------------------

    async def _streamed(self, reading: asyncio.Task[SeriesIndex]) -> AsyncIterator[FrameView]:
        """What the stream resource delivers; nothing from a server that has none.

        It is asked for together with the index, which saves a round trip before the first image.
        """
        done = 0
        attempts = Attempts(self._transport.patience)
        broken = False
        while True:
            before = done
            try:
                async with Body(
                    self._transport, self._url(done), {"Accept": "multipart/related"}, attempts=attempts
                ) as answer:
                    if not done:
                        await self._views.take(await reading)
                    if answer.headers.get("Series-State", self._views.index.state) != self._views.index.state:
                        raise RemoteChangedError(answer.url)
                    async for found in self._received(answer):
                        if found is not None:
                            yield found
                        else:
                            done += 1
                return
            except CutError as error:
                attempts = Attempts(self._transport.patience) if done > before else attempts
                try:
                    await attempts.wait(error)
                except CutError:
                    return  # it breaks at the same place again and again: frame by frame then
            except RemoteChangedError:
                state = self._views.index.state
                await self._views.take(await self._read_index())
                if done == before or not state or self._views.index.state != state:
                    return
                # The series is the same and the stream another: a frame is left out of it that cannot be had.
            except RemoteError as error:
                if done and error.status in _CHANGED:
                    await self._views.take(await self._read_index())
                    return
                if error.status == _FAULT:
                    if not done:
                        await self._views.take(await reading)
                    if broken:
                        return
                    broken = True  # now it knows which frame to leave out
                    continue
                if done or error.status not in NO_SUCH_RESOURCE:
                    raise
                await self._views.take(await reading)
                return

    def _url(self, done: int) -> str:
        query = {"rungs": ",".join(wanted.wanted for wanted in self._rungs)}
        if self._first is not None:
            query["first"] = str(self._first)
        if done:
            query |= {"state": self._views.index.state, "after": str(done)}
        return self._transport.url(*segments(self._study, self._series), "stream", query=query)

    async def _received(self, answer: Body) -> AsyncIterator[FrameView | None]:
        """Views of the parts of one answer, and None for every part that is over."""
        part: _Part | None = None
        async for event in parts.events(answer):
            if isinstance(event, PartStart):
                part = self._begin(answer.url, event.headers)
                continue
            assert part is not None
            if isinstance(event, bytes):
                self._take(part, event)
                if part.at >= part.end or time.monotonic() - part.shown < self._pause:
                    continue
            else:
                if part.at != part.end:
                    self._give_up(part)
                yield None
            view = await self._views.sharper(part.position, part.held) if part.held is not None else None
            if view is not None:
                part.shown = time.monotonic()
                yield view

    def _take(self, part: _Part, piece: bytes) -> None:
        """Bytes of a part. Where they do not fit, as after a server was replaced by one whose codecs make others, the
        part is of no use, and its frame is asked for by itself in the end. Raises RemoteChangedError."""
        try:
            if part.held is not None and part.at + len(piece) <= part.end:
                part.held.add(part.at, piece)
        except AnswerError:
            self._give_up(part)
        part.at += len(piece)

    def _give_up(self, part: _Part) -> None:
        if part.held is not None:
            self._views.drop(part.position, part.held)
            part.held = None

    def _begin(self, url: str, headers: Mapping[str, str]) -> _Part:
        """What a part of the stream holds, from its head. Raises AnswerError."""
        shown, number = headers.get("content-range", ""), headers.get("frame", "")
        found = _CONTENT_RANGE.fullmatch(shown)
        known = self._views.index.frames
        if found is None or not (number.isascii() and number.isdigit() and 1 <= int(number[:10]) <= len(known)):
            raise AnswerError(url, f"a part with frame {number[:20]!r} and range {shown[:80]!r}")
        start, last, total = (int(text) for text in found.groups())
        try:
            named = rung(headers.get("rung", ""))
        except ValueError as error:
            raise AnswerError(url, str(error)) from None
        position = int(number) - 1
        frame, syntax = known[position], parts.transfer_syntax(headers.get("content-type", ""))
        if not start <= last < total <= frames.LARGEST_FRAME or (named.alone and (start or last + 1 < total)):
            raise AnswerError(url, f"a part of rung {named.name} with the range {shown!r}")
        if not named.alone and syntax == frame.transfer_syntax and frame.length not in (None, total):
            raise RemoteChangedError(url)
        held = None
        if not self._views.done(position):
            held = self._views.hold(position, syntax, total, named if named.alone else None)
        return _Part(position, held, start, last + 1, time.monotonic())

    # --- frame by frame -------------------------------------------------------------------------------------------

    async def _requested(self) -> AsyncIterator[FrameView]:
        """What is still missing. A frame that came damaged is asked for once more."""
        failed = self._views.failed
        for position in [position for position, error in failed.items() if isinstance(error, AnswerError)]:
            del failed[position]
        for attempt in range(_ROUNDS):
            try:
                async for view in self._missing():
                    yield view
                return
            except RemoteChangedError:
                if attempt == _ROUNDS - 1:
                    raise
                await self._views.take(await self._read_index())

    async def _missing(self) -> AsyncIterator[FrameView]:
        wanted_rungs = self._rungs if self._views.index.progressive else (LOSSLESS,)
        for wanted in wanted_rungs:
            last = wanted is wanted_rungs[-1]
            lacking = (position for position in self._order() if self._views.lacks(position, wanted, last=last))
            calls = (partial(self._tried, position, wanted) for position in lacking)
            async for view in in_order(calls, self._ahead):
                if view is not None:
                    yield view

    def _order(self) -> Iterator[int]:
        count = len(self._views.index.frames)
        first = self._first if self._first is not None else count // 2 + 1
        return outwards(count, min(max(first - 1, 0), max(count - 1, 0)))

    async def _tried(self, position: int, wanted: Rung) -> FrameView | None:
        """As `_fetch`; a frame that cannot be had costs itself alone."""
        try:
            return await self._fetch(position, wanted)
        except RemoteError as error:
            if error.status not in _OF_THE_FRAME:
                raise
            self._views.failed[position] = error
        except AnswerError as error:
            self._views.failed[position] = error
        return None

    async def _fetch(self, position: int, wanted: Rung) -> FrameView | None:
        frame = self._views.index.frames[position]
        if wanted.kind in ("layer", "quality", "bytes"):
            try:
                found = await frames.alone(self._transport, self._base, frame, wanted)
            except RemoteError as error:
                if error.status in NO_SUCH_RESOURCE and wanted is not self._rungs[-1]:
                    return None
                if error.status not in NO_SUCH_RESOURCE:
                    raise
                found = await frames.whole(self._transport, self._base, frame)
                return await self._views.complete(position, found, None)
            same = found.transfer_syntax == frame.transfer_syntax and len(found.data) == frame.length
            return await self._views.complete(position, found, None if same else wanted)
        if frame.length is None:
            found = await frames.whole(self._transport, self._base, frame)
            return await self._views.complete(position, found, None)
        held = self._views.hold(position, frame.transfer_syntax, frame.length)
        await frames.prefix(self._transport, self._base, held, frame.ends[wanted.level(frame.sizes)])
        return await self._views.sharper(position, held)
