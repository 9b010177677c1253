"""A report for the terminal: what it says in words, then the figures that carry it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from pacs.bench.model import Report
from pacs.bench.plots import number

_LEAST = 12
"""Columns for the name of a figure."""
_OVER = " more than there is"


def lines(report: Report, width: int = 100) -> Iterator[str]:
    """Lines of at most `width` columns, as far as names allow it."""
    width = max(60, min(width, 110))
    for line in report.verdict.lines:
        yield from textwrap.wrap(line, width, subsequent_indent="  ")
    for title, head, rows in _tables(report):
        if title:
            yield ""
            yield title
        yield from columns(head, rows, width)
    yield from _used(report, width)
    for note in report.notes:
        yield ""
        yield from textwrap.wrap(f"not measured, {note}", width, subsequent_indent="  ")


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """A table with its first column to the left, folded where the line has no room for it, the others to the right."""
    every = [head, *rows]
    first, *others = (max(len(row[place]) for row in every) for place in range(len(head)))
    first = max(_LEAST, min(first, width - sum(others) - 2 * len(others) - 2))
    for row in every:
        indent = " " * (len(row[0]) - len(row[0].lstrip()))
        *above, name = textwrap.wrap(row[0], first, subsequent_indent=f"{indent}  ") or [""]
        yield from (f"  {line}" for line in above)
        rest = "".join(f"  {cell:>{room}}" for cell, room in zip(row[1:], others, strict=True))
        yield f"  {name:<{first}}{rest}".rstrip()


def _tables(report: Report) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    if report.disk is not None:
        yield "disk and index", ("", "p50 ms", "p99 ms"), [
            (name, number(found.p50), number(found.p99)) for name, found in (*report.disk.syncs.items(),
             *((f"read of {name}", found) for name, found in report.disk.random.items()))
        ]  # fmt: skip
        cold = f"{number(report.disk.read_cold / 1e6)} MB/s" if report.disk.read_cold else "not to be had"
        written = f"{number(report.disk.write / 1e6)} MB/s"
        rows = [("sequential write, synced", written), ("sequential read, cold", cold)]
        if report.index is not None:
            rows += [
                (f"LMDB, commits of {batch} KB", f"{number(rate)}/s") for batch, rate in report.index.by_batch.items()
            ]
        yield "", ("", ""), rows
    if report.codecs:
        threads = list(report.codecs[0].by_threads)
        yield "codecs, MB/s of samples", ("", "", *(f"{count} thr." for count in threads)), [
            (f"{codec.name}, {codec.image}", codec.action,
             *(number(codec.by_threads.get(count, 0.0) / 1e6) for count in threads))
            for codec in report.codecs
        ]  # fmt: skip
    if report.stages:
        names = list(report.stages[0].parts)
        yield "an ingest, ms", ("", *(stages.kind for stages in report.stages)), [
            *((name, *(number(stages.parts.get(name, 0.0)) for stages in report.stages)) for name in names),
            ("together", *(number(stages.wall) for stages in report.stages)),
        ]  # fmt: skip
    if report.sweeps:
        yield "over HTTP", ("", "clients", "rate", "", "p50 ms", "p95 ms", "p99 ms"), [
            (sweep.title if place == 0 else "", str(point.clients), number(point.rate), sweep.unit,
             number(point.latency.p50), number(point.latency.p95), number(point.latency.p99))
            for sweep in report.sweeps for place, point in enumerate(sweep.points)
        ]  # fmt: skip
    if report.kinds:
        yield "kinds of images", ("", "stored/s", "MB/s", "frames/s"), [
            (f"{kind.kind}, {kind.shape}", number(kind.store.rate), number(kind.store.bytes_per_second / 1e6),
             number(kind.frames.rate) if kind.frames else "")
            for kind in report.kinds
        ]  # fmt: skip


def _used(report: Report, width: int) -> Iterator[str]:
    """Bars of how much of each limit was used."""
    length = max(8, min(30, width - len(_OVER) - 46))
    for title, findings in (("storing", report.verdict.store_limits), ("reading", report.verdict.read_limits)):
        if not findings:
            continue
        yield ""
        yield f"used when {title} the most"
        for finding in findings:
            bar = "#" * min(length, round(finding.share * length))
            over = _OVER if finding.share > 1 else ""
            yield f"  {finding.what:<36}{finding.share:>5.0%} |{bar:<{length}}|{over}"
