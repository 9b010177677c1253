"""Tag, Value Representation and length: what stands before every value, item and delimiter (PS3.5 7.1, 7.5)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from pacs._codecs.cursor cimport Cursor, here, remaining, skip, take_tag, take_u16, take_u32
from pacs._codecs.vr cimport VR_NONE, has_long_length, vr_of

cdef enum:
    UNDEFINED = 0xFFFFFFFF      # a length: a delimiter ends the value
    ITEM = 0xFFFEE000
    ITEM_END = 0xFFFEE00D
    SEQUENCE_END = 0xFFFEE0DD


cdef struct Header:
    uint32_t tag, length
    int vr  # VR_NONE: implicit, or two letters that are no VR
    bint implicit, unknown_vr
    size_t start


cdef inline bint take_header(Cursor* c, bint implicit, Header* h) noexcept nogil:
    """Tag, VR and length. False when fewer bytes are left than they take. PS3.5 7.1"""
    cdef uint16_t short_length = 0
    cdef const uint8_t* letters
    h.start = c.position
    h.implicit = implicit
    h.unknown_vr = False
    h.vr = VR_NONE
    if remaining(c) < 8:
        return False
    take_tag(c, &h.tag)
    if not implicit:
        letters = here(c)
        if 65 <= letters[0] <= 90 and 65 <= letters[1] <= 90:
            h.vr = vr_of(letters)
            h.unknown_vr = h.vr == VR_NONE
            skip(c, 2)
            if not has_long_length(h.vr):
                take_u16(c, &short_length)
                h.length = short_length
                return True
            if remaining(c) < 6:
                c.position = h.start
                return False
            skip(c, 2)
            take_u32(c, &h.length)
            return True
        # Some writers fall back to implicit VR in the midst of a Data Set, mostly in sequences.
        h.implicit = True
    take_u32(c, &h.length)
    return True


cdef inline bint begins_explicit(const Cursor* c) noexcept nogil:
    """Whether two capital letters stand where the first element of a Data Set has its VR. It has 6 bytes at least."""
    return 64 < here(c)[4] < 91 and 64 < here(c)[5] < 91
