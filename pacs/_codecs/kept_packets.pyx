"""Which packets of a codestream a smaller one keeps: those that fit into so many bytes, those that a rectangle needs.

`rewrite` writes it: packets that are not kept become empty. The face is `pacs.progression`.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from pacs._codecs.packet_order cimport sort_by_resolution
from pacs._codecs.packet_walk cimport PACKED, length_bytes
from pacs._codecs.partition cimport Level, ceil_div, ceil_shift, larger, smaller
from pacs._codecs.progression cimport Packets, Tile

from pacs.errors import CodestreamError


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
