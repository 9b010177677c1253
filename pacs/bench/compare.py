"""Two reports beside each other: two nodes, or two versions on one."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from pacs.bench import page
from pacs.bench.model import Report
from pacs.bench.plots import number
from pacs.bench.summary import columns

NOISE = 0.1
"""Differences below this are not worth a word: a run on a busy machine differs from itself by as much."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both."""

    group: str
    name: str
    unit: str
    first: float
    second: float
    more_is_better: bool = True

    @property
    def ratio(self) -> float:
        """Above 1 the second is better."""
        return self.second / self.first if self.more_is_better else self.first / self.second

    @property
    def verdict(self) -> str:
        return "better" if self.ratio > 1 + NOISE else "worse" if self.ratio < 1 / (1 + NOISE) else ""


def rows(first: Report, second: Report) -> list[Row]:
    """Every figure that both have."""
    ours, theirs = dict(_figures(first)), dict(_figures(second))
    return [
        Row(group, name, unit, value, theirs[group, name][0], more)
        for (group, name), (value, unit, more) in ours.items()
        if (group, name) in theirs and value > 0 and theirs[group, name][0] > 0
    ]


def _figures(report: Report) -> Iterator[tuple[tuple[str, str], tuple[float, str, bool]]]:
    verdict = report.verdict
    yield ("in short", "CT studies of 300 slices"), (verdict.ct_studies_per_hour, "an hour", True)
    yield ("in short", "readers at a time"), (verdict.readers, "", True)
    for sweep in report.sweeps:
        for point in sweep.points:
            name = f"{sweep.title}, {point.clients} client{'s' * (point.clients > 1)}"
            yield ("over HTTP", name), (point.rate, sweep.unit, True)
            yield ("over HTTP", f"{name}, p99"), (point.latency.p99, "ms", False)
        if "first_ms" in sweep.detail:
            yield ("over HTTP", f"{sweep.title}, the first time"), (float(sweep.detail["first_ms"]), "ms", False)
    for kind in report.kinds:
        yield ("kinds of images", f"{kind.kind}, stored"), (kind.store.rate, "instances/s", True)
        if kind.frames is not None:
            yield ("kinds of images", f"{kind.kind}, frames"), (kind.frames.rate, "frames/s", True)
    for stages in report.stages:
        yield ("an ingest", f"{stages.kind}, one after another"), (stages.wall, "ms", False)
        yield ("an ingest", f"{stages.kind}, encode and proof alone"), (stages.ceiling, "instances/s", True)
    for codec in report.codecs:
        for threads, rate in codec.by_threads.items():
            name = f"{codec.name}, {codec.image}, {codec.action}, {threads} thread{'s' * (threads != '1')}"
            yield ("codecs", name), (rate / 1e6, "MB/s", True)
    if report.disk is not None:
        yield ("disk", "sequential write"), (report.disk.write / 1e6, "MB/s", True)
        yield ("disk", "sequential read, cold"), ((report.disk.read_cold or 0.0) / 1e6, "MB/s", True)
        for name, found in report.disk.syncs.items():
            yield ("disk", f"{name}, p50"), (found.p50, "ms", False)
            yield ("disk", f"{name}, p99"), (found.p99, "ms", False)
        for name, rate in report.disk.random_rate.items():
            yield ("disk", f"random reads, {name}"), (rate, "a second", True)
    if report.index is not None:
        for batch, rate in report.index.by_batch.items():
            yield ("disk", f"LMDB commits of {batch} KB"), (rate, "a second", True)
    if report.stored.get("sent"):
        share = report.stored.get("on_disk", 0) / report.stored["sent"]
        yield ("memory and disk", "bytes on disk for each sent"), (share, "", False)
    yield ("memory and disk", "most memory of the server"), (report.memory.get("peak", 0) / 1e6, "MB", False)


def names(first: Report, second: Report) -> tuple[str, str]:
    """How the two are told apart: by node, by version, by date, whichever differs."""
    def named(report: Report) -> list[str]:
        where = str(report.node.get("host", "?")) if report.own_server else report.target
        return [where, f"pacs {report.version}", str(report.node.get("date", "?"))[:19].replace("T", " ")]

    one, other = named(first), named(second)
    for place in range(len(one)):
        if one[place] != other[place]:
            return one[place], other[place]
    return "the first", "the second"


