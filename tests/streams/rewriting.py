"""Codestreams laid out anew, packet by packet, as no encoder at hand does it: the same samples in another order.

The plain walker finds the packets of a sound codestream; `rewrite` puts them where a `Layout` says. Packet headers
are copied, since within a precinct layers keep their order in every progression.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.reference import j2k, j2k_headers
from tests.reference.j2k import Packet, Walk
from tests.reference.j2k_geometry import Turn, Volume, turns
from tests.reference.j2k_headers import COC, COD, COM, PLM, PLT, POC, PPM, PPT, QCC, QCD, TLM

ORDERS = ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")

Split = Callable[[Turn], object]


@dataclass(frozen=True)
class Layout:
    """How the packets of a codestream are laid out. None keeps what the codestream has."""

    order: str | None = None
    """Progression of COD."""
    poc: Sequence[Volume] = ()
    """Progressions in the main header, in place of that of COD."""
    tile_poc: Sequence[Sequence[Volume]] = ()
    """POC of each tile-part header in turn, first to last; () for none."""
    sop: bool | None = None
    eph: bool | None = None
    packed: Literal["PPM", "PPT"] | None = None
    lengths: Literal["PLT", "PLM"] | None = None
    tlm: tuple[int, int] | None = None
    """ST (bytes of a tile's number) and SP (1: lengths of 4 bytes)."""
    split: Split | None = None
    """A tile-part ends where this changes from one packet to the next."""
    interleaved: Literal["tiles", "rounds", "backwards"] = "tiles"
    """Tile after tile; first tile-parts of all tiles, then second ones …; or so with the last tile first."""
    siblings: Literal["all", "last", "none"] = "all"
    """Which tile-parts carry TNsot."""
    open_end: bool = False
    """Psot of the last tile-part is 0: it lasts until EOC."""
    eoc: bool = True
    by_component: bool = False
    """COD and QCD are wrong for all components but right in COC and QCC."""
    in_tiles: bool = False
    """COD and QCD are repeated in the header of each first tile-part, and those of the main header say otherwise."""
    most_bytes: int = 60_000
    """Of one PPM, PPT, PLM or PLT segment: small numbers make several."""
    cut_anywhere: bool = False
    """PPM may be cut inside Nppm: allowed, but OpenJPEG does not read it."""


def rewrite(codestream: bytes, layout: Layout) -> bytes:
    """`codestream`, which must be sound, in another layout. Comes out without JP2 boxes."""
    walked = j2k.walk(codestream)
    if walked.fault:
        raise walked.fault
    return _Writer(walked, layout).write()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">HH", marker, len(body) + 2) + body


@dataclass
class _Part:
    tile: int
    number: int
    packets: list[Packet]
    count: int = 0
    """TNsot"""
    header: bytes = b""
    data: bytes = b""
    packed: bytes = b""
    lengths: list[int] = field(default_factory=list)


