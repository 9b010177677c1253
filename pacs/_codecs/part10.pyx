"""One pass over a Data Set: its DICOM JSON and the spans of its long values (PS3.5 7, PS3.18 Annex F).

Inside, functions answer OK, FAILED (with `self.failure` and `self.failed_at` set) or END; the Python callables
at the bottom raise once. `except -1` is for Python's own errors (memory).

What is not to the letter of the standard follows pydicom, which the tests compare with.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from pacs.errors import DicomError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc

from pacs._codecs.cursor cimport Cursor, here, load_u16, load_u32, load_u64, peek_tag, remaining, skip, take_tag, take_u16, take_u32
from pacs._codecs.jsontext cimport Out, hex_digits, put, put_base64, put_char, put_escaped, put_hex, \
    reserve, valid_utf8
from pacs._codecs.values cimport is_space, put_decimal_string, put_integer_string, put_numbers, trimmed
from pacs._codecs.vr cimport *

cdef enum:
    OK, FAILED, END
    MAX_DEPTH = 64
    INLINE_LIMIT = 1024
    UNDEFINED = 0xFFFFFFFF
    ITEM = 0xFFFEE000
    ITEM_END = 0xFFFEE00D
    SEQUENCE_END = 0xFFFEE0DD
    CHARSET_LATIN_1 = 0
    CHARSET_UTF_8 = 1
    CHARSET_OTHER = 2
    HASH_BITS = 14

cdef const char* DEPTH_FAILURE = b"sequences are nested too deeply"

cdef uint8_t[676] vr_by_letters  # VR_NONE where two capital letters are no VR


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


cdef struct Header:
    uint32_t tag, length
    int vr
    bint implicit, unknown_vr
    size_t start


def _vr_number(str name):
    for number in range(VR_US_SS):
        if name == VR_NAMES[2 * number:2 * number + 2].decode():
            return number
    return {"US or SS": VR_US_SS, "OB or OW": VR_OB_OW, "OB_OW": VR_OB_OW, "US or OW": VR_US_OW,
            "US or SS or OW": VR_US_SS_OW}.get(name, VR_UN)


def _fill_letters():
    for i in range(676):
        vr_by_letters[i] = VR_NONE
    for i in range(VR_US_SS):
        vr_by_letters[(VR_NAMES[2 * i] - 65) * 26 + VR_NAMES[2 * i + 1] - 65] = i


_fill_letters()


cdef class Dictionary:
    """VR by tag: the public elements in an open hash table, repeating groups by mask, private ones through Python."""

    cdef uint32_t[1 << HASH_BITS] tags
    cdef uint8_t[1 << HASH_BITS] vrs
    cdef list repeaters
    cdef object private

    def __init__(self, entries, repeaters, private):
        """`entries`: (tag, VR name); `repeaters`: (bits, mask, VR name); `private(creator)`: dict by key or None."""
        cdef uint32_t slot, tag
        cdef int count = 0
        for i in range(1 << HASH_BITS):
            self.vrs[i] = VR_NONE
        for tag, name in entries:
            count += 1
            if count > (1 << HASH_BITS) * 3 // 4:
                raise ValueError("more dictionary entries than the table is made for")
            slot = self.slot(tag)
            self.tags[slot] = tag
            self.vrs[slot] = _vr_number(name)
        self.repeaters = [(bits, mask, _vr_number(name)) for bits, mask, name in repeaters]
        self.private = private

    cdef uint32_t slot(self, uint32_t tag) noexcept:
        cdef uint32_t slot = <uint32_t>(tag * <uint32_t>2654435761) >> (32 - HASH_BITS)
        while self.vrs[slot] != VR_NONE and self.tags[slot] != tag:
            slot = (slot + 1) & ((1 << HASH_BITS) - 1)
        return slot

    cdef int public_vr(self, uint32_t tag) except -1:
        """VR_NONE when the dictionary does not know the tag."""
        cdef int vr = self.vrs[self.slot(tag)]
        cdef uint32_t bits, mask
        if vr == VR_NONE and not tag >> 16 & 1:
            for bits, mask, number in self.repeaters:
                if (tag ^ bits) & mask == 0:
                    return number
        return vr

    cdef int private_vr(self, uint32_t tag, dict creators) except -1:
        """LO for a private creator, else what the creator's own dictionary says, else UN. PS3.5 7.8, 6.2.2"""
        cdef uint32_t group = tag >> 16, element = tag & 0xFFFF
        if 0x10 <= element <= 0xFF:
            return VR_LO
        if creators is None or element <= 0xFF:
            return VR_UN
        block = creators.get(group << 16 | element >> 8)
        if block is None:
            return VR_UN
        # Whole tag, tag with any block, any group of the hundred with any block: as private dictionaries list them.
        for key in (tag, 1 << 32 | group << 16 | element & 0xFF, 2 << 32 | group >> 8 << 16 | element & 0xFF):
            name = block.get(key)
            if name is not None:
                return _vr_number(name)
        return VR_UN


