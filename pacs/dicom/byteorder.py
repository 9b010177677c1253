"""Values of words as little endian, the byte order of all bulk data (PS3.18 8.7.3.3.2)."""

from __future__ import annotations

from typing import Final

import numpy as np

WORD_SIZES: Final = {
    "OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8,
    "SS": 2, "US": 2, "FL": 4, "SL": 4, "UL": 4, "FD": 8, "SV": 8, "UV": 8,
}  # fmt: skip
"""Bytes of a word in the Value Representations that hold words or numbers. PS3.5 6.2"""


def swapped(value: bytes | bytearray | memoryview, size: int) -> bytes:
    """`value` with the bytes of each `size`-byte word reversed; a rest that is no whole word stays."""
    if size == 1:
        return bytes(value)
    view = memoryview(value).cast("B")
    whole = len(view) - len(view) % size
    return np.frombuffer(view[:whole], f">u{size}").astype(f"<u{size}").tobytes() + bytes(view[whole:])
