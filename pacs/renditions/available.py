"""The Transfer Syntaxes in which the frames and the file of an instance can be had, and about what each takes."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from pacs import reading, rewriting, tags, transcode, uids
from pacs.geometry import FrameGeometry
from pacs.storage.model import Encoding, InstanceEntry
from pacs.transcode import Rendition

J2K: Final = frozenset(
    uid for uid, row in uids.TRANSFER_SYNTAXES.items() if row.media_type in ("image/jp2", "image/jpx", "image/jphc")
)

_EXACT: Final = tuple(
    f'"1.2.840.10008.5.1.4.1.1.{end}"'.encode()
    for end in (
        "66.4",  # Segmentation
        "66.7",  # Label Map Segmentation
        "66.8",  # Height Map Segmentation
        "30",  # Parametric Map
        "481.2",  # RT Dose
    )
)
"""SOP Classes whose samples are no picture: a label that is one off names another organ. PS3.3 A.51, A.75, A.18"""

_DECODING: Final = {"image/jp2": 105.0, "image/jpx": 105.0, "image/jphc": 6.0, "image/jxl": 60.0, "image/jls": 18.0}
_ENCODING: Final = {"image/jp2": 250.0, "image/jphc": 10.0, "image/jxl": 200.0, "image/jls": 20.0}
_OTHERS: Final = 8.0
"""Nanoseconds that a sample takes, by the media type of the Transfer Syntax: what matters is which lane to choose."""


class Stored(NamedTuple):
    """What decides on the forms that the frames of an instance can take: many instances share it."""

    transfer_syntax: str
    """Of the stored frames; explicit VR little endian of native ones."""
    geometry: FrameGeometry | None
    floating: bool
    """Float or Double Float Pixel Data."""
    received: bool
    """Whether the frames are as they came, in the words of `transcode.plan`."""
    exact: bool = False
    """Whether the samples are labels or measurements, of which nothing lossy is made."""


@lru_cache(maxsize=256)
def _exact(sop_class: bytes) -> bool:
    return any(uid in sop_class for uid in _EXACT)


def stored(entry: InstanceEntry) -> Stored:
    """How the frames of the instance are stored."""
    descriptor = entry.descriptor
    key = descriptor.array_key
    syntax, received = descriptor.transfer_syntax, True
    if key is None or (key.encoding is Encoding.NATIVE and uids.transfer_syntax(syntax).known):
        syntax = uids.EXPLICIT_VR_LITTLE_ENDIAN
    elif key.encoding is Encoding.HTJ2K:
        syntax, received = uids.HTJ2K_LOSSLESS_RPCL, False
    exact = _exact(entry.attributes.get(tags.SOP_CLASS_UID, b""))
    return Stored(syntax, descriptor.geometry, descriptor.pixel_tag != tags.PIXEL_DATA, received, exact)


@lru_cache(maxsize=1024)
def of_frames(of: Stored) -> tuple[Rendition, ...]:
    """Everything that such a frame can be sent as, the stored form first, lossless before lossy."""
    return transcode.renditions(
        of.transfer_syntax, of.geometry, floating=of.floating, received=of.received, exact=of.exact
    )


@lru_cache(maxsize=1024)
def irreversible(of: Stored, transfer_syntax: str) -> Rendition | None:
    """What such a frame becomes where a quality is asked for; None for a Transfer Syntax of lossless frames alone."""
    planned = transcode.plan(
        of.transfer_syntax, of.geometry, transfer_syntax, floating=of.floating, received=of.received, lossy=True,
        exact=of.exact,
    )  # fmt: skip
    return planned if planned is not None and not planned.lossless else None


@lru_cache(maxsize=1024)
def layers(of: Stored) -> bool:
    """Whether such a frame can be had with quality layers, of which all but the last are lossy."""
    lossless = any(one.transfer_syntax == uids.JPEG_2000_LOSSLESS for one in of_frames(of))
    return lossless and irreversible(of, uids.JPEG_2000) is not None


def of_instance(entry: InstanceEntry) -> tuple[str, ...]:
    """The Transfer Syntaxes that the instance can be sent in as a file: that of arrival first."""
    descriptor = entry.descriptor
    geometry = descriptor.geometry
    apart = geometry is not None and reading.frame_count(entry) == max(1, geometry.frames)
    found = _of_instance(descriptor.transfer_syntax, stored(entry), apart, bool(descriptor.pixel_tag))
    if descriptor.overlay_in_samples:
        return tuple(uid for uid in found if uid == descriptor.transfer_syntax or uid in rewriting.NATIVE)
    return found


def told_of_instance(entry: InstanceEntry) -> tuple[str, ...]:
    """What (0008,3002) lists: of `of_instance`, those of the same samples.

    A lossy copy is another instance, with a UID of its own. A program that takes the first Transfer Syntax of the list
    that it likes, as wsidicom takes JPEG, must not be led from lossless pixels to lossy ones.
    """
    return tuple(uid for uid in of_instance(entry) if uid not in _made_lossy(stored(entry)))


@lru_cache(maxsize=1024)
def _made_lossy(of: Stored) -> frozenset[str]:
    return frozenset(one.transfer_syntax for one in of_frames(of) if not one.lossless)


@lru_cache(maxsize=1024)
def _of_instance(arrival: str, of: Stored, apart: bool, pixels: bool) -> tuple[str, ...]:
    found = {arrival: None}
    if refers_elsewhere(arrival):
        return (arrival,)
    planned = of_frames(of) if apart else ()
    native = not pixels or not uids.transfer_syntax(of.transfer_syntax).encapsulated
    if native or not of.received or any(one.kind == "native" for one in planned):
        found.update(dict.fromkeys(rewriting.NATIVE))
    if pixels and not of.floating:
        syntaxes = (one.transfer_syntax for one in planned)
        found.update((syntax, None) for syntax in syntaxes if uids.transfer_syntax(syntax).encapsulated)
    return tuple(found)


def refers_elsewhere(arrival: str) -> bool:
    """Whether files in this Transfer Syntax refer to pixel data that they do not hold (JPIP, real-time video)."""
    row = uids.transfer_syntax(arrival)
    plain = (*rewriting.NATIVE, uids.EXPLICIT_VR_BIG_ENDIAN)
    return row.known and not row.encapsulated and arrival not in plain and not row.implicit


def seconds(entry: InstanceEntry, transfer_syntax: str) -> float:
    """About how long a core is busy with one frame of the instance until it is in `transfer_syntax`."""
    geometry = entry.descriptor.geometry
    source = stored(entry).transfer_syntax
    if geometry is None or source == transfer_syntax:
        return 0.0
    samples = geometry.rows * geometry.columns * geometry.samples_per_pixel
    decoding = _DECODING.get(uids.transfer_syntax(source).media_type, _OTHERS)
    encoding = _ENCODING.get(uids.transfer_syntax(transfer_syntax).media_type, _OTHERS)
    return samples * (decoding + encoding) * 1e-9
