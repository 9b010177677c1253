"""HTJ2K lossless codestreams of the shape that `htj2k_encoder` makes, whole or without their finest levels.

One tile, one layer, no precincts, code-blocks of at most 64 x 64 with one cleanup pass at bit-plane 0, the reversible
wavelet. Everything else, and everything damaged, is left to OpenJPH. T.800 Annex A, B.10, F, G; T.814
"""

from libc.stddef cimport size_t
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from pacs._codecs.bits cimport Bits, align, bit, bits, bits_of
from pacs._codecs.ht cimport (
    ALIGNMENT, HT_I8, HT_I16, HT_I32, HT_U8, HT_U16, KEPT_BYTES, NARROW_BITS, aligned, ht_bands_16, ht_bands_32,
    ht_best_tier, ht_inverse_rct_row_16, ht_inverse_rct_row_32, ht_range, ht_store_row_16, ht_store_row_32,
    ht_synthesise_16, ht_synthesise_32, reduced, sample, stride_of,
)
from pacs._codecs.htj2k_headers cimport Frame, open_tile_part, read_main_header
from pacs._codecs.markers cimport Reader
from pacs._codecs.packet_header cimport UNBOUNDED, Band, below, shape_tree

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
        uint32_t *nodes         # of the tag trees of one packet, then the lengths of its code-blocks
        size_t nodes_room
        void *scratch

    def __cinit__(self):
        self.scratch = malloc(2 * sizeof(ht_decode_scratch) + ALIGNMENT)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.planes)
        free(self.nodes)
        free(self.scratch)

    cdef int reserve(self, size_t plane_bytes, size_t nodes) except -1:
        if self.planes_room < plane_bytes:
            free(self.planes)
            self.planes, self.planes_room = malloc(plane_bytes), 0
            if self.planes == NULL:
                raise MemoryError
            self.planes_room = plane_bytes
        if self.nodes_room < nodes:
            free(self.nodes)
            self.nodes, self.nodes_room = <uint32_t *>malloc(nodes * sizeof(uint32_t)), 0
            if self.nodes == NULL:
                raise MemoryError
            self.nodes_room = nodes
        return 0

    cdef size_t held(self):
        return self.planes_room + self.nodes_room * sizeof(uint32_t)


cdef list idle = []     # workspaces that nobody uses; taking and giving back is under the GIL


# --- a level ----------------------------------------------------------------------------------------------------------


# One sub-band: where it goes, and its part of the packet.
cdef struct SubBand:
    uint32_t width
    uint32_t height
    uint32_t bit_planes
    size_t offset           # of its first sample in the plane
    Band trees
    uint32_t *lengths       # of the code-blocks, 0 for those that are not included


cdef bint read_band(SubBand *band, Bits *s) noexcept nogil:
    """Which code-blocks are there and their lengths: one cleanup pass each, at bit-plane 0. T.800 B.10, T.814 B.3"""
    cdef uint32_t x, y, width
    cdef uint32_t *length = band.lengths
    for y in range(band.trees.high):
        for x in range(band.trees.wide):
            length[0] = 0
            if below(&band.trees, band.trees.inclusion, x, y, 1, s):
                below(&band.trees, band.trees.planes, x, y, UNBOUNDED, s)
                if band.trees.planes[<size_t>y * band.trees.wide + x] >> 1 != band.bit_planes - 1 or bit(s):
                    return False
                width = 3
                while bit(s):
                    width += 1
                    if width > 24:
                        return False
                length[0] = bits(s, width)
                if length[0] < 2:
                    return False
            if s.failed:
                return False
            length += 1
    return True


