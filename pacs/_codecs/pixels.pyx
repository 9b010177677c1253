"""Kernels that move samples between a native frame and an array. The face is `pacs.pixels`. PS3.5 8.1

`src` and `dst` are as long as the arguments say: the face checks. Words are read with memcpy, because a frame may
start at any byte of a file. The GIL is released only for frames whose work outweighs getting it back.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int16_t, uint8_t, uint16_t
from libc.string cimport memcmp, memcpy

ctypedef fused word:
    uint8_t
    uint16_t

cdef enum:
    GIL_BYTES = 256 * 1024

cdef extern from *:
    """
    static inline uint16_t pacs_swap(uint16_t v) { return (uint16_t)((v >> 8) | (v << 8)); }
    """
    uint16_t pacs_swap(uint16_t v) noexcept nogil


cdef inline word load(const uint8_t *src, size_t i, bint swap, word value) noexcept nogil:
    """Word `i` of `src`; the `value` passed in only chooses the width."""
    memcpy(&value, src + i * sizeof(word), sizeof(word))
    if word is uint16_t:
        if swap:
            value = pacs_swap(value)
    return value


cdef inline void save(uint8_t *dst, size_t i, word value, bint swap) noexcept nogil:
    if word is uint16_t:
        if swap:
            value = pacs_swap(value)
    memcpy(dst + i * sizeof(word), &value, sizeof(word))


cdef inline word extend(word value, int unused) noexcept nogil:
    """The low bits of `value`, the highest of them copied into the `unused` ones above."""
    if word is uint8_t:
        return <word>(<int8_t>(value << unused) >> unused)
    else:
        return <word>(<int16_t>(value << unused) >> unused)


cdef int look(const uint8_t *src, size_t count, int unused, bint swap, word width) noexcept nogil:
    """Bit 0 set: an unused bit is not zero somewhere. Bit 1 set: one is not a copy of the sign somewhere."""
    cdef word high = <word>(0xFFFF << (8 * sizeof(word) - unused))
    cdef word not_zero = 0, not_sign = 0, used = 0, value
    cdef size_t i
    # Nearly always they are zero, which costs no more than reading the samples.
    for i in range(count):
        used |= load(src, i, False, <word>0)
    if word is uint16_t:
        if swap:
            used = pacs_swap(used)
    if not used & high:
        return 2 if used >> (8 * sizeof(word) - unused - 1) else 0
    # Two loops, so that the compiler need not carry `swap` through the one that matters.
    if swap:
        for i in range(count):
            value = load(src, i, True, <word>0)
            not_zero |= value & high
            not_sign |= value ^ extend(value, unused)
    else:
        for i in range(count):
            value = load(src, i, False, <word>0)
            not_zero |= value & high
            not_sign |= value ^ extend(value, unused)
    return (1 if not_zero else 0) | (2 if not_sign else 0)


cdef void pull(
    const uint8_t *src, uint8_t *dst, uint8_t *residual, size_t pixels, size_t samples, bint planar, bint swap,
    int unused, bint sign, word width,
) noexcept nogil:
    cdef size_t sample, pixel, at = 0
    cdef int used = 8 * sizeof(word) - unused
    cdef word mask = <word>((1 << used) - 1)
    cdef word value
    cdef size_t step = samples if planar else 1
    cdef size_t runs = samples if planar else 1
    cdef size_t count = pixels if planar else pixels * samples
    for sample in range(runs):
        for pixel in range(count):
            value = load(src, at, swap, <word>0)
            if residual is not NULL:
                save(residual, at, <word>(value >> used), False)
            value = extend(value, unused) if sign else <word>(value & mask)
            save(dst, pixel * step + sample, value, False)
            at += 1


cdef void push(
    const uint8_t *src, uint8_t *dst, const uint8_t *residual, size_t pixels, size_t samples, bint planar, bint swap,
    int unused, bint sign, word width,
) noexcept nogil:
    cdef size_t sample, pixel, at = 0
    cdef int used = 8 * sizeof(word) - unused
    cdef word mask = <word>((1 << used) - 1)
    cdef word value
    cdef size_t step = samples if planar else 1
    cdef size_t runs = samples if planar else 1
    cdef size_t count = pixels if planar else pixels * samples
    for sample in range(runs):
        for pixel in range(count):
            value = load(src, pixel * step + sample, False, <word>0)
            value = extend(value, unused) if sign else <word>(value & mask)
            if residual is not NULL:
                value |= <word>(load(residual, at, False, <word>0) << used)
            save(dst, at, value, swap)
            at += 1


cdef int look_any(const uint8_t *src, size_t count, int width, int unused, bint swap) noexcept nogil:
    if width == 1:
        return look(src, count, unused, swap, <uint8_t>0)
    return look(src, count, unused, swap, <uint16_t>0)


def same(const uint8_t[::1] one, const uint8_t[::1] other):
    """Whether two buffers hold the same bytes."""
    cdef size_t length = one.shape[0]
    cdef bint differ
    if one.shape[0] != other.shape[0]:
        return False
    if not length:
        return True
    if length <= 4 * GIL_BYTES:
        return memcmp(&one[0], &other[0], length) == 0
    with nogil:  # a mapped file may have to be read
        differ = memcmp(&one[0], &other[0], length) != 0
    return not differ


cdef void move(const uint8_t *src, uint8_t *dst, size_t count, word by) noexcept nogil:
    cdef size_t i
    for i in range(count):
        save(dst, i, <word>(load(src, i, False, <word>0) - by), False)


def less(const uint8_t[::1] src not None, uint8_t[::1] dst not None, int width, int by) -> None:
    """Samples of `width` bytes in the machine's order, `by` less each, wrapping."""
    cdef size_t count = <size_t>src.shape[0] // width
    if src.shape[0] != dst.shape[0] or not count:
        return
    if src.shape[0] > 4 * GIL_BYTES:
        with nogil:
            if width == 1:
                move(&src[0], &dst[0], count, <uint8_t>by)
            else:
                move(&src[0], &dst[0], count, <uint16_t>by)
    elif width == 1:
        move(&src[0], &dst[0], count, <uint8_t>by)
    else:
        move(&src[0], &dst[0], count, <uint16_t>by)


