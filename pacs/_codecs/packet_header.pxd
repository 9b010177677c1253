# The header of one packet: which code-blocks contribute, and how many bytes. Inline only. T.800 B.10, T.814 B.3
#
# Code-blocks are never looked at: what a precinct remembers from layer to layer is two tag trees for each sub-band and,
# for each code-block, its coding passes, Lblock and kind.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc

from pacs._codecs.bits cimport Bits, bit, bits
from pacs._codecs.partition cimport (
    STYLE_BYPASS, STYLE_HT, STYLE_MIXED, STYLE_TERMALL, Level, Span, band_span, block_span,
)

cdef enum:
    TREE_LEVELS = 14        # 2^13 code-blocks of 4 samples across a precinct of 2^15
    UNBOUNDED = 0x7FFF      # threshold that makes a tag tree give its value
    MOST_PASSES = 400
    INCLUDED = 1
    HT = 2
    MIXED = 4
    PLACEHOLDERS = 8        # no cleanup pass so far: the passes are placeholders


cdef struct Block:
    uint16_t passes
    uint8_t lblock
    uint8_t kind


cdef struct Band:
    uint32_t wide
    uint32_t high
    uint32_t included       # code-blocks that contributed before
    uint32_t levels
    uint32_t offset[TREE_LEVELS]
    uint32_t *inclusion     # nodes: lower bound << 1 | whether it is the value
    uint32_t *planes
    Block *blocks


cdef struct Precinct:
    uint32_t bands
    Band band[3]


cdef inline uint32_t shape_tree(Band *band) noexcept nogil:
    """The offsets of the levels of a tag tree over `wide` x `high` leaves; its nodes. T.800 B.10.2"""
    cdef uint32_t wide = band.wide, high = band.high, nodes = 0
    band.levels = 0
    while True:
        band.offset[band.levels] = nodes
        band.levels += 1
        nodes += wide * high
        if wide == 1 and high == 1:
            return nodes
        wide, high = (wide + 1) >> 1, (high + 1) >> 1


cdef inline uint64_t shape_precinct(Precinct *shape, Level *level, uint32_t number) noexcept nogil:
    """The sub-bands of a precinct without their memory; its code-blocks."""
    cdef uint32_t across = number % level.wide, down = number // level.wide
    cdef uint32_t inner = 1 if level.resolution else 0, k
    cdef uint32_t ppx = level.ppx - inner, ppy = level.ppy - inner
    cdef Span x, y
    cdef uint64_t blocks = 0
    shape.bands = 3 if inner else 1
    for k in range(shape.bands):
        # HL, LH, HH: high pass across first.
        x = band_span(level.x0, level.x1, inner and k != 1, inner)
        y = band_span(level.y0, level.y1, inner and k != 0, inner)
        x = block_span(x, level.x0 >> level.ppx, across, ppx, level.xcb)
        y = block_span(y, level.y0 >> level.ppy, down, ppy, level.ycb)
        shape.band[k].wide, shape.band[k].high = x.stop - x.start, y.stop - y.start
        shape.band[k].included = 0
        blocks += <uint64_t>shape.band[k].wide * shape.band[k].high
    return blocks


cdef inline Precinct *new_precinct(Precinct *shape, Level *level) noexcept nogil:
    """One block of memory for `shape` and its trees and code-blocks; NULL when there is none."""
    cdef uint32_t nodes[3]
    cdef size_t k, words = 0
    cdef Precinct *precinct
    cdef uint32_t *at
    cdef uint8_t kind = 0
    for k in range(shape.bands):
        nodes[k] = 0
        if shape.band[k].wide and shape.band[k].high:
            nodes[k] = shape_tree(&shape.band[k])
            words += 2 * <size_t>nodes[k] + <size_t>shape.band[k].wide * shape.band[k].high
    precinct = <Precinct *>calloc(1, sizeof(Precinct) + words * 4)
    if precinct == NULL:
        return NULL
    precinct[0] = shape[0]
    if level.style & STYLE_HT:
        kind = HT | PLACEHOLDERS | (MIXED if level.style & STYLE_MIXED else 0)
    at = <uint32_t *>(precinct + 1)
    for k in range(shape.bands):
        if nodes[k] == 0:
            continue
        precinct.band[k].inclusion = at
        precinct.band[k].planes = at + nodes[k]
        precinct.band[k].blocks = <Block *>(at + 2 * nodes[k])
        at += 2 * <size_t>nodes[k] + <size_t>shape.band[k].wide * shape.band[k].high
        if kind:
            set_kind(&precinct.band[k], kind)
    return precinct


cdef inline void set_kind(Band *band, uint8_t kind) noexcept nogil:
    cdef size_t i
    for i in range(<size_t>band.wide * band.high):
        band.blocks[i].kind = kind


