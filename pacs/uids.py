"""Unique identifiers: their syntax (PS3.5 9.1) and the Transfer Syntaxes of PS3.6 Annex A.

A UID becomes part of paths and keys, so it is checked here, once, before it is used for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pacs.errors import UidError

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
_LEADING_ZERO = re.compile(r"(?:^|\.)0[0-9]")


def check(uid: str, name: str) -> str:
    """`uid` itself when it is digits and dots, at most 64 characters; else UidError naming `name`.

    Components with leading zeros pass: they are common in old archives (see `has_leading_zero`). PS3.5 9.1
    """
    if not uid:
        raise UidError(f"{name} is missing")
    if len(uid) > 64:
        raise UidError(f"{name} has {len(uid)} characters, 64 are allowed")
    if not _UID.fullmatch(uid):
        raise UidError(f"{name} {uid[:64]!r} is not digits separated by single dots")
    return uid


def has_leading_zero(uid: str) -> bool:
    """Whether a component starts with a needless zero, which PS3.5 9.1 forbids."""
    return _LEADING_ZERO.search(uid) is not None


IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.110"
JPEG_XL_RECOMPRESSION = "1.2.840.10008.1.2.4.111"
JPEG_XL = "1.2.840.10008.1.2.4.112"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
DEFLATED_IMAGE_FRAME = "1.2.840.10008.1.2.8.1"


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """How a Data Set and its pixel data are encoded, and the media type of one frame (PS3.18 Table 8.7.3-5)."""

    uid: str
    name: str
    media_type: str = "application/octet-stream"
    encapsulated: bool = True
    lossless: bool = True
    video: bool = False


def _video(uid: str, name: str, media_type: str) -> TransferSyntax:
    return TransferSyntax(uid, name, media_type, lossless=False, video=True)


_TABLE = (
    TransferSyntax(IMPLICIT_VR_LITTLE_ENDIAN, "Implicit VR Little Endian", encapsulated=False),
    TransferSyntax(EXPLICIT_VR_LITTLE_ENDIAN, "Explicit VR Little Endian", encapsulated=False),
    TransferSyntax(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "Deflated Explicit VR Little Endian", encapsulated=False),
    TransferSyntax(EXPLICIT_VR_BIG_ENDIAN, "Explicit VR Big Endian", encapsulated=False),
    TransferSyntax(ENCAPSULATED_UNCOMPRESSED, "Encapsulated Uncompressed Explicit VR Little Endian"),
    TransferSyntax(JPEG_BASELINE, "JPEG Baseline", "image/jpeg", lossless=False),
    TransferSyntax(JPEG_EXTENDED, "JPEG Extended", "image/jpeg", lossless=False),
    TransferSyntax("1.2.840.10008.1.2.4.53", "JPEG Spectral Selection", "image/jpeg", lossless=False),
    TransferSyntax("1.2.840.10008.1.2.4.55", "JPEG Full Progression", "image/jpeg", lossless=False),
    TransferSyntax(JPEG_LOSSLESS, "JPEG Lossless", "image/jpeg"),
    TransferSyntax(JPEG_LOSSLESS_SV1, "JPEG Lossless SV1", "image/jpeg"),
    TransferSyntax(JPEG_LS_LOSSLESS, "JPEG-LS Lossless", "image/jls"),
    TransferSyntax(JPEG_LS_NEAR_LOSSLESS, "JPEG-LS Near-Lossless", "image/jls", lossless=False),
    TransferSyntax(JPEG_2000_LOSSLESS, "JPEG 2000 Lossless", "image/jp2"),
    TransferSyntax(JPEG_2000, "JPEG 2000", "image/jp2", lossless=False),
    TransferSyntax("1.2.840.10008.1.2.4.92", "JPEG 2000 Multi-component Lossless", "image/jpx"),
    TransferSyntax("1.2.840.10008.1.2.4.93", "JPEG 2000 Multi-component", "image/jpx", lossless=False),
    _video("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level", "video/mpeg"),
    _video("1.2.840.10008.1.2.4.101", "MPEG2 Main Profile / High Level", "video/mpeg"),
    _video("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High 4.1", "video/mp4"),
    _video("1.2.840.10008.1.2.4.103", "MPEG-4 AVC/H.264 BD-compatible 4.1", "video/mp4"),
    _video("1.2.840.10008.1.2.4.104", "MPEG-4 AVC/H.264 High 4.2 2D", "video/mp4"),
    _video("1.2.840.10008.1.2.4.105", "MPEG-4 AVC/H.264 High 4.2 3D", "video/mp4"),
    _video("1.2.840.10008.1.2.4.106", "MPEG-4 AVC/H.264 Stereo High 4.2", "video/mp4"),
    _video("1.2.840.10008.1.2.4.107", "HEVC/H.265 Main 5.1", "video/H265"),
    _video("1.2.840.10008.1.2.4.108", "HEVC/H.265 Main 10 5.1", "video/H265"),
    TransferSyntax(JPEG_XL_LOSSLESS, "JPEG XL Lossless", "image/jxl"),
    TransferSyntax(JPEG_XL_RECOMPRESSION, "JPEG XL JPEG Recompression", "image/jxl", lossless=False),
    TransferSyntax(JPEG_XL, "JPEG XL", "image/jxl", lossless=False),
    TransferSyntax(HTJ2K_LOSSLESS, "HTJ2K Lossless", "image/jphc"),
    TransferSyntax(HTJ2K_LOSSLESS_RPCL, "HTJ2K Lossless RPCL", "image/jphc"),
    TransferSyntax(HTJ2K, "HTJ2K", "image/jphc", lossless=False),
    TransferSyntax(RLE_LOSSLESS, "RLE Lossless", "image/dicom-rle"),
    TransferSyntax(DEFLATED_IMAGE_FRAME, "Deflated Image Frame Compression"),
)

TRANSFER_SYNTAXES: dict[str, TransferSyntax] = {entry.uid: entry for entry in _TABLE}


def transfer_syntax(uid: str) -> TransferSyntax:
    """The table's row for `uid`; an unknown or private one is taken as encapsulated and opaque."""
    known = TRANSFER_SYNTAXES.get(uid)
    return known if known is not None else TransferSyntax(uid, f"unknown ({uid})", lossless=False)
