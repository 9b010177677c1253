"""The frames of a series in reading order, gathered once for all who read it progressively."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from pacs.archive import Archive
from pacs.dicomweb.offload import Offload, Once
from pacs.errors import RequestError
from pacs.reading import Frame
from pacs.storage.model import SeriesEntry

MOST_FRAMES: Final = 50_000
"""Of a series that is read like this; the tiles of a whole slide are asked for by number."""
_KEPT_FRAMES: Final = 60_000
"""Frames of all the plans that a worker keeps, half a kilobyte each."""


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """The frames of a series in reading order: by Instance Number, UID, frame number."""

    study: str
    series: str
    state: str
    """Changes whenever the series does."""
    received: float
    """When its newest instance arrived, seconds since 1970."""
    frames: tuple[Frame, ...]

    def receiving(self, quiet: float) -> bool:
        """Whether more is likely to come: the newest instance is not older than `quiet` seconds."""
        return time.time() - self.received < quiet


class Plans:
    """The plans used lately."""

    def __init__(self, archive: Archive, offload: Offload) -> None:
        self._archive = archive
        self._offload = offload
        self._plans: OrderedDict[tuple[str, int], SeriesPlan] = OrderedDict()
        self._frames = 0
        self._once: Once[SeriesPlan] = Once()

    async def of(self, entry: SeriesEntry) -> SeriesPlan:
        """The plan of a series as it is now. Raises RequestError when it has too many frames."""
        key = (entry.uid, entry.sequence)
        plan = self._plans.get(key)
        if plan is None:
            plan = await self._once(key, lambda: self._offload.read(_plan, self._archive, entry))
            self._keep(key, plan)
        else:
            self._plans.move_to_end(key)
        return plan

    def _keep(self, key: tuple[str, int], plan: SeriesPlan) -> None:
        if key not in self._plans:
            self._plans[key] = plan
            self._frames += len(plan.frames) + 1
        while self._frames > _KEPT_FRAMES:
            self._frames -= len(self._plans.popitem(last=False)[1].frames) + 1


def _plan(archive: Archive, entry: SeriesEntry) -> SeriesPlan:
    frames: list[Frame] = []
    received = 0
    for frame in archive.series_frames(entry.study, entry.uid):
        if len(frames) == MOST_FRAMES:
            raise RequestError(f"the series has more than {MOST_FRAMES} frames: ask for them by number")
        frames.append(frame)
        received = max(received, frame.entry.descriptor.received)
    state = hashlib.blake2b(f"{entry.uid} {entry.sequence}".encode(), digest_size=12).hexdigest()
    return SeriesPlan(entry.study, entry.uid, state, received / 1000, tuple(frames))


def frame_url(frame: Frame) -> str:
    """Relative to its series."""
    return f"instances/{frame.entry.descriptor.instance}/frames/{frame.number}"


def ends(frame: Frame) -> tuple[int, ...]:
    """Where its resolution levels end, coarsest first; a frame whose prefixes are no images has one. The last is its
    length: the end marker belongs to the finest level."""
    return (*frame.level_ends[:-1], frame.length)


def shape(frame: Frame) -> tuple[int, int, int]:
    """(rows, columns, number of resolution levels)."""
    geometry = frame.entry.descriptor.geometry
    return (geometry.rows, geometry.columns, len(ends(frame))) if geometry is not None else (0, 0, 1)
