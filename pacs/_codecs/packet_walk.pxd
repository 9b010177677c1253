# From packet to packet through the tile-parts of one tile. Inline only. T.800 B.9, B.10, A.8

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pacs._codecs.bits cimport Bits, align, bit, bits_of
from pacs._codecs.packet_header cimport Precinct, new_precinct, read_header, shape_precinct
from pacs._codecs.packet_order cimport Visit
from pacs._codecs.partition cimport Level

cdef enum:
    PACKED = 0x40000000     # of a header length: the header lies among the packed ones
    SOP_BYTES = 6

cdef enum Status:
    WHOLE = 0
    NO_MEMORY
    TOO_MANY_PACKETS
    TOO_MUCH_WORK
    MISSING
    BAD_HEADER
    NO_EPH
    BODY_CUT
    LEFT_OVER
    UNORDERED


# Where one packet lies; its numbers follow from its place in the array.
cdef struct Packet:
    size_t header
    size_t body
    uint32_t header_length
    uint32_t body_length


# Steps taken and code-blocks remembered, and how many the length of the data justifies.
cdef struct Limits:
    uint64_t work
    uint64_t most_work
    uint64_t blocks
    uint64_t most_blocks


# The data of one tile-part; its packed headers and its PLT lie in buffers of their own.
cdef struct Part:
    size_t at
    size_t end
    size_t header
    size_t header_end
    size_t length
    size_t length_end
    bint packed
    bint has_lengths
    bint open_ended         # Psot is 0


# What the walk of one tile needs and finds.
cdef struct Walk:
    const uint8_t *data
    const uint8_t *headers
    const uint8_t *lengths
    Part *parts
    size_t part_count
    Level *levels           # of the tile
    Packet *packets         # of the codestream
    Visit *order            # of the tile
    size_t first_packet
    size_t packet_count
    uint32_t layers
    Limits *limits
    bint sop                # may stand before a packet
    bint eph                # stands behind every packet header
    bint disagrees
    size_t where


cdef inline bint at_eoc(Walk *w, Part *p) noexcept nogil:
    """Psot 0: the data lasts until EOC, which may be cut or followed by padding. No packet begins with its bytes."""
    return p.open_ended and p.end > p.at and w.data[p.at] == 0xFF and (p.end - p.at == 1 or w.data[p.at + 1] == 0xD9)


cdef inline bint exhausted(Walk *w, Part *p) noexcept nogil:
    if p.packed:
        return p.header == p.header_end
    return p.at == p.end or at_eoc(w, p)


cdef inline Status finish_part(Walk *w, Part *p) noexcept nogil:
    w.where = p.at
    if p.length != p.length_end:
        w.disagrees = True
    if exhausted(w, p) and (p.at == p.end or at_eoc(w, p)):
        return WHOLE
    return LEFT_OVER


cdef inline size_t sop_bytes(const uint8_t *data, size_t at, size_t end) noexcept nogil:
    """6 where an SOP segment stands: no packet begins with its bytes. T.800 A.8.1"""
    if end - at >= SOP_BYTES and data[at] == 0xFF and data[at + 1] == 0x91 and data[at + 2] == 0 and data[at + 3] == 4:
        return SOP_BYTES
    return 0


cdef inline void check_length(Walk *w, Part *p, size_t length, size_t sop) noexcept nogil:
    """The next length of PLT or PLM against that of a packet, with or without its SOP. T.800 A.7.2-3"""
    cdef uint64_t value = 0
    cdef uint8_t byte
    while p.length < p.length_end and value < <uint64_t>1 << 56:
        byte = w.lengths[p.length]
        p.length += 1
        value = value << 7 | (byte & 0x7F)
        if not byte & 0x80:
            w.disagrees |= value != length and value != length + sop
            return
    w.disagrees = True


cdef inline uint32_t length_bytes(uint64_t length) noexcept nogil:
    """Bytes that PLT takes for a length: seven bits in each. T.800 A.7.3"""
    cdef uint32_t count = 1
    while length >> 7:
        length >>= 7
        count += 1
    return count


