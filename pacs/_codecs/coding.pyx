"""What the marker segments say of coding: COD, COC, POC, and where packed headers and packet lengths lie. T.800 A.6, A.7

The segments are those that `codestream.scan` has been through.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from pacs._codecs.markers cimport COC, COD, POC, Reader, left, part, u8, u16
from pacs._codecs.partition cimport STYLE_HT, STYLE_MIXED, Style

from pacs.errors import CodestreamError


cdef class Coding:
    """COD, COC and POC of the main header, or of a tile. T.800 A.6"""

    def __cinit__(self, size_t count):
        self.components = <Style *>calloc(count, sizeof(Style))
        if self.components == NULL:
            raise MemoryError
        self.count = count
        self.changes = []

    def __dealloc__(self):
        free(self.components)

    cdef Coding copy(self):
        cdef Coding other = Coding(self.count)
        memcpy(other.components, self.components, self.count * sizeof(Style))
        other.progression, other.layers, other.scod = self.progression, self.layers, self.scod
        return other


cdef object fail(str text, size_t at):
    raise CodestreamError(text, at)


cdef int read_style(Reader *s, Style *style, bint precincts, size_t at) except -1:
    """The SPcod or SPcoc parameters. T.800 Table A.15"""
    cdef uint32_t r, sizes, columns, rows
    style.decompositions = u8(s)
    columns, rows = u8(s), u8(s)
    style.style = u8(s)
    style.transform = u8(s)
    if s.failed or style.decompositions > 32 or columns > 8 or rows > 8 or columns + rows > 8:
        fail("COD or COC with impossible values", at)
    style.xcb, style.ycb = columns + 2, rows + 2
    if left(s) != (<size_t>style.decompositions + 1 if precincts else 0):
        fail("COD or COC has not a precinct size for each resolution level", at)
    if style.style & STYLE_MIXED and not style.style & STYLE_HT:
        fail(f"unknown code-block style {style.style:02X}", at)
    for r in range(style.decompositions + 1):
        sizes = u8(s) if precincts else 0xFF
        if r and (sizes & 15 == 0 or sizes >> 4 == 0):
            fail("a precinct too small for its sub-bands", at)
        style.precincts[r] = sizes
    return 0


cdef int read_cod(Coding coding, Reader s, size_t at) except -1:
    """T.800 A.6.1"""
    cdef Style style
    cdef size_t i
    coding.scod = u8(&s)
    coding.progression = u8(&s)
    coding.layers = u16(&s)
    u8(&s)
    if coding.scod & ~7:
        fail("a code-block anchor of Part 2", at)
    if coding.progression > 4 or coding.layers == 0:
        fail("COD with impossible values", at)
    read_style(&s, &style, coding.scod & 1, at)
    for i in range(coding.count):
        coding.components[i] = style
    return 0


cdef int read_coc(Coding coding, Reader s, size_t at) except -1:
    """T.800 A.6.2"""
    cdef uint32_t component = u8(&s) if coding.count < 257 else u16(&s)
    cdef uint32_t scoc = u8(&s)
    if s.failed or component >= coding.count or scoc & ~1:
        fail("COC with impossible values", at)
    return read_style(&s, &coding.components[component], scoc, at)


cdef int read_poc(Coding coding, Reader s, size_t at) except -1:
    """T.800 A.6.6"""
    cdef bint wide = coding.count >= 257
    cdef uint32_t r0, c0, layers, r1, c1, progression
    if left(&s) == 0 or left(&s) % (9 if wide else 7):
        fail("POC is cut", at)
    while left(&s):
        r0 = u8(&s)
        c0 = u16(&s) if wide else u8(&s)
        layers, r1 = u16(&s), u8(&s)
        c1 = u16(&s) if wide else u8(&s)
        progression = u8(&s)
        if progression > 4:
            fail(f"POC with progression {progression}", at)
        # 0 stands for what does not fit the field.
        coding.changes.append((r0, c0, layers, r1, c1 if c1 else 16384, progression))
    return 0


cdef int read_codings(Coding coding, const uint8_t *data, size_t end, list segments) except -1:
    """COD first, whatever the order, then COC, then POC."""
    cdef Reader r
    cdef uint32_t wanted
    cdef bint fresh = True
    r.data, r.end, r.failed = data, end, False
    for wanted in (COD, COC, POC):
        for marker, at, length in segments:
            if marker == wanted:
                r.at = at + 4
                if wanted == COD:
                    read_cod(coding, part(&r, length - 4), at)
                elif wanted == COC:
                    read_coc(coding, part(&r, length - 4), at)
                else:
                    if fresh:
                        coding.changes, fresh = [], False
                    read_poc(coding, part(&r, length - 4), at)
    return 0


cdef bytes joined(const uint8_t *data, list segments, uint32_t wanted):
    """What the segments of one kind hold, put together by their index. T.800 A.7.2-5"""
    found = sorted([(data[at + 4], at, length) for marker, at, length in segments if marker == wanted and length > 5])
    return b"".join([data[<size_t>at + 5:<size_t>at + <size_t>length] for _, at, length in found])


cdef list shared(bytes chunk, size_t count, int width, list parts):
    """The share of each tile-part in PPM (a length of 4 bytes before each) or PLM (1 byte). T.800 A.7.2, A.7.4"""
    cdef size_t at = 0, length
    for _ in range(count):
        if at + width > len(chunk):
            return None
        length = int.from_bytes(chunk[at:at + width], "big")
        at += width
        if length > len(chunk) - at:
            return None
        parts.append((at, at + length))
        at += length
    return parts


cdef list tile_part_segments(const uint8_t *data, size_t at, size_t end):
    """(marker, offset, length) of the segments of a tile-part header, which `scan` has been through."""
    cdef Reader r
    cdef uint32_t marker, length
    found = []
    r.data, r.at, r.end, r.failed = data, at, end, False
    while left(&r) >= 2:
        marker = u16(&r)
        if 0xFF30 <= marker <= 0xFF3F:
            continue
        length = u16(&r)
        # Checked before; a bytearray can have been changed since.
        if length < 2 or left(&r) < length - 2:
            fail("a tile-part header has changed while it was read", at)
        found.append((marker, r.at - 4, length + 2))
        part(&r, length - 2)
    return found
