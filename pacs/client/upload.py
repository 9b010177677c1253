"""Uploading many files by STOW-RS: several requests at once, several instances in each (PS3.18 10.5)."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import aiohttp
import msgspec

from pacs.client import answer
from pacs.client.files import Found, usable
from pacs.client.patience import retry_after
from pacs.client.tally import Result, Status, Tally
from pacs.client.together import together
from pacs.client.transport import nobody, untrusted
from pacs.dicom import part10
from pacs.errors import PacsError, UploadError

BATCH_BYTES = 16 << 20
"""A request takes further instances up to this size; a larger instance travels alone and is never held whole."""
PIECE = 1 << 20
ATTEMPTS = 8
CONNECT_SECONDS = 15.0
_RETRIED = frozenset((429, 502, 503, 504))
_HOPELESS = frozenset((401, 403, 404, 405))
"""Statuses that every further request would meet as well."""
_ROOT = "; the URL has to be the DICOMweb root: http://HOST:8080/dicomweb"
_HINTS = {
    401: "; it asks who is there: --header 'Authorization: …', or NAME:PASSWORD@ in the URL",
    404: _ROOT,
    405: _ROOT,
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where to upload, and how hard."""

    url: str
    """The DICOMweb root, e.g. http://127.0.0.1:8080/dicomweb"""
    jobs: int = 4
    per_request: int = 10
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: float = 1.0
    """Factor on all waiting times before another attempt."""


def store(files: Iterable[Found], target: Target, report: Callable[[Result], None] | None = None) -> Tally:
    """`upload` for callers without an event loop."""
    return asyncio.run(upload(files, target, report))


async def upload(files: Iterable[Found], target: Target, report: Callable[[Result], None] | None = None) -> Tally:
    """Sends what is usable of `files`; `report` hears of every file once. Raises UploadError when it makes no sense
    to go on: nobody answers at that URL, or what answers is no DICOMweb server."""
    tally = Tally()

    def settle(result: Result) -> None:
        tally.add(result)
        if report is not None:
            report(result)

    batches = _batches(files, target.per_request, settle)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=600)
    connector = aiohttp.TCPConnector(limit=target.jobs)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=dict(target.headers)) as session:
        sender = _Sender(session, target, settle)

        async def work() -> None:
            for batch in batches:  # shared: whoever is free takes the next
                await sender.send(batch)

        await together(work() for _ in range(max(1, target.jobs)))
    return tally


