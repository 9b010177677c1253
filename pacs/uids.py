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
JPEG_2000_PART_2_LOSSLESS = "1.2.840.10008.1.2.4.92"
JPEG_2000_PART_2 = "1.2.840.10008.1.2.4.93"
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
    """How a Data Set and its pixel data are encoded, and the media type of a frame (PS3.18 8.7.3.3).

    A retired Transfer Syntax is accepted like any other.
    """

    uid: str
    name: str
    media_type: str = "application/octet-stream"
    encapsulated: bool = True
    """Pixel Data comes in fragments (PS3.5 A.4)."""
    lossless: bool = True
    """Nothing in this encoding can lose anything: what was lost before is not its fault."""
    video: bool = False
    """The fragments hold one stream of all frames, which cannot be addressed one by one (PS3.5 8.2.5 to 8.2.9)."""
    implicit: bool = False
    big_endian: bool = False
    deflated: bool = False
    """The whole Data Set is one deflate stream (PS3.5 A.5)."""
    known: bool = True
    """Whether PS3.6 Annex A lists it."""


_PREFIX = "1.2.840.10008.1.2."
_RETIRED_JPEG = (
    ("52", "JPEG Extended (Process 3 and 5)", False),
    ("53", "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)", False),
    ("54", "JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)", False),
    ("55", "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)", False),
    ("56", "JPEG Full Progression, Non-Hierarchical (Process 11 and 13)", False),
    ("58", "JPEG Lossless, Non-Hierarchical (Process 15)", True),
    ("59", "JPEG Extended, Hierarchical (Process 16 and 18)", False),
    ("60", "JPEG Extended, Hierarchical (Process 17 and 19)", False),
    ("61", "JPEG Spectral Selection, Hierarchical (Process 20 and 22)", False),
    ("62", "JPEG Spectral Selection, Hierarchical (Process 21 and 23)", False),
    ("63", "JPEG Full Progression, Hierarchical (Process 24 and 26)", False),
    ("64", "JPEG Full Progression, Hierarchical (Process 25 and 27)", False),
    ("65", "JPEG Lossless, Hierarchical (Process 28)", True),
    ("66", "JPEG Lossless, Hierarchical (Process 29)", True),
)
_VIDEO = (
    # number, name, media type, whether there is a fragmentable form beside it
    ("100", "MPEG2 Main Profile / Main Level", "video/mpeg", True),
    ("101", "MPEG2 Main Profile / High Level", "video/mpeg", True),
    ("102", "MPEG-4 AVC/H.264 High Profile / Level 4.1", "video/mp4", True),
    ("103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", "video/mp4", True),
    ("104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", "video/mp4", True),
    ("105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", "video/mp4", True),
    ("106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", "video/mp4", True),
    ("107", "HEVC/H.265 Main Profile / Level 5.1", "video/H265", False),
    ("108", "HEVC/H.265 Main 10 Profile / Level 5.1", "video/H265", False),
)
_WITHOUT_PIXEL_DATA = (
    # JPIP names a provider instead, a real-time stream sends its flows beside the Data Set. PS3.5 A.6 to A.9, PS3.22
    ("4.94", "JPIP Referenced", False),
    ("4.95", "JPIP Referenced Deflate", True),
    ("4.204", "JPIP HTJ2K Referenced", False),
    ("4.205", "JPIP HTJ2K Referenced Deflate", True),
    ("7.1", "SMPTE ST 2110-20 Uncompressed Progressive Active Video", False),
    ("7.2", "SMPTE ST 2110-20 Uncompressed Interlaced Active Video", False),
    ("7.3", "SMPTE ST 2110-30 PCM Digital Audio", False),
)

