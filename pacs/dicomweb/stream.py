"""A whole series in one response, in the order of usefulness.

`GET …/series/{series}/stream?rungs=level:2,lossless&first=150`: a coarse level of every slice, from the middle or from
`first` outwards, then the next rung of every slice, and so on; each time only the bytes of a frame that are missing.
No round trip for each slice, and what a client has when the link breaks is the most useful part. Ours: PS3.18 has no
such resource.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from itertools import islice
from typing import Final, NamedTuple

from aiohttp.web import BaseRequest

from pacs import renditions, uids
from pacs.dicomweb import multipart, plans, progressive, rungs
from pacs.dicomweb.answer import Answer, Headers, Stream
from pacs.dicomweb.plans import PlannedFrame, SeriesPlan
from pacs.dicomweb.rungs import Rung
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.errors import ChangedError, NotAcceptableError, PixelError, RequestError, UnsupportedTransferSyntaxError
from pacs.storage.model import Buffer

_DEFAULT: Final = "pixels:128,lossless"
_GATHER: Final = 32 << 10
"""Bytes of small parts that are written together, and of a long part that are written at a time."""
_AHEAD: Final = 4
"""Frames that are made while those before them are sent."""


class Step(NamedTuple):
    """A rung of a frame, in its turn."""

    position: int
    """Of the frame in reading order, from 0."""
    rung: Rung


class Part(NamedTuple):
    """One part of the response: bytes `start` to `end` of a codestream."""

    step: Step
    transfer_syntax: str
    start: int
    end: int
    total: int


class Form(NamedTuple):
    """A codestream of a frame, of which rungs are prefixes."""

    transfer_syntax: str
    data: Buffer
    ends: tuple[int, ...]


async def series(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """All frames of a series, rung by rung. Raises RequestError, NotAcceptableError, ChangedError, NotFoundError."""
    accept = service.choices(request)
    if not any(choice.multipart is not False for choice in accept):
        raise NotAcceptableError("a series is sent in parts", ("multipart/related",))
    query = request.query
    wanted = rungs.of_list(query.get("rungs", _DEFAULT))
    plan = await progressive.of_target(service, target)
    if query.get("state", plan.state) != plan.state:
        raise ChangedError("the series has changed since: ask for its index again")
    count = len(plan.frames)
    first = _number(query.get("first", str(count // 2 + 1)), "first", 1, max(1, count))
    after = _number(query.get("after", "0"), "after", 0, len(wanted) * max(1, count))
    named = f"{plan.state} {[rung.name for rung in wanted]} {first} {after} {renditions.made_by()}"
    etag = f'"{hashlib.blake2b(named.encode(), digest_size=12).hexdigest()}"'
    boundary = multipart.boundary(etag)
    headers: Headers = (
        ("Cache-Control", "private, no-cache"), ("Series-State", plan.state), ("Series-Frames", str(count)),
    )  # fmt: skip
    if plan.receiving(service.settings.receiving):
        headers += (("Series-Receiving", "true"),)
    content_type = f'multipart/related; type="{_type(plan)}"; boundary={boundary}'
    writer = _Writer(service, plan, wanted, boundary)
    steps = list(_steps(count, wanted, first - 1))
    return Answer(200, content_type, Stream(writer.blocks(steps, after), writer.length(steps, after)), headers, etag,
                  "Accept")  # fmt: skip


def _number(text: str, name: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise RequestError(f"{name}={text[:20]!r} is not a number from {low} to {high}")
    return int(text)


def _type(plan: SeriesPlan) -> str:
    """The media type of the root part. RFC 2387 3.1"""
    if not plan.frames:
        return "application/octet-stream"
    return uids.transfer_syntax(plan.frames[0].transfer_syntax).media_type


def outwards(count: int, first: int) -> Iterator[int]:
    """0 to `count` - 1, from `first` to both sides by turns."""
    for distance in range(count):
        if first + distance < count:
            yield first + distance
        if distance and first - distance >= 0:
            yield first - distance


def _steps(count: int, wanted: tuple[Rung, ...], first: int) -> Iterator[Step]:
    for rung in wanted:
        for position in outwards(count, first):
            yield Step(position, rung)


class _Sent:
    """How much of each codestream of each frame has been sent: the next rung is what is missing."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, str], int] = {}

    def part(self, step: Step, frame: PlannedFrame, transfer_syntax: str, ends: tuple[int, ...]) -> Part | None:
        """What `step` adds of a codestream whose levels or layers end at `ends`; None when that is nothing."""
        rung = step.rung
        if len(ends) == 1 and rung.kind in (rungs.LEVEL, rungs.PIXELS):
            return None  # no prefix of it is an image
        if rung.kind in (rungs.LEVEL, rungs.PIXELS):
            end = ends[rung.level(*frame.size, len(ends))]
        else:
            end = ends[rung.layer(len(ends))]
        key = (step.position, transfer_syntax)
        start = self._ends.get(key, 0)
        if end <= start:
            return None
        self._ends[key] = end
        return Part(step, transfer_syntax, start, end, ends[-1])


