# The order of the packets of a tile: five progressions and their changes. Inline only. T.800 B.12
#
# Positions are not stepped through: the precincts are sorted by where on the reference grid they are met, so that the
# work follows from the number of packets, whatever sizes SIZ claims.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort

from pacs._codecs.partition cimport Level, reference

cdef enum:
    LRCP = 0
    RLCP = 1
    RPCL = 2
    PCRL = 3
    CPRL = 4


# One packet: of which level of the tile, precinct and layer.
cdef struct Visit:
    uint32_t level
    uint32_t precinct
    uint32_t layer


# A progression over part of the packets; stops are exclusive. T.800 A.6.6
cdef struct Change:
    uint32_t progression
    uint32_t first_resolution
    uint32_t stop_resolution
    uint32_t first_component
    uint32_t stop_component
    uint32_t stop_layer


cdef struct Key:
    uint32_t y
    uint32_t x
    uint32_t level
    uint32_t precinct


cdef struct Order:
    Level *levels           # of the tile, by component, then resolution
    size_t count
    uint32_t *by_resolution # the same, by resolution, then component
    size_t first_packet     # of the tile
    uint32_t layers         # of the tile: packets of a precinct
    uint32_t *next_layer    # of each precinct; NULL where one progression orders all
    uint32_t tile_x         # corner of the tile on the reference grid
    uint32_t tile_y
    uint32_t shift          # decomposition levels that are left out
    Visit *visits
    size_t filled
    size_t capacity
    uint64_t *work


cdef inline bint wanted(Order *o, uint32_t index, Change *change) noexcept nogil:
    cdef Level *level = o.levels + index
    return level.below >= o.shift and (
        change.first_resolution <= level.resolution < change.stop_resolution
        and change.first_component <= level.component < change.stop_component
    )


cdef inline bint visit(Order *o, uint32_t index, uint32_t precinct, uint32_t layer) noexcept nogil:
    """Add a packet unless an earlier progression had it. False when there are more than there should be."""
    cdef Level *level = o.levels + index
    cdef size_t at
    if o.next_layer != NULL:
        at = (level.first_packet - o.first_packet) // o.layers + precinct
        o.work[0] += 1
        if o.next_layer[at] != layer:
            return True
        o.next_layer[at] = layer + 1
    if o.filled >= o.capacity:
        return False
    o.visits[o.filled].level = index
    o.visits[o.filled].precinct = precinct
    o.visits[o.filled].layer = layer
    o.filled += 1
    return True


cdef inline bint visit_level(Order *o, uint32_t index, uint32_t layer) noexcept nogil:
    cdef uint32_t precinct
    cdef Level *level = o.levels + index
    for precinct in range(level.wide * level.high):
        if not visit(o, index, precinct, layer):
            return False
    return True


cdef inline int by_position(const void *a, const void *b) noexcept nogil:
    """y, x, then component and resolution (the order of levels), then precinct."""
    cdef const Key *p = <const Key *>a
    cdef const Key *q = <const Key *>b
    if p.y != q.y:
        return -1 if p.y < q.y else 1
    if p.x != q.x:
        return -1 if p.x < q.x else 1
    if p.level != q.level:
        return -1 if p.level < q.level else 1
    return -1 if p.precinct < q.precinct else 1


cdef inline Key *add_keys(Order *o, uint32_t index, Key *key) noexcept nogil:
    cdef Level *level = o.levels + index
    cdef uint64_t step_x = <uint64_t>level.dx << (level.below - o.shift)
    cdef uint64_t step_y = <uint64_t>level.dy << (level.below - o.shift)
    cdef uint32_t down, across, y
    for down in range(level.high):
        y = reference(level.y0, down, level.ppy, step_y, o.tile_y)
        for across in range(level.wide):
            key.y = y
            key.x = reference(level.x0, across, level.ppx, step_x, o.tile_x)
            key.level = index
            key.precinct = down * level.wide + across
            key += 1
    return key


