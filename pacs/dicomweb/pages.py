"""The built-in page: a few static files, read once, that ask for nothing but this server."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from typing import Final

from pacs.dicomweb.answer import Answer, Headers
from pacs.errors import MethodError, UnknownResourceError

_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS: Final[Headers] = (
    ("Cache-Control", "no-cache"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
)


def page(method: str, path: str, viewer: str = "") -> Answer:
    """A file of the page, which links studies to the path `viewer`. Raises UnknownResourceError, MethodError."""
    if path not in _FILES:
        raise UnknownResourceError("there is nothing at this path")
    if method not in ("GET", "HEAD"):
        raise MethodError(f"{method[:20]} is not known here", ("GET", "HEAD"))
    return _answer(path, viewer)


@lru_cache
def _answer(path: str, viewer: str) -> Answer:
    name, content_type = _FILES[path]
    body = (resources.files("pacs.dicomweb") / "page" / name).read_bytes()
    if viewer and path == "/":
        body = body.replace(b"<html ", b'<html data-viewer="%s" ' % viewer.encode(), 1)
    etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    return Answer(200, content_type, body, _HEADERS, etag)
