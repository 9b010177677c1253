"""WADO-RS metadata: the stored DICOM JSON of instances, joined (PS3.18 10.4.1.1.3, Annex F)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache, partial
from typing import Final

import msgspec
import zstandard
from aiohttp.web import BaseRequest

from pacs import reading, renditions, tags
from pacs.dicom import json_members
from pacs.dicomweb import conditional, negotiation, urls
from pacs.dicomweb.answer import Answer, Stream
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.renditions import available
from pacs.storage.model import InstanceEntry

_FIRST_BLOCK, _LARGEST_BLOCK = 16, 128
"""Instances read in one crossing to a thread: few at first, for an early first byte."""
_BLOCK_BYTES: Final = 1 << 20
"""Of JSON after which a block takes no further instance: a slow reader holds one block."""

_AVAILABLE: Final = b"%08X" % tags.AVAILABLE_TRANSFER_SYNTAX_UID

_REVISION: Final = 1
"""To be raised when other JSON than before is made of the same instances: validators contain it."""

_URI = b'"BulkDataURI":"bulkdata/'
"""A quotation mark inside a value is escaped in JSON, so this stands nowhere but where the scanner wrote it."""


async def study(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """All instances of a study, series by series."""
    assert target.study is not None
    entry = service.archive.study(target.study)
    contents = partial(service.archive.contents, entry.uid)
    return await _answer(service, request, contents, ("study", entry.uid), entry.sequence)


async def series(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """All instances of a series by Instance Number."""
    assert target.study is not None and target.series is not None
    entry = service.archive.series(target.study, target.series)
    contents = partial(service.archive.contents, entry.study, entry.uid)
    # Two studies may share a Series Instance UID, and a commit.
    return await _answer(service, request, contents, ("series", f"{entry.study}/{entry.uid}"), entry.sequence)


async def instance(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """One instance, in an array as the others."""
    assert target.study is not None and target.series is not None and target.instance is not None
    entry = service.archive.instance(target.study, target.series, target.instance)
    contents = entry.sequence, [entry]
    return await _answer(service, request, lambda: contents, ("instance", target.instance), entry.sequence)


async def _answer(
    service: Service,
    request: BaseRequest,
    contents: Callable[[], tuple[int, list[InstanceEntry]]],
    resource: tuple[str, str],
    sequence: int,
) -> Answer:
    """`contents` are the instances and the commit that names them; `sequence` is that commit as it was a moment ago."""
    content_type = negotiation.json_type(service.choices(request))
    coding = negotiation.content_coding(request.headers.get("Accept-Encoding", ""))
    base = urls.base(request, service.settings)
    key = (*resource, sequence, coding, base)
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "private, no-cache"),)
    if coding:
        headers += (("Content-Encoding", coding),)
    body: bytes | Stream | None = service.metadata_cache.get(key)
    if body is None and conditional.unchanged(request.headers, _etag(key)):
        body = b""  # becomes 304: nothing is read for it
    if body is None:
        # More may have been stored since: the tag has to be that of what is read.
        sequence, entries = await service.offload.read(contents)
        key = (*resource, sequence, coding, base)
        longest = max((reading.metadata_length(entry) for entry in entries), default=0)
        if longest > _BLOCK_BYTES:
            await service.outgoing.hold(request, longest)
        body = Stream(_remembered(service, key, _blocks(service, entries, base, coding)))
    return Answer(200, content_type, body, headers, _etag(key), "Accept, Accept-Encoding")


def _etag(key: tuple[object, ...]) -> str:
    # (0008,3002) depends on the codecs that are installed.
    named = repr((*key, _REVISION, renditions.made_by()))
    return '"' + hashlib.blake2b(named.encode(), digest_size=12).hexdigest() + '"'


async def _remembered(service: Service, key: tuple[object, ...], blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The blocks, kept for the next asker once they are complete; what is too long for that is let go of early, and so
    it is where others who read slowly keep as much as the cache may."""
    kept: list[bytes] | None = []
    size = 0
    most = service.settings.metadata_cache
    try:
        async for block in blocks:
            if kept is not None:
                size += len(block)
                service.remembering += len(block)
                kept.append(block)
                if size > most // 4 or service.remembering > most:
                    service.remembering -= size
                    kept, size = None, 0
            yield block
        if kept is not None:
            service.metadata_cache.put(key, b"".join(kept))
    finally:
        service.remembering -= size


async def _blocks(service: Service, entries: Sequence[InstanceEntry], base: str, coding: str) -> AsyncIterator[bytes]:
    found = iter(entries)
    compress, finish = _coder(coding)
    count, prefix = _FIRST_BLOCK, b"["

    def block(count: int, prefix: bytes) -> tuple[bytes, bool]:
        taken: list[InstanceEntry] = []
        size = 0
        for entry in found:
            taken.append(entry)
            size += reading.metadata_length(entry)
            if len(taken) == count or size >= _BLOCK_BYTES:
                return compress(prefix + joined(service, taken, base)), False
        text = prefix + joined(service, taken, base) if taken else prefix.strip(b",")
        return compress(text + b"]") + finish(), True

    last = False
    while not last:
        data, last = await service.offload.read(block, count, prefix)
        count, prefix = min(2 * count, _LARGEST_BLOCK), b","
        if data:
            yield data


def joined(service: Service, entries: Sequence[InstanceEntry], base: str) -> bytes:
    """DICOM JSON objects of instances, separated by commas, with absolute BulkDataURIs."""
    archive = service.archive
    objects = []
    for entry, text in zip(entries, archive.metadata_jsons(entries), strict=True):
        if _URI in text:
            descriptor = entry.descriptor
            root = f"{base}/studies/{descriptor.study}/series/{descriptor.series}/instances/{descriptor.instance}"
            text = text.replace(_URI, f'"BulkDataURI":"{root}/bulkdata/'.encode())
        objects.append(json_members.put(text, _AVAILABLE, available_transfer_syntaxes(entry)))
    return b",".join(objects)


def available_transfer_syntaxes(entry: InstanceEntry) -> bytes:
    """The Transfer Syntaxes that the instance can be retrieved in losslessly, as a JSON element. (0008,3002)"""
    return _listed(available.told_of_instance(entry))


@lru_cache(maxsize=1024)
def _listed(transfer_syntaxes: tuple[str, ...]) -> bytes:
    return msgspec.json.encode({"vr": "UI", "Value": transfer_syntaxes})


def _coder(coding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    """(compress, finish) of a content coding. Each block is flushed: the client reads it before the next is made."""
    if coding == "zstd":
        zstd = zstandard.ZstdCompressor(level=3).compressobj()
        return (
            lambda data: zstd.compress(data) + zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK),
            lambda: zstd.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH),
        )
    if coding == "gzip":
        gzip = zlib.compressobj(1, zlib.DEFLATED, 31)
        return lambda data: gzip.compress(data) + gzip.flush(zlib.Z_SYNC_FLUSH), lambda: gzip.flush(zlib.Z_FINISH)
    return lambda data: data, lambda: b""
