"""Samples to codestreams and back: the only module that knows third-party image codecs.

Encoding is always HTJ2K lossless RPCL (PS3.5 10.18). Decoding is one table from Transfer Syntax to decoder. Whatever
a frame's bytes hold, the outcome is samples that fit the Data Set's description or a PixelError, and what a header
claims is compared with that description before a decoder allocates for it.
"""

from __future__ import annotations

import math
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import imagecodecs
import msgspec
import numpy as np
from numpy.typing import NDArray

from pacs import codestream as j2k
from pacs import jpeg, pixels, uids
from pacs.errors import CodestreamError, PixelError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry

Buffer: TypeAlias = bytes | bytearray | memoryview
Samples: TypeAlias = NDArray[Any]

_codecs: Any = imagecodecs
"""Its annotations leave out memoryview, which its functions take."""

_RESOLUTIONS = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS


def _fill_tables() -> None:
    """Use OpenJPH once while no other thread does.

    Its tables are filled at their first use, without a lock: in one of 60 processes that began with four threads at
    once a frame came out damaged. The proof noticed, and it was kept as received; of 150 since, none.
    """
    flat = np.zeros((8, 8, 3), np.uint8)
    for samples, planar in ((flat, False), (flat[..., 0].astype(np.int16), None)):
        for reversible in (True, False):
            encoded = imagecodecs.htj2k_encode(samples, reversible=reversible, planar=planar)
            imagecodecs.htj2k_decode(encoded, planar=planar)


_fill_tables()


LARGEST_DECODED = 1 << 30
"""Bytes of a frame's samples. Decoders take up to five times as much."""

_FREELY_DECODED, _MOST_EXPANSION = 64 << 20, 1 << 16
"""A frame of more bytes than the first must have been compressed by less than the second.

JPEG 2000, JPEG-LS and JPEG XL can say "all one value" for any area in a hundred bytes, so no ratio is beyond their
syntax; but an image of that size has noise, which alone keeps real ones below 1,000. DCT JPEG has a bit for each 64
samples at least (512), RLE a byte for 64 (PS3.5 G.3.1), deflate one for 1,032.
"""

_WIDE: Final = 24
"""Bits that OpenJPH computes with and that hold any overshoot of 16."""


class EncodedFrame(NamedTuple):
    """A frame as .202 and where each resolution level ends in it, coarsest first."""

    codestream: bytes
    level_ends: tuple[int, ...]


def declared_precision(geometry: FrameGeometry) -> int:
    """The precision that a codestream of ours declares: Bits Stored, where decoders return the samples' own type.

    They choose 8-bit samples for a precision of at most 8, so samples of 16 bits allocated declare 9 at least.
    """
    return geometry.bits_stored if geometry.bits_allocated == 8 else max(geometry.bits_stored, 9)


def encode_frame(samples: Samples, geometry: FrameGeometry) -> EncodedFrame:
    """`samples` (as `pixels.split` gives them) as HTJ2K lossless RPCL with a tile-part for each resolution level.

    PixelError when the encoder refuses them. RGB goes through the reversible colour transform. PS3.5 10.18
    """
    pixels.check(geometry)
    if samples.dtype != pixels.dtype(geometry) or samples.shape != pixels.shape(geometry):
        raise PixelError(f"samples {samples.dtype}{samples.shape} do not fit their description")
    bits = declared_precision(geometry)
    several = geometry.samples_per_pixel > 1
    rgb = geometry.photometric_interpretation == "RGB" and geometry.samples_per_pixel == 3
    # The encoder knows no Bits Stored. Signed samples take no level shift, so unsigned ones are shifted here by what
    # the precision declared afterwards makes a decoder add again. T.800 G.1
    shifted = samples
    if not geometry.signed:
        shifted = (samples - samples.dtype.type(1 << (bits - 1))).view(f"i{samples.itemsize}")
    try:
        encoded = bytearray(
            _codecs.htj2k_encode(
                np.ascontiguousarray(shifted),
                reversible=True,
                resolutions=geometry.decompositions,
                rgb=rgb if several else None,
                planar=False if several else None,
                tlm=True,
                tilepart=_RESOLUTIONS,
            )
        )
        j2k.set_precision(encoded, bits, geometry.signed)
        level_ends = j2k.parse(encoded).level_ends
    except (imagecodecs.Htj2kError, ValueError, CodestreamError) as error:
        raise PixelError(f"HTJ2K cannot encode this frame: {error}") from error
    if len(level_ends) != geometry.decompositions + 1:
        raise PixelError("the HTJ2K encoder made no tile-part for each resolution level")
    return EncodedFrame(bytes(encoded), level_ends)


