"""The curves of `python -m benchmarks growth` as one SVG that carries its own style, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

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
    ("ingest", "instances/s", ("ingest_per_second",), ""),
    ("search by an exact key, p50 and p99", "ms", _SEARCH, "exact key"),
    ("search by the begin of a name and a day", "ms", _SEARCH, "wildcard"),
    ("search over a month", "ms", _SEARCH, "range"),
    ("search for *a*", "ms", _SEARCH, "broad"),
    ("metadata of a series, p50 and p99", "ms", ("metadata_p50_ms", "metadata_p99_ms"), ""),
    ("start of the server", "s", ("start_seconds",), ""),
    ("pacs check", "instances/s", ("check_per_second",), ""),
    ("pacs reindex", "instances/s", ("reindex_per_second",), ""),
    ("index, an instance", "bytes", ("index_bytes_per_instance",), ""),
)
_COLUMNS, _GAP, _HEAD = 2, 30, 26


def draw(sizes: Sequence[dict[str, Any]]) -> str:
    """A panel for each cost, from nothing upwards: what does not grow is level."""
    parts = []
    panels = [panel for panel in _PANELS if not panel[3] or all(panel[3] in size[panel[2][0]] for size in sizes)]
    for place, (title, unit, names, kind) in enumerate(panels):
        x = place % _COLUMNS * (WIDTH + _GAP)
        y = place // _COLUMNS * (HEIGHT + _HEAD + _GAP)
        rows = [Line(name, [(float(size["instances"]), _value(size, name, kind)) for size in sizes]) for name in names]
        ticks = [float(size["instances"]) for size in sizes]
        across = Axis("instances", log=True, ticks=ticks, text=lambda value: f"{value:,.0f}")
        plot = lines(rows, across, Axis(unit, first=0.0), title)
        plot = plot[plot.index('<svg class="plot"') :]  # without its legend: p50 is solid, p99 dashed
        plot = plot.replace("<svg ", f'<svg x="{x}" y="{y + _HEAD}" width="{WIDTH}" height="{HEIGHT}" ', 1)
        parts.append(f'<text class="title" x="{x + 8}" y="{y + 16}">{escape(title)}</text>{plot}')
    width = _COLUMNS * WIDTH + (_COLUMNS - 1) * _GAP
    height = -(-len(panels) // _COLUMNS) * (HEIGHT + _HEAD + _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{_STYLE}</style><rect class="page" width="{width}" height="{height}"/>{"".join(parts)}</svg>\n'
    )


def _value(size: dict[str, Any], name: str, kind: str) -> float:
    return float(size[name][kind] if kind else size[name])
