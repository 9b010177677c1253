"""In words: what limits this node, how many CT studies an hour it takes and how many readers it serves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Final

from pacs.bench.model import Codec, Finding, Point, Report, Stages, Verdict

STUDY: Final = 300
"""Slices of a CT study."""
PACE: Final = 10.0
"""Frames a second of a reader who scrolls."""
_PATIENCE: Final = 250.0
"""Milliseconds that 95 of 100 frames may take for a reader."""
_NEAR: Final = 0.7
"""Share of a limit from which it is said to limit."""
_MBIT: Final = 1e6 / 8
_UNCACHED: Final = "disk, if no frame were cached"
_UNKNOWN: Final = "network, if it had 1,000 Mbit/s"


def judge(report: Report) -> Verdict:
    """All that can be said."""
    found = Verdict()
    store, read = _best(report, "store"), _readable(report)
    if store is not None:
        found.store_limits = sorted(_store_limits(report, store), key=_scarcity)
        found.ct_studies_per_hour = store.rate * 3600 / STUDY / _beyond_network(found.store_limits)
    if read is not None:
        found.read_limits = sorted(_read_limits(report, read), key=_scarcity)
        found.readers = read.rate / PACE / _beyond_network(found.read_limits)
    found.lines = list(_sentences(report, found, store, read))
    return found


def _beyond_network(findings: list[Finding]) -> float:
    """How many times too much a rate is for the network of this node; 1 where it fits or its speed is not known."""
    known = [finding.share for finding in findings if finding.what.startswith("network") and finding.what != _UNKNOWN]
    return max(1.0, *known) if known else 1.0


def _scarcity(finding: Finding) -> tuple[bool, float]:
    """The scarcest first; what is assumed and not measured last."""
    return finding.what.startswith((_UNKNOWN, _UNCACHED)), -finding.share


def _best(report: Report, name: str) -> Point | None:
    sweep = report.sweep(name)
    return sweep.best() if sweep is not None else None


def _readable(report: Report) -> Point | None:
    """The most frames a second that still come in time; if none do, the least loaded point."""
    sweep = report.sweep("frames")
    if sweep is None or not sweep.points:
        return None
    in_time = [point for point in sweep.points if point.latency.p95 <= _PATIENCE]
    return max(in_time, key=lambda point: point.rate) if in_time else sweep.points[0]


# --- limits ---------------------------------------------------------------------------------------------------------


def _store_limits(report: Report, point: Point) -> Iterator[Finding]:
    yield from _cores(report, point)
    stages = _ct_stages(report)
    if stages is not None and stages.ceiling:
        yield Finding(what="encode and proof on all cores", used=point.rate, limit=stages.ceiling, unit="slices/s")
    if report.disk is not None:
        ratio = next((codec.ratio for codec in report.codecs if codec.image == "CT" and codec.action == "encode"), 1.0)
        yield Finding(
            what="disk, sequential write", used=point.bytes_per_second / ratio / 1e6, limit=report.disk.write / 1e6,
            unit="MB/s",
        )  # fmt: skip
    yield _network(report, point.bytes_per_second)


def _read_limits(report: Report, point: Point) -> Iterator[Finding]:
    yield from _cores(report, point)
    if report.disk is not None:
        cold = report.disk.random_rate.get("180 kB, cold, 8 threads")
        if cold:
            yield Finding(
                what=_UNCACHED, used=point.rate, limit=cold, unit="frames/s"
            )
    yield _network(report, point.bytes_per_second)


def _cores(report: Report, point: Point) -> Iterator[Finding]:
    """The server and the client beside it take from the same cores."""
    if point.server_cores is not None:
        yield Finding(
            what="processor, server and client", used=point.server_cores + point.client_cores,
            limit=float(report.node.get("cores", 1)), unit="cores",
        )  # fmt: skip


def _network(report: Report, bytes_per_second: float) -> Finding:
    links: dict[str, int] = report.node.get("links", {})
    speed = max(links.values(), default=0)
    name = f"network, {speed:,} Mbit/s" if speed else _UNKNOWN
    return Finding(what=name, used=bytes_per_second / _MBIT, limit=float(speed or 1000), unit="Mbit/s")


def _ct_stages(report: Report) -> Stages | None:
    return next((stages for stages in report.stages if stages.kind == "CT"), None)


# --- sentences --------------------------------------------------------------------------------------------------------


def _sentences(report: Report, found: Verdict, store: Point | None, read: Point | None) -> Iterator[str]:
    if store is not None:
        yield (
            f"Stores {store.rate:,.0f} CT slices a second from {_clients(store)}: {found.ct_studies_per_hour:,.0f} "
            f"studies of {STUDY} slices an hour. {_limit(found.store_limits, report, store)}"
        )
        yield from _one_client(report)
    if read is not None:
        late = "" if read.latency.p95 <= _PATIENCE else ", later than a reader likes"
        yield (
            f"Serves {read.rate:,.0f} CT frames a second as stored to {_clients(read)}, 95 of 100 within "
            f"{_milliseconds(read.latency.p95)}{late}: {found.readers:,.0f} readers at a time who take {PACE:.0f} "
            f"slices a second each. {_limit(found.read_limits, report, read)}"
        )
    yield from _answers(report)
    yield from _disk(report)
    yield from _processor(report)
    yield from _others(report)
    if "peak" in report.memory:
        yield f"The server held {report.memory['peak'] / 1e6:,.0f} MB at most."
    yield from _soak(report)
    if report.options.get("shrink", 1) != 1:
        yield "Images were drawn smaller than they are: a trial, whose figures mean nothing."


def _clients(point: Point) -> str:
    return "1 client" if point.clients == 1 else f"{point.clients} clients"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _limit(findings: list[Finding], report: Report, point: Point) -> str:
    """The scarcest first. A limit that is assumed, as that of an unknown network, limits nothing that was measured."""
    measured = [finding for finding in findings if finding.what not in (_UNKNOWN, _UNCACHED)]
    network = next((finding for finding in findings if finding.what == _UNKNOWN), None)
    text = ""
    if measured and measured[0].share >= _NEAR:
        first = measured[0]
        text = f"What limits it: {first.what}, {first.used:,.4g} of {first.limit:,.4g} {first.unit}."
        if first.what.startswith("processor") and point.client_cores > 0.25 * first.used:
            text += f" The client beside it took {point.client_cores:.1f} of them: over a network there is more."
    elif measured:
        text = "Nothing measured is near its limit: waiting between the steps of a request limits it."
    elif report.own_server is False and point.client_cores > _NEAR:
        text = f"The client was busy itself ({point.client_cores:.1f} cores): the server may carry more."
    if network is not None and network.share >= _NEAR:
        fits = "would be all but full" if network.share <= 1 else "would not carry that"
        text += f" A network of {network.limit:,.0f} Mbit/s {fits}: it needs {network.used:,.0f}."
    return text.strip()


def _one_client(report: Report) -> Iterator[str]:
    sweep, stages = report.sweep("store"), _ct_stages(report)
    if sweep is None or not sweep.points or stages is None or not stages.parts:
        return
    first = sweep.points[0]
    name, most = max(stages.parts.items(), key=lambda item: item[1])
    yield (
        f"A client that sends one slice after the other gets {first.rate:,.0f} a second, each acknowledged after "
        f"{_milliseconds(first.latency.p50)}; the longest step of it is: {name}, {_milliseconds(most)}."
    )


def _answers(report: Report) -> Iterator[str]:
    sweep = report.sweep("metadata")
    if sweep is not None and sweep.points:
        yield (
            f"The metadata of {sweep.detail.get('instances', '?')} instances takes "
            f"{_milliseconds(sweep.detail.get('first_ms', 0.0))} the first time and "
            f"{_milliseconds(sweep.points[0].latency.p50)} after."
        )
    sweep = report.sweep("search")
    if sweep is not None and sweep.points:
        last = sweep.points[-1]
        yield (
            f"A search takes {_milliseconds(sweep.points[0].latency.p50)}; with {_clients(last)} at once 99 of 100 "
            f"take less than {_milliseconds(last.latency.p99)}. The archive is small here."
        )


def _disk(report: Report) -> Iterator[str]:
    disk = report.disk
    if disk is None:
        return
    sync = disk.syncs.get("fdatasync of 180 kB appended")
    if sync is not None and sync.count:
        advice = ""
        if sync.p99 > 20:
            advice = " That is slow: every acknowledgement waits for it. Drives with power-loss protection take 0.1 ms."
        elif sync.p50 < 0.02:
            advice = " That is faster than any disk: this file system may not keep what was acknowledged."
        yield (
            f"A sync of a frame takes {_milliseconds(sync.p50)}, 1 of 100 more than {_milliseconds(sync.p99)}.{advice}"
        )
    cold = disk.random.get("180 kB, cold")
    if cold is not None:
        yield (
            "Frames were read from the page cache; one that is not there takes "
            f"{_milliseconds(cold.p50)} more, 1 of 100 more than {_milliseconds(cold.p99)}; the disk gives "
            f"{disk.random_rate.get('180 kB, cold, 8 threads', 0.0):,.0f} such a second."
        )
    elif disk.cold:
        yield f"Cold reads could not be measured: {disk.cold}."


def _processor(report: Report) -> Iterator[str]:
    if len(report.cores) > 1:
        usual = statistics.median(report.cores)
        slow = [number for number, rate in enumerate(report.cores) if rate < 0.7 * usual]
        if slow:
            named = f"Core {slow[0]} is" if len(slow) == 1 else f"Cores {', '.join(map(str, slow))} are"
            yield f"{named} more than 30 % slower than the others, or busy."
    codec = _htj2k(report)
    if codec is not None and len(codec.by_threads) > 1:
        one, (most, all_of_them) = codec.by_threads["1"], list(codec.by_threads.items())[-1]
        efficiency = all_of_them / one / int(most)
        if efficiency < _NEAR:
            yield (
                f"{most} cores encode {all_of_them / one:.1f} times as fast as one: they share something, as "
                "hyper-threads and busy hosts do."
            )


def _others(report: Report) -> Iterator[str]:
    taken = [point.other_cores or 0.0 for sweep in report.sweeps for point in sweep.points]
    cores = int(report.node.get("cores", 1))
    if taken and statistics.median(taken) > 0.1 * cores:
        yield (
            f"Other programs or guests of the host took {statistics.median(taken):.1f} of {cores} cores meanwhile: the "
            "figures would be higher on a quiet machine."
        )


def _htj2k(report: Report) -> Codec | None:
    return next((codec for codec in report.codecs if codec.image == "CT" and codec.action == "encode"), None)


def _soak(report: Report) -> Iterator[str]:
    if report.soak is None or not report.soak.drift:
        return
    grown = {name: ratio for name, ratio in report.soak.drift.items() if ratio > 1.2}
    if grown:
        told = ", ".join(f"{name} {ratio:.2f} times" for name, ratio in grown.items())
        yield f"Over {report.soak.minutes:g} minutes of steady load these rose, last quarter against first: {told}."
    else:
        yield f"Over {report.soak.minutes:g} minutes of steady load neither latency nor memory rose by a fifth."