cdef uint32_t shape_level(Frame *f, uint32_t r, SubBand *bands, size_t stride, Workspace w) noexcept nogil:
    """The sub-bands of a resolution level and their trees; how many."""
    cdef uint32_t k, count = 3 if r else 1, levels = f.decompositions - r + (1 if r else 0)
    cdef size_t low_columns = reduced(f.columns, levels), low_rows = reduced(f.rows, levels)
    cdef size_t nodes
    cdef uint32_t *at = w.nodes
    cdef SubBand *band
    for k in range(count):
        band = bands + k
        band.width, band.height, band.offset = <uint32_t>low_columns, <uint32_t>low_rows, 0
        if r and k != 1:
            band.width = <uint32_t>(reduced(f.columns, levels - 1) - low_columns)
            band.offset += low_columns
        if r and k != 0:
            band.height = <uint32_t>(reduced(f.rows, levels - 1) - low_rows)
            band.offset += low_rows * stride
        band.bit_planes = f.bit_planes[3 * (r - 1) + 1 + k if r else 0]
        band.trees.wide = (band.width + f.block_columns - 1) // f.block_columns
        band.trees.high = (band.height + f.block_rows - 1) // f.block_rows
        if not band.width or not band.height:
            band.trees.wide = band.trees.high = 0
            continue
        nodes = shape_tree(&band.trees)
        memset(at, 0, 2 * nodes * sizeof(uint32_t))
        band.trees.inclusion, band.trees.planes = at, at + nodes
        band.lengths = at + 2 * nodes
        at += 2 * nodes + <size_t>band.trees.wide * band.trees.high
    return count


# A code-block that waits for another one of its size: two at once take less time than one by one.
cdef struct Waiting:
    const uint8_t *data[2]
    size_t length[2]
    void *samples[2]
    uint32_t width
    uint32_t height
    uint32_t count


cdef bint decode_waiting(Frame *f, Waiting *blocks, size_t stride, uint32_t planes, sample *kind, Workspace w) noexcept nogil:
    """Those that wait, one or two; `kind` only chooses the type of samples."""
    cdef ht_decode_scratch *scratch = <ht_decode_scratch *>aligned(w.scratch)
    cdef uint32_t count = blocks.count
    blocks.count = 0
    if sample is int16_t:
        if count == 2:
            return ht_decode_block_pair_16(blocks.data, blocks.length, <int16_t **>blocks.samples, stride, blocks.width,
                                           blocks.height, planes, scratch, f.tier) == 0
        return count == 0 or ht_decode_block_16(blocks.data[0], blocks.length[0], <int16_t *>blocks.samples[0], stride,
                                                blocks.width, blocks.height, planes, scratch, f.tier) == 0
    else:
        if count == 2:
            return ht_decode_block_pair_32(blocks.data, blocks.length, <int32_t **>blocks.samples, stride, blocks.width,
                                           blocks.height, planes, scratch, f.tier) == 0
        return count == 0 or ht_decode_block_32(blocks.data[0], blocks.length[0], <int32_t *>blocks.samples[0], stride,
                                                blocks.width, blocks.height, planes, scratch, f.tier) == 0


cdef bint decode_blocks(Frame *f, SubBand *band, sample *plane, size_t stride, Workspace w) noexcept nogil:
    """The code-blocks of a sub-band, in raster order; those that are not included are zero."""
    cdef uint32_t x, y, i, j, k, width, height, planes
    cdef uint32_t *length = band.lengths
    cdef sample *at
    cdef Waiting blocks
    blocks.count = blocks.width = blocks.height = 0
    planes = min(band.bit_planes, <uint32_t>(NARROW_PLANES if sample is int16_t else WIDE_PLANES))
    for j in range(band.trees.high):
        y = j * f.block_rows
        height = min(f.block_rows, band.height - y)
        for i in range(band.trees.wide):
            x = i * f.block_columns
            width = min(f.block_columns, band.width - x)
            at = plane + y * stride + x
            if length[0] == 0:
                for k in range(height):
                    memset(at + k * stride, 0, width * sizeof(sample))
            elif length[0] > f.part_end - f.at:
                return False
            else:
                if blocks.count and (blocks.count == 2 or blocks.width != width or blocks.height != height):
                    if not decode_waiting(f, &blocks, stride, planes, plane, w):
                        return False
                blocks.data[blocks.count], blocks.length[blocks.count] = f.data + f.at, length[0]
                blocks.samples[blocks.count], blocks.width, blocks.height = at, width, height
                blocks.count += 1
                f.at += length[0]
            length += 1
    return decode_waiting(f, &blocks, stride, planes, plane, w)


