"""Data Elements from explicit to implicit VR and back, little endian (PS3.5 7.1, 7.5, A.1, A.2).

Elements that are in the wanted encoding already are not touched: the answer says where they lie. Sequences are walked
item by item without an object for any. What cannot be followed to the letter is FAILED: the face has pydicom then.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from pacs.errors import DicomError, UnsupportedTransferSyntaxError

from pacs._codecs.breath cimport breathe
from pacs._codecs.cursor cimport Cursor, here, load_u16, peek_tag, remaining, skip, take_tag, take_u32
from pacs._codecs.dictionary cimport Dictionary
from pacs._codecs.header cimport ITEM, ITEM_END, SEQUENCE_END, UNDEFINED, Header, begins_explicit, take_header
from pacs._codecs.jsonmodel cimport LEVELS
from pacs._codecs.values cimport trimmed
from pacs._codecs.vr cimport *

cdef enum:
    OK, FAILED, END
    MAX_DEPTH = LEVELS - 2
    # As in the scanner: no two have the same tag, so an honest Data Set has a few thousand.
    MOST_ELEMENTS = 1 << 17
    LONG_COPY = 1 << 20
    LONGEST_SHORT = 0xFFFE
    PIXEL_DATA = 0x7FE00010
    ICON_IMAGE_SEQUENCE = 0x00880200


# What one Data Set, the file's or an item's, has shown so far; -1: nothing.
cdef struct Level:
    int pixel_representation
    int answered                # what elements were told that asked for it before it was there
    bint single_lut_entry


cdef class Recoder:
    cdef bytearray out
    cdef size_t used, steps
    cdef Dictionary dictionary
    cdef bint to_implicit
    cdef bint writing           # else a value is only walked to find its end
    cdef Level[LEVELS] levels
    cdef list creators
    cdef const char* failure
    cdef size_t failed_at
    cdef bint encapsulated_icon, in_icon
    cdef object pixel

    def __cinit__(self, Dictionary dictionary, bint to_implicit, int pixel_representation):
        self.out = bytearray()
        self.dictionary = dictionary
        self.to_implicit = to_implicit
        self.creators = [None] * LEVELS
        self.enter(0)
        self.levels[0].pixel_representation = pixel_representation

    cdef int fail(self, const char* failure, size_t at) noexcept:
        self.failure = failure
        self.failed_at = at
        return FAILED

    cdef void enter(self, int depth) noexcept:
        self.levels[depth].pixel_representation = self.levels[depth].answered = -1
        self.levels[depth].single_lut_entry = False
        self.creators[depth] = None

    # --- output -----------------------------------------------------------------------------------------------

    cdef uint8_t* room(self, size_t n) except NULL:
        """Where the next `n` bytes go."""
        cdef size_t size = <size_t>len(self.out)
        cdef uint8_t* place
        if size - self.used < n:
            # By an eighth each time, so that a long answer never lies in memory twice over.
            PyByteArray_Resize(self.out, self.used + n + (size >> 3) + 4096)
        place = <uint8_t*>PyByteArray_AS_STRING(self.out) + self.used
        self.used += n
        return place

    cdef int put_copy(self, const uint8_t* p, size_t n) except -1:
        cdef uint8_t* place = self.room(n)
        if n < LONG_COPY:
            memcpy(place, p, n)
        else:
            with nogil:
                memcpy(place, p, n)
        return OK

    cdef int put_delimiter(self, uint32_t tag, uint32_t length) except -1:
        cdef uint8_t* place = self.room(8)
        store_tag(place, tag)
        store_u32(place + 4, length)
        return OK

    cdef int put_header(self, uint32_t tag, int vr, uint32_t length) except -1:
        """Tag, VR and length. The VR has a place for the length. PS3.5 7.1.2, 7.1.3"""
        cdef bint long_form = not self.to_implicit and has_long_length(vr)
        cdef uint8_t* place = self.room(12 if long_form else 8)
        store_tag(place, tag)
        if self.to_implicit:
            store_u32(place + 4, length)
            return OK
        place[4], place[5] = VR_NAMES[2 * vr], VR_NAMES[2 * vr + 1]
        if long_form:
            place[6] = place[7] = 0
            store_u32(place + 8, length)
        else:
            place[6], place[7] = length & 0xFF, length >> 8
        return OK

    cdef int close(self, size_t start, size_t at) except -1:
        """The length of what was put since `start`, in the four bytes before it."""
        if self.used - start >= UNDEFINED:
            return self.fail(b"a sequence is longer than its length can say", at)
        store_u32(<uint8_t*>PyByteArray_AS_STRING(self.out) + start - 4, <uint32_t>(self.used - start))
        return OK

    # --- Value Representations --------------------------------------------------------------------------------

    cdef int find_vr(self, Header* h, Cursor* c, int depth) except -1:
        """The file's, or the dictionary's where the file has none; what the dictionary leaves open is decided."""
        cdef int vr = h.vr
        cdef uint32_t next_tag = 0
        if vr != VR_NONE:
            return VR_SQ if vr == VR_UN and h.length == UNDEFINED else vr  # PS3.5 6.2.2
        if h.tag >> 16 & 1:
            vr = self.dictionary.private_vr(h.tag, self.creators[depth])
        else:
            vr = self.dictionary.public_vr(h.tag)
        if h.length == UNDEFINED and vr != VR_SQ and (vr == VR_NONE or h.tag >> 16 & 1):
            vr = VR_SQ if peek_tag(c, &next_tag) and next_tag == ITEM else VR_UN
        if vr == VR_NONE:
            return VR_UN
        if vr < VR_US_SS:
            return vr
        if vr == VR_US_SS and is_us_or_ss(h.tag):
            return VR_SS if self.signed_samples(depth) else VR_US
        if vr == VR_US_OW:
            return VR_US if self.levels[depth].single_lut_entry else VR_OW
        return VR_OB if h.tag == PIXEL_DATA and h.length == UNDEFINED else VR_OW

    cdef bint signed_samples(self, int depth) noexcept:
        """Pixel Representation of the nearest Data Set around that has one. PS3.5 Annex A, PS3.6"""
        cdef int nearest = depth, value = 0, level
        while nearest >= 0 and self.levels[nearest].pixel_representation < 0:
            nearest -= 1
        if nearest >= 0:
            value = self.levels[nearest].pixel_representation
        for level in range(nearest + 1, depth + 1):
            self.levels[level].answered = value
        return value != 0

    cdef int notice(self, Header* h, const uint8_t* p, size_t n, int depth) except -1:
        """Elements that decide how others are written."""
        cdef Level* level = &self.levels[depth]
        if h.tag == 0x00280103 and n:
            if n != 2:
                return self.fail(b"Pixel Representation is not one number", h.start)
            level.pixel_representation = load_u16(p, False) != 0
            if level.answered >= 0 and level.answered != level.pixel_representation:
                return self.fail(b"Pixel Representation comes after what depends on it", h.start)
        elif h.tag == 0x00283002 and n >= 2:
            level.single_lut_entry = load_u16(p, False) == 1
        elif h.tag >> 16 & 1 and 0x10 <= h.tag & 0xFFFF <= 0xFF and n <= 64:
            block = self.dictionary.private(p[:trimmed(p, n)])
            if block is not None:
                if self.creators[depth] is None:
                    self.creators[depth] = {}
                (<dict>self.creators[depth])[h.tag] = block
        return OK

    # --- Data Elements ----------------------------------------------------------------------------------------

    cdef int element(self, Cursor* c, Header* h, int depth) except -1:
        """Write one element, or walk past it. `c` stands behind its header."""
        cdef int vr, status
        cdef size_t length = h.length
        if h.length != UNDEFINED and length > remaining(c):
            return self.fail(b"a value is longer than the bytes that follow", h.start)
        if h.tag >> 16 == 0xFFFE:
            return self.fail(b"an item or delimiter is outside a sequence", h.start)
        if depth == 1 and self.in_icon and h.tag == PIXEL_DATA and h.length == UNDEFINED:
            self.encapsulated_icon = True
        if not self.writing and h.length != UNDEFINED:
            if self.unsure(h):
                return FAILED
            skip(c, length)
            return OK
        if h.unknown_vr:
            return self.fail(b"a Data Element has a Value Representation that does not exist", h.start)
        if h.tag & 0xFFFF == 0 and h.length != UNDEFINED:
            skip(c, length)  # group lengths are retired, and would be wrong now. PS3.5 7.2
            return OK
        if self.to_implicit and h.implicit and h.length != UNDEFINED:
            skip(c, length)
            return self.put_copy(c.base + h.start, c.position - h.start)
        vr = self.find_vr(h, c, depth)
        if vr == VR_SQ:
            return self.sequence(c, h, depth)
        if h.length == UNDEFINED:
            return self.fragments(c, h, vr)
        if not is_binary(vr) and length % unit_bytes(vr):
            return self.fail(b"a value's length does not fit its Value Representation", h.start)
        status = self.notice(h, here(c), length, depth)
        if status == OK:
            self.put_value(h.tag, vr, here(c), length)
            skip(c, length)
        return status

    cdef int put_value(self, uint32_t tag, int vr, const uint8_t* p, size_t n) except -1:
        """A value of known length, padded to an even one. PS3.5 6.2, 6.2.2, 7.1.1"""
        cdef size_t even = n + n % 2
        cdef uint8_t pad = 0 if vr == VR_UI or vr == VR_OB or unit_bytes(vr) > 1 or vr == VR_UN else 32
        if not self.to_implicit and even > LONGEST_SHORT and not has_long_length(vr):
            vr = VR_UN
        if even >= UNDEFINED:
            even = n
        self.put_header(tag, vr, <uint32_t>even)
        self.put_copy(p, n)
        if even > n:
            self.room(1)[0] = pad
        return OK

    cdef int fragments(self, Cursor* c, Header* h, int vr) except -1:
        """A value of undefined length that is no sequence: pixel data of an icon. PS3.5 A.4"""
        cdef uint32_t tag = 0, length = 0
        cdef size_t start = c.position
        while True:
            breathe(&self.steps)
            if not take_tag(c, &tag) or not take_u32(c, &length):
                return self.fail(b"a value of undefined length has no end", h.start)
            if tag == SEQUENCE_END:
                break
            if tag != ITEM or not skip(c, length):
                return self.fail(b"a value of undefined length does not consist of items", h.start)
        if self.writing:
            if not self.to_implicit and not has_long_length(vr):
                return self.fail(b"a value of undefined length has a short Value Representation", h.start)
            self.put_header(h.tag, vr, UNDEFINED)
            self.put_copy(c.base + start, c.position - 8 - start)
            self.put_delimiter(SEQUENCE_END, 0)
        return OK

    # --- sequences --------------------------------------------------------------------------------------------

    cdef int sequence(self, Cursor* c, Header* h, int depth) except -1:
        """A sequence with its header. Lengths that were undefined stay so, others are counted anew. PS3.5 7.5"""
        cdef Cursor inner = c[0]
        cdef size_t start
        cdef int status
        if h.length != UNDEFINED:
            inner.limit = c.position + h.length
        if depth + 1 >= MAX_DEPTH:
            return self.fail(b"sequences are nested too deeply", h.start)
        if self.writing:
            self.put_header(h.tag, VR_SQ, UNDEFINED)
        start = self.used
        status = self.items(&inner, h.length == UNDEFINED, h.implicit, depth + 1)
        c.position = inner.position
        if status == OK and self.writing:
            if h.length == UNDEFINED:
                self.put_delimiter(SEQUENCE_END, 0)
            else:
                status = self.close(start, h.start)
        return status

    cdef int items(self, Cursor* c, bint undefined, bint implicit, int depth) except -1:
        cdef uint32_t tag = 0, length = 0
        cdef size_t start, at
        cdef Cursor inner
        cdef int status
        while undefined or c.position < c.limit:
            at = c.position
            if not take_tag(c, &tag) or not take_u32(c, &length):
                return self.fail(b"a sequence is not complete", at)
            if tag == SEQUENCE_END and undefined:
                return OK
            if tag != ITEM or (length != UNDEFINED and length > remaining(c)):
                return self.fail(b"an item of a sequence is not whole", at)
            if not self.writing and length != UNDEFINED and not self.in_icon:
                breathe(&self.steps)
                skip(c, length)
                continue
            if self.writing:
                self.put_delimiter(ITEM, UNDEFINED)
            start = self.used
            inner = c[0]
            if length != UNDEFINED:
                inner.limit = c.position + length
            status = self.data_set(&inner, length == UNDEFINED, implicit, depth)
            c.position = inner.position
            if status == OK and self.writing:
                if length == UNDEFINED:
                    self.put_delimiter(ITEM_END, 0)
                else:
                    status = self.close(start, at)
            if status == FAILED:
                return FAILED
        return OK

    cdef int data_set(self, Cursor* c, bint undefined, bint implicit, int depth) except -1:
        """The elements of an item, to its delimiter if `undefined`."""
        cdef Header h
        breathe(&self.steps)
        self.enter(depth)
        if not implicit and remaining(c) >= 6:
            # An item inside explicit VR may be implicit as a whole: that of a UN is. PS3.5 6.2.2
            implicit = not begins_explicit(c)
        while undefined or c.position < c.limit:
            breathe(&self.steps)
            if not take_header(c, implicit, &h):
                return self.fail(b"an item of a sequence is not complete", c.position)
            if h.tag == ITEM_END and undefined:
                return OK
            if self.element(c, &h, depth) == FAILED:
                return FAILED
        return OK

    # --- the Data Set itself ----------------------------------------------------------------------------------

    cdef list top_level(self, Cursor* c, bint implicit, uint32_t pixel_tag):
        """(tag, whether it is in `out`, offset, length) of every element; None when FAILED."""
        cdef list found = []
        cdef Header h
        cdef size_t start
        while c.position < c.limit:
            breathe(&self.steps)
            if not take_header(c, implicit, &h) or self.only_zeros(c, &h):
                break  # less than an element takes is no element
            if pixel_tag and h.tag == pixel_tag:
                self.pixel = (c.position, None if h.length == UNDEFINED else h.length)
                break
            if len(found) == MOST_ELEMENTS:
                raise UnsupportedTransferSyntaxError(f"the Data Set has more than {MOST_ELEMENTS} Data Elements")
            if h.tag >> 16 in (0, 2):
                self.fail(b"there are Data Elements that have no place in a Data Set", h.start)
                return None
            self.writing = h.implicit != self.to_implicit
            self.in_icon = h.tag == ICON_IMAGE_SEQUENCE
            start = self.used
            if self.one(c, &h) == FAILED:
                return None
            if h.tag & 0xFFFF == 0:
                continue
            if self.writing:
                found.append((h.tag, True, start, self.used - start))
            else:
                found.append((h.tag, False, h.start, c.position - h.start))
        return found

    cdef int one(self, Cursor* c, Header* h) except -1:
        cdef Cursor whole
        cdef int vr
        if self.writing or h.length == UNDEFINED or h.length > remaining(c):
            if not self.writing and h.unknown_vr:
                return self.fail(b"a Data Element has a Value Representation that does not exist", h.start)
            return self.element(c, h, 0)
        if self.in_icon and (h.implicit or h.vr == VR_SQ or h.vr == VR_UN):
            whole = c[0]
            if self.sequence(&whole, h, 0) == FAILED:
                return FAILED
        elif h.tag >> 16 == 0xFFFE or self.unsure(h):
            return self.element(c, h, 0)
        # An implicit element further on may depend on it.
        if self.notice(h, here(c), h.length, 0) == FAILED:
            return FAILED
        skip(c, h.length)
        return OK

    cdef bint unsure(self, Header* h) noexcept:
        """Whether the zeros behind an unknown VR are rather the reserved bytes before a long length. PS3.5 7.1.2"""
        if h.unknown_vr and not h.length:
            self.fail(b"a Data Element has a Value Representation that does not exist", h.start)
            return True
        return False

    cdef bint only_zeros(self, Cursor* c, Header* h) noexcept:
        """Whether the file is filled up with zeros from this header on."""
        cdef size_t at
        if h.tag or h.length:
            return False
        for at in range(h.start, c.limit):
            if c.base[at]:
                return False
        return True


cdef inline void store_u32(uint8_t* p, uint32_t value) noexcept nogil:
    p[0], p[1], p[2], p[3] = value & 0xFF, value >> 8 & 0xFF, value >> 16 & 0xFF, value >> 24


cdef inline void store_tag(uint8_t* p, uint32_t tag) noexcept nogil:
    p[0], p[1], p[2], p[3] = tag >> 16 & 0xFF, tag >> 24, tag & 0xFF, tag >> 8 & 0xFF


def recode(
    const uint8_t[::1] data not None, size_t start, bint implicit, bint to_implicit, Dictionary dictionary not None,
    uint32_t pixel_tag=0, int pixel_representation=-1,
):
    """(elements, recoded bytes, pixel, whether an icon is encapsulated) of a Data Set that begins at `start`.

    `elements` are (tag, True: in the recoded bytes or False: in `data`, offset, length) in the order they came in.
    It is read as far as the header of `pixel_tag`: `pixel` is (offset behind it, its length or None if undefined), None
    when it is not there. Raises DicomError for what cannot be recoded with certainty, UnsupportedTransferSyntaxError for
    what nobody should try.
    """
    cdef Recoder recoder = Recoder(dictionary, to_implicit, pixel_representation)
    cdef Cursor c
    if start > <size_t>data.shape[0]:
        raise ValueError("start lies behind the data")
    c.position, c.limit, c.big_endian = start, data.shape[0], False
    c.base = &data[0] if data.shape[0] else NULL
    elements = recoder.top_level(&c, implicit, pixel_tag)
    if elements is None:
        raise DicomError(recoder.failure.decode(), recoder.failed_at)
    PyByteArray_Resize(recoder.out, recoder.used)
    return elements, recoder.out, recoder.pixel, recoder.encapsulated_icon
