"""Samples to a picture of 8 bits: the grayscale and colour pipelines (PS3.4 N.2, PS3.3 C.11) and the viewport.

Attributes come as the DICOM JSON object of the instance. Look-up tables that the JSON only names are fetched by the
caller's `bulk`. What a header gets wrong (a window of no width, a table that is cut) is left out, as viewers do.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pacs.errors import PixelError
from pacs.geometry import FrameGeometry

Attributes: TypeAlias = Mapping[str, Any]
Bulk: TypeAlias = Callable[[str], bytes]
Picture: TypeAlias = NDArray[np.uint8]
Values: TypeAlias = NDArray[Any]

LINEAR: Final = "LINEAR"
LINEAR_EXACT: Final = "LINEAR_EXACT"
SIGMOID: Final = "SIGMOID"

MAX_PIXELS: Final = 1 << 23
"""Of a picture that is larger than its source region: a viewport is a few numbers, its picture must not be a bomb."""


class Window(NamedTuple):
    """PS3.3 C.11.2.1.2, PS3.18 8.3.5.1.4"""

    center: float
    width: float
    function: str = LINEAR


class Viewport(NamedTuple):
    """The picture's greatest size, and the region of the full-size image that it shows. PS3.18 8.3.5.1.3"""

    width: int
    height: int
    x: int = 0
    y: int = 0
    region_width: int = 0
    """0: up to the right edge; negative: mirrored."""
    region_height: int = 0


def render(
    samples: Values,
    attributes: Attributes,
    *,
    frame: int = 1,
    window: Window | None = None,
    viewport: Viewport | None = None,
    bulk: Bulk | None = None,
    square_pixels: bool = False,
) -> Picture:
    """`samples` of frame `frame` (from 1) as a picture, (rows, columns) or (rows, columns, 3).

    The samples may be those of a lower resolution level; `viewport` counts in pixels of the full-size image.
    `square_pixels` stretches what has non-square pixels. Raises PixelError for what has no picture.
    """
    photometric = str(_first(attributes, "00280004", "MONOCHROME2")).strip()
    if samples.ndim == 3:
        picture = _colour(samples, photometric, attributes)
    elif samples.ndim != 2:
        raise PixelError(f"no picture of samples of shape {samples.shape}")
    elif photometric == "PALETTE COLOR":
        picture = _palette(samples, attributes, bulk)
    else:
        picture = _gray(samples, photometric, _of_frame(attributes, frame), window, bulk)
    if viewport is None:
        return picture
    return _fit(picture, viewport, attributes, _pixel_aspect(attributes) if square_pixels else 1.0)


def sufficient_level(geometry: FrameGeometry, viewport: Viewport | None) -> int:
    """How many resolution levels can be dropped without the viewport showing less. 0 for indices into a palette."""
    if viewport is None or geometry.photometric_interpretation == "PALETTE COLOR" or geometry.bits_stored == 1:
        return 0
    width = abs(viewport.region_width) or max(1, geometry.columns - viewport.x)
    height = abs(viewport.region_height) or max(1, geometry.rows - viewport.y)
    surplus = max(width / max(1, viewport.width), height / max(1, viewport.height))
    return min(geometry.decompositions, max(0, math.floor(math.log2(surplus))))


# --- attributes -----------------------------------------------------------------------------------------------


def _values(attributes: Attributes, tag: str) -> list[Any]:
    element = attributes.get(tag)
    found = element.get("Value") if isinstance(element, Mapping) else None
    return found if isinstance(found, list) else []


def _first(attributes: Attributes, tag: str, default: Any = None) -> Any:
    found = _values(attributes, tag)
    return found[0] if found and found[0] is not None else default


def _item(attributes: Attributes, tag: str, number: int = 0) -> Attributes:
    items = _values(attributes, tag)
    return items[number] if number < len(items) and isinstance(items[number], Mapping) else {}


def _number(attributes: Attributes, tag: str) -> float | None:
    """The first value of a DS, IS, US… element; None when there is none or it is no finite number."""
    try:
        value = float(_first(attributes, tag))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


_MACROS: Final = ("00289145", "00289132")
"""Pixel Value Transformation and Frame VOI LUT. PS3.3 C.7.6.16.2.9, C.7.6.16.2.10"""


