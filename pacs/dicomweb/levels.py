"""The frames resource with a rung in its query: `/frames/1?level=2`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from aiohttp.web import BaseRequest

from pacs import codestream, uids
from pacs.dicomweb import multipart, negotiation, plans, rungs, wado
from pacs.dicomweb.answer import Answer, Entity, Headers, Stream
from pacs.dicomweb.negotiation import Choice
from pacs.dicomweb.rungs import Rung
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.errors import NotAcceptableError
from pacs.reading import Frame

_KEEP: Final[Headers] = (("Cache-Control", "private, max-age=3600"),)


_ALSO: Final = {uids.HTJ2K_LOSSLESS_RPCL: (uids.HTJ2K_LOSSLESS, uids.HTJ2K)}
"""Less restricted Transfer Syntaxes that a codestream satisfies too. PS3.5 10.18, 10.19"""


async def frames(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """Frames as PS3.18 10.4.1.1.4 has them, or one rung of each as a codestream that stands alone.

    Raises RequestError for a malformed rung, NotAcceptableError for a frame without one.
    """
    rung = rungs.of_query(request.query) if request.rel_url.query_string else None
    if rung is None:
        return await wado.frames(service, request, target)
    archive = service.archive
    entry = archive.instance(target.study or "", target.series or "", target.instance or "")
    located = [archive.frame(entry, number) for number in target.frames]
    frame = located[0]
    level = _level(frame, rung)
    label, several = _chosen(service.choices(request), frame.transfer_syntax, len(located))
    part_type = f"{uids.transfer_syntax(label).media_type}; transfer-syntax={label}"
    mark = f"l{level}{'m' if several else 's'}{label.rpartition('.')[2]}"
    etag = f'"{"+".join(frame.etag for frame in located[:64])}-{mark}"'
    if not several:
        return Answer(200, part_type, Entity.of(await _reduced(service, frame, level)), _KEEP, etag, "Accept")
    boundary = multipart.boundary(etag)
    content_type = f'multipart/related; type="{uids.transfer_syntax(label).media_type}"; boundary={boundary}'
    if len(located) == 1:
        data = await _reduced(service, frame, level)
        head = multipart.part_head(boundary, part_type, first=True)
        return Answer(200, content_type, Entity.of(head, data, multipart.closing(boundary)), _KEEP, etag, "Accept")

    async def blocks() -> AsyncIterator[bytes]:
        for position, frame in enumerate(located):
            head = multipart.part_head(boundary, part_type, first=position == 0)
            yield head + await _reduced(service, frame, level)
        yield multipart.closing(boundary)

    return Answer(200, content_type, Stream(blocks()), _KEEP, "", "Accept")


def _level(frame: Frame, rung: Rung) -> int:
    rows, columns, levels = plans.shape(frame)
    if levels == 1:
        raise NotAcceptableError(f"frame {frame.number} is stored without resolution levels")
    return rung.level(rows, columns, levels)


def _chosen(accept: tuple[Choice, ...], transfer_syntax: str, count: int) -> tuple[str, bool]:
    """(Transfer Syntax to label the parts with, whether in parts) for an Accept. Raises NotAcceptableError."""
    labels = (transfer_syntax, *_ALSO.get(transfer_syntax, ()))
    for choice in accept:
        for label in labels:
            if choice.takes(uids.transfer_syntax(label).media_type, label):
                several = choice.multipart is not False
                if several or count == 1:
                    return label, several
    media_type = uids.transfer_syntax(transfer_syntax).media_type
    raise NotAcceptableError("this rung is not within Accept", negotiation.describe(media_type, labels))


async def _reduced(service: Service, frame: Frame, level: int) -> bytes:
    """The codestream of a frame without the levels above `level`; the frame itself when there are none."""
    data = await service.read_frame(frame)
    dropped = len(frame.level_ends) - 1 - level
    if not dropped:
        return bytes(data)
    return codestream.reduce(memoryview(data)[: frame.level_ends[level]], dropped)
