"""The built-in page: static files, read once, that ask for nothing but this server."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Final, NamedTuple

from aiohttp.web import BaseRequest

from pacs.dicomweb import negotiation
from pacs.dicomweb.answer import Answer, Headers
from pacs.errors import MethodError, UnknownResourceError

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_SHELL: Final = "/"
_FOLDER: Final = "/page/"
"""Of the addresses in the shell. They are sent with a digest in them: see `_files`."""
_HEADERS: Final[Headers] = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
)
_CHECKED: Final[Headers] = (("Cache-Control", "no-cache"), *_HEADERS)
_LASTING: Final[Headers] = (("Cache-Control", "public, max-age=31536000, immutable"), *_HEADERS)


class _File(NamedTuple):
    content_type: str
    body: bytes
    compressed: bytes
    etag: str


def page(request: BaseRequest, path: str, viewer: str = "") -> Answer:
    """A file of the page, which links studies to the path `viewer`. Raises UnknownResourceError, MethodError."""
    file = _files(viewer).get(path)
    if file is None:
        raise UnknownResourceError("there is nothing at this path")
    if request.method not in ("GET", "HEAD"):
        raise MethodError(f"{request.method[:20]} is not known here", ("GET", "HEAD"))
    headers = _CHECKED if path == _SHELL else _LASTING
    if negotiation.content_coding(request.headers.get("Accept-Encoding", "").replace("zstd", "")) == "gzip":
        headers = (*headers, ("Content-Encoding", "gzip"))
        return Answer(200, file.content_type, file.compressed, headers, f'"{file.etag}-g"', "Accept-Encoding")
    return Answer(200, file.content_type, file.body, headers, f'"{file.etag}"', "Accept-Encoding")


@lru_cache
def _files(viewer: str) -> Mapping[str, _File]:
    """The files by path. All but the shell have a digest of all of them in their path, and never change: a browser that
    was here before asks for the shell alone. The shell names every module, so that they come at once, and not one after
    the other as they import each other."""
    folder = sorted((resources.files("pacs.dicomweb") / "page").iterdir(), key=lambda file: file.name)
    parts = {file.name: file.read_bytes() for file in folder if file.name.rpartition(".")[2] in _TYPES}
    shell = parts.pop("index.html").decode()
    digest = hashlib.blake2b(digest_size=8)
    for name, body in parts.items():
        digest.update(f"{name} {len(body)}\n".encode() + body)
    place = f"{_FOLDER}{digest.hexdigest()}/"
    modules = "".join(f'<link rel="modulepreload" href="{_FOLDER}{name}">\n' for name in parts if name.endswith(".js"))
    shell = shell.replace("</head>", modules + "</head>", 1).replace(f'"{_FOLDER}', f'"{place}')
    if viewer:
        shell = shell.replace("<html ", f'<html data-viewer="{viewer}" ', 1)
    files = {place + name: _file(name, body) for name, body in parts.items()}
    return {_SHELL: _file("index.html", shell.encode()), **files}


def _file(name: str, body: bytes) -> _File:
    etag = hashlib.blake2b(body, digest_size=12).hexdigest()
    return _File(_TYPES[name.rpartition(".")[2]], body, gzip.compress(body, 9, mtime=0), etag)