cdef inline bint visit_positions(Order *o, uint32_t *levels, size_t count, Change *change) noexcept nogil:
    """The precincts of some levels by position, each with all its layers."""
    cdef size_t total = 0, i, taken = 0
    cdef uint32_t layer
    cdef Key *keys
    cdef Key *end
    for i in range(count):
        if wanted(o, levels[i], change):
            total += <size_t>o.levels[levels[i]].wide * o.levels[levels[i]].high
            taken += 1
    o.work[0] += count + (total if o.next_layer != NULL else 0)
    if total == 0:
        return True
    keys = <Key *>malloc(total * sizeof(Key))
    if keys == NULL:
        return False
    end = keys
    for i in range(count):
        if wanted(o, levels[i], change):
            end = add_keys(o, levels[i], end)
    # One level is met row by row: sorted already.
    if taken > 1:
        qsort(keys, total, sizeof(Key), by_position)
    for i in range(total):
        for layer in range(change.stop_layer):
            if not visit(o, keys[i].level, keys[i].precinct, layer):
                free(keys)
                return False
    free(keys)
    return True


cdef inline size_t group_end(Order *o, uint32_t *levels, size_t first, bint resolution) noexcept nogil:
    """Where the levels stop that share the resolution (else component) of the one at `first`."""
    cdef size_t i = first + 1
    cdef Level *level = o.levels + levels[first]
    while i < o.count:
        if resolution and o.levels[levels[i]].resolution != level.resolution:
            break
        if not resolution and o.levels[levels[i]].component != level.component:
            break
        i += 1
    return i


cdef inline bint arrange(Order *o, uint32_t *by_component, Change *change) noexcept nogil:
    """Append the packets of one progression. False when there are more than `capacity`, or no memory.

    `by_component` are the numbers 0, 1, 2 ... of the levels.
    """
    cdef uint32_t *levels = o.by_resolution
    cdef size_t i, first = 0, stop
    cdef uint32_t layer
    o.work[0] += o.count
    if change.progression == PCRL:
        return visit_positions(o, by_component, o.count, change)
    if change.progression == LRCP:
        for layer in range(change.stop_layer):
            o.work[0] += o.count if o.next_layer != NULL else 0
            for i in range(o.count):
                if wanted(o, levels[i], change) and not visit_level(o, levels[i], layer):
                    return False
        return True
    if change.progression == CPRL:
        levels = by_component
    while first < o.count:
        stop = group_end(o, levels, first, change.progression != CPRL)
        if change.progression == RLCP:
            for layer in range(change.stop_layer):
                o.work[0] += stop - first if o.next_layer != NULL else 0
                for i in range(first, stop):
                    if wanted(o, levels[i], change) and not visit_level(o, levels[i], layer):
                        return False
        elif not visit_positions(o, levels + first, stop - first, change):
            return False
        first = stop
    return True


cdef inline void sort_by_resolution(Level *levels, size_t count, uint32_t *out) noexcept nogil:
    """The numbers of the levels, by resolution and then as they stand."""
    cdef size_t start[34]
    cdef size_t i
    cdef uint32_t r
    for i in range(34):
        start[i] = 0
    for i in range(count):
        start[levels[i].resolution + 1] += 1
    for i in range(33):
        start[i + 1] += start[i]
    for i in range(count):
        r = levels[i].resolution
        out[start[r]] = <uint32_t>i
        start[r] += 1


cdef inline uint32_t *begin(Order *o, Level *levels, size_t count, size_t first_packet, uint32_t layers, uint32_t tile_x,
                            uint32_t tile_y, uint32_t shift, Visit *visits, size_t capacity, uint64_t *work) noexcept nogil:
    """An order of which nothing is filled; the numbers of the levels, to be freed, or NULL without memory for them."""
    cdef size_t i
    cdef uint32_t *numbers = <uint32_t *>malloc((2 * count + 1) * sizeof(uint32_t))
    if numbers == NULL:
        return NULL
    for i in range(count):
        numbers[i] = <uint32_t>i
    o.levels, o.count, o.by_resolution = levels, count, numbers + count
    sort_by_resolution(levels, count, o.by_resolution)
    o.first_packet, o.layers, o.next_layer = first_packet, layers, NULL
    o.tile_x, o.tile_y, o.shift = tile_x, tile_y, shift
    o.visits, o.filled, o.capacity, o.work = visits, 0, capacity, work
    return numbers
