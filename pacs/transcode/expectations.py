"""What a JPEG 2000 decoder would have to set up for a codestream, held against the bytes that are there.

Decoders allocate for every precinct and code-block before they read the first packet: 158 bytes that describe
2000 x 2000 samples in precincts of 2 x 2 take OpenJPEG 12 seconds and 2 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pacs.codestream import Codestream
from pacs.errors import PixelError
from pacs.transcode.frames import Buffer

_COD, _COC, _QCD, _QCC, _SOT = 0x52, 0x53, 0x5C, 0x5D, 0x90

_SMALL: Final = 1 << 14
"""Samples: too few for precincts that matter."""
_FREE_PRECINCTS: Final = 1 << 15
_FREE_BLOCKS: Final = 1 << 18
_BLOCKS_A_BYTE: Final = 8
"""A precinct has a packet of a byte at least in each layer; of code-blocks many can be left out together."""

_MOST_BIT_PLANES: Final = 30
"""OpenJPH 0.26 calls a null pointer for more. Samples of 24 bits have 28."""


def check(data: Buffer, parsed: Codestream) -> None:
    """PixelError for more precincts or code-blocks than the bytes of the codestream can fill.

    `data` begins with SOC. Style of main and tile-part headers counts as if it held for the whole image. T.800 A.6.1
    """
    columns, rows = parsed.columns, parsed.rows
    components = len(parsed.components)
    if columns * rows * components <= _SMALL and parsed.tiles == 1:
        return
    view = memoryview(data)
    for marker, segment in _coding_styles(view, parsed):
        # COD: Scod, 4 bytes of SGcod, SPcod. COC: the component, Scoc, SPcoc.
        style = 0 if marker == _COD else _index_length(parsed)
        at = style + (5 if marker == _COD else 1)
        if len(segment) < at + 5:
            raise PixelError("the JPEG 2000 frame has a coding style that is cut")
        levels, block = segment[at], (segment[at + 1] & 15) + (segment[at + 2] & 15) + 4
        sizes = segment[at + 5 :] if segment[style] & 1 else b""
        precincts = blocks = 0
        levels = min(levels, 32)
        for level in range(levels + 1):
            size = sizes[level] if level < len(sizes) else 0xFF
            width, height = -(-columns >> (levels - level)), -(-rows >> (levels - level))
            precincts += -(-width >> (size & 15)) * -(-height >> (size >> 4)) + parsed.tiles
            blocks += (width * height >> block) + 1
        if precincts * components > max(_FREE_PRECINCTS, 2 * len(view)):
            raise PixelError(f"{len(view)} bytes of JPEG 2000 cannot be {precincts * components} precincts")
        if blocks * components > max(_FREE_BLOCKS, _BLOCKS_A_BYTE * len(view)):
            raise PixelError(f"{len(view)} bytes of JPEG 2000 cannot be {blocks * components} code-blocks")


def _coding_styles(view: memoryview, parsed: Codestream) -> Iterator[tuple[int, bytes]]:
    """COD and COC of the main header and of tile-part headers."""
    for header in headers(view, parsed):
        for marker, segment in segments(header):
            if marker in (_COD, _COC):
                yield marker, bytes(segment)


def headers(view: memoryview, parsed: Codestream) -> Iterator[memoryview]:
    """The segments of the main header, SIZ first, and of each tile-part header that is more than SOT and SOD."""
    yield view[2 : parsed.tile_parts[0].offset if parsed.tile_parts else len(view)]
    for part in parsed.tile_parts:
        if part.data - part.offset > 14:
            yield view[part.offset + 12 : part.data]


def segments(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Second byte and contents of the marker segments from the start of `view`, up to SOT, SOD or the end."""
    at = 0
    while at + 4 <= len(view) and view[at + 1] not in (_SOT, 0x93):
        length = int.from_bytes(view[at + 2 : at + 4], "big")
        yield view[at + 1], view[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)


def _index_length(parsed: Codestream) -> int:
    """Bytes of a component's number in COC and QCC. T.800 A.6.2"""
    return 1 if len(parsed.components) < 257 else 2


def too_many_bit_planes(data: Buffer, parsed: Codestream) -> bool:
    """Whether OpenJPH would crash: a subband of an irreversible component has more than 30 bit-planes.

    Their number is guard bits + exponent - 1; QCD and QCC of the main header count. T.800 A.6.4, E.1
    """
    header = memoryview(data)[2 : parsed.tile_parts[0].offset if parsed.tile_parts else len(data)]
    if parsed.reversible and b"\xff\x53" not in bytes(header):
        return False
    for marker, segment in segments(header):
        if marker in (_QCD, _QCC):
            values = segment[_index_length(parsed) if marker == _QCC else 0 :]
            step = 1 if values[0] & 0x1F == 0 else 2
            if (values[0] >> 5) + max(value >> 3 for value in values[1::step]) - 1 > _MOST_BIT_PLANES:
                return True
    return False
