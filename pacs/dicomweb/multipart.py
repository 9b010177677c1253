"""`multipart/related`: a parser fed from the socket, a writer whose entities repeat byte for byte (RFC 2046 5.1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from pacs.errors import MediaTypeError, PartError, RequestError

MAX_HEADER: Final = 16 << 10
"""Bytes of the header block of one part."""
_SHORT_HEADER: Final = 512
_MAX_BOUNDARY: Final = 256
"""RFC 2046 5.1.1 allows 70, but Orthanc joins two UUIDs to 73."""
_MAX_PADDING: Final = 256
"""Blanks between a boundary and the end of its line."""

_PARAMETER = re.compile(r';\s*([^\s;="]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)')
_DELIMITER_END = re.compile(rb"(--)|[ \t]*\r\n")


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartStart:
    """The header block of a part was read; its data follows. `error`: it could not be, its data means nothing."""

    headers: Mapping[str, str]
    error: PartError | None = None


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is over. `error`: the body ended inside it."""

    error: PartError | None = None


Event: TypeAlias = PartStart | bytes | PartEnd


@lru_cache(maxsize=64)
def boundary_of(content_type: str) -> tuple[str, bytes]:
    """(`type` parameter in lower case, boundary) of a `multipart/related` Content-Type. RFC 2387, RFC 2046 5.1.1

    Raises MediaTypeError for another media type, RequestError without a usable boundary.
    """
    head, _, _ = content_type.partition(";")
    if head.strip().lower() != "multipart/related":
        sent = head.strip()[:80] or "(none)"
        raise MediaTypeError(
            f"a body of type {sent} is not read here, send multipart/related, or one instance as application/dicom"
        )
    parameters: dict[str, str] = {}
    for match in _PARAMETER.finditer(content_type[:4096]):
        value = match[2].strip()
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        parameters.setdefault(match[1].lower(), value)
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise RequestError("Content-Type names no boundary")
    if len(boundary) > _MAX_BOUNDARY:
        raise RequestError(f"the boundary has {len(boundary)} characters, {_MAX_BOUNDARY} are taken")
    if not boundary.isascii() or not boundary.isprintable() or boundary.endswith(" "):
        raise RequestError("the boundary has characters that are not allowed in one")
    return parameters.get("type", "").strip().lower(), boundary.encode()