_TABLE = (
    TransferSyntax(IMPLICIT_VR_LITTLE_ENDIAN, "Implicit VR Little Endian", encapsulated=False, implicit=True),
    TransferSyntax(EXPLICIT_VR_LITTLE_ENDIAN, "Explicit VR Little Endian", encapsulated=False),
    TransferSyntax(
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "Deflated Explicit VR Little Endian", encapsulated=False, deflated=True
    ),
    TransferSyntax(EXPLICIT_VR_BIG_ENDIAN, "Explicit VR Big Endian", encapsulated=False, big_endian=True),
    TransferSyntax("1.2.840.10008.1.20", "Papyrus 3 Implicit VR Little Endian", encapsulated=False, implicit=True),
    TransferSyntax(ENCAPSULATED_UNCOMPRESSED, "Encapsulated Uncompressed Explicit VR Little Endian"),
    TransferSyntax(JPEG_BASELINE, "JPEG Baseline (Process 1)", "image/jpeg", lossless=False),
    TransferSyntax(JPEG_EXTENDED, "JPEG Extended (Process 2 and 4)", "image/jpeg", lossless=False),
    *(
        TransferSyntax(f"{_PREFIX}4.{number}", name, "image/jpeg", lossless=lossless)
        for number, name, lossless in _RETIRED_JPEG
    ),
    TransferSyntax(JPEG_LOSSLESS, "JPEG Lossless, Non-Hierarchical (Process 14)", "image/jpeg"),
    TransferSyntax(
        JPEG_LOSSLESS_SV1,
        "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])",
        "image/jpeg",
    ),
    TransferSyntax(JPEG_LS_LOSSLESS, "JPEG-LS Lossless Image Compression", "image/jls"),
    TransferSyntax(
        JPEG_LS_NEAR_LOSSLESS, "JPEG-LS Lossy (Near-Lossless) Image Compression", "image/jls", lossless=False
    ),
    TransferSyntax(JPEG_2000_LOSSLESS, "JPEG 2000 Image Compression (Lossless Only)", "image/jp2"),
    TransferSyntax(JPEG_2000, "JPEG 2000 Image Compression", "image/jp2", lossless=False),
    TransferSyntax(
        JPEG_2000_PART_2_LOSSLESS,
        "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)",
        "image/jpx",
    ),
    TransferSyntax(JPEG_2000_PART_2, "JPEG 2000 Part 2 Multi-component Image Compression", "image/jpx", lossless=False),
    *(
        TransferSyntax(f"{_PREFIX}4.{number}{suffix}", prefix + name, media_type, lossless=False, video=True)
        for number, name, media_type, fragmentable in _VIDEO
        for suffix, prefix in (("", ""), (".1", "Fragmentable "))[: 1 + fragmentable]
    ),
    TransferSyntax(JPEG_XL_LOSSLESS, "JPEG XL Lossless", "image/jxl"),
    TransferSyntax(JPEG_XL_RECOMPRESSION, "JPEG XL JPEG Recompression", "image/jxl", lossless=False),
    TransferSyntax(JPEG_XL, "JPEG XL", "image/jxl", lossless=False),
    TransferSyntax(HTJ2K_LOSSLESS, "High-Throughput JPEG 2000 Image Compression (Lossless Only)", "image/jphc"),
    TransferSyntax(
        HTJ2K_LOSSLESS_RPCL,
        "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)",
        "image/jphc",
    ),
    TransferSyntax(HTJ2K, "High-Throughput JPEG 2000 Image Compression", "image/jphc", lossless=False),
    TransferSyntax(RLE_LOSSLESS, "RLE Lossless", "image/dicom-rle"),
    TransferSyntax(DEFLATED_IMAGE_FRAME, "Deflated Image Frame Compression", "application/x-deflate"),
    *(
        TransferSyntax(_PREFIX + number, name, encapsulated=False, deflated=deflated)
        for number, name, deflated in _WITHOUT_PIXEL_DATA
    ),
    # Neither says how a Part 10 file looks: what comes under these names is read as it shows itself.
    TransferSyntax(f"{_PREFIX}6.1", "RFC 2557 MIME encapsulation", lossless=False),
    TransferSyntax(f"{_PREFIX}6.2", "XML Encoding", lossless=False),
)

TRANSFER_SYNTAXES: dict[str, TransferSyntax] = {entry.uid: entry for entry in _TABLE}


def transfer_syntax(uid: str) -> TransferSyntax:
    """The table's row for `uid`; an unknown or private one is taken as encapsulated and opaque."""
    known = TRANSFER_SYNTAXES.get(uid)
    return known if known is not None else TransferSyntax(uid, f"unknown ({uid})", lossless=False, known=False)
