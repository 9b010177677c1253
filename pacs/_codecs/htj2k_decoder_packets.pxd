# The packets of a codestream that our own decoder takes: which code-blocks are where. Inline only. T.800 B.5-B.10

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from libc.string cimport memset

from pacs._codecs.bits cimport Bits, align, bit, bits, bits_of
from pacs._codecs.ht cimport MOST_COMPONENTS, MOST_LEVELS, reduced
from pacs._codecs.htj2k_decoder_headers cimport Frame, open_tile_part
from pacs._codecs.packet_header cimport UNBOUNDED, Band, below, shape_tree


# Where the bytes of a code-block are; none when it is not included.
cdef struct Coded:
    size_t offset
    uint32_t length


# One sub-band of one resolution level of a component.
cdef struct SubBand:
    uint32_t width
    uint32_t height
    uint32_t bit_planes
    uint32_t blocks_wide
    uint32_t blocks_high
    size_t first_block      # among those of the frame


cdef struct Level:
    SubBand band[3]         # LL alone, or HL, LH, HH
    uint32_t bands


# The levels that are decoded, those of the components of each together.
cdef struct Levels:
    Level level[(MOST_LEVELS + 1) * MOST_COMPONENTS]
    size_t blocks
    size_t nodes            # most that the two trees of a sub-band have


cdef inline void lay_out(Frame *f, Levels *levels) noexcept nogil:
    cdef uint32_t r, k, below
    cdef size_t c, width, height
    cdef Level *level
    cdef SubBand *band
    cdef Band trees
    levels.blocks = levels.nodes = 0
    for r in range(f.decompositions - f.dropped + 1):
        below = f.decompositions - r + (1 if r else 0)
        width, height = reduced(f.columns, below), reduced(f.rows, below)
        for c in range(f.components):
            level = &levels.level[r * f.components + c]
            level.bands = 3 if r else 1
            for k in range(level.bands):
                band = &level.band[k]
                band.width, band.height = <uint32_t>width, <uint32_t>height
                if r and k != 1:
                    band.width = <uint32_t>(reduced(f.columns, below - 1) - width)
                if r and k != 0:
                    band.height = <uint32_t>(reduced(f.rows, below - 1) - height)
                band.bit_planes = f.bit_planes[3 * (r - 1) + 1 + k if r else 0]
                band.blocks_wide = (band.width + f.block_columns - 1) // f.block_columns
                band.blocks_high = (band.height + f.block_rows - 1) // f.block_rows
                band.first_block = levels.blocks
                if not band.width or not band.height:
                    band.blocks_wide = band.blocks_high = 0
                    continue
                levels.blocks += <size_t>band.blocks_wide * band.blocks_high
                trees.wide, trees.high = band.blocks_wide, band.blocks_high
                levels.nodes = max(levels.nodes, 2 * <size_t>shape_tree(&trees))


cdef inline bint read_band(SubBand *band, Bits *s, Coded *blocks, uint32_t *room) noexcept nogil:
    """Which code-blocks are there and their lengths: one cleanup pass each, at bit-plane 0. T.800 B.10, T.814 B.3"""
    cdef uint32_t x, y, nodes, width
    cdef Coded *coded = blocks + band.first_block
    cdef Band trees
    trees.wide, trees.high = band.blocks_wide, band.blocks_high
    nodes = shape_tree(&trees)
    trees.inclusion, trees.planes = room, room + nodes
    memset(room, 0, 2 * <size_t>nodes * sizeof(uint32_t))
    for y in range(band.blocks_high):
        for x in range(band.blocks_wide):
            coded.length = 0
            if below(&trees, trees.inclusion, x, y, 1, s):
                below(&trees, trees.planes, x, y, UNBOUNDED, s)
                if trees.planes[<size_t>y * trees.wide + x] >> 1 != band.bit_planes - 1 or bit(s):
                    return False
                width = 3
                while bit(s):
                    width += 1
                    if width > 24:
                        return False
                coded.length = bits(s, width)
                if coded.length < 2:
                    return False
            if s.failed:
                return False
            coded += 1
    return True


cdef inline bint read_packet(Frame *f, Level *level, Coded *blocks, uint32_t *room) noexcept nogil:
    """Where the code-blocks of one component in one resolution level are; `room` is for `Levels.nodes`."""
    cdef uint32_t k
    cdef size_t i, count
    cdef Bits s
    cdef bint there
    cdef Coded *coded
    while f.at == f.part_end:
        if not open_tile_part(f):
            return False
    s = bits_of(f.data, f.at, f.part_end)
    there = bit(&s)
    for k in range(level.bands):
        count = <size_t>level.band[k].blocks_wide * level.band[k].blocks_high
        if not there:
            memset(blocks + level.band[k].first_block, 0, count * sizeof(Coded))
        elif count and not read_band(&level.band[k], &s, blocks, room):
            return False
    align(&s)
    if s.failed:
        return False
    f.at = s.at
    for k in range(level.bands):
        coded = blocks + level.band[k].first_block
        for i in range(<size_t>level.band[k].blocks_wide * level.band[k].blocks_high):
            if coded[i].length > f.part_end - f.at:
                return False
            coded[i].offset = f.at
            f.at += coded[i].length
    return True
