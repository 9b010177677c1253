"""WADO-RS: frames, whole instances and bulk data as they are stored, or as native bytes (PS3.18 10.4, 8.7)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from typing import Final

from aiohttp.web import BaseRequest

from pacs import tags, uids
from pacs.dicomweb import multipart, negotiation
from pacs.dicomweb.answer import Answer, Entity, Headers, Piece, Segment, Stream
from pacs.dicomweb.negotiation import DICOM, OCTET_STREAM, Choice
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.errors import NotAcceptableError, NotFoundError, PixelError, UnsupportedTransferSyntaxError
from pacs.reading import Frame
from pacs.storage.model import Buffer, Encoding, InstanceEntry

_KEEP: Final[Headers] = (("Cache-Control", "private, max-age=3600"),)
"""Instances never change, but they can be deleted: an hour, and a validator for after it."""
_GATHERED: Final = 32 << 20
"""A bulk value up to this size is held in memory while it is sent; a longer one is read twice, once for its length."""

_ALSO_LABELLED: Final = {uids.HTJ2K_LOSSLESS_RPCL: (uids.HTJ2K_LOSSLESS, uids.HTJ2K)}
"""A .202 codestream satisfies these too: they restrict it less. PS3.5 10.18, 10.19"""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The representation of a frame that negotiation chose."""

    stored: bool
    """As stored, else decoded to native bytes."""
    multipart: bool
    part_type: str
    """Content-Type of a part."""
    media_type: str
    mark: str
    """Tells the entity tags of representations of one frame apart."""


@lru_cache(maxsize=1024)
def _plan(accept: tuple[Choice, ...], stored: str) -> _Plan:
    """The first representation that `accept` takes of a frame stored in a Transfer Syntax. PS3.18 8.7.3.3"""
    syntax = uids.transfer_syntax(stored)
    offers = [(syntax.media_type, stored, True)]
    offers += [(syntax.media_type, label, True) for label in _ALSO_LABELLED.get(stored, ())]
    if syntax.encapsulated:
        offers.append((OCTET_STREAM, uids.EXPLICIT_VR_LITTLE_ENDIAN, False))
    offers.append((OCTET_STREAM, uids.IMPLICIT_VR_LITTLE_ENDIAN, not syntax.encapsulated))
    for choice in accept:
        for media_type, label, as_stored in offers:
            if choice.takes(media_type, label):
                several = choice.multipart is not False
                mark = ("m" if several else "s") + ("" if as_stored else "n")
                if label not in (stored, uids.EXPLICIT_VR_LITTLE_ENDIAN):
                    mark += label.rpartition(".")[2]
                return _Plan(as_stored, several, f"{media_type}; transfer-syntax={label}", media_type, mark)
    offered = chain.from_iterable(
        negotiation.describe(media_type, (label,), multipart=several)
        for several in (True, False) for media_type, label, _ in offers
    )  # fmt: skip
    raise NotAcceptableError("no representation of this frame is within Accept", tuple(offered))


