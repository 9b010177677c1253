"""The frames of a series in reading order, gathered once for all who read it progressively."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pacs import uids
from pacs.archive import Archive
from pacs.dicomweb.offload import Offload, Once
from pacs.errors import ChecksumError, RequestError
from pacs.reading import Frame, is_native
from pacs.renditions import Renditions, available
from pacs.storage.model import SeriesEntry
from pacs.transcode import Rendition

MOST_FRAMES: Final = 50_000
"""Of a series that is read like this; the tiles of a whole slide are asked for by number."""
_KEPT_FRAMES: Final = 60_000
"""Frames of all the plans that a worker keeps, half a kilobyte each."""
_MADE_KEPT: Final = 4
"""Codestreams made of a frame whose ends are kept, on the average."""

_Key: TypeAlias = tuple[str, str, int]
"""Study, series and the commit that changed it last. Two studies may share a series UID, and a commit."""


@dataclass(frozen=True, slots=True)
class PlannedFrame:
    """A frame in the form of which prefixes are images, or as it is stored where there is no such form."""

    frame: Frame
    rendition: Rendition | None
    """How that form is made; None: it is the stored one."""
    transfer_syntax: str
    ends: tuple[int, ...]
    """Where its resolution levels end, coarsest first, the last one with the end marker; () until it has been made."""
    crc32c: int | None
    """Of those bytes; None where they are not at hand as one piece."""

    @property
    def etag(self) -> str:
        """That of the answer which brings the codestream as a single part, without quotes."""
        if self.rendition is None:
            return f"{self.frame.etag}-s"
        return f"{self.frame.etag}-s-{self.crc32c:08x}" if self.crc32c is not None else ""

    @property
    def length(self) -> int | None:
        """In bytes; None until it has been made."""
        return self.ends[-1] if self.ends else None

    @property
    def url(self) -> str:
        """Relative to its series."""
        return f"instances/{self.frame.entry.descriptor.instance}/frames/{self.frame.number}"

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)"""
        geometry = self.frame.entry.descriptor.geometry
        return (geometry.rows, geometry.columns) if geometry is not None else (0, 0)


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """The frames of a series in reading order: by Instance Number, UID, frame number."""

    study: str
    series: str
    state: str
    """Changes whenever the series does."""
    received: float
    """When its newest instance arrived, seconds since 1970."""
    frames: tuple[PlannedFrame, ...]
    damaged: set[int] = field(default_factory=set)
    """Positions of frames whose checksum has been found wrong: streams leave them out."""
    made: dict[tuple[int, str], tuple[int, ...]] = field(default_factory=dict)
    """Where the levels or layers end of what was made for streams, by position and name of the source: what has been
    received already need not be made again to be left out."""

    def remember(self, position: int, source: str, ends: tuple[int, ...]) -> None:
        """Keep the ends of a codestream, within bounds."""
        if len(self.made) < _MADE_KEPT * len(self.frames):
            self.made[position, source] = ends

    def receiving(self, quiet: float) -> bool:
        """Whether more is likely to come: the newest instance is not older than `quiet` seconds."""
        return time.time() - self.received < quiet


class Plans:
    """The plans used lately."""

    def __init__(self, archive: Archive, made: Renditions, offload: Offload) -> None:
        self._archive = archive
        self._made = made
        self._offload = offload
        self._plans: OrderedDict[_Key, SeriesPlan] = OrderedDict()
        self._frames = 0
        self._once: Once[SeriesPlan] = Once()
        self.hits = self.misses = 0

    async def of(self, entry: SeriesEntry) -> SeriesPlan:
        """The plan of a series as it is now. Raises RequestError when it has too many frames."""
        key = (entry.study, entry.uid, entry.sequence)
        plan = self._plans.get(key)
        if plan is None:
            self.misses += 1
            plan = await self._once(key, lambda: self._offload.read(self._plan, entry))
            self._keep(key, plan)
        else:
            self.hits += 1
            self._plans.move_to_end(key)
        return plan

    def _keep(self, key: _Key, plan: SeriesPlan) -> None:
        if key not in self._plans:
            self._plans[key] = plan
            self._frames += len(plan.frames) + 1
        while self._frames > _KEPT_FRAMES:
            self._frames -= len(self._plans.popitem(last=False)[1].frames) + 1

    def _plan(self, entry: SeriesEntry) -> SeriesPlan:
        frames: list[PlannedFrame] = []
        received = 0
        for frame in self._archive.series_frames(entry.study, entry.uid):
            if len(frames) == MOST_FRAMES:
                raise RequestError(f"the series has more than {MOST_FRAMES} frames: ask for them by number")
            frames.append(self._planned(frame))
            received = max(received, frame.entry.descriptor.received)
        # A series put back from a backup may reach a number that it had before, with other images.
        digest = hashlib.blake2b(f"{entry.uid} {entry.sequence}\n".encode(), digest_size=12)
        for planned in frames:
            digest.update(f"{planned.url} {planned.frame.etag} {planned.etag}\n".encode())
        return SeriesPlan(entry.study, entry.uid, digest.hexdigest(), received / 1000, tuple(frames))

    def _planned(self, frame: Frame) -> PlannedFrame:
        rendition = progressive(frame)
        if rendition is None:
            known = frame.chunks[0].crc32c if len(frame.chunks) == 1 and not is_native(frame) else None
            return PlannedFrame(frame, None, frame.transfer_syntax, ends(frame.level_ends, frame.length), known)
        if rendition.kind == "encoded":
            return PlannedFrame(frame, rendition, rendition.transfer_syntax, (), None)
        # Packets are put in order in a fraction of a millisecond: rather now than to leave its levels unknown.
        try:
            made = self._made.frame(frame, rendition, remember=False)
        except ChecksumError:
            return PlannedFrame(frame, rendition, rendition.transfer_syntax, (), None)  # whoever asks for it is told
        levels = ends(made.level_ends, len(made.data))
        return PlannedFrame(frame, rendition, rendition.transfer_syntax, levels, made.crc32c)


def ends(levels: tuple[int, ...], length: int) -> tuple[int, ...]:
    """Where the resolution levels of a codestream end, that without them has one. The end marker is of the finest."""
    return (*levels[:-1], length)


def progressive(frame: Frame) -> Rendition | None:
    """How a form of the frame is made of which prefixes are images; None: the stored form is served.

    Frames in JPEG 2000 of another order are put in order; those without loss in other codecs become HTJ2K, unless they
    have 1 or 32 bits, which decoders of viewers do not know. What was lossy already in a codec without levels is small
    as it is, and would only grow.
    """
    if frame.level_ends:
        return None
    found = available.of_frames(available.stored(frame.entry))
    if frame.transfer_syntax in available.J2K:
        return found[0]
    geometry = frame.entry.descriptor.geometry
    if not uids.transfer_syntax(frame.transfer_syntax).lossless or geometry is None:
        return None
    if geometry.bits_allocated not in (8, 16):
        return None
    return next((one for one in found if one.transfer_syntax == uids.HTJ2K_LOSSLESS_RPCL and one.lossless), None)
