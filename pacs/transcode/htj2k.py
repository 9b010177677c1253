"""The encoding that frames are stored in: HTJ2K lossless RPCL (PS3.5 10.18)."""

from __future__ import annotations

import itertools
import logging
from typing import Any, Final, NamedTuple

import imagecodecs
import numpy as np

from pacs import codestream as j2k
from pacs import pixels, progression
from pacs._codecs import htj2k_encoder
from pacs.errors import CodestreamError, PixelError
from pacs.geometry import FrameGeometry
from pacs.transcode import frames, part_2
from pacs.transcode.frames import Buffer, Samples

_codecs: Any = imagecodecs
_RESOLUTIONS: Final = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS
_HEAD: Final = 4096
"""Bytes that the main header of what OpenJPH encodes is within."""
_WITNESSED: Final = 64
"""Of so many frames that a process encodes one, the first to begin with, is decoded by OpenJPH too: 0.02 ms a frame."""
_encoded = itertools.count()
_log = logging.getLogger(__name__)
_LARGEST_SIDE: Final = 1 << 15
"""Rows and columns that a single precinct covers, and our encoder."""


class EncodedFrame(NamedTuple):
    """A frame as .202 and where each resolution level ends in it, coarsest first."""

    codestream: bytes
    level_ends: tuple[int, ...]


def declared_precision(geometry: FrameGeometry) -> int:
    """The precision that a codestream of ours declares: Bits Stored, where decoders return the samples' own type.

    They choose 8-bit samples for a precision of at most 8, and of 16 bits up to 16, so samples of 16 bits allocated
    declare 9 at least, those of 32 declare 17.
    """
    return max(geometry.bits_stored, {16: 9, 32: 17}.get(geometry.bits_allocated, 1))


def encode_frame(samples: Samples, geometry: FrameGeometry) -> EncodedFrame:
    """`samples` (as decoders and `pixels.split` give them) as HTJ2K lossless RPCL, a tile-part a resolution level.

    1 to 32 bits: OpenJPH makes what our encoder does not, and computes with 64 where 32 would not do. PixelError when
    the encoder refuses them. RGB goes through the reversible colour transform. PS3.5 10.18
    """
    if geometry.bits_allocated in (8, 16):
        pixels.check(geometry)
    else:
        frames.check_described(geometry)
    frames.check_samples(samples, geometry)
    bits = declared_precision(geometry)
    rgb = geometry.photometric_interpretation == "RGB" and geometry.samples_per_pixel == 3
    if samples.itemsize > 2 or max(geometry.rows, geometry.columns) > _LARGEST_SIDE or geometry.samples_per_pixel > 3:
        return _by_openjph(samples, geometry, bits, rgb)
    plain = np.ascontiguousarray(samples)
    try:
        encoded = EncodedFrame(
            *htj2k_encoder.encode(
                plain.reshape(-1).view(np.uint8).data, geometry.rows, geometry.columns, geometry.samples_per_pixel,
                samples.itemsize, geometry.signed, bits, geometry.decompositions, rgb,
            )
        )  # fmt: skip
    except ValueError as error:
        raise PixelError(f"HTJ2K cannot encode this frame: {error}") from error
    if next(_encoded) % _WITNESSED == 0:
        _witness(encoded, plain)
    return encoded


def _witness(encoded: EncodedFrame, samples: Samples) -> None:
    """Raises PixelError unless another decoder than ours has these samples back, and the headers say what is there.

    Whoever proves a frame with our own decoder shares the tables, and the processor, of our encoder.
    """
    try:
        parsed = j2k.parse(encoded.codestream)
        decoded = _codecs.htj2k_decode(encoded.codestream, planar=False if samples.ndim == 3 else None)
        same = (
            parsed.complete
            and parsed.tlm_agrees
            and parsed.level_ends == encoded.level_ends
            and np.array_equal(decoded.reshape(samples.shape), samples)
        )
    except (imagecodecs.Htj2kError, ValueError, CodestreamError):
        same = False
    if not same:
        _log.critical("OpenJPH does not decode the samples that were encoded (instructions %d)", htj2k_encoder.tier())
        raise PixelError("OpenJPH does not decode the samples that were encoded")


def _by_openjph(samples: Samples, geometry: FrameGeometry, bits: int, rgb: bool) -> EncodedFrame:
    several = geometry.samples_per_pixel > 1
    # The encoder knows no Bits Stored. Signed samples take no level shift, so unsigned ones are shifted here by what
    # the precision declared afterwards makes a decoder add again. T.800 G.1
    shifted = samples if geometry.signed else pixels.level_shifted(samples, bits)
    try:
        encoded = _codecs.htj2k_encode(
            np.ascontiguousarray(shifted),
            reversible=True,
            resolutions=geometry.decompositions,
            rgb=rgb if several else None,
            planar=False if several else None,
            tlm=True,
            tilepart=_RESOLUTIONS,
        )
        level_ends = j2k.parse(encoded).level_ends
        head = bytearray(memoryview(encoded)[:_HEAD])
        j2k.set_precision(head, bits, geometry.signed)
    except (imagecodecs.Htj2kError, ValueError, CodestreamError) as error:
        raise PixelError(f"HTJ2K cannot encode this frame: {error}") from error
    if len(level_ends) != geometry.decompositions + 1:
        raise PixelError("the HTJ2K encoder made no tile-part for each resolution level")
    return EncodedFrame(b"".join((head, memoryview(encoded)[_HEAD:])), level_ends)


_BASE: Final = 64
"""Samples that the base resolution of .202 has at most. PS3.5 10.18"""


def as_rpcl(codestream: Buffer, geometry: FrameGeometry) -> bytes | None:
    """A .201 frame as .202 by moving its packets: its samples are the same, and no code-block is decoded.

    None where the packets cannot be followed, there are too few levels, it is not as `geometry`, the description of
    the result, says, or no decoder here would take it.
    """
    try:
        parsed = j2k.parse(codestream)
        described = (
            parsed.precision in (geometry.bits_stored, declared_precision(geometry))
            and (parsed.rows, parsed.columns, parsed.signed) == (geometry.rows, geometry.columns, geometry.signed)
            and len(parsed.components) == geometry.samples_per_pixel
            and len({component[:2] for component in parsed.components}) == 1
            and all(component[2:] == (1, 1) for component in parsed.components)
            and parsed.mct == (geometry.photometric_interpretation == "YBR_RCT")
        )
        small = max(parsed.rows, parsed.columns) <= _BASE << parsed.decompositions
        if not (described and small and parsed.ht and parsed.reversible and parsed.complete):
            return None
        part_2.refuse(memoryview(codestream)[parsed.start : parsed.start + parsed.length], parsed)
        return progression.reorder(codestream)
    except (CodestreamError, PixelError):
        return None
