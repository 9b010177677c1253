"""Samples of a frame to HTJ2K lossless RPCL, a tile-part for each resolution level. The face is `pacs.transcode.htj2k`.

One tile, code-blocks of 64 x 64, no precincts, the reversible wavelet, one HT cleanup pass for each code-block.
Code-blocks are those that OpenJPH 0.26 makes. T.800 Annex A, B.10, F, G; T.814
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc

from pacs._codecs.ht cimport (
    ALIGNMENT, BLOCK, HT_I8, HT_I16, HT_U8, HT_U16, KEPT_BYTES, MOST_COMPONENTS, MOST_IDLE, MOST_LEVELS, MOST_SIDE,
    NARROW_BITS, Planes, aligned, ht_analyse_16, ht_analyse_32, ht_bands_16, ht_bands_32, ht_best_tier, ht_load_row_16,
    ht_load_row_32, ht_range, ht_rct_row_16, ht_rct_row_32, lay_out_planes, make_room, sample,
)
from pacs._codecs.htj2k_encoder_frame cimport (
    Band, Frame, Level, blocks_across, lay_out, main_header_length, put_u8, put_u16, put_u32, write_main_header,
)
from pacs._codecs.htj2k_encoder_packet cimport Arena, Coded, ensure, write_header, write_packet

cdef extern from "ht/encode_block.h" nogil:
    ctypedef struct ht_encode_scratch:
        pass
    size_t HT_ENCODED_MOST
    void ht_fill_tables()
    size_t ht_encode_block_16(const int16_t *samples, ptrdiff_t stride, uint32_t width, uint32_t height, uint8_t *out,
                              ht_encode_scratch *scratch, int tier)
    size_t ht_encode_block_32(const int32_t *samples, ptrdiff_t stride, uint32_t width, uint32_t height, uint8_t *out,
                              ht_encode_scratch *scratch, int tier)

ht_fill_tables()
cdef int tier_used = ht_best_tier()


# --- memory -----------------------------------------------------------------------------------------------------------


cdef class Workspace:
    """Memory for one frame at a time."""

    cdef:
        void *planes
        size_t planes_room
        void *scratch
        Arena arena
        Coded *blocks
        size_t blocks_room

    def __cinit__(self):
        self.scratch = malloc(sizeof(ht_encode_scratch) + ALIGNMENT)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.planes)
        free(self.scratch)
        free(self.arena.data)
        free(self.blocks)

    cdef void *reserve(self, size_t plane_bytes, size_t blocks) except NULL:
        make_room(&self.planes, &self.planes_room, plane_bytes)
        make_room(<void **>&self.blocks, &self.blocks_room, blocks * sizeof(Coded))
        self.arena.used = 0
        return self.planes

    cdef size_t held(self):
        return self.planes_room + self.arena.room + self.blocks_room


cdef list idle = []     # workspaces that nobody uses; taking and giving back is under the GIL


# --- code-blocks ------------------------------------------------------------------------------------------------------


cdef bint encode_row(Frame *f, Band *band, size_t j, const sample *at, size_t stride, Workspace w) noexcept nogil:
    """Row `j` of the code-blocks of a sub-band, whose samples begin at `at`, to the arena."""
    cdef ht_encode_scratch *scratch = <ht_encode_scratch *>aligned(w.scratch)
    cdef Coded *coded = w.blocks + band.first_block + j * band.blocks_wide
    cdef size_t i
    cdef uint32_t width, height
    cdef uint8_t *out
    if j >= band.blocks_high:
        return True
    height = min(<uint32_t>BLOCK, band.height - <uint32_t>j * BLOCK)
    for i in range(band.blocks_wide):
        width = min(<uint32_t>BLOCK, band.width - <uint32_t>i * BLOCK)
        out = ensure(&w.arena, HT_ENCODED_MOST)
        if out == NULL:
            return False
        coded.offset = w.arena.used
        if sample is int16_t:
            coded.length = <uint32_t>ht_encode_block_16(at + i * BLOCK, stride, width, height, out, scratch, f.tier)
        else:
            coded.length = <uint32_t>ht_encode_block_32(at + i * BLOCK, stride, width, height, out, scratch, f.tier)
        w.arena.used += coded.length
        coded += 1
    return True


cdef bint encode_stripe(
    Frame *f, Level *level, size_t j, const sample *image, size_t stride, size_t width, size_t height, sample *low,
    sample *bands, size_t half, sample *spare, Workspace w,
) noexcept nogil:
    """Row `j` of the code-blocks of the three sub-bands of a level; of `image`, which is at its first row, the low-pass
    band goes to the same place in `low`."""
    cdef size_t first = j * BLOCK, last = min(first + BLOCK, (height + 1) // 2)
    cdef uint32_t k
    cdef ht_bands_16 narrow
    cdef ht_bands_32 wide
    if sample is int16_t:
        narrow.ll, narrow.ll_stride, narrow.stride = low + first * half, half, half
        narrow.hl, narrow.lh, narrow.hh = bands, bands + BLOCK * half, bands + 2 * BLOCK * half
        ht_analyse_16(f.tier, image, stride, width, height, first, last, narrow, spare)
    else:
        wide.ll, wide.ll_stride, wide.stride = low + first * half, half, half
        wide.hl, wide.lh, wide.hh = bands, bands + BLOCK * half, bands + 2 * BLOCK * half
        ht_analyse_32(f.tier, image, stride, width, height, first, last, wide, spare)
    for k in range(3):
        if not encode_row(f, &level.band[k], j, bands + k * BLOCK * half, half, w):
            return False
    return True


cdef bint encode_coarser(
    Frame *f, size_t c, sample *image, sample *other, sample *bands, size_t half, sample *spare, Workspace w,
) noexcept nogil:
    """The levels of a component below the finest, from its low-pass band. `image` and `other` take turns in holding it."""
    cdef size_t width = (f.columns + 1) // 2, height = (f.rows + 1) // 2, j
    cdef uint32_t r = f.decompositions - 1
    while r:
        for j in range(blocks_across((height + 1) // 2)):
            if not encode_stripe(f, &f.levels[r * f.components + c], j, image + 2 * j * BLOCK * half, half, width,
                                 height, other, bands, half, spare, w):
                return False
        image, other = other, image
        width, height = (width + 1) // 2, (height + 1) // 2
        r -= 1
    for j in range(blocks_across(height)):
        if not encode_row(f, &f.levels[c].band[0], j, image + j * BLOCK * half, half, w):
            return False
    return True


cdef void load_row(Frame *f, size_t y, sample *image, size_t plane) noexcept nogil:
    """Row `y` of all components, `plane` samples apart: shifted, and through the component transform."""
    cdef size_t c, row_bytes = f.columns * f.components * (1 if f.kind == HT_U8 or f.kind == HT_I8 else 2)
    cdef const uint8_t *row = f.samples + y * row_bytes
    for c in range(f.components):
        if sample is int16_t:
            ht_load_row_16(f.tier, row, f.kind, f.columns, c, f.components, f.shift, image + c * plane)
        else:
            ht_load_row_32(f.tier, row, f.kind, f.columns, c, f.components, f.shift, image + c * plane)
    if f.rct:
        if sample is int16_t:
            ht_rct_row_16(f.tier, image, image + plane, image + 2 * plane, f.columns)
        else:
            ht_rct_row_32(f.tier, image, image + plane, image + 2 * plane, f.columns)


cdef bint encode_components(Frame *f, Planes *p, sample *memory, Workspace w) noexcept nogil:
    """The finest level stripe by stripe, all components of it; then the others, component by component."""
    cdef size_t c, y, j, size = p.image_rows * p.stride, first, last
    cdef sample *spare = memory
    cdef sample *images = spare + f.components * 5 * p.stride
    cdef sample *bands = images + f.components * size
    cdef sample *lows = bands + 3 * BLOCK * p.half
    cdef sample *other = lows + f.components * p.low_rows * p.half
    for j in range(blocks_across((f.rows + 1) // 2)):
        first = 2 * j * BLOCK
        # One row more than the stripe has: the next one begins with it again.
        last = min(first + 2 * BLOCK + 1, f.rows)
        for y in range(first, last):
            load_row(f, y, images + (y - first) * p.stride, size)
        for c in range(f.components):
            if not encode_stripe(f, &f.levels[f.decompositions * f.components + c], j, images + c * size, p.stride,
                                 f.columns, f.rows, lows + c * p.low_rows * p.half, bands, p.half,
                                 spare + c * 5 * p.stride, w):
                return False
    for c in range(f.components):
        if not encode_coarser(f, c, lows + c * p.low_rows * p.half, other, bands, p.half, spare, w):
            return False
    return True


# --- the codestream ---------------------------------------------------------------------------------------------------


cdef tuple write_codestream(Frame *f, Workspace w):
    """(codestream, end of each resolution level)."""
    cdef uint32_t tile_parts[MOST_LEVELS + 1]
    cdef size_t total = main_header_length(f), c
    cdef uint32_t r
    cdef Level *level
    cdef uint8_t *at
    cdef bytes out
    level_ends = []
    for r in range(f.decompositions + 1):
        tile_parts[r] = 14
        for c in range(f.components):
            level = &f.levels[r * f.components + c]
            tile_parts[r] += <uint32_t>(level.header_length + level.body_length)
        total += tile_parts[r]
        level_ends.append(total)
    out = PyBytes_FromStringAndSize(NULL, total + 2)
    at = <uint8_t *>PyBytes_AS_STRING(out)
    write_main_header(f, tile_parts, &at)
    for r in range(f.decompositions + 1):
        put_u16(&at, 0xFF90)
        put_u16(&at, 10)
        put_u16(&at, 0)
        put_u32(&at, tile_parts[r])
        put_u8(&at, r)
        put_u8(&at, f.decompositions + 1)
        put_u16(&at, 0xFF93)
        for c in range(f.components):
            at = write_packet(&f.levels[r * f.components + c], w.blocks, &w.arena, at)
    put_u16(&at, 0xFFD9)
    return out, tuple(level_ends)


cdef bint encode_frame(Frame *f, Planes *p, bint narrow, Workspace w) noexcept nogil:
    cdef void *memory = aligned(w.planes)
    cdef uint32_t i
    if narrow:
        if not encode_components(f, p, <int16_t *>memory, w):
            return False
    elif not encode_components(f, p, <int32_t *>memory, w):
        return False
    for i in range((f.decompositions + 1) * <uint32_t>f.components):
        if not write_header(&f.levels[i], w.blocks, &w.arena):
            return False
    return True


def encode(const uint8_t[::1] samples not None, size_t rows, size_t columns, size_t components, int width,
           bint is_signed, uint32_t precision, uint32_t decompositions, bint rct) -> tuple:
    """Samples by pixel, `width` (1 or 2) bytes each in the machine's order: (codestream, end of each level).

    Every sample has to be within `precision` bits. ValueError for what this encoder does not make: more than three
    components, 32,768 samples a side or 11 decompositions, or none.
    """
    cdef Frame f
    cdef Workspace w
    cdef int32_t least = 0, greatest = 0, low, high
    cdef Planes p
    cdef size_t planes
    cdef bint narrow, done
    if not (0 < rows <= MOST_SIDE and 0 < columns <= MOST_SIDE and 0 < components <= MOST_COMPONENTS):
        raise ValueError(f"{rows} x {columns} samples of {components} components are not encoded")
    if not (0 < decompositions <= MOST_LEVELS and width in (1, 2) and 0 < precision <= 8 * <uint32_t>width):
        raise ValueError(f"{decompositions} decompositions of {precision} bits in {width} bytes are not encoded")
    if <size_t>samples.shape[0] != rows * columns * components * width or (rct and components != 3):
        raise ValueError("the samples are not as many as described")
    f.samples, f.rows, f.columns, f.components = &samples[0], rows, columns, components
    if width == 1:
        f.kind = HT_I8 if is_signed else HT_U8
    else:
        f.kind = HT_I16 if is_signed else HT_U16
    f.decompositions, f.precision, f.is_signed, f.rct = decompositions, precision, is_signed, rct
    f.nominal, f.tier = 8 * width, tier_used
    f.shift = 0 if is_signed else 1 << (precision - 1)
    low = -(1 << (precision - 1)) if is_signed else 0
    high = (1 << (precision - 1)) - 1 if is_signed else (1 << precision) - 1
    planes = lay_out_planes(&p, columns, rows, components, BLOCK, min(<size_t>2 * BLOCK + 1, rows))
    w = idle.pop() if idle else Workspace()
    try:
        with nogil:
            ht_range(f.tier, f.samples, f.kind, rows * columns * components, &least, &greatest)
        if least < low or greatest > high:
            raise ValueError(f"samples of {least} to {greatest} are not of {precision} bits")
        least -= f.shift
        greatest -= f.shift
        # Where samples lie matters less than their range: high-pass filters take the mean away. The differences of
        # colours have twice the range.
        narrow = greatest - least < 1 << (NARROW_BITS - rct) and max(-least, greatest) <= 1 << NARROW_BITS
        w.reserve(planes * (2 if narrow else 4) + ALIGNMENT, lay_out(&f))
        with nogil:
            done = encode_frame(&f, &p, narrow, w)
        if not done:
            raise MemoryError
        return write_codestream(&f, w)
    finally:
        if w.held() <= KEPT_BYTES and len(idle) < MOST_IDLE:
            idle.append(w)


def tier(int wanted=-1) -> int:
    """The instructions that are used: 0 portable, 1 AVX2, 2 AVX-512. `wanted` chooses at most that."""
    global tier_used
    if wanted >= 0:
        tier_used = min(wanted, ht_best_tier())
    return tier_used
