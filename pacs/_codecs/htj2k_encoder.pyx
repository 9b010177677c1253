"""Samples of a frame to HTJ2K lossless RPCL, a tile-part for each resolution level. The face is `pacs.transcode.htj2k`.

One tile, code-blocks of 64 x 64, no precincts, the reversible wavelet, one HT cleanup pass for each code-block. Byte for
byte what OpenJPH 0.26 makes of the same samples, but for its COM segment. T.800 Annex A, B.10, F, G; T.814
"""

from libc.stddef cimport size_t
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from pacs._codecs.ht cimport (
    BLOCK, HT_I8, HT_I16, HT_U8, HT_U16, MOST_COMPONENTS, MOST_LEVELS, ht_analyse_16, ht_analyse_32, ht_bands_16,
    ht_bands_32, ht_best_tier, ht_load_row_16, ht_load_row_32, ht_range, ht_rct_row_16, ht_rct_row_32, sample,
)

cdef extern from "ht/encode_block.h" nogil:
    ctypedef struct ht_encode_scratch:
        pass
    size_t HT_ENCODED_MOST
    void ht_fill_tables()
    size_t ht_encode_block_16(const int16_t *samples, ptrdiff_t stride, uint32_t width, uint32_t height, uint8_t *out,
                              ht_encode_scratch *scratch, int tier)
    size_t ht_encode_block_32(const int32_t *samples, ptrdiff_t stride, uint32_t width, uint32_t height, uint8_t *out,
                              ht_encode_scratch *scratch, int tier)

cdef enum:
    MOST_SIDE = 1 << 15         # beyond it a resolution level has several precincts
    NARROW_BITS = 13            # of samples, after the component transform, whose wavelet never leaves 16 bits
    KEPT_BYTES = 8 << 20        # of memory that is kept from frame to frame
    ALIGNMENT = 64
    MOST_TREE = 16

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


cdef inline void *aligned(void *memory) noexcept nogil:
    return <void *>((<size_t>memory + ALIGNMENT - 1) & ~<size_t>(ALIGNMENT - 1))


# --- the frame and its parts ------------------------------------------------------------------------------------------


# One sub-band of one resolution level of a component.
cdef struct Band:
    uint32_t width
    uint32_t height
    size_t blocks_wide
    size_t blocks_high
    size_t first_length     # of its code-blocks in Workspace.lengths
    uint32_t bit_planes     # Mb. T.800 E-2


# What a component has in one resolution level: one packet.
cdef struct Level:
    Band band[3]            # LL alone, or HL, LH, HH
    uint32_t bands
    size_t body             # in the arena
    size_t body_length
    size_t header
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


cdef size_t lay_out(Frame *f) noexcept nogil:
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
                band.first_length = blocks
                blocks += band.blocks_wide * band.blocks_high
                band.bit_planes = exponent(f, below, k == 2) if r else f.nominal + f.rct + 1
    return blocks


cdef inline size_t reduced(size_t length, uint32_t levels) noexcept nogil:
    return (length + (<size_t>1 << levels) - 1) >> levels


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


# --- packet headers ---------------------------------------------------------------------------------------------------


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


cdef size_t shape_tree(Tree *tree, size_t wide, size_t high) noexcept nogil:
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


cdef void fill_tree(Tree *tree, size_t nodes, size_t high) noexcept nogil:
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


# --- the codestream ---------------------------------------------------------------------------------------------------


cdef inline void u16(uint8_t **at, size_t value) noexcept nogil:
    at[0][0], at[0][1] = <uint8_t>(value >> 8), <uint8_t>value
    at[0] += 2


cdef inline void u32(uint8_t **at, size_t value) noexcept nogil:
    u16(at, value >> 16)
    u16(at, value)


cdef inline void u8(uint8_t **at, size_t value) noexcept nogil:
    at[0][0] = <uint8_t>value
    at[0] += 1


