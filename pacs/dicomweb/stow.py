"""STOW-RS: the parts of an upload are stored while the next ones arrive (PS3.18 10.5, Annex I)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Self

import msgspec
from aiohttp import web
from aiohttp.client_exceptions import ClientError
from aiohttp.web import BaseRequest

from pacs.archive import StoreResult
from pacs.dicomweb import expectation, inflating, intake, multipart, native_model, negotiation, problems, urls
from pacs.dicomweb.answer import Answer
from pacs.dicomweb.intake import Intake
from pacs.dicomweb.multipart import PartEnd, PartStart
from pacs.dicomweb.negotiation import DICOM, DICOM_JSON, DICOM_XML
from pacs.dicomweb.service import Service
from pacs.dicomweb.spool import Collected
from pacs.dicomweb.target import ResourceId
from pacs.dicomweb.turns import Turns
from pacs.errors import (
    BusyError,
    MediaTypeError,
    PacsError,
    PartError,
    RequestError,
    StalledError,
    StorageError,
    TooLargeError,
)

_log = logging.getLogger(__name__)

_IN_FLIGHT: Final = 64
"""Parts of one request that may be in work: enough for commits to share a sync."""
_MEMORY_FACTOR: Final = 5
"""Memory that an ingest holds, in raw sizes: measured 140 MB for a mammogram of 29 MB."""
MAX_PARTS: Final = 50_000
"""Of one request: what is remembered of each is small, but nine bytes can begin one, compressed a hundredth of that."""
_SILENT: Final = 120
"""Seconds that a client may pause within a body."""
_ANSWERED_AT_ONCE: Final = 200
"""Instances told in an answer that is written in the event loop."""
_FORGET_SECONDS: Final = 0.01
_SMALLEST_CLAIM: Final = 256 << 10

_WARNING_REASON: Final = 0xB007
"""Data Set does not match SOP Class: the nearest of PS3.18 Table I.2-1 for a Data Set that breaks a rule."""


@dataclass(slots=True)
class _Upload:
    """One request while its parts are read."""

    service: Service
    study: str | None
    results: dict[int, StoreResult] = field(default_factory=dict)
    """By position of the part in the body."""
    running: int = 0
    """Parts in work."""
    waiter: asyncio.Future[None] | None = None
    """Told when one of them is done."""
    part: int = -1
    collected: Collected | None = None
    refused: PacsError | None = None
    """Why the part being read is not going to be stored; the rest of it is passed over."""

    def note(self, part: int, result: StoreResult) -> None:
        """What became of a part."""
        self.results[part] = result
        reason = result.error.code if result.error is not None else "warning" if result.warnings else ""
        self.service.observer.stored(result.status, reason)

    async def take(self, event: multipart.Event | memoryview) -> None:
        if isinstance(event, PartStart):
            self._begin(event)
        elif isinstance(event, PartEnd):
            await self._end(event)
        elif self.refused is None and self.collected is not None:
            try:
                if self.collected.add(event):
                    await self.service.offload.read(self.collected.spool)
            except (TooLargeError, StorageError) as error:
                self._refuse(error)

    def _begin(self, start: PartStart) -> None:
        self.part += 1
        if self.part >= MAX_PARTS:
            raise TooLargeError(f"an upload may have {MAX_PARTS} parts; those before are stored, send the rest again")
        self.refused = start.error or _unreadable(start)
        self.collected = None if self.refused is not None else self.service.collect()

    def _refuse(self, error: PacsError) -> None:
        self.refused = error
        self.drop()

    async def _end(self, end: PartEnd) -> None:
        error = self.refused or end.error
        collected = self.collected
        if error is not None or collected is None:
            self.note(self.part, StoreResult("refused", error=error or PartError("an empty part")))
            self.drop()
            return
        while self.running >= _IN_FLIGHT:
            await self.one_done()
        memory = self.service.ingest_memory
        claim = await memory.acquire(max(_SMALLEST_CLAIM, _MEMORY_FACTOR * collected.length))
        part, loop = self.part, asyncio.get_running_loop()

        def finished(result: StoreResult) -> None:
            # Runs too when the client is gone and nobody waits: the claim must come back.
            memory.release(claim)
            self.running -= 1
            self.note(part, result)
            if self.waiter is not None and not self.waiter.done():
                self.waiter.set_result(None)

        def tell(result: StoreResult) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(finished, result)

        try:
            if collected.spooled:
                await self.service.offload.read(collected.spool)
            data, forget = collected.take()
            self.drop()
            self.running += 1
            self.service.archive.store_soon(data, tell, study=self.study)
            if forget is not None:
                self._forget_now_and_then(forget, part)
        except (StorageError, OSError) as error:
            memory.release(claim)
            refusal = StorageError(f"an upload could not be kept: {error}")
            self.note(self.part, StoreResult("refused", error=refusal))
            self.drop()
        except BaseException:
            memory.release(claim)
            raise

    def _forget_now_and_then(self, forget: Callable[[], None], part: int) -> None:
        """Keep the resident pages of a spooled part few until it is stored, however fast they are read."""
        if part not in self.results:
            forget()
            asyncio.get_running_loop().call_later(_FORGET_SECONDS, self._forget_now_and_then, forget, part)

    async def one_done(self) -> None:
        """Wait until a part that is in work is done."""
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter

    def drop(self) -> None:
        """Let go of the part being read."""
        if self.collected is not None:
            self.collected.close()
            self.collected = None


def _unreadable(start: PartStart) -> PacsError | None:
    media_type = start.headers.get("content-type", DICOM).partition(";")[0].strip().lower()
    if media_type != DICOM:
        return PartError(f"a part of type {media_type[:80]!r} is not an instance, {DICOM} is")
    encoding = start.headers.get("content-transfer-encoding", "binary").strip().lower()
    if encoding not in ("binary", "8bit", "7bit"):
        return PartError(f"a part in Content-Transfer-Encoding {encoding[:40]!r} is not read here")
    return None


class _Body:
    """The chunks of a body, for use as a context: one that falls silent ends it with StalledError.

    A silent client must not hold memory for ever. One timer looks now and then: one for each chunk cost more than
    reading the chunk, and the time that we take ourselves must not count.
    """

    def __init__(self, request: BaseRequest) -> None:
        self._content = request.content
        self._loop = asyncio.get_running_loop()
        self._deadline = asyncio.timeout(None)
        self._waiting_since = math.inf
        self._intake: Intake | None = None
        self._stalled = False
        self._timer = self._loop.call_later(_SILENT, self._look)

    def _look(self) -> None:
        since = self._waiting_since if self._intake is None else self._intake.touched
        silent = self._loop.time() - since
        if silent >= _SILENT:
            self._stalled = True
            if self._intake is not None:
                self._intake.stop()
            else:
                self._deadline.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(_SILENT - max(0.0, silent), self._look)

    async def whole(self, taken: Intake) -> bytearray:
        """All of it at once: see `Intake.whole`."""
        self._intake = taken
        try:
            return await taken.whole()
        finally:
            self._intake = None

    async def more(self) -> bytes:
        """What has come since, b"" at the end."""
        if self._stalled:
            raise self._fell_silent()
        self._waiting_since = self._loop.time()
        try:
            return await self._content.readany()
        finally:
            self._waiting_since = math.inf

    async def __aenter__(self) -> Self:
        await self._deadline.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        try:
            await self._deadline.__aexit__(kind, error, trace)
        except TimeoutError:
            raise self._fell_silent() from None

    def _fell_silent(self) -> StalledError:
        return StalledError(f"nothing more of the body came for {_SILENT} seconds")


async def store(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """Store Instances. PS3.18 10.5

    A client that vanishes leaves what was complete: those parts are stored. Errors of a part are told in the answer,
    those of the whole request (media type, boundary, no part at all) are raised.
    """
    taken = intake.of(request)
    inflater = inflating.of(request.headers.get("Content-Encoding", "identity"))
    parser = _parser(request.headers.get("Content-Type", ""))
    if expectation.held_back(request):
        await expectation.ask(request)
    upload = _Upload(service, target.study)
    turns = Turns()
    try:
        async with _Body(request) as body:
            if taken is not None:
                for event in parser.feed_whole(await body.whole(taken)):
                    await upload.take(event)
                    await turns.give()
            while chunk := await body.more():
                for piece in (chunk,) if inflater is None else inflater.feed(chunk):
                    for event in parser.feed(piece):
                        await upload.take(event)
                        await turns.give()
                    await turns.give()
        if inflater is not None:
            inflater.close()
        for event in parser.close():
            await upload.take(event)
    except (ClientError, web.RequestPayloadError) as error:
        raise RequestError(f"the body could not be read: {type(error).__name__}") from error
    finally:
        upload.drop()
    if not parser.parts:
        single = isinstance(parser, multipart.Single)
        why = "the body is empty" if single else "the body has no part: the boundary of Content-Type is not in it"
        raise RequestError(why)
    while upload.running:
        await upload.one_done()
    # A part without a result, which `store_soon` never lets happen.
    lost = StoreResult("refused", error=BusyError("this instance was not stored"))
    results = [upload.results.get(part, lost) for part in range(parser.parts)]
    xml = negotiation.prefers_xml(service.accept(request))
    tell = partial(response, results, urls.base(request, service.settings), target.study, xml=xml)
    return tell() if len(results) <= _ANSWERED_AT_ONCE else await service.offload.read(tell)


def _parser(content_type: str) -> multipart.Parser | multipart.Single:
    """One instance may come alone, as clients of cloud archives send it. PS3.18 8.6.1.1"""
    if content_type.partition(";")[0].strip().lower() == DICOM:
        return multipart.Single(content_type)
    part_type, boundary = multipart.boundary_of(content_type)
    if part_type not in ("", DICOM):
        raise MediaTypeError(f"parts of type {part_type[:80]} are not read here, send {DICOM}")
    return multipart.Parser(boundary)


def response(results: list[StoreResult], base: str, study: str | None, *, xml: bool = False) -> Answer:
    """The Store Instances Response, in JSON or XML. PS3.18 10.5.3, Table I.2-1

    200: all stored; 202: some with a warning or failed; 409: none stored; 503 with Retry-After when nothing could be
    stored because the archive cannot write: the same request may succeed later.
    """
    stored = [result for result in results if result.status != "refused"]
    failed = {part: result for part, result in enumerate(results, 1) if result.status == "refused"}
    studies = {result.study for result in stored}
    module: dict[str, object] = {}
    if studies or study:
        only = study or (next(iter(studies)) if len(studies) == 1 else None)
        module["00081190"] = _element("UR", f"{base}/studies/{only}") if only else {"vr": "UR"}
    if stored:
        module["00081199"] = _element("SQ", *(_referenced(result, base) for result in stored))
    named = [_failed(result, "") for result in failed.values() if result.instance]
    if named:
        module["00081198"] = _element("SQ", *named)
    if len(named) < len(failed):
        nameless = (_failed(result, f"part {part}: ") for part, result in failed.items() if not result.instance)
        module["0008119A"] = _element("SQ", *nameless)
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"),)
    if not failed:
        status = 202 if any(result.warnings for result in stored) else 200
    elif stored:
        status = 202
    elif all(isinstance(result.error, StorageError | BusyError) for result in failed.values()):
        status = 503
        headers += (("Retry-After", str(problems.RETRY_AFTER)),)
    else:
        status = 409
    if xml:
        return Answer(status, DICOM_XML, native_model.document(module), headers)
    return Answer(status, DICOM_JSON, msgspec.json.encode(module), headers)


def _element(vr: str, *values: object) -> dict[str, object]:
    return {"vr": vr, "Value": list(values)}


def _referenced(result: StoreResult, base: str) -> dict[str, object]:
    item: dict[str, object] = {
        "00081150": _element("UI", result.sop_class) if result.sop_class else {"vr": "UI"},
        "00081155": _element("UI", result.instance),
        "00081190": _element("UR", f"{base}/studies/{result.study}/series/{result.series}/instances/{result.instance}"),
    }
    if result.warnings:
        item["00081196"] = _element("US", _WARNING_REASON)
    # The standard has no word for what was there before: a success that stored nothing.
    notes = (*(("already stored",) if result.status == "duplicate" else ()), *result.warnings)
    if notes:
        item["00000902"] = _element("LO", _comment("; ".join(notes)))
    return dict(sorted(item.items()))


def _failed(result: StoreResult, where: str) -> dict[str, object]:
    """PS3.18 has no place for a text: Error Comment (0000,0902) of DIMSE is where other archives put it too. `where`
    precedes it, of an instance whose UID is not known."""
    item: dict[str, object] = {"00081197": _element("US", problems.failure_reason(result.error))}
    if result.instance:
        item["00081150"] = _element("UI", result.sop_class) if result.sop_class else {"vr": "UI"}
        item["00081155"] = _element("UI", result.instance)
    if result.error is not None:
        item["00000902"] = _element("LO", _comment(f"{where}{result.error.code} {result.error.message}"))
    return dict(sorted(item.items()))


def _comment(text: str) -> str:
    """Fit for LO: no backslash, no control characters, 64 characters are the rule, which a reason may break."""
    return "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in text)[:1000]