def _of_frame(attributes: Attributes, frame: int) -> Attributes:
    """The attributes with those of the functional groups that transform pixel values, as if the frame were alone."""
    merged = dict(attributes)
    for groups in (_item(attributes, "52009229"), _item(attributes, "52009230", frame - 1)):
        for macro in _MACROS:
            merged.update(_item(groups, macro))
    return merged


# --- grayscale ------------------------------------------------------------------------------------------------


def _gray(
    samples: Values, photometric: str, attributes: Attributes, window: Window | None, bulk: Bulk | None
) -> Picture:
    limits = _limits(samples, attributes)

    def shown(stored: Values) -> Picture:
        values, ends = (_modality(part, attributes, bulk) for part in (stored, limits))
        levels = _voi(values, ends, attributes, window, bulk)
        return np.subtract(255, levels, dtype=np.uint8) if photometric == "MONOCHROME1" else levels

    if samples.dtype.kind not in "iu" or samples.itemsize > 2:
        return shown(samples)
    # One table for all values of the type costs less than the arithmetic on a frame of them.
    index = samples.view(f"u{samples.itemsize}")
    every = np.arange(1 << (8 * samples.itemsize), dtype=index.dtype).view(samples.dtype)
    return shown(every).take(index)


def _limits(samples: Values, attributes: Attributes) -> Values:
    """The least and greatest stored value, Pixel Padding left out. PS3.3 C.7.5.1.1.2"""
    real = samples
    padding = _number(attributes, "00280120")
    if padding is not None:
        limit = _number(attributes, "00280121")
        ends = sorted((padding, padding if limit is None else limit))
        real = samples[(samples < ends[0]) | (samples > ends[1])]
    if samples.dtype.kind == "f":
        real = real[np.isfinite(real)]
    if real.size == 0:
        return np.zeros(2, samples.dtype)
    return np.array((real.min(), real.max()), samples.dtype)


def _modality(stored: Values, attributes: Attributes, bulk: Bulk | None) -> Values:
    """Stored values to those that windows are given in. PS3.3 C.11.1"""
    table = _table(_item(attributes, "00283000"), "00283002", "00283006", bulk, attributes)
    if table is not None:
        return table.look_up(stored).astype(np.float64)
    slope, intercept = _number(attributes, "00281053"), _number(attributes, "00281052")
    return stored.astype(np.float64) * (1.0 if slope is None else slope) + (intercept or 0.0)


def _voi(
    values: Values, limits: Values, attributes: Attributes, window: Window | None, bulk: Bulk | None
) -> Picture:
    """Values of interest to 0…255: the caller's window, the header's table or window, or all there is. PS3.3 C.11.2"""
    if window is None:
        table = _table(_item(attributes, "00283010"), "00283002", "00283006", bulk, attributes)
        if table is not None:
            return _bytes(table.look_up(values) * (255.0 / ((1 << table.bits) - 1)))
        window = _header_window(attributes)
    elif not _possible(window):
        raise PixelError(f"an impossible window: {window.center}, {window.width}, {window.function}")
    if window is None:
        low, high = float(limits.min()), float(limits.max())
        # The least value is black, the greatest white; an image of one value is black.
        width = high - low if high > low else 1.0
        window = Window(low + width / 2, width, LINEAR_EXACT)
    return _windowed(values, window)


def _header_window(attributes: Attributes) -> Window | None:
    center, width = _number(attributes, "00281050"), _number(attributes, "00281051")
    if center is None or width is None:
        return None
    window = Window(center, width, str(_first(attributes, "00281056", LINEAR)).strip().upper())
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
        return _bytes(sigmoid * 255.0)
    if function == LINEAR:
        center, width = center - 0.5, width - 1.0
    if width == 0:
        return _bytes((values > center) * 255)
    return _bytes(((values - center) / width + 0.5) * 255.0)


def _bytes(levels: Values) -> Picture:
    picture: Picture = np.clip(np.nan_to_num(np.rint(levels), nan=0.0), 0, 255).astype(np.uint8)
    return picture


