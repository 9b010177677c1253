"""Codestreams made of the packets of another, in another order or with fewer of them. The face is `pacs.progression`.

Packets are copied as they are; those left out inside what is kept become empty ones of one byte. T.800 A.4.2, A.7, B.12
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from pacs._codecs.packet_order cimport RPCL, Change, Order, Visit, arrange, begin
from pacs._codecs.packet_walk cimport PACKED, Packet, length_bytes
from pacs._codecs.partition cimport Level, ceil_shift, larger, smaller
from pacs._codecs.progression cimport Packets, Tile

from pacs.errors import CodestreamError

cdef enum:
    SOT_AND_SOD = 14
    TLM_ENTRY = 6
    TLM_ENTRIES = 10921         # of one segment: Ltlm is 16 bits
    PLT_BYTES = 65532           # of lengths in one segment
    PLT_SEGMENTS = 256
    MOST_WRITTEN = 20           # bytes of empty tile-parts for each byte that came
    LONG = 1 << 20              # below this the interpreter lock is kept


# One tile-part to be written.
cdef struct Piece:
    uint32_t tile
    uint32_t number
    size_t first                # of its packets in the new order
    size_t stop
    uint64_t data
    uint64_t lengths            # bytes of lengths in its PLT segments
    uint32_t segments           # PLT segments; 0: none
    const uint8_t *header       # segments of the tile, in its first tile-part
    size_t header_length
    uint64_t length             # Psot


cdef struct Target:
    uint8_t *out
    size_t at
    const uint8_t *data
    const uint8_t *packed
    const uint8_t *keep         # a byte for each packet, or NULL: all
    Packet *packets
    Level *levels
    Tile *tiles
    Visit *order
    uint32_t pieces_of_tile


cdef inline void put(Target *t, uint64_t value, int width) noexcept nogil:
    while width:
        width -= 1
        t.out[t.at] = (value >> (8 * width)) & 0xFF
        t.at += 1


cdef inline void copy(Target *t, const uint8_t *source, size_t length) noexcept nogil:
    memcpy(t.out + t.at, source, length)
    t.at += length


cdef inline size_t slot(Target *t, Tile *tile, Visit *visit) noexcept nogil:
    return (t.levels[tile.first_level + visit.level].first_packet
            + <size_t>visit.precinct * tile.layers + visit.layer)


cdef inline uint64_t packet_bytes(Target *t, size_t index) noexcept nogil:
    """Of a packet as it will be written. One that is not kept is a zero bit. T.800 B.10.3"""
    if t.keep != NULL and not t.keep[index]:
        return 1
    return <uint64_t>(t.packets[index].header_length & ~PACKED) + t.packets[index].body_length


cdef void measure(Target *t, Piece *piece) noexcept nogil:
    cdef Tile *tile = t.tiles + piece.tile
    cdef size_t i
    cdef uint64_t length
    cdef uint32_t width, room = 0
    piece.data = piece.lengths = piece.segments = 0
    for i in range(piece.first, piece.stop):
        length = packet_bytes(t, slot(t, tile, t.order + i))
        piece.data += length
        width = length_bytes(length)
        if room < width:
            piece.segments += 1
            room = PLT_BYTES
        room -= width
        piece.lengths += width
    if piece.segments > PLT_SEGMENTS:
        piece.segments = 0
        piece.lengths = 0
    piece.length = SOT_AND_SOD + piece.header_length + piece.data + piece.lengths + 5 * <uint64_t>piece.segments


cdef void write_lengths(Target *t, Piece *piece) noexcept nogil:
    """PLT: the length of each packet, none of them split between segments. T.800 A.7.3"""
    cdef Tile *tile = t.tiles + piece.tile
    cdef size_t i, began = 0
    cdef uint64_t length
    cdef uint32_t width, room = 0, number = 0
    for i in range(piece.first, piece.stop):
        length = packet_bytes(t, slot(t, tile, t.order + i))
        width = length_bytes(length)
        if room < width:
            if number:
                close_segment(t, began)
            began = t.at
            put(t, 0xFF58, 2)
            put(t, 0, 2)
            put(t, number, 1)
            number += 1
            room = PLT_BYTES
        room -= width
        while width:
            width -= 1
            put(t, (length >> (7 * width) & 0x7F) | (0x80 if width else 0), 1)
    close_segment(t, began)


cdef inline void close_segment(Target *t, size_t began) noexcept nogil:
    cdef size_t length = t.at - began - 2
    t.out[began + 2], t.out[began + 3] = length >> 8, length & 0xFF


cdef void write_piece(Target *t, Piece *piece) noexcept nogil:
    cdef Tile *tile = t.tiles + piece.tile
    cdef Packet *packet
    cdef size_t i, index
    put(t, 0xFF90000A, 4)
    put(t, piece.tile, 2)
    put(t, piece.length, 4)
    put(t, piece.number, 1)
    put(t, t.pieces_of_tile, 1)
    copy(t, piece.header, piece.header_length)
    if piece.segments:
        write_lengths(t, piece)
    put(t, 0xFF93, 2)
    for i in range(piece.first, piece.stop):
        index = slot(t, tile, t.order + i)
        if t.keep != NULL and not t.keep[index]:
            put(t, 0, 1)
            continue
        packet = t.packets + index
        if packet.header_length & PACKED:
            copy(t, t.packed + packet.header, packet.header_length & ~PACKED)
            copy(t, t.data + packet.body, packet.body_length)
        elif packet.header + packet.header_length == packet.body:
            copy(t, t.data + packet.header, packet.header_length + <size_t>packet.body_length)
        else:
            copy(t, t.data + packet.header, packet.header_length)
            copy(t, t.data + packet.body, packet.body_length)


cdef void write_pieces(Target *t, Piece *pieces, size_t count) noexcept nogil:
    """TLM, then the tile-parts, then EOC. T.800 A.7.1"""
    cdef size_t i, entries
    for i in range(count):
        if i % TLM_ENTRIES == 0:
            entries = min(<size_t>TLM_ENTRIES, count - i)
            put(t, 0xFF55, 2)
            put(t, 4 + TLM_ENTRY * entries, 2)
            put(t, i // TLM_ENTRIES, 1)
            put(t, 0x60, 1)     # Ttlm of 16, Ptlm of 32 bits
        put(t, pieces[i].tile, 2)
        put(t, pieces[i].length, 4)
    for i in range(count):
        write_piece(t, pieces + i)
    put(t, 0xFFD9, 2)


cdef size_t arrange_tile(Packets packets, Tile *tile, Visit *visits, uint32_t progression, uint32_t dropped,
                         uint32_t layers) except? 0:
    """The packets of a tile in a progression; how many there are."""
    cdef Order o
    cdef Change change = Change(progression, 0, 33, 0, 16384, smaller(layers, tile.layers))
    cdef uint64_t work = 0
    cdef uint32_t *numbers
    cdef bint whole
    if tile.packets == 0:
        return 0
    numbers = begin(
        &o, packets.levels + tile.first_level, tile.levels, tile.first_packet, tile.layers,
        <uint32_t>ceil_shift(tile.x0, dropped), <uint32_t>ceil_shift(tile.y0, dropped), dropped, visits, tile.packets,
        &work,
    )
    if numbers == NULL:
        raise MemoryError
    whole = arrange(&o, numbers, &change)
    free(numbers)
    if not whole:
        raise MemoryError
    return o.filled


cdef uint32_t resolutions_kept(Packets packets, uint32_t dropped):
    """Of the component that has most."""
    cdef size_t i
    cdef uint32_t most = 1
    for i in range(packets.level_count):
        if packets.levels[i].below >= dropped:
            most = larger(most, packets.levels[i].resolution + 1)
    return most


def pieces(Packets packets not None, uint32_t progression, uint32_t dropped):
    """The number of tile-parts that `write` makes of each tile."""
    return resolutions_kept(packets, dropped) if progression == RPCL else 1


def write(Packets packets not None, const uint8_t[::1] data not None, bytes main_header not None,
          dict tile_headers not None, uint32_t progression, uint32_t dropped, uint32_t layers, bytearray keep):
    """The codestream: `main_header`, TLM, tile-parts with PLT, EOC.

    RPCL: a tile-part for each resolution level of each tile, level by level. Else one for each tile.
    """
    cdef Target t
    cdef uint32_t per_tile = pieces(packets, progression, dropped), number, tile
    cdef size_t count = packets.tile_count * per_tile, i, filled = 0
    cdef Visit *order = NULL
    cdef Piece *parts = NULL
    cdef Piece *piece
    cdef uint64_t total
    cdef bytes header, out
    if <size_t>data.shape[0] != packets.length:
        raise ValueError("other data than the packets were found in")
    if count * (SOT_AND_SOD + TLM_ENTRY) > (1 << 20) + MOST_WRITTEN * packets.length:
        # A tile with 33 resolution levels among thousands that have one: the others would get 33 tile-parts too.
        raise CodestreamError(f"{count} tile-parts for {packets.length} bytes")
    try:
        order = <Visit *>malloc((packets.packet_count + 1) * sizeof(Visit))
        parts = <Piece *>calloc(count, sizeof(Piece))
        if order == NULL or parts == NULL:
            raise MemoryError
        t.data, t.packed, t.packets, t.levels = &data[0], packets.packed, packets.packets, packets.levels
        t.tiles, t.order, t.pieces_of_tile, t.keep = packets.tiles, order, per_tile, NULL
        if keep is not None:
            t.keep = keep
        total = len(main_header) + 2 + count * TLM_ENTRY + 6 * ((count + TLM_ENTRIES - 1) // TLM_ENTRIES)
        for tile in range(packets.tile_count):
            i = filled
            filled += arrange_tile(packets, packets.tiles + tile, order + filled, progression, dropped, layers)
            for number in range(per_tile):
                piece = parts + number * packets.tile_count + tile
                piece.tile, piece.number, piece.first = tile, number, i
                while i < filled and (
                    per_tile == 1
                    or packets.levels[packets.tiles[tile].first_level + order[i].level].resolution == number
                ):
                    i += 1
                piece.stop = i
            header = tile_headers.get(tile, b"")
            parts[tile].header, parts[tile].header_length = header, len(header)
        for i in range(count):
            measure(&t, parts + i)
            if parts[i].length >> 32:
                raise CodestreamError("a tile-part of 4 GiB or more")
            total += parts[i].length
        out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
        t.out, t.at = out, 0
        copy(&t, main_header, len(main_header))
        if total >= LONG:
            with nogil:
                write_pieces(&t, parts, count)
        else:
            write_pieces(&t, parts, count)
        assert t.at == total
        return out
    finally:
        free(order)
        free(parts)