cdef size_t main_header_length(Frame *f) noexcept nogil:
    return 2 + 40 + 3 * f.components + 10 + 14 + 6 + 3 * f.decompositions + 6 + 6 * (f.decompositions + 1)


cdef void write_main_header(Frame *f, const uint32_t *tile_parts, uint8_t **at) noexcept nogil:
    """SOC, SIZ, CAP, COD, QCD, TLM. T.800 A.4-A.7, T.814 A.3"""
    cdef size_t c
    cdef uint32_t r, d
    u16(at, 0xFF4F)
    u16(at, 0xFF51)
    u16(at, 38 + 3 * f.components)
    u16(at, 0x4000)                 # Rsiz: CAP tells more
    for r in range(2):
        # The image and the tile: both from the origin, in both directions.
        u32(at, f.columns)
        u32(at, f.rows)
        u32(at, 0)
        u32(at, 0)
    u16(at, f.components)
    for c in range(f.components):
        u8(at, (0x80 if f.is_signed else 0) | (f.precision - 1))
        u8(at, 1)
        u8(at, 1)
    u16(at, 0xFF50)
    u16(at, 8)
    u32(at, 0x00020000)             # Part 15
    u16(at, max(largest_exponent(f), <uint32_t>8) - 8)
    u16(at, 0xFF52)
    u16(at, 12)
    u8(at, 0)                       # Scod: no precincts
    u8(at, 2)                       # RPCL
    u16(at, 1)                      # one layer
    u8(at, 1 if f.rct else 0)
    u8(at, f.decompositions)
    u8(at, 4)                       # code-blocks of 64
    u8(at, 4)                       # by 64
    u8(at, 0x40)                    # HT
    u8(at, 1)                       # 5/3
    u16(at, 0xFF5C)
    u16(at, 4 + 3 * f.decompositions)
    u8(at, 0x20)                    # one guard bit, no quantisation
    u8(at, (f.nominal + f.rct + 1) << 3)
    for d in range(f.decompositions, 0, -1):
        u8(at, exponent(f, d, False) << 3)
        u8(at, exponent(f, d, False) << 3)
        u8(at, exponent(f, d, True) << 3)
    u16(at, 0xFF55)
    u16(at, 4 + 6 * (f.decompositions + 1))
    u8(at, 0)
    u8(at, 0x60)                    # 2 bytes of tile number, 4 of length
    for r in range(f.decompositions + 1):
        u16(at, 0)
        u32(at, tile_parts[r])


cdef uint32_t largest_exponent(Frame *f) noexcept nogil:
    cdef uint32_t d, most = f.nominal + f.rct + 1
    for d in range(1, f.decompositions + 1):
        most = max(most, exponent(f, d, True))
    return most


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
        u16(&at, 0xFF90)
        u16(&at, 10)
        u16(&at, 0)
        u32(&at, tile_parts[r])
        u8(&at, r)
        u8(&at, f.decompositions + 1)
        u16(&at, 0xFF93)
        for c in range(f.components):
            level = &f.levels[r * f.components + c]
            memcpy(at, w.arena.data + level.header, level.header_length)
            memcpy(at + level.header_length, w.arena.data + level.body, level.body_length)
            at += level.header_length + level.body_length
    u16(&at, 0xFFD9)
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
    # Rows apart by an odd number of cache lines: the rows of a code-block do not share a few sets of the cache.
    stride = ((columns + 63) & ~<size_t>63) + 32
    planes = stride * (4 + (rows + 1) // 2 + rows * (1 + components)) + 2
    w = idle.pop() if idle else Workspace()
    try:
        with nogil:
            ht_range(f.tier, f.samples, f.kind, rows * columns * components, &least, &greatest)
        if least < low or greatest > high:
            raise ValueError(f"samples of {least} to {greatest} are not of {precision} bits")
        least -= f.shift
        greatest -= f.shift
        narrow = max(-least, greatest + 1) <= 1 << (NARROW_BITS - 1 - rct)
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
