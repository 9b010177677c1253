"""What does the client cost? The same client against a server that does nothing but answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from benchmarks.report import Figure
from benchmarks.scale import Scale
from benchmarks.servers import Null
from pacs.bench import load

CASES = (("small answers", 300), ("frames of 185 kB", 185_000), ("frames of 525 kB", 525_000))


def client(scale: Scale) -> Iterator[Figure]:
    """Requests a second that are the ceiling of every other figure here, and the client's CPU time for each."""
    with Null() as server:
        for name, size in CASES:
            request = load.get(f"/null/{size}", server.host)
            run = load.run(server.address, itertools.repeat(request), clients=8, seconds=scale.seconds / 2)
            yield from _figures(f"{name}, 8 clients", run)
        upload = load.stow("/null/300", server.host, [b"\0" * 525_000])
        run = load.run(server.address, itertools.repeat(upload), clients=4, seconds=scale.seconds / 2)
        yield from _figures("uploads of 525 kB, 4 clients", run)


def _figures(case: str, run: load.Load) -> Iterator[Figure]:
    yield Figure("client", case, "null", run.rate, "requests/s")
    yield Figure("client", case, "null", run.client_seconds / run.requests * 1e3, "ms of CPU", False)
