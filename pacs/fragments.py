"""Which fragments of encapsulated Pixel Data make up which frame (PS3.5 A.4)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pacs.part10 import PixelSpan

_ITEM_HEADER = 8

_START_MARKERS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\x00\x00\x00\x0cJXL ", b"\x00\x00\x00\x0cjP  ")
"""How a frame begins: JPEG and JPEG-LS, JPEG 2000, JPEG XL (bare, boxed), JP2."""


def by_frame(data: memoryview, pixel: PixelSpan, frames: int) -> list[tuple[tuple[int, int], ...]]:
    """The (offset, length) of the fragments of each frame, in order.

    Tables are believed only where they fit the fragments. Where nothing tells the frames apart, every fragment
    stands alone: then the count differs from `frames`, and only the whole value can be served. PS3.5 A.4, Table A.4-1
    """
    fragments = pixel.fragments
    if len(fragments) == frames:
        return [(fragment,) for fragment in fragments]
    if frames == 1:
        return [fragments] if fragments else []
    starts = _from_table(pixel, frames) or _from_markers(data, fragments, frames)
    if starts is None:
        return [(fragment,) for fragment in fragments]
    return [fragments[start:end] for start, end in zip(starts, [*starts[1:], len(fragments)], strict=True)]


def _from_table(pixel: PixelSpan, frames: int) -> list[int] | None:
    """Index of each frame's first fragment by the Extended or Basic Offset Table, where that fits the fragments."""
    table: Sequence[int] = pixel.extended_offset_table or pixel.basic_offset_table
    if not table or len(table) != frames or not pixel.fragments or table[0] != 0:
        return None
    first_item = pixel.fragments[0][0] - _ITEM_HEADER
    index_at = {offset - _ITEM_HEADER - first_item: index for index, (offset, _) in enumerate(pixel.fragments)}
    starts = [index_at.get(offset, -1) for offset in table]
    ascending = all(earlier < later for earlier, later in itertools.pairwise(starts))
    return starts if ascending and starts[0] == 0 else None


def _from_markers(data: memoryview, fragments: Sequence[tuple[int, int]], frames: int) -> list[int] | None:
    """The same by the markers a frame starts with. Sound only when it finds as many frames as there should be."""
    starts = [
        index
        for index, (offset, length) in enumerate(fragments)
        if bytes(data[offset : offset + min(length, 12)]).startswith(_START_MARKERS)
    ]
    return starts if starts and len(starts) == frames and starts[0] == 0 else None
