"""Plots as SVG inside HTML: colours and fonts come from the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH, HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 10, 38
COLOURS: Final = 8
"""Classes c0 … c7 of the style sheet."""


@dataclass(frozen=True, slots=True)
class Line:
    """A named row of points."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """What is along an axis. `first` widens its range."""

    label: str
    log: bool = False
    first: float | None = None
    ticks: Sequence[float] = ()
    text: Callable[[float], str] | None = None


def number(value: float) -> str:
    """Short, for ticks and labels."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:,.0f}k"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def lines(rows: Sequence[Line], x: Axis, y: Axis, name: str) -> str:
    """A plot with its legend; `name` says what it shows to those who do not see it."""
    rows = [line for line in rows if line.points]
    if not rows:
        return ""
    across = _Scale(x, [point[0] for line in rows for point in line.points], _LEFT, WIDTH - _RIGHT)
    up = _Scale(y, [point[1] for line in rows for point in line.points], HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(across, up, x, y)]
    for place, line in enumerate(rows):
        colour = f"c{place % COLOURS}"
        path = " ".join(f"{across.at(px):.1f},{up.at(py):.1f}" for px, py in line.points)
        parts.append(f'<polyline class="line {colour} d{place % 4}" points="{path}"/>')
        if len(line.points) <= 20:
            for px, py in line.points:
                told = f"{line.name}: {across.text(px)} {x.label}, {number(py)} {y.label}"
                parts.append(
                    f'<circle class="dot {colour}" cx="{across.at(px):.1f}" cy="{up.at(py):.1f}" r="3.5">'
                    f"<title>{escape(told)}</title></circle>"
                )
    figure = _svg(HEIGHT, name, parts)
    return (legend([line.name for line in rows]) if len(rows) > 1 else "") + figure


def bars(values: Sequence[float], x: str, y: str, name: str) -> str:
    """A bar for each value, numbered from 0."""
    up = _Scale(Axis(y, first=0.0), values, HEIGHT - _BOTTOM, _TOP)
    wide = (WIDTH - _RIGHT - _LEFT) / len(values)
    every = max(1, len(values) // 12)
    across = _Scale(Axis(x, ticks=[float(place) for place in range(0, len(values), every)]),
                    [0.0, float(len(values) - 1)], _LEFT + wide / 2, WIDTH - _RIGHT - wide / 2)  # fmt: skip
    parts = [_grid(across, up, Axis(x), Axis(y))]
    for place, value in enumerate(values):
        top = up.at(value)
        parts.append(
            f'<rect class="fill c0" x="{across.at(place) - min(20.0, wide * 0.4):.1f}" y="{top:.1f}" '
            f'width="{min(40.0, wide * 0.8):.1f}" height="{HEIGHT - _BOTTOM - top:.1f}">'
            f"<title>{place}: {number(value)} {escape(y)}</title></rect>"
        )
    return _svg(HEIGHT, name, parts)


def legend(names: Sequence[str]) -> str:
    """Names beside their colours."""
    items = (
        f'<span><svg class="key" viewBox="0 0 22 8" aria-hidden="true"><line class="line c{place % COLOURS} '
        f'd{place % 4}" x1="0" y1="4" x2="22" y2="4"/></svg>{escape(name)}</span>'
        for place, name in enumerate(names)
    )
    return f'<div class="legend">{"".join(items)}</div>'


def shares(parts: Sequence[tuple[str, float]], unit: str, name: str) -> str:
    """One bar of parts, and a list of what they are."""
    whole = sum(value for _, value in parts) or 1.0
    bar, items, at = [], [], 0.0
    for place, (part, value) in enumerate(parts):
        width = value / whole * WIDTH
        told = f"{part}: {number(value)} {unit}, {value / whole:.0%}"
        bar.append(
            f'<rect class="fill c{place % COLOURS}" x="{at:.1f}" y="0" width="{max(0.0, width - 1):.1f}" height="26">'
            f"<title>{escape(told)}</title></rect>"
        )
        at += width
        items.append(
            f'<li><i class="fill c{place % COLOURS}"></i><span>{escape(part)}</span><b>{number(value)} {unit}</b>'
            f"<em>{value / whole:.0%}</em></li>"
        )
    return f'{_svg(26, name, bar, stretch=True)}<ul class="parts">{"".join(items)}</ul>'


def headroom(rows: Sequence[tuple[str, float, str]], name: str) -> str:
    """Bars of how much of each limit is used; what is above the whole is cut and said."""
    items = []
    for what, share, text in rows:
        state = "over" if share > 1 else "near" if share >= 0.7 else "free"
        items.append(
            f'<li><span>{escape(what)}</span><b>{share:.0%}</b><div class="track"><div class="{state}" '
            f'style="width:{min(1.0, share):.1%}"></div></div><em>{escape(text)}</em></li>'
        )
    return f'<ul class="headroom" aria-label="{escape(name)}">{"".join(items)}</ul>'


def _svg(height: int, name: str, parts: Sequence[str], *, stretch: bool = False) -> str:
    fit = ' preserveAspectRatio="none"' if stretch else ""
    kind = "bar" if stretch else "plot"
    return (
        f'<svg class="{kind}" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name)}"{fit}>'
        f"{''.join(parts)}</svg>"
    )


class _Scale:
    """Values of an axis to places in the drawing, and round numbers along it."""

    def __init__(self, axis: Axis, values: Sequence[float], begin: float, end: float) -> None:
        self._log = axis.log
        self._text = axis.text or number
        least, most = min(values), max(values)
        if axis.first is not None:
            least = min(least, axis.first)
        if axis.log:
            least, most = max(least, most * 1e-6, 1e-9), max(most, 1e-9)
            self.ticks = list(axis.ticks) or _decades(least, most)
        else:
            self.ticks = list(axis.ticks) or _round(least, most)
        least, most = min(least, *self.ticks), max(most, *self.ticks)
        if most == least:
            most = least * 2 or 1.0
        self._least, self._most, self._begin, self._end = least, most, begin, end

    def at(self, value: float) -> float:
        if self._log:
            value = max(value, self._least)
            share = math.log(value / self._least) / math.log(self._most / self._least)
        else:
            share = (value - self._least) / (self._most - self._least)
        return self._begin + share * (self._end - self._begin)

    def text(self, value: float) -> str:
        return self._text(value)


def _decades(least: float, most: float) -> list[float]:
    """1, 2, 5 of each power of ten around the values; every power alone where that would be many."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    steps = (1, 2, 5) if high - low <= 2 else (1, 3) if high - low == 3 else (1,)
    found = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    above = [value for value in found if value >= most * 0.999][:1]
    below = [value for value in found if value <= least * 1.001][-1:]
    return below + [value for value in found if least * 1.001 < value < most * 0.999] + above


def _round(least: float, most: float) -> list[float]:
    span = most - least or abs(most) or 1.0
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.floor(least / step + 1e-9)
    return [step * count for count in range(first, math.ceil(most / step - 1e-9) + 1)]


def _grid(across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    parts = []
    for tick in up.ticks:
        at = up.at(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{up.text(tick)}</text>')
    floor = HEIGHT - _BOTTOM
    for tick in across.ticks:
        at = across.at(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        text = across.text(tick)
        parts.append(f'<text class="tick" x="{at:.1f}" y="{floor + 17}" text-anchor="middle">{text}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(f'<text class="label" x="12" y="{(floor + _TOP) / 2}" text-anchor="middle" '
                 f'transform="rotate(-90 12 {(floor + _TOP) / 2})">{escape(y.label)}</text>')  # fmt: skip
    return "".join(parts)
