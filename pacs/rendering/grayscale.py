"""Stored values to gray: the modality and values of interest transformations (PS3.4 N.2, PS3.3 C.11)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from pacs.errors import PixelError
from pacs.rendering.attributes import (
    Attributes,
    Bulk,
    Picture,
    Shaded,
    Values,
    first_value,
    item_of,
    number_of,
    to_bytes,
)
from pacs.rendering.tables import read_table

LINEAR: Final = "LINEAR"
LINEAR_EXACT: Final = "LINEAR_EXACT"
SIGMOID: Final = "SIGMOID"


class Window(NamedTuple):
    """PS3.3 C.11.2.1.2, PS3.18 8.3.5.1.4"""

    center: float
    width: float
    function: str = LINEAR


def gray(
    samples: Values, photometric: str, attributes: Attributes, window: Window | None, bulk: Bulk | None
) -> Shaded:
    def limits() -> Values:
        return _modality(_limits(samples, attributes), attributes, bulk)

    def shown(stored: Values) -> Picture:
        levels = _voi(_modality(stored, attributes, bulk), limits, attributes, window, bulk)
        return np.subtract(255, levels, dtype=np.uint8) if photometric == "MONOCHROME1" else levels

    if samples.dtype.kind not in "iu" or samples.itemsize > 2 or not samples.size:
        return Shaded(shown(samples))
    # A table for the values that there are costs less than the arithmetic on a frame of them.
    first, last = int(samples.min()), int(samples.max())
    return Shaded(samples, shown(np.arange(first, last + 1, dtype=np.int32)), first)


def _limits(samples: Values, attributes: Attributes) -> Values:
    """The least and greatest stored value, Pixel Padding left out. PS3.3 C.7.5.1.1.2"""
    real = samples
    padding = number_of(attributes, "00280120")
    if padding is not None:
        limit = number_of(attributes, "00280121")
        ends = sorted((padding, padding if limit is None else limit))
        real = samples[(samples < ends[0]) | (samples > ends[1])]
    if samples.dtype.kind == "f":
        real = real[np.isfinite(real)]
    if real.size == 0:
        return np.zeros(2, samples.dtype)
    return np.array((real.min(), real.max()), samples.dtype)


def _modality(stored: Values, attributes: Attributes, bulk: Bulk | None) -> Values:
    """Stored values to those that windows are given in. PS3.3 C.11.1"""
    table = read_table(item_of(attributes, "00283000"), "00283002", "00283006", bulk, attributes)
    if table is not None:
        return table.look_up(stored).astype(np.float64)
    slope, intercept = number_of(attributes, "00281053"), number_of(attributes, "00281052")
    return stored.astype(np.float64) * (1.0 if slope is None else slope) + (intercept or 0.0)


def _voi(
    values: Values, limits: Callable[[], Values], attributes: Attributes, window: Window | None, bulk: Bulk | None
) -> Picture:
    """Values of interest to 0…255: the caller's window, the header's table or window, or all there is. PS3.3 C.11.2"""
    if window is None:
        table = read_table(item_of(attributes, "00283010"), "00283002", "00283006", bulk, attributes)
        if table is not None:
            return to_bytes(table.look_up(values) * (255.0 / ((1 << table.bits) - 1)))
        window = _header_window(attributes)
    elif not _possible(window):
        raise PixelError(f"an impossible window: {window.center}, {window.width}, {window.function}")
    if window is None:
        ends = limits()
        low, high = float(ends.min()), float(ends.max())
        # The least value is black, the greatest white; an image of one value is black.
        width = high - low if high > low else 1.0
        window = Window(low + width / 2, width, LINEAR_EXACT)
    return _windowed(values, window)


def _header_window(attributes: Attributes) -> Window | None:
    center, width = number_of(attributes, "00281050"), number_of(attributes, "00281051")
    if center is None or width is None:
        return None
    window = Window(center, width, str(first_value(attributes, "00281056", LINEAR)).strip().upper())
    return window if _possible(window) else None


def _possible(window: Window) -> bool:
    if window.function not in (LINEAR, LINEAR_EXACT, SIGMOID) or not math.isfinite(window.center + window.width):
        return False
    return window.width >= 1 if window.function == LINEAR else window.width > 0


def _windowed(values: Values, window: Window) -> Picture:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3"""
    center, width, function = window
    if function == SIGMOID:
        with np.errstate(over="ignore"):
            sigmoid: Values = 1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))
        return to_bytes(sigmoid * 255.0)
    if function == LINEAR:
        center, width = center - 0.5, width - 1.0
    if width == 0:
        return to_bytes((values > center) * 255)
    return to_bytes(((values - center) / width + 0.5) * 255.0)
