"""Samples of a frame to HTJ2K lossless RPCL, a tile-part for each resolution level. The face is `pacs.transcode.htj2k`.

One tile, code-blocks of 64 x 64, no precincts, the reversible wavelet, one HT cleanup pass for each code-block. Headers
and code-blocks are those that OpenJPH 0.26 makes, but for its COM segment. T.800 Annex A, B.10, F, G; T.814
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from pacs._codecs.ht cimport (
    ALIGNMENT, BLOCK, HT_I8, HT_I16, HT_U8, HT_U16, KEPT_BYTES, MOST_COMPONENTS, MOST_LEVELS, MOST_SIDE, NARROW_BITS,
    aligned, ht_analyse_16, ht_analyse_32, ht_bands_16, ht_bands_32, ht_best_tier, ht_load_row_16, ht_load_row_32,
    ht_range, ht_rct_row_16, ht_rct_row_32, sample, stride_of,
)
from pacs._codecs.htj2k_frame cimport (
    Band, Frame, Level, lay_out, main_header_length, put_u8, put_u16, put_u32, write_main_header,
)
from pacs._codecs.packet_writer cimport Tree, Writer, bit_length, fill_tree, put, shape_tree, tell

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


cdef class Workspace:
    """Memory for one frame at a time."""

    cdef:
        void *planes
        size_t planes_room
        void *scratch
        Arena arena
        uint32_t *lengths       # of the code-blocks
        size_t lengths_room

    def __cinit__(self):
        self.scratch = malloc(sizeof(ht_encode_scratch) + ALIGNMENT)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.planes)
        free(self.scratch)
        free(self.arena.data)
        free(self.lengths)

    cdef void *reserve(self, size_t plane_bytes, size_t blocks) except NULL:
        if self.planes_room < plane_bytes:
            free(self.planes)
            self.planes, self.planes_room = malloc(plane_bytes), 0
            if self.planes == NULL:
                raise MemoryError
            self.planes_room = plane_bytes
        if self.lengths_room < blocks:
            free(self.lengths)
            self.lengths, self.lengths_room = <uint32_t *>malloc(blocks * sizeof(uint32_t)), 0
            if self.lengths == NULL:
                raise MemoryError
            self.lengths_room = blocks
        self.arena.used = 0
        return self.planes

    cdef size_t held(self):
        return self.planes_room + self.arena.room + self.lengths_room * sizeof(uint32_t)


cdef list idle = []     # workspaces that nobody uses; taking and giving back is under the GIL


# --- code-blocks ------------------------------------------------------------------------------------------------------


cdef bint encode_band(Frame *f, Band *band, const sample *at, size_t stride, Workspace w) noexcept nogil:
    """The code-blocks of a sub-band, in raster order, to the arena."""
    cdef ht_encode_scratch *scratch = <ht_encode_scratch *>aligned(w.scratch)
    cdef uint32_t *length = w.lengths + band.first_length
    cdef const sample *block
    cdef size_t i, j
    cdef uint32_t width, height
    cdef uint8_t *out
    for j in range(band.blocks_high):
        height = min(<uint32_t>BLOCK, band.height - <uint32_t>j * BLOCK)
        for i in range(band.blocks_wide):
            width = min(<uint32_t>BLOCK, band.width - <uint32_t>i * BLOCK)
            block = at + j * BLOCK * stride + i * BLOCK
            out = ensure(&w.arena, HT_ENCODED_MOST)
            if out == NULL:
                return False
            if sample is int16_t:
                length[0] = <uint32_t>ht_encode_block_16(block, stride, width, height, out, scratch, f.tier)
            else:
                length[0] = <uint32_t>ht_encode_block_32(block, stride, width, height, out, scratch, f.tier)
            w.arena.used += length[0]
            length += 1
    return True


cdef bint encode_component(
    Frame *f, size_t c, sample *image, sample *low, sample *plane, sample *spare, size_t stride, Workspace w,
) noexcept nogil:
    """Level by level, finest first. `image` and `low` take turns in holding the low-pass band."""
    cdef size_t width = f.columns, height = f.rows
    cdef uint32_t r = f.decompositions, k
    cdef Level *level
    cdef ht_bands_16 narrow
    cdef ht_bands_32 wide
    cdef sample *hl
    cdef sample *lh
    cdef sample *hh
    while r:
        level = &f.levels[r * f.components + c]
        hl = plane + (width + 1) // 2
        lh = plane + (height + 1) // 2 * stride
        hh = lh + (width + 1) // 2
        if sample is int16_t:
            narrow.ll, narrow.hl, narrow.lh, narrow.hh, narrow.ll_stride, narrow.stride = low, hl, lh, hh, stride, stride
            ht_analyse_16(f.tier, image, stride, width, height, narrow, spare)
        else:
            wide.ll, wide.hl, wide.lh, wide.hh, wide.ll_stride, wide.stride = low, hl, lh, hh, stride, stride
            ht_analyse_32(f.tier, image, stride, width, height, wide, spare)
        level.body = w.arena.used
        if not (encode_band(f, &level.band[0], hl, stride, w) and encode_band(f, &level.band[1], lh, stride, w)
                and encode_band(f, &level.band[2], hh, stride, w)):
            return False
        level.body_length = w.arena.used - level.body
        image, low = low, image
        width, height = (width + 1) // 2, (height + 1) // 2
        r -= 1
    level = &f.levels[c]
    level.body = w.arena.used
    if not encode_band(f, &level.band[0], image, stride, w):
        return False
    level.body_length = w.arena.used - level.body
    return True


cdef bint encode_components(Frame *f, sample *memory, size_t stride, Workspace w) noexcept nogil:
    """The planes in `memory`: spare rows, the low-pass band, the sub-bands, and one for each component."""
    cdef size_t c, y, size = stride * f.rows, row_bytes
    cdef sample *spare = memory
    cdef sample *low = spare + 4 * stride
    cdef sample *plane = low + stride * ((f.rows + 1) // 2)
    cdef sample *images = plane + size
    row_bytes = f.columns * f.components * (1 if f.kind == HT_U8 or f.kind == HT_I8 else 2)
    for y in range(f.rows):
        for c in range(f.components):
            if sample is int16_t:
                ht_load_row_16(f.tier, f.samples + y * row_bytes, f.kind, f.columns, c, f.components, f.shift,
                               images + c * size + y * stride)
            else:
                ht_load_row_32(f.tier, f.samples + y * row_bytes, f.kind, f.columns, c, f.components, f.shift,
                               images + c * size + y * stride)
        if f.rct:
            if sample is int16_t:
                ht_rct_row_16(f.tier, images + y * stride, images + size + y * stride, images + 2 * size + y * stride, f.columns)
            else:
                ht_rct_row_32(f.tier, images + y * stride, images + size + y * stride, images + 2 * size + y * stride, f.columns)
    for c in range(f.components):
        if not encode_component(f, c, images + c * size, low, plane, spare, stride, w):
            return False
    return True


# --- packets and the codestream ---------------------------------------------------------------------------------------


cdef bint write_header(Level *level, Workspace w) noexcept nogil:
    """The header of the one packet of a level: all code-blocks that are not zero, in one pass each. T.800 B.10, T.814 B.3"""
    cdef uint32_t k, bits
    cdef size_t x, y, nodes, room = 16, count
    cdef Band *band
    cdef Tree inclusion, planes
    cdef uint32_t *length
    cdef Writer s
    for k in range(level.bands):
        count = level.band[k].blocks_wide * level.band[k].blocks_high
        room += count * (2 * 4 + 16)
    s.at = ensure(&w.arena, room)
    if s.at == NULL:
        return False
    level.header = w.arena.used
    s.byte, s.free = 0, 8
    put(&s, 1 if level.body_length else 0, 1)
    for k in range(level.bands if level.body_length else 0):
        band = &level.band[k]
        if not band.blocks_wide:
            continue
        nodes = shape_tree(&inclusion, band.blocks_wide, band.blocks_high)
        planes = inclusion
        # The trees lie at the end of the room, which the bits do not reach.
        inclusion.nodes = w.arena.data + w.arena.used + room - 2 * nodes
        planes.nodes = inclusion.nodes + nodes
        length = w.lengths + band.first_length
        for x in range(band.blocks_wide * band.blocks_high):
            inclusion.nodes[x] = length[x] == 0
            planes.nodes[x] = <uint8_t>(band.bit_planes - 1) if length[x] else 0
        fill_tree(&inclusion, nodes, band.blocks_high)
        fill_tree(&planes, nodes, band.blocks_high)
        for y in range(band.blocks_high):
            for x in range(band.blocks_wide):
                tell(&inclusion, x, y, 1, &s)
                if length[0]:
                    tell(&planes, x, y, 0x7F, &s)
                    bits = max(bit_length(length[0]), <uint32_t>3)
                    put(&s, 0, 1)                       # one coding pass
                    put(&s, 0xFFFFFFFE, bits - 3 + 1)   # Lblock grows from 3
                    put(&s, length[0], bits)
                length += 1
    if s.free != 8:
        # After FF that is a byte of its own: a header does not end in FF.
        put(&s, 0, s.free)
    level.header_length = s.at - (w.arena.data + w.arena.used)
    w.arena.used += level.header_length
    return True


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
            level = &f.levels[r * f.components + c]
            memcpy(at, w.arena.data + level.header, level.header_length)
            memcpy(at + level.header_length, w.arena.data + level.body, level.body_length)
            at += level.header_length + level.body_length
    put_u16(&at, 0xFFD9)
    return out, tuple(level_ends)


cdef bint encode_frame(Frame *f, bint narrow, size_t stride, Workspace w) noexcept nogil:
    cdef void *memory = aligned(w.planes)
    cdef uint32_t i
    if narrow:
        if not encode_components(f, <int16_t *>memory, stride, w):
            return False
    elif not encode_components(f, <int32_t *>memory, stride, w):
        return False
    for i in range((f.decompositions + 1) * <uint32_t>f.components):
        if not write_header(&f.levels[i], w):
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
    cdef size_t stride, planes
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
    stride = stride_of(columns)
    planes = stride * (4 + (rows + 1) // 2 + rows * (1 + components)) + 2
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
            done = encode_frame(&f, narrow, stride, w)
        if not done:
            raise MemoryError
        return write_codestream(&f, w)
    finally:
        if w.held() <= KEPT_BYTES:
            idle.append(w)


def tier(int wanted=-1) -> int:
    """The instructions that are used: 0 portable, 1 AVX2, 2 AVX-512. `wanted` chooses at most that."""
    global tier_used
    if wanted >= 0:
        tier_used = min(wanted, ht_best_tier())
    return tier_used
