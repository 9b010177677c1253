"""Every metric of the server, by name. docs/operations.md says which to watch, docker/ has a dashboard of them.

Workers keep their numbers in files of one directory (`prometheus_client`'s multi-process mode): the parent of the
workers makes it and names it in PROMETHEUS_MULTIPROC_DIR, and any worker answers for all. A worker has the number of
its predecessor in the same place, so that its sums go on where those of the dead one ended.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pacs import __version__
from pacs.dicomweb.metrics_directory import DIRECTORY

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

SECONDS: Final = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
THROUGHPUT: Final = (
    31_250.0, 62_500.0, 125_000.0, 250_000.0, 500_000.0, 1e6, 2e6, 4e6, 8e6, 16e6, 32e6, 64e6, 125e6, 500e6, 1.25e9,
)  # fmt: skip
"""Bytes per second: 0.25 Mbit/s to 10 Gbit/s."""
BATCH: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Sums(Histogram):
    """A histogram that takes many observations at once: they are counted elsewhere, at less cost."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """`counts` by bucket, the last those above every bound; `total` is the sum of what was observed."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class Spread:
    """A histogram in the making: what is observed on the way, for `Sums` once a second."""

    __slots__ = ("_child", "bounds", "counts", "total")

    def __init__(self, child: Sums, bounds: tuple[float, ...]) -> None:
        self._child = child
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def flush(self) -> None:
        if any(self.counts):
            self._child.add(self.counts, self.total)
            self.counts = [0] * len(self.counts)
            self.total = 0.0


class Now(NamedTuple):
    """A gauge that is read at the moment of asking, the same whoever answers."""

    text: str
    values: Mapping[tuple[tuple[str, str], ...], float]
    """By labels, (name, text) each."""


class Metrics:
    """The metrics of one worker. Made inside the worker, after `join`."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")

        def histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Sums:
            return Sums(name, text, labels, registry=registry, buckets=bounds)

        self.requests = counter("pacs_requests", "Requests answered.", "method", "route", "status")
        self.request_seconds = histogram(
            "pacs_request_seconds", "From the head of a request to the last byte handed to the network.", SECONDS,
            "method", "route",
        )  # fmt: skip
        self.in_flight = gauge("pacs_requests_in_flight", "Requests being answered.", "route")
        self.response_bytes = counter("pacs_response_bytes", "Bytes of response bodies.", "route")
        self.request_bytes = counter("pacs_request_bytes", "Bytes of request bodies.", "route")
        self.errors = counter("pacs_errors", "Errors by code, docs/errors.md.", "code")

        self.stow = counter("pacs_stow_instances", "Uploaded instances by what became of them.", "result", "reason")
        self.stages = histogram("pacs_ingest_stage_seconds", "Time of an instance in a stage.", SECONDS, "stage")
        self.batch = histogram("pacs_commit_batch_instances", "Instances committed together.", BATCH)
        self.commit = histogram("pacs_commit_seconds", "A commit, its part by part.", SECONDS, "part")
        self.queue = gauge("pacs_queue_depth", "Work that waits for a thread, memory or a commit.", "queue")
        self.ingest_memory = gauge("pacs_ingest_memory_bytes", "Memory that uploads in work hold.")
        self.cache = counter("pacs_cache_requests", "What was looked for in a cache.", "cache", "outcome")

        self.throughput = histogram(
            "pacs_link_throughput_bytes_per_second", "Rate at which responses above 64 KiB arrived.", THROUGHPUT,
            "network",
        )  # fmt: skip
        self.round_trip = histogram("pacs_link_round_trip_seconds", "Round trip of such a link.", SECONDS, "network")
        self.first_rung = histogram(
            "pacs_link_first_rung_seconds", "From a request to the first byte of an image.", SECONDS, "network"
        )
        self.aborted = counter(
            "pacs_link_transfers_aborted", "Transfers that ended early.", "network", "direction", "by"
        )
        self.link_bytes = counter("pacs_link_response_bytes", "Bytes of response bodies.", "network")

        self.workers = gauge("pacs_workers", "Worker processes that run.")
        self.memory = gauge("pacs_resident_bytes", "Resident memory of the workers; what they share counts in each.")
        self.deaths = Gauge(
            "pacs_worker_deaths", "Workers that died since the start.", registry=registry, multiprocess_mode="max"
        )
        self.log_lost = counter("pacs_access_log_lost", "Lines of the access log that could not be written.")
        self.workers.set(1)

    def exposition(self, now: Mapping[str, Now]) -> bytes:
        """All metrics of all workers, and `now` by name, in the text format 0.0.4."""
        registry = CollectorRegistry()
        registry.register(_Asked(now))
        directory = os.environ.get(DIRECTORY)
        if directory:
            multiprocess.MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
        else:
            registry.register(self.registry)
        return generate_latest(registry)


class _Asked(Collector):
    def __init__(self, now: Mapping[str, Now]) -> None:
        self._now = now

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("pacs_build_info", "The version of the program.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build
        for name, now in self._now.items():
            labels = next(iter(now.values), ())
            family = GaugeMetricFamily(name, now.text, labels=[label for label, _ in labels])
            for chosen, value in now.values.items():
                family.add_metric([text for _, text in chosen], value)
            yield family


# --- among processes ----------------------------------------------------------------------------------------------


def join(worker: int) -> None:
    """Be worker number `worker` of those that share the directory in the environment, before any metric is made."""
    if os.environ.get(DIRECTORY):
        values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


def resident_bytes() -> int:
    """Of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
