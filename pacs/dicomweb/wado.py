"""WADO-RS frames, as they are stored or in any form that can be made of them (PS3.18 10.4.1.1.4, 8.7.3.3)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from typing import Final, NamedTuple

from aiohttp.web import BaseRequest

from pacs import renditions, uids
from pacs.dicomweb import multipart, negotiation, outgoing
from pacs.dicomweb.answer import Answer, Entity, Headers, Piece, Segment, Stream, blocks_of
from pacs.dicomweb.negotiation import EITHER, PARTS, Choice
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.errors import NotAcceptableError
from pacs.reading import Frame, is_native
from pacs.renditions import Made, available
from pacs.renditions.available import Stored
from pacs.storage.model import InstanceEntry
from pacs.transcode import Rendition

_AT_ONCE: Final = 100
"""Frames of a list whose answer is put together faster than a thread is entered."""
KEEP: Final[Headers] = (("Cache-Control", "private, max-age=31536000, immutable"),)
"""What a SOP Instance UID names never changes here (another file of that UID is refused): kept for ever, as RFC 9111
and RFC 8246 say it. `private`: a cache that readers share would answer without the access log."""

VARY: Final = "Accept"


@dataclass(frozen=True, slots=True)
class Plan:
    """The representation of a frame that negotiation chose."""

    rendition: Rendition
    quality: float | None
    multipart: bool
    part_type: str
    """Content-Type of a part."""
    media_type: str
    mark: str
    """Tells the entity tags of representations of one frame apart."""


@lru_cache(maxsize=1024)
def plan(
    accept: tuple[Choice, ...], stored: Stored, quality: float | None = None, ways: Sequence[bool] = EITHER
) -> Plan:
    """The first representation that `accept` takes of a frame, of those that can be made. PS3.18 8.7.3.3

    A lossy one is made only where its Transfer Syntax is named, or where a `quality` is, which says how lossy; HTJ2K
    then, if no Transfer Syntax is named. Raises NotAcceptableError naming what can be sent.
    """
    offers = available.of_frames(stored)
    for choice in accept:
        if quality is not None:
            # To ask for a quality is to ask for less than all; what viewers name beside it is `*`.
            for syntax in tuple(name for name in choice.transfer_syntaxes if name != "*") or (uids.HTJ2K,):
                lossy = available.irreversible(stored, syntax)
                several = None if lossy is None else choice.sends(_media_type(lossy), syntax, ways)
                if lossy is not None and several is not None:
                    return _planned(several, lossy, stored, quality)
        for rendition in offers:
            made_lossy = not rendition.lossless and rendition.transfer_syntax not in choice.transfer_syntaxes
            several = choice.sends(_media_type(rendition), rendition.transfer_syntax, ways)
            if not made_lossy and several is not None:
                return _planned(several, rendition, stored, quality)
    raise NotAcceptableError("no representation of this frame is within Accept", offered(stored))


def offered(stored: Stored) -> tuple[str, ...]:
    """What can be asked for of such a frame, as `Accept` would say it."""
    return tuple(chain.from_iterable(
        negotiation.describe(_media_type(rendition), (rendition.transfer_syntax,), multipart=several)
        for several in (True, False) for rendition in available.of_frames(stored)
    ))  # fmt: skip


def _media_type(rendition: Rendition) -> str:
    return uids.transfer_syntax(rendition.transfer_syntax).media_type


def _planned(several: bool, rendition: Rendition, stored: Stored, quality: float | None) -> Plan:
    syntax, media_type = rendition.transfer_syntax, _media_type(rendition)
    mark = "m" if several else "s"
    if rendition.kind == "native":
        mark += "n"
    if syntax not in (stored.transfer_syntax, uids.EXPLICIT_VR_LITTLE_ENDIAN):
        mark += syntax.removeprefix("1.2.840.10008.1.2").lstrip(".") or "0"
    if rendition.lossless:
        quality = None
    elif quality is not None:
        mark += f"q{quality:g}"
    return Plan(rendition, quality, several, f"{media_type}; transfer-syntax={syntax}", media_type, mark)


async def frames(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """One frame, or several in the order asked for. PS3.18 10.4.1.1.4"""
    archive = service.archive
    named = target.study or "", target.series or "", target.instance or ""
    accept, quality = service.choices(request), negotiation.quality(request)
    if len(target.frames) != 1:
        return await frame_list(service, request, archive.instance(*named), target.frames, accept, quality)
    return await one_frame(service, request, archive.located(*named, target.frames[0]), accept, quality)


async def one_frame(
    service: Service,
    request: BaseRequest,
    frame: Frame,
    accept: tuple[Choice, ...],
    quality: float | None = None,
) -> Answer:
    """A frame as an entity whose length is known, which ranges can be cut from."""
    chosen = plan(accept, available.stored(frame.entry), quality)
    if service.renditions.direct(frame, chosen.rendition):
        if is_native(frame):
            await service.outgoing.hold(request, frame.length)
        stored = Segment(frame.length, partial(service.read_frame, frame), frame.level_ends)
        return _answer(_wrapped(chosen, _etag(frame, chosen)), stored)
    await service.outgoing.hold(request, outgoing.of_frame(frame.entry))
    made = await service.made(frame, chosen.rendition, chosen.quality, asker=request)
    etag = _etag(frame, chosen)
    if chosen.rendition.kind != "native":
        # Ranges of one entity are put together by the client: other bytes must have another tag.
        etag = f'"{frame.etag}-{chosen.mark}-{made.crc32c:08x}"'
    return _answer(_wrapped(chosen, etag), Segment(len(made.data), partial(_ready, made), made.level_ends))


class Wrapped(NamedTuple):
    """What stands around a frame that is sent as an entity."""

    content_type: str
    etag: str
    before: bytes
    after: bytes


def as_stored(service: Service, frame: Frame, accept: tuple[Choice, ...]) -> Plan | None:
    """Where the stored bytes are the answer; None where the frame has to be made. Raises NotAcceptableError.

    The same for every frame of a `storage.model.Form`.
    """
    chosen = plan(accept, available.stored(frame.entry))
    return chosen if service.renditions.direct(frame, chosen.rendition) else None


def _etag(frame: Frame, chosen: Plan) -> str:
    return f'"{frame.etag}-{chosen.mark}"'


def _wrapped(chosen: Plan, etag: str) -> Wrapped:
    return wrapped(chosen, etag, multipart.boundary(etag) if chosen.multipart else "")


def wrapped(chosen: Plan, etag: str, boundary: str) -> Wrapped:
    """What stands around a frame whose boundary, if it has one, is this."""
    if not chosen.multipart:
        return Wrapped(chosen.part_type, etag, b"", b"")
    head = multipart.part_head(boundary, chosen.part_type, first=True)
    return Wrapped(multipart_type(chosen.media_type, boundary), etag, head, multipart.closing(boundary))


def _answer(wrapped: Wrapped, piece: Segment) -> Answer:
    pieces = (wrapped.before, piece, wrapped.after) if wrapped.before else (piece,)
    return Answer(200, wrapped.content_type, Entity.of(*pieces), KEEP, wrapped.etag, VARY)


def multipart_type(media_type: str, boundary: str) -> str:
    """Content-Type of a multipart body with parts of `media_type`."""
    return f'multipart/related; type="{media_type}"; boundary={boundary}'


async def _ready(made: Made) -> bytes | memoryview:
    data = made.data
    return data if isinstance(data, bytes) else memoryview(data)


async def frame_list(
    service: Service,
    request: BaseRequest,
    entry: InstanceEntry,
    numbers: Sequence[int],
    accept: tuple[Choice, ...],
    quality: float | None = None,
) -> Answer:
    """Several frames, each as a part. Those that have to be made are made one after the other, while they are sent."""
    archive = service.archive

    def locate() -> tuple[list[Frame], str]:
        found = [archive.frame(entry, number) for number in numbers]
        etags = "".join(f"{frame.etag}\n" for frame in found).encode()
        return found, hashlib.blake2b(etags, digest_size=16).hexdigest()

    located, digest = await service.offload.read(locate)
    if all(choice.multipart is False for choice in accept):
        media_type = plan(accept, available.stored(entry), quality).media_type
        raise NotAcceptableError(
            f"{len(numbers)} frames do not fit in one part", negotiation.describe(media_type, ("*",))
        )
    chosen = plan(accept, available.stored(entry), quality, PARTS)
    direct = all(service.renditions.direct(frame, chosen.rendition) for frame in located)
    etag = f'"{digest}-{chosen.mark}"' if direct else f'"{digest}-{chosen.mark}-{renditions.made_by()}"'
    boundary = multipart.boundary(etag)
    content_type = multipart_type(chosen.media_type, boundary)

    def entity() -> Entity:
        between = multipart.part_head(boundary, chosen.part_type, first=False)
        pieces: list[Piece] = []
        for frame in located:
            pieces += (between, Segment(frame.length, partial(service.read_frame, frame)))
        pieces[0] = multipart.part_head(boundary, chosen.part_type, first=True)
        return Entity.of(*pieces, multipart.closing(boundary))

    if direct:
        if located and is_native(located[0]):
            await service.outgoing.hold(request, located[0].length)
        body = entity() if len(located) <= _AT_ONCE else await service.offload.read(entity)
        return Answer(200, content_type, body, KEEP, etag, "Accept")

    await service.outgoing.hold(request, outgoing.of_frame(entry))

    async def parts() -> AsyncIterator[bytes]:
        for position, frame in enumerate(located):
            made = await service.made(frame, chosen.rendition, chosen.quality, asker=request)
            for block in blocks_of(multipart.part_head(boundary, chosen.part_type, first=position == 0), made.data):
                yield block
        yield multipart.closing(boundary)

    return Answer(200, content_type, Stream(parts()), KEEP, etag, "Accept")
