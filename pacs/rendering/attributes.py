"""What the DICOM JSON object of an instance says: its values by tag, and those of one frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Attributes: TypeAlias = Mapping[str, Any]
Bulk: TypeAlias = Callable[[str], bytes]
Picture: TypeAlias = NDArray[np.uint8]
Values: TypeAlias = NDArray[Any]


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


_MACROS: Final = ("00289145", "00289132")
"""Pixel Value Transformation and Frame VOI LUT. PS3.3 C.7.6.16.2.9, C.7.6.16.2.10"""


def of_frame(attributes: Attributes, frame: int) -> Attributes:
    """The attributes with those of the functional groups that transform pixel values, as if the frame were alone."""
    merged = dict(attributes)
    for groups in (item_of(attributes, "52009229"), item_of(attributes, "52009230", frame - 1)):
        for macro in _MACROS:
            merged.update(item_of(groups, macro))
    return merged


def to_bytes(levels: Values) -> Picture:
    picture: Picture = np.clip(np.nan_to_num(np.rint(levels), nan=0.0), 0, 255).astype(np.uint8)
    return picture
