"""Renditions between a resolution prefix and the lossless frame: full size, fewer bytes.

Quality is PSNR in dB. Its peak is the span of the values that the frame has, for Bits Stored often promises more: 16
where a CT uses 12 would be 24 dB that nobody sees. The encoders aim by their own estimate, so each result is decoded
and measured, and encoded once more where it falls short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import imagecodecs
import msgspec
import numpy as np

from pacs import codestream as j2k
from pacs import pixels
from pacs.errors import PixelError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry
from pacs.transcode import htj2k, jpeg2000, openjpeg
from pacs.transcode.frames import MEMORY, Samples, check_samples, working_memory
from pacs.transcode.table import decoded_geometry

_codecs: Any = imagecodecs

QUALITY: Final = 50.0
"""dB, where none is asked for."""
_LEAST, _MOST = 20.0, 100.0
_NEARLY_LOSSLESS: Final = 55.0
"""dB from which an irreversible stream can be larger than a reversible one."""
_LEAST_LEVEL: Final = 1.0
"""dB that imagecodecs is told at least: 0 and less mean everything."""
_ATTEMPTS: Final = 5
_NEAR: Final = 0.4
_DECADE: Final = 16.0
"""dB that images lose by a quantization step ten times as large: 15 where it is coarse, 20 where it is fine. Images
that are flat for the most part lose 5."""
_LEAST_DECADE, _MOST_DECADE = 4.0, 30.0
_LEAST_MOVE, _FARTHEST = 1e-3, 1.0
"""Powers of ten of the step."""
_RESOLUTIONS: Final = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS
_SAMPLED: Final = 1 << 16


def span(samples: Samples) -> int:
    """Greatest minus least value, without a padding value that lies far from all others. PS3.3 C.7.5.1.1.2"""
    every = max(1, samples.size // _SAMPLED)
    found = np.unique(samples.reshape(-1)[::every]).astype(np.int64)
    low, high = min(int(samples.min()), int(found[0])), max(int(samples.max()), int(found[-1]))
    if len(found) > 2:
        gaps = np.diff(found)
        widest = int(gaps.argmax())
        # One value beyond a gap of more than half of everything is no part of the image.
        if gaps[widest] > (high - low) / 2:
            if widest == 0:
                low = int(found[1])
            elif widest == len(gaps) - 1:
                high = int(found[-2])
    return max(1, high - low)


def psnr(samples: Samples, decoded: Samples, peak: int) -> float:
    """PSNR in dB of `decoded` against `samples`; infinite when they are equal."""
    error = np.subtract(samples, decoded, dtype=np.float32).reshape(-1)
    square = float(np.dot(error, error)) / max(1, error.size)
    return math.inf if square == 0 else 10 * math.log10(peak * peak / square)


def irreversible(samples: Samples, geometry: FrameGeometry, quality: float | None = None) -> bytes:
    """A frame as HTJ2K irreversible (.203), RPCL with a tile-part for each resolution level, of `quality` dB or more.

    Samples are as `decode_frame` gives them, described as by the Data Set. RGB goes through the irreversible colour
    transform. Where no quantization reaches the quality, as with few bits, or that takes as many bytes, the frame is
    reversible after all. PixelError for what must not be lossy or cannot be encoded.
    """
    with MEMORY.hold(working_memory(samples.nbytes, samples.itemsize)):
        return htj2k_irreversible(samples, geometry, quality)


def htj2k_irreversible(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    """`irreversible` for those who hold the memory already."""
    described = _lossy(samples, geometry)
    bits = htj2k.declared_precision(described)
    # An irreversible stream holds fractions of the range that its precision declares. The encoder knows 8 and 16 bits:
    # samples shifted up to fill those come out right under the precision declared afterwards. T.800 E.1.1
    whole = samples.astype(np.int32)
    if not described.signed:
        whole -= 1 << (bits - 1)
    whole <<= 8 * samples.itemsize - bits
    filled = np.ascontiguousarray(whole.astype(f"i{samples.itemsize}"))
    del whole

    def attempt(step: float) -> bytes:
        encoded = bytearray(
            _codecs.htj2k_encode(
                filled, level=step, reversible=False, resolutions=described.decompositions,
                rgb=described.photometric_interpretation == "RGB" if samples.ndim == 3 else None,
                planar=False if samples.ndim == 3 else None, tlm=True, tilepart=_RESOLUTIONS,
            )
        )  # fmt: skip
        j2k.set_precision(encoded, bits, described.signed)
        return bytes(encoded)

    found = _reaching(quality, samples, described, attempt, _first_step)
    return _no_larger(found, quality, lambda: htj2k.encode_frame(samples, described).codestream)


def jpeg_2000(samples: Samples, geometry: FrameGeometry, quality: float | None = None) -> bytes:
    """A frame as JPEG 2000 Part 1, one layer: reversible without `quality` (.90), else irreversible of that many dB."""
    described = decoded_geometry(geometry) if quality is None else _lossy(samples, geometry)
    rgb = described.photometric_interpretation == "RGB"
    bits = htj2k.declared_precision(described)
    # imagecodecs takes int8 for C's char, which has no sign on arm64. Unsigned samples are the same codestream after
    # their level shift, but for the sign that it declares. T.800 G.1
    shifted = samples.dtype == np.int8
    given = samples.view(np.uint8) + np.uint8(1 << (bits - 1)) if shifted else samples

    def encoded(level: float, reversible: bool, decompositions: int) -> bytes:
        stream = _codecs.jpeg2k_encode(
            given, level=level, codecformat="J2K", reversible=reversible, mct=rgb,
            planar=False if samples.ndim == 3 else None, bitspersample=bits, resolutions=decompositions + 1,
        )  # fmt: skip
        if not shifted:
            return bytes(stream)
        signed = bytearray(stream)
        j2k.set_precision(signed, bits, True)
        return bytes(signed)

    def made(level: float, reversible: bool) -> bytes:
        return _within_room(lambda levels: encoded(level, reversible, levels), described.decompositions)

    def reversible() -> bytes:
        return _exact(lambda levels: encoded(0, True, levels), samples, described)

    if quality is None:
        return reversible()
    surplus = 20 * math.log10(((1 << bits) - 1) / span(samples))
    found = _reaching(
        quality, samples, described, lambda step: made(max(_LEAST_LEVEL, _decibels(step) + surplus), False),
        lambda wanted, _: _step(wanted),
    )  # fmt: skip
    return _no_larger(found, quality, reversible)


def _no_larger(found: bytes | None, quality: float | None, reversible: Callable[[], bytes]) -> bytes:
    """An irreversible stream, or the reversible one where there is none or it is no smaller."""
    if found is not None and (QUALITY if quality is None else quality) < _NEARLY_LOSSLESS:
        return found
    whole = reversible()
    return whole if found is None or len(whole) <= len(found) else found


def _within_room(encode: Callable[[int], bytes], decompositions: int) -> bytes:
    """What `encode` makes of an image with `decompositions`, or with none where OpenJPEG's buffer is too short.

    It has room for 1.4 times the bits of the samples. The wavelet makes more of noise and dither of 1 or 2 bits.
    """
    try:
        return encode(decompositions)
    except (imagecodecs.Jpeg2kError, PixelError):
        if not decompositions:
            raise
        return encode(0)


def _exact(encode: Callable[[int], bytes], samples: Samples, described: FrameGeometry) -> bytes:
    """What a reversible `encode` of OpenJPEG makes: with the wavelet, unless that would lose something.

    It has room for the bits of the samples and two more, as if the colour transform did not take one of them: what is
    beyond gets lost without an error. 5-3 subbands have up to 2.95 times the magnitude per bit of gain. T.800 E.1, G.2
    """
    stream = _within_room(encode, described.decompositions)
    bits = htj2k.declared_precision(described)
    magnitude = 1 << (bits - 1)
    if described.photometric_interpretation == "RGB":
        chroma = np.subtract(samples[..., ::2], samples[..., 1:2], dtype=np.int32)
        magnitude = max(magnitude, int(chroma.max()), -int(chroma.min()))
    if magnitude * _GROWTH + _ROUNDING < 2 << bits:
        return stream
    try:
        exact = np.array_equal(jpeg2000.decode(stream, described), samples)
    except (PixelError, imagecodecs.Jpeg2kError):
        exact = False
    return stream if exact else encode(0)


_GROWTH: Final = 2.95
_ROUNDING: Final = 32


class LayeredFrame(NamedTuple):
    """A frame as JPEG 2000 Part 1 with quality layers, and where each one ends in it, coarsest first."""

    codestream: bytes
    layer_ends: tuple[int, ...]


READABLE: Final = 45.0
"""dB over the range of Bits Stored at which an image is read."""
_AT_LEAST: Final = 35.0
"""dB over the values that are there: of 16 bits stored an image may use 12."""
LAYERS: Final = (-14.0, -7.0, 0.0, 7.0, 18.0)
"""Quality of the layers before the lossless one, in dB against a readable one. By bytes instead of quality, one image
would get 25 dB for what gives another 55: the first of 128:1 was 86 KB of a mammogram that is readable with 4."""
_READABLE_LAYER: Final = LAYERS.index(0.0)
_LAYER_NEAR: Final = 0.2
_LAYER_ATTEMPTS: Final = 4
_LAYER_MARGIN: Final = 0.5
"""dB by which the last attempt aims higher when none before it was readable."""
_LAYER_LEAP: Final = 6.0
"""dB by which one more aims higher when that was not readable either."""
_EVERYTHING: Final = 0.0
"""The quality that means lossless to OpenJPEG."""


def layered(samples: Samples, geometry: FrameGeometry) -> LayeredFrame:
    """A frame as reversible JPEG 2000 Part 1 (.90) with six quality layers, the last one lossless; LRCP.

    Each layer is a tile-part, so that the bytes up to a layer's end are the whole image at a lower quality. The third
    is `READABLE`, or `_AT_LEAST` over the values there are, and little more; it is lossless where no quality between
    can be had. Samples are as `decode_frame` gives them, described as by the Data Set. Raises PixelError,
    UnsupportedTransferSyntaxError where no encoder with layers is at hand. T.800 B.8, B.12.1.1
    """
    described = decoded_geometry(geometry)
    if described.bits_allocated not in (8, 16) or described.samples_per_pixel not in (1, 3):
        raise PixelError("only 1 or 3 samples of 8 or 16 bits allocated are encoded with quality layers")
    check_samples(samples, described)
    if not openjpeg.available():
        raise UnsupportedTransferSyntaxError("no encoder with quality layers is at hand")
    with MEMORY.hold(working_memory(samples.nbytes, samples.itemsize)):
        return _layered(np.ascontiguousarray(samples), described)


def _layered(samples: Samples, described: FrameGeometry) -> LayeredFrame:
    bits = htj2k.declared_precision(described)
    peak = (1 << bits) - 1
    readable = max(READABLE, _AT_LEAST + 20 * math.log10(peak / span(samples)))
    rgb = described.photometric_interpretation == "RGB"
    # OpenJPEG wants a sample at least on every level.
    most = min(described.rows, described.columns).bit_length() - 1
    decompositions: int | None = None

    def made(qualities: Sequence[float]) -> tuple[LayeredFrame, float]:
        def encode(levels: int) -> bytes:
            levels = min(levels, most)
            return openjpeg.encode_layers(samples, bits, decompositions=levels, transform=rgb, qualities=qualities)

        nonlocal decompositions
        if decompositions is None:
            encoded = _exact(encode, samples, described)
        else:
            encoded = _within_room(encode, decompositions)
        parsed = j2k.parse(encoded)
        decompositions = parsed.decompositions
        frame = LayeredFrame(encoded, tuple(part.offset + part.length for part in parsed.tile_parts))
        prefix = encoded[: frame.layer_ends[_READABLE_LAYER]] + b"\xff\xd9"
        return frame, psnr(samples, _codecs.jpeg2k_decode(prefix, planar=False if samples.ndim == 3 else None), peak)

    aimed, before = readable + _LAYER_NEAR / 2, math.nan
    least, chosen = math.inf, None
    for attempt in range(_LAYER_ATTEMPTS):
        frame, found = made([aimed + more for more in LAYERS])
        if readable <= found <= least:
            least, chosen = found, frame
        if 0 <= found - readable <= _LAYER_NEAR or found in (before, math.inf):
            break
        # What OpenJPEG estimates is off by about as much again.
        aimed, before = aimed + readable + _LAYER_NEAR / 2 - found, found
        if chosen is None and attempt == _LAYER_ATTEMPTS - 2:
            aimed += _LAYER_MARGIN
    if chosen is None and found != before:
        frame, found = made([aimed + _LAYER_LEAP + more for more in LAYERS])
        chosen = frame if found >= readable else None
    # OpenJPEG leaves passes that bring little each to the last layer, as in dither: then the readable one is the last.
    return chosen or made([readable + more if more < 0 else _EVERYTHING for more in LAYERS])[0]


def _lossy(samples: Samples, geometry: FrameGeometry) -> FrameGeometry:
    described = decoded_geometry(geometry)
    if described.photometric_interpretation == "PALETTE COLOR" or described.bits_allocated not in (8, 16):
        raise PixelError(f"{described.photometric_interpretation} is not encoded lossily")
    check_samples(samples, described)
    return described


# --- reaching a quality -----------------------------------------------------------------------------------------


def _decibels(step: float) -> float:
    return -20 * math.log10(step)


def _step(decibels: float) -> float:
    return 10 ** (-decibels / 20)


def _first_step(wanted: float, surplus: float) -> float:
    """A quantization step, as a part of the precision's range, that gives most images a little more than `wanted`."""
    return _step(wanted + surplus - 13)


