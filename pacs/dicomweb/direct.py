"""A stored frame for a request that asks for nothing else: answered as it arrives, without a request object or a task.

Readers of a series send hundreds of requests that differ in their path alone. aiohttp and the general handler take
more time for each than reading, verifying and sending the frame does. What is the same in all answers is remembered
here, by the header fields as they are spelled and by the form of the frame; of frames nothing is, since a reader asks
for each once. Whatever is out of the ordinary (conditions,
ranges, a query, other methods, proxies, errors, a frame that is not in the page cache) is left to them, so all answers
are theirs: tests compare the bytes.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Final, NamedTuple

from aiohttp import web

from pacs import reading
from pacs.dicomweb import heads, multipart, negotiation, urls, wado
from pacs.dicomweb.answer import SLICE
from pacs.dicomweb.cors import CorsPolicy
from pacs.dicomweb.service import Service
from pacs.dicomweb.wado import Plan
from pacs.errors import PacsError
from pacs.reading import Frame
from pacs.storage.model import ChunkLocation, Form

_PATH: Final = re.compile(
    rb"GET /dicomweb/studies/([0-9.]{1,64})/series/([0-9.]{1,64})/instances/([0-9.]{1,64})/frames/([0-9]{1,9})"
    rb" HTTP/1\.1\r\n"
)
_FIELD: Final = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([\x20-\x7e]*)")
_PLAIN: Final = frozenset((
    b"host", b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control", b"connection",
    b"cookie", b"dnt", b"origin", b"pragma", b"priority", b"referer", b"user-agent",
))  # fmt: skip
"""Fields that a request for a frame may have without being out of the ordinary; and those of `sec-`."""
_FRAMING: Final = frozenset((
    b"content-length", b"expect", b"http2-settings", b"te", b"trailer", b"transfer-encoding", b"upgrade",
))  # fmt: skip
"""Fields that have bytes follow the header that belong to the request, or to no request."""
_LONGEST: Final = 4096
"""Bytes of fields; aiohttp counts and refuses longer ones."""
_MOST_FORMS: Final = 256
"""Answers of different kinds that are remembered."""
_ROUTE: Final = "/dicomweb/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"


class Asked(NamedTuple):
    """What the fields of a request say."""

    plain: bool
    """Whether there is nothing in them that this module does not know."""
    accept: str = ""
    common: bytes = b""
    """Header lines of every answer to such a request."""


class Around(NamedTuple):
    """What stands around the frames of a form in the answers to requests of a kind: bytes with places to fill in."""

    before: bytes
    """Places for the date, the boundary, the entity tag, the length and the boundary again; none for a boundary where
    the frame is no part."""
    after: bytes
    """Place for the boundary."""
    mark: str
    """Of the entity tag."""
    length: int
    """Bytes of the entity beside the frame."""
    part: bool

    @classmethod
    def of(cls, chosen: Plan, common: bytes) -> Around:
        """From the same lines as the general handler writes. Nothing in them has zeros, which mark the places."""
        boundary = "\0" * 32
        content_type, etag, before, after = wado.wrapped(chosen, "\0", boundary)
        head = heads.entity_head("\0", content_type, etag, wado.VARY, wado.KEEP, "\0", common)
        return cls(_places(head + before), _places(after), chosen.mark, len(before) + len(after), chosen.multipart)

    def filled(self, chunk: ChunkLocation) -> tuple[bytes, bytes, int]:
        """What precedes the stored bytes of a frame, what follows them, and the length of the entity."""
        etag = f'"{reading.validator(chunk)}-{self.mark}"'
        length = self.length + chunk.length
        if not self.part:
            return self.before % (heads.today(), etag.encode(), b"%d" % length), b"", length
        boundary = multipart.boundary(etag).encode()
        before = self.before % (heads.today(), boundary, etag.encode(), b"%d" % length, boundary)
        return before, self.after % boundary, length


def _places(text: bytes) -> bytes:
    """`text` as a format: with places where it has zeros."""
    return re.sub(b"\0+", b"%b", text.replace(b"%", b"%%"))


class Direct:
    """Answers for one worker."""

    def __init__(self, service: Service, cors: CorsPolicy, write_buffer: int) -> None:
        self._service = service
        self._cors = cors
        self._most = write_buffer + SLICE
        self._in_use = not service.settings.trusted_proxies
        self._find = service.archive.find_chunk
        self._read_now = service.archive.read_chunk_cached
        self._fields = lru_cache(maxsize=1024)(self._read)
        self._around: dict[tuple[str, bytes, Form], Around | None] = {}
        self.open = True
        """Set to False when the server ends."""

    def asked(self, data: bytes) -> Asked | None:
        """The fields of `data` when it is one whole request without a body, else None."""
        end = data.find(b"\r\n")
        if end < 0 or data[:4] != b"GET " or data[end - 9 : end] != b" HTTP/1.1" or len(data) - end > _LONGEST:
            return None
        return self._fields(data[end:])

    def _read(self, block: bytes) -> Asked | None:
        if block[-4:] != b"\r\n\r\n" or block.find(b"\r\n\r\n") != len(block) - 4:
            return None
        fields: dict[bytes, bytes] = {}
        plain = self._in_use
        for line in block[2:-4].split(b"\r\n"):
            field = _FIELD.fullmatch(line)
            if field is None:
                return None
            name = field[1].lower()
            if name in _FRAMING or (name == b"connection" and field[2].strip().lower() != b"keep-alive"):
                return None
            plain = plain and name not in fields and (name in _PLAIN or name.startswith(b"sec-"))
            fields[name] = field[2].strip()
        host = fields.get(b"host", b"").decode()
        if not plain or not host or not urls.name_is_ours(host, self._service.settings):
            return Asked(False)
        accept = fields.get(b"accept", b"").decode()
        try:
            negotiation.choices(accept)
        except PacsError:
            return Asked(False)
        origin = fields.get(b"origin")
        return Asked(True, accept, self._cors.lines(None if origin is None else origin.decode()))

    def answer(self, connection: web.RequestHandler, data: bytes, asked: Asked) -> bool:
        """Send the frame that `data`, read as `asked`, is a request for. False: nothing was sent, others have to."""
        path = _PATH.match(data)
        transport = connection.transport
        if path is None or transport is None or not self.open or transport.get_write_buffer_size():
            return False
        started = time.perf_counter()
        service = self._service
        study, series, instance, number = path[1].decode(), path[2].decode(), path[3].decode(), int(path[4])
        try:
            found = self._find(study, series, instance, number)
            if found is None:
                return False
            form, chunk = found
            key = asked.accept, asked.common, form
            if key not in self._around:
                self._remember(key, service.archive.located(study, series, instance, number))
            around = self._around[key]
            stored = self._read_now(chunk) if around is not None and chunk.length <= self._most else None
        except Exception:  # noqa: BLE001 - the general handler meets it again, and tells of it
            return False
        if around is None or stored is None:
            return False
        service.frames_at_once += 1
        before, after, length = around.filled(chunk)
        first = time.perf_counter()
        transport.writelines((before, stored, after) if after else (before, stored))
        service.observer.answered(connection, _ROUTE, (started, first), length)
        return True

    def _remember(self, key: tuple[str, bytes, Form], frame: Frame) -> None:
        """What stands around all frames of a form, or that they have to be made, as one of them tells. Raises
        PacsError."""
        accept, common, _ = key
        chosen = wado.as_stored(self._service, frame, negotiation.choices(accept))
        if len(self._around) >= _MOST_FORMS:
            self._around.clear()
        self._around[key] = None if chosen is None else Around.of(chosen, common)
