"""Rungs: how much of a frame is wanted, or held (docs/client.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_RUNG: Final = re.compile(r"(level|pixels|quality|bytes)[:=]([0-9]{1,10}(?:\.[0-9]{1,3})?)|lossless", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung of the ladder from a preview to the frame as it is stored."""

    kind: str
    """`level`: a resolution level, 0 the coarsest. `pixels`: the smallest level whose longer side has so many.
    `quality`: full size with a PSNR of so many dB. `bytes`: full size in at most so many bytes. `lossless`: the frame
    as it is stored."""
    value: float = 0

    @property
    def name(self) -> str:
        """`level=2`, `lossless`: as views carry it."""
        return self.kind if self.kind == "lossless" else f"{self.kind}={self.value:g}"

    @property
    def wanted(self) -> str:
        """`level:2`, `lossless`: as the stream resource takes it."""
        return self.name.replace("=", ":")

    @property
    def lossy(self) -> bool:
        """Whether it is a codestream of its own rather than a prefix of the stored one."""
        return self.kind in ("quality", "bytes")

    def level(self, sizes: Sequence[tuple[int, int]]) -> int:
        """The resolution level that it means, of levels of these rows and columns, coarsest first."""
        finest = len(sizes) - 1
        if self.kind == "level":
            return min(int(self.value), finest)
        if self.kind == "pixels":
            return next((level for level, size in enumerate(sizes) if max(size) >= self.value), finest)
        return finest


LOSSLESS: Final = Rung("lossless")


def rung(text: str) -> Rung:
    """The rung that a text such as `pixels:128` or `level=2` names. Raises ValueError."""
    found = _RUNG.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:40]!r} is no rung: level:N, pixels:N, quality:N, bytes:N and lossless are")
    if found[1] is None:
        return LOSSLESS
    value = float(found[2])
    if found[1] != "quality" and value != int(value):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return Rung(found[1], value)
