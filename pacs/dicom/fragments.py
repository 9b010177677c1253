"""Which fragments of encapsulated Pixel Data make up which frame (PS3.5 A.4).

Number of Frames, the offset tables, the number of fragments and what these begin and end with have to agree; where
they do not, what most likely describes the bytes is believed, and a sentence says so.
"""

from __future__ import annotations

import itertools
import operator
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from pacs import uids
from pacs.dicom import marks
from pacs.dicom.part10 import Fragment, PixelSpan


class Frames(Sequence[tuple[Fragment, ...]]):
    """The fragments of each frame, in order: every fragment is in exactly one frame."""

    def __init__(self, fragments: Sequence[Fragment], starts: Sequence[int]) -> None:
        self.fragments = fragments
        self._starts = starts
        """Index of each frame's first fragment, ascending from 0."""

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[Fragment, ...]]:
        left = iter(self.fragments)
        for start, end in itertools.pairwise(itertools.chain(self._starts, (len(self.fragments),))):
            yield tuple(itertools.islice(left, end - start))

    @overload
    def __getitem__(self, index: int) -> tuple[Fragment, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Fragment, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Fragment, ...] | list[tuple[Fragment, ...]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        end = self._starts[number + 1] if number + 1 < len(self) else len(self.fragments)
        return tuple(self.fragments[self._starts[number] : end])


@dataclass(frozen=True, slots=True)
class Layout:
    """What is to be served as frames."""

    frames: Frames
    apart: bool
    """Whether these are the frames; otherwise nothing tells them apart and each fragment stands alone."""
    warnings: tuple[str, ...] = ()


def layout(data: memoryview, pixel: PixelSpan, stated: int, transfer_syntax: str) -> Layout:
    """The frames of encapsulated Pixel Data of which `stated`, Number of Frames or 1, are announced.

    A video is one stream whatever Number of Frames says. PS3.5 A.4, Table A.4-1, 8.2.5
    """
    fragments = pixel.fragments
    count = len(fragments)
    if not count:
        return Layout(Frames((), ()), False, ("the pixel data has no fragments",))
    if uids.transfer_syntax(transfer_syntax).video or (count == 1 and stated == 1):
        return Layout(Frames(fragments, (0,)), True)
    tables = _Tables(pixel, data)
    if count == stated:
        starts: Sequence[int] | None = range(count)
    else:
        starts = _starts(tables, _Marks(data, fragments, transfer_syntax), stated, count)
    if starts is None:
        text = f"the {stated} frames that are announced cannot be told apart in {count} fragments"
        return Layout(Frames(fragments, range(count)), False, (text,))
    doubts = []
    if len(starts) != stated:
        doubts.append(f"Number of Frames says {stated}, the pixel data has {len(starts)}")
    if tables.contradict(starts):
        doubts.append("an offset table contradicts the fragments and is not believed")
    return Layout(Frames(fragments, starts), True, tuple(doubts))


def _starts(tables: _Tables, seen: _Marks, stated: int, count: int) -> Sequence[int] | None:
    """Index of each frame's first fragment: as many as are announced, else as many as there are without doubt."""
    found = _agreeing(tables, seen, stated)
    return found if found is not None else _contradicting(tables, seen, stated, count)


def _agreeing(tables: _Tables, seen: _Marks, stated: int) -> Sequence[int] | None:
    """Those of something that tells as many frames as are announced."""
    if stated == 1:
        # Any number of fragments may be one frame. Only where they begin and end as several is it several.
        return [0] if len(seen.whole) < 2 else None
    for starts in (*filter(seen.allow, tables.starts), seen.frames, *tables.starts, seen.whole, seen.filled):
        if len(starts) == stated:
            return starts
    return None


def _contradicting(tables: _Tables, seen: _Marks, stated: int, count: int) -> Sequence[int] | None:
    """Those of another number of frames, which is the true one without doubt.

    Fewer than announced are believed only where the fragments are too few for all: a frame whose first bytes are
    damaged would else move those behind it to the place of others.
    """
    for starts in (seen.whole, *filter(seen.allow, tables.starts)):
        if len(starts) > 1 and (len(starts) > stated or count < stated):
            return starts
    return None


class _Tables:
    """What the Extended and the Basic Offset Table say, as far as that can be."""

    def __init__(self, pixel: PixelSpan, data: memoryview) -> None:
        self.starts: list[Sequence[int]] = []
        """Indices of fragments, ascending from 0."""
        # A table that cannot be true for its length is not among the answers of the scan, but its item is there.
        length = int.from_bytes(data[pixel.offset + 4 : pixel.offset + 8], "little")
        self._bad = length != 4 * len(pixel.basic_offset_table)
        tables = [table for table in (pixel.extended_offset_table, pixel.basic_offset_table) if table]
        if not tables:
            return
        for table in tables:
            starts = _found(pixel.fragments, table)
            if starts is not None:
                self.starts.append(starts)
            else:
                self._bad = True

    def contradict(self, starts: Sequence[int]) -> bool:
        """Whether a table says something else than that the frames begin at `starts`."""
        return self._bad or any(not _equal(said, starts) for said in self.starts)


def _found(fragments: Sequence[Fragment], table: Sequence[int]) -> Sequence[int] | None:
    """Index of the fragment at each entry of an offset table, or None unless all are there and ascend from 0."""
    first = fragments[0][0]
    left = iter(enumerate(fragments))
    starts = array("Q")
    for offset in table:
        index = next((index for index, (at, _) in left if at - first >= offset), -1)
        if index < 0 or fragments[index][0] - first != offset:
            return None
        starts.append(index)
    return starts if starts[0] == 0 else None


def _equal(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) == len(other) and all(map(operator.eq, one, other))


class _Marks:
    """Where frames begin and end by what is in the fragments. Indices of fragments, ascending from 0."""

    def __init__(self, data: memoryview, fragments: Sequence[Fragment], transfer_syntax: str) -> None:
        kind = marks.kind(transfer_syntax)
        filled = [index for index, (_, length) in enumerate(fragments) if length]
        begins = [index for index in filled if marks.begins(data, *fragments[index], kind.begins)]
        frames = begins if begins and begins[0] == filled[0] else []
        whole = [index for index in frames if marks.begins(data, *fragments[index], kind.surely)]
        if kind.ends and whole:
            before = dict(zip(filled[1:], filled, strict=False))
            whole = [index for index in whole if index not in before or marks.ends(data, *fragments[before[index]])]
            whole = whole if marks.ends(data, *fragments[filled[-1]]) else []
        self.filled = [0, *filled[1:]]
        """Those that are not empty; empty ones before them all belong to the first."""
        self.frames = [0, *frames[1:]] if frames else []
        """Those that begin as a frame does, when the first does."""
        self.whole = [0, *whole[1:]] if whole else []
        """Those of them of which there is no doubt, since the frame before has ended."""
        self._marked = set(self.frames)
        self._fragments = fragments

    def allow(self, starts: Sequence[int]) -> bool:
        """Whether frames may begin there: with a start marker where these are known, or empty."""
        return not self.frames or all(index in self._marked or not self._fragments[index][1] for index in starts)
