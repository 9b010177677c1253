"""Figures and how they are shown: one row a case, one column a server, the ratio to the first rival."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value."""

    benchmark: str
    case: str
    server: str
    value: float
    unit: str
    more_is_better: bool = True
    detail: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def table(figures: Iterable[Figure]) -> str:
    """A table for the terminal. Ratios are turned so that above 1 the first server is ahead."""
    rows: dict[tuple[str, str, str], dict[str, Figure]] = {}
    servers: list[str] = []
    for figure in figures:
        rows.setdefault((figure.benchmark, figure.case, figure.unit), {})[figure.server] = figure
        if figure.server not in servers:
            servers.append(figure.server)
    if not rows:
        return "nothing was measured"
    width = max(len(case) for _, case, _ in rows) + 4
    unit_width = max(len(unit) for _, _, unit in rows) + 2
    head = f"{'':{width}}{'':{unit_width}}" + "".join(f"{name:>12}" for name in servers)
    if len(servers) > 1:
        head += "".join(f"{'/ ' + name:>12}" for name in servers[1:])
    lines = [head]
    previous = ""
    for (benchmark, case, unit), by_server in rows.items():
        if benchmark != previous:
            lines += ["", benchmark]
            previous = benchmark
        line = f"  {case:{width - 2}}{unit:{unit_width}}"
        line += "".join(f"{number(by_server[name].value) if name in by_server else '':>12}" for name in servers)
        own = by_server.get(servers[0])
        for name in servers[1:]:
            other = by_server.get(name)
            line += f"{ratio(own, other) if own and other else '':>12}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def ratio(own: Figure, other: Figure) -> str:
    if not own.value or not other.value:
        return ""
    value = own.value / other.value if own.more_is_better else other.value / own.value
    return f"{value:.2f} x"


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
