"""What a stored frame can become: the one table from (stored Transfer Syntax, description) to every target.

Rows follow the tables of PS3.5 8.2: which Photometric Interpretation, Bits Allocated, Bits Stored and sign a Transfer
Syntax can carry, and what Photometric Interpretation its frames have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from pacs import uids
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry
from pacs.transcode import frames
from pacs.transcode.decoders import DECODERS

Kind: TypeAlias = Literal["stored", "relabelled", "native", "encoded"]


@dataclass(frozen=True, slots=True)
class Rendition:
    """What a frame becomes."""

    transfer_syntax: str
    """Of the result."""
    kind: Kind
    """stored: the bytes as they lie there. relabelled: the same bytes, which are valid under this Transfer Syntax too.
    native: little endian samples. encoded: decoded and encoded again."""
    lossless: bool
    """Whether its samples equal those that the stored frame decodes to."""
    geometry: FrameGeometry | None
    """Describes the result; None when the stored frame has no description."""
    lossy_method: str = ""
    """Lossy Image Compression Method (0028,2114), "" when lossless. PS3.3 C.7.6.1.1.5.1"""


NATIVE: Final = (
    uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
)  # fmt: skip
"""Transfer Syntaxes of little endian native frames, which are the same in all of them."""

RELABELS: Final[Mapping[str, tuple[str, ...]]] = {
    uids.HTJ2K_LOSSLESS_RPCL: (uids.HTJ2K_LOSSLESS, uids.HTJ2K),
    uids.HTJ2K_LOSSLESS: (uids.HTJ2K,),
    uids.JPEG_2000_LOSSLESS: (uids.JPEG_2000,),
    uids.JPEG_LOSSLESS_SV1: (uids.JPEG_LOSSLESS,),
    uids.JPEG_XL_LOSSLESS: (uids.JPEG_XL,),
}
"""The Transfer Syntaxes of which a stored one is a special case: a lossless stream is a valid one of the lossy kind."""

_GRAY: Final = {"MONOCHROME1": "MONOCHROME1", "MONOCHROME2": "MONOCHROME2"}
_INDEXED: Final = {**_GRAY, "PALETTE COLOR": "PALETTE COLOR"}
"""Indices into a palette have no neighbours: they are never encoded lossily."""
_PLAIN: Final = {**_INDEXED, "RGB": "RGB", "YBR_FULL": "YBR_FULL"}
_REVERSIBLE: Final = {**_INDEXED, "RGB": "YBR_RCT", "YBR_FULL": "YBR_FULL"}
_IRREVERSIBLE: Final = {**_GRAY, "RGB": "YBR_ICT", "YBR_FULL": "YBR_FULL"}
_BASELINE: Final = {**_GRAY, "RGB": "YBR_FULL_422", "YBR_FULL": "YBR_FULL_422"}


class _Target(NamedTuple):
    """One row: what can be encoded in a Transfer Syntax."""

    photometric: Mapping[str, str]
    """That of the decoded samples -> that of the encoded frame."""
    stored: range = range(1, 17)
    """Bits Stored."""
    allocated: tuple[int, ...] = (8, 16)
    """Bits Allocated."""
    method: str = ""
    """Lossy Image Compression Method; "" for a lossless encoding."""
    signed: bool = True
    deep_ybr: bool = True
    """Whether YBR_FULL may have more than 8 bits."""
    of_gray: tuple[int, ...] = ()
    """Further Bits Allocated, of MONOCHROME1 and MONOCHROME2 alone."""


_PART_1: Final = range(1, 23)
"""Bits Stored of which OpenJPEG loses none, whatever the samples are: it codes magnitudes of 25 bits at most, and those
of a 5-3 subband of the sixth level can be 8.07 times the magnitudes of the samples. Of 23 bits that is too much."""

TARGETS: Final[Mapping[str, _Target]] = {
    uids.HTJ2K_LOSSLESS_RPCL: _Target(_REVERSIBLE, range(1, 33), of_gray=(1, 32)),
    uids.HTJ2K_LOSSLESS: _Target(_REVERSIBLE, range(1, 33), of_gray=(1, 32)),
    uids.JPEG_2000_LOSSLESS: _Target(_REVERSIBLE, _PART_1, of_gray=(1, 32)),
    uids.JPEG_LS_LOSSLESS: _Target(_PLAIN, range(2, 17), deep_ybr=False),
    uids.JPEG_LOSSLESS_SV1: _Target(_PLAIN, range(2, 17)),
    uids.JPEG_LOSSLESS: _Target(_PLAIN, range(2, 17)),
    uids.RLE_LOSSLESS: _Target(_PLAIN, of_gray=(1,), deep_ybr=False),
    uids.DEFLATED_IMAGE_FRAME: _Target(_PLAIN, range(1, 33), (1, 8, 16, 32)),
    uids.ENCAPSULATED_UNCOMPRESSED: _Target(_PLAIN, range(1, 33), (1, 8, 16, 32)),
    uids.HTJ2K: _Target(_IRREVERSIBLE, range(2, 17), method="ISO_15444_15"),
    uids.JPEG_2000: _Target(_IRREVERSIBLE, range(2, 17), method="ISO_15444_1"),
    uids.JPEG_BASELINE: _Target(_BASELINE, range(8, 9), (8,), "ISO_10918_1", signed=False),
}
"""In the order in which they are offered: lossless first. PS3.5 8.2.1 to 8.2.4, 8.2.14, 8.2.18, A.4"""

REVERSIBLE: Final[Mapping[str, str]] = {uids.HTJ2K: uids.HTJ2K_LOSSLESS, uids.JPEG_2000: uids.JPEG_2000_LOSSLESS}
"""The Transfer Syntaxes that take lossy and lossless streams, and the one of which the row holds for the lossless."""


def plan(
    stored: str,
    geometry: FrameGeometry | None,
    wanted: str,
    *,
    floating: bool = False,
    received: bool = False,
    lossy: bool = False,
    exact: bool = False,
) -> Rendition | None:
    """How a frame stored as `stored` becomes `wanted`; None when it cannot.

    `geometry` is the Data Set's. `floating`: of Float or Double Float Pixel Data. `received`: the stored frame is as
    it arrived, so the Data Set describes it as it is; a .202 frame of our own carries RGB as YBR_RCT. `lossy`: for
    .203 and .91 an irreversible encoding is asked for even where a lossless stream fits the label; the lossless
    Transfer Syntaxes never give one. `exact`: the samples are labels or measurements, of which nothing lossy is made.
    What is never made lossy (these, palettes, 1 and 32 bits) is lossless under .203 and .91 too. PS3.18 8.7.3
    """
    if not (lossy and wanted in TARGETS and TARGETS[wanted].method):
        if wanted == stored:
            return Rendition(wanted, "stored", True, _as_stored(stored, geometry, received))
        if wanted in RELABELS.get(stored, ()) and not _lossless_alone(wanted, geometry):
            return Rendition(wanted, "relabelled", True, _as_stored(stored, geometry, received))
    if geometry is None or not _decodable(stored, geometry, floating):
        return None
    if wanted in NATIVE:
        return Rendition(wanted, "native", True, _native(stored, geometry))
    target = TARGETS.get(wanted)
    if target is None or floating:
        return None
    decoded = decoded_geometry(geometry)
    found = None if exact and target.method else _encoded(decoded, target)
    if found is not None:
        return Rendition(wanted, "encoded", not target.method, found, target.method)
    if lossy or wanted not in REVERSIBLE or _lossless_alone(wanted, geometry):
        return None
    found = _encoded(decoded, TARGETS[REVERSIBLE[wanted]])
    return Rendition(wanted, "encoded", True, found) if found is not None else None


def renditions(
    stored: str,
    geometry: FrameGeometry | None,
    *,
    floating: bool = False,
    received: bool = False,
    exact: bool = False,
) -> tuple[Rendition, ...]:
    """Everything that `plan` can make of a frame: the stored one first, lossless ones before lossy ones."""
    order = dict.fromkeys((stored, *RELABELS.get(stored, ()), *NATIVE, *TARGETS))
    planned = (
        plan(stored, geometry, wanted, floating=floating, received=received, exact=exact) for wanted in order
    )
    found = [rendition for rendition in planned if rendition is not None]
    return tuple(sorted(found, key=lambda rendition: not rendition.lossless))


_DECODED: Final = {"YBR_RCT": "RGB", "YBR_ICT": "RGB", "YBR_FULL_422": "YBR_FULL", "XYB": "RGB"}


def decoded_geometry(geometry: FrameGeometry) -> FrameGeometry:
    """What the samples that a frame decodes to are: by pixel, at the low bits, colour transforms undone.

    Decoders undo the component transform of JPEG 2000 and double the chroma of YBR_FULL_422. PS3.3 C.7.6.3.1.2
    """
    photometric = _DECODED.get(geometry.photometric_interpretation, geometry.photometric_interpretation)
    return msgspec.structs.replace(
        geometry, photometric_interpretation=photometric, planar_configuration=0, high_bit=geometry.bits_stored - 1
    )


def _lossless_alone(wanted: str, geometry: FrameGeometry | None) -> bool:
    """Whether this Transfer Syntax takes no palette, not even without loss. PS3.5 Table 8.2.4-1"""
    palette = geometry is not None and geometry.photometric_interpretation == "PALETTE COLOR"
    return palette and wanted == uids.JPEG_2000


def _as_stored(stored: str, geometry: FrameGeometry | None, received: bool) -> FrameGeometry | None:
    own = stored == uids.HTJ2K_LOSSLESS_RPCL and not received
    if geometry is None or not own:
        return geometry
    photometric = geometry.photometric_interpretation
    rgb = photometric == "RGB" and geometry.samples_per_pixel == 3
    return msgspec.structs.replace(
        geometry, photometric_interpretation="YBR_RCT" if rgb else photometric, planar_configuration=0
    )


def _native(stored: str, geometry: FrameGeometry) -> FrameGeometry:
    """Native frames keep the layout that the Data Set states, except what a decoder undid."""
    if stored in NATIVE:
        return geometry
    decoded = decoded_geometry(geometry)
    return msgspec.structs.replace(
        decoded, planar_configuration=geometry.planar_configuration, high_bit=geometry.high_bit
    )


def _decodable(stored: str, geometry: FrameGeometry, floating: bool) -> bool:
    if stored in NATIVE:
        return floating or geometry.bits_allocated in (1, 8, 16, 32, 64)
    if stored not in DECODERS or floating:
        return False
    try:
        frames.check_described(geometry)
    except PixelError:
        return False
    return frames.size(geometry) <= frames.LARGEST_DECODED


def _encoded(decoded: FrameGeometry, target: _Target) -> FrameGeometry | None:
    """The description of the encoded frame; None when the Transfer Syntax cannot carry it."""
    photometric = target.photometric.get(decoded.photometric_interpretation)
    colour = decoded.photometric_interpretation in ("RGB", "YBR_FULL")
    gray = decoded.photometric_interpretation in _GRAY
    if (
        photometric is None
        or decoded.samples_per_pixel != (3 if colour else 1)
        or decoded.bits_allocated not in (*target.allocated, *(target.of_gray if gray else ()))
        or not 1 <= decoded.bits_stored <= decoded.bits_allocated
        or decoded.bits_stored not in target.stored
        or decoded.pixel_representation not in (0, 1)
        or (decoded.signed and (not target.signed or decoded.bits_allocated == 1))
        or (decoded.photometric_interpretation == "YBR_FULL" and decoded.bits_allocated > 8 and not target.deep_ybr)
        or min(decoded.rows, decoded.columns) < 1
        or max(decoded.rows, decoded.columns) > 65535
        or frames.size(decoded) > frames.LARGEST_DECODED
    ):
        return None
    return msgspec.structs.replace(decoded, photometric_interpretation=photometric)
