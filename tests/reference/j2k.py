"""A slow walker of JPEG 2000 codestreams, Part 1 and Part 15: every packet, with what its header says.

Written from T.800 and T.814 to be read beside them, and as an oracle for `pacs.progression`, with which it shares
nothing. The way down:

- A codestream is a main header, then tile-parts, then EOC (`walk`). The tile-parts of a tile follow each other, with
  those of other tiles in between as the encoder liked.
- A tile's data is a sequence of packets. Which packet comes next is known beforehand, from the progression order
  (`j2k_geometry.turns`); how long it is only from its header, so that all before it have to be read.
- A packet holds what one layer adds to the code-blocks of one precinct, that is of one rectangle of one resolution
  level of one component (`j2k_tiles`).
- Its header tells for each code-block whether anything is added, how many coding passes, and how many bytes
  (`j2k_packets`). The bytes of all code-blocks follow as its body.
- Headers may be taken out of the packets and packed into PPM or PPT segments; bodies then stand alone.

No sample is decoded. `j2k_headers` reads marker segments, `j2k_bits` the numbers of packet headers.
"""

from __future__ import annotations

import struct

from tests.reference import j2k_headers as headers
from tests.reference.j2k_bits import Malformed
from tests.reference.j2k_headers import Image
from tests.reference.j2k_packets import Block, TooLarge
from tests.reference.j2k_tiles import Packet, Tile, TilePart, Walk

__all__ = ["Block", "Malformed", "Packet", "TilePart", "TooLarge", "Walk", "packets", "walk"]


def packets(data: bytes) -> list[Packet]:
    """Every packet of a whole codestream. Raises Malformed."""
    found = walk(data)
    if found.fault:
        raise found.fault
    return found.packets


def walk(data: bytes) -> Walk:
    """Everything up to the first fault. T.800 Annex A.3: how a codestream is constructed"""
    found = Walk(data)
    try:
        start, end = _contiguous_codestream(data)
        found.start = start
        at = _main_header(found, start, end)
        for segment in found.main_segments:
            headers.read(found.main, segment, _image(found))
        if found.main.packing is None or found.main.quantization is None:
            raise Malformed("the main header lacks COD or QCD", at)
        packed = _pieces_by_tile_part(found, headers.PPM, 4)
        try:
            lengths = _pieces_by_tile_part(found, headers.PLM, 1)
        except Malformed as fault:
            lengths = None
            found.notes.append(str(fault))
        while at < end:
            at = _tile_part(found, at, end, packed, lengths)
            if found.eoc is not None:
                break
        for number in range(_image(found).tiles):
            if number not in found.tiles:
                raise Malformed(f"tile {number} is missing", at)
            found.tiles[number].finish(found)
        _compare_lengths(found)
    except Malformed as fault:
        found.fault = fault
    return found


def _image(found: Walk) -> Image:
    assert found.image is not None
    return found.image


def _contiguous_codestream(data: bytes) -> tuple[int, int]:
    """Where the codestream is: all of the data, or the jp2c box of a JP2 file. T.800 I.5.4"""
    if data[:2] == b"\xff\x4f":
        return 0, len(data)
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            if at + 16 > len(data):
                break
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if length and length < head:
            raise Malformed("a box shorter than its header", at)
        end = at + length if length else len(data)
        if kind == b"jp2c":
            if data[at + head : at + head + 2] != b"\xff\x4f":
                raise Malformed("no SOC in the jp2c box", at + head)
            return at + head, min(end, len(data))
        at = end
    raise Malformed("no jp2c box", at)


def _main_header(found: Walk, start: int, end: int) -> int:
    """Where the first SOT is. T.800 Figure A.3"""
    for segment in headers.segments(found.data, start + 2, end):
        if found.image is None:
            if segment.marker != headers.SIZ:
                raise Malformed("SIZ is not the first marker segment", segment.at)
            found.image = headers.image_of(segment)
        elif segment.marker in {headers.SIZ, headers.SOD, headers.EOC} | headers.TILE_ONLY:
            raise Malformed(f"{segment.marker:04X} has no place in a main header", segment.at)
        if segment.marker == headers.SOT:
            return segment.at
        found.main_segments.append(segment)
    raise AssertionError("segments() ends with SOT, SOD or EOC")


