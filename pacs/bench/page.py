"""A report as one HTML file: no network, no script, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from pacs.bench import plots
from pacs.bench.model import Codec, Disk, Latency, Point, Report, Soak, Sweep
from pacs.bench.plots import Axis, Line, number

_SWEEPS = ("store", "metadata", "frames", "decoded", "rendered", "search")


def render(report: Report) -> str:
    """The whole page."""
    node = report.node
    packages: dict[str, str] = node.get("packages", {})
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if name != "pacs")
    when = f"{node.get('date', '')} · pacs {report.version} · {versions} · took {report.seconds:.0f} s"
    parts = [
        f"<h1>{escape(_title(report))}</h1>",
        f'<p class="soft">{escape(_machine(node))}<br>{escape(when)}</p>',
        _big(report),
        f'<ul class="said">{"".join(f"<li>{escape(line)}</li>" for line in report.verdict.lines)}</ul>',
    ]
    for title, body in _sections(report):
        parts.append(f"<h2>{escape(title)}</h2>{body}")
    if report.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
        parts.append(f"<h2>What could not be measured</h2><ul>{notes}</ul>")
    return document(_title(report), parts)


def document(title: str, parts: Iterable[str]) -> str:
    """An HTML file of its own around `parts`."""
    style = (files("pacs.bench") / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n<body>\n" + "\n".join(parts)
    ) + "\n</body></html>\n"


def _title(report: Report) -> str:
    return f"What {report.node.get('host', 'this node') if report.own_server else report.target} carries"


def _machine(node: dict[str, Any]) -> str:
    memory, cores = node.get("memory_bytes", 0) / 1e9, node.get("cores", "?")
    return f"{node.get('processor', '')}, {cores} cores, {memory:.0f} GB, Linux {node.get('kernel', '')}"


def _big(report: Report) -> str:
    verdict = report.verdict
    store, frames, search = report.sweep("store"), report.sweep("frames"), report.sweep("search")
    rows: list[tuple[str, str]] = []
    if verdict.ct_studies_per_hour:
        rows.append((f"{verdict.ct_studies_per_hour:,.0f}", "CT studies of 300 slices an hour"))
    if verdict.readers:
        rows.append((f"{verdict.readers:,.0f}", "readers at a time, 10 slices a second each"))
    if store is not None and (best := store.best()) is not None:
        rows.append((f"{best.rate:,.0f}/s", f"CT slices stored, {_count(best)}"))
    if frames is not None and (best := frames.best()) is not None:
        rows.append((f"{best.rate:,.0f}/s", f"CT frames served, {_count(best)}"))
    if search is not None and search.points:
        rows.append((f"{number(search.points[0].latency.p50)} ms", "a search, one client"))
    if report.stored.get("on_disk") and report.stored.get("sent"):
        rows.append((f"{report.stored['on_disk'] / report.stored['sent']:.2f}", "bytes on disk for each byte sent"))
    cards = "".join(f'<div class="card"><b>{escape(value)}</b><span class="soft">{escape(what)}</span></div>'
                    for value, what in rows)  # fmt: skip
    return f'<div class="big">{cards}</div>'


def _count(point: Point) -> str:
    return f"{point.clients} client{'s' * (point.clients > 1)}"


def _sections(report: Report) -> Iterator[tuple[str, str]]:
    if report.verdict.store_limits or report.verdict.read_limits:
        yield "Headroom", _headroom(report)
    sweeps = [sweep for name in _SWEEPS if (sweep := report.sweep(name)) is not None and sweep.points]
    if sweeps:
        yield "Latency over load", _cards(_latency_plot(sweep) for sweep in sweeps)
        yield "Throughput over load", _cards(_rate_plot(sweep) for sweep in sweeps) + _details(_sweep_table(sweeps))
    if report.stages:
        yield "Where the time of an ingest goes", _stages(report)
    if report.kinds:
        yield "Kinds of images", f'<div class="card scroll">{_kinds(report)}</div>'
    if report.codecs:
        yield "Codecs on the cores", _codecs(report)
    if report.disk is not None:
        yield "Disk and index", _disk(report, report.disk)
    if report.soak is not None:
        yield f"Steady load, {report.soak.minutes:g} minutes", _soak(report.soak)


def _cards(bodies: Iterable[str], size: str = "") -> str:
    return f'<div class="grid-of {size}">{"".join(_card(body) for body in bodies if body)}</div>'


def _card(body: str) -> str:
    return f'<div class="card">{body}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Texts are escaped."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _details(body: str) -> str:
    return f'<details><summary>the figures</summary><div class="card scroll">{body}</div></details>'


def _headroom(report: Report) -> str:
    found = []
    verdict = report.verdict
    for title, findings in (("when storing", verdict.store_limits), ("when reading", verdict.read_limits)):
        rows = [
            (finding.what, finding.share, f"{number(finding.used)} of {number(finding.limit)} {finding.unit}")
            for finding in findings
        ]
        if rows:
            found.append(f"<h3>Used {title} the most</h3>" + plots.headroom(rows, f"used {title}"))
    return _cards(found)


def _clients(sweep: Sweep) -> Axis:
    return Axis("clients", log=True, ticks=[float(point.clients) for point in sweep.points])


def _latency_plot(sweep: Sweep) -> str:
    rows = [
        Line(name, [(point.clients, max(getattr(point.latency, name), 0.001)) for point in sweep.points])
        for name in ("p50", "p95", "p99")
    ]
    plot = plots.lines(rows, _clients(sweep), Axis("ms", log=True), f"{sweep.title}: latency over clients")
    return f"<h3>{escape(sweep.title)}</h3>{plot}"


def _rate_plot(sweep: Sweep) -> str:
    points = [(float(point.clients), point.rate) for point in sweep.points]
    plot = plots.lines([Line(sweep.unit, points)], _clients(sweep), Axis(sweep.unit, first=0.0),
                       f"{sweep.title}: throughput over clients")  # fmt: skip
    return f"<h3>{escape(sweep.title)}</h3>{plot}"


def _sweep_table(sweeps: Sequence[Sweep]) -> str:
    head = ("", "clients", "rate", "", "MB/s", "p50 ms", "p95 ms", "p99 ms", "server cores", "client cores")
    return table(head, (
        (sweep.title, str(point.clients), number(point.rate), sweep.unit, number(point.bytes_per_second / 1e6),
         number(point.latency.p50), number(point.latency.p95), number(point.latency.p99),
         "" if point.server_cores is None else number(point.server_cores), number(point.client_cores))
        for sweep in sweeps for point in sweep.points
    ))  # fmt: skip


def _stages(report: Report) -> str:
    cards = []
    for stages in report.stages:
        parts = plots.shares(list(stages.parts.items()), "ms", f"{stages.kind}: stages of an ingest")
        head = f"{stages.kind}, {stages.raw_bytes / 1e6:.1f} MB: {number(stages.wall)} ms an instance"
        cards.append(
            f"<h3>{escape(head)}</h3>{parts}"
            f'<p class="soft">All cores encode and prove {number(stages.ceiling)} a second: the ceiling.</p>'
        )
    return (
        "<p>Instances stored one after another, without HTTP. From several clients the syncs and transactions of one "
        "commit are shared by many instances.</p>" + _cards(cards, "small")
    )


def _kinds(report: Report) -> str:
    head = ("", "size", "MB", "stored/s", "MB/s", "p95 ms", "frames/s", "p95 ms")
    return table(head, (
        (kind.kind, kind.shape, number(kind.raw_bytes / 1e6), number(kind.store.rate),
         number(kind.store.bytes_per_second / 1e6), number(kind.store.latency.p95),
         number(kind.frames.rate) if kind.frames else "", number(kind.frames.latency.p95) if kind.frames else "")
        for kind in report.kinds
    ))  # fmt: skip


def _codecs(report: Report) -> str:
    cards = []
    for action in ("encode", "decode"):
        rows = [
            Line(_codec_name(codec), [(float(threads), rate / 1e6) for threads, rate in codec.by_threads.items()])
            for codec in report.codecs if codec.action == action and codec.image in ("CT", "US")
        ]  # fmt: skip
        ticks = [float(threads) for threads in report.codecs[0].by_threads]
        plot = plots.lines(rows, Axis("threads", log=len(ticks) > 2, ticks=ticks), Axis("MB/s", log=True),
                           f"{action}: throughput over cores")  # fmt: skip
        cards.append(f"<h3>{action.capitalize()}, throughput over cores</h3>{plot}")
    if len(report.cores) > 1:
        plot = plots.bars([rate / 1e6 for rate in report.cores], "core", "MB/s", "each core alone")
        cards.append(f"<h3>HTJ2K encoding on each core alone</h3>{plot}")
    threads = list(report.codecs[0].by_threads)
    figures = (
        (f"{codec.name}, {codec.image}", codec.action, f"{codec.ratio:.2f}",
         *(number(codec.by_threads.get(count, 0.0) / 1e6) for count in threads))
        for codec in report.codecs
    )  # fmt: skip
    head = ("", "", "ratio", *(f"MB/s, {count} thread{'s' * (count != '1')}" for count in threads))
    return _cards(cards) + _details(table(head, figures))


def _codec_name(codec: Codec) -> str:
    return codec.name if codec.image == "CT" else f"{codec.name}, {codec.image}"


def _disk(report: Report, disk: Disk) -> str:
    rows = [
        ("sequential write, to the end of the sync", f"{number(disk.write / 1e6)} MB/s"),
        ("sequential read, not cached", f"{number(disk.read_cold / 1e6)} MB/s" if disk.read_cold else disk.cold),
        ("sequential read, cached", f"{number(disk.read_warm / 1e6)} MB/s"),
        *((f"random reads of {name}", f"{number(rate)} a second") for name, rate in disk.random_rate.items()),
    ]
    if report.index is not None:
        rows += [
            (f"LMDB commits of {count} KB", f"{number(rate)} a second")
            for count, rate in report.index.by_batch.items()
        ]
        rows.append(("LMDB look-ups, one thread", f"{number(report.index.look_ups)} a second"))
    system = disk.file_system
    name = f"{system.get('type', '?')} on {system.get('device', '?')}, {disk.free_bytes / 1e9:.0f} GB free"
    syncs = dict(disk.syncs)
    if report.index is not None:
        syncs["LMDB commit of 1 KB"] = report.index.latency
    return _cards((
        f"<h3>{escape(name)}</h3>" + table(("", ""), rows),
        f"<h3>How long a sync takes</h3>{_distribution(syncs)}",
        f"<h3>How long a random read takes</h3>{_distribution(disk.random)}",
    ))  # fmt: skip


def _distribution(by_name: dict[str, Latency]) -> str:
    rows = [
        Line(name, [(max(value, 1e-4), step * 2.0) for step, value in enumerate(found.curve)])
        for name, found in by_name.items() if found.curve
    ]  # fmt: skip
    plot = plots.lines(rows, Axis("ms", log=True), Axis("% done", ticks=(0, 25, 50, 75, 100)), "distribution")
    figures = table(("", "p50 ms", "p95", "p99", "most"), (
        (name, number(found.p50), number(found.p95), number(found.p99), number(found.most))
        for name, found in by_name.items()
    ))  # fmt: skip
    return plot + f'<div class="scroll">{figures}</div>'


def _soak(soak: Soak) -> str:
    minutes = [window.begin / 60 for window in soak.windows]
    names = sorted({name for window in soak.windows for name in window.rates})

    def over_time(value: str) -> list[Line]:
        return [
            Line(name, [(at, max(getattr(window.latencies[name], value), 0.001))
                        for at, window in zip(minutes, soak.windows, strict=True) if name in window.latencies])
            for name in names
        ]  # fmt: skip

    rates = [
        Line(name, [(at, window.rates.get(name, 0.0)) for at, window in zip(minutes, soak.windows, strict=True)])
        for name in names
    ]
    memory = [(at, window.memory / 1e6) for at, window in zip(minutes, soak.windows, strict=True) if window.memory]
    x = Axis("minutes")
    cards = [
        "<h3>Median latency</h3>" + plots.lines(over_time("p50"), x, Axis("ms", log=True), "median over time"),
        "<h3>99 of 100</h3>" + plots.lines(over_time("p99"), x, Axis("ms", log=True), "99th percentile over time"),
        "<h3>Requests a second</h3>" + plots.lines(rates, x, Axis("1/s", log=True), "rates over time"),
    ]
    if memory:
        cards.append("<h3>Memory of the server</h3>"
                     + plots.lines([Line("MB", memory)], x, Axis("MB", first=0.0), "memory over time"))  # fmt: skip
    changes = ((name, f"{ratio:.2f} x") for name, ratio in soak.drift.items())
    drift = table(("last quarter against the first", ""), changes)
    return _cards(cards) + f'<div class="card scroll" style="margin-top:14px">{drift}</div>'