cdef inline bint below(Band *band, uint32_t *nodes, uint32_t x, uint32_t y, uint32_t threshold, Bits *s) noexcept nogil:
    """Whether the value of a leaf of a tag tree is below `threshold`, reading the bits that tell. T.800 B.10.2"""
    cdef uint32_t k = band.levels, low = 0, value
    cdef uint32_t *node
    while k:
        k -= 1
        node = nodes + band.offset[k] + <size_t>(y >> k) * (((band.wide - 1) >> k) + 1) + (x >> k)
        value = node[0] >> 1
        if not node[0] & 1:
            if value < low:
                value = low
            while value < threshold and not s.failed:
                if bit(s):
                    node[0] = value << 1 | 1
                    break
                value += 1
            else:
                node[0] = value << 1
        if value >= threshold:
            return False
        low = value
    return True


cdef inline uint32_t log2_floor(uint32_t value) noexcept nogil:
    cdef uint32_t result = 0
    while value > 1:
        value >>= 1
        result += 1
    return result


cdef inline uint32_t read_passes(Bits *s) noexcept nogil:
    """T.800 Table B.4"""
    cdef uint32_t value
    if not bit(s):
        return 1
    if not bit(s):
        return 2
    value = bits(s, 2)
    if value < 3:
        return 3 + value
    value = bits(s, 5)
    if value < 31:
        return 6 + value
    return 37 + bits(s, 7)


cdef inline uint32_t segment_passes(Block *block, uint32_t style, uint32_t passes) noexcept nogil:
    """How many of `passes` more coding passes belong to the codeword segment in hand. T.800 Table D.9, T.814 B.3"""
    cdef uint32_t done = block.passes, most
    if block.kind & HT:
        most = 2 if done % 3 == 1 else 1
    elif style & STYLE_TERMALL:
        most = 1
    elif style & STYLE_BYPASS:
        most = 10 - done if done < 10 else 2 if (done - 10) % 3 == 0 else 1
    else:
        return passes
    return most if most < passes else passes


cdef inline uint32_t read_first_ht(Block *block, Bits *s, uint32_t passes, uint64_t *body) noexcept nogil:
    """The length that ends the placeholder passes of an HT code-block, or says that it has more; passes covered.

    The first segment that is not empty ends with the last cleanup pass among the new ones. An empty one has as many
    bits of length as all new passes ask for. Where HT and other code-blocks are mixed, a length that has its first bit
    set, or is 1, or has Lblock 3, belongs to a code-block of Part 1. T.814 B.3
    """
    cdef uint32_t refinements = (block.passes + passes - 1) % 3
    cdef uint32_t segment = passes - refinements if refinements < passes else 0
    cdef uint32_t width = block.lblock + log2_floor(segment if segment else passes)
    cdef uint32_t more = block.lblock + log2_floor(passes) - width
    cdef uint64_t length
    if width + more > 32:
        s.failed = True
        return passes
    length = bits(s, width)
    if segment and length and (not block.kind & MIXED or (block.lblock > 3 and length > 1 and not length >> (width - 1))):
        block.kind &= ~PLACEHOLDERS
        body[0] += length
        return segment
    length = length << more | bits(s, more)
    if length:
        if not block.kind & MIXED:
            s.failed = True
        block.kind &= ~(PLACEHOLDERS | HT)
        body[0] += length
    return passes


cdef inline void read_lengths(Block *block, uint32_t style, Bits *s, uint64_t *body) noexcept nogil:
    """Number of coding passes, Lblock and the lengths of the codeword segments of one contribution. T.800 B.10.6-7"""
    cdef uint32_t passes = read_passes(s), segment, width
    while bit(s) and not s.failed:
        block.lblock += 1
        if block.lblock > 32:
            s.failed = True
    if block.passes + passes > MOST_PASSES:
        s.failed = True
    while passes and not s.failed:
        if block.kind & HT and block.kind & PLACEHOLDERS:
            segment = read_first_ht(block, s, passes, body)
        else:
            segment = segment_passes(block, style, passes)
            width = block.lblock + log2_floor(segment)
            if width > 32:
                s.failed = True
                return
            body[0] += bits(s, width)
        block.passes += segment
        passes -= segment


cdef inline void read_band(Band *band, uint32_t layer, uint32_t style, Bits *s, uint64_t *body, uint64_t *work) noexcept nogil:
    cdef uint32_t x, y
    cdef Block *block = band.blocks
    for y in range(band.high):
        for x in range(band.wide):
            if s.failed:
                return
            if block.kind & INCLUDED:
                if bit(s):
                    read_lengths(block, style, s, body)
            elif below(band, band.inclusion, x, y, layer + 1, s):
                below(band, band.planes, x, y, UNBOUNDED, s)
                block.kind |= INCLUDED
                block.lblock = 3
                band.included += 1
                read_lengths(block, style, s, body)
            elif band.included == 0 and band.inclusion[band.offset[band.levels - 1]] >> 1 > layer:
                # The root says that no code-block is included yet.
                work[0] += 1
                return
            block += 1
    work[0] += <uint64_t>band.wide * band.high


cdef inline uint64_t read_header(Precinct *precinct, uint32_t layer, uint32_t style, Bits *s, uint64_t *work) noexcept nogil:
    """The bytes of the body of a packet whose first bit was 1. The trees and code-blocks move on by one layer."""
    cdef uint64_t body = 0
    cdef uint32_t k
    for k in range(precinct.bands):
        if precinct.band[k].wide and precinct.band[k].high:
            read_band(&precinct.band[k], layer, style, s, &body, work)
    return body
