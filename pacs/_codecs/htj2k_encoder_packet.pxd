# The packet of a component in a resolution level, and the bytes that encoding produces before it. Inline only. T.800 B.10

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy

from pacs._codecs.htj2k_encoder_frame cimport Band, Level
from pacs._codecs.packet_writer cimport Tree, Writer, bit_length, fill_tree, put, shape_tree, tell


# The bytes that an encoder produces, in the order in which it does.
cdef struct Arena:
    uint8_t *data
    size_t used
    size_t room


cdef inline uint8_t *ensure(Arena *arena, size_t more) noexcept nogil:
    """Where the next `more` bytes go; NULL when there is no memory."""
    cdef size_t room
    cdef uint8_t *data
    if arena.room - arena.used < more:
        room = arena.room + arena.room // 2 + more
        data = <uint8_t *>realloc(arena.data, room)
        if data == NULL:
            return NULL
        arena.data, arena.room = data, room
    return arena.data + arena.used


# Where the bytes of a code-block are in the arena; none when all its samples are zero.
cdef struct Coded:
    size_t offset
    uint32_t length


cdef inline bint write_header(Level *level, const Coded *blocks, Arena *arena) noexcept nogil:
    """The header of the one packet of a level: all code-blocks that are not zero, in one pass each. T.800 B.10, T.814 B.3"""
    cdef uint32_t k, bits
    cdef size_t x, y, i, nodes, room = 16, count
    cdef Band *band
    cdef Tree inclusion, planes
    cdef const Coded *coded
    cdef Writer s
    level.body_length = 0
    for k in range(level.bands):
        band = &level.band[k]
        count = band.blocks_wide * band.blocks_high
        room += count * (2 * 4 + 16)
        for i in range(count):
            level.body_length += blocks[band.first_block + i].length
    s.at = ensure(arena, room)
    if s.at == NULL:
        return False
    level.header = arena.used
    s.byte, s.free = 0, 8
    put(&s, 1 if level.body_length else 0, 1)
    for k in range(level.bands if level.body_length else 0):
        band = &level.band[k]
        if not band.blocks_wide:
            continue
        nodes = shape_tree(&inclusion, band.blocks_wide, band.blocks_high)
        planes = inclusion
        # The trees lie at the end of the room, which the bits do not reach.
        inclusion.nodes = arena.data + arena.used + room - 2 * nodes
        planes.nodes = inclusion.nodes + nodes
        coded = blocks + band.first_block
        for i in range(band.blocks_wide * band.blocks_high):
            inclusion.nodes[i] = coded[i].length == 0
            planes.nodes[i] = <uint8_t>(band.bit_planes - 1) if coded[i].length else 0
        fill_tree(&inclusion, nodes, band.blocks_high)
        fill_tree(&planes, nodes, band.blocks_high)
        for y in range(band.blocks_high):
            for x in range(band.blocks_wide):
                tell(&inclusion, x, y, 1, &s)
                if coded.length:
                    tell(&planes, x, y, 0x7F, &s)
                    bits = max(bit_length(coded.length), <uint32_t>3)
                    put(&s, 0, 1)                       # one coding pass
                    put(&s, 0xFFFFFFFE, bits - 3 + 1)   # Lblock grows from 3
                    put(&s, coded.length, bits)
                coded += 1
    if s.free != 8:
        # After FF that is a byte of its own: a header does not end in FF.
        put(&s, 0, s.free)
    level.header_length = s.at - (arena.data + arena.used)
    arena.used += level.header_length
    return True


cdef inline uint8_t *write_packet(Level *level, const Coded *blocks, const Arena *arena, uint8_t *at) noexcept nogil:
    """Header and code-blocks of a level; behind them."""
    cdef uint32_t k
    cdef size_t i
    cdef const Coded *coded
    memcpy(at, arena.data + level.header, level.header_length)
    at += level.header_length
    for k in range(level.bands):
        coded = blocks + level.band[k].first_block
        for i in range(level.band[k].blocks_wide * level.band[k].blocks_high):
            memcpy(at, arena.data + coded[i].offset, coded[i].length)
            at += coded[i].length
    return at
