"""The body of an answer, continued where a connection broke (RFC 9110 13, 14)."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import NamedTuple, Self

import zstandard

from pacs.client.patience import Attempts, retry_after
from pacs.client.transport import Exchange, FailedError, Transport
from pacs.errors import AnswerError, RemoteChangedError, RemoteError, UnreachableError

LARGEST_DOCUMENT = 1 << 30
"""Bytes of JSON, unpacked, that are taken from a server."""
_FREELY_UNPACKED, _MOST_EXPANSION = 16 << 20, 1000
"""More bytes than the first must have been compressed by less than the second: metadata of a thousand slices reach 100,
and 24 kB may stand for hundreds of megabytes of `{},`, each a dictionary of Python's."""
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.ASCII)


class CutError(UnreachableError):
    """The connection broke, and the server offers no way to go on from there."""


class Body:
    """Bytes `start` to `stop` of what a URL answers, over as many connections as it takes.

    Every byte is delivered once. A connection that breaks or stalls is replaced, and the rest is asked for by `Range`
    with `If-Range`, so that bytes of two different entities never meet: then RemoteChangedError. Without a strong
    validator a broken body ends in CutError.
    """

    def __init__(
        self, transport: Transport, url: str, headers: Mapping[str, str], *, start: int = 0, stop: int | None = None,
        etag: str = "", attempts: Attempts | None = None,
    ) -> None:  # fmt: skip
        """`etag`: that of the entity whose first `start` bytes are here already."""
        self.url = url
        self.position = start
        """Of the next byte, in the entity."""
        self.etag = etag
        """With its quotes; "" while no strong one is known."""
        self.length: int | None = None
        """Of the whole entity."""
        self.status = 0
        self.headers: Mapping[str, str] = {}
        """Of the first answer."""
        self.delimited = True
        """Whether the end of the body is marked, rather than just the end of the connection."""
        self._transport = transport
        self._sent_headers = {"Accept-Encoding": "identity", **headers}
        self._start = start
        self._stop = stop
        self._attempts = attempts if attempts is not None else Attempts(transport.patience)
        self._exchange: Exchange | None = None
        self._until: int | None = None
        """Where this answer ends."""
        self._ranges = False
        self._skip = 0
        """Bytes still to be passed over."""

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "")

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises what the class says, and UnreachableError."""
        while not self._at_end():
            if self._exchange is None:
                await self._open()
                continue
            try:
                chunk = await self._exchange.read()
            except FailedError as failed:
                await self._broke(failed)
                continue
            if not chunk:
                if self._until is not None and self.position < self._until:
                    await self._broke(FailedError(UnreachableError(self.url, "the answer ended early")))
                    continue
                await self._close()
                if self._until is None or self._stop is None or self._until >= self._stop:
                    self._until = self.position
                    self._stop = self.position
                    return b""
                continue  # a part of the range that was asked for: go on with the rest
            if self._skip:
                passed = min(self._skip, len(chunk))
                self._skip -= passed
                chunk = chunk[passed:]
            if self._stop is not None:
                chunk = chunk[: self._stop - self.position]
            self.position += len(chunk)
            self._attempts.progress(self.position)
            if chunk:
                return chunk
        return b""

    def _at_end(self) -> bool:
        end = self._stop if self._stop is not None else self.length
        return end is not None and self.position >= end and self.status != 0

    async def _broke(self, failed: FailedError) -> None:
        await self._close(distrusted=True)
        self._skip = 0
        if failed.hopeless:
            raise failed.error
        if self.position > self._start and not (self.etag and self._ranges):
            raise CutError(self.url, failed.error.message.removeprefix(f"{self.url}: "))
        await self._attempts.wait(failed.error)

    async def _close(self, *, distrusted: bool = False) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close(distrusted=distrusted)

    async def _open(self) -> None:
        while True:
            try:
                exchange = await self._transport.send(self.url, self._range_headers())
            except FailedError as failed:
                if failed.hopeless:
                    raise failed.error from None
                await self._attempts.wait(failed.error, retry_after(failed.retry_after))
                continue
            self._exchange = exchange
            try:
                self._begin(exchange)
            except BaseException:
                await self._close()
                raise
            return

    def _range_headers(self) -> dict[str, str]:
        headers = dict(self._sent_headers)
        if self.position or self._stop is not None:
            headers["Range"] = f"bytes={self.position}-{'' if self._stop is None else self._stop - 1}"
            if self.etag:
                headers["If-Range"] = self.etag
        return headers

    def _begin(self, exchange: Exchange) -> None:
        """Take the head of an answer: where it stands in the entity, and that it is the same entity."""
        response = exchange.response
        if self.status == 0:
            self.headers = response.headers
        etag = response.headers.get("ETag", "")
        etag = "" if etag.startswith("W/") else etag
        if self.etag and etag != self.etag and response.status != 416:
            raise RemoteChangedError(self.url)
        delivered = self.position > self._start
        self.etag = self.etag or etag
        self._ranges = response.status == 206 or response.headers.get("Accept-Ranges", "").strip().lower() == "bytes"
        self.status = response.status
        if response.status in (206, 416):
            self._in_range(response.status, response.headers.get("Content-Range", ""))
            return
        if delivered and not self.etag:
            raise RemoteChangedError(self.url)
        self._skip = self.position
        stated = response.headers.get("Content-Length", "")
        length = int(stated) if stated.isascii() and stated.isdigit() else None
        if self.length is not None and length != self.length:
            raise RemoteChangedError(self.url)
        self.length = self._until = length
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        self.delimited = length is not None or chunked or response.status == 204
        if length is not None and self.position > length:
            raise AnswerError(self.url, f"it has {length} bytes where {self.position} were here before")
        if self._stop is not None and length is not None:
            self._stop = min(self._stop, length)

    def _in_range(self, status: int, content_range: str) -> None:
        found = _CONTENT_RANGE.fullmatch(content_range.strip())
        total = int(found[3]) if found is not None and found[3] != "*" else None
        if total is None or (self.length is not None and total != self.length):
            if total is None:
                raise AnswerError(self.url, f"Content-Range {content_range[:80]!r} in an answer of {status}")
            raise RemoteChangedError(self.url)
        self.length = total
        if status == 416:
            if self.position != total:
                raise RemoteError(self.url, 416, f"bytes from {self.position} on of {total}")
            self._stop = self._until = total
            return
        assert found is not None
        if found[1] is None or int(found[1]) != self.position or not int(found[1]) <= int(found[2]) < total:
            raise AnswerError(self.url, f"{content_range!r} where bytes from {self.position} on were asked for")
        self._until = int(found[2]) + 1
        self._stop = total if self._stop is None else min(self._stop, total)


class Document(NamedTuple):
    """A whole body."""

    status: int
    headers: Mapping[str, str]
    data: bytes


async def read(
    transport: Transport, url: str, accept: str, *, most: int = LARGEST_DOCUMENT, packed: bool = True
) -> Document:
    """Everything a URL answers, unpacked; `packed`: whether a content coding is welcome.

    Raises RemoteError, UnreachableError, AnswerError, the last too for more than `most` bytes.
    """
    attempts = Attempts(transport.patience)
    headers = {"Accept": accept, "Accept-Encoding": "zstd, gzip" if packed else "identity"}
    while True:
        data = bytearray()
        try:
            async with Body(transport, url, headers, attempts=attempts) as body:
                async for chunk in body:
                    data += chunk
                    if len(data) > most:
                        raise AnswerError(url, f"more than {most} bytes")
            coding = body.headers.get("Content-Encoding", "")
            largest = min(most, max(_FREELY_UNPACKED, len(data) * _MOST_EXPANSION))
            return Document(body.status, body.headers, unpack(url, bytes(data), coding, largest))
        except (CutError, RemoteChangedError) as error:
            await attempts.wait(error)


def unpack(url: str, data: bytes, coding: str, most: int) -> bytes:
    """`data` without its content coding. Raises AnswerError for a coding that was not asked for, and damage."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return data
    try:
        if coding == "zstd":
            unpacked = _zstd(data, most)
            if unpacked is None:
                raise AnswerError(url, "its zstd coding ends early")
        elif coding in ("gzip", "x-gzip"):
            inflater = zlib.decompressobj(31)
            unpacked = inflater.decompress(data, most + 1)
            if not inflater.eof and len(unpacked) <= most:
                raise AnswerError(url, "its gzip coding ends early")
        else:
            raise AnswerError(url, f"a content coding that was not asked for: {coding[:40]}")
    except (zstandard.ZstdError, zlib.error, MemoryError) as error:
        raise AnswerError(url, f"its {coding} coding cannot be undone: {error}") from None
    if len(unpacked) > most:
        raise AnswerError(url, f"more than {most} bytes")
    return unpacked


def _zstd(data: bytes, most: int) -> bytes | None:
    """One zstd frame unpacked, a little more than `most` bytes of it at most; None when it is cut off. RFC 8878"""
    unpacker = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()
    unpacked = bytearray()
    # A block of three bytes may stand for 128 KiB: small pieces keep a hostile one from filling memory.
    for start in range(0, len(data), 1024):
        unpacked += unpacker.decompress(data[start : start + 1024])
        if unpacker.eof or len(unpacked) > most:
            return bytes(unpacked)
    return None