cdef bint decode_packet(Frame *f, SubBand *bands, uint32_t count, sample *plane, size_t stride, Workspace w) noexcept nogil:
    """The sub-bands of one component in one resolution level into `plane`."""
    cdef uint32_t k
    cdef Bits s
    cdef bint there
    while f.at == f.part_end:
        if not open_tile_part(f):
            return False
    s = bits_of(f.data, f.at, f.part_end)
    there = bit(&s)
    for k in range(count):
        if bands[k].trees.wide == 0:
            continue
        if not there:
            memset(bands[k].lengths, 0, <size_t>bands[k].trees.wide * bands[k].trees.high * sizeof(uint32_t))
        elif not read_band(bands + k, &s):
            return False
    align(&s)
    if s.failed:
        return False
    f.at = s.at
    for k in range(count):
        if not decode_blocks(f, bands + k, plane + bands[k].offset, stride, w):
            return False
    return True


# --- the frame --------------------------------------------------------------------------------------------------------


cdef inline bint fits(Frame *f, const int16_t *samples, size_t count) noexcept nogil:
    """Whether samples without their level shift are of the declared precision, which low-pass bands exceed threefold.

    Then none of the sums in 16 bits that led to them overflowed: those that an encoder takes of them do not, and give
    the same coefficients. (Of low-pass bands that is likely, not certain.) Others are for a decoder of 32 bits.
    """
    cdef int32_t least = 0, greatest = 0, beyond = 1 << (f.precision + 1 if f.dropped else f.precision - 1)
    ht_range(f.tier, samples, HT_I16, count, &least, &greatest)
    return -beyond <= least and greatest < beyond


