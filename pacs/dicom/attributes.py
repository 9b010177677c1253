"""Attributes of an instance, read back out of the DICOM JSON that `part10.scan` makes (PS3.18 F)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from pacs import tags
from pacs.geometry import FrameGeometry


def select(json: bytes, tags: Collection[int]) -> dict[int, bytes]:
    """The JSON text of each of the wanted Data Elements that is there, at the top level of the Data Set."""
    model = _selection(tuple(tags))
    found = msgspec.json.decode(json, type=model)
    return {
        tag: bytes(value)
        for tag, value in zip(tags, msgspec.structs.astuple(found), strict=True)
        if value is not msgspec.UNSET
    }


@lru_cache(maxsize=64)
def _selection(tags: tuple[int, ...]) -> type[msgspec.Struct]:
    """A type that decodes the given Data Elements as raw text and skips the others."""
    fields: list[tuple[str, object, object]] = []
    for tag in tags:
        fields.append((f"t{tag:08X}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct("Selection", fields, rename=lambda name: name[1:])


class InstanceUids(msgspec.Struct, frozen=True):
    """What identifies an instance, "" where the Data Set does not say. Nothing is checked: see `pacs.uids.check`."""

    study: str
    series: str
    instance: str
    sop_class: str


def uids(json: bytes) -> InstanceUids:
    """Study, Series and SOP Instance UID and the SOP Class UID of an instance."""
    return uids_in(select(json, UID_TAGS))


def uids_in(found: Mapping[int, bytes]) -> InstanceUids:
    """The same of elements among which UID_TAGS were selected."""
    return InstanceUids(*[_text(found.get(tag)) for tag in UID_TAGS])


UID_TAGS: Final = (tags.STUDY_INSTANCE_UID, tags.SERIES_INSTANCE_UID, tags.SOP_INSTANCE_UID, tags.SOP_CLASS_UID)


def geometry(json: bytes) -> FrameGeometry | None:
    """How a frame's samples lie; None unless Rows, Columns and Bits Allocated are there. PS3.3 C.7.6.3

    A number beyond its Value Representation counts as absent; no frames at all are one, as elsewhere.
    """
    return geometry_in(select(json, tags.GEOMETRY_TAGS))


def geometry_in(found: Mapping[int, bytes]) -> FrameGeometry | None:
    """The same of elements among which GEOMETRY_TAGS were selected."""
    rows = _whole(found.get(tags.ROWS), 0)
    columns = _whole(found.get(tags.COLUMNS), 0)
    bits_allocated = _whole(found.get(tags.BITS_ALLOCATED), 0)
    if not (rows and columns and bits_allocated):
        return None
    bits_stored = _whole(found.get(tags.BITS_STORED), bits_allocated)
    return FrameGeometry(
        rows=rows,
        columns=columns,
        samples_per_pixel=_whole(found.get(tags.SAMPLES_PER_PIXEL), 1),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=_whole(found.get(tags.HIGH_BIT), bits_stored - 1),
        pixel_representation=_whole(found.get(tags.PIXEL_REPRESENTATION), 0),
        planar_configuration=_whole(found.get(tags.PLANAR_CONFIGURATION), 0),
        photometric_interpretation=_text(found.get(tags.PHOTOMETRIC_INTERPRETATION)),
        frames=_whole(found.get(tags.NUMBER_OF_FRAMES), 1, _LARGEST_IS) or 1,
    )


_OVERLAY_ROWS: Final = re.compile(rb'"(60[01][02468ACE])0010":')


def overlay_in_samples(json: bytes) -> bool:
    """Whether an overlay lies in unused bits of the samples: it is described and has no data of its own.

    Retired, and common in old archives. PS3.5 8.1.2, PS3.3 C.9.2
    """
    if b'"60' not in json:  # a tenth of the time of the search
        return False
    groups = {int(group, 16) << 16 for group in _OVERLAY_ROWS.findall(json)}
    wanted = [group + element for group in sorted(groups) for element in (0x0010, 0x3000)]
    found = select(json, wanted) if wanted else {}
    return any(group + 0x0010 in found and group + 0x3000 not in found for group in groups)


class _Element(msgspec.Struct):
    values: Any = msgspec.field(name="Value", default=None)


_element = msgspec.json.Decoder(_Element)


def _first(element: bytes | None) -> object:
    if element is None:
        return None
    values = _element.decode(element).values
    return values[0] if isinstance(values, list) and values else None


_LARGEST_US, _LARGEST_IS = (1 << 16) - 1, (1 << 31) - 1
"""PS3.5 6.2"""


def _whole(element: bytes | None, default: int, largest: int = _LARGEST_US) -> int:
    """The first value if it is a whole number from 0 to `largest`, else the default."""
    value = _first(element)
    return value if isinstance(value, int) and 0 <= value <= largest else default


def _text(element: bytes | None) -> str:
    value = _first(element)
    return value if isinstance(value, str) else ""
