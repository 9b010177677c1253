"""What a run of `pacs bench` found: plain values, kept as JSON, read again to be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pacs.errors import BenchError

FORMAT = 1
"""Raised when an older program could misread a newer report."""


class Latency(msgspec.Struct, kw_only=True):
    """A distribution. Milliseconds."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    most: float = 0.0
    curve: list[float] = []
    """Quantiles in steps of 2 %, from the least to the most; empty unless the distribution is drawn."""


def latency(seconds: Sequence[float], *, curve: bool = False) -> Latency:
    """The distribution of durations that are given in seconds."""
    ordered = sorted(seconds)
    if not ordered:
        return Latency()

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1 if share else 0)] * 1e3

    return Latency(
        count=len(ordered), mean=sum(ordered) / len(ordered) * 1e3, p50=at(0.5), p90=at(0.9), p95=at(0.95),
        p99=at(0.99), most=ordered[-1] * 1e3, curve=[at(step / 50) for step in range(51)] if curve else [],
    )  # fmt: skip


class Disk(msgspec.Struct, kw_only=True):
    """The file system under the folder. Rates in bytes a second."""

    file_system: dict[str, str] = {}
    free_bytes: int = 0
    file_bytes: int = 0
    write: float = 0.0
    """Sequential, 1 MiB at a time, to the end of the sync."""
    read_cold: float | None = None
    """None where the page cache could not be emptied."""
    read_warm: float = 0.0
    syncs: dict[str, Latency] = {}
    """By what is synced."""
    random: dict[str, Latency] = {}
    """Reads at random places, by their size and whether they were cached."""
    random_rate: dict[str, float] = {}
    """Reads a second of several threads, likewise."""
    cold: str = ""
    """Why there are no cold figures; "" where there are."""


class Commits(msgspec.Struct, kw_only=True):
    """The index: LMDB transactions with their sync, and look-ups."""

    by_batch: dict[str, float] = {}
    """Commits a second, by the number of 1 KB entries in each."""
    latency: Latency = msgspec.field(default_factory=Latency)
    """Of commits of one entry."""
    look_ups: float = 0.0
    """A second, one thread, everything cached."""


class Codec(msgspec.Struct, kw_only=True):
    """One direction of one codec on one image."""

    name: str
    action: str
    """encode, decode or hash."""
    image: str
    ratio: float = 1.0
    """Raw bytes to encoded bytes."""
    by_threads: dict[str, float] = {}
    """Raw bytes a second, by threads."""


class Stages(msgspec.Struct, kw_only=True):
    """Where the time of an ingest goes, of instances of one kind stored one after another without HTTP."""

    kind: str
    instances: int = 0
    raw_bytes: int = 0
    """Of one instance."""
    wall: float = 0.0
    """Milliseconds an instance takes, one after another."""
    parts: dict[str, float] = {}
    """Milliseconds of each stage, in order; what is left of `wall` among them."""
    ceiling: float = 0.0
    """Instances a second that all cores encode and prove, with nothing else to do."""


class Point(msgspec.Struct, kw_only=True):
    """A run of requests by so many clients at once."""

    clients: int
    requests: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    """Of the unit of its sweep."""
    bytes_per_second: float = 0.0
    """Sent for uploads, received otherwise."""
    latency: Latency = msgspec.field(default_factory=Latency)
    client_cores: float = 0.0
    """Cores that the client kept busy."""
    server_cores: float | None = None
    """Cores that the server kept busy; None for a server that is elsewhere."""
    other_cores: float | None = None
    """Cores that other programs, or other guests of the same host, kept from both; None likewise."""


class Sweep(msgspec.Struct, kw_only=True):
    """The same requests from more and more clients."""

    name: str
    title: str
    unit: str
    points: list[Point] = []
    detail: dict[str, Any] = {}

    def best(self) -> Point | None:
        """The point of the highest rate."""
        return max(self.points, key=lambda point: point.rate, default=None)


class KindResult(msgspec.Struct, kw_only=True):
    """Images of one kind, stored and read by a few clients."""

    kind: str
    shape: str
    raw_bytes: int
    """Of one instance, as sent."""
    store: Point
    frames: Point | None = None


class Window(msgspec.Struct, kw_only=True):
    """A stretch of a soak."""

    begin: float
    """Seconds from the start."""
    rates: dict[str, float] = {}
    """Requests a second, by what was asked for."""
    latencies: dict[str, Latency] = {}
    memory: int | None = None
    """Of the server, in bytes."""


class Soak(msgspec.Struct, kw_only=True):
    """A steady mixed load."""

    minutes: float
    clients: int
    windows: list[Window] = []
    drift: dict[str, float] = {}
    """Last quarter against the first: 1.1 is a tenth more. Median latency by request, and memory."""


class Finding(msgspec.Struct, kw_only=True):
    """How much of something was used when a load was highest."""

    what: str
    used: float
    limit: float
    unit: str

    @property
    def share(self) -> float:
        return self.used / self.limit if self.limit else 0.0


class Verdict(msgspec.Struct, kw_only=True):
    """What the figures mean."""

    ct_studies_per_hour: float = 0.0
    readers: float = 0.0
    store_limits: list[Finding] = []
    read_limits: list[Finding] = []
    lines: list[str] = []
    """Sentences."""


class Report(msgspec.Struct, kw_only=True):
    """All of it."""

    format: int = FORMAT
    version: str = ""
    """Of this program."""
    node: dict[str, Any] = {}
    target: str = ""
    own_server: bool = True
    """Whether the server was started on this node for this run."""
    options: dict[str, Any] = {}
    seconds: float = 0.0
    """The whole run."""
    disk: Disk | None = None
    index: Commits | None = None
    codecs: list[Codec] = []
    cores: list[float] = []
    """Raw bytes a second that each core encodes alone."""
    stages: list[Stages] = []
    sweeps: list[Sweep] = []
    kinds: list[KindResult] = []
    soak: Soak | None = None
    memory: dict[str, int] = {}
    """Of the server: idle, peak."""
    stored: dict[str, int] = {}
    """Bytes sent and bytes on disk after it."""
    left_behind: list[str] = []
    """Study Instance UIDs that a foreign server keeps."""
    verdict: Verdict = msgspec.field(default_factory=Verdict)
    notes: list[str] = []
    """What could not be measured, and why."""

    def sweep(self, name: str) -> Sweep | None:
        return next((sweep for sweep in self.sweeps if sweep.name == name), None)


def encode(report: Report) -> bytes:
    """As JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def read(path: Path) -> Report:
    """A report that was written before. Raises BenchError."""
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is not a report of `pacs bench`: {error}") from None
    if report.format > FORMAT or not report.version:
        raise BenchError(f"{path} is not a report that this program reads: format {report.format}")
    return report