def _pieces_by_tile_part(found: Walk, marker: int, width: int) -> list[bytes] | None:
    """PPM's packet headers or PLM's packet lengths, one piece a tile-part in the order of the codestream."""
    pieces = [segment for segment in found.main_segments if segment.marker == marker]
    if not pieces:
        return None
    return headers.counted_pieces(headers.put_together(pieces), width, pieces[0].at)


def _tile_part(found: Walk, at: int, end: int, packed: list[bytes] | None, lengths: list[bytes] | None) -> int:
    """One tile-part, or EOC; where the next begins. T.800 A.4.2"""
    data = found.data
    if data[at : at + 2] == b"\xff\xd9":
        found.eoc = at
        return at + 2
    if at + 2 > end:
        found.notes.append("neither SOT nor EOC at the end")
        return end
    if at + 12 > end:
        raise Malformed("the data ends inside SOT", at)
    marker, lsot, tile, psot, number, siblings = struct.unpack_from(">HHHIBB", data, at)
    if marker != headers.SOT or lsot != 10:
        raise Malformed("no SOT where a tile-part should begin", at)
    if tile >= _image(found).tiles:
        raise Malformed(f"tile {tile} of {_image(found).tiles}", at)
    if psot == 0:  # the last tile-part, up to EOC, behind which zeros may fill up
        filled = len(data[at:end].rstrip(b"\x00")) + at
        stop = filled - 2 if data[filled - 2 : filled] == b"\xff\xd9" else end
    else:
        stop = at + psot
        if psot < 14:
            raise Malformed("Psot is out of range", at)
        if stop > end:
            found.notes.append("the last tile-part is cut")
            stop = end
    first = tile not in found.tiles
    expected = 0 if first else found.tiles[tile].tile_parts
    if number != expected:
        raise Malformed(f"tile-part {number} of tile {tile} where {expected} should be", at)
    if siblings and number >= siblings:  # an encoder that many archives hold writes one too few
        found.notes.append(f"tile-part {number} of {siblings} of tile {tile}")
    own = []
    for segment in headers.segments(data, at + 12, stop):
        if segment.marker in headers.MAIN_ONLY or segment.marker in (headers.SOT, headers.EOC):
            raise Malformed(f"{segment.marker:04X} has no place in a tile-part header", segment.at)
        own.append(segment)
    part = TilePart(tile, number, siblings, at, psot, own.pop().at + 2, stop, tuple(own))
    if first:
        found.tiles[tile] = Tile(_image(found), tile)
    found.tile_parts.append(part)
    index = len(found.tile_parts) - 1
    _told_lengths(found, part, lengths)
    if packed is not None and index >= len(packed):
        raise Malformed("PPM has no packet headers for this tile-part", at)
    found.tiles[tile].take(found, part, packed[index] if packed is not None else None)
    return stop


def _compare_lengths(found: Walk) -> None:
    """TLM, PLT and PLM are for readers in a hurry; what they say must be what there is."""
    parts = [(part.tile, part.end - part.at) for part in found.tile_parts]
    told = [(part[0] if tile is None else tile, length) for part, (tile, length) in zip(parts, found.tlm, strict=False)]
    if found.tlm and (told != parts or len(found.tlm) != len(parts)):
        found.notes.append("TLM differs from the tile-parts")
    if any(tile is None for tile, _ in found.tlm) and [tile for tile, _ in parts] != list(range(len(parts))):
        found.notes.append("TLM names no tiles, yet they are not one tile-part each in their order")
    for index, lengths in enumerate(found.lengths_by_tile_part()):
        if found.packet_lengths[index] not in (None, lengths):
            found.notes.append(f"the packet lengths of tile-part {index} differ from its packets")


def _told_lengths(found: Walk, part: TilePart, lengths: list[bytes] | None) -> None:
    plt = [segment for segment in part.segments if segment.marker == headers.PLT]
    index = len(found.tile_parts) - 1
    if plt:
        found.packet_lengths.append(headers.packet_lengths(headers.put_together(plt)))
    elif lengths is not None and index < len(lengths):
        found.packet_lengths.append(headers.packet_lengths(lengths[index]))
    else:
        found.packet_lengths.append(None)
