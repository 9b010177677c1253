"""Whether a JPEG 2000 codestream needs an extension of Part 2 (T.801), which no decoder here is trusted with.

OpenJPEG passes over most of them and gives some image. Streams of Part 1 come under the Transfer Syntaxes of Part 2 too
(.92 and .93), and are decoded.
"""

from __future__ import annotations

from typing import Final

from pacs.codestream import Codestream
from pacs.errors import PixelError
from pacs.transcode import expectations

_MARKERS: Final = {
    0x5A: "QPD", 0x5B: "QPC", 0x70: "DCO", 0x71: "VMS", 0x72: "DFS", 0x73: "ADS", 0x74: "MCT", 0x75: "MCC",
    0x76: "NLT", 0x77: "MCO", 0x78: "CBD", 0x79: "ATK",
}  # fmt: skip
"""Second bytes of the marker segments that Part 2 adds. T.801 Table A.1"""
_COD, _COC, _QCD, _QCC, _RGN = 0x52, 0x53, 0x5C, 0x5D, 0x5E
_PART_2, _CAPABILITIES = 0x8000, 0x3FFF
"""Of Rsiz. T.800 Table A.10, T.801 Table A.2"""


def refuse(data: memoryview, parsed: Codestream) -> None:
    """PixelError for a codestream, from SOC on, that names an extension of Part 2 in any header."""
    if parsed.profile & _PART_2 and parsed.profile & _CAPABILITIES:
        raise PixelError(f"the JPEG 2000 frame needs capabilities of Part 2: Rsiz {parsed.profile:04X}")
    index = 1 if len(parsed.components) < 257 else 2
    for view in expectations.headers(data, parsed):
        for marker, segment in expectations.segments(view):
            name = _MARKERS.get(marker) or _extended(marker, segment, index)
            if name:
                raise PixelError(f"the JPEG 2000 frame uses Part 2: {name}")


def _extended(marker: int, segment: memoryview, index: int) -> str:
    """The parameter of a Part 1 segment that has a value of Part 2, "" for none. T.801 A.2"""
    fields: tuple[tuple[str, int, int], ...]
    if marker == _COD:
        fields = ("Scod", 0, 0x07), ("multiple component transform", 4, 1), ("wavelet transform", 9, 1)
    elif marker == _COC:
        fields = ("Scoc", index, 0x01), ("wavelet transform", index + 5, 1)
    elif marker in (_QCD, _QCC):
        at = index if marker == _QCC else 0
        return "quantization" if segment[at : at + 1] and segment[at] & 0x1F > 2 else ""
    elif marker == _RGN:
        fields = (("region of interest", index, 0),)
    else:
        return ""
    return next((name for name, at, most in fields if segment[at : at + 1] and segment[at] > most), "")
