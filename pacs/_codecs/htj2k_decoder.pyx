"""HTJ2K lossless codestreams of the shape that `htj2k_encoder` makes, whole or without their finest levels.

One tile, one layer, no precincts, code-blocks of at most 64 x 64 with one cleanup pass at bit-plane 0, the reversible
wavelet. Everything else, and everything damaged, is left to OpenJPH. T.800 Annex A, B.10, F, G; T.814
"""

from libc.stddef cimport size_t
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from pacs._codecs.ht cimport (
    ALIGNMENT, HT_I8, HT_I16, HT_I32, HT_U8, HT_U16, KEPT_BYTES, MOST_IDLE, NARROW_BITS, Planes, aligned, ht_bands_16,
    ht_bands_32, ht_best_tier, ht_inverse_rct_row_16, ht_inverse_rct_row_32, ht_range, ht_store_row_16, ht_store_row_32,
    ht_synthesise_16, ht_synthesise_32, lay_out_planes, make_room, reduced, sample,
)
from pacs._codecs.htj2k_decoder_headers cimport Frame, read_main_header
from pacs._codecs.htj2k_decoder_packets cimport Coded, Level, Levels, SubBand, lay_out, read_packet
from pacs._codecs.markers cimport Reader

cdef extern from "ht/decode_block.h" nogil:
    ctypedef struct ht_decode_scratch:
        pass
    void ht_fill_tables()
    void ht_fill_decode_tables()
    int ht_decode_block_16(const uint8_t *data, size_t length, int16_t *samples, ptrdiff_t stride, uint32_t width,
                           uint32_t height, uint32_t bit_planes, ht_decode_scratch *scratch, int tier)
    int ht_decode_block_32(const uint8_t *data, size_t length, int32_t *samples, ptrdiff_t stride, uint32_t width,
                           uint32_t height, uint32_t bit_planes, ht_decode_scratch *scratch, int tier)
    int ht_decode_block_pair_16(const uint8_t **data, const size_t *length, int16_t **samples, ptrdiff_t stride,
                                uint32_t width, uint32_t height, uint32_t bit_planes, ht_decode_scratch *scratch,
                                int tier)
    int ht_decode_block_pair_32(const uint8_t **data, const size_t *length, int32_t **samples, ptrdiff_t stride,
                                uint32_t width, uint32_t height, uint32_t bit_planes, ht_decode_scratch *scratch,
                                int tier)

cdef enum:
    NARROW_PLANES = 15
    WIDE_PLANES = 30

ht_fill_tables()
ht_fill_decode_tables()
cdef int tier_used = ht_best_tier()


cdef class Workspace:
    """Memory for one frame at a time."""

    cdef:
        void *planes
        size_t planes_room
        void *scratch
        Coded *blocks
        size_t blocks_room
        uint32_t *nodes         # of the tag trees of one sub-band
        size_t nodes_room

    def __cinit__(self):
        self.scratch = malloc(2 * sizeof(ht_decode_scratch) + ALIGNMENT)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.planes)
        free(self.scratch)
        free(self.blocks)
        free(self.nodes)

    cdef int reserve(self, size_t plane_bytes, size_t blocks, size_t nodes) except -1:
        make_room(&self.planes, &self.planes_room, plane_bytes)
        make_room(<void **>&self.blocks, &self.blocks_room, blocks * sizeof(Coded))
        make_room(<void **>&self.nodes, &self.nodes_room, nodes * sizeof(uint32_t))
        return 0

    cdef size_t held(self):
        return self.planes_room + self.blocks_room + self.nodes_room


cdef list idle = []     # workspaces that nobody uses; taking and giving back is under the GIL


# --- code-blocks ------------------------------------------------------------------------------------------------------


# Code-blocks that wait for another one of their size: two at once take less time than one by one.
cdef struct Waiting:
    const uint8_t *data[2]
    size_t length[2]
    void *samples[2]
    uint32_t width
    uint32_t height
    uint32_t planes
    uint32_t count


cdef bint decode_waiting(Frame *f, Waiting *blocks, size_t stride, sample *kind, Workspace w) noexcept nogil:
    """Those that wait, one or two; `kind` only chooses the type of samples."""
    cdef ht_decode_scratch *scratch = <ht_decode_scratch *>aligned(w.scratch)
    cdef uint32_t count = blocks.count
    blocks.count = 0
    if count == 0:
        return True
    if sample is int16_t:
        if count == 2:
            return ht_decode_block_pair_16(blocks.data, blocks.length, <int16_t **>blocks.samples, stride, blocks.width,
                                           blocks.height, blocks.planes, scratch, f.tier) == 0
        return ht_decode_block_16(blocks.data[0], blocks.length[0], <int16_t *>blocks.samples[0], stride, blocks.width,
                                  blocks.height, blocks.planes, scratch, f.tier) == 0
    else:
        if count == 2:
            return ht_decode_block_pair_32(blocks.data, blocks.length, <int32_t **>blocks.samples, stride, blocks.width,
                                           blocks.height, blocks.planes, scratch, f.tier) == 0
        return ht_decode_block_32(blocks.data[0], blocks.length[0], <int32_t *>blocks.samples[0], stride, blocks.width,
                                  blocks.height, blocks.planes, scratch, f.tier) == 0