def decode_frame(
    codestream: Buffer, geometry: FrameGeometry, transfer_syntax: str, *, levels_dropped: int = 0
) -> Samples:
    """The samples of one encapsulated frame, (rows, columns[, samples]), typed as the Data Set says.

    Values are those of pydicom's `pixel_array(raw=True)`: colour by pixel, YBR left as YBR except that of a JPEG 2000
    component transform. With `levels_dropped` (JPEG 2000 and HTJ2K only) rows and columns are divided by 2 that often,
    rounded up. Raises PixelError, UnsupportedTransferSyntaxError.
    """
    decode = _DECODERS.get(transfer_syntax)
    if decode is None:
        raise UnsupportedTransferSyntaxError(f"no decoder for {uids.transfer_syntax(transfer_syntax).name}")
    if levels_dropped and transfer_syntax not in _SCALABLE:
        raise UnsupportedTransferSyntaxError(f"no resolution levels in {uids.transfer_syntax(transfer_syntax).name}")
    _check_described(geometry)
    _check_size(len(codestream), geometry)
    try:
        if levels_dropped:
            return _decode_j2k_level(codestream, geometry, levels_dropped)
        return decode(codestream, geometry)
    except PixelError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, OverflowError, MemoryError, zlib.error) as error:
        name = uids.transfer_syntax(transfer_syntax).name
        raise PixelError(f"the {name} frame cannot be decoded: {_first_line(error)}") from error
    except CodestreamError as error:
        raise PixelError(f"the JPEG 2000 frame cannot be decoded: {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _check_described(geometry: FrameGeometry) -> None:
    if min(geometry.rows, geometry.columns, geometry.samples_per_pixel, geometry.bits_stored) < 1:
        raise PixelError("Rows, Columns, Samples per Pixel or Bits Stored is not positive")
    if geometry.bits_allocated not in (1, 8, 16, 32) or geometry.bits_stored > geometry.bits_allocated:
        raise PixelError(f"{geometry.bits_stored} bits stored of {geometry.bits_allocated} allocated")


def _check_size(length: int, geometry: FrameGeometry) -> None:
    """Rows and Columns of one small file could otherwise have a decoder take gigabytes, at every request."""
    decoded = geometry.rows * geometry.columns * geometry.samples_per_pixel * _dtype(geometry).itemsize
    if decoded > LARGEST_DECODED:
        raise PixelError(f"a frame of {decoded} bytes is not decoded, {LARGEST_DECODED} are the most")
    if decoded > _FREELY_DECODED and length * _MOST_EXPANSION < decoded:
        raise PixelError(f"{length} bytes cannot be a frame of {decoded}")


def _shape(geometry: FrameGeometry) -> tuple[int, ...]:
    return pixels.shape(geometry)


def _dtype(geometry: FrameGeometry) -> np.dtype[Any]:
    return np.dtype(f"{'int' if geometry.signed else 'uint'}{max(8, geometry.bits_allocated)}")


def _described(rows: int, columns: int, samples: int, geometry: FrameGeometry) -> None:
    """PixelError unless a codestream's own size is that of the Data Set."""
    if (rows, columns, samples) != (geometry.rows, geometry.columns, geometry.samples_per_pixel):
        raise PixelError(
            f"the frame is {rows} rows of {columns} columns of {samples} samples, its Data Set says "
            f"{geometry.rows} of {geometry.columns} of {geometry.samples_per_pixel}"
        )


def _conform(decoded: Samples, geometry: FrameGeometry, bits: int) -> Samples:
    """Decoded samples in the Data Set's type: their low `bits` bits, sign-extended when it says signed. PS3.5 8.1.1"""
    if decoded.size != math.prod(_shape(geometry)):
        raise PixelError(f"the decoder gave {decoded.shape} where {_shape(geometry)} is described")
    target = _dtype(geometry)
    samples: Samples = decoded.reshape(_shape(geometry))
    bits = min(bits, 8 * target.itemsize)
    if samples.dtype == target:
        low, high = _range(bits, geometry.signed)
        # Looking costs a fraction of shifting, and nearly all frames keep to their range.
        if bits >= 8 * target.itemsize or (samples.max() <= high and (low == 0 or samples.min() >= low)):
            return samples
    # Casting between integers keeps the low bits, whatever the signs.
    unused = 8 * target.itemsize - bits
    samples = np.left_shift(samples.astype(target), unused)
    np.right_shift(samples, unused, out=samples)
    return samples


# --- JPEG 2000 ------------------------------------------------------------------------------------------------


def _parsed(codestream: Buffer, geometry: FrameGeometry) -> j2k.Codestream:
    parsed = j2k.parse(codestream)
    _described(parsed.rows, parsed.columns, len(parsed.components), geometry)
    if any(component[2:] != (1, 1) for component in parsed.components):
        raise PixelError("subsampled JPEG 2000 components")
    if len({component[:2] for component in parsed.components}) != 1:
        raise PixelError("JPEG 2000 components of different precisions")
    return parsed


def _j2k_bits(parsed: j2k.Codestream, geometry: FrameGeometry) -> int:
    """The bits that carry a sample. Encoders that ignore the sign are common, so it comes from the Data Set."""
    monochrome = geometry.photometric_interpretation in ("MONOCHROME1", "MONOCHROME2")
    return parsed.precision if monochrome and parsed.signed != geometry.signed else geometry.bits_stored


def _decode_j2k(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """OpenJPH where it can, for it is ten times faster; OpenJPEG for the rest."""
    parsed = _parsed(codestream, geometry)
    if not parsed.complete:
        raise PixelError(f"the JPEG 2000 frame ends at byte {parsed.length}, {parsed.promised} are promised")
    planar = False if geometry.samples_per_pixel > 1 else None
    raw = memoryview(codestream)[parsed.start : parsed.start + parsed.length]
    if parsed.ht:
        try:
            if parsed.reversible:
                decoded = _openjph(raw, planar=planar)
            else:
                wide = _ht_unclamped(bytearray(raw), parsed, 0, planar)
                decoded = np.clip(wide, *_range(parsed.precision, parsed.signed))
        except imagecodecs.Htj2kError:
            decoded = _codecs.jpeg2k_decode(raw, planar=planar)
    else:
        decoded = _codecs.jpeg2k_decode(raw, planar=planar)
    return _conform(decoded, geometry, _j2k_bits(parsed, geometry))


def _decode_j2k_level(codestream: Buffer, geometry: FrameGeometry, dropped: int) -> Samples:
    """The image without its `dropped` finest resolution levels. HTJ2K needs no more bytes than those before them."""
    parsed = _parsed(codestream, geometry)
    if not 0 < dropped <= parsed.decompositions:
        raise PixelError(f"{dropped} of {parsed.decompositions} resolution levels cannot be dropped")
    smaller = msgspec.structs.replace(
        geometry, rows=-(-geometry.rows >> dropped), columns=-(-geometry.columns >> dropped)
    )
    needed = parsed.level_ends[-1 - dropped] if parsed.level_ends else parsed.promised
    if parsed.length < needed:
        raise PixelError(f"the JPEG 2000 frame ends at byte {parsed.length}, {needed} are needed")
    raw = bytearray(memoryview(codestream)[parsed.start : parsed.start + parsed.length])
    if parsed.ht:
        decoded = _ht_unclamped(raw, parsed, dropped, planar=False if geometry.samples_per_pixel > 1 else None)
    elif parsed.level_ends:
        return _decode_j2k(j2k.reduce(raw, dropped), smaller)
    else:
        decoded = _decode_j2k(raw, geometry)
        for _ in range(dropped):
            decoded = _low_pass(decoded)
    bits = _j2k_bits(parsed, geometry)
    return _conform(np.clip(decoded, *_range(min(bits, parsed.precision), parsed.signed)), smaller, bits)


def _range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


class _SwallowedErrors(threading.local):
    """Errors of OpenJPH that this thread's last call to imagecodecs did not pass on."""

    count = 0


_swallowed = _SwallowedErrors()


def _watch_swallowed_errors() -> None:
    """Put a hook in front of `sys.unraisablehook`, which is where imagecodecs drops OpenJPH's errors.

    It copies samples out in a function that cannot raise, and returns an array partly of whatever memory held.
    """
    before = sys.unraisablehook
    if getattr(before, "counts_swallowed", False):
        return

    def hook(unraisable: Any) -> None:
        if "_htj2k" in str(unraisable.object):
            _swallowed.count += 1
        else:
            before(unraisable)

    hook.counts_swallowed = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _openjph(raw: Buffer, **options: Any) -> Samples:
    _watch_swallowed_errors()
    _swallowed.count = 0
    decoded: Samples = _codecs.htj2k_decode(raw, **options)
    if _swallowed.count:
        raise PixelError("the HTJ2K frame's data is damaged")
    return decoded


def _ht_unclamped(raw: bytearray, parsed: j2k.Codestream, dropped: int, planar: bool | None) -> Samples:
    """Values as the wavelet left them, beyond the range of the declared precision where it overshot.

    OpenJPH wraps what does not fit the type that the declared precision chooses: in the low-pass bands of any stream,
    and everywhere in an irreversible one. Declared as signed 24 bits all of them fit, and the level shift is left to
    us. An irreversible stream is scaled by its precision, so there the surplus bits are rounded away again.
    """
    j2k.set_precision(raw, _WIDE, True)
    wide = _openjph(raw, planar=planar, skipres=dropped or None, resilient=not parsed.complete)
    surplus = 0 if parsed.reversible else _WIDE - parsed.precision
    if surplus:
        wide = (wide + (1 << (surplus - 1))) >> surplus
    return wide if parsed.signed else wide + (1 << (parsed.precision - 1))


def _low_pass(samples: Samples) -> Samples:
    """The low-pass band of one reversible 5/3 decomposition: the next coarser resolution level. T.800 F.4.8"""
    for axis in (0, 1):
        x = np.moveaxis(samples.astype(np.int32, copy=False), axis, 0)
        even, odd = x[::2], x[1::2]
        if len(odd) == 0:
            continue
        after = np.concatenate((even[1:], even[-1:]))[: len(odd)]
        detail = odd - ((even[: len(odd)] + after) >> 1)
        before = np.concatenate((detail[:1], detail))[: len(even)]
        detail = np.concatenate((detail, detail[-1:]))[: len(even)]
        samples = np.moveaxis(even + ((before + detail + 2) >> 2), 0, axis)
    return samples


# --- the others -----------------------------------------------------------------------------------------------


def _decode_jpeg(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """All kinds of T.81. Colour is left as coded, unless the Data Set says RGB and the JPEG itself says YCbCr."""
    header = jpeg.parse(codestream)
    _described(header.rows, header.columns, header.components, geometry)
    convert = geometry.photometric_interpretation == "RGB" and header.ycbcr
    coded = header.components == 3 and not header.lossless and not convert
    space = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"} if coded else {}
    # libjpeg-turbo does the lossless process too. The alternatives here (liblj92) crash on a damaged file.
    return _conform(_codecs.jpeg8_decode(codestream, **space), geometry, geometry.bits_stored)


def _decode_jpeg_ls(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    header = jpeg.parse(codestream)
    _described(header.rows, header.columns, header.components, geometry)
    decoded = _codecs.jpegls_decode(codestream)
    # JPEG-LS knows no sign: the highest bit of its precision is that of the Data Set. PS3.5 8.2.3
    return _conform(decoded, geometry, header.precision if geometry.signed else geometry.bits_stored)


def _decode_jpeg_xl(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    # An `out` of another shape or type than the header's is refused before anything is decoded.
    out = np.empty(_shape(geometry), f"u{max(1, geometry.bits_allocated // 8)}")
    return _conform(_codecs.jpegxl_decode(codestream, out=out), geometry, geometry.bits_stored)


def _decode_rle(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """Samples come out by plane; those of 1 bit packed as in a native frame. PS3.5 Annex G"""
    if geometry.bits_allocated == 1:
        return pixels.decode_native(_codecs.dicomrle_decode(codestream, "u1"), geometry, big_endian=False)
    word = f"<u{max(1, geometry.bits_allocated // 8)}"
    decoded = np.frombuffer(_codecs.dicomrle_decode(codestream, word), word)
    if decoded.size != geometry.rows * geometry.columns * geometry.samples_per_pixel:
        raise PixelError(f"RLE gave {decoded.size} samples")
    if geometry.samples_per_pixel > 1:
        decoded = decoded.reshape(geometry.samples_per_pixel, geometry.rows, geometry.columns).transpose(1, 2, 0)
    return _conform(decoded, geometry, geometry.bits_stored)


def _decode_uncompressed(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """PS3.5 A.4.11. A fragment is padded to even length."""
    return pixels.decode_native(memoryview(codestream)[: -(-geometry.frame_bits // 8)], geometry, big_endian=False)


def _decode_deflated(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """PS3.5 A.4.12; no more is inflated than the frame needs."""
    expected = -(-geometry.frame_bits // 8)
    inflated = zlib.decompressobj(-15).decompress(codestream, expected)
    return pixels.decode_native(inflated, geometry, big_endian=False)


_DECODERS: Final[dict[str, Callable[[Buffer, FrameGeometry], Samples]]] = {
    uids.ENCAPSULATED_UNCOMPRESSED: _decode_uncompressed,
    uids.JPEG_BASELINE: _decode_jpeg,
    uids.JPEG_EXTENDED: _decode_jpeg,
    "1.2.840.10008.1.2.4.53": _decode_jpeg,
    "1.2.840.10008.1.2.4.55": _decode_jpeg,
    uids.JPEG_LOSSLESS: _decode_jpeg,
    uids.JPEG_LOSSLESS_SV1: _decode_jpeg,
    uids.JPEG_LS_LOSSLESS: _decode_jpeg_ls,
    uids.JPEG_LS_NEAR_LOSSLESS: _decode_jpeg_ls,
    uids.JPEG_2000_LOSSLESS: _decode_j2k,
    uids.JPEG_2000: _decode_j2k,
    uids.JPEG_XL_LOSSLESS: _decode_jpeg_xl,
    uids.JPEG_XL_RECOMPRESSION: _decode_jpeg_xl,
    uids.JPEG_XL: _decode_jpeg_xl,
    uids.HTJ2K_LOSSLESS: _decode_j2k,
    uids.HTJ2K_LOSSLESS_RPCL: _decode_j2k,
    uids.HTJ2K: _decode_j2k,
    uids.RLE_LOSSLESS: _decode_rle,
    uids.DEFLATED_IMAGE_FRAME: _decode_deflated,
}

_SCALABLE: Final = frozenset(uid for uid, decode in _DECODERS.items() if decode is _decode_j2k)

decode_native = pixels.decode_native


# --- for display ----------------------------------------------------------------------------------------------


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """A rendered image, (rows, columns[, 3]) uint8, as baseline JPEG. T.81"""
    return bytes(_codecs.jpeg8_encode(np.ascontiguousarray(image), level=max(1, min(100, quality))))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A rendered image as PNG: quickly rather than as small as can be."""
    rle, sub = 3, 16
    return bytes(_codecs.png_encode(np.ascontiguousarray(image), level=1, strategy=rle, filter=sub))
