"""WADO-RS instances as `application/dicom`: as they came, or in another Transfer Syntax (PS3.18 10.4, 8.7.3.5)."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from aiohttp.web import BaseRequest

from pacs import renditions, rewriting, uids
from pacs.dicomweb import conditional, multipart, negotiation, outgoing, wado
from pacs.dicomweb.answer import Answer, Headers, Stream
from pacs.dicomweb.negotiation import DICOM, EITHER, PARTS, Choice
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.errors import NotAcceptableError, PixelError, UnsupportedTransferSyntaxError
from pacs.renditions import available
from pacs.rewriting import Rewritten
from pacs.storage.model import InstanceEntry

_GROWS: Final[Headers] = (("Cache-Control", "private, no-cache"),)
"""Of studies and series, which more may arrive of: kept, and asked for again by their entity tag."""


@dataclass(frozen=True, slots=True)
class Form:
    """The representation of an instance that negotiation chose."""

    transfer_syntax: str
    exact: bool
    """The file as it was received, byte for byte."""
    multipart: bool
    quality: float | None = None

    @property
    def mark(self) -> str:
        """Tells the entity tags of representations of one instance apart."""
        if self.exact:
            return "x"
        suffix = self.transfer_syntax.removeprefix("1.2.840.10008.1.2").replace(".", "-")
        quality = "" if self.quality is None else f"q{self.quality:g}"
        return f"{suffix}{quality}-{renditions.made_by()}.{rewriting.REVISION}"


def chosen(
    accept: tuple[Choice, ...],
    arrival: str,
    offered: Sequence[str],
    quality: float | None = None,
    ways: Sequence[bool] = EITHER,
) -> Form | None:
    """The first representation that `accept` takes of an instance that can be sent in the Transfer Syntaxes `offered`.

    No Transfer Syntax named means explicit VR little endian; `*` means the exact upload, and so does the one of arrival
    but where the file may lack a beginning (`rewriting.LOOKED_AT`). What another range refuses is replaced only where
    anything is taken, and by nothing lossy. None when there is none. PS3.18 8.7.3.5.2
    """
    for choice in accept:
        for syntax in _syntaxes(choice, arrival, offered):
            several = choice.sends(DICOM, syntax, ways)
            if several is not None:
                exact = syntax == arrival and ("*" in choice.transfer_syntaxes or arrival not in rewriting.LOOKED_AT)
                return Form(syntax, exact, several, quality if syntax in _LOSSY and not exact else None)
    return None


def _syntaxes(choice: Choice, arrival: str, offered: Sequence[str]) -> Iterator[str]:
    """The Transfer Syntaxes that a media range means, best first."""
    explicit, named = uids.EXPLICIT_VR_LITTLE_ENDIAN, choice.transfer_syntaxes
    if arrival in named or "*" in named:
        yield arrival
    # What cannot be decoded is found out when it is tried, so that the answer says why.
    yield from (uid for uid in named if uid in offered or uid == explicit)
    if not named or "*" in named:
        yield explicit
    if "*" in named or choice.media_type != DICOM:
        if not named:
            yield arrival
        yield from (uid for uid in offered if uid not in _LOSSY)


_LOSSY = frozenset(uid for uid, row in uids.TRANSFER_SYNTAXES.items() if row.encapsulated and not row.lossless)


async def instance(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """One instance, as a single part or the only one of several."""
    entry = service.archive.instance(target.study or "", target.series or "", target.instance or "")
    accept, quality = service.choices(request), negotiation.quality(request)
    form = _form(entry, accept, quality, EITHER)
    if form is None:
        raise _nothing((entry,))
    if form.multipart:
        return _multipart_of((entry,), service, request, accept, quality)
    etag = f'"{entry.descriptor.sha256.hex()[:32]}-{form.mark}"'
    if conditional.unchanged(request.headers, etag):
        return Answer(200, _part_type(form), b"", wado.KEEP, etag, "Accept")  # becomes 304: nothing is made for it
    headers, exact = wado.KEEP, form.exact
    await service.outgoing.hold(request, outgoing.of_instance(entry, form.transfer_syntax))
    if exact:
        body = Stream(_exact(service, entry), entry.descriptor.file_size)
    else:
        rewritten = await _opened(service, entry, form)
        body = Stream(_pieces(service, entry, form, rewritten), rewritten.length)
        exact = rewritten.received
    if exact:
        # The checksum that the file had when it came: a client can prove that nothing was lost. RFC 9530
        headers += (("Repr-Digest", f"sha-256=:{b64encode(entry.descriptor.sha256).decode()}:"),)
    return Answer(200, _part_type(form), body, headers, etag, "Accept")


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


def _form(
    entry: InstanceEntry, accept: tuple[Choice, ...], quality: float | None, ways: Sequence[bool]
) -> Form | None:
    return chosen(accept, entry.descriptor.transfer_syntax, available.of_instance(entry), quality, ways)


def _nothing(entries: Sequence[InstanceEntry]) -> NotAcceptableError:
    offered = dict.fromkeys(("*", *(uid for entry in entries[:100] for uid in available.of_instance(entry))))
    described = (*negotiation.describe(DICOM, offered), *negotiation.describe(DICOM, offered, multipart=False))
    return NotAcceptableError("no representation of what is asked for is within Accept", described)


def _several(service: Service, request: BaseRequest, entries: Sequence[InstanceEntry]) -> Answer:
    accept = tuple(choice for choice in service.choices(request) if choice.multipart is not False)
    if not accept:
        offered = negotiation.describe(DICOM, ("*", uids.EXPLICIT_VR_LITTLE_ENDIAN))
        raise NotAcceptableError("several instances do not fit in one part", offered)
    return replace(_multipart_of(entries, service, request, accept, negotiation.quality(request)), headers=_GROWS)


def _multipart_of(
    entries: Sequence[InstanceEntry], service: Service, request: BaseRequest, accept: tuple[Choice, ...],
    quality: float | None,
) -> Answer:  # fmt: skip
    found = [_form(entry, accept, quality, PARTS) for entry in entries]
    missing = [entry.descriptor.transfer_syntax for entry, form in zip(entries, found, strict=True) if form is None]
    if len(missing) == len(entries) or any(choice.refuses(syntax) for syntax in {*missing} for choice in accept):
        raise _nothing(entries)
    # A report among images that are asked for as JPEG 2000 is sent as it came: to leave it out would be worse.
    forms = [form or _as_received(entry) for entry, form in zip(entries, found, strict=True)]
    digest = hashlib.blake2b(digest_size=16)
    for entry, form in zip(entries, forms, strict=True):
        digest.update(entry.descriptor.sha256 + form.mark.encode())
    etag = f'"{digest.hexdigest()}"'
    boundary = multipart.boundary(etag)
    length = None
    if all(form.exact for form in forms):
        length = len(multipart.closing(boundary))
        for position, (entry, form) in enumerate(zip(entries, forms, strict=True)):
            length += len(multipart.part_head(boundary, _part_type(form), first=position == 0))
            length += entry.descriptor.file_size

    async def parts() -> AsyncIterator[bytes]:
        sizes = (outgoing.of_instance(entry, form.transfer_syntax) for entry, form in zip(entries, forms, strict=True))
        await service.outgoing.hold(request, max(sizes, default=0))
        for position, (entry, form) in enumerate(zip(entries, forms, strict=True)):
            arrival = entry.descriptor.transfer_syntax
            strict = len(entries) == 1 or any(choice.refuses(arrival) for choice in accept)
            form, blocks = await _blocks(service, entry, form, strict=strict)
            head = multipart.part_head(boundary, _part_type(form), first=position == 0)
            async for block in blocks:
                yield head + block if head else block
                head = b""
        yield multipart.closing(boundary)

    return Answer(200, wado.multipart_type(DICOM, boundary), Stream(parts(), length), wado.KEEP, etag, "Accept")


def _as_received(entry: InstanceEntry) -> Form:
    return Form(entry.descriptor.transfer_syntax, True, True)


async def _blocks(
    service: Service, entry: InstanceEntry, form: Form, *, strict: bool
) -> tuple[Form, AsyncIterator[bytes]]:
    """The instance as chosen or, unless `strict`, as it was received where that turns out to be impossible.

    Its part header names the Transfer Syntax: leaving an instance out of a study would be worse.
    """
    if not form.exact:
        try:
            return form, _pieces(service, entry, form, await _opened(service, entry, form))
        except (UnsupportedTransferSyntaxError, PixelError):
            if strict:
                raise
            form = _as_received(entry)
    return form, _exact(service, entry)


def _part_type(form: Form) -> str:
    # What a file claims is only repeated where it is a UID.
    known = form.transfer_syntax in uids.TRANSFER_SYNTAXES
    return f"{DICOM}; transfer-syntax={form.transfer_syntax}" if known else DICOM


def _exact(service: Service, entry: InstanceEntry) -> AsyncIterator[bytes]:
    return service.offload.stream(partial(service.archive.part10, entry), _as_received_seconds(entry))


async def _opened(service: Service, entry: InstanceEntry, form: Form) -> Rewritten:
    call = partial(service.renditions.instance, entry, form.transfer_syntax, form.quality)
    if form.transfer_syntax == entry.descriptor.transfer_syntax:
        return await service.offload.read(call)  # nearly always it is the received file
    return await service.offload.compute(_seconds(entry, form), call)


def _pieces(service: Service, entry: InstanceEntry, form: Form, rewritten: Rewritten) -> AsyncIterator[bytes]:
    seconds = _as_received_seconds(entry) if rewritten.received else _seconds(entry, form)
    return service.offload.stream(rewritten.pieces, seconds)


def _as_received_seconds(entry: InstanceEntry) -> float | None:
    """None for what only has to be read."""
    return None if available.stored(entry).received else available.seconds(entry, uids.EXPLICIT_VR_LITTLE_ENDIAN)


def _seconds(entry: InstanceEntry, form: Form) -> float:
    return available.seconds(entry, form.transfer_syntax)
