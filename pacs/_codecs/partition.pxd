# How a tile-component falls into resolution levels, precincts, sub-bands and code-blocks. Inline only. T.800 B.2-B.9

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_LEVELS = 33
    STYLE_BYPASS = 0x01
    STYLE_TERMALL = 0x04
    STYLE_HT = 0x40
    STYLE_MIXED = 0x80


# What COD or COC says of a component. T.800 A.6.1, T.814 A.4
cdef struct Style:
    uint8_t decompositions
    uint8_t xcb
    uint8_t ycb
    uint8_t style
    uint8_t transform
    uint8_t precincts[MAX_LEVELS]   # PPy and PPx of each resolution level


# One resolution level of a tile-component that has at least one precinct.
cdef struct Level:
    uint32_t component
    uint32_t resolution
    uint32_t below          # decompositions - resolution
    uint32_t x0             # trx0 ... try1
    uint32_t y0
    uint32_t x1
    uint32_t y1
    uint32_t ppx
    uint32_t ppy
    uint32_t xcb            # xcb' and ycb', in the sub-bands
    uint32_t ycb
    uint32_t style
    uint32_t transform
    uint32_t wide           # precincts across and down
    uint32_t high
    uint32_t dx             # XRsiz, YRsiz
    uint32_t dy
    size_t first_packet     # of its precinct 0; those of a precinct follow each other, layer by layer


# A range of samples or coefficients in one direction, empty when stop <= start.
cdef struct Span:
    uint32_t start
    uint32_t stop


cdef inline uint64_t ceil_div(uint64_t value, uint64_t by) noexcept nogil:
    return (value + by - 1) // by


cdef inline uint64_t ceil_shift(uint64_t value, uint32_t shift) noexcept nogil:
    return (value + ((<uint64_t>1 << shift) - 1)) >> shift


cdef inline uint32_t smaller(uint32_t a, uint32_t b) noexcept nogil:
    return a if a < b else b


cdef inline uint32_t larger(uint32_t a, uint32_t b) noexcept nogil:
    return a if a > b else b


cdef inline bint make_level(Level *level, Style *style, uint32_t resolution, uint32_t tcx0, uint32_t tcy0,
                            uint32_t tcx1, uint32_t tcy1) noexcept nogil:
    """Fill `level` but for component, separations and packets; False when it holds no sample. T.800 B-15, B-16"""
    cdef uint32_t below = style.decompositions - resolution
    cdef uint32_t inner = 1 if resolution else 0
    level.resolution = resolution
    level.below = below
    level.x0, level.x1 = <uint32_t>ceil_shift(tcx0, below), <uint32_t>ceil_shift(tcx1, below)
    level.y0, level.y1 = <uint32_t>ceil_shift(tcy0, below), <uint32_t>ceil_shift(tcy1, below)
    if level.x0 >= level.x1 or level.y0 >= level.y1:
        return False
    level.ppx, level.ppy = style.precincts[resolution] & 15, style.precincts[resolution] >> 4
    level.xcb = smaller(style.xcb, level.ppx - inner)
    level.ycb = smaller(style.ycb, level.ppy - inner)
    level.style, level.transform = style.style, style.transform
    level.wide = <uint32_t>ceil_shift(level.x1, level.ppx) - (level.x0 >> level.ppx)
    level.high = <uint32_t>ceil_shift(level.y1, level.ppy) - (level.y0 >> level.ppy)
    return True


cdef inline Span band_span(uint32_t start, uint32_t stop, bint high_pass, bint split) noexcept nogil:
    """What a range of a resolution level is in its sub-bands, low or high pass. T.800 B-15"""
    cdef Span span
    if not split:
        span.start, span.stop = start, stop
    elif high_pass:
        span.start, span.stop = start >> 1, stop >> 1
    else:
        span.start, span.stop = <uint32_t>ceil_shift(start, 1), <uint32_t>ceil_shift(stop, 1)
    return span


cdef inline Span block_span(Span band, uint32_t first, uint32_t number, uint32_t pp, uint32_t cb) noexcept nogil:
    """The columns (rows) of code-blocks of precinct column (row) `number` in a sub-band. T.800 B.7"""
    cdef uint64_t start = <uint64_t>(first + number) << pp, stop = start + (<uint64_t>1 << pp)
    cdef Span span
    if start < band.start:
        start = band.start
    if stop > band.stop:
        stop = band.stop
    span.start = span.stop = 0
    if start < stop:
        span.start, span.stop = <uint32_t>(start >> cb), <uint32_t>ceil_shift(stop, cb)
    return span


cdef inline uint32_t reference(uint32_t start, uint32_t number, uint32_t pp, uint64_t step, uint32_t tile) noexcept nogil:
    """Where on the reference grid precinct column (row) `number` of a level is met, which starts at `start` of the
    level and at `tile` of the grid; `step` is the separation of its samples there. T.800 B.12.1.3"""
    if number == 0 and start & ((<uint32_t>1 << pp) - 1):
        return tile
    return <uint32_t>((<uint64_t>((start >> pp) + number) << pp) * step)
