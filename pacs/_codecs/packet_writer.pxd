# The bits and tag trees of a packet header that is written. Inline only. T.800 B.10

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

cdef enum:
    MOST_TREE = 16


# Bits of a packet header, most significant first, a zero stuffed behind every byte FF. T.800 B.10.1
cdef struct Writer:
    uint8_t *at
    uint32_t byte
    uint32_t free


cdef inline void put(Writer *s, uint32_t value, uint32_t count) noexcept nogil:
    while count:
        count -= 1
        s.free -= 1
        s.byte |= ((value >> count) & 1) << s.free
        if s.free == 0:
            s.at[0] = <uint8_t>s.byte
            s.at += 1
            s.free = 7 if s.byte == 0xFF else 8
            s.byte = 0


cdef inline void put_zeros(Writer *s, uint32_t count) noexcept nogil:
    while count:
        put(s, 0, 1)
        count -= 1


cdef inline uint32_t bit_length(uint32_t value) noexcept nogil:
    cdef uint32_t length = 0
    while value:
        value >>= 1
        length += 1
    return length


# A tag tree of which every leaf is told once, in raster order. T.800 B.10.2
cdef struct Tree:
    size_t wide
    uint32_t levels
    size_t offset[MOST_TREE]
    uint8_t *nodes          # the value, then 0x80 once it was told


cdef inline size_t shape_tree(Tree *tree, size_t wide, size_t high) noexcept nogil:
    cdef size_t nodes = 0
    tree.wide, tree.levels = wide, 0
    while True:
        tree.offset[tree.levels] = nodes
        tree.levels += 1
        nodes += wide * high
        if wide == 1 and high == 1:
            return nodes
        wide, high = (wide + 1) >> 1, (high + 1) >> 1


cdef inline uint8_t *node_of(Tree *tree, uint32_t k, size_t x, size_t y) noexcept nogil:
    return tree.nodes + tree.offset[k] + (y >> k) * (((tree.wide - 1) >> k) + 1) + (x >> k)


cdef inline void fill_tree(Tree *tree, size_t nodes, size_t high) noexcept nogil:
    """Every node the least of the leaves below it, which are there."""
    cdef uint32_t k
    cdef size_t x, y, wide = tree.wide
    cdef uint8_t *below = tree.nodes
    cdef uint8_t *above
    memset(tree.nodes + wide * high, 0x7F, nodes - wide * high)
    for k in range(1, tree.levels):
        for y in range(high):
            above = tree.nodes + tree.offset[k] + (y >> 1) * ((wide + 1) >> 1)
            for x in range(wide):
                above[x >> 1] = min(above[x >> 1], below[0])
                below += 1
        wide, high = (wide + 1) >> 1, (high + 1) >> 1


cdef inline void tell(Tree *tree, size_t x, size_t y, uint32_t threshold, Writer *s) noexcept nogil:
    """The value of a leaf if it is below `threshold`, else that it is not."""
    cdef uint32_t k = tree.levels, low = 0, value
    cdef uint8_t *node
    while k:
        k -= 1
        node = node_of(tree, k, x, y)
        value = node[0] & 0x7F
        if not node[0] & 0x80:
            put_zeros(s, min(value, threshold) - low)
            if value < threshold:
                put(s, 1, 1)
            node[0] |= 0x80
        if value >= threshold:
            return
        low = value
