"""Images of resolution levels in the size of the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def upscaled(array: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """An image of a resolution level brought to `rows` by `columns`, interpolated linearly, in its own type.

    Samples of a level lie on every second, fourth … row and column of the whole image, from the first on. T.800 B.5
    """
    for axis, size in ((0, rows), (1, columns)):
        array = _stretched(array, axis, size)
    return array


def _stretched(array: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    count = array.shape[axis]
    if count == size:
        return array
    step = 1
    while -(-size // step) > count:
        step *= 2
    at = np.arange(size)
    low = np.minimum(at // step, count - 1)
    high = np.minimum(low + 1, count - 1)
    weight = ((at - low * step) / step).clip(0, 1).astype(np.float32)
    weight = weight.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    below = np.take(array, low, axis).astype(np.float32)
    above = np.take(array, high, axis).astype(np.float32)
    below += (above - below) * weight
    if array.dtype.kind in "iu":
        np.rint(below, out=below)
    stretched: NDArray[Any] = below.astype(array.dtype)
    return stretched
