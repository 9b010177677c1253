from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    HASH_BITS = 14


cdef class Dictionary:
    cdef uint32_t[1 << HASH_BITS] tags
    cdef uint8_t[1 << HASH_BITS] vrs
    cdef list repeaters
    cdef object private

    cdef uint32_t slot(self, uint32_t tag) noexcept
    cdef int public_vr(self, uint32_t tag) except -1
    cdef int private_vr(self, uint32_t tag, dict creators) except -1
