"""Validators and ranges: `If-None-Match`, `If-Match`, `If-Range`, `Range` (RFC 9110 13, 14)."""

from __future__ import annotations

import re
from enum import Enum

from multidict import MultiMapping

_RANGES = re.compile(r"\s*+bytes\s*+=([^=]*+)", re.ASCII | re.IGNORECASE)
_RANGE = re.compile(r"\s*+(\d*+)\s*+-\s*+(\d*+)\s*+", re.ASCII)
_DIGITS = 19
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


def listed(headers: MultiMapping[str], name: str) -> str | None:
    """The value of a header that is a list: all its lines. RFC 9110 5.3"""
    lines = headers.getall(name, None)
    return None if lines is None else lines[0] if len(lines) == 1 else ", ".join(lines)


def unchanged(headers: MultiMapping[str], etag: str) -> bool:
    """Whether the client has the representation of this tag: whatever it is answered, that is not sent."""
    known = listed(headers, "If-None-Match")
    return known is not None and matches(known, etag, weak=True)


def byte_range(
    header: str | None, if_range: str | None, etag: str, length: int
) -> tuple[int, int] | Unsatisfiable | None:
    """The half-open range that a `Range` header selects of `length` bytes; None: send the whole entity.

    Several ranges in one header are answered with the one that covers them: what a client holds of the entity stays
    of use, which a 200 would replace. A header that is not understood is ignored. RFC 9110 14.2, 15.3.7
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    found = _RANGES.fullmatch(header)
    if found is None:
        return None
    ranges = [_range(item, length) for item in found[1].split(",") if item.strip()]
    if not ranges or None in ranges:
        return None
    satisfiable = [one for one in ranges if isinstance(one, tuple)]
    if not satisfiable:
        return UNSATISFIABLE
    return min(start for start, _ in satisfiable), max(end for _, end in satisfiable)


def _range(text: str, length: int) -> tuple[int, int] | Unsatisfiable | None:
    """None: this is no range."""
    found = _RANGE.fullmatch(text)
    if found is None or not (found[1] or found[2]):
        return None
    first, last = (_number(digits) for digits in found.groups())
    if first is None:
        return (max(0, length - last), length) if last and length else UNSATISFIABLE
    if last is not None and last < first:
        return None
    if first >= length:
        return UNSATISFIABLE
    return first, min(last + 1, length) if last is not None else length


def _number(digits: str) -> int | None:
    """None without digits. What is beyond every length is one number: to read more digits takes quadratic time."""
    if not digits:
        return None
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _DIGITS else 10**_DIGITS
