"""A region of the picture, as large as it is asked for (PS3.18 8.3.5.1.3)."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from pacs._codecs import picture as _kernel
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry
from pacs.rendering.attributes import Attributes, Picture, Shaded, item_of, number_of, values_of

MAX_PIXELS: Final = 1 << 23
"""Of a picture that is larger than its source region: a viewport is a few numbers, its picture must not be a bomb."""


class Viewport(NamedTuple):
    """The picture's greatest size, and the region of the full-size image that it shows. PS3.18 8.3.5.1.3"""

    width: int
    height: int
    x: int = 0
    y: int = 0
    region_width: int = 0
    """0: up to the right edge; negative: mirrored."""
    region_height: int = 0


def sufficient_level(geometry: FrameGeometry, viewport: Viewport | None, aspect: float = 1.0) -> int:
    """How many resolution levels can be dropped without the viewport showing less. 0 for indices into a palette.

    `aspect` as for `fit`. Raises PixelError for a region outside the image.
    """
    if viewport is None or geometry.photometric_interpretation == "PALETTE COLOR" or geometry.bits_stored == 1:
        return 0
    left, right = _interval(viewport.x, viewport.region_width, geometry.columns)
    top, bottom = _interval(viewport.y, viewport.region_height, geometry.rows)
    across = max((right - left) / max(1, viewport.width), (bottom - top) * aspect / max(1, viewport.height))
    surplus = min(across, across / aspect)  # pixels that are not square shrink more in one direction
    if surplus <= 1:
        return 0
    return min(geometry.decompositions, max(0, math.floor(math.log2(surplus))))


def pixel_aspect(attributes: Attributes) -> float:
    """Height of a pixel over its width. PS3.3 C.7.6.3.1.7, 10.7.1.3"""
    shared = item_of(item_of(attributes, "52009229"), "00289110")
    tags = ("00280030", "00181164", "00280034")
    for source, tag in ((shared, tags[0]), *((attributes, tag) for tag in tags)):
        try:
            vertical, horizontal = (float(value) for value in values_of(source, tag)[:2])
        except (TypeError, ValueError):
            continue
        if vertical > 0 and horizontal > 0 and 1 / 64 < vertical / horizontal < 64:
            return vertical / horizontal
    return 1.0


def fit(shaded: Shaded, viewport: Viewport, attributes: Attributes, aspect: float) -> Picture:
    """The region as large as fits into the viewport with its proportions kept. PS3.18 8.3.5.1.3"""
    if viewport.width < 1 or viewport.height < 1:
        raise PixelError("a viewport without pixels")
    rows = int(number_of(attributes, "00280010") or shaded.samples.shape[0])
    columns = int(number_of(attributes, "00280011") or shaded.samples.shape[1])
    left, right = _interval(viewport.x, viewport.region_width, columns)
    top, bottom = _interval(viewport.y, viewport.region_height, rows)
    height, width = (bottom - top) * aspect, float(right - left)
    scale = min(viewport.width / width, viewport.height / height)
    if scale > 1:
        scale = min(scale, max(1.0, math.sqrt(MAX_PIXELS / (width * height))))
    out_rows = max(1, min(viewport.height, round(height * scale)))
    out_columns = max(1, min(viewport.width, round(width * scale)))
    down, across = shaded.samples.shape[0] / rows, shaded.samples.shape[1] / columns
    picture = painted(shaded, (top * down, bottom * down), (left * across, right * across), out_rows, out_columns)
    if viewport.region_height < 0:
        picture = picture[::-1]
    if viewport.region_width < 0:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


def _interval(start: int, length: int, whole: int) -> tuple[int, int]:
    """What of [start, start + |length|) lies inside the image; to its edge for 0."""
    begin = max(0, start)
    end = whole if length == 0 else min(whole, start + abs(length))
    if begin >= end:
        raise PixelError("the viewport's region lies outside the image")
    return begin, end


def painted(
    shaded: Shaded, vertical: tuple[float, float], horizontal: tuple[float, float], rows: int, columns: int
) -> Picture:
    """`rows` of `columns` means of equal areas of a rectangle, edges weighed by what they cover."""
    samples, levels, first = shaded
    samples = np.ascontiguousarray(samples)
    planes = samples.shape[2] if samples.ndim == 3 else 1
    picture = np.empty((rows, columns, *samples.shape[2:]), np.uint8)
    _kernel.paint(
        samples.reshape(-1).view(np.uint8), picture.reshape(-1), levels, first, samples.itemsize,
        samples.shape[0], samples.shape[1], planes, *vertical, rows, *horizontal, columns,
    )  # fmt: skip
    return picture


def whole(shaded: Shaded) -> Picture:
    """All of it, pixel by pixel."""
    rows, columns = shaded.samples.shape[:2]
    if shaded.levels is None or not shaded.samples.size:
        return shaded.samples
    return painted(shaded, (0.0, rows), (0.0, columns), rows, columns)
