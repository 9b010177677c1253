"""Counting requests at little cost: plain numbers on the way, handed to the metrics once a second.

A frame as stored takes 80 µs in all; a labelled counter and a histogram of prometheus_client 5 µs each time, in
multi-process mode more.
"""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.web import BaseRequest

from pacs.dicomweb import access_log, metrics
from pacs.dicomweb.access_log import AccessLog, Line
from pacs.dicomweb.links import Network, ask_kernel, time_response
from pacs.dicomweb.metrics import Metrics, Spread
from pacs.dicomweb.networks import Clients
from pacs.dicomweb.sending import Sent
from pacs.measure import Measure
from pacs.settings import Settings

_EVERY: Final = 1.0
"""Seconds between two times that numbers are handed on."""
_LONG: Final = 64 << 10
"""Bytes of a response that tells something of the link."""
_SLOW: Final = 0.1
"""Seconds that sending takes, from which on they tell the rate; below, buffers have taken most."""
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "OPTIONS"))
_RUNGS: Final = frozenset(("frames", "series.stream"))
"""Kinds of resources whose first bytes are an image that somebody waits for."""
_REQUEST_ID: Final = re.compile(r"[0-9a-fA-F-]{8,64}")
"""Of a proxy; a UID, which has dots, is none."""

_STAGES: Final = frozenset((Measure.IDENTIFY, Measure.ENCODE, Measure.PROVE, Measure.COMMIT_WAIT, Measure.COMMIT))


class Route:
    """Requests of one method for one kind of resource, since the numbers were handed on."""

    __slots__ = ("in_flight", "kind", "method", "received", "rung", "seconds", "sent", "statuses", "template")

    def __init__(self, method: str, template: str, kind: str, seconds: Spread) -> None:
        self.method = method
        self.template = template
        self.kind = kind
        self.rung = kind in _RUNGS and method == "GET"
        self.seconds = seconds
        self.in_flight = 0
        self.statuses: dict[int, int] = {}
        self.sent = 0
        self.received = 0


