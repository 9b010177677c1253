"""Colour samples to RGB: palettes and the YBR spaces (PS3.3 C.7.6.3.1.2, C.7.9)."""

from __future__ import annotations

from typing import Final

import numpy as np

from pacs.errors import PixelError
from pacs.rendering.attributes import Attributes, Bulk, Picture, Values, number_of, to_bytes
from pacs.rendering.tables import Table, read_table


def palette(samples: Values, attributes: Attributes, bulk: Bulk | None) -> Picture:
    """PS3.3 C.7.6.3.1.5, C.7.9"""
    planes = []
    for descriptor, data, segmented in (
        ("00281101", "00281201", "00281221"),
        ("00281102", "00281202", "00281222"),
        ("00281103", "00281203", "00281223"),
    ):
        table = read_table(attributes, descriptor, data, bulk, attributes, segmented)
        if table is None:
            raise PixelError("the colour palette is missing or does not fit its description")
        levels = Table(table.first, 8, (table.data >> max(0, table.bits - 8)).astype(np.uint8))
        planes.append(levels.look_up(samples))
    return np.stack(planes, axis=-1)


_FULL: Final = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
_PARTIAL: Final = ((1.1644, 0.0, 1.5960), (1.1644, -0.3917, -0.8130), (1.1644, 2.0173, 0.0))
_YBR: Final = {
    "YBR_FULL": (_FULL, 0.0),
    "YBR_FULL_422": (_FULL, 0.0),
    "YBR_PARTIAL_422": (_PARTIAL, 16.0),
    "YBR_PARTIAL_420": (_PARTIAL, 16.0),
}
"""The inverses of the equations of PS3.3 C.7.6.3.1.2. YBR_ICT and YBR_RCT are undone by their decoder."""


def colour(samples: Values, photometric: str, attributes: Attributes) -> Picture:
    if samples.shape[2] == 4 and photometric == "ARGB":
        samples = samples[:, :, 1:]
    if samples.shape[2] != 3:
        raise PixelError(f"no picture of {samples.shape[2]} samples per pixel of {photometric}")
    bits = int(number_of(attributes, "00280101") or 8 * samples.itemsize)
    if samples.dtype.kind == "i":
        samples = samples.astype(np.int64) + (1 << (bits - 1))
    if bits > 8:
        samples = (samples >> (bits - 8)).astype(np.uint8)
    elif samples.dtype != np.uint8 or bits != 8:
        samples = to_bytes(samples * (255.0 / ((1 << bits) - 1)))
    if photometric not in _YBR:
        return samples
    matrix, black = _YBR[photometric]
    shifted = samples.astype(np.float32) - np.array((black, 128, 128), np.float32)
    return to_bytes(shifted @ np.array(matrix, np.float32).T)
