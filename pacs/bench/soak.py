"""A steady mixed load for minutes: does latency or memory creep?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from pacs.bench import load, machine
from pacs.bench.exchange import Exchange
from pacs.bench.model import Soak, Window, latency

_WINDOWS = 60
_SHORTEST = 2.0
"""Seconds of a window."""


def soak(exchange: Exchange, minutes: float, most_bytes: int, show: Callable[[float], None]) -> Soak:
    """Load for `minutes`; `show` is told the share that is done. Uploads are spread so that they stay in bounds."""
    target, clients = exchange.target, exchange.effort.few
    seconds = minutes * 60
    length = max(min(_SHORTEST, seconds / 4), seconds / _WINDOWS)
    count = max(4, round(seconds / length))
    uploads = most_bytes // 530_000 // count
    found = Soak(minutes=minutes, clients=clients)
    began = time.perf_counter()
    for number in range(count):
        run = load.run(
            target.address, exchange.mixed(uploads), clients=clients, seconds=length, tls=target.tls
        )
        exchange.settle(run.instances)
        found.windows.append(Window(
            begin=time.perf_counter() - began - run.seconds,
            rates={name: len(taken) / run.seconds for name, taken in sorted(run.by_name.items())},
            latencies={name: latency(taken) for name, taken in sorted(run.by_name.items())},
            memory=machine.memory(target.pid) if target.pid else None,
        ))  # fmt: skip
        show((number + 1) / count)
    found.drift = drift(found.windows)
    return found


def drift(windows: list[Window]) -> dict[str, float]:
    """The last quarter against the first."""
    quarter = max(1, len(windows) // 4)
    first, last = windows[:quarter], windows[-quarter:]

    def change(value: Callable[[Window], float | None]) -> float | None:
        before = [found for window in first if (found := value(window))]
        after = [found for window in last if (found := value(window))]
        return statistics.median(after) / statistics.median(before) if before and after else None

    found: dict[str, float] = {}
    for name in sorted({name for window in windows for name in window.latencies}):
        def median(window: Window, name: str = name) -> float | None:
            return window.latencies[name].p50 if name in window.latencies else None

        if (ratio := change(median)) is not None:
            found[name] = ratio
    if (ratio := change(lambda window: window.memory)) is not None:
        found["memory"] = ratio
    return found
