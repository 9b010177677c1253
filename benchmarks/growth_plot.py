"""What `python -m benchmarks growth` found: a table, and curves as one SVG with a style of its own, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from benchmarks import report
from pacs.bench.plots import HEIGHT, WIDTH, Axis, Line, lines

_STYLE = """
svg { --text: #1c2126; --soft: #5b6670; --line: #dfe3e7; --c: #0067a5; --page: #fff; }
@media (prefers-color-scheme: dark) {
  svg { --text: #e6e9ec; --soft: #9aa5af; --line: #343c44; --c: #5ab0ea; --page: #12161a; } }
.title { font: 600 14px system-ui, sans-serif; fill: var(--text); }
.tick, .label { font: 12px system-ui, sans-serif; fill: var(--soft); }
.grid { stroke: var(--line); } .line { fill: none; stroke: var(--c); stroke-width: 2; } .dot { fill: var(--c); }
.d1 { stroke-dasharray: 6 3; }
.page { fill: var(--page); }
"""
_SEARCH = ("search_p50_ms", "search_p99_ms")
_PANELS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    # title, unit, the figures, the kind of search
    ("ingest through the API", "instances/s", ("ingest_per_second",), ""),
    ("ingest by STOW-RS, one instance a request", "instances/s", ("stow_per_second",), "1 a request"),
    ("search by an exact key, p50 and p99", "ms", _SEARCH, "exact key"),
    ("search by the beginning of a name and a day", "ms", _SEARCH, "wildcard"),
    ("search over a month", "ms", _SEARCH, "range"),
    ("search for *a*", "ms", _SEARCH, "broad"),
    ("metadata of a series, p50 and p99", "ms", ("metadata_p50_ms", "metadata_p99_ms"), ""),
    ("start of the server, after a boot dashed", "s", ("start_seconds", "start_after_boot_seconds"), ""),
    ("pacs check", "instances/s", ("check_per_second",), ""),
    ("pacs reindex", "instances/s", ("reindex_per_second",), ""),
    ("index, an instance; rebuilt dashed", "bytes", ("index_bytes_per_instance", "reindexed_bytes_per_instance"), ""),
)
_COLUMNS, _GAP, _HEAD, _SIDE = 2, 30, 26, 14


def draw(sizes: Sequence[dict[str, Any]]) -> str:
    """A panel for each cost, from nothing upwards: what does not grow is level."""
    parts = []
    panels = [panel for panel in _PANELS if not panel[3] or all(panel[3] in size[panel[2][0]] for size in sizes)]
    for place, (title, unit, names, kind) in enumerate(panels):
        x = _SIDE + place % _COLUMNS * (WIDTH + _GAP)
        y = place // _COLUMNS * (HEIGHT + _HEAD + _GAP)
        rows = [Line(name, [(float(size["instances"]), _value(size, name, kind)) for size in sizes]) for name in names]
        ticks = [float(size["instances"]) for size in sizes]
        across = Axis("instances", log=True, ticks=ticks, text=lambda value: f"{value:,.0f}")
        plot = lines(rows, across, Axis(unit, first=0.0), title)
        plot = plot[plot.index('<svg class="plot"') :]  # without its legend: p50 is solid, p99 dashed
        plot = plot.replace(
            "<svg ", f'<svg overflow="visible" x="{x}" y="{y + _HEAD}" width="{WIDTH}" height="{HEIGHT}" ', 1
        )
        parts.append(f'<text class="title" x="{x + 8}" y="{y + 16}">{escape(title)}</text>{plot}')
    width = 2 * _SIDE + _COLUMNS * WIDTH + (_COLUMNS - 1) * _GAP
    height = -(-len(panels) // _COLUMNS) * (HEIGHT + _HEAD + _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{_STYLE}</style><rect class="page" width="{width}" height="{height}"/>{"".join(parts)}</svg>\n'
    )


def _value(size: dict[str, Any], name: str, kind: str) -> float:
    return float(size[name][kind] if kind else size[name])


def table(sizes: Sequence[dict[str, Any]]) -> str:
    """In Markdown, a column for each size."""
    rows: list[tuple[str, str, Callable[[dict[str, Any]], float]]] = [
        ("ingest", "instances/s", lambda size: size["ingest_per_second"]),
        ("start of the server", "s", lambda size: size["start_seconds"]),
        ("the same after a boot", "s", lambda size: size["start_after_boot_seconds"]),
    ]

    def of(key: str, name: str) -> Callable[[dict[str, Any]], float]:
        return lambda size: float(size[key][name])

    for name in sizes[0]["stow_per_second"]:
        rows.append((f"STOW, {name}, 4 clients", "instances/s", of("stow_per_second", name)))
    for name in sizes[0]["search_p50_ms"]:
        rows.append((f"search, {name}, p50", "ms", of("search_p50_ms", name)))
        rows.append((f"search, {name}, p99", "ms", of("search_p99_ms", name)))
        rows.append((f"search, {name}, CPU of the server", "ms", of("search_cpu_ms", name)))
    for name in sizes[0]["index_pages"]:
        rows.append((f"index read from disk, {name}", "pages", of("index_pages", name)))
    for label, unit, key in (
        ("STOW of one instance, p50", "ms", "stow_p50_ms"), ("STOW of one instance, p99", "ms", "stow_p99_ms"),
        ("STOW of one instance, CPU of the server", "ms", "stow_cpu_ms"),
        ("metadata of a series, p50", "ms", "metadata_p50_ms"), ("metadata of a series, p99", "ms", "metadata_p99_ms"),
        ("frame, p50", "ms", "frame_p50_ms"), ("frame, p99", "ms", "frame_p99_ms"),
        ("`pacs check`", "instances/s", "check_per_second"), ("`pacs reindex`", "instances/s", "reindex_per_second"),
        ("`pacs check`, CPU", "ms an instance", "check_cpu_ms"),
        ("`pacs reindex`, CPU", "ms an instance", "reindex_cpu_ms"),
        ("memory of `pacs check`", "MB", "check_MB"), ("memory of `pacs reindex`", "MB", "reindex_MB"),
        ("index, an instance", "bytes", "index_bytes_per_instance"),
        ("the same, rebuilt", "bytes", "reindexed_bytes_per_instance"),
        ("on disk, an instance", "bytes", "disk_bytes_per_instance"), ("memory of the server", "MB", "memory_MB"),
    ):  # fmt: skip
        rows.append((label, unit, lambda size, key=key: float(size[key])))  # type: ignore[misc]
    head = "| | unit | " + " | ".join(f"{size['instances']:,}" for size in sizes) + " |"
    lines = [head, "| --- | --- |" + " --: |" * len(sizes)]
    lines += [f"| {label} | {unit} | " + " | ".join(report.number(value(size)) for size in sizes) + " |"
              for label, unit, value in rows]  # fmt: skip
    return "\n".join(lines)
