# The bits of a packet header: most significant first, a zero stuffed behind every byte FF. Inline only. T.800 B.10.1
#
# `Bits.at` moves only in here; a read behind `end`, or a stuffed bit that is not zero, sets `failed` and gives 0.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

cdef struct Bits:
    const uint8_t *data
    size_t at
    size_t end
    uint32_t byte
    uint32_t unread
    bint failed


cdef inline Bits bits_of(const uint8_t *data, size_t at, size_t end) noexcept nogil:
    cdef Bits s
    s.data = data
    s.at = at
    s.end = end
    s.byte = 0
    s.unread = 0
    s.failed = False
    return s


cdef inline void next_byte(Bits *s) noexcept nogil:
    cdef bint stuffed = s.byte == 0xFF
    if s.at >= s.end:
        s.failed = True
        s.byte = 0
        s.unread = 8
        return
    s.byte = s.data[s.at]
    s.unread = 8
    if stuffed:
        # Behind FF anything from 80 on is a marker: this is no packet header.
        if s.byte & 0x80:
            s.failed = True
            s.byte = 0
            return
        s.unread = 7
    s.at += 1


cdef inline uint32_t bit(Bits *s) noexcept nogil:
    if s.unread == 0:
        next_byte(s)
    s.unread -= 1
    return (s.byte >> s.unread) & 1


cdef inline uint32_t bits(Bits *s, uint32_t count) noexcept nogil:
    """At most 32."""
    cdef uint32_t value = 0, taken
    while count:
        if s.unread == 0:
            next_byte(s)
        taken = count if count < s.unread else s.unread
        s.unread -= taken
        count -= taken
        value = (value << taken) | ((s.byte >> s.unread) & ((1 << taken) - 1))
    return value


cdef inline void align(Bits *s) noexcept nogil:
    """To the next byte; a header never ends in FF, a stuffed byte follows it."""
    s.unread = 0
    if s.byte == 0xFF:
        next_byte(s)
        s.unread = 0
