"""Every packet of a codestream, found by reading packet headers. The face is `pacs.progression`. T.800 Annex B, T.814

Nothing is allocated for what headers claim before the bytes are known to be there: a packet takes a byte at least, and
code-blocks and steps are counted against limits that grow with the data.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

from pacs._codecs.codestream cimport Headers
from pacs._codecs.coding cimport Coding, joined, read_codings, shared, tile_part_segments
from pacs._codecs.markers cimport COC, COD, PLM, PLT, POC, PPM, PPT, QCC, QCD, RGN
from pacs._codecs.packet_order cimport Change, Order, Visit, arrange, begin
from pacs._codecs.packet_walk cimport (
    PACKED, TOO_MANY_PACKETS, TOO_MUCH_WORK, UNORDERED, WHOLE, Packet, Part, Status, Walk, walk_tile,
)
from pacs._codecs.partition cimport Level, Style, ceil_div, larger, make_level, smaller

from pacs._codecs.codestream import scan
from pacs.errors import CodestreamError

cdef enum:
    ADS = 0xFF73
    DFS = 0xFF72
    # After so much data the next tile is walked without the interpreter lock; to give it back for each small one costs
    # more than it brings.
    LONG = 1 << 20

# In the order of `Status`.
cdef list TEXTS = [
    "",
    "no memory for the packets",
    "more packets than bytes",
    "more code-blocks or steps than its bytes justify",
    "packets are missing",
    "a packet header that cannot be followed",
    "no EPH behind a packet header",
    "a packet is longer than its tile-part",
    "bytes are left behind the last packet of a tile-part",
    "the progressions do not cover every packet once",
]


cdef object fail(str text, size_t at):
    raise CodestreamError(text, at)


cdef class Packets:
    """The packets of a codestream."""

    def __dealloc__(self):
        free(self.tiles)
        free(self.levels)
        free(self.packets)
        free(self.order)

    def __len__(self):
        return self.packet_count

    def decompositions(self):
        """Of the tile-component that has fewest, among those with samples."""
        cdef size_t i
        cdef uint32_t fewest = 32
        for i in range(self.level_count):
            if self.levels[i].below == 0:
                fewest = smaller(fewest, self.levels[i].resolution)
        return fewest

    def tuples(self):
        """(tile, component, resolution, precinct, layer, header, its length, body, its length, packed) as they lie."""
        cdef size_t t, i
        cdef Tile *tile
        cdef Level *level
        cdef Packet *packet
        found = []
        for t in range(self.tile_count):
            tile = self.tiles + t
            for i in range(tile.first_packet, tile.first_packet + tile.packets):
                level = self.levels + tile.first_level + self.order[i].level
                packet = (self.packets + level.first_packet + <size_t>self.order[i].precinct * tile.layers
                          + self.order[i].layer)
                found.append((
                    t, level.component, level.resolution, self.order[i].precinct, self.order[i].layer,
                    packet.header, packet.header_length & ~PACKED, packet.body, packet.body_length,
                    (packet.header_length & PACKED) != 0,
                ))
        return found

    cdef int make_tile(self, uint32_t number, Coding coding, uint64_t bytes_there, size_t at) except -1:
        """The levels of a tile and room for its packets."""
        cdef Headers h = self.headers
        cdef Tile *tile = self.tiles + number
        cdef uint64_t across = ceil_div(<uint64_t>h.columns - h.tile_x0, h.tile_columns)
        cdef uint64_t x = h.tile_x0 + (number % across) * h.tile_columns
        cdef uint64_t y = h.tile_y0 + (number // across) * h.tile_rows
        cdef size_t c
        tile.x0, tile.y0 = larger(<uint32_t>x, h.x0), larger(<uint32_t>y, h.y0)
        tile.x1 = <uint32_t>min(x + h.tile_columns, <uint64_t>h.columns)
        tile.y1 = <uint32_t>min(y + h.tile_rows, <uint64_t>h.rows)
        tile.layers = coding.layers
        tile.first_level, tile.first_packet = self.level_count, self.packet_count
        for c in range(coding.count):
            _, _, dx, dy = h.components[c]
            self.add_levels(tile, <uint32_t>c, &coding.components[c], dx, dy, bytes_there, at)
        tile.levels = self.level_count - tile.first_level
        tile.packets = self.packet_count - tile.first_packet
        self.limits.work += coding.count
        if self.limits.work > self.limits.most_work:
            fail(TEXTS[<int>TOO_MUCH_WORK], at)
        self.grow_packets()
        return 0

    cdef int add_levels(self, Tile *tile, uint32_t component, Style *style, uint32_t dx, uint32_t dy,
                        uint64_t bytes_there, size_t at) except -1:
        cdef uint32_t x0 = <uint32_t>ceil_div(tile.x0, dx), x1 = <uint32_t>ceil_div(tile.x1, dx)
        cdef uint32_t y0 = <uint32_t>ceil_div(tile.y0, dy), y1 = <uint32_t>ceil_div(tile.y1, dy)
        cdef uint64_t precincts
        cdef Level *level
        cdef uint32_t r
        if x0 >= x1 or y0 >= y1:
            return 0
        for r in range(style.decompositions + 1):
            if self.level_count == self.level_room:
                self.level_room = self.level_room * 2 + 64
                level = <Level *>realloc(self.levels, self.level_room * sizeof(Level))
                if level == NULL:
                    raise MemoryError
                self.levels = level
            level = self.levels + self.level_count
            if not make_level(level, style, r, x0, y0, x1, y1):
                continue
            level.component, level.dx, level.dy = component, dx, dy
            level.first_packet = self.packet_count
            precincts = <uint64_t>level.wide * level.high
            if precincts > bytes_there // tile.layers or (
                self.packet_count - tile.first_packet + precincts * tile.layers > bytes_there
            ):
                fail(TEXTS[<int>TOO_MANY_PACKETS], at)
            self.packet_count += <size_t>precincts * tile.layers
            self.level_count += 1
        return 0

    cdef int grow_packets(self) except -1:
        cdef void *more
        if self.packet_count <= self.packet_room:
            return 0
        self.packet_room = self.packet_count if self.tile_count == 1 else self.packet_count * 3 // 2
        more = realloc(self.packets, self.packet_room * sizeof(Packet))
        if more == NULL:
            raise MemoryError
        self.packets = <Packet *>more
        more = realloc(self.order, self.packet_room * sizeof(Visit))
        if more == NULL:
            raise MemoryError
        self.order = <Visit *>more
        return 0

    cdef int arrange_tile(self, Tile *tile, Coding coding, size_t at) except -1:
        """Fill `order` with the packets of a tile in the order in which they should lie."""
        cdef Order o
        cdef Change change
        cdef uint32_t *numbers
        cdef bint whole = True
        if tile.packets == 0:
            # Nothing to arrange, however many progressions and layers there are.
            return 0
        numbers = begin(
            &o, self.levels + tile.first_level, tile.levels, tile.first_packet, tile.layers, tile.x0, tile.y0, 0,
            self.order + tile.first_packet, tile.packets, &self.limits.work,
        )
        if numbers == NULL:
            raise MemoryError
        try:
            if not coding.changes:
                change = Change(coding.progression, 0, 33, 0, 16384, tile.layers)
                whole = arrange(&o, numbers, &change)
            else:
                o.next_layer = <uint32_t *>calloc(tile.packets // tile.layers + 1, sizeof(uint32_t))
                if o.next_layer == NULL:
                    raise MemoryError
                for r0, c0, layers, r1, c1, progression in coding.changes:
                    change = Change(progression, r0, r1, c0, c1, smaller(layers, tile.layers))
                    whole = whole and arrange(&o, numbers, &change)
                    if self.limits.work > self.limits.most_work:
                        fail(TEXTS[<int>TOO_MUCH_WORK], at)
        finally:
            free(numbers)
            free(o.next_layer)
        if not whole or o.filled != tile.packets:
            fail(TEXTS[<int>UNORDERED], at)
        return 0


cdef size_t data_end(const uint8_t *data, size_t at, size_t end) noexcept nogil:
    """Where the data of a tile-part ends that lasts until EOC: before EOC and the zeros that fill it up, if they are
    there. T.800 A.4.2"""
    cdef size_t last = end
    while last > at and data[last - 1] == 0:
        last -= 1
    if last >= at + 2 and data[last - 2] == 0xFF and data[last - 1] == 0xD9:
        return last - 2
    return end


cdef class Walker:
    """What the main header gives to every tile."""

    cdef:
        Packets packets
        Headers h
        Coding main
        const uint8_t *data
        bytearray lengths
        list packed_shares, length_shares
        bint disagrees, has_lengths
        uint64_t since          # bytes walked since the interpreter lock was given back

    cdef list by_tile(self):
        """The numbers of the tile-parts of each tile; they have to come in order. T.800 A.4.2"""
        tiles = {}
        for number, (tile, index, _, offset, _, _) in enumerate(self.h.tile_parts):
            of_tile = tiles.setdefault(tile, [])
            if index != len(of_tile):
                fail(f"tile-part {index} of tile {tile} where {len(of_tile)} should be", offset)
            of_tile.append(number)
        for tile in range(self.h.tiles):
            if tile not in tiles:
                fail(f"tile {tile} is missing", self.h.end)
        return [tiles[tile] for tile in range(self.h.tiles)]

    cdef int read_part(self, size_t number, Part *p, list segments, bint packed) except -1:
        """Where the packets, packed headers and lengths of a tile-part are. `packed`: the tile has PPT."""
        cdef Headers h = self.h
        _, _, _, offset, length, data = h.tile_parts[number]
        cdef bytes headers, lengths
        p.at = data
        p.end = min(offset + length, h.end) if length else data_end(self.data, data, h.end)
        p.open_ended = length == 0
        headers, lengths = joined(self.data, segments, PPT), joined(self.data, segments, PLT)
        p.packed = packed or self.packed_shares is not None
        if self.packed_shares is not None:
            p.header, p.header_end = self.packed_shares[number]
        else:
            p.header = len(self.packets.packed)
            self.packets.packed += headers
            p.header_end = len(self.packets.packed)
        p.has_lengths = lengths != b"" or self.length_shares is not None
        if lengths:
            p.length = len(self.lengths)
            self.lengths += lengths
            p.length_end = len(self.lengths)
        elif self.length_shares is not None:
            p.length, p.length_end = self.length_shares[number]
        else:
            p.length = p.length_end = 0
        self.has_lengths |= p.has_lengths
        return 0

    cdef int walk(self, uint32_t number, list parts) except -1:
        cdef Packets packets = self.packets
        cdef Coding coding = self.main
        cdef Walk w
        cdef Status status
        cdef uint64_t bytes_there = 0
        cdef size_t i, first
        cdef Tile *tile = packets.tiles + number
        w.parts = <Part *>calloc(len(parts), sizeof(Part))
        w.part_count = len(parts)
        if w.parts == NULL:
            raise MemoryError
        try:
            found = []
            of_parts = [
                tile_part_segments(self.data, self.h.tile_parts[part][3] + 12, self.h.tile_parts[part][5] - 2)
                for part in parts
            ]
            packed = any([marker == PPT for segments in of_parts for marker, _, _ in segments])
            for i in range(w.part_count):
                segments = of_parts[i]
                self.read_part(parts[i], &w.parts[i], segments, packed)
                bytes_there += w.parts[i].end - w.parts[i].at + w.parts[i].header_end - w.parts[i].header
                for marker, at, length in segments:
                    if i and marker in (COD, COC, QCD, QCC, RGN):
                        fail("COD, COC, QCD, QCC or RGN in a tile-part that is not the first", at)
                    if marker == DFS or marker == ADS:
                        fail("a decomposition of Part 2", at)
                    if marker == PPT and self.packed_shares is not None:
                        fail("PPM and PPT in one codestream", at)
                    if marker != PPT and marker != PLT:
                        found.append((marker, at, length))
            if found:
                packets.tile_segments[number] = found
                if any([marker in (COD, COC, POC) for marker, _, _ in found]):
                    coding = self.main.copy()
                    coding.changes = self.main.changes
                    packets.limits.work += coding.count
                    read_codings(coding, self.data, self.h.end, found)
            first = self.h.tile_parts[parts[0]][3]
            packets.make_tile(number, coding, bytes_there, first)
            packets.arrange_tile(tile, coding, first)
            w.data, w.headers, w.lengths = self.data, packets.packed, self.lengths
            w.sop, w.eph, w.disagrees, w.where = coding.scod & 2, coding.scod & 4, False, first
            w.levels, w.packets, w.order = packets.levels + tile.first_level, packets.packets, packets.order + tile.first_packet
            w.first_packet, w.packet_count, w.layers = tile.first_packet, tile.packets, tile.layers
            w.limits = &packets.limits
            self.since += bytes_there + coding.count
            if self.since >= LONG:
                self.since = 0
                with nogil:
                    status = walk_tile(&w)
            else:
                status = walk_tile(&w)
            if status != WHOLE:
                fail(TEXTS[<int>status], w.where)
            self.disagrees |= w.disagrees
        finally:
            free(w.parts)
        return 0


def walk(const uint8_t[::1] data not None) -> Packets:
    """The packets of the whole codestream in `data`, raw or boxed; CodestreamError when they cannot be followed."""
    cdef Headers h = scan(data)
    cdef Packets packets = Packets()
    cdef Walker walker = Walker()
    cdef uint64_t length = h.end - h.start
    cdef uint32_t tile
    cdef bytes chunk
    packets.headers, packets.packed, packets.tile_segments = h, bytearray(), {}
    packets.length = data.shape[0]
    packets.limits.most_work, packets.limits.most_blocks = (1 << 20) + 64 * length, (1 << 18) + 8 * length
    walker.packets, walker.h, walker.data, walker.lengths = packets, h, &data[0], bytearray()
    for marker, at, _ in h.segments:
        if marker == DFS or marker == ADS:
            fail("a decomposition of Part 2", at)
    walker.main = Coding(len(h.components))
    read_codings(walker.main, walker.data, h.end, h.segments)
    chunk = joined(walker.data, h.segments, PPM)
    if any([marker == PPM for marker, _, _ in h.segments]):
        walker.packed_shares = shared(chunk, len(h.tile_parts), 4, [])
        if walker.packed_shares is None:
            fail("PPM does not hold the packet headers of every tile-part", h.segments[0][1])
        packets.packed += chunk
    chunk = joined(walker.data, h.segments, PLM)
    if chunk:
        walker.lengths += chunk
        walker.length_shares = shared(chunk, len(h.tile_parts), 1, [])
        walker.disagrees, walker.has_lengths = walker.length_shares is None, True
    tiles = walker.by_tile()
    packets.tiles = <Tile *>calloc(len(tiles), sizeof(Tile))
    if packets.tiles == NULL:
        raise MemoryError
    packets.tile_count = len(tiles)
    for tile in range(len(tiles)):
        walker.walk(tile, tiles[tile])
    packets.lengths_agree = not walker.disagrees if walker.has_lengths else None
    return packets
