"""One pass over a Data Set: its DICOM JSON and the spans of its long values (PS3.5 7, PS3.18 Annex F).

Inside, functions answer OK, FAILED (with `self.failure` and `self.failed_at` set) or END; the Python callables
at the bottom raise once. `except -1` is for Python's own errors (memory).

What is not to the letter of the standard follows pydicom, which the tests compare with.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from pacs.errors import DicomError

from pacs._codecs.breath cimport breathe
from pacs._codecs.cursor cimport Cursor, here, load_u16, peek_tag, remaining, skip, take_tag, take_u32
from pacs._codecs.dictionary cimport Dictionary
from pacs._codecs.header cimport ITEM, ITEM_END, SEQUENCE_END, UNDEFINED, Header, begins_explicit, take_header
from pacs._codecs.jsonmodel cimport JsonModel, Level, LEVELS
from pacs._codecs.jsontext cimport put, put_char, reserve
from pacs._codecs.values cimport put_numbers, trimmed
from pacs._codecs.vr cimport *

cdef enum:
    OK, FAILED, END
    MAX_DEPTH = LEVELS - 2
    # Each costs some 100 bytes until it is stored, and its header 8 in the file. Levels of whole-slide images have up
    # to 500,000 tiles.
    MOST_FRAGMENTS = 1 << 20
    # As text or numbers in the JSON a longer value would be there twice, and numbers several times as long.
    LONG_VALUE = 1 << 20
    # Of one Data Set without those in its sequences: no two have the same tag, so an honest one has a few thousand.
    MOST_ELEMENTS = 1 << 17
    # Bytes of JSON. The positions of 500,000 tiles take some 350 MB.
    MOST_TEXT = 512 << 20

cdef const char* DEPTH_FAILURE = b"sequences are nested too deeply"

cdef class Scanner(JsonModel):
    cdef Dictionary dictionary
    cdef object repertoire
    cdef size_t walks_left, steps
    cdef const char* failure
    cdef size_t failed_at
    cdef list creators
    # what was needed before it was known: a second pass starts with it
    cdef bint wants_pixel_representation, late_charset
    cdef bytes charset_value

    def __cinit__(self):
        self.creators = [None] * LEVELS

    cdef int fail(self, const char* failure, size_t at) noexcept:
        self.failure = failure
        self.failed_at = at
        return FAILED

    # --- Data Elements ----------------------------------------------------------------------------------------

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
        breathe(&self.steps)
        level.any = level.unordered = False
        level.last_tag = 0
        level.first_member = self.member_count
        self.creators[depth] = None
        if depth and not implicit and remaining(c) >= 6:
            # An item inside explicit VR may be implicit as a whole: that of a UN is. PS3.5 6.2.2
            implicit = not begins_explicit(c)
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
        cdef int vr
        cdef size_t length
        breathe(&self.steps)
        if not take_header(c, implicit, &h):
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
        """`"GGGGEEEE":{…},` and what the Data Set's later elements need to know of this one.

        An element of the Data Set itself that cannot be read ends it: what stands before is worth keeping.
        """
        cdef int status
        cdef size_t number = self.member_count
        if number - level.first_member == MOST_ELEMENTS or self.out.used > MOST_TEXT:
            self.fail(b"there are too many Data Elements", h.start)
            if depth:
                return FAILED
            self.warn("there are too many Data Elements: the Data Set is not read beyond", h.start)
            c.position = c.limit
            return END
        if level.any and h.tag <= level.last_tag:
            level.unordered = True
            if h.tag == 0x00080005 and depth == 0:
                self.late_charset = self.text_decoded
            self.warn("Data Elements are not in ascending order", h.start)
        level.any = True
        level.last_tag = h.tag
        self.open_member(h.tag)
        if h.length == UNDEFINED:
            status = self.undefined_length(c, h, vr, depth, level)
        elif vr == VR_SQ:
            status = self.defined_sequence(c, h, length, depth, level)
        else:
            status = self.value(c.position, length, h.tag, vr, c.big_endian, depth, level)
            skip(c, length)
        if status == FAILED and depth == 0:
            self.warn(self.failure.decode() + ": the Data Set is not read beyond", self.failed_at)
            c.position = c.limit
            self.path_length = 8
            self.span_count = self.members[number].first_span
            status = END
        self.path_length -= 8
        if status == OK:
            self.close_member()
        elif status == END:
            self.member_count = number
            self.out.used = self.members[number].start
        return status

    # --- sequences --------------------------------------------------------------------------------------------

    cdef int undefined_length(self, Cursor* c, Header* h, int vr, int depth, Level* level) except -1:
        """A sequence, encapsulated pixel data, or some other value that a delimiter ends. PS3.5 7.5, A.4"""
        cdef size_t start = c.position, end
        if vr == VR_SQ:
            put(&self.out, b'SQ"', 3)
            return self.items(c, c.limit, True, h.implicit, depth, level)
        if depth == 0 and 0x7FE00008 <= h.tag <= 0x7FE00010 and h.tag in (0x7FE00008, 0x7FE00009, 0x7FE00010):
            if self.encapsulated(c, &end) == OK:
                self.note_pixel(h.tag, vr, start, c.position - start, True)
            else:
                self.warn("the pixel data has more than 1048576 fragments: it is one value, without frames", start)
                self.add_span(start, c.position - start, vr)
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
                if not undefined:
                    return self.fail(b"there is no item where a sequence has to have one", c.position - 8)
                # Where the sequence ends is unknown, so its header is trusted for want of a better guess.
                self.warn("an item of a sequence does not begin with the tag of an item", c.position - 8)
            if self.out.used > MOST_TEXT:
                return self.fail(b"there are too many items", c.position - 8)
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
        """Fragments and the Basic Offset Table of top-level pixel data. PS3.5 A.4

        FAILED when there are more than can be remembered; `end` is right all the same.
        """
        cdef uint32_t tag = 0, length = 0
        cdef size_t available, start
        cdef bint table = True
        cdef int status = OK
        self.fragment_count = self.table_length = self.table_offset = 0
        while True:
            end[0] = start = c.position
            if remaining(c) < 8:
                self.warn("encapsulated pixel data has no end", c.position)
                c.position = end[0] = c.limit
                return status
            take_tag(c, &tag)
            take_u32(c, &length)
            if tag == SEQUENCE_END:
                return status
            if tag != ITEM:
                self.warn("encapsulated pixel data has something else than a fragment", start)
                c.position = start
                if not self.find_delimiter(c, end):
                    c.position = end[0] = c.limit
                return status
            available = length
            if available > remaining(c):
                self.warn("the last fragment is longer than the bytes that follow and is cut", start)
                available = remaining(c)
            if table:
                self.table_offset, self.table_length = c.position, available
            elif self.fragment_count == MOST_FRAGMENTS:
                status = FAILED
            else:
                self.add_fragment(c.position, available)
            table = False
            skip(c, available)

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
        if n > LONG_VALUE and not may_be_bulk(vr):
            self.warn("a value is far longer than its Value Representation allows, read as UN", at)
            vr = VR_UN
        if is_binary(vr) or n > LONG_VALUE:
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
    c.limit = data.shape[0]
    c.position, c.big_endian = start, big_endian
    scanner.dictionary, scanner.repertoire = dictionary, repertoire
    scanner.walks_left = c.limit // 4 + 64
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
        implicit = not begins_explicit(&c)
    while peek_tag(&c, &tag) and tag >> 16 == 2:
        if not take_header(&c, implicit, &h) or h.length > remaining(&c):
            raise DicomError("the File Meta Information is not complete", c.position)
        if h.tag == 0x00020010:
            transfer_syntax = here(&c)[:trimmed(here(&c), h.length)]
        elif h.tag == 0x00020003:
            instance = here(&c)[:trimmed(here(&c), h.length)]
        skip(&c, h.length)
    return c.position, transfer_syntax, instance