# --- look-up tables -------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    first: int
    bits: int
    data: Values

    def look_up(self, values: Values) -> Values:
        """What lies below the first entry gets that one, above the last the last. PS3.3 C.11.1.1.1"""
        offsets = np.rint(values.astype(np.float64)) - self.first
        found: Values = self.data[np.clip(np.nan_to_num(offsets), 0, len(self.data) - 1).astype(np.int64)]
        return found


def _table(
    item: Attributes, descriptor: str, data: str, bulk: Bulk | None, attributes: Attributes, segmented: str = ""
) -> _Table | None:
    """The table that a descriptor and its data describe, None when there is none or they do not fit."""
    try:
        entries, first, bits = (int(value) for value in _values(item, descriptor)[:3])
    except (TypeError, ValueError):
        return None
    entries = (entries & 0xFFFF) or 65536
    signed = _first(attributes, "00280103") == 1 or (_number(attributes, "00281052") or 0) < 0
    if signed and first > 32767:
        first -= 65536
    if not 1 <= bits <= 16 or abs(first) > 1 << 16:
        return None
    words = _words(item.get(data), entries, bulk)
    if words is None and segmented:
        raw = _words(item.get(segmented), 0, bulk)
        words = _expanded(raw, entries) if raw is not None else None
    if words is None or len(words) < entries:
        return None
    return _Table(first, bits, words[:entries])


def _words(element: Any, entries: int, bulk: Bulk | None) -> Values | None:
    """Look-up table data: 16-bit words, or bytes when there are just as many as entries. PS3.3 C.7.6.3.1.6"""
    if not isinstance(element, Mapping):
        return None
    if "Value" in element:
        try:
            return np.array([int(value) & 0xFFFF for value in element["Value"]], np.uint16)
        except (TypeError, ValueError):
            return None
    try:
        if "InlineBinary" in element:
            raw = base64.b64decode(element["InlineBinary"])
        elif "BulkDataURI" in element and bulk is not None:
            raw = bulk(str(element["BulkDataURI"]).removeprefix("bulkdata/"))
        else:
            return None
    except (binascii.Error, ValueError):
        return None
    if len(raw) < 2 * entries:
        return np.frombuffer(raw, np.uint8).astype(np.uint16)
    return np.frombuffer(raw[: len(raw) & ~1], "<u2")


def _expanded(words: Values, entries: int) -> Values | None:
    """The entries of segmented data: discrete, linear and indirect segments. PS3.3 C.7.9.2"""
    out: list[int] = []
    at, steps = 0, 0
    returns: list[tuple[int, int]] = []
    """Where to go on behind an indirect segment, and how many of the segments it repeats are left."""
    left = -1
    while len(out) < entries and steps < 65536:
        steps += 1
        if left == 0:
            if not returns:
                return None
            at, left = returns.pop()
            continue
        if at + 2 > len(words):
            break
        kind, length = int(words[at]), int(words[at + 1])
        if kind == 0:
            out.extend(int(word) for word in words[at + 2 : at + 2 + length])
            at += 2 + length
        elif kind == 1 and out and at + 2 < len(words):
            start, end = out[-1], int(words[at + 2])
            out.extend(round(start + (end - start) * step / length) for step in range(1, length + 1))
            at += 3
        elif kind == 2 and not returns and at + 3 < len(words):
            returns.append((at + 4, -1))
            at, left = int(words[at + 2]) | int(words[at + 3]) << 16, length
            continue
        else:
            return None
        if left > 0:
            left -= 1
    return np.array(out[:entries], np.uint16)


# --- colour ---------------------------------------------------------------------------------------------------


def _palette(samples: Values, attributes: Attributes, bulk: Bulk | None) -> Picture:
    """PS3.3 C.7.6.3.1.5, C.7.9"""
    planes = []
    for descriptor, data, segmented in (
        ("00281101", "00281201", "00281221"),
        ("00281102", "00281202", "00281222"),
        ("00281103", "00281203", "00281223"),
    ):
        table = _table(attributes, descriptor, data, bulk, attributes, segmented)
        if table is None:
            raise PixelError("the colour palette is missing or does not fit its description")
        levels = _Table(table.first, 8, (table.data >> max(0, table.bits - 8)).astype(np.uint8))
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


