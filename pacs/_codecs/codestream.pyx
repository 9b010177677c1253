"""The headers of a JPEG 2000 codestream in one pass. The face is `pacs.codestream`. T.800 Annex A, T.814

Nothing is allocated for what a header merely claims: every list grows with bytes that were read.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pacs._codecs.markers cimport (
    CAP, COC, COD, CPF, CRG, EOC, EPH, PLM, PLT, POC, PPM, PPT, PRF, QCC, QCD, SIZ, SOC, SOD, SOP, SOT, TLM,
    Reader, left, part, skip, u8, u16, u32, u64,
)

from pacs.errors import CodestreamError

cdef enum:
    MAX_TILE_PARTS = 65535 * 255
    MAX_TLM_ENTRIES = 1 << 22   # 65,535 tiles of 33 tile-parts and more; they are kept as they are claimed
    MANY_SEGMENTS = 1 << 18     # beyond these one for each 16 bytes
    MAX_COMPONENTS = 16384
    TILE_PARTS_AT_A_TIME = 1 << 14
    JP2C = 0x6A703263

cdef class Headers:
    """What the markers say, as plain values; `segments` are (marker, offset of the marker, length) in order.

    `uniform`: all components of all tiles have the same number of decomposition levels, and all tiles one progression.
    `tile_coding`: a tile has coding parameters of its own.
    """

    def __cinit__(self):
        self.components = []
        self.segments = []
        self.tile_parts = []
        self.tlm = []
        self.uniform = True


cdef object fail(str text, size_t at):
    raise CodestreamError(text, at)


cdef int find(Reader *r) except -1:
    """Narrow `r` to the codestream: the bytes themselves, or the content of the first jp2c box. T.800 I.4"""
    cdef uint64_t length
    cdef uint32_t kind
    cdef size_t box
    if left(r) >= 2 and r.data[0] == 0xFF and r.data[1] == 0x4F:
        return 0
    while left(r) >= 8:
        box = r.at
        length = u32(r)
        kind = u32(r)
        if length == 1:
            length = u64(r)
            if r.failed:
                fail("a box header is cut", box)
            if length < 16:
                fail("a box is shorter than its header", box)
            length -= 16
        elif length == 0:
            length = left(r)
        elif length < 8:
            fail("a box is shorter than its header", box)
        else:
            length -= 8
        if kind == JP2C:
            if length < left(r):
                r.end = r.at + <size_t>length
            return 0
        skip(r, length)
        if r.failed:
            fail("a box is longer than the data", box)
    fail("no codestream: neither an SOC marker nor a jp2c box", r.at)


cdef int read_siz(Headers h, Reader *s, size_t at) except -1:
    """T.800 A.5.1"""
    cdef uint32_t count, i, depth, dx, dy
    cdef uint64_t across, down
    h.profile = u16(s)
    h.columns, h.rows = u32(s), u32(s)
    h.x0, h.y0 = u32(s), u32(s)
    h.tile_columns, h.tile_rows = u32(s), u32(s)
    h.tile_x0, h.tile_y0 = u32(s), u32(s)
    count = u16(s)
    if s.failed or left(s) != <size_t>count * 3:
        fail(f"SIZ does not fit its {count} components", at)
    if count == 0 or count > MAX_COMPONENTS:
        fail(f"SIZ with {count} components", at)
    if h.columns <= h.x0 or h.rows <= h.y0 or h.tile_columns == 0 or h.tile_rows == 0:
        fail("SIZ describes an empty image", at)
    if h.tile_x0 > h.x0 or h.tile_y0 > h.y0 or (
        <uint64_t>h.tile_x0 + h.tile_columns <= h.x0 or <uint64_t>h.tile_y0 + h.tile_rows <= h.y0
    ):
        fail("SIZ: the first tile does not hold the image's corner", at)
    across = (<uint64_t>h.columns - h.tile_x0 + h.tile_columns - 1) // h.tile_columns
    down = (<uint64_t>h.rows - h.tile_y0 + h.tile_rows - 1) // h.tile_rows
    # Compared before they are multiplied: both can reach 2^32.
    if across > 65535 or down > 65535 or across * down > 65535:
        fail("SIZ with more than 65535 tiles", at)
    h.tiles = across * down
    for i in range(count):
        depth, dx, dy = u8(s), u8(s), u8(s)
        if (depth & 0x7F) > 37 or dx == 0 or dy == 0:
            fail(f"SIZ: component {i} is impossible", at)
        h.components.append(((depth & 0x7F) + 1, (depth & 0x80) != 0, dx, dy))
    return 0


cdef int read_cod(Headers h, Reader *s, size_t at) except -1:
    """T.800 A.6.1"""
    cdef uint32_t scod = u8(s)
    h.progression = u8(s)
    h.layers = u16(s)
    h.mct = u8(s)
    h.decompositions = u8(s)
    h.block_columns, h.block_rows = u8(s), u8(s)
    h.style = u8(s)
    h.transform = u8(s)
    if s.failed or left(s) != (<size_t>h.decompositions + 1 if scod & 1 else 0):
        fail("COD has not a precinct size for each resolution level", at)
    if h.progression > 4 or h.layers == 0 or h.decompositions > 32 or h.block_columns > 8 or h.block_rows > 8:
        fail("COD with impossible values", at)
    return 0


cdef int read_component_levels(Headers h, Reader *s, size_t at) except -1:
    """COC: only whether the component decomposes as COD says. T.800 A.6.2"""
    cdef uint32_t component = u8(s) if len(h.components) < 257 else u16(s)
    cdef uint32_t scoc = u8(s), decompositions = u8(s)
    skip(s, 4)
    if s.failed or component >= <size_t>len(h.components):
        fail("COC is cut or of no component", at)
    if left(s) != (<size_t>decompositions + 1 if scoc & 1 else 0):
        fail("COC has not a precinct size for each resolution level", at)
    if decompositions != h.decompositions:
        h.uniform = False
    return 0


cdef int read_tile_levels(Headers h, Reader *s, size_t at) except -1:
    """COD of a tile: whether it decomposes and progresses as the main header says. T.800 A.6.1"""
    cdef uint32_t scod = u8(s), decompositions
    if u8(s) != h.progression:
        h.uniform = False
    skip(s, 3)
    decompositions = u8(s)
    skip(s, 4)
    if s.failed or left(s) != (<size_t>decompositions + 1 if scod & 1 else 0):
        fail("COD has not a precinct size for each resolution level", at)
    if decompositions != h.decompositions:
        h.uniform = False
    return 0


cdef int read_tlm(Headers h, Reader *s, size_t at) except -1:
    """T.800 A.7.1"""
    cdef uint32_t index, sizes, tile
    cdef int tile_bytes, length_bytes
    index = u8(s)
    sizes = u8(s)
    tile_bytes = (sizes >> 4) & 3
    length_bytes = 4 if sizes & 0x40 else 2
    if s.failed or tile_bytes == 3 or left(s) % (tile_bytes + length_bytes):
        fail("TLM is cut", at)
    if <uint64_t>len(h.tlm) + left(s) // (tile_bytes + length_bytes) > min(h.tiles * 255, <uint64_t>MAX_TLM_ENTRIES):
        fail(f"TLM with too many tile-parts for {h.tiles} tiles", at)
    while left(s):
        tile = u8(s) if tile_bytes == 1 else u16(s) if tile_bytes == 2 else 0xFFFFFFFF
        h.tlm.append((index, -1 if tile_bytes == 0 else tile, u32(s) if length_bytes == 4 else u16(s)))
    return 0


cdef int read_segment(Headers h, Reader *r, size_t at, uint32_t marker, bint main) except -1:
    """One marker segment of a main or tile-part header; `at` is the offset of its marker."""
    cdef uint32_t length = u16(r)
    cdef Reader s
    if r.failed or length < 2:
        fail(f"marker {marker:04X} without a segment", at)
    s = part(r, length - 2)
    if s.failed:
        fail(f"the segment of marker {marker:04X} is cut", at)
    h.segment_count += 1
    if h.segment_count > MANY_SEGMENTS + (r.end - h.start) // 16:
        fail("more marker segments than its bytes justify", at)
    if main:
        h.segments.append((marker, at, length + 2))
    if not main and (marker == COD or marker == COC or marker == QCD or marker == QCC):
        h.tile_coding = True
    if marker == COC:
        read_component_levels(h, &s, at)
    elif marker == POC:
        h.has_poc = True
    elif marker == PPM or marker == PPT:
        h.has_packed_headers = True
    elif marker == PLT or marker == PLM:
        h.has_packet_lengths = True
    elif marker == COD and not main:
        read_tile_levels(h, &s, at)
    elif marker == TLM and main:
        read_tlm(h, &s, at)
    elif marker == CAP and main:
        h.ht = (u32(&s) & 0x00020000) != 0
    elif marker == COD:
        read_cod(h, &s, at)
    return 0


cdef inline bint delimits(uint32_t marker) noexcept nogil:
    """Whether a marker is none of those that begin a segment of a header. T.800 Table A.2"""
    return marker < 0xFF30 or marker in (SOC, SIZ, SOT, SOP, EPH, SOD, EOC)


cdef int read_main_header(Headers h, Reader *r) except -1:
    """From SOC to the first SOT, which is left unread. T.800 A.3"""
    cdef size_t at = r.at
    cdef uint32_t marker, length
    cdef Reader s
    cdef bint has_cod = False, has_qcd = False
    if u16(r) != SOC:
        fail("no SOC marker", at)
    at = r.at
    marker, length = u16(r), u16(r)
    if r.failed or marker != SIZ:
        fail("SOC is not followed by SIZ", at)
    s = part(r, length - 2 if length >= 2 else 0)
    if s.failed:
        fail("SIZ is cut", at)
    h.segments.append((SIZ, at, length + 2))
    read_siz(h, &s, at)
    while True:
        at = r.at
        marker = u16(r)
        if r.failed:
            fail("the main header is cut", at)
        if marker == SOT:
            r.at = at
            break
        if delimits(marker) or marker == PLT or marker == PPT:
            fail(f"marker {marker:04X} inside the main header", at)
        if marker == COD:
            if has_cod:
                fail("a second COD", at)
            has_cod = True
        elif marker == QCD:
            has_qcd = True
        elif marker == COC and not has_cod:
            fail("COC before COD", at)
        if 0xFF30 <= marker <= 0xFF3F:
            continue
        read_segment(h, r, at, marker, True)
    if not has_cod or not has_qcd:
        fail("the main header lacks COD or QCD", r.at)
    return 0


cdef int read_tile_part(Headers h, Reader *r) except -1:
    """From SOT to the end of the tile-part or of the data. 0 when the data ended before SOD. T.800 A.4.2"""
    cdef size_t at = r.at, header
    cdef uint32_t tile, length, index, count, marker
    cdef size_t stop
    skip(r, 2)
    if u16(r) != 10 or r.failed:
        if r.failed:
            r.at = at
            return 0
        fail("SOT is not 10 bytes long", at)
    tile, length, index, count = u16(r), u32(r), u8(r), u8(r)
    if r.failed:
        r.at = at
        return 0
    if tile >= h.tiles:
        fail(f"SOT of tile {tile} of {h.tiles}", at)
    if 0 < length < 14:
        fail(f"a tile-part of {length} bytes", at)
    if len(h.tile_parts) >= MAX_TILE_PARTS:
        fail(f"more than {MAX_TILE_PARTS} tile-parts", at)
    stop = r.end
    if length and length < stop - at:
        stop = at + length
    while True:
        header = r.at
        marker = u16(r)
        if r.failed:
            r.at = at
            return 0
        if marker == SOD:
            break
        if 0xFF30 <= marker <= 0xFF3F:
            continue
        if delimits(marker) or marker in (CAP, TLM, PLM, PPM, CRG, PRF, CPF):
            fail(f"marker {marker:04X} inside a tile-part header", header)
        if left(r) < 2 or left(r) < (<size_t>r.data[r.at] << 8 | r.data[r.at + 1]):
            r.at = at
            return 0
        read_segment(h, r, header, marker, False)
    if r.at > stop:
        fail("a tile-part header is longer than its tile-part", at)
    h.tile_parts.append((tile, index, count, at, length, r.at))
    r.at = stop
    return 1


def scan(const uint8_t[::1] data not None) -> Headers:
    """The headers of the codestream in `data`, raw or boxed. CodestreamError when it cannot be followed.

    Data that ends inside or between tile-parts is not an error: `tile_parts` and `saw_eoc` show it.
    """
    cdef Reader r
    cdef Headers h = Headers()
    cdef size_t at
    cdef uint32_t marker
    r.at = 0
    r.end = data.shape[0]
    r.failed = False
    r.data = &data[0] if data.shape[0] else NULL
    find(&r)
    h.start = r.at
    read_main_header(h, &r)
    while left(&r) >= 2:
        at = r.at
        marker = u16(&r)
        if marker == EOC:
            h.saw_eoc = True
            break
        if marker != SOT:
            fail(f"marker {marker:04X} where a tile-part should start", at)
        r.at = at
        if not read_tile_part(h, &r):
            break
        if len(h.tile_parts) % TILE_PARTS_AT_A_TIME == 0:
            # Other threads get their turn: what they do to the bytes, no read goes behind them.
            with nogil:
                pass
        if r.data[at + 6] == 0 and r.data[at + 7] == 0 and r.data[at + 8] == 0 and r.data[at + 9] == 0:
            # Psot 0: the tile-part lasts until EOC. Its header was read, so these bytes are there.
            h.saw_eoc = r.data[r.end - 2] == 0xFF and r.data[r.end - 1] == 0xD9
            break
    h.end = r.end
    return h
