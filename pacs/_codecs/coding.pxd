from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from pacs._codecs.partition cimport Style

cdef class Coding:
    cdef:
        Style *components
        size_t count
        uint32_t progression, layers, scod
        list changes

    cdef Coding copy(self)


cdef int read_codings(Coding coding, const uint8_t *data, size_t end, list segments) except -1
cdef bytes joined(const uint8_t *data, list segments, uint32_t wanted)
cdef list shared(bytes chunk, size_t count, int width, list parts)
cdef list tile_part_segments(const uint8_t *data, size_t at, size_t end)
