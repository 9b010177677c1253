"""The parts of a multipart answer, or the one of an answer that is not in parts (RFC 2046 5.1, PS3.18 8.6)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import TypeAlias

from pacs import uids
from pacs.client.body import Body, CutError
from pacs.dicomweb import multipart
from pacs.dicomweb.multipart import PartEnd, PartStart
from pacs.errors import AnswerError, PacsError

Event: TypeAlias = PartStart | bytes | PartEnd

_TRANSFER_SYNTAX = re.compile(r';\s*transfer-syntax\s*=\s*"?\s*([0-9.]+)', re.IGNORECASE | re.ASCII)

_DEFAULT_SYNTAX: Mapping[str, str] = {
    "application/octet-stream": uids.EXPLICIT_VR_LITTLE_ENDIAN,
    "image/jpeg": uids.JPEG_LOSSLESS_SV1,
    "image/dicom-rle": uids.RLE_LOSSLESS,
    "image/x-dicom-rle": uids.RLE_LOSSLESS,
    "image/jls": uids.JPEG_LS_LOSSLESS,
    "image/x-jls": uids.JPEG_LS_LOSSLESS,
    "image/jp2": uids.JPEG_2000_LOSSLESS,
    "image/jphc": uids.HTJ2K_LOSSLESS,
    "image/jxl": uids.JPEG_XL,
}
"""Of a part whose Content-Type names no Transfer Syntax. PS3.18 Table 8.7.3-5"""


async def events(body: Body) -> AsyncIterator[Event]:
    """Heads, data and ends of the parts of `body`, as they arrive. Every part that ends is whole.

    Raises AnswerError for a body that ends inside a part or before the last delimiter, or whose end is not marked.
    """
    if not body.content_type.lower().lstrip().startswith("multipart/"):
        if not body.delimited:
            raise AnswerError(body.url, "the answer does not say where it ends")
        yield PartStart({name.lower(): value for name, value in body.headers.items()})
        async for chunk in body:
            yield chunk
        yield PartEnd()
        return
    try:
        _, boundary = multipart.boundary_of(body.content_type)
    except PacsError as error:
        raise AnswerError(body.url, error.message) from None
    parser = multipart.Parser(boundary)
    async for chunk in body:
        for event in parser.feed(chunk):
            _check(body.url, event)
            yield event
    for event in parser.close():
        if not body.delimited:
            raise CutError(body.url, "the answer ended early")
        _check(body.url, event)
    if not parser.parts and not body.delimited:
        raise CutError(body.url, "the answer ended early")


def _check(url: str, event: Event) -> None:
    if not isinstance(event, bytes) and event.error is not None:
        raise AnswerError(url, event.error.message)


async def whole(body: Body, most: int) -> AsyncIterator[tuple[Mapping[str, str], bytes]]:
    """(headers by lower-case name, data) of each part. AnswerError for one of more than `most` bytes, or of other
    length than its Content-Length says."""
    headers: Mapping[str, str] = {}
    data = bytearray()
    async for event in events(body):
        if isinstance(event, bytes):
            data += event
            if len(data) > most:
                raise AnswerError(body.url, f"a part of more than {most} bytes")
        elif isinstance(event, PartStart):
            headers, data = event.headers, bytearray()
        else:
            stated = headers.get("content-length", "")
            in_parts = body.content_type.lower().lstrip().startswith("multipart/")
            if in_parts and stated.isascii() and stated.isdigit() and int(stated) != len(data):
                raise AnswerError(body.url, f"a part of {len(data)} bytes is said to have {stated}")
            yield headers, bytes(data)


def media_type(content_type: str) -> str:
    """The media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def transfer_syntax(content_type: str) -> str:
    """The Transfer Syntax that a part's Content-Type names, or the default of its media type. PS3.18 8.7.3.3"""
    found = _TRANSFER_SYNTAX.search(content_type)
    if found is not None:
        return found[1]
    return _DEFAULT_SYNTAX.get(media_type(content_type), uids.EXPLICIT_VR_LITTLE_ENDIAN)
