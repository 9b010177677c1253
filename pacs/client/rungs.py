"""Rungs: how much of a frame is wanted, or held (docs/client.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

_RUNG: Final = re.compile(r"(level|pixels|layer|quality|bytes)[:=]([0-9]{1,10})|lossless", re.ASCII)
Rank: TypeAlias = tuple[int, int]
"""Of two images of a frame the sharper one has the higher rank."""
FINAL: Final[Rank] = (2, 0)


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung of the ladder from a preview to the frame as it is stored."""

    kind: str
    """`level`: a resolution level, 0 the coarsest. `pixels`: the smallest level whose longer side has so many.
    `layer`: full size with so many quality layers. `quality`: full size with a PSNR of so many dB. `bytes`: full size
    in at most so many bytes. `lossless`: every sample of the frame."""
    value: int = 0

    @property
    def name(self) -> str:
        """`level=2`, `lossless`: as views carry it."""
        return self.kind if self.kind == "lossless" else f"{self.kind}={self.value}"

    @property
    def wanted(self) -> str:
        """`level:2`, `lossless`: as the stream resource takes it."""
        return self.name.replace("=", ":")

    @property
    def alone(self) -> bool:
        """Whether it is a codestream of its own, from which nothing sharper can be continued."""
        return self.kind in ("quality", "bytes")

    def level(self, sizes: Sequence[tuple[int, int]]) -> int:
        """The resolution level that it means, of levels of these rows and columns, coarsest first."""
        finest = len(sizes) - 1
        if self.kind == "level":
            return min(self.value, finest)
        if self.kind == "pixels":
            return next((level for level, size in enumerate(sizes) if max(size) >= self.value), finest)
        return finest

    def rank(self, sizes: Sequence[tuple[int, int]]) -> Rank:
        """How sharp it is of a frame with levels of these sizes. Qualities are told apart from levels, and from each
        other by their number."""
        if self.kind in ("layer", "quality", "bytes"):
            return (1, self.value)
        level = self.level(sizes)
        return FINAL if level == len(sizes) - 1 else (0, level)


LOSSLESS: Final = Rung("lossless")


def rung(text: str) -> Rung:
    """The rung that a text such as `pixels:128` or `level=2` names. Raises ValueError."""
    found = _RUNG.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:40]!r} is no rung: level:N, pixels:N, layer:N, quality:N and lossless are")
    if found[1] is None:
        return LOSSLESS
    return Rung(found[1], int(found[2]))
