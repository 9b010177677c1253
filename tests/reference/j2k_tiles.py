"""The tiles of a codestream and their packets, across tile-parts. T.800 A.4, A.6.6, A.7, A.8, B.9, B.12"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.reference import j2k_headers as headers
from tests.reference.j2k_bits import Bits, Malformed
from tests.reference.j2k_geometry import Area, Resolution, Turn, Volume, resolution, tile_area, turns
from tests.reference.j2k_headers import Coding, Image, Packing, Parameters, Segment
from tests.reference.j2k_packets import HT, MIXED, MOST_BLOCKS, Block, Precinct, TooLarge


class Packet(NamedTuple):
    """One packet. Offsets count in the bytes walked, but `header` of a packed header in those of its PPM or PPT."""

    tile: int
    layer: int
    resolution: int
    component: int
    precinct: int
    tile_part: int
    """Index of the tile-part in the codestream."""
    start: int
    """Where it begins in its tile-part: at its SOP, else at its header, else (packed headers) at its body."""
    sop: int | None
    """Nsop when there is a SOP."""
    header: tuple[int, int]
    """Offset and length, without SOP and EPH."""
    header_bytes: bytes
    packed: bool
    eph: bool
    body: tuple[int, int]
    """Offset and length."""
    blocks: tuple[Block, ...]

    @property
    def turn(self) -> Turn:
        return Turn(self.layer, self.resolution, self.component, self.precinct)

    @property
    def end(self) -> int:
        return sum(self.body)


class TilePart(NamedTuple):
    tile: int
    number: int
    """TPsot"""
    siblings: int
    """TNsot"""
    at: int
    psot: int
    data: int
    """Behind SOD."""
    end: int
    segments: tuple[Segment, ...]
    """Of its header."""


@dataclass
class Walk:
    """What is in a codestream, up to `fault` if it has one."""

    data: bytes
    start: int = 0
    """Of SOC: behind 0 in a JP2 file."""
    image: Image | None = None
    main: Parameters = field(default_factory=Parameters)
    main_segments: list[Segment] = field(default_factory=list)
    tile_parts: list[TilePart] = field(default_factory=list)
    tiles: dict[int, Tile] = field(default_factory=dict)
    packets: list[Packet] = field(default_factory=list)
    packed_headers: bytes = b""
    """Contents of PPM, without Nppm, or of all PPT; in the order of the tile-parts."""
    packet_lengths: list[list[int] | None] = field(default_factory=list)
    """Of each tile-part, by PLT or PLM; None where neither is there."""
    eoc: int | None = None
    fault: Malformed | None = None
    notes: list[str] = field(default_factory=list)
    """What contradicts the standard and yet misleads no reader of packets: wrong TNsot, Nsop, TLM, PLT, PLM."""

    @property
    def tlm(self) -> list[tuple[int | None, int]]:
        return headers.tile_part_lengths([s for s in self.main_segments if s.marker == headers.TLM])

    def lengths_by_tile_part(self) -> list[list[int]]:
        """Bytes of each packet in its tile-part, with SOP, header and EPH where they are there."""
        out: list[list[int]] = [[] for _ in self.tile_parts]
        for packet in self.packets:
            out[packet.tile_part].append(packet.end - packet.start)
        return out


class Tile:
    """One tile, across its tile-parts."""

    def __init__(self, image: Image, number: int) -> None:
        self.image, self.number = image, number
        self.area: Area = tile_area(image.area, image.tile_origin, image.tile_size, number, image.tiles_across)
        self.parameters = Parameters()
        self.codings: list[Coding] = []
        self.packing: Packing | None = None
        self.resolutions: list[list[Resolution]] = []
        self.tile_parts = 0
        self.siblings = 0
        self.packed: bytes | None = None
        """Packet headers that came in PPM or PPT."""
        self.packed_at = 0
        self.precincts: dict[tuple[int, int, int], Precinct] = {}
        self.to_come: deque[Turn] = deque()
        """Packets in their order. POC of a later tile-part adds to them."""
        self.gone: set[Turn] = set()
        self.last: TilePart | None = None
        self.index = 0
        """Of the tile-part that is read now."""

    # --- tile-parts ----------------------------------------------------------------------------------------------

    def take(self, found: Walk, part: TilePart, packed: bytes | None) -> None:
        """Read the packets of one tile-part."""
        for segment in part.segments:
            if part.number and segment.marker in (headers.COD, headers.COC, headers.QCD, headers.QCC, headers.RGN):
                raise Malformed("COD, COC, QCD, QCC or RGN behind the first tile-part", segment.at)
            headers.read(self.parameters, segment, self.image)
        if part.number == 0:
            self._begin(found)
        if part.siblings:
            if self.siblings not in (0, part.siblings):
                found.notes.append(f"tile-parts of tile {self.number} differ on how many they are")
            self.siblings = part.siblings
        self.tile_parts += 1
        self.last, self.index = part, len(found.tile_parts) - 1
        ppt = [segment for segment in part.segments if segment.marker == headers.PPT]
        if packed is not None and ppt:
            raise Malformed("PPM and PPT in one codestream", part.at)
        more = packed if packed is not None else headers.put_together(ppt) if ppt else None
        if more is not None:
            self.packed = (self.packed or b"") + more
            found.packed_headers += more
        at = part.data
        if part.number == 0 or any(segment.marker == headers.POC for segment in part.segments):
            order = turns(self.resolutions, self.area, self._volumes())
            self.to_come = deque(turn for turn in order if turn not in self.gone)
        while self.to_come and at < part.end:
            at = self._packet(found, self.to_come.popleft(), at, part.end)
        cut_eoc = part.psot == 0 and found.data[at : min(at + 2, part.end)] in (b"\xff", b"\xff\xd9")
        if at < part.end and not cut_eoc:
            raise Malformed("bytes behind the last packet of a tile", at)

    def _begin(self, found: Walk) -> None:
        self.packing = self.parameters.packing or found.main.packing
        assert self.packing is not None
        count = 0
        for c, component in enumerate(self.image.components):
            coding = headers.coding_of(found.main, self.parameters, c)
            if coding.style & MIXED and not coding.style & HT:
                raise Malformed("code-blocks are of no known style", self.area.x0)
            self.codings.append(coding)
            levels = [
                resolution(self.area, component.separation, coding.levels, r, coding.precincts[r], coding.block)
                for r in range(coding.levels + 1)
            ]
            self.resolutions.append(levels)
            count += sum(level.precincts.rows * level.precincts.columns for level in levels)
            if count > MOST_BLOCKS:
                raise TooLarge
        if count * self.packing.layers > 8 * len(found.data):
            # Each packet header takes a bit at least; a byte unless it is packed.
            raise Malformed("more packets than the data can hold", found.start)
        self.main_volumes = found.main.volumes

    def _volumes(self) -> list[Volume]:
        """POC of the tile, else of the main header, else the order that COD gives to all. T.800 A.6.6"""
        assert self.packing is not None
        everything = Volume(0, 0, self.packing.layers, 33, len(self.image.components), self.packing.order)
        volumes = self.parameters.volumes or self.main_volumes or [everything]
        return [volume._replace(layer_end=min(volume.layer_end, self.packing.layers)) for volume in volumes]

    def finish(self, found: Walk) -> None:
        """After the last tile-part: nothing may be missing but packets that take no byte of it."""
        assert self.last is not None
        if self.siblings and self.tile_parts < self.siblings:
            found.notes.append(f"tile {self.number} has {self.tile_parts} tile-parts of {self.siblings}")
        for turn in self.to_come:
            if self.packed is None or self.packed_at >= len(self.packed):
                raise Malformed(f"tile {self.number} lacks packets", self.last.end)
            self._packet(found, turn, self.last.end, self.last.end)
        if self.packed is not None and self.packed_at < len(self.packed):
            raise Malformed("packet headers behind the last packet", self.last.end)
        everything = sum(
            level.precincts.rows * level.precincts.columns for levels in self.resolutions for level in levels
        )
        assert self.packing is not None
        if len(self.gone) != everything * self.packing.layers:
            raise Malformed(f"the progressions of tile {self.number} leave packets out", self.last.end)

    # --- packets -------------------------------------------------------------------------------------------------

    def _precinct(self, turn: Turn) -> Precinct:
        key = turn.component, turn.resolution, turn.precinct
        if key not in self.precincts:
            where = self.resolutions[turn.component][turn.resolution]
            self.precincts[key] = Precinct(where, turn.precinct, self.codings[turn.component].style)
        return self.precincts[key]

    def _packet(self, found: Walk, turn: Turn, start: int, end: int) -> int:
        """Read one packet; where the next begins. T.800 B.9, B.10"""
        assert self.packing is not None
        data, at, sop = found.data, start, None
        if self.packing.sop and data[at : min(at + 2, end)] == b"\xff\x91":  # it may be there or not: A.8.1
            if at + 6 > end or data[at + 2 : at + 4] != b"\x00\x04":
                raise Malformed("SOP is cut or has another length than 4", at)
            sop = int.from_bytes(data[at + 4 : at + 6], "big")
            if sop != len(self.gone) % 65536:
                found.notes.append(f"SOP {sop} at packet {len(self.gone)} of tile {self.number}")
            at += 6
        if self.packed is None:
            bits = Bits(data, at, end)
        else:
            bits = Bits(self.packed, self.packed_at, len(self.packed))
        header = bits.at
        blocks = self._precinct(turn).read(bits, turn.layer)
        after = bits.finish()
        header_bytes = bits.data[header:after]
        eph = self.packing.eph
        if eph:  # A.8.2: it follows every packet header, wherever that is
            if bits.data[after : min(after + 2, bits.end)] != b"\xff\x92":
                raise Malformed("no EPH behind a packet header", after)
            after += 2
        if self.packed is None:
            at = after
        else:
            self.packed_at = after
        length = sum(block.length for block in blocks)
        if at + length > end:
            raise Malformed("a packet is longer than its tile-part", at)
        found.packets.append(
            Packet(
                tile=self.number,
                layer=turn.layer,
                resolution=turn.resolution,
                component=turn.component,
                precinct=turn.precinct,
                tile_part=self.index,
                start=start,
                sop=sop,
                header=(header, len(header_bytes)),
                header_bytes=header_bytes,
                packed=self.packed is not None,
                eph=eph,
                body=(at, length),
                blocks=tuple(blocks),
            )
        )
        self.gone.add(turn)
        return at + length
