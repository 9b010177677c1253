from libc.stdint cimport uint32_t, uint64_t

cdef class Headers:
    cdef readonly:
        Py_ssize_t start, end
        uint32_t profile, columns, rows, x0, y0, tile_columns, tile_rows, tile_x0, tile_y0
        uint64_t tiles, segment_count
        uint32_t decompositions, progression, layers, mct, transform, style, block_columns, block_rows
        bint ht, has_poc, has_packed_headers, has_packet_lengths, saw_eoc, uniform, tile_coding
        list components, segments, tile_parts, tlm
