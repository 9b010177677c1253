"""JPEG 2000 and HTJ2K packets: where each one lies, in which order, and codestreams made of some of them.

Packet headers are read, code-blocks never: what is written consists of the packets that came, moved or left out.
`docs/codestreams.md` says what is understood and what is rewritten. T.800 Annex B, T.814 Annex B
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from pacs import codestream as _codestream
from pacs._codecs import progression as _kernel

Buffer: TypeAlias = bytes | bytearray | memoryview


class Rectangle(NamedTuple):
    """A part of an image in its own rows and columns, both from 0."""

    top: int
    left: int
    rows: int
    columns: int


class Packet(NamedTuple):
    """One packet. Offsets count from the first of the bytes given (of a JP2 file too). T.800 B.9

    The header span holds neither SOP nor EPH. Of a packed header (PPM, PPT) the offset counts in `packed_headers`
    of the index instead.
    """

    tile: int
    component: int
    resolution: int
    """Resolution level, 0 the coarsest."""
    precinct: int
    """Its number inside the resolution level of its tile-component, row by row."""
    layer: int
    header_offset: int
    header_length: int
    body_offset: int
    body_length: int
    packed: bool
    """Whether the header came in PPM or PPT."""


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """All packets of a codestream: tile by tile, and in a tile in the order in which they lie."""

    packets: tuple[Packet, ...]
    packed_headers: bytes
    """The contents of PPM or PPT put together, b"" without."""
    lengths_agree: bool | None
    """Whether PLT or PLM give the lengths that the packet headers give; None without PLT and PLM. The headers rule:
    decoders follow them."""


def index(codestream: Buffer) -> PacketIndex:
    """Every packet of a whole codestream, raw or in a JP2, JPX or JPH file.

    Raises CodestreamError, with the offset in the bytes given, when the packets cannot all be followed to their end:
    truncated data, contradicting headers, more packets than there are bytes, bytes left behind the last packet.
    """
    walked = _kernel.walk(codestream)
    packets = tuple(map(Packet._make, walked.tuples()))
    return PacketIndex(packets, bytes(walked.packed), walked.lengths_agree)


def reorder(codestream: Buffer) -> bytes:
    """The same image with its packets in RPCL order, a tile-part per tile and resolution level, TLM and PLT.

    Resolution level 0 of all tiles comes first, then 1 of all tiles, so that every level of the image is a prefix:
    `level_ends` of the result. Raises CodestreamError when a packet cannot be followed to its end.
    """
    raise NotImplementedError


def cut(
    codestream: Buffer, *, levels_dropped: int = 0, layers: int | None = None, most_bytes: int | None = None
) -> bytes:
    """A codestream of its own without the finest `levels_dropped` resolution levels, with the first `layers` quality
    layers, of at most `most_bytes` bytes."""
    raise NotImplementedError


def region(codestream: Buffer, rectangle: Rectangle, levels_dropped: int = 0) -> bytes:
    """A codestream of the whole image, less `levels_dropped` levels, in which only precincts that the samples of
    `rectangle` depend on carry data; the other packets are empty."""
    raise NotImplementedError


def level_ends(codestream: Buffer) -> tuple[int, ...]:
    """`level_ends` of `pacs.codestream.parse`: where the data of each resolution level ends, coarsest first."""
    return _codestream.parse(codestream).level_ends
