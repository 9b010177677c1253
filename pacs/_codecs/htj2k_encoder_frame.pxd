# A frame that is encoded: its levels, sub-bands and code-blocks, and its main header. Inline only. T.800 A, B, E

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t

from pacs._codecs.ht cimport BLOCK, MOST_COMPONENTS, MOST_LEVELS, reduced


# One sub-band of one resolution level of a component.
cdef struct Band:
    uint32_t width
    uint32_t height
    size_t blocks_wide
    size_t blocks_high
    size_t first_block      # among those of the frame
    uint32_t bit_planes     # Mb. T.800 E-2


# What a component has in one resolution level: one packet.
cdef struct Level:
    Band band[3]            # LL alone, or HL, LH, HH
    uint32_t bands
    size_t body_length
    size_t header           # in the arena
    size_t header_length


cdef struct Frame:
    const uint8_t *samples
    int kind
    size_t columns
    size_t rows
    size_t components
    uint32_t decompositions
    int32_t shift
    bint rct
    uint32_t precision      # what it declares
    bint is_signed
    uint32_t nominal        # bits that exponents count from: those of the samples' type
    int tier
    Level levels[(MOST_LEVELS + 1) * MOST_COMPONENTS]


cdef inline uint32_t exponent(Frame *f, uint32_t decomposition, bint diagonal) noexcept nogil:
    """Of a sub-band: nominal bits and what the 5/3 wavelet can add, less the guard bit. T.800 E.1, as OpenJPH counts.

    Bounds of repeated low and high-pass filters: 1 bit in the first level, 2 in the next four, then 3 for HH.
    """
    return f.nominal + f.rct + (1 if decomposition < 2 else 3 if diagonal and decomposition > 5 else 2)


cdef inline size_t blocks_across(size_t length) noexcept nogil:
    return (length + BLOCK - 1) // BLOCK


cdef inline size_t lay_out(Frame *f) noexcept nogil:
    """Fill in the levels of all components; the number of code-blocks."""
    cdef size_t c, blocks = 0, width, height
    cdef uint32_t r, k, below
    cdef Level *level
    cdef Band *band
    for c in range(f.components):
        for r in range(f.decompositions + 1):
            level = &f.levels[r * f.components + c]
            level.bands = 3 if r else 1
            below = f.decompositions - r + (1 if r else 0)
            width, height = reduced(f.columns, below), reduced(f.rows, below)
            for k in range(level.bands):
                band = &level.band[k]
                band.width, band.height = <uint32_t>width, <uint32_t>height
                if r:
                    # HL, LH, HH: of a level's columns and rows the low-pass ones come first.
                    if k != 1:
                        band.width = <uint32_t>(reduced(f.columns, below - 1) - width)
                    if k != 0:
                        band.height = <uint32_t>(reduced(f.rows, below - 1) - height)
                band.blocks_wide, band.blocks_high = blocks_across(band.width), blocks_across(band.height)
                if not band.width or not band.height:
                    band.blocks_wide = band.blocks_high = 0
                band.first_block = blocks
                blocks += band.blocks_wide * band.blocks_high
                band.bit_planes = exponent(f, below, k == 2) if r else f.nominal + f.rct + 1
    return blocks


cdef inline void put_u16(uint8_t **at, size_t value) noexcept nogil:
    at[0][0], at[0][1] = <uint8_t>(value >> 8), <uint8_t>value
    at[0] += 2


cdef inline void put_u32(uint8_t **at, size_t value) noexcept nogil:
    put_u16(at, value >> 16)
    put_u16(at, value)


cdef inline void put_u8(uint8_t **at, size_t value) noexcept nogil:
    at[0][0] = <uint8_t>value
    at[0] += 1


cdef inline size_t main_header_length(Frame *f) noexcept nogil:
    return 2 + 40 + 3 * f.components + 10 + 14 + 6 + 3 * f.decompositions + 6 + 6 * (f.decompositions + 1)


cdef inline uint32_t largest_exponent(Frame *f) noexcept nogil:
    cdef uint32_t d, most = f.nominal + f.rct + 1
    for d in range(1, f.decompositions + 1):
        most = max(most, exponent(f, d, True))
    return most


cdef inline void write_main_header(Frame *f, const uint32_t *tile_parts, uint8_t **at) noexcept nogil:
    """SOC, SIZ, CAP, COD, QCD, TLM. T.800 A.4-A.7, T.814 A.3"""
    cdef size_t c
    cdef uint32_t r, d
    put_u16(at, 0xFF4F)
    put_u16(at, 0xFF51)
    put_u16(at, 38 + 3 * f.components)
    put_u16(at, 0x4000)                 # Rsiz: CAP tells more
    for r in range(2):
        # The image and the tile: both from the origin, in both directions.
        put_u32(at, f.columns)
        put_u32(at, f.rows)
        put_u32(at, 0)
        put_u32(at, 0)
    put_u16(at, f.components)
    for c in range(f.components):
        put_u8(at, (0x80 if f.is_signed else 0) | (f.precision - 1))
        put_u8(at, 1)
        put_u8(at, 1)
    put_u16(at, 0xFF50)
    put_u16(at, 8)
    put_u32(at, 0x00020000)             # Part 15
    put_u16(at, max(largest_exponent(f), <uint32_t>8) - 8)
    put_u16(at, 0xFF52)
    put_u16(at, 12)
    put_u8(at, 0)                       # Scod: no precincts
    put_u8(at, 2)                       # RPCL
    put_u16(at, 1)                      # one layer
    put_u8(at, 1 if f.rct else 0)
    put_u8(at, f.decompositions)
    put_u8(at, 4)                       # code-blocks of 64
    put_u8(at, 4)                       # by 64
    put_u8(at, 0x40)                    # HT
    put_u8(at, 1)                       # 5/3
    put_u16(at, 0xFF5C)
    put_u16(at, 4 + 3 * f.decompositions)
    put_u8(at, 0x20)                    # one guard bit, no quantisation
    put_u8(at, (f.nominal + f.rct + 1) << 3)
    for d in range(f.decompositions, 0, -1):
        put_u8(at, exponent(f, d, False) << 3)
        put_u8(at, exponent(f, d, False) << 3)
        put_u8(at, exponent(f, d, True) << 3)
    put_u16(at, 0xFF55)
    put_u16(at, 4 + 6 * (f.decompositions + 1))
    put_u8(at, 0)
    put_u8(at, 0x60)                    # 2 bytes of tile number, 4 of length
    for r in range(f.decompositions + 1):
        put_u16(at, 0)
        put_u32(at, tile_parts[r])
