"""DICOM JSON as it is written: members, text, binary values, and the spans of what it only names (PS3.18 Annex F)."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcpy

import array

from cpython cimport array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc

from pacs._codecs.cursor cimport load_u32, load_u64
from pacs._codecs.jsontext cimport hex_digits, put, put_base64, put_char, put_escaped, put_hex, \
    valid_utf8
from pacs._codecs.values cimport has_fraction, is_space, put_decimal_string, put_integer_string, trimmed
from pacs._codecs.vr cimport *

cdef enum:
    OK  # the only answer in here but for Python's own errors
    INLINE_LIMIT = 1024
    CHARSET_LATIN_1 = 0
    CHARSET_UTF_8 = 1
    CHARSET_OTHER = 2

cdef array.array EMPTY = array.array("Q")


cdef class JsonModel:
    def __cinit__(self):
        self.warnings = {}
        self.decoders = [None] * LEVELS

    def __dealloc__(self):
        PyMem_Free(self.out.data)
        PyMem_Free(self.paths.data)
        PyMem_Free(self.members)
        PyMem_Free(self.spans)
        PyMem_Free(self.fragments)

    cdef int warn(self, str sentence, size_t at) except -1:
        """Each kind once, where it was first met: the list cannot grow with the input."""
        if sentence not in self.warnings:
            self.warnings[sentence] = at
        return 0

    cdef int open_member(self, uint32_t tag) except -1:
        """`"GGGGEEEE":{"vr":"`, remembered in case the members have to be sorted."""
        cdef size_t capacity
        cdef void* grown
        cdef Member* m
        if self.member_count == self.member_capacity:
            capacity = self.member_capacity * 2 or 256
            grown = PyMem_Realloc(self.members, capacity * sizeof(Member))
            if grown is NULL:
                raise MemoryError()
            self.members = <Member*>grown
            self.member_capacity = capacity
        m = &self.members[self.member_count]
        m.tag, m.start, m.stop, m.first_span = tag, self.out.used, self.out.used, self.span_count
        self.member_count += 1
        put_char(&self.out, b'"')
        put_hex(&self.out, tag)
        put(&self.out, b'":{"vr":"', 9)
        hex_digits(self.path + self.path_length, tag, 8)
        self.path_length += 8
        return OK

    cdef int close_member(self) except -1:
        put_char(&self.out, b"}")
        self.members[self.member_count - 1].stop = self.out.used
        return put_char(&self.out, b",")

    cdef int sort_members(self, Level* level) except -1:
        """Tags ascending; of several elements with one tag the last stays, as in pydicom."""
        cdef size_t i, n = self.member_count - level.first_member, start
        cdef Member* m = self.members + level.first_member
        cdef dict last = {m[i].tag: i for i in range(n)}
        cdef bytes text
        cdef list pieces = []
        start = m[0].start
        for i in range(n):
            if <size_t>last[m[i].tag] != i:
                self.drop_spans(m[i].first_span, m[i + 1].first_span if i + 1 < n else self.span_count)
        for tag in sorted(last):
            i = last[tag]
            pieces.append(PyBytes_FromStringAndSize(self.out.data + m[i].start, m[i].stop - m[i].start))
        text = b",".join(pieces) + b","
        self.out.used = start
        return put(&self.out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef void drop_spans(self, size_t first, size_t stop) noexcept:
        cdef size_t i
        for i in range(first, stop):
            self.spans[i].replaced = True

    cdef void extend_path(self, size_t number) noexcept:
        """`/number/`; the path has room for 24 characters of every level."""
        cdef char[20] digits
        cdef int n = 20
        while True:
            n -= 1
            digits[n] = <char>(48 + number % 10)
            number //= 10
            if number == 0:
                break
        self.path[self.path_length] = 47
        # An item takes 8 bytes at least, so its number has 13 digits at most in any file that fits in an address space.
        if n < 6:
            n = 6
        memcpy(self.path + self.path_length + 1, &digits[n], 20 - n)
        self.path_length += 21 - n
        self.path[self.path_length] = 47
        self.path_length += 1

    cdef int binary(self, size_t at, size_t n, uint32_t tag, int vr, bint big_endian) except -1:
        """`InlineBinary` or, above the limit, `BulkDataURI`. Little endian bytes. PS3.18 F.2.6, F.2.7"""
        cdef uint8_t[INLINE_LIMIT] swapped
        cdef const uint8_t* p = self.base + at
        cdef size_t i, j, unit = unit_bytes(vr) if big_endian else 1
        if n > INLINE_LIMIT:
            self.add_span(at, n, vr)
            return self.put_bulk_uri(tag, vr)
        put(&self.out, VR_NAMES + 2 * vr, 2)
        put_char(&self.out, b'"')
        if n == 0:
            return OK
        if unit > 1:
            memcpy(swapped, p, n)
            for i in range(0, n - n % unit, unit):
                for j in range(unit):
                    swapped[i + j] = p[i + unit - 1 - j]
            p = swapped
        put(&self.out, b',"InlineBinary":"', 17)
        put_base64(&self.out, p, n)
        put_char(&self.out, b'"')
        return OK

    cdef int put_bulk_uri(self, uint32_t tag, int vr) except -1:
        put(&self.out, VR_NAMES + 2 * vr, 2)
        put(&self.out, b'","BulkDataURI":"bulkdata/', 26)
        put(&self.out, self.path, self.path_length)
        put_char(&self.out, b'"')
        return OK

    cdef int add_span(self, size_t offset, size_t length, int vr) except -1:
        cdef size_t capacity
        cdef void* grown
        cdef Span* span
        if self.span_count == self.span_capacity:
            capacity = self.span_capacity * 2 or 16
            grown = PyMem_Realloc(self.spans, capacity * sizeof(Span))
            if grown is NULL:
                raise MemoryError()
            self.spans = <Span*>grown
            self.span_capacity = capacity
        span = &self.spans[self.span_count]
        span.path, span.path_length = self.paths.used, self.path_length
        span.offset, span.length, span.vr, span.replaced = offset, length, vr, False
        self.span_count += 1
        return put(&self.paths, self.path, self.path_length)

    cdef int text(self, const uint8_t* p, size_t n, int vr, int depth) except -1:
        """Decode if more than ASCII, split, trim, escape."""
        cdef bint latin_1 = True
        cdef bint escaped = memchr(p, 27, n) is not NULL
        cdef uint8_t high = 0
        cdef size_t i
        cdef bytes decoded
        if has_character_set(vr):
            for i in range(n):
                high |= p[i]
            if high & 128 or escaped:
                self.text_decoded = True
                if escaped or self.charset[depth] == CHARSET_OTHER or (
                    self.charset[depth] == CHARSET_UTF_8 and not valid_utf8(p, n)
                ):
                    decoded = self.decoders[depth](p[:n]).encode("utf-8", "replace")
                    p = <const uint8_t*>PyBytes_AS_STRING(decoded)
                    n = PyBytes_GET_SIZE(decoded)
                    latin_1 = False
                else:
                    latin_1 = self.charset[depth] == CHARSET_LATIN_1
        return self.values(p, n, vr, latin_1)

    cdef int values(self, const uint8_t* p, size_t n, int vr, bint latin_1) except -1:
        cdef size_t start = 0, stop
        cdef const uint8_t* separator
        if vr not in (VR_LO, VR_SH, VR_UC):
            n = trimmed(p, n)
        if n == 0:
            return OK
        separator = NULL if is_single_text(vr) else <uint8_t*>memchr(p, 92, n)
        if separator is NULL and self.stripped(p, &start, n, vr) == start:
            return OK
        put(&self.out, b',"Value":[', 10)
        start = 0
        while True:
            separator = NULL if is_single_text(vr) else <uint8_t*>memchr(p + start, 92, n - start)
            stop = n if separator is NULL else separator - p
            self.one_value(p, start, stop, vr, latin_1)
            if separator is NULL:
                break
            put_char(&self.out, b",")
            start = stop + 1
        put_char(&self.out, b"]")
        return OK

    cdef size_t stripped(self, const uint8_t* p, size_t* start, size_t stop, int vr) noexcept:
        """The end of a value without its padding; `start` moves where leading spaces mean nothing. PS3.5 6.2"""
        cdef size_t begin = start[0]
        if vr in (VR_LO, VR_SH, VR_UC):
            return begin + trimmed(p + begin, stop - begin)
        if vr in (VR_AE, VR_UI, VR_DS, VR_IS, VR_UR):
            while stop > begin and (is_space(p[stop - 1]) or p[stop - 1] == 0):
                stop -= 1
            while vr != VR_UR and begin < stop and is_space(p[begin]):
                begin += 1
            start[0] = begin
        return stop

    cdef int one_value(self, const uint8_t* p, size_t start, size_t stop, int vr, bint latin_1) except -1:
        stop = self.stripped(p, &start, stop, vr)
        if start == stop:
            return put(&self.out, b"null", 4)
        if vr == VR_PN:
            return self.person_name(p, start, stop, latin_1)
        if vr == VR_IS and put_integer_string(&self.out, p + start, stop - start):
            return OK
        # An Exposure Time of `12.5` as text would keep readers that make integers of text from the whole instance.
        if vr == VR_IS and has_fraction(p + start, stop - start) \
                and put_decimal_string(&self.out, p + start, stop - start):
            return OK
        if vr == VR_DS and put_decimal_string(&self.out, p + start, stop - start):
            return OK
        put_char(&self.out, b'"')
        put_escaped(&self.out, p + start, stop - start, latin_1)
        return put_char(&self.out, b'"')

    cdef int person_name(self, const uint8_t* p, size_t start, size_t stop, bint latin_1) except -1:
        """Up to three component groups, those that are not empty. PS3.5 6.2.1, PS3.18 F.2.2"""
        cdef const char** names = [b'"Alphabetic":"', b'"Ideographic":"', b'"Phonetic":"']
        cdef size_t* lengths = [14, 15, 12]
        cdef const uint8_t* found
        cdef size_t group_stop, before
        cdef int group
        before = self.out.used
        for group in range(3):
            found = <uint8_t*>memchr(p + start, 61, stop - start)
            group_stop = stop if found is NULL else found - p
            if group_stop > start:
                put_char(&self.out, b"{" if self.out.used == before else b",")
                put(&self.out, names[group], lengths[group])
                put_escaped(&self.out, p + start, group_stop - start, latin_1)
                put_char(&self.out, b'"')
            if found is NULL:
                break
            start = group_stop + 1
        if self.out.used == before:
            return put(&self.out, b"null", 4)
        return put_char(&self.out, b"}")

    cdef list bulk(self):
        cdef Span* s
        cdef list found = []
        for i in range(self.span_count):
            s = &self.spans[i]
            if not s.replaced:
                found.append((
                    self.paths.data[s.path:s.path + s.path_length].decode("ascii"),
                    VR_NAMES[2 * s.vr:2 * s.vr + 2].decode(), s.offset, s.length,
                ))
        return found

    # --- spans of values that the JSON only names -------------------------------------------------------------

    cdef int note_pixel(self, uint32_t tag, int vr, size_t offset, size_t length, bint encapsulated) except -1:
        if self.has_pixel and self.pixel_tag != tag:
            # Two kinds of pixel data in one instance: the standard allows one. The other is bulk data like any.
            hex_digits(self.path, self.pixel_tag, 8)
            self.add_span(self.pixel_offset, self.pixel_length, self.pixel_vr)
            hex_digits(self.path, tag, 8)
            self.warn("there is more than one kind of pixel data", offset)
        self.has_pixel, self.pixel_tag, self.pixel_vr = True, tag, vr
        self.pixel_offset, self.pixel_length, self.pixel_encapsulated = offset, length, encapsulated
        return 0

    cdef int add_fragment(self, size_t offset, size_t length) except -1:
        cdef size_t capacity
        cdef void* grown
        if self.fragment_count == self.fragment_capacity:
            capacity = self.fragment_capacity * 2 or 64
            grown = PyMem_Realloc(self.fragments, capacity * 2 * sizeof(size_t))
            if grown is NULL:
                raise MemoryError()
            self.fragments = <size_t*>grown
            self.fragment_capacity = capacity
        self.fragments[2 * self.fragment_count] = offset
        self.fragments[2 * self.fragment_count + 1] = length
        self.fragment_count += 1
        return 0

    cdef object offsets(self, size_t offset, size_t n, int width):
        """The entries of an offset table; one of more entries than there are fragments says nothing."""
        cdef size_t i, count = n // width
        cdef array.array found
        if count > self.fragment_count:
            return ()
        found = array.clone(EMPTY, count, False)
        for i in range(count):
            if width == 4:
                found.data.as_ulonglongs[i] = load_u32(self.base + offset + 4 * i, False)
            else:
                found.data.as_ulonglongs[i] = load_u64(self.base + offset + 8 * i, False)
        return found

    cdef tuple pixel(self):
        """What `scan_data_set` says of it; fragments as offset, length, offset, length …"""
        cdef size_t i
        cdef array.array fragments
        if not self.has_pixel:
            return None
        answer = (
            self.pixel_tag, VR_NAMES[2 * self.pixel_vr:2 * self.pixel_vr + 2].decode(), self.pixel_offset,
            self.pixel_length, self.pixel_encapsulated,
        )
        if not self.pixel_encapsulated:
            return answer
        fragments = array.clone(EMPTY, 2 * self.fragment_count, False)
        for i in range(2 * self.fragment_count):
            fragments.data.as_ulonglongs[i] = self.fragments[i]
        return answer + (
            fragments, self.offsets(self.table_offset, self.table_length, 4),
            self.offsets(self.extended_offset[0], self.extended_length[0], 8),
            self.offsets(self.extended_offset[1], self.extended_length[1], 8),
        )
