"""Rungs of a frame: a resolution level, quality layers, a lossy full size, the whole without loss.

PS3.18 has no word for them. They are asked for in the query of the frames resource (`/frames/1?level=2`), because the
viewers that exist let their users append to the query of a frame's URL, and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from multidict import MultiMapping

from pacs.errors import RequestError

MOST: Final = 16
"""Rungs in one list."""

_NUMBER: Final = re.compile(r"[0-9]{1,10}")

LEVEL: Final = "level"
PIXELS: Final = "pixels"
LAYER: Final = "layer"
BYTES: Final = "bytes"
QUALITY: Final = "quality"
LOSSLESS: Final = "lossless"


@dataclass(frozen=True, slots=True)
class Rung:
    """What a client wants of a frame."""

    kind: str
    """`level`: a resolution level of T.800, 0 the coarsest. `pixels`: the smallest level whose longer side has so
    many. `layer`: the first quality layers, 1 the coarsest. `bytes`: as many layers and packets as fit. `quality`:
    lossy, so many dB. `lossless`: all of it."""
    value: int = 0

    @property
    def name(self) -> str:
        """As the header `Rung` says it."""
        return self.kind if self.kind == LOSSLESS else f"{self.kind}={self.value}"

    def level(self, rows: int, columns: int, levels: int) -> int:
        """The resolution level, from 0, of a frame that has `levels` of them; the finest when it has none so fine."""
        finest = levels - 1
        if self.kind == LEVEL:
            return min(self.value, finest)
        if self.kind == PIXELS:
            side = max(rows, columns)
            return next((r for r in range(levels) if -(-side >> (finest - r)) >= self.value), finest)
        return finest

    def layer(self, layers: int) -> int:
        """The last quality layer, from 0, of a frame that has `layers` of them."""
        return min(self.value, layers) - 1 if self.kind == LAYER else layers - 1


WHOLE: Final = Rung(LOSSLESS)

_OF_A_FRAME: Final = (LEVEL, PIXELS, LAYER, BYTES)
"""Kinds that make a codestream of their own here; `quality` is a matter of content negotiation (`wado`)."""
_OF_A_LIST: Final = (LEVEL, PIXELS, LAYER, QUALITY)
_LEAST: Final = {LAYER: 1, QUALITY: 1, BYTES: 1}
_LARGEST: Final = {QUALITY: 100}


def of_query(query: MultiMapping[str]) -> Rung | None:
    """The rung that a frame's query names; None: the frame as it is. Raises RequestError for a malformed one.

    None for `quality` too, which `negotiation.quality` reads.
    """
    # The items of a query name a parameter as often as it is there.
    named = [kind for kind, _ in query.items() if kind in (*_OF_A_FRAME, QUALITY)]
    if len(named) > 1:
        raise RequestError(f"{' and '.join(named)} exclude each other")
    return of_value(named[0], query[named[0]]) if named and named[0] != QUALITY else None


def only(query: MultiMapping[str], name: str) -> str | None:
    """The value of a parameter that may be there once; None without. Raises RequestError."""
    values = query.getall(name, ())
    if len(values) > 1:
        raise RequestError(f"{name} is there {len(values)} times")
    return values[0] if values else None


def of_list(text: str) -> tuple[Rung, ...]:
    """The rungs of a list such as `level:2,lossless`. Raises RequestError."""
    items = [item.strip() for item in text.split(",")]
    if len(items) > MOST:
        raise RequestError(f"a list may have {MOST} rungs, this one has {len(items)}")
    rungs = []
    for item in items:
        kind, _, value = item.partition(":")
        if kind == LOSSLESS and not value:
            rungs.append(WHOLE)
        elif kind in _OF_A_LIST:
            rungs.append(of_value(kind, value))
        else:
            known = ", ".join(f"{kind}:n" for kind in _OF_A_LIST)
            raise RequestError(f"{item[:40]!r} is no rung: {known} and lossless are")
    return tuple(rungs)


def of_value(kind: str, text: str) -> Rung:
    """The rung of a kind and its value in decimal digits. Raises RequestError."""
    if not _NUMBER.fullmatch(text):
        raise RequestError(f"{kind} {text[:20]!r} is not a whole number")
    value = int(text)
    if not _LEAST.get(kind, 0) <= value <= _LARGEST.get(kind, value):
        raise RequestError(f"{kind} {value} is out of range")
    return Rung(kind, value)


def sizes(rows: int, columns: int, levels: int) -> list[tuple[int, int]]:
    """(rows, columns) of each of `levels` resolution levels, coarsest first. T.800 B.5"""
    return [(-(-rows >> dropped), -(-columns >> dropped)) for dropped in reversed(range(levels))]
