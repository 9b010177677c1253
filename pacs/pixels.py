"""Native frames of 8 and 16 bits allocated and their samples, both ways and exactly (PS3.5 8.1, PS3.3 C.7.6.3)."""

from __future__ import annotations

import sys
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pacs._codecs import pixels as _kernel
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry

Buffer: TypeAlias = bytes | bytearray | memoryview

ZERO: Final = "zero"
"""The unused bits are zero."""
SIGN: Final = "sign"
"""They are copies of the highest used bit."""
RESIDUAL: Final = "residual"
"""They hold anything else, such as an overlay."""

_NATIVE_BIG = sys.byteorder == "big"


def dtype(geometry: FrameGeometry) -> np.dtype[Any]:
    """The numpy type of a sample of 8 or 16 bits allocated, in the machine's byte order; PixelError for others."""
    if geometry.bits_allocated not in (8, 16):
        raise PixelError(f"samples of {geometry.bits_allocated} bits allocated")
    return np.dtype(f"{'int' if geometry.signed else 'uint'}{geometry.bits_allocated}")


def shape(geometry: FrameGeometry) -> tuple[int, ...]:
    """(rows, columns), with samples a third axis when there are several."""
    if geometry.samples_per_pixel == 1:
        return (geometry.rows, geometry.columns)
    return (geometry.rows, geometry.columns, geometry.samples_per_pixel)


def check(geometry: FrameGeometry) -> None:
    """PixelError unless frames of this description can be split into samples and joined again."""
    dtype(geometry)
    if min(geometry.rows, geometry.columns, geometry.samples_per_pixel) < 1:
        raise PixelError(f"{geometry.rows} rows of {geometry.columns} columns of {geometry.samples_per_pixel} samples")
    if not 1 <= geometry.bits_stored <= geometry.bits_allocated:
        raise PixelError(f"{geometry.bits_stored} bits stored of {geometry.bits_allocated} allocated")
    if geometry.high_bit != geometry.bits_stored - 1:
        # Bits below the sample need a second residual; it is rare (ACR-NEMA), so the frame stays as received.
        raise PixelError(f"high bit {geometry.high_bit} with {geometry.bits_stored} bits stored")
    if geometry.pixel_representation not in (0, 1) or geometry.planar_configuration not in (0, 1):
        raise PixelError("Pixel Representation or Planar Configuration is neither 0 nor 1")
    if geometry.photometric_interpretation == "YBR_FULL_422":
        raise PixelError("samples of YBR_FULL_422 are not all there")


def split(
    frame: Buffer, geometry: FrameGeometry, *, big_endian: bool
) -> tuple[NDArray[Any], str, bytes]:
    """(samples, what the unused bits hold, residual) of one native frame, such that `join` gives `frame` again.

    The samples equal pydicom's `pixel_array(raw=True)`: colour by pixel, unused bits masked or sign-extended. They
    may be a read-only view of `frame`. The residual is one value a sample in file order, little endian, b"" unless
    the kind is "residual". PS3.5 8.1.1
    """
    check(geometry)
    width = geometry.bits_allocated // 8
    expected = geometry.rows * geometry.columns * geometry.samples_per_pixel * width
    source = memoryview(frame).cast("B")
    if len(source) != expected:
        raise PixelError(f"a frame of {len(source)} bytes where {expected} are described")
    swap = width == 2 and big_endian != _NATIVE_BIG
    unused = geometry.bits_allocated - geometry.bits_stored
    found = _kernel.unused_bits(source, width, unused, swap) if unused else 0
    kind = _kind(found, geometry.signed)
    planar = geometry.planar_configuration == 1 and geometry.samples_per_pixel > 1
    if not swap and not planar and (not unused or kind == (SIGN if geometry.signed else ZERO)):
        return np.frombuffer(source, dtype(geometry)).reshape(shape(geometry)), kind, b""
    samples = np.empty(shape(geometry), dtype(geometry))
    residual = bytearray(expected) if kind == RESIDUAL else None
    _kernel.extract(
        source, samples.reshape(-1).view(np.uint8).data, residual, geometry.rows * geometry.columns,
        geometry.samples_per_pixel, width, planar, swap, unused, geometry.signed,
    )  # fmt: skip
    return samples, kind, _little(residual, width) if residual is not None else b""