class Observer:
    """Counts for one worker. Everything but `measured` is called in the event loop."""

    def __init__(self, settings: Settings, levels: Callable[[Metrics], None] | None = None) -> None:
        """`levels` is called before numbers are handed on, to set what is a state and no count."""
        self.metrics = Metrics()
        self.clients = Clients(settings)
        self.log = AccessLog(settings.access_log) if settings.access_log else None
        self._levels = levels
        self._routes: dict[tuple[str, str], Route] = {}
        self._networks: dict[str, Network] = {}
        self._by_address: dict[str, Network] = {}
        self._links: dict[web.RequestHandler, Network] = {}
        self._errors: dict[str, int] = {}
        self._stow: dict[tuple[str, str], int] = {}
        self._measures: deque[tuple[Measure, float]] = deque()
        self._lost = 0
        self._timer: asyncio.TimerHandle | None = None
        made = self.metrics
        self._spreads: dict[Measure, Spread] = {
            **{stage: Spread(made.stages.labels(stage.value), metrics.SECONDS) for stage in sorted(_STAGES)},
            Measure.SYNC: Spread(made.commit.labels("sync"), metrics.SECONDS),
            Measure.INDEX: Spread(made.commit.labels("index"), metrics.SECONDS),
            Measure.BATCH: Spread(made.batch, metrics.BATCH),
        }

    # --- a request ---

    def enter(self, method: str, template: str, kind: str) -> Route:
        """A request begins; to be given to `leave`, or to `forget`."""
        route = self._routes.get((method, template))
        if route is None:
            route = self._route(method, template, kind)
        route.in_flight += 1
        return route

    def _route(self, method: str, template: str, kind: str) -> Route:
        name = method if method in _METHODS else "other"
        route = self._routes.get((name, template))
        if route is None:
            spread = Spread(self.metrics.request_seconds.labels(name, template), metrics.SECONDS)
            route = self._routes[name, template] = Route(name, template, kind, spread)
        return route

    def forget(self, route: Route) -> None:
        """The request was cancelled with the server."""
        route.in_flight -= 1

    def leave(self, request: BaseRequest, route: Route, started: float, sent: Sent) -> None:
        """It was answered, or its client is gone. `started` by `time.perf_counter`."""
        now = time.perf_counter()
        length, first = sent.body_length, sent.first_byte
        route.in_flight -= 1
        if self.clients.behind_proxies:
            address, proxied = self.clients.address(request)
        else:
            address, proxied = request.remote or "", False
        network = self._count(route, address, sent.status, length, (started, first, now))
        if length > _LONG and not sent.aborted:
            if now - first > _SLOW:
                time_response(request.protocol, network, length, now - first)
            elif not proxied:
                self._links[request.protocol] = network
        if route.method == "POST" or sent.aborted or sent.error:
            self._uncommon(request, route, sent, network)
        if self.log is not None:
            self._note(self.log, request, route, sent, network, (started, first, now))

    def answered(self, connection: web.RequestHandler, template: str, times: tuple[float, float], length: int) -> None:
        """A GET for a frame was answered at once, with 200 and `length` bytes. `times` when it began and when the
        first byte went out; no proxy stands between."""
        now = time.perf_counter()
        route = self._routes.get(("GET", template)) or self._route("GET", template, "frames")
        peer = connection.peername
        address = str(peer[0]) if isinstance(peer, tuple) else peer or ""
        network = self._count(route, address, 200, length, (*times, now))
        if length > _LONG:
            self._links[connection] = network
        if self.log is not None:
            self.log.add(
                Line(
                    access_log.utc(time.time()), self.log.request_id(), route.method, route.template, 200, length,
                    round(now - times[0], 6), round(times[1] - times[0], 6), network.name, False, 0, "",
                )
            )  # fmt: skip

    def _count(
        self, route: Route, address: str, status: int, length: int, times: tuple[float, float, float]
    ) -> Network:
        started, first, now = times
        route.statuses[status] = route.statuses.get(status, 0) + 1
        seconds = route.seconds
        elapsed = now - started
        seconds.counts[bisect_left(seconds.bounds, elapsed)] += 1
        seconds.total += elapsed
        route.sent += length
        network = self._by_address.get(address) or self._network(address)
        network.sent += length
        if route.rung and first:
            network.first_rung.add(first - started)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._tick)
        return network

    def _uncommon(self, request: BaseRequest, route: Route, sent: Sent, network: Network) -> None:
        if sent.error:
            self._errors[sent.error] = self._errors.get(sent.error, 0) + 1
        upload = route.method == "POST"
        if upload:
            route.received += request.content.total_bytes
        if sent.aborted or (upload and request.transport is None):
            by = "server" if sent.aborted and sent.status == 500 else "client"
            key = ("up" if upload else "down", by)
            network.aborted[key] = network.aborted.get(key, 0) + 1

    def _network(self, address: str) -> Network:
        name = self.clients.network(address)
        network = self._networks.get(name)
        if network is None:
            network = self._networks[name] = Network(name, self.metrics)
        if len(self._by_address) >= 4096:
            self._by_address.clear()
        self._by_address[address] = network
        return network

    def _note(
        self, log: AccessLog, request: BaseRequest, route: Route, sent: Sent, network: Network,
        times: tuple[float, float, float],
    ) -> None:  # fmt: skip
        started, first, now = times
        named = ""
        if self.clients.behind_proxies and self.clients.trusts(request.remote or ""):
            named = request.headers.get("X-Request-ID", "")
        log.add(
            Line(
                access_log.utc(time.time()),
                named if _REQUEST_ID.fullmatch(named) else log.request_id(),
                route.method, route.template, sent.status, sent.body_length, round(now - started, 6),
                round(first - started, 6) if first else None, network.name,
                sent.aborted or (route.method == "POST" and request.transport is None),
                request.content.total_bytes if route.method == "POST" else 0,
                sent.error,
            )
        )  # fmt: skip

    # --- what others tell ---

    def stored(self, result: str, reason: str) -> None:
        """What became of an uploaded instance; the code of the error that refused it."""
        self._stow[result, reason] = self._stow.get((result, reason), 0) + 1

    def measured(self, measure: Measure, value: float) -> None:
        """From any thread."""
        self._measures.append((measure, value))

    # --- handing on ---

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_EVERY, self._tick)
        self.flush()

    def flush(self) -> None:
        """Hand on what was counted."""
        made = self.metrics
        for connection, network in self._links.items():
            ask_kernel(connection, network)
        self._links.clear()
        for route in self._routes.values():
            self._flush_route(route)
        in_flight: dict[str, int] = {}
        for route in self._routes.values():
            in_flight[route.template] = in_flight.get(route.template, 0) + route.in_flight
        for template, count in in_flight.items():
            made.in_flight.labels(template).set(count)
        for network in self._networks.values():
            network.flush(made)
        for code, count in self._errors.items():
            made.errors.labels(code).inc(count)
        self._errors.clear()
        for (result, reason), count in self._stow.items():
            made.stow.labels(result, reason).inc(count)
        self._stow.clear()
        while self._measures:
            measure, value = self._measures.popleft()
            self._spreads[measure].add(value)
        for spread in self._spreads.values():
            spread.flush()
        made.memory.set(metrics.resident_bytes())
        if self.log is not None:
            self.log.flush()
            made.log_lost.inc(self.log.lost - self._lost)
            self._lost = self.log.lost
        if self._levels is not None:
            self._levels(made)

    def _flush_route(self, route: Route) -> None:
        if not route.statuses and not route.received:
            return
        made = self.metrics
        for status, count in route.statuses.items():
            made.requests.labels(route.method, route.template, str(status)).inc(count)
        route.statuses = {}
        route.seconds.flush()
        made.response_bytes.labels(route.template).inc(route.sent)
        made.request_bytes.labels(route.template).inc(route.received)
        route.sent = route.received = 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush()
        if self.log is not None:
            self.log.close()
