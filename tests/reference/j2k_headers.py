"""The marker segments of a codestream: image, coding, quantization, tile-parts, lengths. T.800 and T.814 Annex A"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.reference.j2k_bits import Malformed
from tests.reference.j2k_geometry import Area, Volume, ceil_div

SOC, SOT, SOD, EOC = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9
SIZ, CAP, COD, COC, RGN, QCD, QCC, POC = 0xFF51, 0xFF50, 0xFF52, 0xFF53, 0xFF5E, 0xFF5C, 0xFF5D, 0xFF5F
TLM, PLM, PLT, PPM, PPT, CRG, COM, PRF, CPF = 0xFF55, 0xFF57, 0xFF58, 0xFF60, 0xFF61, 0xFF63, 0xFF64, 0xFF56, 0xFF59
SOP, EPH = 0xFF91, 0xFF92

MAIN_ONLY = {SIZ, CAP, TLM, PLM, PPM, CRG, PRF, CPF}
TILE_ONLY = {PLT, PPT}


class Segment(NamedTuple):
    """A marker segment: `body` is what follows its length, which is at `at` + 4."""

    marker: int
    at: int
    body: bytes


class Component(NamedTuple):
    """T.800 Table A.11"""

    precision: int
    signed: bool
    separation: tuple[int, int]
    """XRsiz, YRsiz."""


@dataclass(frozen=True)
class Image:
    """SIZ. T.800 A.5.1"""

    profile: int
    area: Area
    tile_size: tuple[int, int]
    tile_origin: tuple[int, int]
    components: tuple[Component, ...]

    @property
    def tiles_across(self) -> int:
        return ceil_div(self.area.x1 - self.tile_origin[0], self.tile_size[0])

    @property
    def tiles_down(self) -> int:
        return ceil_div(self.area.y1 - self.tile_origin[1], self.tile_size[1])

    @property
    def tiles(self) -> int:
        return self.tiles_across * self.tiles_down


class Packing(NamedTuple):
    """The part of COD that holds for all components: Scod, SGcod. T.800 Tables A.13, A.14"""

    sop: bool
    eph: bool
    order: int
    layers: int
    mct: int


class Coding(NamedTuple):
    """How a component is coded: SPcod or SPcoc. T.800 Table A.15"""

    levels: int
    block: tuple[int, int]
    """xcb, ycb: exponents."""
    style: int
    transform: int
    precincts: tuple[tuple[int, int], ...]
    """PPx, PPy of each resolution level."""


@dataclass
class Parameters:
    """What the segments of one header set; those of a tile go before those of the main header. T.800 A.6"""

    packing: Packing | None = None
    coding: Coding | None = None
    component_coding: dict[int, Coding] = field(default_factory=dict)
    quantization: bytes | None = None
    component_quantization: dict[int, bytes] = field(default_factory=dict)
    region: dict[int, int] = field(default_factory=dict)
    """SPrgn: by how many bits a component is shifted."""
    volumes: list[Volume] = field(default_factory=list)


def segments(data: bytes, at: int, end: int) -> Iterator[Segment]:
    """Marker segments one after the other; stops at SOT, SOD or EOC, which come out with an empty body."""
    while True:
        if at + 2 > end:
            raise Malformed("the data ends inside a header", at)
        (marker,) = struct.unpack_from(">H", data, at)
        if marker in (SOT, SOD, EOC):
            yield Segment(marker, at, b"")
            return
        if marker < 0xFF30 or marker in (SOC, SOP, EPH):  # T.800 Table A.1
            raise Malformed(f"{marker:04X} where a marker segment should be", at)
        if marker in (0xFF72, 0xFF73):  # T.801 A.3: other decompositions, hence other bands
            raise Malformed("a decomposition of Part 2", at)
        if 0xFF30 <= marker <= 0xFF3F:  # markers without a segment: T.800 Table A.1
            at += 2
            continue
        if at + 4 > end:
            raise Malformed("the data ends inside a header", at)
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2:
            raise Malformed("a marker segment shorter than its length", at)
        if at + 2 + length > end:
            raise Malformed("the data ends inside a marker segment", at)
        yield Segment(marker, at, data[at + 4 : at + 2 + length])
        at += 2 + length


def image_of(segment: Segment) -> Image:
    """T.800 A.5.1"""
    body = segment.body
    if len(body) < 36:
        raise Malformed("SIZ is too short", segment.at)
    profile, x1, y1, x0, y0, xt, yt, xt0, yt0, count = struct.unpack_from(">H8IH", body)
    if not 1 <= count <= 16384 or len(body) != 36 + 3 * count:
        raise Malformed("SIZ has not as many components as it says", segment.at)
    components = []
    for precision, dx, dy in struct.iter_unpack("3B", body[36:]):
        if (precision & 0x7F) > 37 or not dx or not dy:
            raise Malformed("a component of SIZ is out of range", segment.at)
        components.append(Component((precision & 0x7F) + 1, bool(precision & 0x80), (dx, dy)))
    image = Image(profile, Area(x0, y0, x1, y1), (xt, yt), (xt0, yt0), tuple(components))
    # T.800 B-3, B-4: the first tile holds the first sample of the image.
    if image.area.empty or not xt or not yt or xt0 > x0 or yt0 > y0 or xt0 + xt <= x0 or yt0 + yt <= y0:
        raise Malformed("the areas of SIZ contradict each other", segment.at)
    if image.tiles > 65535:
        raise Malformed("SIZ has more than 65535 tiles", segment.at)
    return image


def _coding(body: bytes, custom_precincts: bool, at: int) -> Coding:
    if len(body) < 5:
        raise Malformed("COD or COC is too short", at)
    levels, xcb, ycb, style, transform = body[:5]
    xcb, ycb = xcb + 2, ycb + 2
    if levels > 32 or xcb > 10 or ycb > 10 or xcb + ycb > 12:
        raise Malformed("COD or COC is out of range", at)
    sizes = body[5:]
    if len(sizes) != (levels + 1 if custom_precincts else 0):
        raise Malformed("COD or COC has not a precinct size for each resolution level", at)
    precincts = tuple((size & 15, size >> 4) for size in sizes) or ((15, 15),) * (levels + 1)
    if any(0 in size for size in precincts[1:]):
        raise Malformed("a precinct size of 1 above resolution level 0", at)
    return Coding(levels, (xcb, ycb), style, transform, precincts)


def read(parameters: Parameters, segment: Segment, image: Image) -> None:
    """Take in one segment of a main or tile-part header; those that say nothing of packets are passed over."""
    marker, at, body = segment
    count = len(image.components)
    wide = 2 if count > 256 else 1  # a component's number takes two bytes above 256 components

    def component() -> int:
        if len(body) < wide:
            raise Malformed("a marker segment is too short", at)
        number = int.from_bytes(body[:wide], "big")
        if number >= count:
            raise Malformed(f"component {number} of {count}", at)
        return number

    if marker == COD:  # T.800 A.6.1
        if len(body) < 10:
            raise Malformed("COD or COC is too short", at)
        scod, order, layers, mct = struct.unpack_from(">BBHB", body)
        if order > 4 or not layers or scod > 7:
            raise Malformed("COD is out of range", at)
        parameters.packing = Packing(bool(scod & 2), bool(scod & 4), order, layers, mct)
        parameters.coding = _coding(body[5:], bool(scod & 1), at)
    elif marker == COC:  # T.800 A.6.2
        number = component()
        if len(body) < wide + 6:
            raise Malformed("COD or COC is too short", at)
        if body[wide] > 1:
            raise Malformed("COC is out of range", at)
        parameters.component_coding[number] = _coding(body[wide + 1 :], bool(body[wide] & 1), at)
    elif marker == QCD:  # T.800 A.6.4
        parameters.quantization = body
    elif marker == QCC:  # T.800 A.6.5
        parameters.component_quantization[int.from_bytes(body[:wide], "big")] = body[wide:]
    elif marker == RGN and len(body) == wide + 2:  # T.800 A.6.3
        parameters.region[int.from_bytes(body[:wide], "big")] = body[wide + 1]
    elif marker == POC:  # T.800 A.6.6
        size = 5 + 2 * wide
        if not body or len(body) % size:
            raise Malformed("POC has another length than it should", at)
        for start in range(0, len(body), size):
            entry = struct.unpack_from(">BHHBHB" if wide == 2 else ">BBHBBB", body, start)
            r0, c0, layer_end, r1, c1, order = entry
            # Of 256 components the end does not fit in a byte: 0 stands for it.
            c1 = min(c1 or 256, count)
            if order > 4:  # what is empty covers no packets, which will be missed in the end
                raise Malformed("POC is out of range", at)
            parameters.volumes.append(Volume(r0, c0, layer_end, r1, c1, order))


def coding_of(main: Parameters, tile: Parameters, component: int) -> Coding:
    """Tile COC > tile COD > main COC > main COD. T.800 A.6.1, A.6.2"""
    for parameters in (tile, main):
        found = parameters.component_coding.get(component, parameters.coding)
        if found is not None:
            return found
    raise AssertionError("the main header has a COD")


def tile_part_lengths(tlm: list[Segment]) -> list[tuple[int | None, int]]:
    """TLM: tile (None when it is not told) and length of every tile-part. T.800 A.7.1"""
    out: list[tuple[int | None, int]] = []
    for segment in sorted(tlm, key=lambda segment: segment.body[:1]):
        if len(segment.body) < 2:
            raise Malformed("TLM is too short", segment.at)
        st, sp = segment.body[1] >> 4 & 3, segment.body[1] >> 6 & 1
        width = st + (4 if sp else 2)
        entries = segment.body[2:]
        if st == 3 or len(entries) % width:
            raise Malformed("TLM has another length than it should", segment.at)
        for i in range(0, len(entries), width):
            tile = int.from_bytes(entries[i : i + st], "big") if st else None
            out.append((tile, int.from_bytes(entries[i + st : i + width], "big")))
    return out


def packet_lengths(entries: bytes) -> list[int]:
    """Iplt or Iplm: seven bits a byte, the highest bit says that more follows. T.800 Table A.36"""
    out, value = [], 0
    for byte in entries:
        value = value << 7 | (byte & 0x7F)
        if not byte & 0x80:
            out.append(value)
            value = 0
    return out


def counted_pieces(data: bytes, width: int, at: int) -> list[bytes]:
    """PPM and PLM put together: pieces, one a tile-part, each led by its length in `width` bytes. T.800 A.7.2, A.7.4"""
    out = []
    start = 0
    while start < len(data):
        length = int.from_bytes(data[start : start + width], "big")
        piece = data[start + width : start + width + length]
        if len(piece) != length or start + width > len(data):
            raise Malformed("PPM or PLM ends early", at)
        out.append(piece)
        start += width + length
    return out


def put_together(pieces: list[Segment]) -> bytes:
    """The contents of PPM, PPT, PLM or PLT segments of one header, in the order of their first byte Z."""
    if any(not segment.body for segment in pieces):
        raise Malformed("a marker segment is too short", pieces[0].at)
    return b"".join(segment.body[1:] for segment in sorted(pieces, key=lambda segment: segment.body[0]))
