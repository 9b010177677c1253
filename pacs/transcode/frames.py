"""What the samples of one frame must be: their type and shape, and how much memory decoding may take."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pacs import pixels
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry

Buffer: TypeAlias = bytes | bytearray | memoryview
Samples: TypeAlias = NDArray[Any]

LARGEST_DECODED: Final = 1 << 30
"""Bytes of a frame's samples. Decoding takes several times as much (`working_memory`)."""

_FREELY_DECODED, _MOST_EXPANSION = 64 << 20, 1 << 16
"""A frame of more bytes than the first must have been compressed by less than the second.

JPEG 2000, JPEG-LS and JPEG XL can say "all one value" for any area in a hundred bytes, so no ratio is beyond their
syntax; but an image of that size has noise, which alone keeps real ones below 1,000. DCT JPEG has a bit for each 64
samples at least (512), RLE a byte for 64 (PS3.5 G.3.1), deflate one for 1,032.
"""


def check_described(geometry: FrameGeometry) -> None:
    """PixelError unless encapsulated frames can be what the Data Set describes."""
    if min(geometry.rows, geometry.columns, geometry.samples_per_pixel, geometry.bits_stored) < 1:
        raise PixelError("Rows, Columns, Samples per Pixel or Bits Stored is not positive")
    if geometry.bits_allocated not in (1, 8, 16, 32) or geometry.bits_stored > geometry.bits_allocated:
        raise PixelError(f"{geometry.bits_stored} bits stored of {geometry.bits_allocated} allocated")


def dtype(geometry: FrameGeometry) -> np.dtype[Any]:
    """The numpy type of decoded samples."""
    return np.dtype(f"{'int' if geometry.signed else 'uint'}{max(8, geometry.bits_allocated)}")


def size(geometry: FrameGeometry) -> int:
    """Bytes of the decoded samples of one frame."""
    return geometry.rows * geometry.columns * geometry.samples_per_pixel * max(1, geometry.bits_allocated // 8)


def check_size(length: int, geometry: FrameGeometry) -> None:
    """Rows and Columns of one small file could otherwise have a decoder take gigabytes, at every request."""
    decoded = size(geometry)
    if decoded > LARGEST_DECODED:
        raise PixelError(f"a frame of {decoded} bytes is not decoded, {LARGEST_DECODED} are the most")
    if decoded > _FREELY_DECODED and length * _MOST_EXPANSION < decoded:
        raise PixelError(f"{length} bytes cannot be a frame of {decoded}")


def check_agrees(rows: int, columns: int, samples: int, geometry: FrameGeometry) -> None:
    """PixelError unless a codestream's own size is that of the Data Set."""
    if (rows, columns, samples) != (geometry.rows, geometry.columns, geometry.samples_per_pixel):
        raise PixelError(
            f"the frame is {rows} rows of {columns} columns of {samples} samples, its Data Set says "
            f"{geometry.rows} of {geometry.columns} of {geometry.samples_per_pixel}"
        )


def value_range(bits: int, signed: bool) -> tuple[int, int]:
    """The least and greatest value of that many bits."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def aligned(decoded: Samples, geometry: FrameGeometry, precision: int) -> Samples:
    """Samples of `precision` bits moved down where the Data Set has them lie higher than the lowest bits.

    High Bit of encapsulated frames shall be Bits Stored - 1, and another one is believed where the codestream has
    that bit: it then holds whole cells, unused low bits too. PS3.5 8.1.1
    """
    surplus = geometry.high_bit + 1 - geometry.bits_stored
    if surplus <= 0 or geometry.high_bit >= precision:
        return decoded
    moved: Samples = decoded >> surplus
    return moved


def check_samples(samples: Samples, geometry: FrameGeometry) -> None:
    """PixelError unless samples are as decoders give frames of this description."""
    if samples.shape != pixels.shape(geometry) or samples.dtype != dtype(geometry):
        raise PixelError(f"samples {samples.dtype}{samples.shape} do not fit their description")


def conform(decoded: Samples, geometry: FrameGeometry, bits: int) -> Samples:
    """Decoded samples in the Data Set's type: their low `bits` bits, sign-extended when it says signed. PS3.5 8.1.1"""
    if decoded.size != math.prod(pixels.shape(geometry)):
        raise PixelError(f"the decoder gave {decoded.shape} where {pixels.shape(geometry)} is described")
    target = dtype(geometry)
    samples: Samples = decoded.reshape(pixels.shape(geometry))
    bits = min(bits, 8 * target.itemsize)
    if samples.dtype == target:
        # Looking costs a fraction of shifting, and nearly all frames keep to their range.
        if target.itemsize <= 2:
            fitting = pixels.fit(samples, bits)
        else:
            low, high = value_range(bits, geometry.signed)
            fitting = bits >= 8 * target.itemsize or bool(samples.max() <= high and samples.min() >= low)
        if fitting:
            return samples
    # Casting between integers keeps the low bits, whatever the signs.
    unused = 8 * target.itemsize - bits
    samples = np.left_shift(samples.astype(target), unused)
    np.right_shift(samples, unused, out=samples)
    return samples


# --- memory -----------------------------------------------------------------------------------------------------


class MemoryBudget:
    """Bytes that decoders of this process may hold together: who comes when they are taken waits his turn.

    Work larger than the whole budget is done alone: to refuse it for ever would be worse.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def resize(self, capacity: int) -> None:
        """From now on, `capacity` bytes. What is held stays held."""
        with self._changed:
            self._capacity = capacity
            self._changed.notify_all()

    @property
    def capacity(self) -> int:
        """Bytes in all."""
        return self._capacity

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Bytes in use now."""
        return self._held

    @contextlib.contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait for `amount` bytes and keep them meanwhile."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._fits(amount))
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify_all()

    def _fits(self, amount: int) -> bool:
        return self._held == 0 or self._held + amount <= self._capacity


def working_memory(size: int, itemsize: int) -> int:
    """Bytes that decoding or encoding samples of `size` bytes takes: OpenJPEG and wide samples of OpenJPH hold 4 bytes
    a sample twice beside them. Measured: 3 to 7 times the samples of 8 bits, 1 to 3 times those of 16."""
    return size + 8 * (size // itemsize)


MEMORY: Final = MemoryBudget(1 << 30)
"""Shared by everything here that decodes or encodes. Setting `decode_memory`."""
