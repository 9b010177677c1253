"""DICOM JSON as servers send it: single values, and what describes the pixels (PS3.18 Annex F)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pacs.errors import PixelError
from pacs.geometry import FrameGeometry

DataSet = Mapping[str, Any]
"""A Data Set of the DICOM JSON Model: tags of eight hexadecimal digits to `{"vr", "Value" | "BulkDataURI" …}`."""

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
INSTANCE_NUMBER = "00200013"
_FLOAT_PIXELS = ("7FE00008", "7FE00009")


def values(data: DataSet, tag: str) -> list[Any]:
    """The values of an element, [] when it is absent or empty."""
    element = data.get(tag)
    found = element.get("Value") if isinstance(element, Mapping) else None
    return found if isinstance(found, list) else []


def text(data: DataSet, tag: str) -> str:
    """The first value as text, "" without one."""
    found = values(data, tag)
    return str(found[0]) if found and found[0] is not None else ""


def number(data: DataSet, tag: str, default: int = 0) -> int:
    """The first value as a whole number; servers send some numbers as text."""
    found = values(data, tag)
    try:
        return int(float(found[0])) if found else default
    except (TypeError, ValueError, OverflowError):
        return default


def frame_count(data: DataSet) -> int:
    """How many frames an instance has; 0 for one without pixels."""
    if not number(data, "00280010") or not number(data, "00280011"):
        return 0
    return max(1, number(data, "00280008", 1))


def geometry(data: DataSet) -> FrameGeometry:
    """The Image Pixel description. Raises PixelError for a Data Set that has none. PS3.3 C.7.6.3"""
    rows, columns, allocated = (number(data, tag) for tag in ("00280010", "00280011", "00280100"))
    if not rows or not columns or not allocated:
        raise PixelError(f"instance {text(data, INSTANCE)} does not describe its pixel data")
    samples = number(data, "00280002", 1)
    return FrameGeometry(
        rows=rows,
        columns=columns,
        samples_per_pixel=samples,
        bits_allocated=allocated,
        bits_stored=number(data, "00280101", allocated),
        high_bit=number(data, "00280102", number(data, "00280101", allocated) - 1),
        pixel_representation=number(data, "00280103"),
        planar_configuration=number(data, "00280006"),
        photometric_interpretation=text(data, "00280004") or ("MONOCHROME2" if samples == 1 else "RGB"),
        frames=frame_count(data),
    )


def floating(data: DataSet) -> bool:
    """Whether the pixels are Float or Double Float Pixel Data."""
    return any(tag in data for tag in _FLOAT_PIXELS)
