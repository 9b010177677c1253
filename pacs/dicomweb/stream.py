"""A whole series in one response, in the order of usefulness.

`GET …/series/{series}/stream?rungs=level:2,lossless&first=150`: a coarse level of every slice, from the middle or from
`first` outwards, then the next rung of every slice, and so on; each time only the bytes of a frame that are missing.
No round trip for each slice, and what a client has when the link breaks is the most useful part. Ours: PS3.18 has no
such resource.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext
from itertools import islice
from typing import Final, NamedTuple

from aiohttp.web import BaseRequest

from pacs import renditions, uids
from pacs.dicomweb import multipart, plans, progressive, rungs
from pacs.dicomweb.answer import Answer, Headers, Stream
from pacs.dicomweb.askers import gone
from pacs.dicomweb.negotiation import PARTS
from pacs.dicomweb.plans import PlannedFrame, SeriesPlan
from pacs.dicomweb.rungs import Rung
from pacs.dicomweb.service import Service
from pacs.dicomweb.stream_order import Part, Sent, Source, Step, steps
from pacs.dicomweb.target import ResourceId
from pacs.errors import (
    ChangedError,
    ChecksumError,
    NotAcceptableError,
    PixelError,
    RequestError,
    UnsupportedTransferSyntaxError,
)
from pacs.reading import Frame
from pacs.renditions import Made, available
from pacs.storage.model import Buffer

_log = logging.getLogger("pacs.problems")

_DEFAULT: Final = "pixels:128,lossless"
_GATHER: Final = 32 << 10
"""Bytes of small parts that are written together, and of a long part that are written at a time."""
_AHEAD: Final = 4
"""Frames that are made while those before them are sent."""
_AHEAD_LARGE: Final = 2
_LARGE: Final = 2 << 20
"""Bytes of samples in a frame of which fewer are made ahead: slow readers hold what was made."""
_IN_LOOP: Final = 1000
"""Steps that are counted at a time in the event loop."""


_LAYERED: Final = "layers"


class Form(NamedTuple):
    """A codestream that is at hand; its `ends` are known."""

    source: Source
    data: Buffer


async def series(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """All frames of a series, rung by rung. Raises RequestError, NotAcceptableError, ChangedError, NotFoundError."""
    accept = service.choices(request)
    given = {name: rungs.only(request.query, name) for name in ("rungs", "state", "first", "after")}
    wanted = rungs.of_list(_DEFAULT if given["rungs"] is None else given["rungs"])
    plan = await progressive.of_target(service, target)
    if not any(choice.way(_type(plan), "", PARTS) for choice in accept):
        raise NotAcceptableError("a series is sent in parts", (f'multipart/related; type="{_type(plan)}"',))
    if given["state"] not in (None, plan.state):
        raise ChangedError("the series has changed since: ask for its index again")
    count = len(plan.frames)
    first = _number(given["first"], count // 2 + 1, "first", 1, max(1, count))
    after = _number(given["after"], 0, "after", 0, len(wanted) * max(1, count))
    named = f"{plan.state} {[rung.name for rung in wanted]} {first} {after} {renditions.made_by()}"
    if plan.damaged:
        named += f" {sorted(plan.damaged)}"
    etag = f'"{hashlib.blake2b(named.encode(), digest_size=12).hexdigest()}"'
    boundary = multipart.boundary(etag)
    headers: Headers = (
        ("Cache-Control", "private, no-cache"), ("Series-State", plan.state), ("Series-Frames", str(count)),
    )  # fmt: skip
    if plan.receiving(service.settings.receiving):
        headers += (("Series-Receiving", "true"),)
    content_type = f'multipart/related; type="{_type(plan)}"; boundary={boundary}'
    writer = _Writer(service, request, plan, wanted, first - 1, boundary)
    if count * len(wanted) > _IN_LOOP:
        length = await service.offload.read(writer.length, after)
    else:
        length = writer.length(after)
    return Answer(200, content_type, Stream(writer.blocks(after), length), headers, etag, "Accept")


def _number(text: str | None, default: int, name: str, low: int, high: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise RequestError(f"{name}={text[:20]!r} is not a number from {low} to {high}")
    return int(text)


def _type(plan: SeriesPlan) -> str:
    """The media type of the root part. RFC 2387 3.1"""
    if not plan.frames:
        return "application/octet-stream"
    return uids.transfer_syntax(plan.frames[0].transfer_syntax).media_type


def _planned(frame: PlannedFrame) -> Source:
    return Source("", frame.transfer_syntax, frame.ends, frame.rendition)


def _size(frame: PlannedFrame) -> int:
    """Bytes of its samples."""
    geometry = frame.frame.entry.descriptor.geometry
    return geometry.frame_bits // 8 if geometry is not None else 0


class _Coming(NamedTuple):
    """A step whose codestream is being made or read."""

    step: Step
    part: Part | None
    """What it adds, where that is known before."""
    anew: bool
    """Whether what it adds begins with the first byte, where that is not."""
    form: asyncio.Task[Form | None]


class _Writer:
    """Writes the body of one response."""

    def __init__(
        self, service: Service, request: BaseRequest, plan: SeriesPlan, wanted: tuple[Rung, ...], first: int,
        boundary: str,
    ) -> None:  # fmt: skip
        self._service = service
        self._request = request
        self._plan = plan
        self._wanted = wanted
        self._first = first
        self._boundary = boundary
        self._eager = wanted[0]
        self._layers = any(rung.kind == rungs.LAYER for rung in wanted)
        self._lossy = self._layers or any(rung.kind == rungs.QUALITY for rung in wanted)
        # What lies ready is read in its turn: thousands of slow readers must not hold frames for later.
        made = self._lossy or any(frame.rendition for frame in plan.frames)
        large = any(_size(frame) > _LARGE for frame in plan.frames)
        self._ahead = (_AHEAD_LARGE if large else _AHEAD) if made else 1
        self._promised = False
        """Whether the length of the body was told: then nothing can be left out any more."""

    def length(self, after: int) -> int | None:
        """Bytes of the body, where they are known before anything is made. `after` parts are left out."""
        frames = self._plan.frames
        if self._lossy or self._plan.damaged or not all(frame.ends for frame in frames):
            return None
        self._promised = True
        sent = Sent()
        known = (
            sent.part(step, frame, _planned(frame))
            for step in steps(len(frames), self._wanted, self._first) for frame in (frames[step.position],)
        )  # fmt: skip
        length = 0
        for index, part in enumerate(islice(filter(None, known), after, None)):
            length += len(self._head(part, index == 0)) + part.end - part.start
        return length + len(multipart.closing(self._boundary))

    async def blocks(self, after: int) -> AsyncIterator[bytes]:
        """The body. `after` parts are left out."""
        gathered: list[bytes | memoryview] = []
        size = 0
        first = True
        async with aclosing(self._parts(after)) as parts:
            async for found in parts:
                if found is None:
                    if gathered:
                        yield b"".join(gathered)
                        gathered, size = [], 0
                    continue
                part, data = found
                gathered.append(self._head(part, first))
                first = False
                for start in range(0, len(data), _GATHER):
                    gathered.append(data[start : start + _GATHER])
                    size += len(gathered[-1])
                    if size >= _GATHER:
                        yield b"".join(gathered)
                        gathered, size = [], 0
        gathered.append(multipart.closing(self._boundary))
        yield b"".join(gathered)

    async def _parts(self, after: int) -> AsyncGenerator[tuple[Part, memoryview] | None, None]:
        """The parts in order with their data; where frames have to be made, the next ones are made meanwhile.

        None: the next part is not there yet, and what is must not wait for it.
        """
        frames = self._plan.frames
        sent = Sent()
        coming: deque[_Coming] = deque()
        todo = enumerate(steps(len(frames), self._wanted, self._first))
        # As it is now: of one codestream all parts are counted when they are planned, or none.
        made_before = dict(self._plan.made) if after else {}
        count = 0
        try:
            while True:
                while len(coming) < self._ahead and (item := next(todo, None)) is not None:
                    index, step = item
                    if index % _IN_LOOP == _IN_LOOP - 1:
                        await asyncio.sleep(0)
                    source = self._source(step)
                    if source is None:
                        continue
                    if not source.ends:
                        source = source._replace(ends=made_before.get((step.position, source.name), ()))
                    part = sent.part(step, frames[step.position], source) if source.ends else None
                    if source.ends and part is None:
                        continue
                    known = part is not None and step.position not in self._plan.damaged
                    if known and count + len(coming) < after:
                        count += 1  # left out, however many of those before it become parts
                        continue
                    anew = part is None and sent.anew(step, source)
                    coming.append(_Coming(step, part, anew, asyncio.ensure_future(self._form(step, source))))
                if not coming:
                    return
                if self._ahead > 1 and not coming[0].form.done():
                    await asyncio.sleep(0)  # what is in memory is there after a turn of the loop
                    if not coming[0].form.done():
                        yield None
                step, part, anew, task = coming.popleft()
                form = await task
                if form is None or (part is not None and part.total != form.source.ends[-1]):
                    continue  # the latter was made before, and cannot be made again
                part = part or sent.part(step, frames[step.position], form.source, anew)
                if part is None:
                    continue
                count += 1
                if count <= after:
                    continue
                if step.rung != self._eager:
                    # The first rung is what an eye waits for; the rest is bulk.
                    await self._service.right_of_way.give_way()
                data = memoryview(form.data)[part.start : part.end]
                if 2 * len(data) < part.total:
                    data = memoryview(bytes(data))  # the rest is not kept for as long as a slow reader takes
                del form, task
                yield part, data
        finally:
            for one in coming:
                one.form.cancel()

    def _source(self, step: Step) -> Source | None:
        """The codestream that a rung is a part of; None for a frame that has none such."""
        planned, kind = self._plan.frames[step.position], step.rung.kind
        if kind == rungs.QUALITY:
            lossy = available.irreversible(available.stored(planned.frame.entry), uids.HTJ2K)
            if lossy is None:
                return None
            return Source(step.rung.name, uids.HTJ2K, (), lossy, float(step.rung.value))
        if kind == rungs.LAYER or (kind == rungs.LOSSLESS and self._layers):
            if available.layers(available.stored(planned.frame.entry)):
                return Source(_LAYERED, uids.JPEG_2000_LOSSLESS)
            if kind == rungs.LAYER:
                return None
        return _planned(planned)

    async def _form(self, step: Step, source: Source) -> Form | None:
        """The codestream itself; None for a frame of which there is none."""
        try:
            return await self._found(step, source)
        except ChecksumError as error:
            # A frame that has rotted costs itself alone. Where the length was told, whoever asks for the rest gets it.
            self._plan.damaged.add(step.position)
            if self._promised:
                raise
            _log.error("ALARM %s, left out of a stream: %s", error.code, error.message)
            return None

    async def _found(self, step: Step, source: Source) -> Form | None:
        """The codestream itself; None for a frame of which it cannot be made. Raises ChecksumError."""
        service, frame = self._service, self._plan.frames[step.position].frame
        if source.rendition is None and source.name != _LAYERED:
            return Form(source, await service.read_frame(frame))
        try:
            made = await self._made(step, source, frame)
        except (PixelError, UnsupportedTransferSyntaxError):
            # A damaged frame costs itself alone: its neighbours go on, and it comes as it is stored in the end.
            if step.rung.kind != rungs.LOSSLESS:
                return None
            ends = plans.ends(frame.level_ends, frame.length)
            return Form(Source("stored", frame.transfer_syntax, ends), await service.read_frame(frame))
        ends = plans.ends(made.level_ends, len(made.data))
        self._plan.remember(step.position, source.name, ends)
        return Form(source._replace(ends=ends), made.data)

    async def _made(self, step: Step, source: Source, frame: Frame) -> Made:
        """What has to be made, in its turn among all that streams ask for. Raises as `Service.made`."""
        service, eager = self._service, step.rung == self._eager
        if source.rendition is None:
            found = service.renditions.recent_layers(frame)
        else:
            found = service.renditions.recent(frame, source.rendition, source.quality)
        if found is not None:
            return found
        async with service.offload.turn(available.seconds(frame.entry, source.transfer_syntax), eager):
            if gone(self._request):
                raise ConnectionResetError("the client is gone")
            if not eager:
                await service.right_of_way.give_way()
            with service.right_of_way.urgent() if eager else nullcontext():
                if source.rendition is None:
                    return await service.layered(frame, asker=self._request)
                return await service.made(frame, source.rendition, source.quality, asker=self._request)

    def _head(self, part: Part, first: bool) -> bytes:
        media_type = uids.transfer_syntax(part.transfer_syntax).media_type
        return multipart.part_head(
            self._boundary,
            f"{media_type}; transfer-syntax={part.transfer_syntax}",
            (
                ("Content-Location", self._plan.frames[part.step.position].url),
                ("Content-Range", f"bytes {part.start}-{part.end - 1}/{part.total}"),
                ("Rung", part.step.rung.name),
                ("Frame", str(part.step.position + 1)),
            ),
            first=first,
        )