cdef class Scanner:
    cdef const uint8_t* base
    cdef size_t size
    cdef Dictionary dictionary
    cdef object repertoire
    cdef Out out, paths
    cdef Member* members
    cdef size_t member_count, member_capacity
    cdef Span* spans
    cdef size_t span_count, span_capacity
    cdef size_t* fragments
    cdef size_t fragment_count, fragment_capacity
    cdef char[(MAX_DEPTH + 2) * 24] path
    cdef size_t path_length
    cdef size_t walks_left
    cdef int[MAX_DEPTH + 2] charset
    cdef list decoders, creators
    cdef const char* failure
    cdef size_t failed_at
    cdef dict warnings
    # top-level pixel data
    cdef bint has_pixel, pixel_encapsulated
    cdef uint32_t pixel_tag
    cdef int pixel_vr
    cdef size_t pixel_offset, pixel_length, table_offset, table_length
    cdef size_t[2] extended_offset, extended_length
    # what was needed before it was known: a second pass starts with it
    cdef bint wants_pixel_representation, text_decoded, late_charset
    cdef bytes charset_value

    def __cinit__(self):
        self.warnings = {}
        self.decoders = [None] * (MAX_DEPTH + 2)
        self.creators = [None] * (MAX_DEPTH + 2)

    def __dealloc__(self):
        PyMem_Free(self.out.data)
        PyMem_Free(self.paths.data)
        PyMem_Free(self.members)
        PyMem_Free(self.spans)
        PyMem_Free(self.fragments)

    cdef int fail(self, const char* failure, size_t at) noexcept:
        self.failure = failure
        self.failed_at = at
        return FAILED

    cdef int warn(self, str sentence, size_t at) except -1:
        """Each kind once, where it was first met: the list cannot grow with the input."""
        if sentence not in self.warnings:
            self.warnings[sentence] = at
        return 0

    # --- Data Elements ----------------------------------------------------------------------------------------

    cdef int header(self, Cursor* c, bint implicit, Header* h) except -1:
        """Tag, VR and length. END when fewer bytes are left than a header takes. PS3.5 7.1"""
        cdef uint16_t short_length = 0
        cdef const uint8_t* letters
        h.start = c.position
        h.implicit = implicit
        h.unknown_vr = False
        h.vr = VR_NONE
        if remaining(c) < 8:
            return END
        take_tag(c, &h.tag)
        if not implicit:
            letters = here(c)
            if 65 <= letters[0] <= 90 and 65 <= letters[1] <= 90:
                h.vr = vr_by_letters[(letters[0] - 65) * 26 + letters[1] - 65]
                h.unknown_vr = h.vr == VR_NONE
                skip(c, 2)
                if not has_long_length(h.vr):
                    take_u16(c, &short_length)
                    h.length = short_length
                    return OK
                if remaining(c) < 6:
                    c.position = h.start
                    return END
                skip(c, 2)
                take_u32(c, &h.length)
                return OK
            # Some writers fall back to implicit VR in the midst of a Data Set, mostly in sequences.
            h.implicit = True
        take_u32(c, &h.length)
        return OK

    cdef int find_vr(self, Header* h, Level* level, dict creators, Cursor* c) except -1:
        """The VR to write: the file's, or the dictionary's where the file has none or only UN."""
        cdef int vr = h.vr, known
        cdef uint32_t next_tag
        if h.unknown_vr:
            self.warn("a Data Element has a Value Representation that does not exist, read as UN", h.start)
            return VR_UN
        if h.length == UNDEFINED and vr == VR_UN:
            return VR_SQ  # PS3.5 6.2.2
        if vr == VR_NONE or vr == VR_UN:
            if h.tag >> 16 & 1:
                known = self.dictionary.private_vr(h.tag, creators)
            elif vr == VR_UN and h.length >= 0xFFFF:
                known = VR_UN
            else:
                known = self.dictionary.public_vr(h.tag)
            if h.length == UNDEFINED and known != VR_SQ and (known == VR_NONE or h.tag >> 16 & 1):
                known = VR_SQ if peek_tag(c, &next_tag) and next_tag == ITEM else VR_UN
            vr = VR_UN if known == VR_NONE else known
        if vr >= VR_US_SS:
            vr = self.resolve(vr, h, level)
        return vr

    cdef int resolve(self, int vr, Header* h, Level* level) except -1:
        """One of the VRs that the dictionary leaves open. PS3.5 Annex A, PS3.6"""
        if vr == VR_US_SS and is_us_or_ss(h.tag):
            if level.pixel_representation < 0:
                self.wants_pixel_representation = True
            return VR_SS if level.pixel_representation > 0 else VR_US
        if vr == VR_US_OW:
            return VR_US if level.lut_entries == 1 else VR_OW
        if h.tag == 0x7FE00010 and h.length == UNDEFINED:
            return VR_OB
        if vr == VR_OB_OW and not h.implicit:
            if h.tag == 0x7FE00010:
                return VR_OB if level.bits_allocated <= 8 else VR_OW
            if h.tag >> 16 == 0x5400:
                return VR_OB if level.waveform_bits <= 8 else VR_OW
        return VR_OW

    cdef int data_set(self, Cursor* c, size_t end, bint undefined, bint implicit, int depth, Level* level) except -1:
        """The object of one Data Set: to its Item Delimitation Item if `undefined`, else as far as `end`."""
        cdef int status
        cdef const uint8_t* start = here(c)
        level.any = level.unordered = False
        level.last_tag = 0
        level.first_member = self.member_count
        self.creators[depth] = None
        if depth and not implicit and remaining(c) >= 6:
            # An item inside explicit VR may be implicit as a whole: that of a UN is. PS3.5 6.2.2
            implicit = not (64 < start[4] < 91 and 64 < start[5] < 91)
        put_char(&self.out, b"{")
        while undefined or c.position < end:
            status = self.element(c, implicit, depth, level)
            if status == END:
                break
            if status == FAILED:
                return FAILED
        if level.unordered:
            self.sort_members(level)
        self.member_count = level.first_member
        if self.out.data[self.out.used - 1] == 44:
            self.out.data[self.out.used - 1] = 125
        else:
            put_char(&self.out, b"}")
        return OK

    cdef int element(self, Cursor* c, bint implicit, int depth, Level* level) except -1:
        cdef Header h
        cdef int vr, status
        cdef size_t length
        status = self.header(c, implicit, &h)
        if status != OK:
            if remaining(c) and depth == 0:
                self.warn("bytes behind the last whole Data Element are ignored", c.position)
            return END
        if h.tag == ITEM_END:
            if depth == 0 and remaining(c):
                self.warn("an Item Delimitation Item outside a sequence ends the Data Set", h.start)
            return END
        vr = self.find_vr(&h, level, self.creators[depth], c)
        length = h.length
        if h.length != UNDEFINED and length > remaining(c):
            self.warn("a value is longer than the bytes that follow and is cut", h.start)
            length = remaining(c)
        if h.tag & 0xFFFF == 0 or h.tag >> 16 == 0xFFFE:
            # Group lengths have no place in DICOM JSON, nor have delimiters without their beginning.
            if h.tag >> 16 == 0xFFFE:
                self.warn("an item or delimiter outside a sequence is ignored", h.start)
            elif h.tag == 0:
                self.warn("zeros follow the last Data Element", h.start)
            if h.length != UNDEFINED:
                skip(c, length)
                return OK
        return self.member(c, &h, vr, length, depth, level)

    cdef int member(self, Cursor* c, Header* h, int vr, size_t length, int depth, Level* level) except -1:
        """`"GGGGEEEE":{…},` and what the Data Set's later elements need to know of this one."""
        cdef Member* m
        cdef int status
        if level.any and h.tag <= level.last_tag:
            level.unordered = True
            if h.tag == 0x00080005 and depth == 0:
                self.late_charset = self.text_decoded
            self.warn("Data Elements are not in ascending order", h.start)
        level.any = True
        level.last_tag = h.tag
        self.grow_members()
        m = &self.members[self.member_count]
        self.member_count += 1
        m.tag = h.tag
        m.start = self.out.used
        m.first_span = self.span_count
        put_char(&self.out, b'"')
        put_hex(&self.out, h.tag)
        put(&self.out, b'":{"vr":"', 9)
        hex_digits(self.path + self.path_length, h.tag, 8)
        self.path_length += 8
        if h.length == UNDEFINED:
            status = self.undefined_length(c, h, vr, depth, level)
        elif vr == VR_SQ:
            status = self.defined_sequence(c, h, length, depth, level)
        else:
            status = self.value(c.position, length, h.tag, vr, c.big_endian, depth, level)
            skip(c, length)
        self.path_length -= 8
        if status == END:
            self.out.used = self.members[self.member_count - 1].start
            self.member_count -= 1
        if status != OK:
            return status
        put_char(&self.out, b"}")
        self.members[self.member_count - 1].stop = self.out.used
        put_char(&self.out, b",")
        return OK

    cdef int grow_members(self) except -1:
        cdef size_t capacity
        cdef void* grown
        if self.member_count == self.member_capacity:
            capacity = self.member_capacity * 2 or 256
            grown = PyMem_Realloc(self.members, capacity * sizeof(Member))
            if grown is NULL:
                raise MemoryError()
            self.members = <Member*>grown
            self.member_capacity = capacity
        return 0

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

    # --- sequences --------------------------------------------------------------------------------------------

    cdef int undefined_length(self, Cursor* c, Header* h, int vr, int depth, Level* level) except -1:
        """A sequence, encapsulated pixel data, or some other value that a delimiter ends. PS3.5 7.5, A.4"""
        cdef size_t start = c.position, end
        if vr == VR_SQ:
            put(&self.out, b'SQ"', 3)
            return self.items(c, c.limit, True, h.implicit, depth, level)
        if depth == 0 and 0x7FE00008 <= h.tag <= 0x7FE00010 and h.tag in (0x7FE00008, 0x7FE00009, 0x7FE00010):
            self.encapsulated(c, &end)
            self.note_pixel(h.tag, vr, start, c.position - start, True)
            return self.put_bulk_uri(h.tag, vr)
        if not self.walk(c, &end) and not self.find_delimiter(c, &end):
            if depth:
                return self.fail(b"a value of undefined length has no end", h.start)
            self.warn("a value of undefined length has no end: it and what follows are ignored", h.start)
            c.position = c.limit
            return END
        return self.value(start, end - start, h.tag, vr, c.big_endian, depth, level)

    cdef int defined_sequence(self, Cursor* c, Header* h, size_t length, int depth, Level* level) except -1:
        """A sequence of known length; one that cannot be read stays as bytes, since its extent is certain."""
        cdef Cursor inner = c[0]
        cdef size_t text = self.out.used, span_count = self.span_count, path_length = self.path_length
        cdef size_t member_count = self.member_count
        cdef int status
        inner.limit = c.position + length
        put(&self.out, b'SQ"', 3)
        status = self.items(&inner, inner.limit, False, h.implicit, depth, level)
        if status == FAILED:
            if self.failure == DEPTH_FAILURE:
                return FAILED
            self.warn("a sequence that cannot be read is kept as UN", self.failed_at)
            self.out.used, self.span_count, self.path_length = text, span_count, path_length
            self.member_count = member_count
            status = self.binary(c.position, length, h.tag, VR_UN, c.big_endian)
        skip(c, length)
        return status

    cdef int items(self, Cursor* c, size_t end, bint undefined, bint implicit, int depth, Level* parent) except -1:
        """`,"Value":[…]` with the items of a sequence; nothing when there are none. PS3.5 7.5"""
        cdef Level level
        cdef uint32_t tag = 0, length = 0
        cdef size_t number = 0, text = self.out.used, path_length = self.path_length
        cdef int status
        if depth + 1 >= MAX_DEPTH:
            return self.fail(DEPTH_FAILURE, c.position)
        put(&self.out, b',"Value":[', 10)
        while undefined or c.position < end:
            if remaining(c) < 8:
                return self.fail(b"a sequence is not complete", c.position)
            take_tag(c, &tag)
            take_u32(c, &length)
            if tag == SEQUENCE_END:
                break
            if tag != ITEM and tag != ITEM_END:
                return self.fail(b"there is no item where a sequence has to have one", c.position - 8)
            if number:
                put_char(&self.out, b",")
            self.extend_path(number)
            self.inherit(&level, parent, depth + 1)
            status = self.data_set(
                c, c.limit if length == UNDEFINED else c.position + length, length == UNDEFINED, implicit,
                depth + 1, &level,
            )
            self.path_length = path_length
            if status == FAILED:
                return FAILED
            number += 1
        if number:
            put_char(&self.out, b"]")
        else:
            self.out.used = text
        return OK

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

    cdef void inherit(self, Level* level, const Level* parent, int depth) noexcept:
        level.pixel_representation = parent.pixel_representation
        level.bits_allocated = parent.bits_allocated
        level.waveform_bits = parent.waveform_bits
        level.lut_entries = -1
        self.charset[depth] = self.charset[depth - 1]
        self.decoders[depth] = self.decoders[depth - 1]

    # --- values that a delimiter ends -------------------------------------------------------------------------

    cdef bint walk(self, Cursor* c, size_t* end) noexcept:
        """Past a value made of items, as encapsulated pixel data is; the cursor stays when it is not. PS3.5 A.4

        Failed walks share one allowance of steps: a crafted file could have each of many values walk the same items.
        """
        cdef Cursor ahead = c[0]
        cdef uint32_t tag = 0, length = 0
        while self.walks_left:
            end[0] = ahead.position
            if not take_tag(&ahead, &tag):
                return False
            if tag == SEQUENCE_END:
                skip(&ahead, 4 if remaining(&ahead) >= 4 else remaining(&ahead))
                c.position = ahead.position
                return True
            if tag != ITEM or not take_u32(&ahead, &length) or not skip(&ahead, length):
                return False
            self.walks_left -= 1
        return False

    cdef bint find_delimiter(self, Cursor* c, size_t* end) noexcept:
        """Past the next Sequence Delimitation Item, byte by byte; the cursor stays when there is none."""
        cdef const uint8_t* wanted = <const uint8_t*>(b"\xff\xfe\xe0\xdd" if c.big_endian else b"\xfe\xff\xdd\xe0")
        cdef const uint8_t* p = here(c)
        cdef const uint8_t* stop = c.base + c.limit
        while stop - p >= 4:
            p = <uint8_t*>memchr(p, wanted[0], stop - p - 3)
            if p is NULL:
                return False
            if memcmp(p, wanted, 4) == 0:
                end[0] = p - c.base
                c.position = end[0] + (8 if stop - p >= 8 else stop - p)
                return True
            p += 1
        return False

    cdef int encapsulated(self, Cursor* c, size_t* end) except -1:
        """Fragments and the Basic Offset Table of top-level pixel data. PS3.5 A.4"""
        cdef uint32_t tag = 0, length = 0
        cdef size_t available, start
        cdef bint table = True
        self.fragment_count = self.table_length = self.table_offset = 0
        while True:
            end[0] = start = c.position
            if remaining(c) < 8:
                self.warn("encapsulated pixel data has no end", c.position)
                c.position = end[0] = c.limit
                return OK
            take_tag(c, &tag)
            take_u32(c, &length)
            if tag == SEQUENCE_END:
                return OK
            if tag != ITEM:
                self.warn("encapsulated pixel data has something else than a fragment", start)
                c.position = start
                if not self.find_delimiter(c, end):
                    c.position = end[0] = c.limit
                return OK
            available = length
            if available > remaining(c):
                self.warn("the last fragment is longer than the bytes that follow and is cut", start)
                available = remaining(c)
            if table:
                self.table_offset, self.table_length = c.position, available
            else:
                self.add_fragment(c.position, available)
            table = False
            skip(c, available)

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

    # --- values -----------------------------------------------------------------------------------------------

    cdef int value(self, size_t at, size_t n, uint32_t tag, int vr, bint big_endian, int depth, Level* level) except -1:
        """From the VR's name to the end of the value: `XX","Value":[…]`."""
        cdef const uint8_t* p = self.base + at
        self.notice(p, n, tag, vr, big_endian, depth, level)
        if depth == 0 and n and tag >> 16 == 0x7FE0:
            if tag in (0x7FE00008, 0x7FE00009, 0x7FE00010):
                self.note_pixel(tag, vr, at, n, False)
                return self.put_bulk_uri(tag, vr)
            if tag == 0x7FE00001 or tag == 0x7FE00002:
                self.extended_offset[(tag & 3) - 1], self.extended_length[(tag & 3) - 1] = at, n
        if unit_bytes(vr) > 1 and not is_binary(vr) and n % unit_bytes(vr):
            if vr == VR_AT:
                n -= n % 4
            else:
                self.warn("a value's length does not fit its Value Representation, read as UN", at)
                vr = VR_UN
        if is_binary(vr):
            return self.binary(at, n, tag, vr, big_endian)
        put(&self.out, VR_NAMES + 2 * vr, 2)
        put_char(&self.out, b'"')
        if n == 0:
            return OK
        if unit_bytes(vr) > 1:
            put_numbers(&self.out, p, n, vr, big_endian, is_lut_descriptor(tag))
            return OK
        if tag == 0x00080005:
            if trimmed(p, n):
                put(&self.out, b',"Value":["ISO_IR 192"]', 23)  # what JSON itself is encoded in
            return OK
        return self.text(p, n, vr, depth)

    cdef int notice(
        self, const uint8_t* p, size_t n, uint32_t tag, int vr, bint big_endian, int depth, Level* level
    ) except -1:
        """Elements that decide how others are read."""
        cdef int number
        if tag == 0x00080005:
            text = p[:trimmed(p, n)]
            self.charset[depth], self.decoders[depth] = self.repertoire(text)
            if depth == 0:
                self.charset_value = text
        elif tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and n <= 64:
            block = self.dictionary.private(p[:trimmed(p, n)])
            if block is not None:
                if self.creators[depth] is None:
                    self.creators[depth] = {}
                (<dict>self.creators[depth])[tag] = block
        elif n >= 2 and (vr == VR_US or vr == VR_SS):
            number = load_u16(p, big_endian)
            if tag == 0x00280103:
                level.pixel_representation = number
            elif tag == 0x00280100:
                level.bits_allocated = number
            elif tag == 0x54001004:
                level.waveform_bits = number
            elif tag == 0x00283002:
                level.lut_entries = number
        return 0

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

    # --- text -------------------------------------------------------------------------------------------------

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

    # --- answers ----------------------------------------------------------------------------------------------

    cdef tuple offsets_32(self, size_t offset, size_t n):
        return tuple([load_u32(self.base + offset + 4 * i, False) for i in range(n // 4)])

    cdef tuple offsets_64(self, int which):
        cdef const uint8_t* p = self.base + self.extended_offset[which]
        return tuple([load_u64(p + 8 * i, False) for i in range(self.extended_length[which] // 8)])

    cdef tuple pixel(self):
        if not self.has_pixel:
            return None
        fragments, table = (), ()
        if self.pixel_encapsulated:
            fragments = tuple([(self.fragments[2 * i], self.fragments[2 * i + 1]) for i in range(self.fragment_count)])
            table = self.offsets_32(self.table_offset, self.table_length)
        return (
            self.pixel_tag, VR_NAMES[2 * self.pixel_vr:2 * self.pixel_vr + 2].decode(), self.pixel_offset,
            self.pixel_length, self.pixel_encapsulated, fragments, table, self.offsets_64(0), self.offsets_64(1),
        )

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


def scan_data_set(
    const uint8_t[::1] data not None, size_t start, bint implicit, bint big_endian, Dictionary dictionary not None,
    repertoire, bytes charset=b"", int pixel_representation=-1,
):
    """(JSON, bulk spans, pixel span or None, {warning: offset}, (charset, pixel representation) to scan again with or None).

    `repertoire(value of (0008,0005))` gives (0 Latin-1 | 1 UTF-8 | 2 other, decode function). The caller scans again
    when something that decides how others are read came after them.
    """
    cdef Scanner scanner = Scanner()
    cdef Cursor c
    cdef Level level
    cdef int status
    if start > <size_t>data.shape[0]:
        raise ValueError("start lies behind the data")
    scanner.base = c.base = &data[0]
    scanner.size = c.limit = data.shape[0]
    c.position, c.big_endian = start, big_endian
    scanner.dictionary, scanner.repertoire = dictionary, repertoire
    scanner.walks_left = scanner.size // 4 + 64
    level.pixel_representation = pixel_representation
    level.bits_allocated = level.waveform_bits = level.lut_entries = -1
    scanner.charset[0], scanner.decoders[0] = repertoire(charset)
    scanner.charset_value = charset
    reserve(&scanner.out, 32768)
    status = scanner.data_set(&c, c.limit, False, implicit, 0, &level)
    if status == FAILED:
        raise DicomError(scanner.failure.decode(), scanner.failed_at)
    again = None
    if (scanner.late_charset and scanner.charset_value != charset) or (
        scanner.wants_pixel_representation and level.pixel_representation > 0 and pixel_representation < 0
    ):
        again = (scanner.charset_value, level.pixel_representation)
    json = PyBytes_FromStringAndSize(scanner.out.data, scanner.out.used)
    return json, scanner.bulk(), scanner.pixel(), scanner.warnings, again


def scan_meta(const uint8_t[::1] data not None, size_t start):
    """(end of the File Meta Information, value of (0002,0010), of (0002,0003)); its group length is not trusted. PS3.10 7.1"""
    cdef Scanner scanner = Scanner()
    cdef Cursor c
    cdef Header h
    cdef uint32_t tag
    cdef bytes transfer_syntax = b"", instance = b""
    cdef bint implicit = False
    if start > <size_t>data.shape[0]:
        raise ValueError("start lies behind the data")
    c.base, c.position, c.limit, c.big_endian = &data[0], start, data.shape[0], False
    if remaining(&c) >= 6:
        implicit = not (64 < here(&c)[4] < 91 and 64 < here(&c)[5] < 91)
    while peek_tag(&c, &tag) and tag >> 16 == 2:
        if scanner.header(&c, implicit, &h) != OK or h.length > remaining(&c):
            raise DicomError("the File Meta Information is not complete", c.position)
        if h.tag == 0x00020010:
            transfer_syntax = here(&c)[:trimmed(here(&c), h.length)]
        elif h.tag == 0x00020003:
            instance = here(&c)[:trimmed(here(&c), h.length)]
        skip(&c, h.length)
    return c.position, transfer_syntax, instance
