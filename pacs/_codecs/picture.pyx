"""Samples to the pixels of a picture in one pass: a table of gray levels, and means over areas. The face is
`pacs.rendering.viewport`, which checks that buffers are as long as the numbers say.
"""

from libc.math cimport ceil, floor
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef enum:
    SAMPLES = 1 << 16
    FINE = 1 << 14  # parts of a level that means are kept in


cdef inline void shade(const uint8_t *src, uint8_t *dst, Py_ssize_t count, int width, const uint8_t *table) noexcept nogil:
    """The levels of `count` samples of `width` bytes; samples are levels already where there is no table."""
    cdef Py_ssize_t i
    cdef uint16_t sample
    if table is NULL:
        memcpy(dst, src, count)
    elif width == 1:
        for i in range(count):
            dst[i] = table[src[i]]
    else:
        for i in range(count):
            memcpy(&sample, src + 2 * i, 2)
            dst[i] = table[sample]


cdef struct Room:           # what is needed beside the picture
    uint8_t *line           # the levels of a row
    float *sums             # of the rows that a row of the picture covers
    int32_t *heights        # these as a mean
    int64_t *total          # of the heights before
    double *before          # the same before each edge
    int32_t *at             # the value that an edge lies in
    double *part            # and how much of its pixel lies before the edge


cdef int furnish(Room *room, Py_ssize_t values, Py_ssize_t edges, int planes) noexcept nogil:
    """-1 without memory. What was had is to be freed either way."""
    room.line = <uint8_t *>malloc(values)
    room.sums = <float *>malloc(values * sizeof(float))
    room.heights = <int32_t *>malloc(values * sizeof(int32_t))
    room.total = <int64_t *>malloc((values + planes) * sizeof(int64_t))
    room.before = <double *>malloc(edges * sizeof(double))
    room.at = <int32_t *>malloc(edges * sizeof(int32_t))
    room.part = <double *>malloc(edges * sizeof(double))
    if room.line is NULL or room.sums is NULL or room.heights is NULL or room.total is NULL:
        return -1
    return -1 if room.before is NULL or room.at is NULL or room.part is NULL else 0


cdef void clear(Room *room) noexcept nogil:
    free(room.line)
    free(room.sums)
    free(room.heights)
    free(room.total)
    free(room.before)
    free(room.at)
    free(room.part)


cdef void narrow(
    Room *room, uint8_t *dst, Py_ssize_t values, Py_ssize_t across, int planes, float height, float scale
) noexcept nogil:
    """One row of the picture: differences of the running sum, which cost the same whatever the factor."""
    # As locals: a pointer in the struct would be read again after each store, which could have changed it.
    cdef Py_ssize_t i
    cdef float mean
    cdef const float *sums = room.sums
    cdef int32_t *heights = room.heights
    cdef int64_t *total = room.total
    cdef double *before = room.before
    cdef const int32_t *at = room.at
    cdef const double *part = room.part
    cdef int64_t sum = 0
    for i in range(values):
        heights[i] = <int32_t>(sums[i] * height)
    if planes == 1:
        for i in range(values):
            sum += heights[i]
            total[i + 1] = sum
    else:
        for i in range(values):
            total[i + planes] = total[i] + heights[i]
    for i in range(across + planes):
        before[i] = total[at[i]] + part[i] * heights[at[i]]
    for i in range(across):
        mean = <float>(before[i + planes] - before[i]) * scale + <float>0.5
        dst[i] = <uint8_t>(0 if mean < 0 else 255 if mean > 255 else mean)


cdef void add(float *sums, const uint8_t *line, Py_ssize_t values, float weight) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(values):
        sums[i] += weight * line[i]


cdef int means(
    const uint8_t *src, uint8_t *dst, int width, const uint8_t *table, Py_ssize_t rows, Py_ssize_t columns,
    int planes, double top, double bottom, Py_ssize_t high, double left, double right, Py_ssize_t wide,
) noexcept nogil:
    """-1 without memory."""
    cdef Py_ssize_t begin = <Py_ssize_t>floor(left)
    cdef Py_ssize_t span = min(columns, <Py_ssize_t>ceil(right)) - begin
    cdef Py_ssize_t row, y, first, last, i, plane, column, have = -1, values = span * planes
    cdef double start, stop, edge
    cdef float weight
    cdef float height = <float>(FINE * high / (bottom - top)), scale = <float>(wide / (right - left) / FINE)
    cdef Room room
    cdef int done = furnish(&room, values, (wide + 1) * planes, planes)
    if done == 0:
        memset(room.total, 0, planes * sizeof(int64_t))
        for i in range(wide + 1):
            edge = (right if i == wide else left + (right - left) * i / wide) - begin
            column = min(<Py_ssize_t>edge, span - 1)
            for plane in range(planes):
                room.at[i * planes + plane] = <int32_t>(column * planes + plane)
                room.part[i * planes + plane] = edge - column
        for row in range(high):
            start = top + (bottom - top) * row / high
            stop = bottom if row == high - 1 else top + (bottom - top) * (row + 1) / high
            first = min(<Py_ssize_t>floor(start), rows - 1)
            last = max(first, min(<Py_ssize_t>ceil(stop), rows) - 1)
            memset(room.sums, 0, values * sizeof(float))
            for y in range(first, last + 1):
                if y != have:
                    shade(src + (y * columns + begin) * planes * width, room.line, values, width, table)
                    have = y
                weight = <float>(min(<double>(y + 1), stop) - max(<double>y, start))
                add(room.sums, room.line, values, weight)
            narrow(&room, dst + row * wide * planes, values, wide * planes, planes, height, scale)
    clear(&room)
    return done


def paint(
    const uint8_t[::1] src not None, uint8_t[::1] dst not None, const uint8_t[::1] levels, int first, int width,
    Py_ssize_t rows, Py_ssize_t columns, int planes, double top, double bottom, Py_ssize_t high, double left,
    double right, Py_ssize_t wide,
) -> None:
    """`high` rows of `wide` pixels to `dst`: means over equal areas of the rectangle of `src`, edges weighed by what
    they cover.

    `src` has `rows` of `columns` pixels of `planes` samples of `width` bytes, in the machine's order. Sample `first`,
    as its bits are without a sign, gets levels[0]; without `levels` samples are bytes and levels already. The
    rectangle lies within the image and is not empty.
    """
    cdef uint8_t *table = NULL
    cdef Py_ssize_t count = 0 if levels is None else levels.shape[0], i
    cdef int done = 0
    cdef bint as_it_is = high == rows and wide == columns and top == 0 and left == 0
    as_it_is = as_it_is and bottom == rows and right == columns
    if count:
        table = <uint8_t *>malloc(SAMPLES)
        if table is NULL:
            raise MemoryError
        memset(table, levels[count - 1], SAMPLES)
        for i in range(min(count, SAMPLES)):
            # Samples of one byte have no bits above it.
            table[(first + i) & (0xFF if width == 1 else 0xFFFF)] = levels[i]
    with nogil:
        if as_it_is:
            shade(&src[0], &dst[0], rows * columns * planes, width, table)
        else:
            done = means(
                &src[0], &dst[0], width, table, rows, columns, planes, top, bottom, high, left, right, wide
            )
        free(table)
    if done:
        raise MemoryError
