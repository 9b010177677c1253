"""Content codings of uploads, taken off piece by piece. RFC 9110 8.4.1

aiohttp would do it, but inflates without a pause as long as somebody reads, be it only to pass a body over, and does
not tell of a body that ends within its coding.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from pacs.errors import MediaTypeError, RequestError

CODINGS: Final = {"identity": "", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_PIECE: Final = 256 << 10
"""Bytes that are made at a time, of however few."""
_TAKEN: Final = 16 << 10
"""Bytes read at a time: what is behind a member is copied, and one may be as short as 20 bytes."""
_GZIP: Final = 31
_ZLIB: Final = 15
_RAW: Final = -15


def of(content_encoding: str) -> Inflater | None:
    """What reads a body in this coding; None for one that is in none. Raises MediaTypeError."""
    coding = CODINGS.get(content_encoding.strip().lower())
    if coding is None:
        raise MediaTypeError(f"Content-Encoding {content_encoding[:40]!r} is not read here, send gzip, deflate or none")
    return Inflater(coding) if coding else None


class Inflater:
    """Reads gzip (of one member or several) or deflate, with the header of zlib or, as some send it, without."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inflate: zlib._Decompress | None = None
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What `chunk` holds, a piece at a time, some of them empty: each is made without a pause. Raises
        RequestError."""
        for start in range(0, len(chunk), _TAKEN):
            data, full = chunk[start : start + _TAKEN], False
            while data or full:
                inflate = self._inflate
                if inflate is None:
                    data = data.lstrip(b"\0") if self._begun else data  # padding behind a member
                    if not data:
                        break
                    inflate = self._inflate = zlib.decompressobj(self._window(data[0]))
                    self._begun = True
                try:
                    piece = inflate.decompress(data, _PIECE)
                except zlib.error:
                    raise self._wrong() from None
                if inflate.eof:
                    self._inflate, data, full = None, inflate.unused_data, False
                else:
                    # Behind a full piece there may be more when all of the input was taken.
                    data, full = inflate.unconsumed_tail, len(piece) == _PIECE
                yield piece

    def close(self) -> None:
        """To be called at the end of the body. Raises RequestError for one that was cut off."""
        if self._inflate is not None:
            raise self._wrong()

    def _window(self, first: int) -> int:
        if self._coding == "gzip":
            return _GZIP
        return _ZLIB if first & 15 == 8 else _RAW  # RFC 1950 2.2: compression method 8

    def _wrong(self) -> RequestError:
        return RequestError(
            f"the body could not be read: it is not {self._coding}, as Content-Encoding says, or not all of it"
        )
