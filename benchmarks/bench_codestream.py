"""How fast are codestreams taken apart and put together, beside copying them? On one core, no sample decoded.

The CT slice and the mammogram are synthetic: 512 x 512 and 4664 x 3064 of 12 bits, about 175 KB and 10 MB of JPEG 2000
Part 1, LRCP, one tile, as modalities send them. The CT slice in tiles has many small packets instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_micro import timed
from benchmarks.report import Figure
from benchmarks.scale import Scale
from pacs import codestream, progression

BUDGETS = {"re-order, CT": 0.5, "re-order, mammogram": 15.0}
"""Milliseconds."""


def image(rows: int, columns: int, bits: int, noise: float) -> NDArray[np.uint16]:
    """A smooth object on a dark ground with noise in it, so that bits and packets are spread as in a real image."""
    random = np.random.default_rng(rows)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    inside = x * x + y * y < 0.8
    ground = inside * (0.4 + 0.1 * np.sin(9 * x) * np.cos(7 * y)) * (1 << bits)
    samples = ground + random.normal(0, noise, ground.shape) * (0.15 + inside)
    clipped: NDArray[np.uint16] = np.clip(samples, 0, (1 << bits) - 1).astype(np.uint16)
    return clipped


def codestreams(scale: Scale) -> Iterator[Figure]:
    """Walk, re-order, cut and region of each, and a copy of the same bytes."""
    small = scale.rows < 512
    sizes = {"CT": (512, 512, 12, 14.0), "mammogram": (4664, 3064, 12, 22.0)}
    for name, (rows, columns, bits, noise) in sizes.items():
        samples = image(rows // 16, columns // 16, bits, noise) if small else image(rows, columns, bits, noise)
        encoded = bytes(imagecodecs.jpeg2k_encode(samples, level=0, reversible=True, codecformat="J2K"))
        yield from _figures(name, encoded, scale)
        if name == "CT":
            tiled = imagecodecs.htj2k_encode(samples, reversible=True, tile=(64, 64))
            yield from _figures("CT, HTJ2K, 64 tiles", bytes(tiled), scale)


def _figures(name: str, encoded: bytes, scale: Scale) -> Iterator[Figure]:
    megabytes = len(encoded) / 1e6
    rows, columns = codestream.parse(encoded).rows, codestream.parse(encoded).columns
    middle = progression.Rectangle(rows // 2, columns // 2, rows // 8, columns // 8)
    works: dict[str, Callable[[], object]] = {
        "re-order": lambda: progression.reorder(encoded),
        "cut at half size": lambda: progression.cut(encoded, levels_dropped=1),
        "cut to half the bytes": lambda: progression.cut(encoded, most_bytes=len(encoded) // 2),
        "region of 1/64": lambda: progression.region(encoded, middle),
    }
    copied = bytearray(encoded)
    copy = timed(lambda: bytes(copied), scale.seconds / 10)
    for work, action in works.items():
        case = f"{work}, {name}"
        milliseconds = timed(action, scale.seconds / 10)
        budget = BUDGETS.get(case)
        detail = {"bytes": len(encoded), **({"budget_ms": budget} if budget else {})}
        label = f"{case} of {megabytes:.2f} MB"
        yield Figure("codestream", label, "pacs", megabytes / milliseconds * 1e3, "MB/s", True, detail)
        yield Figure("codestream", label, "memcpy", megabytes / copy * 1e3, "MB/s", True, detail)
        budgeted = f"{label} (budget {budget} ms)" if budget else label
        yield Figure("codestream", budgeted, "pacs", milliseconds, "ms", False, detail)