class _Writer:
    """Writes the body of one response."""

    def __init__(self, service: Service, plan: SeriesPlan, wanted: tuple[Rung, ...], boundary: str) -> None:
        self._service = service
        self._plan = plan
        self._boundary = boundary
        self._eager = wanted[0]
        self._layers = any(rung.kind == rungs.LAYER for rung in wanted)
        made = self._layers or any(rung.kind == rungs.QUALITY for rung in wanted)
        # What lies ready is read in its turn: thousands of slow readers must not hold frames for later.
        self._ahead = _AHEAD if made or any(frame.rendition for frame in plan.frames) else 1

    def length(self, steps: list[Step], after: int) -> int | None:
        """Bytes of the body, where they are known before anything is made."""
        if any(step.rung.kind in (rungs.LAYER, rungs.QUALITY) for step in steps):
            return None
        if not all(frame.ends for frame in self._plan.frames):
            return None
        sent = _Sent()
        length = 0
        known = (
            sent.part(step, frame, frame.transfer_syntax, frame.ends)
            for step in steps for frame in (self._plan.frames[step.position],)
        )  # fmt: skip
        for index, part in enumerate(islice(filter(None, known), after, None)):
            length += len(self._head(part, index == 0)) + part.end - part.start
        return length + len(multipart.closing(self._boundary))

    async def blocks(self, steps: list[Step], after: int) -> AsyncIterator[bytes]:
        """The body. `after` parts are left out."""
        sent = _Sent()
        gathered: list[bytes | memoryview] = []
        size = count = 0
        async with aclosing(self._forms(steps, sent)) as forms:
            async for part, form in forms:
                count += 1
                if count <= after:
                    continue
                gathered.append(self._head(part, count == after + 1))
                data = memoryview(form.data)
                for start in range(part.start, part.end, _GATHER):
                    gathered.append(data[start : min(start + _GATHER, part.end)])
                    size += len(gathered[-1])
                    if size >= _GATHER:
                        yield b"".join(gathered)
                        gathered, size = [], 0
        gathered.append(multipart.closing(self._boundary))
        yield b"".join(gathered)

    async def _forms(self, steps: list[Step], sent: _Sent) -> AsyncGenerator[tuple[Part, Form], None]:
        """The parts in order with their data; where frames have to be made, the next ones are made meanwhile."""
        coming: deque[tuple[Step, asyncio.Task[Form | None]]] = deque()
        todo = iter(steps)
        try:
            while True:
                while len(coming) < self._ahead and (step := next(todo, None)) is not None:
                    coming.append((step, asyncio.ensure_future(self._form(step))))
                if not coming:
                    return
                step, task = coming.popleft()
                form = await task
                if form is None:
                    continue
                part = sent.part(step, self._plan.frames[step.position], form.transfer_syntax, form.ends)
                if part is None:
                    continue
                if step.rung != self._eager:
                    # The first rung is what an eye waits for; the rest is bulk.
                    await self._service.right_of_way.give_way()
                yield part, form
        finally:
            for _, task in coming:
                task.cancel()

    async def _form(self, step: Step) -> Form | None:
        """The codestream that a rung is a part of; None for a frame that has none such."""
        service, planned, kind = self._service, self._plan.frames[step.position], step.rung.kind
        frame = planned.frame
        stored = renditions.stored(frame.entry)
        try:
            if kind == rungs.QUALITY:
                lossy = renditions.irreversible(stored, uids.HTJ2K)
                if lossy is None:
                    return None
                made = await service.made(frame, lossy, float(step.rung.value))
                return Form(uids.HTJ2K, made.data, (len(made.data),))
            if kind == rungs.LAYER or (kind == rungs.LOSSLESS and self._layers):
                if renditions.layers(stored):
                    made = await service.layered(frame)
                    return Form(uids.JPEG_2000_LOSSLESS, made.data, plans.ends(made.level_ends, len(made.data)))
                if kind == rungs.LAYER:
                    return None
            if planned.rendition is not None:
                made = await service.made(frame, planned.rendition)
                return Form(planned.transfer_syntax, made.data, plans.ends(made.level_ends, len(made.data)))
        except (PixelError, UnsupportedTransferSyntaxError):
            # A damaged frame costs itself alone: its neighbours go on, and it comes as it is stored in the end.
            if kind != rungs.LOSSLESS:
                return None
        return Form(frame.transfer_syntax, await service.read_frame(frame), plans.ends(frame.level_ends, frame.length))

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
