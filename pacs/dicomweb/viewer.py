"""OHIF at `/viewer`: its files as npm has them, byte for byte, and a configuration of ours.

The build expects its files at the server's root (`/app.bundle….js`), so that each is found there too. Only paths that
the listing of the fetched viewer names are ever opened.
"""

from __future__ import annotations

import logging
import os
import re
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Final

from aiohttp.web import BaseRequest

from pacs import viewer
from pacs.dicomweb import negotiation
from pacs.dicomweb.answer import Answer, Entity, Headers, Segment
from pacs.dicomweb.offload import Offload
from pacs.errors import InternalError, MethodError, UnknownResourceError, ViewerError
from pacs.viewer import Viewer, ViewerFile

_log = logging.getLogger("pacs.server")

ROOT: Final = "/viewer"
_CONFIGURATION: Final = "app-config.js"
_SHELL: Final = "index.html"
_PIECE: Final = 256 << 10
"""Bytes of a file that are held at a time for one client."""

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".jsonc": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
_HASHED: Final = re.compile(r"(?:^|\.)[0-9a-f]{16}\.\w+$")
"""Names that carry a digest of their content: another content has another name."""

# Cross-origin isolation gives the page SharedArrayBuffer and exact clocks. HTML 7.8
_ISOLATED: Final[Headers] = (
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
)
_PAGE: Final[Headers] = (
    *_ISOLATED,
    (
        # The viewer compiles WebAssembly, starts workers from blobs and has scripts and styles in its page; it asks
        # nobody else.
        "Content-Security-Policy",
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; "
        "connect-src 'self' blob: data:; worker-src 'self' blob:; frame-src 'self' blob:; object-src 'self' blob:; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    ),
    ("Referrer-Policy", "no-referrer"),
)
_LASTING: Final[Headers] = (("Cache-Control", "public, max-age=31536000, immutable"),)
_CHECKED: Final[Headers] = (("Cache-Control", "no-cache"),)


class ViewerPages:
    """The viewer in a folder, as answers. Without one (`folder` empty, or none there) `/viewer` says how to get it."""

    def __init__(self, folder: str, offload: Offload) -> None:
        self._offload = offload
        self._viewer: Viewer | None = None
        self._missing = "no viewer is served here: run `pacs viewer` once, then `pacs serve --viewer`"
        if folder:
            try:
                self._viewer = viewer.load(Path(folder))
            except ViewerError as error:
                _log.warning("%s", error.message)
                self._missing = error.message

    @property
    def root(self) -> str:
        """Where the viewer is served, empty without one."""
        return ROOT if self._viewer is not None else ""

    def answer(self, request: BaseRequest, path: str) -> Answer | None:
        """The answer for a path, None for one that is not the viewer's.

        Raises UnknownResourceError, MethodError; ViewerError at `/viewer` when there is no viewer.
        """
        below = path == ROOT or path.startswith(ROOT + "/")
        if self._viewer is None:
            if below:
                raise ViewerError(self._missing)
            return None
        name = path[len(ROOT) if below else 0 :].lstrip("/")
        file = self._viewer.files.get(name)
        if name == _CONFIGURATION:
            answer = self._configuration()
        elif file is not None and name != _SHELL:
            answer = self._file(request, file, _LASTING if _HASHED.search(name) else _CHECKED)
        elif below:
            if Path(name).suffix in _TYPES and name != _SHELL:
                raise UnknownResourceError("the viewer has no such file")
            # Whatever else is there is an address inside the viewer, which finds its own way.
            answer = self._file(request, self._viewer.files[_SHELL], (*_CHECKED, *_PAGE))
        else:
            return None
        if request.method not in ("GET", "HEAD"):
            raise MethodError(f"{request.method[:20]} is not known here", ("GET", "HEAD"))
        return answer

    def _configuration(self) -> Answer:
        body = (resources.files("pacs.dicomweb") / "ohif" / _CONFIGURATION).read_bytes()
        return Answer(200, _TYPES[".js"], body, (*_CHECKED, *_ISOLATED), f'"{viewer.digest(body)}"')

    def _file(self, request: BaseRequest, file: ViewerFile, headers: Headers) -> Answer:
        assert self._viewer is not None
        coding = negotiation.content_coding(request.headers.get("Accept-Encoding", ""))
        if coding not in file.encodings:
            coding = ""
        size = file.encodings[coding] if coding else file.size
        location = self._viewer.location(file, coding)
        pieces = [
            Segment(min(_PIECE, size - start), partial(self._offload.read, _read, location, start, size))
            for start in range(0, size, _PIECE)
        ]
        if coding:
            headers = (*headers, ("Content-Encoding", coding))
        if file.path.endswith(".js"):
            headers = (*headers, *_ISOLATED)  # workers have a policy of their own
        etag = f'"{file.digest}{"-" + coding if coding else ""}"'
        content_type = _TYPES.get(Path(file.path).suffix, "application/octet-stream")
        return Answer(200, content_type, Entity.of(*pieces), headers, etag, "Accept-Encoding")


def _read(location: Path, start: int, size: int) -> bytes:
    descriptor = os.open(location, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size != size:
            raise InternalError(f"{location.name} of the viewer was changed since it was fetched")
        return os.pread(descriptor, min(_PIECE, size - start), start)
    finally:
        os.close(descriptor)
