"""What the frame header of a JPEG or JPEG-LS codestream says, read before a decoder allocates for it (T.81, T.87)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from pacs.errors import PixelError

Buffer: TypeAlias = bytes | bytearray | memoryview

_SOI, _EOI, _SOS, _TEM, _SOF55, _APP0, _APP14 = 0xD8, 0xD9, 0xDA, 0x01, 0xF7, 0xE0, 0xEE
_FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0), _SOF55} - {0xC4, 0xC8, 0xCC})
"""SOF0 to SOF15 without DHT, JPG and DAC, and that of JPEG-LS. T.81 Table B.1, T.87 C.1.1"""
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """T.81 B.2.2"""

    marker: int
    """Second byte of the SOF marker."""
    precision: int
    rows: int
    columns: int
    components: int
    ycbcr: bool
    """Whether an Adobe or JFIF marker says that three components are Y, Cb and Cr."""
    rgb: bool
    """Whether the three components are named R, G and B, as encoders do that transform no colours."""

    @property
    def lossless(self) -> bool:
        """Whether it is of the lossless process of T.81, which has no colour space of its own."""
        return self.marker in _LOSSLESS


def parse(codestream: Buffer) -> FrameHeader:
    """The first frame header; PixelError where there is none."""
    data = memoryview(codestream)
    if len(data) < 4 or data[0] != 0xFF or data[1] != _SOI:
        raise PixelError("no JPEG: it does not start with SOI")
    at = 2
    adobe: int | None = None
    jfif = False
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise PixelError(f"JPEG: no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (_SOS, _EOI):
            break
        if marker == _TEM or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAME_HEADERS:
            # The Adobe marker names the transform and outranks JFIF, which implies it.
            return _frame_header(marker, data[at + 4 : at + 2 + length], at, jfif if adobe is None else adobe == 1)
        if marker == _APP0 and bytes(data[at + 4 : at + 8]) == b"JFIF":
            jfif = True
        elif marker == _APP14 and bytes(data[at + 4 : at + 9]) == b"Adobe" and at + 15 < len(data):
            adobe = data[at + 15]
        at += 2 + max(length, 2)
    raise PixelError("JPEG: no frame header")


def _frame_header(marker: int, segment: memoryview, at: int, ycbcr: bool) -> FrameHeader:
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        raise PixelError(f"JPEG: the frame header at byte {at} is cut")
    return FrameHeader(
        marker=marker,
        precision=segment[0],
        rows=int.from_bytes(segment[1:3], "big"),
        columns=int.from_bytes(segment[3:5], "big"),
        components=segment[5],
        ycbcr=ycbcr,
        rgb=segment[5] == 3 and bytes(segment[6:15:3]) in (b"RGB", b"rgb"),
    )
