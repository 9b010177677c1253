"""How the codestreams of compressed frames begin and end, and what that tells of their encoding."""

from __future__ import annotations

import itertools
import struct
from typing import NamedTuple, TypeAlias

from pacs import uids

Buffer: TypeAlias = bytes | bytearray | memoryview

_RLE_HEADER = struct.Struct("<16I")

JPEG = (b"\xff\xd8\xff",)
JPEG_2000 = (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
JPEG_XL_BARE, JPEG_XL_BOXED = b"\xff\x0a", b"\x00\x00\x00\x0cJXL "


class Kind(NamedTuple):
    """How a frame looks from outside."""

    begins: tuple[bytes, ...] | None = ()
    """With one of these; None for the header of RLE."""
    surely: tuple[bytes, ...] | None = ()
    """Those that chance does not put at the start of a fragment."""
    ends: bool = False
    """With the marker EOI or EOC."""


_CODESTREAM = Kind(JPEG_2000, JPEG_2000, True)
_KINDS = {
    "image/jpeg": Kind(JPEG, JPEG, True),
    "image/jls": Kind(JPEG, JPEG, True),
    "image/jp2": _CODESTREAM,
    "image/jpx": _CODESTREAM,
    "image/jphc": _CODESTREAM,
    "image/jxl": Kind((JPEG_XL_BARE, JPEG_XL_BOXED), (JPEG_XL_BOXED,)),
    "image/dicom-rle": Kind(None, None),
}
_ANY = Kind((*JPEG, *JPEG_2000, JPEG_XL_BOXED), (*JPEG, *JPEG_2000, JPEG_XL_BOXED))
"""Of a Transfer Syntax that is not known."""


def kind(transfer_syntax: str) -> Kind:
    """Of the frames in a Transfer Syntax; an empty one where nothing is known of how they begin."""
    known = uids.transfer_syntax(transfer_syntax)
    return _KINDS.get(known.media_type) or (Kind() if known.known else _ANY)


def begins(data: memoryview, offset: int, length: int, marks: tuple[bytes, ...] | None) -> bool:
    """Whether a fragment begins with one of `marks`, or with the header of RLE for None."""
    if marks is None:
        return length >= 64 and _is_rle_header(data[offset : offset + 64])
    return bytes(data[offset : offset + min(length, 12)]).startswith(marks)


def ends(data: memoryview, offset: int, length: int) -> bool:
    """Whether the last marker is EOI or EOC; a byte or two may pad it. T.81 B.1.1.3, T.800 A.4.4, PS3.5 A.4"""
    end = bytes(data[offset + max(0, length - 4) : offset + length])
    return end.rstrip(b"\0").endswith(b"\xff\xd9")


def _is_rle_header(header: Buffer) -> bool:
    """The number of segments, their offsets, and zeros. PS3.5 G.5"""
    count, *offsets = _RLE_HEADER.unpack(header)
    return (
        1 <= count <= 15
        and offsets[0] == 64
        and all(earlier < later for earlier, later in itertools.pairwise(offsets[:count]))
        and not any(offsets[count:])
    )


# --- what an unlabelled frame is -------------------------------------------------------------------------------

_FRAME_HEADERS = {
    0xC0: uids.JPEG_BASELINE, 0xC1: uids.JPEG_EXTENDED, 0xC2: "1.2.840.10008.1.2.4.55", 0xC3: uids.JPEG_LOSSLESS,
    0xF7: uids.JPEG_LS_NEAR_LOSSLESS,
}  # fmt: skip
"""SOF markers and the Transfer Syntax that allows most with them. T.81 Table B.1, T.87 C.1.1"""


def transfer_syntax(frame: Buffer) -> str:
    """The most general Transfer Syntax in which these may be the bytes of a frame, "" where they do not tell."""
    start = bytes(frame[:12])
    if start.startswith(JPEG_2000[0]):
        return uids.HTJ2K if len(frame) > 6 and frame[6] & 0x40 else uids.JPEG_2000  # Rsiz bit 14: T.814 A.2
    if start.startswith(JPEG_2000[1]):
        return uids.JPEG_2000
    if start.startswith((JPEG_XL_BARE, JPEG_XL_BOXED)):
        return uids.JPEG_XL
    if start.startswith(JPEG):
        return _jpeg(frame)
    return uids.RLE_LOSSLESS if len(frame) >= 64 and _is_rle_header(frame[:64]) else ""


def _jpeg(frame: Buffer) -> str:
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] == 0xFF:  # fill
            at += 1
            continue
        if frame[at + 1] in _FRAME_HEADERS:
            return _FRAME_HEADERS[frame[at + 1]]
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return ""
