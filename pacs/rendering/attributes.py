"""What the DICOM JSON object of an instance says: its values by tag, and those of one frame."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Attributes: TypeAlias = Mapping[str, Any]
Bulk: TypeAlias = Callable[[str], bytes]
Picture: TypeAlias = NDArray[np.uint8]
Values: TypeAlias = NDArray[Any]


class Shaded(NamedTuple):
    """Samples, (rows, columns[, 3]), and what makes gray levels of them."""

    samples: Values
    levels: Picture | None = None
    """Of the samples from `first` on, for samples of at most 16 bits; None: they are 8 bits and levels already."""
    first: int = 0


def values_of(attributes: Attributes, tag: str) -> list[Any]:
    element = attributes.get(tag)
    found = element.get("Value") if isinstance(element, Mapping) else None
    return found if isinstance(found, list) else []


def first_value(attributes: Attributes, tag: str, default: Any = None) -> Any:
    found = values_of(attributes, tag)
    return found[0] if found and found[0] is not None else default


def item_of(attributes: Attributes, tag: str, number: int = 0) -> Attributes:
    items = values_of(attributes, tag)
    return items[number] if number < len(items) and isinstance(items[number], Mapping) else {}


def number_of(attributes: Attributes, tag: str) -> float | None:
    """The first value of a DS, IS, US… element; None when there is none or it is no finite number."""
    try:
        value = float(first_value(attributes, tag))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


_SHARED, _PER_FRAME = "52009229", "52009230"
"""Functional groups. PS3.3 C.7.6.16"""

_MACROS: Final = ("00289145", "00289132")
"""Pixel Value Transformation and Frame VOI LUT. PS3.3 C.7.6.16.2.9, C.7.6.16.2.10"""


def of_frame(attributes: Attributes, frame: int) -> Attributes:
    """The attributes with those of the functional groups that transform pixel values, as if the frame were alone."""
    merged = dict(attributes)
    for groups in (item_of(attributes, _SHARED), item_of(attributes, _PER_FRAME, frame - 1)):
        for macro in _MACROS:
            merged.update(item_of(groups, macro))
    return merged


def to_bytes(levels: Values) -> Picture:
    picture: Picture = np.clip(np.nan_to_num(np.rint(levels), nan=0.0), 0, 255).astype(np.uint8)
    return picture


_SHOWN: Final = frozenset({
    "00181164", "00280004", "00280010", "00280011", "00280030", "00280034", "00280101",
    "00280103", "00280120", "00280121", "00281050", "00281051", "00281052", "00281053", "00281056", "00281101",
    "00281102", "00281103", "00281201", "00281202", "00281203", "00281221", "00281222", "00281223", "00283000",
    "00283010", _SHARED,
})  # fmt: skip
"""All that this package looks at, beside the functional groups of the frame itself."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Items(msgspec.Struct):
    Value: list[msgspec.Raw] = []


_items = msgspec.json.Decoder(_Items).decode


def of_json(text: bytes, frame: int = 1) -> Attributes:
    """What a picture of frame `frame` (from 1) takes of the DICOM JSON object of an instance.

    Of a mammogram's 50 kB and a long multi-frame's megabytes the rest is passed over, not turned into objects.
    """
    try:
        found = _members(text)
        shown = {tag: msgspec.json.decode(raw) for tag, raw in found.items() if tag in _SHOWN}
        if _PER_FRAME in found:
            groups = _items(found[_PER_FRAME]).Value
            if frame <= len(groups):
                shown[_PER_FRAME] = {"Value": [{}] * (frame - 1) + [msgspec.json.decode(groups[frame - 1])]}
    except msgspec.DecodeError:
        # Numbers that fit no machine's, for one: the standard's own parser takes them.
        read: Attributes = json.loads(text)
        return read
    return shown