class Parser:
    """Turns the chunks of a body into events, holding back no more than a delimiter or a header block of it.

    Everything before the first delimiter and after the last is passed over. A delimiter is a boundary at the
    beginning of a line that is followed by `--` or by the end of the line: anything else is data, so that binary
    data needs no luck.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # A body may begin with its first delimiter: as if an empty preamble line preceded it.
        self._held = b"\r\n"
        self._in_part = False
        self._in_header = False
        self._skip = False
        self._finished = False
        self._dropped = 0
        """Bytes of the header's last line break, still to be passed over: an empty part's delimiter begins there."""
        self._pattern: re.Pattern[bytes] | None = None
        self.parts = 0
        """Parts begun."""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that `chunk` completes. Data comes in pieces of any size, not of length 0."""
        if self._finished:
            return
        data = self._held + chunk if self._held else chunk
        self._held = b""
        yield from self._events(data, data)

    def feed_whole(self, body: bytearray) -> Iterator[Event | memoryview]:
        """The same for all of a body, or all that came of it, behind a line break. Data comes as views of it."""
        self._held = b""
        yield from self._events(body, memoryview(body).toreadonly())

    def _events(self, data: bytes | bytearray, source: bytes | memoryview) -> Iterator[Any]:
        """`source` is what data is cut from."""
        position = 0
        while not self._finished:
            if self._in_header:
                after, events = self._header(data, position)
                yield from events
                if after < 0:
                    self._held = bytes(data[position:])
                    return
                position = after
                continue
            start, end, closing = self._find(data, position)
            if start > position:
                begin = position + self._dropped
                self._dropped = 0
                if self._in_part and not self._skip and start > begin:
                    yield source[begin:start]
            if end < 0:
                self._held = bytes(data[start:])
                return
            if self._in_part:
                self._in_part = False
                yield PartEnd()
            self._dropped = 0
            self._finished = closing
            # The line break of the delimiter stays: a part without a header block has one empty line only.
            self._in_header = not closing
            position = end - 2

    def close(self) -> Iterator[Event]:
        """To be called at the end of the body: a part that is still open was cut off."""
        if self._in_header:
            self.parts += 1
            yield PartStart({}, PartError("the body ends inside the header of this part"))
            yield PartEnd()
        elif self._in_part:
            yield PartEnd(PartError("the body ends inside this part"))
        self._in_header = self._in_part = False
        self._finished = True

    def _find(self, data: bytes | bytearray, position: int) -> tuple[int, int, bool]:
        """(start, end, closing) of the next delimiter; end -1: none is whole, `data` from start on may become one."""
        delimiter = self._delimiter
        while True:
            start = data.find(delimiter, position)
            if start < 0:
                return self._partial(data, position), -1, False
            after = start + len(delimiter)
            line_end = _DELIMITER_END.match(data, after, after + _MAX_PADDING)
            if line_end is not None:
                return start, line_end.end(), line_end[1] is not None
            rest = data[after : after + _MAX_PADDING]
            if len(rest) < _MAX_PADDING and (rest == b"-" or rest.removesuffix(b"\r").strip(b" \t") == b""):
                return start, -1, False
            # It only begins like one. The next may be millions of such away: not one by one.
            found = self._whole().search(data, start + 1)
            if found is None:
                return self._partial(data, start + 1), -1, False
            position = found.start()

    def _whole(self) -> re.Pattern[bytes]:
        """Delimiters to their end, or that of what has come. Slower than `find` where the boundary is not."""
        if self._pattern is None:
            end = rb"(?:--|[ \t]{0,%d}(?:\r\n|\r?\Z)|-\Z)" % _MAX_PADDING
            self._pattern = re.compile(re.escape(self._delimiter) + end)
        return self._pattern

    def _partial(self, data: bytes | bytearray, position: int) -> int:
        """Where a delimiter may begin whose rest is in the next chunk; the end of `data` if nowhere."""
        delimiter = self._delimiter
        start = data.find(b"\r", max(position, len(data) - len(delimiter) + 1))
        while start >= 0:
            if delimiter.startswith(data[start:]):
                return start
            start = data.find(b"\r", start + 1)
        return len(data)

    def _header(self, data: bytes | bytearray, position: int) -> tuple[int, list[Event]]:
        """(position after the header block that begins at `position`, events); -1 while it is incomplete."""
        # A little at first: what looks like thousands of parts must not be searched to the limit for each.
        for most in (_SHORT_HEADER, MAX_HEADER):
            blank = data.find(b"\r\n\r\n", position, position + most)
            window = data[position : blank + 2 if blank >= 0 else position + most]
            start, end, _ = self._find(window, 0)
            if end >= 0:
                return position + start, self._begin({}, PartError("this part has no empty line after its header"))
            if blank >= 0:
                self._dropped = 2
                return blank + 2, self._begin(_fields(window), None)
            if len(window) < most:
                return -1, []
        return position, self._begin({}, PartError(f"the header of this part is longer than {MAX_HEADER} bytes"))

    def _begin(self, headers: Mapping[str, str], error: PartError | None) -> list[Event]:
        self._in_header = False
        self._in_part = True
        self._skip = error is not None
        self.parts += 1
        return [PartStart(headers, error)]


class Single:
    """A body that is one part, without boundaries; in all else as `Parser`. PS3.18 8.6.1.1

    Nothing in it shows where it ends: whoever reads the body must not `close` it unless all of it came.
    """

    def __init__(self, content_type: str) -> None:
        self._headers = {"content-type": content_type}
        self.parts = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        if chunk:
            yield from self._begin()
            yield chunk

    def feed_whole(self, body: bytearray) -> Iterator[Event | memoryview]:
        """`body` is behind a line break, as for `Parser`."""
        if len(body) > 2:
            yield from self._begin()
            yield memoryview(body).toreadonly()[2:]

    def close(self) -> Iterator[Event]:
        if self.parts:
            yield PartEnd()

    def _begin(self) -> list[Event]:
        if self.parts:
            return []
        self.parts = 1
        return [PartStart(self._headers)]


def _fields(block: bytes | bytearray) -> dict[str, str]:
    """Header fields by lower-case name; the first of equal ones counts, lines that are none are passed over.

    A line that begins with a blank continues the one before. RFC 5322 2.2.3
    """
    fields: dict[str, str] = {}
    text = block.decode("latin-1")
    if "\r\n " in text or "\r\n\t" in text:
        text = re.sub(r"\r\n[ \t]+", " ", text)
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return fields


# --- writing ------------------------------------------------------------------------------------------------------


_BOUNDARY: Final = hashlib.blake2b(digest_size=16, person=b"multipart")


def boundary(entity: str) -> str:
    """A boundary that is the same whenever the entity (named by its validator) is the same.

    Range requests are cut from the whole multipart body, so it must not change between two of them.
    """
    digest = _BOUNDARY.copy()
    digest.update(entity.encode())
    return digest.hexdigest()


def part_head(boundary: str, content_type: str, fields: tuple[tuple[str, str], ...] = (), *, first: bool) -> bytes:
    """What precedes the bytes of a part. Viewers take the first line as the boundary: nothing may precede it."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (("Content-Type", content_type), *fields))
    return f"{'' if first else chr(13) + chr(10)}--{boundary}\r\n{lines}\r\n".encode()


def closing(boundary: str) -> bytes:
    """What follows the last part."""
    return f"\r\n--{boundary}--\r\n".encode()
