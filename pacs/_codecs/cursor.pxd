"""A bounds-checked cursor over received bytes: the one place where a read position moves.

Every reader says whether the bytes were there and leaves the cursor where it was when they were not.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef struct Cursor:
    const uint8_t* base
    size_t position
    size_t limit  # position <= limit always: whoever makes a cursor checks limit against the buffer
    bint big_endian


cdef inline size_t remaining(const Cursor* c) noexcept nogil:
    return c.limit - c.position


cdef inline const uint8_t* here(const Cursor* c) noexcept nogil:
    return c.base + c.position


cdef inline bint skip(Cursor* c, size_t n) noexcept nogil:
    if c.limit - c.position < n:
        return False
    c.position += n
    return True


cdef inline uint16_t load_u16(const uint8_t* p, bint big_endian) noexcept nogil:
    if big_endian:
        return <uint16_t>((<uint16_t>p[0] << 8) | p[1])
    return <uint16_t>((<uint16_t>p[1] << 8) | p[0])


cdef inline uint32_t load_u32(const uint8_t* p, bint big_endian) noexcept nogil:
    if big_endian:
        return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]
    return (<uint32_t>p[3] << 24) | (<uint32_t>p[2] << 16) | (<uint32_t>p[1] << 8) | p[0]


cdef inline uint64_t load_u64(const uint8_t* p, bint big_endian) noexcept nogil:
    cdef uint64_t first = load_u32(p, big_endian), second = load_u32(p + 4, big_endian)
    return (first << 32 | second) if big_endian else (second << 32 | first)


cdef inline bint take_u16(Cursor* c, uint16_t* value) noexcept nogil:
    if c.limit - c.position < 2:
        return False
    value[0] = load_u16(c.base + c.position, c.big_endian)
    c.position += 2
    return True


cdef inline bint take_u32(Cursor* c, uint32_t* value) noexcept nogil:
    if c.limit - c.position < 4:
        return False
    value[0] = load_u32(c.base + c.position, c.big_endian)
    c.position += 4
    return True


cdef inline bint take_tag(Cursor* c, uint32_t* tag) noexcept nogil:
    """Group and element, each in the byte order of the Transfer Syntax. PS3.5 7.1"""
    cdef const uint8_t* p = c.base + c.position
    if c.limit - c.position < 4:
        return False
    tag[0] = (<uint32_t>load_u16(p, c.big_endian) << 16) | load_u16(p + 2, c.big_endian)
    c.position += 4
    return True


cdef inline bint peek_tag(const Cursor* c, uint32_t* tag) noexcept nogil:
    cdef const uint8_t* p = c.base + c.position
    if c.limit - c.position < 4:
        return False
    tag[0] = (<uint32_t>load_u16(p, c.big_endian) << 16) | load_u16(p + 2, c.big_endian)
    return True