def unused_bits(const uint8_t[::1] src not None, int width, int unused, bint swap) -> int:
    """What `look` finds in all samples of `src`, `width` bytes each, the upper `unused` bits of which are unused."""
    cdef size_t count = <size_t>src.shape[0] // width
    cdef int found
    if count == 0:
        return 0
    if src.shape[0] > 4 * GIL_BYTES:
        with nogil:
            found = look_any(&src[0], count, width, unused, swap)
        return found
    return look_any(&src[0], count, width, unused, swap)


def extract(
    const uint8_t[::1] src not None, uint8_t[::1] dst not None, uint8_t[::1] residual, size_t pixels, size_t samples,
    int width, bint planar, bint swap, int unused, bint sign,
) -> None:
    """Frame bytes to samples by pixel, in the machine's order; what the unused bits held to `residual`, in file order."""
    cdef uint8_t *rest = &residual[0] if residual is not None else NULL
    if src.shape[0] > GIL_BYTES:
        with nogil:
            if width == 1:
                pull(&src[0], &dst[0], rest, pixels, samples, planar, swap, unused, sign, <uint8_t>0)
            else:
                pull(&src[0], &dst[0], rest, pixels, samples, planar, swap, unused, sign, <uint16_t>0)
    elif width == 1:
        pull(&src[0], &dst[0], rest, pixels, samples, planar, swap, unused, sign, <uint8_t>0)
    else:
        pull(&src[0], &dst[0], rest, pixels, samples, planar, swap, unused, sign, <uint16_t>0)


def restore(
    const uint8_t[::1] src not None, uint8_t[::1] dst not None, const uint8_t[::1] residual, size_t pixels,
    size_t samples, int width, bint planar, bint swap, int unused, bint sign,
) -> None:
    """The inverse of `extract`; `sign` fills the unused bits with copies of the sign, else they are zero or residual."""
    cdef const uint8_t *rest = &residual[0] if residual is not None else NULL
    if dst.shape[0] > GIL_BYTES:
        with nogil:
            if width == 1:
                push(&src[0], &dst[0], rest, pixels, samples, planar, swap, unused, sign, <uint8_t>0)
            else:
                push(&src[0], &dst[0], rest, pixels, samples, planar, swap, unused, sign, <uint16_t>0)
    elif width == 1:
        push(&src[0], &dst[0], rest, pixels, samples, planar, swap, unused, sign, <uint8_t>0)
    else:
        push(&src[0], &dst[0], rest, pixels, samples, planar, swap, unused, sign, <uint16_t>0)
