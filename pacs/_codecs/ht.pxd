# What the HTJ2K encoder and decoder share: the C of `ht/*.h`, for both widths of wavelet sample, and their limits.

from libc.stddef cimport size_t
from libc.stdint cimport int16_t, int32_t, uint32_t
from libc.stdlib cimport free, malloc

ctypedef fused sample:
    int16_t
    int32_t

cdef enum:
    BLOCK = 64              # columns and rows of a code-block
    MOST_LEVELS = 11        # decompositions; 65,535 samples to 64 take ten
    MOST_COMPONENTS = 3
    MOST_SIDE = 1 << 15     # beyond it a resolution level has several precincts
    # Bits of samples, after the component transform, whose wavelet never leaves 16 bits. The sum of two HH samples that
    # the update step takes is the most: 15.9 times half the range of the samples in the eleventh level, for the taps of
    # high-pass filters add up to 0, and less than 150 of rounding. What does not end in a high-pass filter is less than
    # six times the greatest sample. T.800 F.3.8.1, F.4.8.1
    NARROW_BITS = 12
    KEPT_BYTES = 8 << 20    # of memory that is kept from frame to frame,
    MOST_IDLE = 8           # by as many
    ALIGNMENT = 64

cdef extern from "ht/wavelet.h" nogil:
    int HT_U8, HT_I8, HT_U16, HT_I16, HT_I32

    ctypedef struct ht_bands_16:
        int16_t *ll
        int16_t *hl
        int16_t *lh
        int16_t *hh
        size_t ll_stride
        size_t stride

    ctypedef struct ht_bands_32:
        int32_t *ll
        int32_t *hl
        int32_t *lh
        int32_t *hh
        size_t ll_stride
        size_t stride

    int ht_best_tier()
    void ht_range(int tier, const void *frame, int kind, size_t count, int32_t *least, int32_t *greatest)
    void ht_analyse_16(int tier, const int16_t *image, size_t image_stride, size_t width, size_t height, size_t first,
                       size_t last, ht_bands_16 bands, int16_t *spare)
    void ht_analyse_32(int tier, const int32_t *image, size_t image_stride, size_t width, size_t height, size_t first,
                       size_t last, ht_bands_32 bands, int32_t *spare)
    void ht_synthesise_16(int tier, int16_t *image, size_t image_stride, size_t width, size_t height, size_t first,
                          size_t last, ht_bands_16 bands, int16_t *spare)
    void ht_synthesise_32(int tier, int32_t *image, size_t image_stride, size_t width, size_t height, size_t first,
                          size_t last, ht_bands_32 bands, int32_t *spare)
    void ht_load_row_16(int tier, const void *frame, int kind, size_t columns, size_t component, size_t step,
                        int32_t shift, int16_t *plane)
    void ht_load_row_32(int tier, const void *frame, int kind, size_t columns, size_t component, size_t step,
                        int32_t shift, int32_t *plane)
    void ht_store_row_16(int tier, void *frame, int kind, size_t columns, size_t component, size_t step,
                         int32_t shift, const int16_t *plane)
    void ht_store_row_32(int tier, void *frame, int kind, size_t columns, size_t component, size_t step,
                         int32_t shift, const int32_t *plane)
    void ht_rct_row_16(int tier, int16_t *r, int16_t *g, int16_t *b, size_t columns)
    void ht_rct_row_32(int tier, int32_t *r, int32_t *g, int32_t *b, size_t columns)
    void ht_inverse_rct_row_16(int tier, int16_t *y, int16_t *u, int16_t *v, size_t columns)
    void ht_inverse_rct_row_32(int tier, int32_t *y, int32_t *u, int32_t *v, size_t columns)


cdef inline size_t reduced(size_t length, uint32_t levels) noexcept nogil:
    """Rows or columns without that many resolution levels. T.800 B-15"""
    return (length + (<size_t>1 << levels) - 1) >> levels


cdef inline size_t stride_of(size_t columns) noexcept nogil:
    """Rows apart by an odd number of cache lines: the rows of a code-block do not share a few sets of the cache."""
    return ((columns + 63) & ~<size_t>63) + 32


# Where samples lie: what one stripe of code-blocks needs, and the low-pass bands of all components.
cdef struct Planes:
    size_t stride           # of the stripe of the image
    size_t half             # of everything else
    size_t image_rows       # of the stripe, of each component
    size_t low_rows         # of the low-pass bands


cdef inline size_t lay_out_planes(Planes *p, size_t columns, size_t rows, size_t components, size_t block_rows,
                                  size_t image_rows) noexcept nogil:
    """The samples that all of them are: for each component five spare rows and its stripe of the image; the stripes of
    three sub-bands; for each component its low-pass band, and half of one."""
    p.stride, p.half = stride_of(columns), stride_of((columns + 1) // 2)
    p.image_rows, p.low_rows = image_rows, (rows + 1) // 2
    return (
        components * (5 + p.image_rows) * p.stride + 3 * block_rows * p.half
        + (components * p.low_rows + (p.low_rows + 1) // 2) * p.half
    )


cdef inline void *aligned(void *memory) noexcept nogil:
    return <void *>((<size_t>memory + ALIGNMENT - 1) & ~<size_t>(ALIGNMENT - 1))


cdef inline int make_room(void **memory, size_t *room, size_t wanted) except -1:
    """`wanted` bytes at `memory`, which has `room` so far. What was there is lost when they are more."""
    if room[0] < wanted:
        free(memory[0])
        memory[0], room[0] = malloc(wanted), 0
        if memory[0] == NULL:
            raise MemoryError
        room[0] = wanted
    return 0
