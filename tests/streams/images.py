"""Small images with smooth ground, edges and noise, so that every band and bit-plane has something to code."""

from __future__ import annotations

import numpy as np

from tests.streams.encoders import Samples


def plane(rows: int, columns: int, precision: int, *, signed: bool = False, seed: int = 1) -> Samples:
    """One component, (rows, columns), the smallest dtype of 8 or 16 bits that holds `precision` bits."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    ground = np.sin(x / 7 + seed) + np.cos(y / 9 - seed)
    ground += 0.5 * ((x - columns / 2) ** 2 + (y - rows / 2) ** 2 < rows * 3)
    ground += noise.normal(0, 0.03, ground.shape)
    low, high = ground.min(), ground.max()
    whole = np.rint((ground - low) / max(high - low, 1e-9) * ((1 << precision) - 1))
    if signed:
        whole -= 1 << (precision - 1)
    kind = "i" if signed else "u"
    samples: Samples = whole.astype(np.dtype(f"{kind}{1 if precision <= 8 else 2}"))
    return samples


def planes(
    count: int, rows: int, columns: int, precision: int, *, signed: bool = False, seed: int = 1
) -> list[Samples]:
    """`count` components of one size that differ."""
    return [plane(rows, columns, precision, signed=signed, seed=seed + i) for i in range(count)]