def _colour(samples: Values, photometric: str, attributes: Attributes) -> Picture:
    if samples.shape[2] == 4 and photometric == "ARGB":
        samples = samples[:, :, 1:]
    if samples.shape[2] != 3:
        raise PixelError(f"no picture of {samples.shape[2]} samples per pixel of {photometric}")
    bits = int(_number(attributes, "00280101") or 8 * samples.itemsize)
    if samples.dtype.kind == "i":
        samples = samples.astype(np.int64) + (1 << (bits - 1))
    if bits > 8:
        samples = (samples >> (bits - 8)).astype(np.uint8)
    elif samples.dtype != np.uint8 or bits != 8:
        samples = _bytes(samples * (255.0 / ((1 << bits) - 1)))
    if photometric not in _YBR:
        return samples
    matrix, black = _YBR[photometric]
    shifted = samples.astype(np.float32) - np.array((black, 128, 128), np.float32)
    return _bytes(shifted @ np.array(matrix, np.float32).T)


# --- the viewport ---------------------------------------------------------------------------------------------


def _pixel_aspect(attributes: Attributes) -> float:
    """Height of a pixel over its width. PS3.3 C.7.6.3.1.7, 10.7.1.3"""
    shared = _item(_item(attributes, "52009229"), "00289110")
    tags = ("00280030", "00181164", "00280034")
    for source, tag in ((shared, tags[0]), *((attributes, tag) for tag in tags)):
        try:
            vertical, horizontal = (float(value) for value in _values(source, tag)[:2])
        except (TypeError, ValueError):
            continue
        if vertical > 0 and horizontal > 0 and 1 / 64 < vertical / horizontal < 64:
            return vertical / horizontal
    return 1.0


def _fit(picture: Picture, viewport: Viewport, attributes: Attributes, aspect: float) -> Picture:
    """The region as large as fits into the viewport with its proportions kept. PS3.18 8.3.5.1.3"""
    if viewport.width < 1 or viewport.height < 1:
        raise PixelError("a viewport without pixels")
    rows = int(_number(attributes, "00280010") or picture.shape[0])
    columns = int(_number(attributes, "00280011") or picture.shape[1])
    left, right = _interval(viewport.x, viewport.region_width, columns)
    top, bottom = _interval(viewport.y, viewport.region_height, rows)
    height, width = (bottom - top) * aspect, float(right - left)
    scale = min(viewport.width / width, viewport.height / height)
    if scale > 1:
        scale = min(scale, max(1.0, math.sqrt(MAX_PIXELS / (width * height))))
    out_rows = max(1, min(viewport.height, round(height * scale)))
    out_columns = max(1, min(viewport.width, round(width * scale)))
    down, across = picture.shape[0] / rows, picture.shape[1] / columns
    # Only the columns of the region: stretching the rows of all others to be dropped would cost gigabytes.
    first, last = math.floor(left * across), min(picture.shape[1], math.ceil(right * across))
    picture = _averaged(picture[:, first:last], top * down, bottom * down, out_rows, 0)
    picture = _averaged(picture, left * across - first, right * across - first, out_columns, 1)
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


def _averaged(picture: Picture, start: float, stop: float, count: int, axis: int) -> Picture:
    """`count` means of equal stretches of one axis from `start` to `stop`, edges weighed by what they cover.

    Differences of the running sum: the cost does not depend on the factor, and it is exact area averaging.
    """
    lines = np.moveaxis(picture, axis, 0)
    if count == len(lines) and start == 0 and stop == len(lines):
        return picture
    # 65,535 lines of 255 fit 32 bits; the sums are laid out as the picture is, whichever axis they run along.
    total = np.zeros((len(lines) + 1, *lines.shape[1:]), np.int32)
    np.cumsum(lines, axis=0, out=total[1:])
    edges = np.linspace(start, stop, count + 1)
    whole = np.minimum(edges.astype(np.int64), len(lines) - 1)
    part = (edges - whole).reshape(-1, *([1] * (lines.ndim - 1)))
    sums = total[whole] + part * lines[whole]
    return np.moveaxis(_bytes(np.diff(sums, axis=0) * (count / (stop - start))), 0, axis)