cdef bint decode_row(
    Frame *f, SubBand *band, size_t j, sample *at, size_t stride, Waiting *blocks, Workspace w,
) noexcept nogil:
    """Row `j` of the code-blocks of a sub-band, whose samples begin at `at`; up to two may have to wait."""
    cdef Coded *coded = w.blocks + band.first_block + j * band.blocks_wide
    cdef uint32_t i, k, width, height, planes
    if j >= band.blocks_high:
        return True
    planes = min(band.bit_planes, <uint32_t>(NARROW_PLANES if sample is int16_t else WIDE_PLANES))
    height = min(f.block_rows, band.height - <uint32_t>j * f.block_rows)
    for i in range(band.blocks_wide):
        width = min(f.block_columns, band.width - i * f.block_columns)
        if coded.length == 0:
            for k in range(height):
                memset(at + k * stride, 0, width * sizeof(sample))
        else:
            if blocks.count == 2 or (
                blocks.count and (blocks.width != width or blocks.height != height or blocks.planes != planes)
            ):
                if not decode_waiting(f, blocks, stride, at, w):
                    return False
            blocks.data[blocks.count], blocks.length[blocks.count] = f.data + coded.offset, coded.length
            blocks.samples[blocks.count], blocks.width, blocks.height = at, width, height
            blocks.planes = planes
            blocks.count += 1
        at += width
        coded += 1
    return True


# --- levels -----------------------------------------------------------------------------------------------------------


