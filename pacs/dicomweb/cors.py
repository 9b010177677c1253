"""Cross-origin headers: which pages may read from here (Fetch standard 3.2, 3.7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_EXPOSED: Final = (
    "Content-Length, Content-Range, Content-Type, Content-Location, Content-Encoding, Accept-Ranges, ETag, "
    "Last-Modified, Location, Warning, Retry-After, X-Total-Count, Series-State, Series-Frames, Series-Receiving"
)
_ALWAYS: Final = b"Cross-Origin-Resource-Policy: cross-origin\r\nX-Content-Type-Options: nosniff\r\n"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._~:\[\]-]+", re.IGNORECASE)
_REMEMBERED: Final = 1000
_PREFLIGHT_SECONDS: Final = 86_400


class CorsPolicy:
    """The allow list of origins. In an entry `*` stands for any text; the entry `*` allows every origin."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._patterns = [
            re.compile(".*".join(re.escape(part) for part in entry.rstrip("/").split("*")), re.IGNORECASE)
            for entry in allowed
        ]
        self._lines: dict[str, bytes] = {}
        # Cookies are never offered to every page of the web.
        self._credentials = b"" if "*" in allowed else b"Access-Control-Allow-Credentials: true\r\n"

    def allows(self, origin: str) -> bool:
        return bool(_ORIGIN.fullmatch(origin)) and any(pattern.fullmatch(origin) for pattern in self._patterns)

    def lines(self, origin: str | None) -> bytes:
        """Header lines for an answer to a request from `origin`."""
        if origin is None:
            return _ALWAYS
        known = self._lines.get(origin)
        if known is None:
            known = _ALWAYS
            if self.allows(origin):
                known += (
                    f"Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: {_EXPOSED}\r\n"
                ).encode() + self._credentials
            if len(self._lines) >= _REMEMBERED:
                self._lines.clear()
            self._lines[origin] = known
        return known

    def preflight(self, origin: str | None, wanted_headers: str, methods: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Headers for the answer to a preflight, () for an origin that is not allowed."""
        if origin is None or not self.allows(origin):
            return ()
        headers = wanted_headers if re.fullmatch(r"[A-Za-z0-9_, -]{1,2000}", wanted_headers) else "Accept, Content-Type"
        return (
            ("Access-Control-Allow-Methods", ", ".join(methods)),
            ("Access-Control-Allow-Headers", headers),
            ("Access-Control-Max-Age", str(_PREFLIGHT_SECONDS)),
        )
