"""A stored frame for a request that asks for nothing else: answered as it arrives, without a request object or a task.

Readers of a series send hundreds of requests that differ in their path alone. aiohttp and the general handler take
more time for each than reading, verifying and sending the frame does. Whatever is out of the ordinary (conditions,
ranges, a query, other methods, proxies, errors, a frame that is not in the page cache) is left to them, so all answers
are theirs: tests compare the bytes.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Final, NamedTuple

from aiohttp import web

from pacs.dicomweb import answer, negotiation, urls, wado
from pacs.dicomweb.cors import CorsPolicy
from pacs.dicomweb.negotiation import Choice
from pacs.dicomweb.service import Service
from pacs.errors import PacsError

_PATH: Final = re.compile(
    rb"GET (/dicomweb/studies/([0-9.]{1,64})/series/([0-9.]{1,64})/instances/([0-9.]{1,64})/frames/([0-9]{1,9}))"
    rb" HTTP/1\.1"
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
_TEMPLATE: Final = "/dicomweb/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"


class Asked(NamedTuple):
    """What the fields of a request say."""

    plain: bool
    """Whether there is nothing in them that this module does not know."""
    accept: tuple[Choice, ...] = ()
    common: bytes = b""
    """Header lines of every answer to such a request."""


class Direct:
    """Answers for one worker."""

    def __init__(self, service: Service, cors: CorsPolicy, write_buffer: int) -> None:
        self._service = service
        self._cors = cors
        self._most = write_buffer + answer.SLICE
        self._in_use = not service.settings.trusted_proxies
        self._fields = lru_cache(maxsize=1024)(self._read)
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
        try:
            accept = negotiation.choices(fields.get(b"accept", b"").decode())
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
        study, series, instance, number = path.group(2, 3, 4, 5)
        try:
            frame = service.archive.located(study.decode(), series.decode(), instance.decode(), int(number))
            found = wado.as_stored(service, frame, asked.accept)
            stored = service.cached(frame) if found is not None and frame.length <= self._most else None
        except Exception:  # noqa: BLE001 - the general handler meets it again, and tells of it
            return False
        if found is None or stored is None:
            return False
        length = len(found.before) + frame.length + len(found.after)
        head = answer.entity_head(found.content_type, found.etag, wado.VARY, wado.KEEP, length, asked.common)
        first = time.perf_counter()
        transport.write(b"".join((head, found.before, stored, found.after)))
        service.observer.answered(connection, _TEMPLATE, (started, first), length)
        return True
