"""Look-up tables: their descriptors, their data in words, bytes or segments (PS3.3 C.7.6.3.1.5, C.7.9.2, C.11)."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pacs.rendering.attributes import Attributes, Bulk, Values, first_value, number_of, values_of


class Table(NamedTuple):
    first: int
    bits: int
    data: Values

    def look_up(self, values: Values) -> Values:
        """What lies below the first entry gets that one, above the last the last. PS3.3 C.11.1.1.1"""
        offsets = np.rint(values.astype(np.float64)) - self.first
        found: Values = self.data[np.clip(np.nan_to_num(offsets), 0, len(self.data) - 1).astype(np.int64)]
        return found


def read_table(
    item: Attributes, descriptor: str, data: str, bulk: Bulk | None, attributes: Attributes, segmented: str = ""
) -> Table | None:
    """The table that a descriptor and its data describe, None when there is none or they do not fit."""
    try:
        entries, first, bits = (int(value) for value in values_of(item, descriptor)[:3])
    except (TypeError, ValueError):
        return None
    entries = (entries & 0xFFFF) or 65536
    signed = first_value(attributes, "00280103") == 1 or (number_of(attributes, "00281052") or 0) < 0
    if signed and first > 32767:
        first -= 65536
    if not 1 <= bits <= 16 or abs(first) > 1 << 16:
        return None
    words = _words(item.get(data), entries, bulk)
    if words is None and segmented:
        words = _segments(item.get(segmented), entries, bits, bulk)
    if words is None or len(words) < entries:
        return None
    return Table(first, bits, words[:entries])


def _words(element: Any, entries: int, bulk: Bulk | None) -> Values | None:
    """Look-up table data: 16-bit words, or bytes when there are just as many as entries. PS3.3 C.7.6.3.1.6"""
    raw = _data(element, bulk)
    if not isinstance(raw, bytes):
        return raw
    if len(raw) < 2 * entries:
        return np.frombuffer(raw, np.uint8).astype(np.uint16)
    return _as_words(raw)


def _segments(element: Any, entries: int, bits: int, bulk: Bulk | None) -> Values | None:
    """The entries of segmented data, which is of bytes, opcodes and lengths too, where the entries are."""
    raw = _data(element, bulk)
    if not isinstance(raw, bytes):
        return _expanded(raw, entries) if raw is not None else None
    found = _expanded(np.frombuffer(raw, np.uint8), entries) if bits == 8 else None
    return found if found is not None and len(found) == entries else _expanded(_as_words(raw), entries)


def _as_words(raw: bytes) -> Values:
    return np.frombuffer(raw[: len(raw) & ~1], "<u2")


def _data(element: Any, bulk: Bulk | None) -> Values | bytes | None:
    """The words that the JSON has, or the bytes that they are in."""
    if not isinstance(element, Mapping):
        return None
    if "Value" in element:
        values = element["Value"]
        try:
            # Of thousands of numbers, which nearly always are whole ones that fit.
            return np.array(array("H", values))
        except (TypeError, ValueError, OverflowError):
            pass
        try:
            return np.array([int(value) & 0xFFFF for value in values], np.uint16)
        except (TypeError, ValueError):
            return None
    try:
        if "InlineBinary" in element:
            return base64.b64decode(element["InlineBinary"])
        if "BulkDataURI" in element and bulk is not None:
            return bytes(bulk(str(element["BulkDataURI"]).removeprefix("bulkdata/")))
    except ValueError:
        pass
    return None


def _expanded(words: Values, entries: int) -> Values | None:
    """The entries of segmented data: discrete, linear and indirect segments. PS3.3 C.7.9.2"""
    out: list[int] = []
    at, steps = 0, 0
    pointer = 4 // words.itemsize
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
        elif kind == 2 and not returns and at + 2 + pointer <= len(words):
            behind = at + 2 + pointer
            returns.append((behind, -1))
            at, left = int.from_bytes(words[at + 2 : behind].tobytes(), "little"), length
            continue
        else:
            return None
        if left > 0:
            left -= 1
    return np.array(out[:entries], np.uint16)
