"""Validators and ranges: `If-None-Match`, `If-Match`, `If-Range`, `Range` (RFC 9110 13, 14)."""

from __future__ import annotations

import re
from enum import Enum

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(W/)?"([^"]*)"')


class Unsatisfiable(Enum):
    """The answer of `byte_range` that becomes a 416."""

    UNSATISFIABLE = 1


UNSATISFIABLE = Unsatisfiable.UNSATISFIABLE


def matches(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags holds `etag` (with its quotes), by weak or strong comparison. RFC 9110 8.8.3.2"""
    if header.strip() == "*":
        return True
    opaque = etag.removeprefix("W/")
    if not weak and opaque != etag:
        return False
    return any(f'"{tag}"' == opaque and (weak or not prefix) for prefix, tag in _TAG.findall(header))


def byte_range(
    header: str | None, if_range: str | None, etag: str, length: int
) -> tuple[int, int] | Unsatisfiable | None:
    """The half-open range that a `Range` header selects of `length` bytes; None: send the whole entity.

    Several ranges in one header are answered with the whole entity, as RFC 9110 14.2 allows. A header that is not
    understood is ignored, as it demands.
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    found = _RANGE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        wanted = int(found[2])
        return (max(0, length - wanted), length) if wanted and length else UNSATISFIABLE
    start = int(found[1])
    if found[2] and int(found[2]) < start:
        return None
    if start >= length:
        return UNSATISFIABLE
    return start, min(int(found[2]) + 1, length) if found[2] else length
