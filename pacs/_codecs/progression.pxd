from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pacs._codecs.codestream cimport Headers
from pacs._codecs.coding cimport Coding
from pacs._codecs.packet_order cimport Visit
from pacs._codecs.packet_walk cimport Limits, Packet
from pacs._codecs.partition cimport Level, Style

# Its corners on the reference grid, its levels and packets.
cdef struct Tile:
    uint32_t x0
    uint32_t y0
    uint32_t x1
    uint32_t y1
    uint32_t layers
    size_t first_level
    size_t levels
    size_t first_packet
    size_t packets


cdef class Packets:
    cdef:
        readonly Headers headers
        readonly bytearray packed
        readonly dict tile_segments
        readonly object lengths_agree
        Tile *tiles
        size_t tile_count
        Level *levels           # of all tiles; by component, then resolution in each
        size_t level_count
        size_t level_room
        Packet *packets         # by tile, component, resolution, precinct, layer
        Visit *order            # as they lie, tile by tile; levels count from the tile's first
        size_t packet_count
        size_t packet_room
        Limits limits
        size_t length           # of the bytes walked

    cdef int make_tile(self, uint32_t number, Coding coding, uint64_t bytes_there, size_t at) except -1
    cdef int add_levels(self, Tile *tile, uint32_t component, Style *style, uint32_t dx, uint32_t dy,
                        uint64_t bytes_there, size_t at) except -1
    cdef int grow_packets(self) except -1
    cdef int arrange_tile(self, Tile *tile, Coding coding, size_t at) except -1
