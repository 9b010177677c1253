"""Structural similarity of two grey images: how alike they look, from local means, contrasts and correlation.

Wang, Bovik, Sheikh, Simoncelli: Image Quality Assessment: From Error Visibility to Structural Similarity (2004), with
square windows of equal weights, as scikit-image has it by default.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Grey: TypeAlias = npt.NDArray[np.float64]

WINDOW = 7
RANGE = 255.0
FLAT = 4.0
"""Variance of a window that looks even."""


def ssim(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic], window: int = WINDOW) -> float:
    """The mean over all windows, 1 for equal images; about 0 for unrelated ones. Samples are from 0 to 255."""
    return float(_similarities(first, second, window).mean())


def likeness(image: npt.NDArray[np.generic], final: npt.NDArray[np.generic], window: int = WINDOW) -> float:
    """As `ssim`, of the windows alone in which `final` shows something: what is even says nothing of an image."""
    grey = final.astype(np.float64)
    shows = _means(grey * grey, window) - _means(grey, window) ** 2 > FLAT
    return float(_similarities(image, final, window)[shows].mean())


def _similarities(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic], window: int) -> Grey:
    a, b = first.astype(np.float64), second.astype(np.float64)
    mean_a, mean_b = _means(a, window), _means(b, window)
    unbiased = window * window / (window * window - 1)
    variance_a = unbiased * (_means(a * a, window) - mean_a**2)
    variance_b = unbiased * (_means(b * b, window) - mean_b**2)
    covariance = unbiased * (_means(a * b, window) - mean_a * mean_b)
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    similarities: Grey = above / below
    return similarities


def _means(image: Grey, window: int) -> Grey:
    """Of each window that lies within the image, by a table of sums."""
    sums = np.pad(image.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    total = sums[window:, window:] - sums[:-window, window:] - sums[window:, :-window] + sums[:-window, :-window]
    return total / (window * window)


def smaller(image: npt.NDArray[np.generic], times: int) -> Grey:
    """The mean of each `times` by `times` pixels: what is seen from further away."""
    rows, columns = (side // times * times for side in image.shape[:2])
    tiles = image[:rows, :columns].astype(np.float64).reshape(rows // times, times, columns // times, times)
    return tiles.mean((1, 3))


def picture(image: npt.NDArray[np.generic], dark: float = 12.0) -> tuple[slice, slice]:
    """The rectangle outside of which a screenshot is dark."""
    bright = image > dark
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