def _reaching(
    quality: float | None,
    samples: Samples,
    described: FrameGeometry,
    attempt: Callable[[float], bytes],
    first_step: Callable[[float, float], float],
) -> bytes | None:
    """The coarsest of a few attempts that reaches `quality`; None when none does."""
    wanted = QUALITY if quality is None else min(max(quality, _LEAST), _MOST)
    peak = span(samples)
    bits = htj2k.declared_precision(described)
    step = first_step(wanted, 20 * math.log10(((1 << bits) - 1) / peak))
    # Where more bits are declared than stored, values beyond the stored ones show only if none is masked.
    whole = msgspec.structs.replace(described, bits_stored=bits, high_bit=bits - 1)
    best, fine, coarse = None, 0.0, math.inf
    decade, before = _DECADE, (0.0, math.inf)
    for _ in range(_ATTEMPTS):
        encoded = attempt(step)
        decoded = jpeg2000.decode(encoded, whole)
        fits = pixels.fit(decoded, described.bits_stored)
        excess = psnr(samples, decoded, peak) - wanted if fits else -math.inf
        moved = math.log10(step) - before[0]
        if math.isfinite(before[1]) and math.isfinite(excess) and abs(moved) > _LEAST_MOVE:
            decade = min(max((before[1] - excess) / moved, _LEAST_DECADE), _MOST_DECADE)
        before = math.log10(step), excess
        if excess >= 0:
            best, fine = encoded if best is None or len(encoded) < len(best) else best, step
            if excess < _NEAR:
                break
        else:
            coarse = step
        aimed = step * 10 ** min(max((excess - _NEAR / 2) / decade, -_FARTHEST), _FARTHEST)
        step = aimed if fine < aimed < coarse else math.sqrt(fine * coarse)
    return best
