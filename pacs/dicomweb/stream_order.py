"""The order of a series stream: which rung of which frame is next, and which bytes of it have not been sent yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pacs.dicomweb import rungs
from pacs.dicomweb.plans import PlannedFrame
from pacs.dicomweb.rungs import Rung
from pacs.reading_order import outwards
from pacs.transcode import Rendition


class Step(NamedTuple):
    """A rung of a frame, in its turn."""

    position: int
    """Of the frame in reading order, from 0."""
    rung: Rung


class Part(NamedTuple):
    """One part of the response: bytes `start` to `end` of a codestream."""

    step: Step
    transfer_syntax: str
    start: int
    end: int
    total: int


class Source(NamedTuple):
    """A codestream of a frame, of which rungs are prefixes."""

    name: str
    """Tells codestreams of one frame apart, which may share a Transfer Syntax: bytes of two never meet."""
    transfer_syntax: str
    ends: tuple[int, ...] = ()
    """Where its levels or layers end, the last of them with the end marker; () until it has been made."""
    rendition: Rendition | None = None
    """How it is made; None: it is stored, or has layers."""
    quality: float | None = None


def steps(count: int, wanted: tuple[Rung, ...], first: int) -> Iterator[Step]:
    """Each rung of every frame before the next rung."""
    for rung in wanted:
        for position in outwards(count, first):
            yield Step(position, rung)


class Sent:
    """How much of each codestream of each frame has been sent: the next rung is what is missing."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, str], int] = {}
        self._latest: dict[tuple[int, str], str] = {}
        """Name of the source of a frame's last part in a Transfer Syntax: for these clients keep one buffer."""

    def anew(self, step: Step, source: Source) -> bool:
        """Whether the next part begins with the first byte, another codestream having come in its Transfer Syntax."""
        buffer = (step.position, source.transfer_syntax)
        before, self._latest[buffer] = self._latest.get(buffer), source.name
        return before != source.name

    def part(self, step: Step, frame: PlannedFrame, source: Source, anew: bool | None = None) -> Part | None:
        """What `step` adds of a codestream whose ends are known; None when that is nothing."""
        rung, ends = step.rung, source.ends
        if len(ends) == 1 and rung.kind in (rungs.LEVEL, rungs.PIXELS):
            return None  # no prefix of it is an image
        if rung.kind in (rungs.LEVEL, rungs.PIXELS):
            end = ends[rung.level(*frame.size, len(ends))]
        else:
            end = ends[rung.layer(len(ends))]
        key = (step.position, source.name)
        start = self._ends.get(key, 0)
        if end <= start:
            return None
        self._ends[key] = end
        if self.anew(step, source) if anew is None else anew:
            start = 0
        return Part(step, source.transfer_syntax, start, end, ends[-1])