def _batches(files: Iterable[Found], most: int, settle: Callable[[Result], None]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    size = 0
    for found in usable(files, settle):
        if batch and (len(batch) >= most or size + found.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(found)
        size += found.size
    if batch:
        yield batch


class _Sender:
    """Sends batches one after the other and works out what became of each file."""

    def __init__(self, session: aiohttp.ClientSession, target: Target, settle: Callable[[Result], None]) -> None:
        self._session = session
        self._url = target.url.rstrip("/") + "/studies"
        self._patience = target.patience
        self._settle = settle
        self._reached = False

    async def send(self, batch: list[Found]) -> None:
        try:
            status, body = await self._post(batch)
        except _UnreadableError as error:
            await self._without(batch, error)
            return
        except (aiohttp.ClientError, TimeoutError) as error:
            self._refuse(batch, "the connection failed", str(error) or type(error).__name__)
            return
        items = answer.read(body)
        if items is not None:
            for result in await asyncio.to_thread(_assign, batch, items):
                if isinstance(result, Found):
                    await self.send([result])
                else:
                    self._settle(result)
        elif status in _HOPELESS or 300 <= status < 400:
            message = answer.explain(body)
            raise UploadError(
                f"{self._url} answered {status}{': ' + message if message else ''}{_HINTS.get(status, '')}"
            )
        elif len(batch) > 1 and 400 <= status < 500:
            for found in batch:  # one of them spoils it for the others: find out which
                await self.send([found])
        else:
            self._refuse(batch, f"HTTP status {status}", answer.explain(body))

    async def _without(self, batch: list[Found], error: _UnreadableError) -> None:
        self._settle(Result(error.found.path, error.found.size, Status.UNREADABLE, error.reason))
        rest = [found for found in batch if found is not error.found]
        if rest:
            await self.send(rest)

    def _refuse(self, batch: list[Found], reason: str, detail: str) -> None:
        for found in batch:
            self._settle(Result(found.path, found.size, Status.REFUSED, reason, detail))

    async def _post(self, batch: list[Found]) -> tuple[int, bytes]:
        """The last answer to a batch: temporary refusals and lost connections are tried again.

        An upload may be repeated: a server that has stored identical bytes already answers success.
        """
        for attempt in range(ATTEMPTS):
            boundary = secrets.token_hex(16)
            headers = {
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Content-Length": str(_length(batch, boundary)),
                "Accept": "application/dicom+json",
            }
            last = attempt == ATTEMPTS - 1
            try:
                async with self._session.post(
                    self._url, data=_body(batch, boundary), headers=headers, allow_redirects=False
                ) as response:
                    self._reached = True
                    body = await response.read()
                    if response.status not in _RETRIED or last:
                        return response.status, body
                    delay = retry_after(response.headers.get("Retry-After"))
            except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
                raise UploadError(f"{self._url}: {untrusted(error)}") from None
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                if not self._reached:
                    # A host that drops what is sent to it, a firewall say, is noticed by the clock alone.
                    raise UploadError(f"nobody answers at {self._url}: {nobody(error)}") from None
                if last:
                    raise
                delay = None
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
                raise UploadError(f"{self._url} is not a URL") from None
            except aiohttp.ClientConnectionError as error:
                if isinstance(error.__cause__, _UnreadableError):
                    raise error.__cause__ from None
                if last:
                    raise
                delay = None
            if delay is None:
                delay = min(30.0, 0.25 * 2**attempt) * random.uniform(0.8, 1.2)
            await asyncio.sleep(delay * self._patience)
        raise AssertionError("unreachable")


class _UnreadableError(Exception):
    """A file that could be opened before and cannot be read now, or has another size."""

    def __init__(self, found: Found, reason: str) -> None:
        super().__init__(reason)
        self.found = found
        self.reason = reason


def _part_header(boundary: str) -> bytes:
    return f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()


def _closing(boundary: str) -> bytes:
    return f"\r\n--{boundary}--\r\n".encode()


def _length(batch: list[Found], boundary: str) -> int:
    return sum(found.size + len(_part_header(boundary)) for found in batch) + len(_closing(boundary))


async def _body(batch: list[Found], boundary: str) -> AsyncIterator[bytes]:
    for found in batch:
        yield _part_header(boundary)
        if found.content is not None:
            yield found.content
        elif found.size <= PIECE:
            yield await asyncio.to_thread(_read_small, found)
        else:
            async for piece in _pieces(found):
                yield piece
    yield _closing(boundary)


def _read_small(found: Found) -> bytes:
    try:
        data = found.path.read_bytes()
    except OSError as error:
        raise _UnreadableError(found, (error.strerror or str(error)).lower()) from None
    if len(data) != found.size:
        raise _UnreadableError(found, "changed while it was read")
    return data


async def _pieces(found: Found) -> AsyncIterator[bytes]:
    left = found.size
    try:
        file = await asyncio.to_thread(found.path.open, "rb", 0)
        with file:
            while left:
                piece = await asyncio.to_thread(file.read, min(PIECE, left))
                if not piece:
                    raise _UnreadableError(found, "changed while it was read")
                left -= len(piece)
                yield piece
    except OSError as error:
        raise _UnreadableError(found, (error.strerror or str(error)).lower()) from None


# --- which file an answer speaks of ---------------------------------------------------------------------------------


def _assign(batch: list[Found], items: list[answer.Item]) -> list[Result | Found]:
    """What became of each file, or the file itself when only sending it alone can tell.

    The answer names SOP Instance UIDs, so the files are looked into when it matters.
    """
    plain = not any(item.failure is not None or item.comment or item.warning is not None for item in items)
    if plain and len(items) == len(batch):
        return [Result(found.path, found.size, Status.STORED) for found in batch]
    if len(batch) == 1 and len(items) == 1:
        return [_result(batch[0], items[0])]
    by_uid: dict[str, list[answer.Item]] = {}
    for item in items:
        by_uid.setdefault(item.uid, []).append(item)
    results: list[Result | Found] = []
    for found in batch:
        uid = _sop_instance_uid(found)
        named = by_uid.get(uid) or by_uid.get("")
        if named is None:
            reason = "the answer does not mention it"
            results.append(Result(found.path, found.size, Status.REFUSED, reason, uid))
        elif len({item.failure for item in named}) > 1 and named[0].uid:
            results.append(found)  # two files of one UID with different fates
        else:
            results.append(_result(found, named.pop() if len(named) > 1 else named[0]))
    return results


def _result(found: Found, item: answer.Item) -> Result:
    if item.failure is not None:
        return Result(found.path, found.size, Status.REFUSED, answer.failure_text(item.failure), item.comment)
    if item.duplicate:
        return Result(found.path, found.size, Status.DUPLICATE)
    warnings = (item.comment or f"Warning Reason {item.warning:04X}H",) if item.warning is not None else ()
    return Result(found.path, found.size, Status.STORED, warnings=warnings)


def _sop_instance_uid(found: Found) -> str:
    """(0008,0018) of a file, "" when it has none or cannot be read."""
    try:
        scanned = part10.scan(found.content if found.content is not None else found.path.read_bytes())
        value = msgspec.json.decode(scanned.json).get("00080018", {}).get("Value", [""])[0]
    except (OSError, PacsError, msgspec.DecodeError):
        return ""
    return str(value)
