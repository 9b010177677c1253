"""Codestreams made of the packets of another, in another order or with fewer of them. The face is `pacs.progression`.

Packets are copied as they are; those left out inside what is kept become empty ones of one byte. T.800 A.4.2, A.7, B.12
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from pacs._codecs.packet_order cimport RPCL, Change, Order, Visit, arrange, begin, sort_by_resolution
from pacs._codecs.packet_walk cimport PACKED, Packet
from pacs._codecs.partition cimport Level, ceil_div, ceil_shift, larger, smaller
from pacs._codecs.progression cimport Packets, Tile

from pacs.errors import CodestreamError

cdef enum:
    SOT_AND_SOD = 14
    TLM_ENTRY = 6
    TLM_ENTRIES = 10921         # of one segment: Ltlm is 16 bits
    PLT_BYTES = 65532           # of lengths in one segment
    PLT_SEGMENTS = 256
    MOST_WRITTEN = 20           # bytes of empty tile-parts for each byte that came
    LONG = 1 << 20              # below this the interpreter lock is kept


# One tile-part to be written.
cdef struct Piece:
    uint32_t tile
    uint32_t number
    size_t first                # of its packets in the new order
    size_t stop
    uint64_t data
    uint64_t lengths            # bytes of lengths in its PLT segments
    uint32_t segments           # PLT segments; 0: none
    const uint8_t *header       # segments of the tile, in its first tile-part
    size_t header_length
    uint64_t length             # Psot


cdef struct Target:
    uint8_t *out
    size_t at
    const uint8_t *data
    const uint8_t *packed
    const uint8_t *keep         # a byte for each packet, or NULL: all
    Packet *packets
    Level *levels
    Tile *tiles
    Visit *order
    uint32_t pieces_of_tile


cdef inline void put(Target *t, uint64_t value, int width) noexcept nogil:
    while width:
        width -= 1
        t.out[t.at] = (value >> (8 * width)) & 0xFF
        t.at += 1


cdef inline void copy(Target *t, const uint8_t *source, size_t length) noexcept nogil:
    memcpy(t.out + t.at, source, length)
    t.at += length


cdef inline size_t slot(Target *t, Tile *tile, Visit *visit) noexcept nogil:
    return (t.levels[tile.first_level + visit.level].first_packet
            + <size_t>visit.precinct * tile.layers + visit.layer)


cdef inline uint64_t packet_bytes(Target *t, size_t index) noexcept nogil:
    """Of a packet as it will be written. One that is not kept is a zero bit. T.800 B.10.3"""
    if t.keep != NULL and not t.keep[index]:
        return 1
    return <uint64_t>(t.packets[index].header_length & ~PACKED) + t.packets[index].body_length


cdef inline uint32_t length_bytes(uint64_t length) noexcept nogil:
    """Bytes that PLT takes for a length: seven bits in each. T.800 A.7.3"""
    cdef uint32_t count = 1
    while length >> 7:
        length >>= 7
        count += 1
    return count


cdef void measure(Target *t, Piece *piece) noexcept nogil:
    cdef Tile *tile = t.tiles + piece.tile
    cdef size_t i
    cdef uint64_t length
    cdef uint32_t width, room = 0
    piece.data = piece.lengths = piece.segments = 0
    for i in range(piece.first, piece.stop):
        length = packet_bytes(t, slot(t, tile, t.order + i))
        piece.data += length
        width = length_bytes(length)
        if room < width:
            piece.segments += 1
            room = PLT_BYTES
        room -= width
        piece.lengths += width
    if piece.segments > PLT_SEGMENTS:
        piece.segments = 0
        piece.lengths = 0
    piece.length = SOT_AND_SOD + piece.header_length + piece.data + piece.lengths + 5 * <uint64_t>piece.segments


cdef void write_lengths(Target *t, Piece *piece) noexcept nogil:
    """PLT: the length of each packet, none of them split between segments. T.800 A.7.3"""
    cdef Tile *tile = t.tiles + piece.tile
    cdef size_t i, began = 0
    cdef uint64_t length
    cdef uint32_t width, room = 0, number = 0
    for i in range(piece.first, piece.stop):
        length = packet_bytes(t, slot(t, tile, t.order + i))
        width = length_bytes(length)
        if room < width:
            if number:
                close_segment(t, began)
            began = t.at
            put(t, 0xFF58, 2)
            put(t, 0, 2)
            put(t, number, 1)
            number += 1
            room = PLT_BYTES
        room -= width
        while width:
            width -= 1
            put(t, (length >> (7 * width) & 0x7F) | (0x80 if width else 0), 1)
    close_segment(t, began)


cdef inline void close_segment(Target *t, size_t began) noexcept nogil:
    cdef size_t length = t.at - began - 2
    t.out[began + 2], t.out[began + 3] = length >> 8, length & 0xFF


cdef void write_piece(Target *t, Piece *piece) noexcept nogil:
    cdef Tile *tile = t.tiles + piece.tile
    cdef Packet *packet
    cdef size_t i, index
    put(t, 0xFF90000A, 4)
    put(t, piece.tile, 2)
    put(t, piece.length, 4)
    put(t, piece.number, 1)
    put(t, t.pieces_of_tile, 1)
    copy(t, piece.header, piece.header_length)
    if piece.segments:
        write_lengths(t, piece)
    put(t, 0xFF93, 2)
    for i in range(piece.first, piece.stop):
        index = slot(t, tile, t.order + i)
        if t.keep != NULL and not t.keep[index]:
            put(t, 0, 1)
            continue
        packet = t.packets + index
        if packet.header_length & PACKED:
            copy(t, t.packed + packet.header, packet.header_length & ~PACKED)
            copy(t, t.data + packet.body, packet.body_length)
        elif packet.header + packet.header_length == packet.body:
            copy(t, t.data + packet.header, packet.header_length + <size_t>packet.body_length)
        else:
            copy(t, t.data + packet.header, packet.header_length)
            copy(t, t.data + packet.body, packet.body_length)


cdef void write_pieces(Target *t, Piece *pieces, size_t count) noexcept nogil:
    """TLM, then the tile-parts, then EOC. T.800 A.7.1"""
    cdef size_t i, entries
    for i in range(count):
        if i % TLM_ENTRIES == 0:
            entries = min(<size_t>TLM_ENTRIES, count - i)
            put(t, 0xFF55, 2)
            put(t, 4 + TLM_ENTRY * entries, 2)
            put(t, i // TLM_ENTRIES, 1)
            put(t, 0x60, 1)     # Ttlm of 16, Ptlm of 32 bits
        put(t, pieces[i].tile, 2)
        put(t, pieces[i].length, 4)
    for i in range(count):
        write_piece(t, pieces + i)
    put(t, 0xFFD9, 2)


cdef size_t arrange_tile(Packets packets, Tile *tile, Visit *visits, uint32_t progression, uint32_t dropped,
                         uint32_t layers) except? 0:
    """The packets of a tile in a progression; how many there are."""
    cdef Order o
    cdef Change change = Change(progression, 0, 33, 0, 16384, smaller(layers, tile.layers))
    cdef uint64_t work = 0
    cdef uint32_t *numbers
    cdef bint whole
    if tile.packets == 0:
        return 0
    numbers = begin(
        &o, packets.levels + tile.first_level, tile.levels, tile.first_packet, tile.layers,
        <uint32_t>ceil_shift(tile.x0, dropped), <uint32_t>ceil_shift(tile.y0, dropped), dropped, visits, tile.packets,
        &work,
    )
    if numbers == NULL:
        raise MemoryError
    whole = arrange(&o, numbers, &change)
    free(numbers)
    if not whole:
        raise MemoryError
    return o.filled


cdef uint32_t resolutions_kept(Packets packets, uint32_t dropped):
    """Of the component that has most."""
    cdef size_t i
    cdef uint32_t most = 1
    for i in range(packets.level_count):
        if packets.levels[i].below >= dropped:
            most = larger(most, packets.levels[i].resolution + 1)
    return most


def pieces(Packets packets not None, uint32_t progression, uint32_t dropped):
    """The number of tile-parts that `write` makes of each tile."""
    return resolutions_kept(packets, dropped) if progression == RPCL else 1


def write(Packets packets not None, const uint8_t[::1] data not None, bytes main_header not None,
          dict tile_headers not None, uint32_t progression, uint32_t dropped, uint32_t layers, bytearray keep):
    """The codestream: `main_header`, TLM, tile-parts with PLT, EOC.

    RPCL: a tile-part for each resolution level of each tile, level by level. Else one for each tile.
    """
    cdef Target t
    cdef uint32_t per_tile = pieces(packets, progression, dropped), number, tile
    cdef size_t count = packets.tile_count * per_tile, i, filled = 0
    cdef Visit *order = NULL
    cdef Piece *parts = NULL
    cdef Piece *piece
    cdef uint64_t total
    cdef bytes header, out
    if <size_t>data.shape[0] != packets.length:
        raise ValueError("other data than the packets were found in")
    if count * (SOT_AND_SOD + TLM_ENTRY) > (1 << 20) + MOST_WRITTEN * packets.length:
        # A tile with 33 resolution levels among thousands that have one: the others would get 33 tile-parts too.
        raise CodestreamError(f"{count} tile-parts for {packets.length} bytes")
    try:
        order = <Visit *>malloc((packets.packet_count + 1) * sizeof(Visit))
        parts = <Piece *>calloc(count, sizeof(Piece))
        if order == NULL or parts == NULL:
            raise MemoryError
        t.data, t.packed, t.packets, t.levels = &data[0], packets.packed, packets.packets, packets.levels
        t.tiles, t.order, t.pieces_of_tile, t.keep = packets.tiles, order, per_tile, NULL
        if keep is not None:
            t.keep = keep
        total = len(main_header) + 2 + count * TLM_ENTRY + 6 * ((count + TLM_ENTRIES - 1) // TLM_ENTRIES)
        for tile in range(packets.tile_count):
            i = filled
            filled += arrange_tile(packets, packets.tiles + tile, order + filled, progression, dropped, layers)
            for number in range(per_tile):
                piece = parts + number * packets.tile_count + tile
                piece.tile, piece.number, piece.first = tile, number, i
                while i < filled and (
                    per_tile == 1
                    or packets.levels[packets.tiles[tile].first_level + order[i].level].resolution == number
                ):
                    i += 1
                piece.stop = i
            header = tile_headers.get(tile, b"")
            parts[tile].header, parts[tile].header_length = header, len(header)
        for i in range(count):
            measure(&t, parts + i)
            if parts[i].length >> 32:
                raise CodestreamError("a tile-part of 4 GiB or more")
            total += parts[i].length
        out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
        t.out, t.at = out, 0
        copy(&t, main_header, len(main_header))
        if total >= LONG:
            with nogil:
                write_pieces(&t, parts, count)
        else:
            write_pieces(&t, parts, count)
        assert t.at == total
        return out
    finally:
        free(order)
        free(parts)


cdef uint32_t *tiles_of_levels(Packets packets) except NULL:
    cdef uint32_t *found = <uint32_t *>malloc((packets.level_count + 1) * sizeof(uint32_t))
    cdef size_t t, i
    if found == NULL:
        raise MemoryError
    for t in range(packets.tile_count):
        for i in range(packets.tiles[t].levels):
            found[packets.tiles[t].first_level + i] = <uint32_t>t
    return found


def within(Packets packets not None, uint32_t dropped, uint32_t layers, uint64_t room):
    """(layers, keep): packets in the order layer, resolution level, tile, component, precinct, those that fit.

    One that does not fit ends its precinct: its layers build on each other. What comes later goes on, as far as it
    fits. `room` is what packets and their lengths in PLT may take, empty ones included. (0, keep) when not even the
    empty packets of one layer fit.
    """
    cdef bytearray keep = bytearray(packets.packet_count)
    cdef uint8_t *chosen = keep
    cdef uint32_t *tile_of = tiles_of_levels(packets)
    cdef uint32_t *sorted_levels = <uint32_t *>malloc((packets.level_count + 1) * sizeof(uint32_t))
    cdef uint32_t layer = 0, most = 0, useful = 0, precinct, tile
    cdef uint64_t used = 0, empty, cost
    cdef size_t i, index
    cdef Level *level
    cdef bint open = True
    try:
        if sorted_levels == NULL:
            raise MemoryError
        sort_by_resolution(packets.levels, packets.level_count, sorted_levels)
        for tile in range(packets.tile_count):
            most = larger(most, smaller(layers, packets.tiles[tile].layers))
        while layer < most and open:
            empty = 0
            for i in range(packets.level_count):
                level = packets.levels + i
                if level.below >= dropped and layer < packets.tiles[tile_of[i]].layers:
                    empty += 2 * <uint64_t>level.wide * level.high
            if used + empty > room:
                break
            used += empty
            layer += 1
            open = False
            if useful == 0:
                useful = 1
            for i in range(packets.level_count):
                level = packets.levels + sorted_levels[i]
                tile = tile_of[sorted_levels[i]]
                if level.below < dropped or layer > packets.tiles[tile].layers:
                    continue
                for precinct in range(level.wide * level.high):
                    index = level.first_packet + <size_t>precinct * packets.tiles[tile].layers + layer - 1
                    if layer > 1 and not chosen[index - 1]:
                        continue
                    cost = (packets.packets[index].header_length & ~PACKED) + <uint64_t>packets.packets[index].body_length
                    # Over the empty packet and its length of one byte. Never below 0: a packet has a byte.
                    cost = cost + length_bytes(cost) - 2
                    if used + cost > room:
                        continue
                    used += cost
                    chosen[index] = 1
                    open = True
                    if packets.packets[index].body_length:
                        useful = layer
    finally:
        free(tile_of)
        free(sorted_levels)
    return useful, keep


cdef struct Side:
    uint64_t start
    uint64_t stop


cdef inline Side widened(Side side, uint32_t margin, uint32_t first, uint32_t last) noexcept nogil:
    cdef Side wide
    wide.start = side.start - margin if side.start > first + <uint64_t>margin else first
    wide.stop = side.stop + margin if side.stop + margin < last else last
    return wide


cdef inline Side precincts(Side side, Level *level, uint32_t start, uint32_t pp, uint32_t count) noexcept nogil:
    """The precinct columns (rows) that hold the coefficients of a range of a level."""
    cdef uint32_t inner = 1 if level.resolution else 0
    cdef uint64_t first = (side.start >> inner) >> (pp - inner)
    cdef uint64_t last = (ceil_shift(side.stop, inner) - 1) >> (pp - inner)
    cdef Side found
    found.start = first - (start >> pp)
    found.stop = last - (start >> pp) + 1
    if found.stop > count:
        found.stop = count
    return found


cdef inline Side clipped(Side side, uint32_t start, uint32_t stop) noexcept nogil:
    if side.start < start:
        side.start = start
    if side.stop > stop:
        side.stop = stop
    return side


cdef void keep_component(Packets packets, Tile *tile, Level *level, size_t count, Side x, Side y, uint8_t *keep) noexcept nogil:
    """Mark what samples x, y of the finest of `count` levels depend on, from there down. T.800 F.3

    A sample depends on interleaved coefficients up to 2 (5-3) or 4 (9-7) places away; the low-pass ones among them
    are samples of the next level.
    """
    cdef uint32_t margin
    cdef size_t row, first
    cdef Side across, down
    while count:
        count -= 1
        x, y = clipped(x, level[count].x0, level[count].x1), clipped(y, level[count].y0, level[count].y1)
        if x.start >= x.stop or y.start >= y.stop:
            return
        if level[count].resolution:
            margin = 2 if level[count].transform == 1 else 4
            x = widened(x, margin, level[count].x0, level[count].x1)
            y = widened(y, margin, level[count].y0, level[count].y1)
        across = precincts(x, level + count, level[count].x0, level[count].ppx, level[count].wide)
        down = precincts(y, level + count, level[count].y0, level[count].ppy, level[count].high)
        for row in range(down.start, down.stop):
            for first in range(row * level[count].wide + across.start, row * level[count].wide + across.stop):
                mark(keep + level[count].first_packet + first * tile.layers, tile.layers)
        x.start, x.stop = ceil_shift(x.start, 1), ceil_shift(x.stop, 1)
        y.start, y.stop = ceil_shift(y.start, 1), ceil_shift(y.stop, 1)


cdef inline void mark(uint8_t *keep, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(count):
        keep[i] = 1


def touching(Packets packets not None, uint32_t dropped, uint64_t x0, uint64_t y0, uint64_t x1, uint64_t y1):
    """keep: the packets that a rectangle of the reference grid, divided by 2^dropped, depends on."""
    cdef bytearray keep = bytearray(packets.packet_count)
    cdef uint8_t *chosen = keep
    cdef size_t t, first, stop, end
    cdef Tile *tile
    cdef Level *level
    cdef Side x, y
    for t in range(packets.tile_count):
        tile = packets.tiles + t
        first, end = tile.first_level, tile.first_level + tile.levels
        while first < end:
            stop = first
            level = packets.levels + first
            if level.transform > 1:
                raise CodestreamError(f"wavelet transform {level.transform}, whose filters are not known here")
            while stop < end and packets.levels[stop].component == level.component:
                stop += 1
            # One sample more on each side: an image is also shown from subsampled components.
            x.start, x.stop = x0 // level.dx, ceil_div(x1, level.dx) + (level.dx > 1)
            y.start, y.stop = y0 // level.dy, ceil_div(y1, level.dy) + (level.dy > 1)
            while stop > first and packets.levels[stop - 1].below < dropped:
                stop -= 1
            if stop > first and packets.levels[stop - 1].below == dropped:
                keep_component(packets, tile, packets.levels + first, stop - first, x, y, chosen)
            while first < end and packets.levels[first].component == level.component:
                first += 1
    return keep
