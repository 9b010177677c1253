from libc.stdint cimport uint8_t, uint32_t

from pacs._codecs.jsontext cimport Out

cdef enum:
    LEVELS = 66  # nested Data Sets at most, and two to spare


cdef struct Member:
    uint32_t tag
    size_t start, stop  # its text in the JSON, without a comma
    size_t first_span


cdef struct Level:
    # What one Data Set (the file's or an item's) has shown so far
    uint32_t last_tag
    bint any, unordered
    int pixel_representation, bits_allocated, waveform_bits, lut_entries  # -1: not seen here nor in an ancestor
    size_t first_member


cdef struct Span:
    size_t path, path_length, offset, length
    int vr
    bint replaced


cdef class JsonModel:
    cdef const uint8_t* base
    cdef Out out, paths
    cdef Member* members
    cdef size_t member_count, member_capacity
    cdef Span* spans
    cdef size_t span_count, span_capacity
    cdef size_t* fragments
    cdef size_t fragment_count, fragment_capacity
    cdef char[LEVELS * 24] path
    cdef size_t path_length
    cdef int[LEVELS] charset
    cdef list decoders
    cdef bint text_decoded
    cdef dict warnings
    # top-level pixel data
    cdef bint has_pixel, pixel_encapsulated
    cdef uint32_t pixel_tag
    cdef int pixel_vr
    cdef size_t pixel_offset, pixel_length, table_offset, table_length
    cdef size_t[2] extended_offset, extended_length

    cdef int warn(self, str sentence, size_t at) except -1
    cdef int open_member(self, uint32_t tag) except -1
    cdef int close_member(self) except -1
    cdef int sort_members(self, Level* level) except -1
    cdef void drop_spans(self, size_t first, size_t stop) noexcept
    cdef void extend_path(self, size_t number) noexcept
    cdef int binary(self, size_t at, size_t n, uint32_t tag, int vr, bint big_endian) except -1
    cdef int put_bulk_uri(self, uint32_t tag, int vr) except -1
    cdef int add_span(self, size_t offset, size_t length, int vr) except -1
    cdef int text(self, const uint8_t* p, size_t n, int vr, int depth) except -1
    cdef int values(self, const uint8_t* p, size_t n, int vr, bint latin_1) except -1
    cdef size_t stripped(self, const uint8_t* p, size_t* start, size_t stop, int vr) noexcept
    cdef int one_value(self, const uint8_t* p, size_t start, size_t stop, int vr, bint latin_1) except -1
    cdef int person_name(self, const uint8_t* p, size_t start, size_t stop, bint latin_1) except -1
    cdef list bulk(self)
    cdef int note_pixel(self, uint32_t tag, int vr, size_t offset, size_t length, bint encapsulated) except -1
    cdef int add_fragment(self, size_t offset, size_t length) except -1
    cdef object offsets(self, size_t offset, size_t n, int width)
    cdef tuple pixel(self)