cdef inline bint open_precinct(Limits *limits, Level *level, uint32_t number, Precinct **state) noexcept nogil:
    cdef Precinct shape
    cdef uint64_t blocks = shape_precinct(&shape, level, number)
    limits.work += blocks
    limits.blocks += blocks
    if limits.blocks > limits.most_blocks or limits.work > limits.most_work:
        return False
    state[0] = new_precinct(&shape, level)
    return state[0] != NULL


cdef inline void close_precinct(Limits *limits, Level *level, uint32_t number, Precinct **state) noexcept nogil:
    cdef Precinct shape
    limits.blocks -= shape_precinct(&shape, level, number)
    free(state[0])
    state[0] = NULL


cdef inline Status read_packet(Walk *w, Visit *visit, Part *p, Precinct **states) noexcept nogil:
    """SOP, header, EPH, body. A precinct is remembered from its first packet that is not empty to its last layer."""
    cdef Level *level = w.levels + visit.level
    cdef size_t number = (level.first_packet - w.first_packet) // w.layers + visit.precinct
    cdef Packet *packet = w.packets + level.first_packet + <size_t>visit.precinct * w.layers + visit.layer
    cdef size_t sop = sop_bytes(w.data, p.at, p.end) if w.sop else 0, began, end
    cdef Bits s
    cdef uint64_t body = 0
    p.at += sop
    if p.packed:
        s = bits_of(w.headers, p.header, p.header_end)
    else:
        s = bits_of(w.data, p.at, p.end)
    began, end = s.at, s.end
    if bit(&s):
        if states[number] == NULL and not open_precinct(w.limits, level, visit.precinct, &states[number]):
            return TOO_MUCH_WORK
        body = read_header(states[number], visit.layer, level.style, &s, &w.limits.work)
    if visit.layer + 1 == w.layers and states[number] != NULL:
        close_precinct(w.limits, level, visit.precinct, &states[number])
    align(&s)
    if s.failed or s.at - began >= PACKED:
        return BAD_HEADER
    if w.limits.work > w.limits.most_work:
        return TOO_MUCH_WORK
    packet.header, packet.header_length = began, <uint32_t>(s.at - began)
    if w.eph:
        if end - s.at < 2 or s.data[s.at] != 0xFF or s.data[s.at + 1] != 0x92:
            return NO_EPH
        s.at += 2
    if p.packed:
        p.header = s.at
        packet.header_length |= PACKED
        began = p.at
    else:
        p.at = s.at
    if body > p.end - p.at or body >> 32:
        return BODY_CUT
    packet.body, packet.body_length = p.at, <uint32_t>body
    p.at += <size_t>body
    if p.has_lengths:
        check_length(w, p, p.at - began, sop)
    return WHOLE


cdef inline Status walk_packets(Walk *w, Precinct **states) noexcept nogil:
    cdef size_t i, p = 0
    cdef Status status
    for i in range(w.packet_count):
        while p < w.part_count and exhausted(w, &w.parts[p]):
            status = finish_part(w, &w.parts[p])
            if status != WHOLE:
                return status
            p += 1
        if p == w.part_count:
            return MISSING
        w.where = w.parts[p].at
        status = read_packet(w, w.order + i, &w.parts[p], states)
        if status != WHOLE:
            return status
    while p < w.part_count:
        status = finish_part(w, &w.parts[p])
        if status != WHOLE:
            return status
        p += 1
    return WHOLE


cdef inline Status walk_tile(Walk *w) noexcept nogil:
    """Read the header of every packet of a tile, in order; `where` is the place of a fault."""
    cdef size_t i, precincts = w.packet_count // w.layers
    cdef Precinct **states = <Precinct **>calloc(precincts + 1, sizeof(Precinct *))
    cdef Status status
    if states == NULL:
        return NO_MEMORY
    status = walk_packets(w, states)
    for i in range(precincts):
        free(states[i])
    free(states)
    return status