cdef bint decode_stripe(
    Frame *f, Level *level, size_t j, sample *image, size_t stride, size_t width, size_t height, const sample *low,
    sample *bands, size_t half, sample *spare, Workspace w,
) noexcept nogil:
    """Row `j` of the code-blocks of the three sub-bands of a level, with those rows of the level before, `low`, to
    `image`, which is at the first of its rows. The last row is whole after the next stripe."""
    cdef size_t first = j * f.block_rows, last = min(first + f.block_rows, (height + 1) // 2)
    cdef uint32_t k
    cdef ht_bands_16 narrow
    cdef ht_bands_32 wide
    cdef Waiting blocks
    blocks.count = 0
    for k in range(3):
        if not decode_row(f, &level.band[k], j, bands + k * f.block_rows * half, half, &blocks, w):
            return False
    if not decode_waiting(f, &blocks, half, bands, w):
        return False
    if sample is int16_t:
        narrow.ll, narrow.ll_stride, narrow.stride = <int16_t *>low + first * half, half, half
        narrow.hl, narrow.lh, narrow.hh = bands, bands + f.block_rows * half, bands + 2 * f.block_rows * half
        ht_synthesise_16(f.tier, image, stride, width, height, first, last, narrow, spare)
    else:
        wide.ll, wide.ll_stride, wide.stride = <int32_t *>low + first * half, half, half
        wide.hl, wide.lh, wide.hh = bands, bands + f.block_rows * half, bands + 2 * f.block_rows * half
        ht_synthesise_32(f.tier, image, stride, width, height, first, last, wide, spare)
    return True


cdef inline size_t stripes_of(Frame *f, size_t height) noexcept nogil:
    """Of an image of that many rows that is made of sub-bands."""
    return ((height + 1) // 2 + f.block_rows - 1) // f.block_rows


cdef bint decode_lowest(Frame *f, Level *level, sample *image, size_t stride, Workspace w) noexcept nogil:
    """The coarsest level: its one sub-band."""
    cdef Waiting blocks
    cdef size_t j
    blocks.count = 0
    for j in range(level.band[0].blocks_high):
        if not decode_row(f, &level.band[0], j, image + j * f.block_rows * stride, stride, &blocks, w):
            return False
    return decode_waiting(f, &blocks, stride, image, w)


cdef bint decode_coarser(
    Frame *f, Levels *levels, size_t c, uint32_t last, sample *target, sample *other, sample *bands, size_t half,
    sample *spare, Workspace w,
) noexcept nogil:
    """A component up to level `last`, to `target`, which takes turns with `other`."""
    cdef sample *image = other if last & 1 else target
    cdef sample *low
    cdef size_t j, width, height
    cdef uint32_t r
    if not decode_lowest(f, &levels.level[c], image, half, w):
        return False
    for r in range(1, last + 1):
        low = image
        image = other if (last - r) & 1 else target
        width, height = reduced(f.columns, f.decompositions - r), reduced(f.rows, f.decompositions - r)
        for j in range(stripes_of(f, height)):
            if not decode_stripe(f, &levels.level[r * f.components + c], j, image + 2 * j * f.block_rows * half, half,
                                 width, height, low, bands, half, spare, w):
                return False
    return True


# Where samples go: by pixel, `item` bytes each.
cdef struct Target:
    uint8_t *out
    int kind
    size_t item
    size_t columns
    size_t rows
    int32_t shift


cdef inline bint fits(Frame *f, const int16_t *samples, size_t count) noexcept nogil:
    """Whether samples without their level shift are of the declared precision, which low-pass bands exceed threefold.

    Then none of the sums in 16 bits that led to them overflowed: those that an encoder takes of them do not, and give
    the same coefficients. (Of low-pass bands that is likely, not certain.) Others are for a decoder of 32 bits.
    """
    cdef int32_t least = 0, greatest = 0, beyond = 1 << (f.precision + 1 if f.dropped else f.precision - 1)
    ht_range(f.tier, samples, HT_I16, count, &least, &greatest)
    return -beyond <= least and greatest < beyond


cdef bint store_rows(
    Frame *f, Target *t, size_t first, size_t last, sample *image, size_t stride, size_t plane,
) noexcept nogil:
    """Rows of all components, `plane` samples apart, through the inverse component transform and shifted."""
    cdef size_t c, y
    cdef sample *row = image
    cdef uint8_t *out
    for y in range(first, last):
        out = t.out + y * t.columns * f.components * t.item
        if f.rct:
            if sample is int16_t:
                ht_inverse_rct_row_16(f.tier, row, row + plane, row + 2 * plane, t.columns)
            else:
                ht_inverse_rct_row_32(f.tier, row, row + plane, row + 2 * plane, t.columns)
        for c in range(f.components):
            if sample is int16_t:
                if not fits(f, row + c * plane, t.columns):
                    return False
                ht_store_row_16(f.tier, out, t.kind, t.columns, c, f.components, t.shift, row + c * plane)
            else:
                ht_store_row_32(f.tier, out, t.kind, t.columns, c, f.components, t.shift, row + c * plane)
        row += stride
    return True


cdef bint decode_finest(
    Frame *f, Levels *levels, Planes *p, Target *t, sample *images, sample *lows, sample *bands, sample *spare,
    Workspace w,
) noexcept nogil:
    """The finest level, stripe by stripe, all components of it, to where samples go."""
    cdef uint32_t r = f.decompositions - f.dropped
    cdef size_t c, j, first, last, plane = p.image_rows * p.stride, done = 0
    cdef sample *image
    for j in range(stripes_of(f, t.rows)):
        first = j * f.block_rows
        last = min(first + f.block_rows, (t.rows + 1) // 2)
        for c in range(f.components):
            # Two rows of the stripe before come first.
            image = images + c * plane + 2 * p.stride
            if not decode_stripe(f, &levels.level[r * f.components + c], j, image, p.stride, t.columns, t.rows,
                                 lows + c * p.low_rows * p.half, bands, p.half, spare + c * 5 * p.stride, w):
                return False
            memcpy(images + c * plane, image + 2 * (last - first - 1) * p.stride, t.columns * sizeof(sample))
        last = t.rows if last == (t.rows + 1) // 2 else 2 * last - 1
        if not store_rows(f, t, done, last, images + (done + 2 - 2 * first) * p.stride, p.stride, plane):
            return False
        done = last
    return True


cdef bint decode_in_place(
    Frame *f, Level *level, Planes *p, Target *t, int16_t *low, int16_t *bands, int16_t *spare, Workspace w,
) noexcept nogil:
    """The same of one component whose samples have the type, and the alignment, of those that are asked for."""
    cdef size_t j, i, end, done = 0
    cdef int16_t *image = <int16_t *>t.out
    for j in range(stripes_of(f, t.rows)):
        if not decode_stripe(f, level, j, image + 2 * j * f.block_rows * t.columns, t.columns, t.columns, t.rows, low,
                             bands, p.half, spare, w):
            return False
        # The next stripe reads the last of the rows that are whole.
        end = min(2 * (j + 1) * f.block_rows - 2, t.rows) if j + 1 < stripes_of(f, t.rows) else t.rows
        if end > done and not fits(f, image + done * t.columns, (end - done) * t.columns):
            return False
        if t.shift:
            for i in range(done * t.columns, end * t.columns):
                image[i] = <int16_t>(image[i] + t.shift)
        done = end
    return True


cdef bint decode_components(Frame *f, Levels *levels, Planes *p, Target *t, sample *memory, Workspace w) noexcept nogil:
    """Component by component up to the finest level, and that of all together."""
    cdef uint32_t last = f.decompositions - f.dropped
    cdef size_t c, j, y, plane = p.image_rows * p.stride
    cdef sample *spare = memory
    cdef sample *images = spare + f.components * 5 * p.stride
    cdef sample *bands = images + f.components * plane
    cdef sample *lows = bands + 3 * f.block_rows * p.half
    cdef sample *other = lows + f.components * p.low_rows * p.half
    cdef Waiting blocks
    if last == 0:
        for j in range(levels.level[0].band[0].blocks_high):
            for c in range(f.components):
                blocks.count = 0
                if not decode_row(f, &levels.level[c].band[0], j, images + c * plane, p.stride, &blocks, w):
                    return False
                if not decode_waiting(f, &blocks, p.stride, images, w):
                    return False
            y = j * f.block_rows
            if not store_rows(f, t, y, min(y + f.block_rows, t.rows), images, p.stride, plane):
                return False
        return True
    for c in range(f.components):
        if not decode_coarser(f, levels, c, last - 1, lows + c * p.low_rows * p.half, other, bands, p.half, spare, w):
            return False
    if sample is int16_t:
        if f.components == 1 and (t.kind == HT_U16 or t.kind == HT_I16) and not <size_t>t.out & 1:
            return decode_in_place(f, &levels.level[last], p, t, lows, bands, spare, w)
    return decode_finest(f, levels, p, t, images, lows, bands, spare, w)


cdef bint decode_frame(Frame *f, Levels *levels, Planes *p, Target *t, bint narrow, Workspace w) noexcept nogil:
    cdef void *memory = aligned(w.planes)
    cdef size_t i
    for i in range((f.decompositions - f.dropped + 1) * f.components):
        if not read_packet(f, &levels.level[i], w.blocks, w.nodes):
            return False
    if narrow:
        return decode_components(f, levels, p, t, <int16_t *>memory, w)
    return decode_components(f, levels, p, t, <int32_t *>memory, w)


def decode(const uint8_t[::1] codestream not None, uint8_t[::1] out not None, size_t rows, size_t columns,
           size_t components, int width, bint is_signed, uint32_t precision, uint32_t dropped) -> bool:
    """Samples by pixel into `out`, `width` bytes each (1, 2, or 4: signed) in the machine's order; whether it could.

    `rows`, `columns`, `components`, sign and `precision` are what the codestream has to declare; without its `dropped`
    finest levels rows and columns are divided by 2 that often, rounded up. Values beyond `width` wrap. False: it is of
    another shape, cut, damaged or has larger samples than it declares, and `out` holds nothing of use.
    """
    cdef Frame f
    cdef Levels levels
    cdef Planes p
    cdef Target t
    cdef Reader r
    cdef Workspace w
    cdef size_t planes
    cdef bint narrow, done
    if codestream.shape[0] < 64:
        return False
    r.data, r.at, r.end, r.failed = &codestream[0], 0, codestream.shape[0], False
    if not read_main_header(&f, &r):
        return False
    if (f.rows, f.columns, f.components, f.precision) != (rows, columns, components, precision):
        return False
    if f.is_signed != is_signed or dropped > f.decompositions or width not in (1, 2, 4):
        return False
    t.rows, t.columns, t.item = reduced(rows, dropped), reduced(columns, dropped), width
    if <size_t>out.shape[0] != t.rows * t.columns * components * width:
        raise ValueError("the samples are not as many as described")
    t.out, t.shift = &out[0], 0 if is_signed else 1 << (precision - 1)
    if width == 4:
        t.kind = HT_I32
    elif width == 2:
        t.kind = HT_I16 if is_signed else HT_U16
    else:
        t.kind = HT_I8 if is_signed else HT_U8
    f.dropped, f.tier = dropped, tier_used
    f.data, f.at, f.part_end, f.end = r.data, r.at, r.at, r.end
    narrow = f.precision + f.rct <= NARROW_BITS
    lay_out(&f, &levels)
    planes = lay_out_planes(&p, t.columns, t.rows, components, f.block_rows, 2 * f.block_rows + 2)
    w = idle.pop() if idle else Workspace()
    try:
        w.reserve(planes * (2 if narrow else 4) + ALIGNMENT, levels.blocks, levels.nodes)
        with nogil:
            done = decode_frame(&f, &levels, &p, &t, narrow, w)
        return done
    finally:
        if w.held() <= KEPT_BYTES and len(idle) < MOST_IDLE:
            idle.append(w)


def tier(int wanted=-1) -> int:
    """The instructions that are used: 0 portable, 1 AVX2, 2 AVX-512. `wanted` chooses at most that."""
    global tier_used
    if wanted >= 0:
        tier_used = min(wanted, ht_best_tier())
    return tier_used
