"""The DICOMweb service as one request handler: route, answer, and turn every error into JSON (PS3.18 8)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from aiohttp import web
from aiohttp.web import BaseRequest

from pacs.archive import Archive
from pacs.dicomweb import (
    bulkdata,
    expectation,
    instances,
    intake,
    levels,
    metadata,
    pages,
    problems,
    progressive,
    qido,
    rendered,
    stow,
    stream,
    urls,
)  # fmt: skip
from pacs.dicomweb.answer import Answer, in_memory
from pacs.dicomweb.cors import CorsPolicy
from pacs.dicomweb.direct import Direct
from pacs.dicomweb.health import PATHS, Health
from pacs.dicomweb.observe import Route
from pacs.dicomweb.sending import Sent, abort, send
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import BASE, ResourceId, parse
from pacs.dicomweb.viewer import ViewerPages
from pacs.errors import InternalError, MethodError, PacsError, StalledError
from pacs.settings import Settings

_CLIENT_GONE: Final = 499
"""For the log alone, as nginx writes it."""

Handler: TypeAlias = Callable[[Service, BaseRequest, ResourceId], Awaitable[Answer]]

HANDLERS: Final[dict[str, dict[str, Handler]]] = {
    "search.studies": {"GET": qido.search, "POST": stow.store},
    "search.series": {"GET": qido.search},
    "search.instances": {"GET": qido.search},
    "study": {"GET": instances.study, "POST": stow.store},
    "series": {"GET": instances.series},
    "instance": {"GET": instances.instance},
    "study.metadata": {"GET": metadata.study},
    "series.metadata": {"GET": metadata.series},
    "instance.metadata": {"GET": metadata.instance},
    "study.rendered": {"GET": rendered.rendered},
    "series.rendered": {"GET": rendered.rendered},
    "instance.rendered": {"GET": rendered.rendered},
    "frames.rendered": {"GET": rendered.rendered},
    "study.thumbnail": {"GET": rendered.thumbnail},
    "series.thumbnail": {"GET": rendered.thumbnail},
    "instance.thumbnail": {"GET": rendered.thumbnail},
    "frames.thumbnail": {"GET": rendered.thumbnail},
    "series.progressive": {"GET": progressive.index},
    "series.stream": {"GET": stream.series},
    "frames": {"GET": levels.frames},
    "bulkdata": {"GET": bulkdata.bulkdata},
}
"""By kind of resource (see `target`) and method. HEAD is answered as GET without its body."""


_BULK: Final = frozenset({"study", "series", "instance", "bulkdata", "series.stream"})
"""Kinds of resources that are carried away rather than looked at: they give way to the others."""


class Dicomweb:
    """A handler for aiohttp's servers. Answers every request itself: nothing is raised but a lost connection."""

    def __init__(self, archive: Archive, settings: Settings) -> None:
        self.service = Service(archive, settings)
        self._viewer = ViewerPages(settings.viewer, self.service.offload)
        self._health = Health(self.service)
        self._cors = CorsPolicy(settings.cors_origins)
        self._write_buffer = settings.write_buffer
        self.direct = Direct(self.service, self._cors, settings.write_buffer)
        self.active: set[web.RequestHandler] = set()
        """Connections with a request in work."""
        self._stopping = False
        self._finished = asyncio.Event()

    async def __call__(self, request: BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        self.active.add(connection)
        try:
            sent = await self._answered(request)
        finally:
            self.active.discard(connection)
            intake.done(connection)
        if not request.content.is_eof() and expectation.held_back(request) and not request.content.total_bytes:
            connection.force_close()  # there is nothing to be read over
        if self._stopping:
            sent.force_close()
            if not self.active:
                self._finished.set()
        return sent

    async def finish(self, grace: float) -> None:
        """Wait up to `grace` seconds for the requests in work; each connection ends with the one in work on it."""
        self._stopping = True
        self.direct.open = False
        if self.active:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finished.wait(), grace)

    async def _answered(self, request: BaseRequest) -> Sent:
        started = time.perf_counter()
        observer = self.service.observer
        route: Route | None = None
        common = self._cors.lines(request.headers.get("Origin"))
        try:
            path = request.raw_path.partition("?")[0]
            if not path.startswith("/"):
                path = request.rel_url.raw_path
            urls.check_host(request, self.service.settings)
            if path.startswith(BASE + "/"):
                target = parse(path)
                route = observer.enter(request.method, target.template, target.kind)
                answer = await self._answer(request, target)
            elif path in PATHS:
                route = observer.enter(request.method, path, "")
                answer = await self._health.answer(request, path)
            else:
                route = observer.enter(request.method, "page", "")
                answer = self._viewer.answer(request, path) or pages.page(request, path, self._viewer.root)
            if self._stopping or not request.content.is_eof():
                self._end_after(request)
            self.service.outgoing.hold_made(request, in_memory(answer.body))
            sent = await send(request, answer, common, self._write_buffer)
        except ConnectionError:
            sent = _gone(request)
        except Exception as error:  # noqa: BLE001 - the one place where a fault becomes an answer
            try:
                sent = await self._tell(request, error, route.template if route else "an unknown path", common)
            except ConnectionError:
                sent = _gone(request)
            sent.error = error.code if isinstance(error, PacsError) else InternalError.code
        except BaseException:
            if route is not None:
                observer.forget(route)
            raise
        finally:
            self.service.outgoing.release(request)
        observer.leave(request, route or observer.enter(request.method, "unknown", ""), started, sent)
        return sent

    async def _answer(self, request: BaseRequest, target: ResourceId) -> Answer:
        handlers = HANDLERS[target.kind]
        method = request.method
        handler = handlers.get("GET" if method == "HEAD" else method)
        if handler is not None:
            if target.kind in _BULK or method == "POST":
                return await handler(self.service, request, target)
            with self.service.right_of_way.urgent():
                return await handler(self.service, request, target)
        allowed = (*handlers, "HEAD", "OPTIONS")
        if method != "OPTIONS":
            raise MethodError(f"{method[:20]} is not known here", allowed)
        preflight = self._cors.preflight(
            request.headers.get("Origin"), request.headers.get("Access-Control-Request-Headers", ""), allowed
        )
        vary = "Access-Control-Request-Headers, Access-Control-Request-Method"
        return Answer(204, headers=(("Allow", ", ".join(allowed)), *preflight), vary=vary)

    def _end_after(self, request: BaseRequest) -> None:
        """Let the connection end with the answer where the server ends, and where the client holds a body back that
        nobody wants: whether what it sends next is that or a request, nobody can tell. RFC 9110 10.1.1"""
        if self._stopping or (not request.content.is_eof() and expectation.held_back(request)):
            _close_after(request)

    async def _tell(self, request: BaseRequest, error: Exception, where: str, common: bytes) -> Sent:
        if request.writer.output_size:
            return abort(request, error)
        answer = problems.answer(error, where)
        if isinstance(error, StalledError):
            _close_after(request)
        else:
            self._end_after(request)
        sent = await send(request, answer, common, self._write_buffer)
        if isinstance(error, StalledError):
            # The rest of the body is not waited for either. RFC 9110 15.5.9
            request.protocol.force_close()
        return sent

    def close(self) -> None:
        self.service.close()


def _close_after(request: BaseRequest) -> None:
    """Let the answer say that the connection ends with it. RFC 9112 9.6"""
    request._message = request._message._replace(should_close=True)


def _gone(request: BaseRequest) -> Sent:
    """Nobody is there to be told."""
    return Sent(_CLIENT_GONE, request.writer.output_size, False, aborted=True)
