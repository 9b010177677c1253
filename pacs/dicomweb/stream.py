"""A whole series in one response, in the order of usefulness.

`GET …/series/{series}/stream?rungs=level:2,lossless&first=150`: a coarse level of every slice, from the middle or from
`first` outwards, then the next rung of every slice, and so on; each time only the bytes of a frame that are missing.
No round trip for each slice, and what a client has when the link breaks is the most useful part. Ours: PS3.18 has no
such resource.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Final, NamedTuple

from aiohttp.web import BaseRequest

from pacs import uids
from pacs.dicomweb import multipart, plans, progressive, rungs
from pacs.dicomweb.answer import Answer, Headers, Stream
from pacs.dicomweb.plans import SeriesPlan
from pacs.dicomweb.rungs import Rung
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.errors import ChangedError, NotAcceptableError, RequestError
from pacs.reading import Frame

_DEFAULT: Final = "pixels:128,lossless"
_GATHER: Final = 32 << 10
"""Bytes of small parts that are written together."""


class Part(NamedTuple):
    """One part of the response: bytes `start` to `end` of a frame."""

    position: int
    """Of the frame in reading order, from 0."""
    rung: Rung
    start: int
    end: int


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
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"{plan.state} {[rung.name for rung in wanted]} {first} {after}".encode())
    etag = f'"{digest.hexdigest()}"'
    boundary = multipart.boundary(etag)

    def chosen() -> Iterator[Part]:
        return islice(parts(plan, wanted, first - 1), after, None)

    heads = (_head(boundary, plan.frames[part.position], part, index == 0) for index, part in enumerate(chosen()))
    closing = multipart.closing(boundary)
    length = sum(map(len, heads)) + sum(part.end - part.start for part in chosen()) + len(closing)
    blocks = _blocks(service, plan, chosen(), wanted[0], boundary)
    headers: Headers = (("Cache-Control", "private, no-cache"), ("Series-State", plan.state))
    if plan.receiving(service.settings.receiving):
        headers += (("Series-Receiving", "true"),)
    content_type = f'multipart/related; type="{_type(plan)}"; boundary={boundary}'
    return Answer(200, content_type, Stream(blocks, length), headers, etag, "Accept")


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


def parts(plan: SeriesPlan, wanted: tuple[Rung, ...], first: int) -> Iterator[Part]:
    """What is sent, in order. A rung that adds nothing to what went before it has no part."""
    sent = [0] * len(plan.frames)
    for rung in wanted:
        for position in outwards(len(plan.frames), first):
            frame = plan.frames[position]
            rows, columns, levels = plans.shape(frame)
            if levels == 1 and rung != rungs.WHOLE:
                continue  # no prefix of it is an image
            end = plans.ends(frame)[rung.level(rows, columns, levels)]
            if end > sent[position]:
                yield Part(position, rung, sent[position], end)
                sent[position] = end


def _head(boundary: str, frame: Frame, part: Part, first: bool) -> bytes:
    media_type = uids.transfer_syntax(frame.transfer_syntax).media_type
    return multipart.part_head(
        boundary,
        f"{media_type}; transfer-syntax={frame.transfer_syntax}",
        (
            ("Content-Location", plans.frame_url(frame)),
            ("Content-Range", f"bytes {part.start}-{part.end - 1}/{frame.length}"),
            ("Rung", part.rung.name),
            ("Frame", str(part.position + 1)),
        ),
        first=first,
    )


async def _blocks(
    service: Service, plan: SeriesPlan, chosen: Iterator[Part], eager: Rung, boundary: str
) -> AsyncIterator[bytes]:
    gathered: list[bytes | memoryview] = []
    size = 0
    for index, part in enumerate(chosen):
        frame = plan.frames[part.position]
        if part.rung != eager:
            # The first rung is what an eye waits for; the rest is bulk.
            await service.right_of_way.give_way()
        data = await service.read_frame(frame)
        gathered.append(_head(boundary, frame, part, index == 0))
        for start in range(part.start, part.end, _GATHER):
            gathered.append(memoryview(data)[start : min(start + _GATHER, part.end)])
            size += len(gathered[-1])
            if size >= _GATHER:
                yield b"".join(gathered)
                gathered, size = [], 0
    gathered.append(multipart.closing(boundary))
    yield b"".join(gathered)
