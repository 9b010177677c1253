"""The kinds of images that are measured: of which size, and how many make a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of image."""

    modality: str
    title: str
    sop_class: str
    rows: int
    columns: int
    frames: int
    bits_stored: int
    samples_per_pixel: int
    distinct: int
    """Images that are drawn; the others repeat them."""
    a_study: int
    """Instances of this kind in a usual study."""

    @property
    def shape(self) -> str:
        frames = f"{self.frames} x " if self.frames > 1 else ""
        colour = " RGB" if self.samples_per_pixel == 3 else f" x {self.bits_stored} bit"
        return f"{frames}{self.rows} x {self.columns}{colour}"


_STORAGE = "1.2.840.10008.5.1.4.1.1."
KINDS: Final = (
    Kind("CT", "CT", _STORAGE + "2", 512, 512, 1, 12, 1, 16, 300),
    Kind("MR", "MR", _STORAGE + "4", 320, 320, 1, 12, 1, 8, 150),
    Kind("CR", "radiograph", _STORAGE + "1", 2140, 1760, 1, 10, 1, 2, 2),
    Kind("MG", "mammogram", _STORAGE + "1.2", 3328, 2560, 1, 12, 1, 2, 4),
    Kind("US", "ultrasound", _STORAGE + "3.1", 480, 640, 30, 8, 3, 1, 6),
)