async def frames(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """One frame, or several in the order asked for. PS3.18 10.4.1.1.4"""
    archive = service.archive
    entry = archive.instance(target.study or "", target.series or "", target.instance or "")
    accept = service.choices(request)
    if len(target.frames) != 1:
        return await _frame_list(service, entry, target.frames, accept)
    return await _one_frame(service, archive.frame(entry, target.frames[0]), accept)


async def _one_frame(service: Service, frame: Frame, accept: tuple[Choice, ...]) -> Answer:
    plan = _plan(accept, frame.transfer_syntax)
    if plan.stored:
        piece: Piece = Segment(frame.length, partial(_stored, service, frame), frame.level_ends)
    else:
        piece = await _native(service, frame)
    etag = f'"{frame.etag}-{plan.mark}"'
    if not plan.multipart:
        return Answer(200, plan.part_type, Entity.of(piece), _KEEP, etag, "Accept")
    boundary = multipart.boundary(etag)
    entity = Entity.of(
        multipart.part_head(boundary, plan.part_type, first=True), piece, multipart.closing(boundary)
    )
    return Answer(200, _multipart_type(plan.media_type, boundary), entity, _KEEP, etag, "Accept")


async def _native(service: Service, frame: Frame) -> bytes:
    """The frame decoded, kept for a while: readers of one examination look at the same frames."""
    key = (frame.entry.descriptor.instance, frame.number, frame.etag)
    native = service.frame_cache.get(key)
    if native is None:
        archive, entry = service.archive, frame.entry
        native = await service.once(key, lambda: service.offload.decode(archive.native_frame, entry, frame.number))
        service.frame_cache.put(key, native)
    return native


def _multipart_type(media_type: str, boundary: str) -> str:
    return f'multipart/related; type="{media_type}"; boundary={boundary}'


async def _stored(service: Service, frame: Frame) -> bytes | memoryview:
    data = service.archive.read_frame_cached(frame)
    return data if data is not None else await service.offload.read(service.archive.read_frame, frame)


async def _frame_list(
    service: Service, entry: InstanceEntry, numbers: Sequence[int], accept: tuple[Choice, ...]
) -> Answer:
    archive = service.archive

    def locate() -> list[Frame]:
        return [archive.frame(entry, number) for number in numbers]

    located = await service.offload.read(locate)
    plan = _plan(accept, located[0].transfer_syntax)
    if not plan.multipart:
        raise NotAcceptableError(
            f"{len(numbers)} frames do not fit in one part", negotiation.describe(plan.media_type, ("*",))
        )
    digest = hashlib.blake2b(digest_size=16)
    for frame in located:
        digest.update(frame.etag.encode() + b"\n")
    etag = f'"{digest.hexdigest()}-{plan.mark}"'
    boundary = multipart.boundary(etag)
    content_type = _multipart_type(plan.media_type, boundary)
    if plan.stored:
        parts = ((frame.length, partial(_stored, service, frame)) for frame in located)
        pieces: list[Piece] = []
        for length, load in parts:
            pieces.append(multipart.part_head(boundary, plan.part_type, first=not pieces))
            pieces.append(Segment(length, load))
        return Answer(200, content_type, Entity.of(*pieces, multipart.closing(boundary)), _KEEP, etag, "Accept")

    async def decoded() -> AsyncIterator[bytes]:
        for position, frame in enumerate(located):
            data = await service.offload.decode(archive.native_frame, entry, frame.number)
            yield multipart.part_head(boundary, plan.part_type, first=position == 0) + data
        yield multipart.closing(boundary)

    return Answer(200, content_type, Stream(decoded()), _KEEP, etag, "Accept")


# --- whole instances ----------------------------------------------------------------------------------------------


def _exact(accept: tuple[Choice, ...], arrival: str) -> tuple[bool, bool | None]:
    """(as received rather than as explicit VR little endian, multipart) for an instance. PS3.18 8.7.3.5

    No Transfer Syntax named means explicit VR little endian; `*` or the one of arrival means the exact upload.
    """
    for choice in accept:
        if choice.takes_type(DICOM):
            if "*" in choice.transfer_syntaxes or arrival in choice.transfer_syntaxes:
                return True, choice.multipart
            if not choice.transfer_syntaxes or uids.EXPLICIT_VR_LITTLE_ENDIAN in choice.transfer_syntaxes:
                return arrival == uids.EXPLICIT_VR_LITTLE_ENDIAN, choice.multipart
    offered = negotiation.describe(DICOM, ("*", arrival, uids.EXPLICIT_VR_LITTLE_ENDIAN))
    raise NotAcceptableError("no representation of this instance is within Accept", offered)


async def instance(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """One instance as `application/dicom`. PS3.18 10.4.1.1.1"""
    entry = service.archive.instance(target.study or "", target.series or "", target.instance or "")
    accept = service.choices(request)
    exact, several = _exact(accept, entry.descriptor.transfer_syntax)
    if several is not False:
        return _multipart_of((entry,), service, accept, strict=True)
    etag = f'"{entry.descriptor.sha256.hex()[:32]}-{"x" if exact else "e"}"'
    body = Stream(_file(service, entry, exact), entry.descriptor.file_size if exact else None)
    return Answer(200, _part_type(entry, exact), body, _KEEP, etag, "Accept")


async def series(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """The instances of a series, one after the other."""
    entries = await service.offload.read(service.archive.instances_of, target.study or "", target.series or "")
    return _several(service, request, entries)


async def study(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """The instances of a study, one after the other."""
    uid = target.study or ""

    def entries() -> list[InstanceEntry]:
        archive = service.archive
        return [entry for series in archive.series_of(uid) for entry in archive.instances_of(uid, series.uid)]

    return _several(service, request, await service.offload.read(entries))


def _several(service: Service, request: BaseRequest, entries: Sequence[InstanceEntry]) -> Answer:
    accept = tuple(choice for choice in service.choices(request) if choice.multipart is not False)
    if not accept:
        offered = negotiation.describe(DICOM, ("*", uids.EXPLICIT_VR_LITTLE_ENDIAN))
        raise NotAcceptableError("several instances do not fit in one part", offered)
    return _multipart_of(entries, service, accept, strict=False)


def _multipart_of(
    entries: Sequence[InstanceEntry], service: Service, accept: tuple[Choice, ...], *, strict: bool
) -> Answer:
    exact = [_exact(accept, entry.descriptor.transfer_syntax)[0] for entry in entries]
    digest = hashlib.blake2b(digest_size=16)
    for entry, as_received in zip(entries, exact, strict=True):
        digest.update(entry.descriptor.sha256 + (b"x" if as_received else b"e"))
    etag = f'"{digest.hexdigest()}"'
    boundary = multipart.boundary(etag)
    length = None
    if all(exact):
        length = len(multipart.closing(boundary))
        for position, entry in enumerate(entries):
            length += len(multipart.part_head(boundary, _part_type(entry, True), first=position == 0))
            length += entry.descriptor.file_size

    async def parts() -> AsyncIterator[bytes]:
        for position, (entry, as_received) in enumerate(zip(entries, exact, strict=True)):
            blocks = _file(service, entry, as_received)
            try:
                first = await anext(blocks, b"")
            except (UnsupportedTransferSyntaxError, PixelError):
                if strict:
                    raise
                # What no decoder here can decode is sent in its own Transfer Syntax, which its part header names:
                # leaving an instance out of a study would be worse.
                as_received, blocks = True, _file(service, entry, True)
                first = await anext(blocks, b"")
            yield multipart.part_head(boundary, _part_type(entry, as_received), first=position == 0) + first
            async for block in blocks:
                yield block
        yield multipart.closing(boundary)

    return Answer(200, _multipart_type(DICOM, boundary), Stream(parts(), length), _KEEP, etag, "Accept")


def _part_type(entry: InstanceEntry, exact: bool) -> str:
    syntax = entry.descriptor.transfer_syntax if exact else uids.EXPLICIT_VR_LITTLE_ENDIAN
    # What a file claims is only repeated where it is a UID.
    return f"{DICOM}; transfer-syntax={syntax}" if syntax in uids.TRANSFER_SYNTAXES else DICOM


def _file(service: Service, entry: InstanceEntry, exact: bool) -> AsyncIterator[bytes]:
    archive = service.archive
    return service.offload.stream(partial(archive.part10 if exact else archive.part10_explicit, entry))


# --- bulk data ----------------------------------------------------------------------------------------------------

_NATIVE_TYPE: Final = f"{OCTET_STREAM}; transfer-syntax={uids.EXPLICIT_VR_LITTLE_ENDIAN}"


async def bulkdata(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """What a BulkDataURI names. Encapsulated pixel data comes as its frames. PS3.18 10.4.1.1.5"""
    archive = service.archive
    entry = archive.instance(target.study or "", target.series or "", target.instance or "")
    accept = service.choices(request)
    key = entry.descriptor.array_key
    of_pixels = target.bulk == tags.text(entry.descriptor.pixel_tag)
    if of_pixels and key is not None and key.encoding is Encoding.ENCAPSULATED:
        numbers = range(1, archive.frame_count(entry) + 1)
        try:
            if len(numbers) == 1:
                return await _one_frame(service, archive.frame(entry, 1), accept)
            return await _frame_list(service, entry, numbers, accept)
        except NotFoundError:
            pass  # fragments that cannot be told apart as frames: the value as a whole
    choice = next((choice for choice in accept if choice.takes(OCTET_STREAM, uids.EXPLICIT_VR_LITTLE_ENDIAN)), None)
    if choice is None:
        offered = (OCTET_STREAM, f'multipart/related; type="{OCTET_STREAM}"')
        raise NotAcceptableError("no representation of this value is within Accept", offered)
    etag = f'"{hashlib.blake2b(entry.descriptor.sha256 + target.bulk.encode(), digest_size=16).hexdigest()}'
    etag += '-m"' if choice.multipart else '-s"'
    head = end = b""
    content_type = OCTET_STREAM
    if choice.multipart:
        boundary = multipart.boundary(etag)
        head = multipart.part_head(boundary, _NATIVE_TYPE, first=True)
        end = multipart.closing(boundary)
        content_type = _multipart_type(OCTET_STREAM, boundary)
    value = await service.offload.read(_short, archive.bulk, entry, target.bulk)
    if value is not None:
        return Answer(200, content_type, Entity.of(head, value, end), _KEEP, etag, "Accept")
    length = await service.offload.read(_length, archive.bulk, entry, target.bulk)

    async def blocks() -> AsyncIterator[bytes]:
        if head:
            yield head
        async for block in service.offload.stream(partial(archive.bulk, entry, target.bulk)):
            yield block
        if end:
            yield end

    return Answer(200, content_type, Stream(blocks(), len(head) + length + len(end)), _KEEP, etag, "Accept")


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
