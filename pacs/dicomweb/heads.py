"""The head of a response, as bytes.

It is written here rather than by `aiohttp.web.Response`: a frame request has a quarter of a millisecond in all, and a
dozen fixed headers put into a multidict one by one would be a good part of it.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp.web import BaseRequest

from pacs.dicomweb.answer import Answer, Headers
from pacs.errors import InternalError

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\nDate: ".encode() for status in HTTPStatus
}


def header_lines(answer: Answer, headers: Headers, typed: bool = False) -> bytes:
    """What an answer says of itself, a line a header. `typed`: of its body, too."""
    text = f"Content-Type: {answer.content_type}\r\n" if typed and answer.content_type else ""
    if answer.etag:
        text += f"ETag: {answer.etag}\r\n"
    text += f"Vary: {answer.vary}, Origin\r\n" if answer.vary else "Vary: Origin\r\n"
    for name, value in headers:
        if "\r" in value or "\n" in value:
            raise InternalError(f"a line break in the value of {name}")
        text += f"{name}: {value}\r\n"
    return text.encode("latin-1", "replace")


_date: tuple[int, bytes] = (0, b"")


def today() -> bytes:
    """For the header Date. RFC 9110 6.6.1"""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True).encode())
    return _date[1]


def entity_head(
    date: str, content_type: str, etag: str, vary: str, headers: Headers, length: str, common: bytes
) -> bytes:
    """The head of an entity that is sent whole to a GET of HTTP/1.1; `headers` have no line breaks."""
    text = f"Content-Type: {content_type}\r\nETag: {etag}\r\nVary: {vary}, Origin\r\n"
    for name, value in headers:
        text += f"{name}: {value}\r\n"
    text += f"Accept-Ranges: bytes\r\nContent-Length: {length}\r\n"
    return b"".join((_STATUS_LINES[200], date.encode(), b"\r\n", text.encode("latin-1"), common, b"\r\n"))


def whole_head(request: BaseRequest, status: int, lines: bytes, common: bytes, keep_alive: bool) -> bytes:
    """Status line, Date, Connection where it has to be told, and the given lines."""
    if not keep_alive:
        connection = b"\r\nConnection: close\r\n"
    elif request.version < (1, 1):
        connection = b"\r\nConnection: keep-alive\r\n"
    else:
        connection = b"\r\n"
    return b"".join((_STATUS_LINES[status], today(), connection, lines, common, b"\r\n"))
