"""JPEG 2000 and HTJ2K codestreams to samples, whole or without their finest resolution levels (T.800, T.814).

Our own decoder reads lossless HTJ2K as our encoder makes it, OpenJPH all other HTJ2K, OpenJPEG everything else.
"""

from __future__ import annotations

import itertools
import struct
import sys
import threading
from typing import Any, Final

import imagecodecs
import msgspec
import numpy as np

from pacs import codestream as j2k
from pacs import pixels, progression
from pacs._codecs import htj2k_decoder
from pacs.errors import CodestreamError, PixelError
from pacs.geometry import FrameGeometry
from pacs.transcode import expectations, part_2
from pacs.transcode.frames import Buffer, Samples, aligned, check_agrees, conform, dtype, value_range
from pacs.transcode.htj2k import declared_precision

_codecs: Any = imagecodecs
"""Its annotations leave out memoryview, which its functions take."""

_OVERSHOOT: Final = 2
"""Bits that low-pass bands and irreversible streams need beyond the precision: they exceed it less than fourfold."""


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


def decode(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """The samples of a whole frame. Raises PixelError, CodestreamError and what imagecodecs raises."""
    encoded_here = _encoded_here(codestream, geometry)
    if encoded_here is not None:
        return conform(encoded_here, geometry, geometry.bits_stored)
    parsed = _parsed(codestream, geometry)
    if not parsed.complete:
        raise PixelError(f"the JPEG 2000 frame ends at byte {parsed.length}, {parsed.promised} are promised")
    planar = False if geometry.samples_per_pixel > 1 else None
    raw = memoryview(codestream)[parsed.start : parsed.start + parsed.length]
    return _in_type(_decoded(raw, parsed, planar), parsed, geometry)


def _encoded_here(codestream: Buffer, geometry: FrameGeometry) -> Samples | None:
    """What `htj2k.encode_frame` made of a frame of this description; None for anything else."""
    if geometry.bits_allocated > 16 or geometry.high_bit != geometry.bits_stored - 1:
        return None
    samples = np.empty(pixels.shape(geometry), dtype(geometry))
    done = htj2k_decoder.decode(
        codestream, _cells(samples), geometry.rows, geometry.columns, geometry.samples_per_pixel, samples.itemsize,
        geometry.signed, declared_precision(geometry), 0,
    )  # fmt: skip
    return samples if done else None


def _lossless(raw: Buffer, parsed: j2k.Codestream, dropped: int, width: int) -> Samples | None:
    """Samples of `width` bytes by our own decoder, unclamped if there is room; None for what it does not take.

    Those of OpenJPH, which takes the same and more; without levels they have the declared precision and sign.
    """
    components = len(parsed.components)
    shape = (-(-parsed.rows >> dropped), -(-parsed.columns >> dropped), *((components,) if components > 1 else ()))
    samples = np.empty(shape, f"{'int' if parsed.signed or width > 2 else 'uint'}{8 * width}")
    done = htj2k_decoder.decode(
        raw, _cells(samples), parsed.rows, parsed.columns, components, width, parsed.signed, parsed.precision, dropped
    )
    return samples if done else None


def _cells(samples: Samples) -> memoryview:
    return samples.reshape(-1).view(np.uint8).data


def _decoded(raw: Buffer, parsed: j2k.Codestream, planar: bool | None) -> Samples:
    if parsed.ht:
        try:
            if parsed.reversible:
                samples = _lossless(raw, parsed, 0, 1 if parsed.precision <= 8 else 2)
                return samples if samples is not None else _openjph(raw, parsed, planar=planar)
            wide = _ht_unclamped(bytearray(raw), parsed, 0, planar)
            if wide is not None:
                return np.clip(wide, *value_range(parsed.precision, parsed.signed), out=wide)
        except imagecodecs.Htj2kError:
            pass
    decoded: Samples = _codecs.jpeg2k_decode(raw, planar=planar)
    return decoded


def _in_type(decoded: Samples, parsed: j2k.Codestream, geometry: FrameGeometry, *, clamp: bool = False) -> Samples:
    moved = aligned(decoded, geometry, parsed.precision)
    bits = geometry.bits_stored if moved is not decoded else _bits(parsed, geometry)
    if clamp:
        moved = np.clip(moved, *value_range(min(bits, parsed.precision), parsed.signed))
    return conform(moved, geometry, bits)


def decode_level(codestream: Buffer, geometry: FrameGeometry, dropped: int) -> Samples:
    """The image without its `dropped` finest resolution levels, clamped: low-pass bands overshoot.

    HTJ2K and what has a tile-part for each level need no more bytes than those before the levels dropped. Of other
    Part 1 streams the packets of these levels are left out. Where that cannot be done (tiles that cannot be divided so
    often, HTJ2K of which one has no columns left then or of more than 30 bits, an image that begins off the grid), the
    whole image is decoded and its low-pass bands taken: near, not equal.
    """
    parsed = _parsed(codestream, geometry)
    if not 0 < dropped <= parsed.decompositions:
        raise PixelError(f"{dropped} of {parsed.decompositions} resolution levels cannot be dropped")
    smaller = msgspec.structs.replace(
        geometry, rows=-(-geometry.rows >> dropped), columns=-(-geometry.columns >> dropped)
    )
    needed = parsed.level_ends[-1 - dropped] if parsed.level_ends else parsed.promised
    if parsed.length < needed:
        raise PixelError(f"the JPEG 2000 frame ends at byte {parsed.length}, {needed} are needed")
    raw = memoryview(codestream)[parsed.start : parsed.start + parsed.length]
    planar = False if geometry.samples_per_pixel > 1 else None
    decoded = _level(raw, parsed, dropped, planar)
    if decoded is None or decoded.shape[:2] != (smaller.rows, smaller.columns):
        if not parsed.complete:
            raise PixelError(f"the JPEG 2000 frame ends at byte {parsed.length}, {parsed.promised} are promised")
        decoded = _decoded(raw, parsed, planar)
        for _ in range(dropped):
            decoded = _low_pass(decoded)
    return _in_type(decoded, parsed, smaller, clamp=True)


def _level(raw: Buffer, parsed: j2k.Codestream, dropped: int, planar: bool | None) -> Samples | None:
    if parsed.ht:
        return None if _empties_tile(raw, dropped) else _ht_unclamped(bytearray(raw), parsed, dropped, planar)
    try:
        cut = j2k.reduce(raw, dropped) if parsed.level_ends else progression.cut(raw, levels_dropped=dropped)
    except CodestreamError:
        return None
    decoded: Samples = _codecs.jpeg2k_decode(cut, planar=planar)
    return decoded


def _empties_tile(raw: Buffer, dropped: int) -> bool:
    """Whether a tile has no columns without these levels: OpenJPH 0.26 follows a null pointer. T.800 B.3, B-15

    No rows are well.
    """
    right, _, left, _, width, _, first, _ = struct.unpack_from(">8I", raw, 8)
    edges = (-(-edge >> dropped) for edge in (left, *range(first + width, right, width), right))
    return any(edge == following for edge, following in itertools.pairwise(edges))


def decompositions(codestream: Buffer) -> int:
    """How many resolution levels can be dropped. Raises CodestreamError."""
    return j2k.parse(codestream).decompositions


def _parsed(codestream: Buffer, geometry: FrameGeometry) -> j2k.Codestream:
    parsed = j2k.parse(codestream)
    check_agrees(parsed.rows, parsed.columns, len(parsed.components), geometry)
    if any(component[2:] != (1, 1) for component in parsed.components):
        raise PixelError("subsampled JPEG 2000 components")
    if len({component[:2] for component in parsed.components}) != 1:
        raise PixelError("JPEG 2000 components of different precisions")
    data = memoryview(codestream)[parsed.start : parsed.start + parsed.length]
    part_2.refuse(data, parsed)
    expectations.check(data, parsed)
    return parsed


def _bits(parsed: j2k.Codestream, geometry: FrameGeometry) -> int:
    """The bits that carry a sample. Encoders that ignore the sign are common, so it comes from the Data Set."""
    monochrome = geometry.photometric_interpretation in ("MONOCHROME1", "MONOCHROME2")
    return parsed.precision if monochrome and parsed.signed != geometry.signed else geometry.bits_stored


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


def _openjph(raw: Buffer, parsed: j2k.Codestream, **options: Any) -> Samples:
    if expectations.too_many_bit_planes(raw, parsed):
        raise PixelError("the HTJ2K frame has subbands of more bit-planes than can be")
    _watch_swallowed_errors()
    _swallowed.count = 0
    decoded: Samples = _codecs.htj2k_decode(raw, **options)
    if _swallowed.count:
        raise PixelError("the HTJ2K frame's data is damaged")
    return decoded


def _ht_unclamped(raw: bytearray, parsed: j2k.Codestream, dropped: int, planar: bool | None) -> Samples | None:
    """Values as the wavelet left them, beyond the range of the declared precision where it overshot; None for more
    bits than OpenJPH has for that.

    OpenJPH wraps what does not fit the type that the declared precision chooses: in the low-pass bands of any stream,
    and everywhere in an irreversible one. Declared as signed 24 bits (reversible: 32) all of them fit, and the level
    shift is left to us. An irreversible stream is scaled by its precision, so there the surplus bits are rounded away
    again; its floats have 24.
    """
    room = 24 if not parsed.reversible or parsed.precision <= 24 - _OVERSHOOT else 32
    if parsed.precision > room - _OVERSHOOT:
        return None
    if parsed.reversible:
        samples = _lossless(raw, parsed, dropped, 4)
        if samples is not None:
            return samples
    j2k.set_precision(raw, room, True)
    wide = _openjph(raw, parsed, planar=planar, skipres=dropped or None, resilient=not parsed.complete)
    surplus = 0 if parsed.reversible else room - parsed.precision
    if surplus:
        wide += 1 << (surplus - 1)
        wide >>= surplus
    if not parsed.signed:
        wide += 1 << (parsed.precision - 1)
    return wide


def _low_pass(samples: Samples) -> Samples:
    """The low-pass band of one reversible 5/3 decomposition: the next coarser resolution level. T.800 F.4.8"""
    wide: Samples = samples.astype(np.int64 if samples.itemsize > 2 else np.int32)
    for axis in (0, 1):
        x = np.moveaxis(wide, axis, 0)
        even, odd = x[::2], x[1::2]
        if len(odd) == 0:
            continue
        after = np.concatenate((even[1:], even[-1:]))[: len(odd)]
        detail = odd - ((even[: len(odd)] + after) >> 1)
        before = np.concatenate((detail[:1], detail))[: len(even)]
        detail = np.concatenate((detail, detail[-1:]))[: len(even)]
        wide = np.moveaxis(even + ((before + detail + 2) >> 2), 0, axis)
    return wide