def cautions(first: Report, second: Report) -> Iterator[str]:
    """What makes a comparison worth less."""
    for key in ("size", "seconds", "shrink", "clients"):
        if first.options.get(key) != second.options.get(key):
            yield f"the runs differ in {key}: {first.options.get(key)} and {second.options.get(key)}"
    for report in (first, second):
        load, cores = float(report.node.get("load_average_before", 0)), int(report.node.get("cores", 1))
        if load > 0.5 * cores:
            yield f"{report.node.get('host', '?')} was busy before {report.node.get('date', '?')}, load {load}"


def summary(found: list[Row], first: Report, second: Report, width: int = 100) -> Iterator[str]:
    """For the terminal: what differs by more than noise first, then everything."""
    name, other = names(first, second)
    for caution in cautions(first, second):
        yield from textwrap.wrap(f"note: {caution}", width, subsequent_indent="  ")
    differing = [row for row in found if row.verdict]
    yield from textwrap.wrap(f"{other} against {name}: {_verdict(found)}", width, subsequent_indent="  ")
    group = ""
    cells: list[tuple[str, ...]] = []
    for row in found:
        if row.group != group:
            group = row.group
            cells.append((group, "", "", "", "", ""))
        mark = {"better": "+", "worse": "-"}.get(row.verdict, "")
        cells.append((f"  {row.name}", number(row.first), number(row.second), row.unit, f"{row.ratio:.2f} x", mark))
    yield ""
    yield from columns(("", name[:19], other[:19], "", "ratio", ""), cells, width)
    yield ""
    legend = f"above 1 {other} is better; + and - mark what differs by more than {NOISE:.0%}: {len(differing)} figures"
    yield from textwrap.wrap(legend, width, subsequent_indent="  ")


def _verdict(found: list[Row]) -> str:
    better = sum(row.verdict == "better" for row in found)
    worse = sum(row.verdict == "worse" for row in found)
    return f"better in {better} figures, worse in {worse}, about the same in {len(found) - better - worse}"


def render(found: list[Row], first: Report, second: Report) -> str:
    """The comparison as one HTML file."""
    name, other = names(first, second)
    title = f"{other} against {name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_verdict(found))}; bars to the right: {escape(other)} is better. '
        "A bar of full length is four times or more.</p>",
    ]
    parts += [f'<p class="worse">Note: {escape(caution)}.</p>' for caution in cautions(first, second)]
    for report, label in ((first, name), (second, other)):
        node = report.node
        told = f"{node.get('processor', '')}, {node.get('cores', '?')} cores, pacs {report.version}, {node.get('date')}"
        parts.append(f'<p class="soft"><b>{escape(label)}</b>: {escape(told)}</p>')
    for group in dict.fromkeys(row.group for row in found):
        lines = "".join(_line(row) for row in found if row.group == group)
        head = f"<tr><th></th><th>{escape(name)}</th><th>{escape(other)}</th><th></th><th>ratio</th><th></th></tr>"
        parts.append(f'<h2>{escape(group)}</h2><div class="card scroll"><table><thead>{head}</thead>'
                     f"<tbody>{lines}</tbody></table></div>")  # fmt: skip
    return page.document(title, parts)


def _line(row: Row) -> str:
    cells = (row.name, number(row.first), number(row.second), row.unit)
    kind = row.verdict or "soft"
    return ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + f'<td class="{kind}">{row.ratio:.2f} x</td><td>{_bar(row)}</td></tr>')  # fmt: skip


def _bar(row: Row) -> str:
    """From the middle to the right where the second is better, to the left where it is worse; logarithmic."""
    share = max(-1.0, min(1.0, math.log(row.ratio) / math.log(4)))
    x, width = (60, 60 * share) if share > 0 else (60 + 60 * share, -60 * share)
    kind = {"better": "c2", "worse": "c7"}.get(row.verdict, "c6")
    return (
        '<svg width="120" height="12" viewBox="0 0 120 12" aria-hidden="true">'
        '<line class="grid" x1="60" x2="60" y1="0" y2="12"/>'
        f'<rect class="fill {kind}" x="{x:.1f}" y="2" width="{max(width, 0.5):.1f}" height="8"/></svg>'
    )
