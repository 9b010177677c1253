"""WADO-RS bulk data: the values that BulkDataURIs name (PS3.18 10.4.1.1.5, 8.7.3.3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Final

from aiohttp.web import BaseRequest

from pacs import tags, uids
from pacs.dicomweb import multipart, wado
from pacs.dicomweb.answer import Answer, Entity, Stream
from pacs.dicomweb.negotiation import EITHER, OCTET_STREAM
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.errors import NotAcceptableError
from pacs.storage.model import Buffer, Encoding, InstanceEntry

_GATHERED: Final = 32 << 20
"""A value up to this size is held in memory while it is sent; a longer one is read twice, once for its length."""

_NATIVE_TYPE: Final = f"{OCTET_STREAM}; transfer-syntax={uids.EXPLICIT_VR_LITTLE_ENDIAN}"


async def bulkdata(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """What a BulkDataURI names. Encapsulated pixel data comes as its frames. PS3.18 10.4.1.1.5"""
    archive = service.archive
    entry = archive.instance(target.study or "", target.series or "", target.instance or "")
    accept = service.choices(request)
    key = entry.descriptor.array_key
    of_pixels = target.bulk == tags.text(entry.descriptor.pixel_tag)
    if of_pixels and key is not None and key.encoding is Encoding.ENCAPSULATED:
        count = archive.frame_count(entry)
        # None: fragments that cannot be told apart as frames, so the value comes as a whole.
        if count == 1:
            return await wado.one_frame(service, request, archive.frame(entry, 1), accept)
        if count:
            return await wado.frame_list(service, request, entry, range(1, count + 1), accept)
    # Alone where either will do.
    found = (choice.sends(OCTET_STREAM, uids.EXPLICIT_VR_LITTLE_ENDIAN, EITHER[::-1]) for choice in accept)
    several = next((several for several in found if several is not None), None)
    if several is None:
        offered = (OCTET_STREAM, f'multipart/related; type="{OCTET_STREAM}"')
        raise NotAcceptableError("no representation of this value is within Accept", offered)
    etag = f'"{hashlib.blake2b(entry.descriptor.sha256 + target.bulk.encode(), digest_size=16).hexdigest()}'
    etag += '-m"' if several else '-s"'
    head = end = b""
    content_type = OCTET_STREAM
    if several:
        boundary = multipart.boundary(etag)
        head = multipart.part_head(boundary, _NATIVE_TYPE, first=True)
        end = multipart.closing(boundary)
        content_type = wado.multipart_type(OCTET_STREAM, boundary)
    value = await service.offload.read(_short, archive.bulk, entry, target.bulk)
    if value is not None:
        return Answer(200, content_type, Entity.of(head, value, end), wado.KEEP, etag, "Accept")
    length = await service.offload.read(_length, archive.bulk, entry, target.bulk)

    async def blocks() -> AsyncIterator[bytes]:
        if head:
            yield head
        async for block in service.offload.stream(partial(archive.bulk, entry, target.bulk)):
            yield block
        if end:
            yield end

    return Answer(200, content_type, Stream(blocks(), len(head) + length + len(end)), wado.KEEP, etag, "Accept")


_Bulk = Callable[[InstanceEntry, str], Iterable[Buffer]]


def _short(bulk: _Bulk, entry: InstanceEntry, path: str) -> bytes | None:
    """The value, or None for one that is not to be held in memory."""
    taken: list[Buffer] = []
    size = 0
    for piece in bulk(entry, path):
        size += len(piece)
        if size > _GATHERED:
            return None
        taken.append(piece)
    return b"".join(taken)


def _length(bulk: _Bulk, entry: InstanceEntry, path: str) -> int:
    return sum(len(piece) for piece in bulk(entry, path))
