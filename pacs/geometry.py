"""How the samples of a frame lie in memory, as its Data Set describes them (PS3.3 C.7.6.3, PS3.5 8.1)."""

from __future__ import annotations

import math

import msgspec


class FrameGeometry(msgspec.Struct, frozen=True, array_like=True):
    """The Image Pixel description of one instance. All of its frames share it.

    Values are those of the Data Set and may contradict each other: whoever relies on them checks first.
    """

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    """0 unsigned, 1 two's complement."""
    planar_configuration: int
    photometric_interpretation: str
    frames: int

    @property
    def signed(self) -> bool:
        return self.pixel_representation == 1

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame. YBR_FULL_422 shares chroma between two pixels. PS3.3 C.7.6.3.1.2"""
        samples = 2 if self.photometric_interpretation == "YBR_FULL_422" else self.samples_per_pixel
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def decompositions(self) -> int:
        """Wavelet decompositions that leave a base of at most 64 samples a side, 5 at least. PS3.5 10.18"""
        side = max(self.rows, self.columns, 1)
        return max(5, math.ceil(math.log2(side / 64))) if side > 64 else 5
