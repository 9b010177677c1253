# Main and tile-part headers of a codestream that our own decoder takes. Inline only. T.800 Annex A, T.814 Annex A

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from pacs._codecs.ht cimport MOST_COMPONENTS, MOST_LEVELS, MOST_SIDE
from pacs._codecs.markers cimport CAP, COD, COM, QCD, SIZ, SOC, SOD, SOT, TLM, Reader, left, part, u8, u16, u32

cdef enum:
    HTJ2K_ALONE = 0x40          # of the code-block style: nothing but HT


cdef struct Frame:
    size_t columns
    size_t rows
    size_t components
    uint32_t precision
    bint is_signed
    bint rct
    uint32_t decompositions
    uint32_t block_columns
    uint32_t block_rows
    uint32_t bit_planes[3 * MOST_LEVELS + 1]    # Mb of LL, then HL, LH, HH from the coarsest. T.800 E-2
    uint32_t dropped
    int tier
    # What decoding goes through: the tile-part at hand, its end, and the end of the data.
    const uint8_t *data
    size_t at
    size_t part_end
    size_t end


cdef inline bint read_siz(Frame *f, Reader s) noexcept nogil:
    """T.800 A.5.1: from the origin, one tile, components alike."""
    cdef uint32_t c, depth, first = 0
    cdef uint32_t fields[8]
    if u16(&s) & 0x8000:
        return False    # Part 2
    for c in range(8):
        fields[c] = u32(&s)
    f.columns, f.rows, f.components = fields[0], fields[1], u16(&s)
    if fields[2] or fields[3] or fields[6] or fields[7] or fields[4] < fields[0] or fields[5] < fields[1]:
        return False
    if not (0 < f.components <= MOST_COMPONENTS and 0 < f.columns <= MOST_SIDE and 0 < f.rows <= MOST_SIDE):
        return False
    for c in range(f.components):
        depth = u8(&s)
        if c == 0:
            first = depth
        if depth != first or u8(&s) != 1 or u8(&s) != 1:
            return False
    f.is_signed, f.precision = first >> 7, (first & 0x7F) + 1
    return not s.failed and left(&s) == 0 and f.precision <= 16


cdef inline bint read_cod(Frame *f, Reader s) noexcept nogil:
    """T.800 A.6.1. With one layer and one precinct a level, LRCP, RLCP and RPCL are one order."""
    cdef uint32_t transform
    if u8(&s) != 0 or u8(&s) > 2 or u16(&s) != 1:
        return False
    transform = u8(&s)
    f.rct = transform == 1
    f.decompositions = u8(&s)
    f.block_columns, f.block_rows = u8(&s), u8(&s)
    if u8(&s) != HTJ2K_ALONE or u8(&s) != 1 or s.failed or left(&s):
        return False
    if transform > 1 or f.decompositions > MOST_LEVELS or f.block_columns > 4 or f.block_rows > 4:
        return False
    if f.block_columns + f.block_rows < 6:
        return False    # of fewer than 1,024 samples: a frame would have very many
    f.block_columns, f.block_rows = 4 << f.block_columns, 4 << f.block_rows
    return not f.rct or f.components == 3


cdef inline bint read_qcd(Frame *f, Reader s) noexcept nogil:
    """T.800 A.6.4, behind COD."""
    cdef uint32_t style = u8(&s), k
    if style & 0x1F or left(&s) != 3 * f.decompositions + 1:
        return False
    for k in range(3 * f.decompositions + 1):
        f.bit_planes[k] = (style >> 5) + (u8(&s) >> 3)
        if f.bit_planes[k] < 2:
            return False
        f.bit_planes[k] -= 1
    return True


cdef inline bint read_main_header(Frame *f, Reader *r) noexcept nogil:
    cdef uint32_t marker, length
    cdef bint siz = False, cod = False, qcd = False
    cdef Reader s
    if u16(r) != SOC:
        return False
    while True:
        marker = u16(r)
        if marker == SOT:
            r.at -= 2
            return siz and cod and qcd
        length = u16(r)
        if r.failed or length < 2:
            return False
        s = part(r, length - 2)
        if r.failed:
            return False
        if marker == SIZ and not siz:
            siz = read_siz(f, s)
            if not siz:
                return False
        elif marker == COD and siz and not cod:
            cod = read_cod(f, s)
            if not cod:
                return False
        elif marker == QCD and cod and not qcd:
            qcd = read_qcd(f, s)
            if not qcd:
                return False
        elif not (marker == CAP or marker == TLM or marker == COM):
            return False


cdef inline bint open_tile_part(Frame *f) noexcept nogil:
    """Go to the data of the next tile-part. T.800 A.4.2"""
    cdef Reader r
    cdef size_t start = f.at
    cdef uint32_t length
    r.data, r.at, r.end, r.failed = f.data, f.at, f.end, False
    if u16(&r) != SOT or u16(&r) != 10 or u16(&r) != 0:
        return False
    length = u32(&r)
    u16(&r)
    if u16(&r) != SOD or r.failed or length < 14:
        return False
    f.at = r.at
    # The last one may be cut behind what is asked for: each read is checked.
    f.part_end = start + length if length <= f.end - start else f.end
    return True
