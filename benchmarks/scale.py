"""How much is measured: the full size for figures, a tiny one that only shows that everything still runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Counts of instances and studies, seconds of each timed run."""

    slices: int = 120
    rows: int = 512
    real_slices: int = 140
    series: int = 300
    """Instances of the series whose metadata and frames are asked for."""
    series_copies: int = 3
    studies: int = 10_000
    readers: int = 200
    links: tuple[str, ...] = ("4/50", "10/50", "30/50", "2/50", "4/20", "4/100", "4/50/1")
    """Slow links: Mbit/s, round trip in ms, percent of segments that stall."""
    plans: tuple[str, ...] = ("levels", "both", "lossy", "layers", "equal", "ranges", "raw", "rendered", "default")
    """Ways to read over them, see `bench_slow_link`."""
    seconds: float = 3.0
    repeats: int = 20


FULL = Scale()
TINY = Scale(
    slices=4, rows=64, real_slices=4, series=6, series_copies=2, studies=30, readers=3, links=("4/50",),
    seconds=0.05, repeats=2,
)
