"""The encoding that frames are stored in: HTJ2K lossless RPCL (PS3.5 10.18)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import imagecodecs
import numpy as np

from pacs import codestream as j2k
from pacs import pixels
from pacs.errors import CodestreamError, PixelError
from pacs.geometry import FrameGeometry
from pacs.transcode.frames import Samples

_codecs: Any = imagecodecs
_RESOLUTIONS: Final = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS


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