class _Writer:
    def __init__(self, walked: Walk, layout: Layout) -> None:
        self.walked, self.layout = walked, layout
        assert walked.image is not None and walked.main.packing is not None
        self.image, packing = walked.image, walked.main.packing
        self.sop = packing.sop if layout.sop is None else layout.sop
        self.eph = packing.eph if layout.eph is None else layout.eph
        self.order = packing.order if layout.order is None else ORDERS.index(layout.order)
        self.next_sop = [0] * self.image.tiles
        self.next_ppt = [0] * self.image.tiles

    def write(self) -> bytes:
        parts = self._in_codestream_order([part for tile in range(self.image.tiles) for part in self._parts(tile)])
        for part in parts:
            self._fill(part)
        main = self._main_header(parts)
        out = bytearray(main)
        for index, part in enumerate(parts):
            length = 12 + len(part.header) + 2 + len(part.data)
            if self.layout.open_end and index == len(parts) - 1:
                length = 0
            out += struct.pack(">HHHIBB", j2k_headers.SOT, 10, part.tile, length, part.number, part.count)
            out += part.header + b"\xff\x93" + part.data
        return bytes(out) + (b"\xff\xd9" if self.layout.eoc else b"")

    # --- packets -------------------------------------------------------------------------------------------------

    def _volumes(self, tile: int) -> list[Volume]:
        packing = self.walked.tiles[tile].packing
        assert packing is not None
        everything = Volume(0, 0, packing.layers, 33, len(self.image.components), self.order)
        in_tiles = [volume for volumes in self.layout.tile_poc for volume in volumes]
        return in_tiles or list(self.layout.poc) or [everything]

    def _parts(self, tile: int) -> list[_Part]:
        """The packets of a tile in their new order, as tile-parts."""
        found = self.walked.tiles[tile]
        by_turn = {packet.turn: packet for packet in self.walked.packets if packet.tile == tile}
        packing = found.packing
        assert packing is not None
        volumes = [v._replace(layer_end=min(v.layer_end, packing.layers)) for v in self._volumes(tile)]
        order = list(turns(found.resolutions, found.area, volumes))
        assert len(order) == len(by_turn), "the progressions do not cover the tile"
        parts = [_Part(tile, 0, [])]
        last: object = None
        for turn in order:
            key = self.layout.split(turn) if self.layout.split else None
            if parts[-1].packets and key != last and len(parts) < 255:
                parts.append(_Part(tile, len(parts), []))
            parts[-1].packets.append(by_turn[turn])
            last = key
        telling = {"all": parts, "last": parts[-1:], "none": []}[self.layout.siblings]
        for part in telling:
            part.count = len(parts)
        return parts

    def _in_codestream_order(self, parts: list[_Part]) -> list[_Part]:
        if self.layout.interleaved == "rounds":
            return sorted(parts, key=lambda part: (part.number, part.tile))
        if self.layout.interleaved == "backwards":
            return sorted(parts, key=lambda part: (part.number, -part.tile))
        return parts

    def _fill(self, part: _Part) -> None:
        data = bytearray()
        for packet in part.packets:
            before = len(data)
            if self.sop:
                data += struct.pack(">HHH", j2k_headers.SOP, 4, self.next_sop[part.tile] % 65536)
                self.next_sop[part.tile] += 1
            header = packet.header_bytes + (b"\xff\x92" if self.eph else b"")
            if self.layout.packed:
                part.packed += header
            else:
                data += header
            at, length = packet.body
            data += self.walked.data[at : at + length]
            part.lengths.append(len(data) - before)
        part.data = bytes(data)
        part.header = self._tile_part_header(part)

    # --- headers -------------------------------------------------------------------------------------------------

    def _pieces(self, marker: int, content: bytes, first: int = 0) -> bytes:
        """`content` in as many segments of one kind as it takes; the first byte of each is its number, Z."""
        step = self.layout.most_bytes
        pieces = [content[i : i + step] for i in range(0, len(content), step)]
        return b"".join(segment(marker, bytes([first + i]) + piece) for i, piece in enumerate(pieces))

    def _tile_part_header(self, part: _Part) -> bytes:
        out = bytearray()
        if part.number == 0:
            for old in self._first_header(part.tile):
                if old.marker not in (PLT, PPT, POC):
                    out += segment(old.marker, self._adapted(old.marker, old.body))
            if self.layout.in_tiles:
                for old in self.walked.main_segments:
                    if old.marker in (COD, QCD):
                        out += segment(old.marker, self._adapted(old.marker, old.body))
        if part.number < len(self.layout.tile_poc) and self.layout.tile_poc[part.number]:
            out += segment(POC, self._poc(self.layout.tile_poc[part.number]))
        if self.layout.lengths == "PLT":
            out += self._plt(part)
        if self.layout.packed == "PPT" and part.packed:
            pieces = self._pieces(PPT, part.packed, self.next_ppt[part.tile])
            self.next_ppt[part.tile] += -(-len(part.packed) // self.layout.most_bytes)
            out += pieces
        return bytes(out)

    def _first_header(self, tile: int) -> tuple[j2k_headers.Segment, ...]:
        return next(part.segments for part in self.walked.tile_parts if part.tile == tile)

    def _adapted(self, marker: int, body: bytes) -> bytes:
        if marker != COD:
            return body
        return bytes([(body[0] & 1) | self.sop << 1 | self.eph << 2, self.order]) + body[2:]

    def _poc(self, volumes: Sequence[Volume]) -> bytes:
        form = ">BBHBBB" if len(self.image.components) < 257 else ">BHHBHB"
        return b"".join(struct.pack(form, *volume) for volume in volumes)

    def _main_header(self, parts: list[_Part]) -> bytes:
        out = bytearray(b"\xff\x4f")
        for old in self.walked.main_segments:
            if old.marker in (TLM, PLM, PPM, POC):
                continue
            body = self._adapted(old.marker, old.body)
            if self.layout.in_tiles and old.marker == COD:
                body = bytes([body[0], (body[1] + 1) % 5, 0, 1]) + body[4:]
            if self.layout.by_component and old.marker in (COD, QCD):
                out += self._by_component(old.marker, body)
            else:
                out += segment(old.marker, body)
        if self.layout.poc:
            out += segment(POC, self._poc(self.layout.poc))
        if self.layout.tlm is not None:
            out += self._tlm(parts, *self.layout.tlm)
        if self.layout.lengths == "PLM":
            pieces = [iplt(part.lengths) for part in parts]
            assert all(len(piece) < 256 for piece in pieces), "PLM counts the bytes of a tile-part in one byte"
            out += self._pieces(PLM, b"".join(bytes([len(piece)]) + piece for piece in pieces))
        if self.layout.packed == "PPM":
            content = b"".join(len(part.packed).to_bytes(4, "big") + part.packed for part in parts)
            out += self._pieces(PPM, content) if self.layout.cut_anywhere else self._ppm(parts)
        return bytes(out + segment(COM, b"\x00\x01rewritten"))

    def _plt(self, part: _Part) -> bytes:
        bodies = [bytearray()]
        for length in part.lengths:
            entry = iplt([length])
            if len(bodies[-1]) + len(entry) > self.layout.most_bytes:
                bodies.append(bytearray())
            bodies[-1] += entry
        assert len(bodies) < 256
        return b"".join(segment(PLT, bytes([i]) + body) for i, body in enumerate(bodies))

    def _ppm(self, parts: list[_Part]) -> bytes:
        """PPM whose segments end between the headers of two tile-parts or inside them, not inside an Nppm."""
        bodies = [bytearray()]
        for part in parts:
            if len(bodies[-1]) + 4 > self.layout.most_bytes:
                bodies.append(bytearray())
            bodies[-1] += len(part.packed).to_bytes(4, "big")
            rest = part.packed
            while rest:
                room = self.layout.most_bytes - len(bodies[-1])
                if room <= 0:
                    bodies.append(bytearray())
                    continue
                bodies[-1] += rest[:room]
                rest = rest[room:]
        return b"".join(segment(PPM, bytes([i]) + body) for i, body in enumerate(bodies))

    def _by_component(self, marker: int, body: bytes) -> bytes:
        """COD with one level and no precincts, or QCD to match, and the truth in COC or QCC of each component."""
        wide = 2 if len(self.image.components) > 256 else 1
        numbers = [i.to_bytes(wide, "big") for i in range(len(self.image.components))]
        if marker == COD:
            out = segment(COD, bytes([body[0] & 6]) + body[1:5] + b"\x01\x00\x00" + body[8:10])
            return out + b"".join(segment(COC, number + bytes([body[0] & 1]) + body[5:]) for number in numbers)
        return segment(QCD, b"\x40" + b"\x48" * 4) + b"".join(segment(QCC, number + body) for number in numbers)

    def _tlm(self, parts: list[_Part], st: int, sp: int) -> bytes:
        width = 4 if sp else 2
        entries = []
        for part in parts:
            length = 14 + len(part.header) + len(part.data)
            entries.append((part.tile.to_bytes(st, "big") if st else b"") + length.to_bytes(width, "big"))
        head = st << 4 | sp << 6
        step = max(1, self.layout.most_bytes // (st + width))
        groups = [entries[i : i + step] for i in range(0, len(entries), step)]
        return b"".join(segment(TLM, bytes([i, head]) + b"".join(group)) for i, group in enumerate(groups))


def iplt(lengths: Sequence[int]) -> bytes:
    """Packet lengths as PLT and PLM write them. T.800 Table A.36"""
    out = bytearray()
    for length in lengths:
        groups = [length & 0x7F]
        while length := length >> 7:
            groups.append(0x80 | (length & 0x7F))
        out += bytes(reversed(groups))
    return bytes(out)