def level_shifted(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    """Unsigned samples as signed ones, 2^(bits - 1) less each, wrapping. T.800 G.1

    As numpy does it; but for an image of usual size the interpreter is not handed over, which would take longer.
    """
    if samples.itemsize > 2:
        wide: NDArray[Any] = (samples - samples.dtype.type(1 << (bits - 1))).view(f"i{samples.itemsize}")
        return wide
    samples = np.ascontiguousarray(samples)
    shifted = np.empty(samples.shape, f"i{samples.itemsize}")
    _kernel.less(
        samples.reshape(-1).view(np.uint8).data, shifted.reshape(-1).view(np.uint8).data, samples.itemsize,
        1 << (bits - 1),
    )  # fmt: skip
    return shifted


def fit(samples: NDArray[Any], bits: int) -> bool:
    """Whether integer samples of 8 or 16 bits, signed or not, have no value that `bits` bits cannot hold."""
    unused = 8 * samples.itemsize - bits
    if unused <= 0:
        return True
    cells = np.ascontiguousarray(samples).reshape(-1).view(np.uint8).data
    found: int = _kernel.unused_bits(cells, samples.itemsize, unused, False)
    return not found & (2 if samples.dtype.kind == "i" else 1)


def same(one: Buffer, other: Buffer) -> bool:
    """Whether two buffers hold the same bytes; `==` compares views item by item."""
    return bool(_kernel.same(one, other))


def _kind(found: int, signed: bool) -> str:
    """The kind that costs nothing for this sign when both fit."""
    if found == 0:
        return SIGN if signed else ZERO
    if not found & 1:
        return ZERO
    return SIGN if not found & 2 else RESIDUAL


def join(
    samples: NDArray[Any], geometry: FrameGeometry, *, big_endian: bool, unused_bits: str, residual: Buffer = b""
) -> Buffer:
    """The native frame that `split` took apart; a view of `samples` where they are laid out like it."""
    check(geometry)
    if samples.dtype != dtype(geometry) or samples.shape != shape(geometry):
        raise PixelError(f"samples {samples.dtype}{samples.shape} do not fit their description")
    width = geometry.bits_allocated // 8
    swap = width == 2 and big_endian != _NATIVE_BIG
    unused = geometry.bits_allocated - geometry.bits_stored
    planar = geometry.planar_configuration == 1 and geometry.samples_per_pixel > 1
    if not swap and not planar and (not unused or unused_bits == (SIGN if geometry.signed else ZERO)):
        return np.ascontiguousarray(samples).reshape(-1).view(np.uint8).data.toreadonly()
    rest = None
    if unused_bits == RESIDUAL:
        if len(residual) != samples.nbytes:
            raise PixelError(f"a residual of {len(residual)} bytes for {samples.nbytes} bytes of samples")
        rest = _little(residual, width)
    frame = bytearray(samples.nbytes)
    _kernel.restore(
        np.ascontiguousarray(samples).reshape(-1).view(np.uint8).data, frame, rest, geometry.rows * geometry.columns,
        geometry.samples_per_pixel, width, planar, swap, unused, unused_bits == SIGN,
    )  # fmt: skip
    return frame


def _little(residual: Buffer, width: int) -> bytes:
    """Words in the machine's order to little endian, or back."""
    if width == 2 and _NATIVE_BIG:
        return np.frombuffer(residual, np.uint16).byteswap().tobytes()
    return bytes(residual)


def decode_native(
    value: Buffer,
    geometry: FrameGeometry,
    *,
    big_endian: bool,
    bit_offset: int = 0,
    floating: bool = False,
    word_swapped: bool = False,
) -> NDArray[Any]:
    """The samples of one native frame of any Bits Allocated, (rows, columns[, samples]), in the machine's order.

    `value` starts with the byte that holds the frame's first bit, which is bit `bit_offset` of it (1 bit allocated).
    `floating`: the frame is of Float or Double Float Pixel Data. `word_swapped`: 8-bit samples in big endian OW.
    Other than `split` it follows any High Bit and doubles the chroma of YBR_FULL_422. PS3.5 8.1.1, A.2, D.2
    """
    count, ybr_422 = _count(geometry)
    bits = geometry.bits_allocated
    if bits not in ((32, 64) if floating else (1, 8, 16, 32, 64)):
        raise PixelError(f"samples of {bits} bits allocated")
    needed = -(-(count * bits + bit_offset) // 8)
    source = memoryview(value).cast("B")
    if len(source) < needed:
        raise PixelError(f"a frame of {len(source)} bytes where {needed} are described")
    if bits == 1:
        packed = np.frombuffer(source[:needed], np.uint8)
        samples = np.unpackbits(packed, bitorder="little")[bit_offset : bit_offset + count]
    else:
        kind = "f" if floating else "i" if geometry.signed else "u"
        order = ">" if big_endian else "<"
        samples = np.frombuffer(source[:needed], f"{order}{kind}{bits // 8}")
        if word_swapped and bits == 8:
            samples = _swapped(source[: needed + needed % 2], samples.dtype)[:count]
        samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
        if not floating:
            samples = _used_bits(samples, geometry)
    return _by_pixel(samples, geometry, ybr_422)


def encode_native(samples: NDArray[Any], geometry: FrameGeometry) -> bytes:
    """Decoded samples as a native little endian frame of any Bits Allocated; one of 1 bit starts at a byte.

    Unused bits are zero, or above the sample copies of the sign, as decoders leave them. Samples lie where High Bit
    says; one that cannot be is passed over, as `decode_native` does. PS3.5 8.1.1
    """
    if samples.shape != shape(geometry):
        raise PixelError(f"samples {samples.shape} where {shape(geometry)} are described")
    if geometry.bits_stored <= geometry.high_bit < geometry.bits_allocated and samples.dtype.kind in "iu":
        samples = np.left_shift(samples, geometry.high_bit + 1 - geometry.bits_stored)
    if geometry.planar_configuration == 1 and geometry.samples_per_pixel > 1:
        samples = np.moveaxis(samples, -1, 0)
    if geometry.bits_allocated == 1:
        return np.packbits(samples, bitorder="little").tobytes()
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()


def _count(geometry: FrameGeometry) -> tuple[int, bool]:
    """Samples of a native frame, and whether its chroma is shared between two pixels. PS3.3 C.7.6.3.1.2"""
    if min(geometry.rows, geometry.columns, geometry.samples_per_pixel) < 1:
        raise PixelError(f"{geometry.rows} rows of {geometry.columns} columns of {geometry.samples_per_pixel} samples")
    pixels = geometry.rows * geometry.columns
    if geometry.photometric_interpretation != "YBR_FULL_422" or geometry.samples_per_pixel != 3:
        return pixels * geometry.samples_per_pixel, False
    if pixels % 2:
        raise PixelError("YBR_FULL_422 with an odd number of pixels")
    return pixels * 2, True


def _swapped(source: memoryview, sample: np.dtype[Any]) -> NDArray[Any]:
    if len(source) % 2:
        raise PixelError("an odd number of bytes in words")
    return np.frombuffer(source, np.uint16).byteswap().view(sample)


def _used_bits(samples: NDArray[Any], geometry: FrameGeometry) -> NDArray[Any]:
    """Bits High Bit - Bits Stored + 1 to High Bit of each sample, sign-extended when signed."""
    stored, high = geometry.bits_stored, geometry.high_bit
    if not 1 <= stored <= geometry.bits_allocated:
        raise PixelError(f"{stored} bits stored of {geometry.bits_allocated} allocated")
    if not stored - 1 <= high < geometry.bits_allocated:
        high = stored - 1
    if stored == geometry.bits_allocated:
        return samples
    samples = np.left_shift(samples, geometry.bits_allocated - 1 - high)
    np.right_shift(samples, geometry.bits_allocated - stored, out=samples)
    return samples


def _by_pixel(samples: NDArray[Any], geometry: FrameGeometry, ybr_422: bool) -> NDArray[Any]:
    rows, columns, count = geometry.rows, geometry.columns, geometry.samples_per_pixel
    if ybr_422:
        pairs = samples.reshape(-1, 4)
        out = np.empty((len(pairs), 2, 3), samples.dtype)
        out[:, 0, 0], out[:, 1, 0] = pairs[:, 0], pairs[:, 1]
        out[:, :, 1:] = pairs[:, None, 2:]
        return out.reshape(rows, columns, 3)
    if count == 1:
        return samples.reshape(rows, columns)
    if geometry.planar_configuration == 1:
        return np.ascontiguousarray(samples.reshape(count, rows, columns).transpose(1, 2, 0))
    return samples.reshape(rows, columns, count)