cdef bint decode_levels(Frame *f, sample *memory, size_t stride, sample *target, size_t target_stride, int kind,
                        uint8_t *out, Workspace w) noexcept nogil:
    """Level by level, coarsest first; `target`, when given, is where the last level of the only component is to be.

    The planes in `memory`: spare rows, the sub-bands, then for each component the image and one of a quarter of it,
    which take turns in holding the levels so far.
    """
    cdef size_t columns = reduced(f.columns, f.dropped), rows = reduced(f.rows, f.dropped), c, y, width, height
    cdef size_t image_stride, low_stride, item, half = stride * ((rows + 1) // 2), size = stride * rows
    cdef uint32_t last = f.decompositions - f.dropped, r, count
    cdef sample *spare = memory
    cdef sample *plane = spare + 4 * stride
    cdef sample *images = plane + size
    cdef sample *image
    cdef sample *low
    cdef SubBand bands[3]
    cdef ht_bands_16 narrow
    cdef ht_bands_32 wide
    cdef int32_t shift = 0 if f.is_signed else 1 << (f.precision - 1)
    for r in range(last + 1):
        for c in range(f.components):
            # Memory of the trees is used again by each packet.
            count = shape_level(f, r, bands, stride, w)
            image = images + c * (size + half)
            image_stride = low_stride = stride
            low = image + size
            if target != NULL:
                image, image_stride = target, target_stride
            if (last - r) & 1:
                image, low = low, image
                image_stride, low_stride = low_stride, image_stride
            if r == 0:
                if not decode_packet(f, bands, count, image, image_stride, w):
                    return False
                continue
            if not decode_packet(f, bands, count, plane, stride, w):
                return False
            width, height = reduced(f.columns, f.decompositions - r), reduced(f.rows, f.decompositions - r)
            if sample is int16_t:
                narrow.ll, narrow.ll_stride, narrow.stride = low, low_stride, stride
                narrow.hl, narrow.lh, narrow.hh = plane + (width + 1) // 2, plane + bands[1].offset, plane + bands[2].offset
                ht_synthesise_16(f.tier, image, image_stride, width, height, narrow, spare)
            else:
                wide.ll, wide.ll_stride, wide.stride = low, low_stride, stride
                wide.hl, wide.lh, wide.hh = plane + (width + 1) // 2, plane + bands[1].offset, plane + bands[2].offset
                ht_synthesise_32(f.tier, image, image_stride, width, height, wide, spare)
    if target != NULL:
        if sample is int16_t and not fits(f, target, columns * rows):
            return False
        if shift:
            for y in range(columns * rows):
                target[y] = <sample>(target[y] + shift)
        return True
    item = 4 if kind == HT_I32 else 1 if kind == HT_U8 or kind == HT_I8 else 2
    for y in range(rows):
        image = images + y * stride
        if f.rct:
            if sample is int16_t:
                ht_inverse_rct_row_16(f.tier, image, image + size + half, image + 2 * (size + half), columns)
            else:
                ht_inverse_rct_row_32(f.tier, image, image + size + half, image + 2 * (size + half), columns)
        for c in range(f.components):
            if sample is int16_t and not fits(f, image + c * (size + half), columns):
                return False
            if sample is int16_t:
                ht_store_row_16(f.tier, out + y * columns * f.components * item, kind, columns, c, f.components, shift,
                                image + c * (size + half))
            else:
                ht_store_row_32(f.tier, out + y * columns * f.components * item, kind, columns, c, f.components, shift,
                                image + c * (size + half))
    return True


cdef bint decode_frame(Frame *f, bint narrow, size_t stride, int kind, uint8_t *out, Workspace w) noexcept nogil:
    cdef void *memory = aligned(w.planes)
    cdef int16_t *target = NULL
    if narrow:
        if f.components == 1 and (kind == HT_U16 or kind == HT_I16):
            target = <int16_t *>out
        return decode_levels(f, <int16_t *>memory, stride, target, reduced(f.columns, f.dropped), kind, out, w)
    return decode_levels(f, <int32_t *>memory, stride, <int32_t *>NULL, 0, kind, out, w)


def decode(const uint8_t[::1] codestream not None, uint8_t[::1] out not None, size_t rows, size_t columns,
           size_t components, int width, bint is_signed, uint32_t precision, uint32_t dropped) -> bool:
    """Samples by pixel into `out`, `width` bytes each (1, 2, or 4: signed) in the machine's order; whether it could.

    `rows`, `columns`, `components`, sign and `precision` are what the codestream has to declare; without its `dropped`
    finest levels rows and columns are divided by 2 that often, rounded up. Values beyond `width` wrap. False: it is of
    another shape, cut, damaged or has larger samples than it declares, and `out` holds nothing of use.
    """
    cdef Frame f
    cdef Reader r
    cdef Workspace w
    cdef size_t stride, planes, nodes
    cdef int kind
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
    rows, columns = reduced(rows, dropped), reduced(columns, dropped)
    if <size_t>out.shape[0] != rows * columns * components * width:
        raise ValueError("the samples are not as many as described")
    f.dropped, f.tier = dropped, tier_used
    f.data, f.at, f.part_end, f.end = r.data, r.at, r.at, r.end
    if width == 4:
        kind = HT_I32
    elif width == 2:
        kind = HT_I16 if is_signed else HT_U16
    else:
        kind = HT_I8 if is_signed else HT_U8
    narrow = f.precision + f.rct <= NARROW_BITS
    stride = stride_of(columns)
    planes = stride * (4 + rows + components * (rows + (rows + 1) // 2)) + 2
    # Two trees have less than 8/3 nodes a code-block and a few, and code-blocks are four samples a side at least.
    nodes = (columns // f.block_columns + 4) * (rows // f.block_rows + 4) * 4 + 64
    w = idle.pop() if idle else Workspace()
    try:
        w.reserve(planes * (2 if narrow else 4) + ALIGNMENT, nodes)
        with nogil:
            done = decode_frame(&f, narrow, stride, kind, &out[0], w)
        return done
    finally:
        if w.held() <= KEPT_BYTES:
            idle.append(w)


def tier(int wanted=-1) -> int:
    """The instructions that are used: 0 portable, 1 AVX2, 2 AVX-512. `wanted` chooses at most that."""
    global tier_used
    if wanted >= 0:
        tier_used = min(wanted, ht_best_tier())
    return tier_used
