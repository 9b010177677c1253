"""The frames resource with a rung in its query: `/frames/1?level=2`, a codestream that stands alone."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncIterator
from functools import partial

from aiohttp.web import BaseRequest

from pacs import codestream, progression, renditions, uids
from pacs.dicomweb import multipart, negotiation, outgoing, plans, rungs, wado
from pacs.dicomweb.answer import Answer, Entity, Stream, blocks_of
from pacs.dicomweb.negotiation import EITHER, PARTS, Choice
from pacs.dicomweb.rungs import Rung
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.errors import CodestreamError, NotAcceptableError
from pacs.reading import Frame
from pacs.renditions import available
from pacs.storage.model import Buffer
from pacs.transcode.table import RELABELS


async def frames(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """Frames as PS3.18 10.4.1.1.4 has them, or one rung of each.

    Raises RequestError for a malformed rung, NotAcceptableError for a frame that has none such.
    """
    rung = rungs.of_query(request.query) if request.rel_url.query_string else None
    if rung is None:
        return await wado.frames(service, request, target)
    archive = service.archive
    entry = archive.instance(target.study or "", target.series or "", target.instance or "")
    located = await service.offload.read(lambda: [archive.frame(entry, number) for number in target.frames])
    label, several = _chosen(service.choices(request), _syntaxes(located[0], rung), len(located))
    media_type = uids.transfer_syntax(label).media_type
    part_type = f"{media_type}; transfer-syntax={label}"
    named = f"{[frame.etag for frame in located]} {entry.descriptor.sha256.hex()} {rung.name} {several} {label} "
    etag = f'"{hashlib.blake2b((named + renditions.made_by()).encode(), digest_size=12).hexdigest()}"'
    if len(located) == 1:
        data = await _codestream(service, request, located[0], rung)
        # Ranges of one entity are put together by the client: other bytes must have another tag.
        etag = f"{etag[:-1]}-{zlib.crc32(data):08x}\""
    if not several:
        return Answer(200, part_type, Entity.of(data), wado.KEEP, etag, "Accept")
    boundary = multipart.boundary(etag)
    content_type = wado.multipart_type(media_type, boundary)
    if len(located) == 1:
        head = multipart.part_head(boundary, part_type, first=True)
        entity = Entity.of(head, data, multipart.closing(boundary))
        return Answer(200, content_type, entity, wado.KEEP, etag, "Accept")

    async def blocks() -> AsyncIterator[bytes]:
        await service.outgoing.hold(request, max(_size(frame, rung) for frame in located))
        for position, frame in enumerate(located):
            head = multipart.part_head(boundary, part_type, first=position == 0)
            for block in blocks_of(head, await _codestream(service, request, frame, rung)):
                yield block
        yield multipart.closing(boundary)

    return Answer(200, content_type, Stream(blocks()), wado.KEEP, etag, "Accept")


def _size(frame: Frame, rung: Rung) -> int:
    """About as many bytes as a rung of the frame has."""
    if rung.kind == rungs.BYTES:
        return rung.value
    geometry = frame.entry.descriptor.geometry
    if geometry is None or not frame.level_ends or rung.kind == rungs.LAYER:
        return outgoing.of_frame(frame.entry)
    return frame.level_ends[rung.level(geometry.rows, geometry.columns, len(frame.level_ends))]


def _syntaxes(frame: Frame, rung: Rung) -> tuple[str, ...]:
    """The Transfer Syntaxes that a rung may be labelled with. Raises NotAcceptableError for a frame without it."""
    stored = available.stored(frame.entry)
    if rung.kind in (rungs.LAYER, rungs.BYTES):
        if available.layers(stored):
            # Not all layers are not lossless. PS3.5 A.4.4
            return (uids.JPEG_2000,)
        raise NotAcceptableError(f"frame {frame.number} cannot be had with quality layers", wado.offered(stored))
    rendition = plans.progressive(frame)
    if rendition is None and not frame.level_ends:
        raise NotAcceptableError(
            f"frame {frame.number} cannot be had with resolution levels", wado.offered(stored)
        )
    syntax = frame.transfer_syntax if rendition is None else rendition.transfer_syntax
    return (syntax, *RELABELS.get(syntax, ()))


def _chosen(accept: tuple[Choice, ...], labels: tuple[str, ...], count: int) -> tuple[str, bool]:
    """(Transfer Syntax to label the parts with, whether in parts) for an Accept. Raises NotAcceptableError."""
    media_type = uids.transfer_syntax(labels[0]).media_type
    ways = EITHER if count == 1 else PARTS
    for choice in accept:
        for label in labels:
            several = choice.sends(media_type, label, ways)
            if several is not None:
                return label, several
    raise NotAcceptableError("this rung is not within Accept", negotiation.describe(media_type, labels))


async def _codestream(service: Service, request: BaseRequest, frame: Frame, rung: Rung) -> bytes:
    if rung.kind in (rungs.LAYER, rungs.BYTES):
        made = await service.layered(frame, asker=request)
        bound = "layers" if rung.kind == rungs.LAYER else "most_bytes"
        return await service.offload.decode(partial(progression.cut, made.data, **{bound: rung.value}))
    rendition = plans.progressive(frame)
    if rendition is None:
        data: Buffer = await service.read_frame(frame)
        levels = frame.level_ends
    else:
        made = await service.made(frame, rendition, asker=request)
        data, levels = made.data, made.level_ends
    if not levels:
        raise NotAcceptableError(f"the packets of frame {frame.number} cannot be followed")
    geometry = frame.entry.descriptor.geometry
    rows, columns = (geometry.rows, geometry.columns) if geometry is not None else (0, 0)
    level = rung.level(rows, columns, len(levels))
    dropped = len(levels) - 1 - level
    if not dropped:
        return bytes(data)
    try:
        # A new header before the same bytes.
        return codestream.reduce(memoryview(data)[: levels[level]], dropped)
    except CodestreamError:
        # Several tiles, or tiles with parameters of their own: packet by packet.
        return await service.offload.decode(partial(progression.cut, data, levels_dropped=dropped))
