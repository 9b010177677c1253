"""Values of Data Elements as DICOM JSON values. PS3.18 F.2.3"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from pacs._codecs.cursor cimport load_u16, load_u32, load_u64
from pacs._codecs.jsontext cimport Out, put, put_char, put_double, put_hex, put_signed, put_unsigned
from pacs._codecs.vr cimport (
    VR_AT, VR_FD, VR_FL, VR_SL, VR_SS, VR_SV, VR_UL, VR_US, VR_UV, unit_bytes,
)

cdef enum:
    # A DS has 16 characters at most, an IS 12. Longer ones are written by careless software; far longer ones are not
    # numbers that a JSON reader need hold.
    DECIMAL_CHARACTERS = 64
    INTEGER_DIGITS = 18


cdef inline bint is_space(uint8_t c) noexcept nogil:
    return c == 32 or 9 <= c <= 13 or 28 <= c <= 31


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return 48 <= c <= 57


cdef inline size_t trimmed(const uint8_t* p, size_t n) noexcept nogil:
    """Length without the padding at the end: spaces and NULs."""
    while n and (p[n - 1] == 32 or p[n - 1] == 0):
        n -= 1
    return n


cdef inline size_t digits_at(const uint8_t* p, size_t at, size_t n) noexcept nogil:
    while at < n and is_digit(p[at]):
        at += 1
    return at


cdef inline int put_integer_string(Out* out, const uint8_t* p, size_t n) except -1:
    """1 and the number in JSON's spelling, or 0 and nothing when this is not an integer (1.0 is one)."""
    cdef size_t first = 1 if n and (p[0] == 43 or p[0] == 45) else 0
    cdef size_t stop = digits_at(p, first, n), i = stop
    if stop == first or stop - first > INTEGER_DIGITS:
        return 0
    if i < n and p[i] == 46:
        i += 1
        while i < n and p[i] == 48:
            i += 1
    if i < n:
        return 0
    while stop - first > 1 and p[first] == 48:
        first += 1
    if p[0] == 45 and not (stop - first == 1 and p[first] == 48):
        put_char(out, b"-")
    put(out, <const char*>p + first, stop - first)
    return 1


cdef inline bint has_fraction(const uint8_t* p, size_t n) noexcept:
    """Whether a number has a point or an exponent. Without either it has too many digits for JSON's readers."""
    cdef size_t i
    for i in range(n):
        if p[i] == 46 or (p[i] | 32) == 101:
            return True
    return False


cdef inline int put_decimal_string(Out* out, const uint8_t* p, size_t n) except -1:
    """1 and the number in JSON's spelling (no plus sign, no bare point), or 0 when this is not a number."""
    cdef size_t first = 1 if n and (p[0] == 43 or p[0] == 45) else 0
    cdef size_t point, fraction, stop, exponent
    cdef bint negative = False
    if n > DECIMAL_CHARACTERS:
        return 0
    point = digits_at(p, first, n)
    fraction = point + 1 if point < n and p[point] == 46 else point
    stop = digits_at(p, fraction, n)
    if point == first and stop == fraction:
        return 0
    exponent = n
    if stop < n and (p[stop] | 32) == 101:
        exponent = stop + 1
        if exponent < n and (p[exponent] == 43 or p[exponent] == 45):
            exponent += 1
        if exponent == n or digits_at(p, exponent, n) != n:
            return 0
        negative = p[exponent - 1] == 45
        # Older C libraries for Windows write three digits, `-1.024000e+003`.
        while n - exponent > 1 and p[exponent] == 48:
            exponent += 1
        if n - exponent > 2:
            return 0
    elif stop != n:
        return 0
    while point - first > 1 and p[first] == 48:
        first += 1
    if p[0] == 45:
        put_char(out, b"-")
    put(out, <const char*>p + first, point - first) if point > first else put_char(out, b"0")
    if stop > fraction:
        put_char(out, b".")
        put(out, <const char*>p + fraction, stop - fraction)
    if exponent < n:
        put(out, b"e-" if negative else b"e+", 2)
        put(out, <const char*>p + exponent, n - exponent)
    return 1


cdef inline int put_integer(Out* out, int64_t value) except -1:
    """A number where every JSON reader keeps it exact, a string beyond. PS3.18 F.2.3"""
    if -(<int64_t>1 << 53) <= value <= (<int64_t>1 << 53):
        return put_signed(out, value)
    put_char(out, b'"')
    put_signed(out, value)
    return put_char(out, b'"')


cdef inline int put_number(Out* out, const uint8_t* p, int vr, bint big_endian) except -1:
    cdef uint32_t bits
    cdef uint64_t long_bits
    cdef float single
    cdef double value
    if vr == VR_US:
        return put_unsigned(out, load_u16(p, big_endian))
    if vr == VR_SS:
        return put_signed(out, <int16_t>load_u16(p, big_endian))
    if vr == VR_UL:
        return put_unsigned(out, load_u32(p, big_endian))
    if vr == VR_SL:
        return put_signed(out, <int32_t>load_u32(p, big_endian))
    if vr == VR_FL:
        bits = load_u32(p, big_endian)
        memcpy(&single, &bits, 4)
        return put_double(out, single)
    long_bits = load_u64(p, big_endian)
    if vr == VR_FD:
        memcpy(&value, &long_bits, 8)
        return put_double(out, value)
    if vr == VR_UV and long_bits >> 63:
        put_char(out, b'"')
        put_unsigned(out, long_bits)
        return put_char(out, b'"')
    return put_integer(out, <int64_t>long_bits)


cdef inline int put_numbers(Out* out, const uint8_t* p, size_t n, int vr, bint big_endian, bint descriptor) except -1:
    """`Value` with the numbers of a binary value whose length is a multiple of `unit_bytes(vr)`."""
    cdef int unit = unit_bytes(vr)
    cdef size_t i = 0
    put(out, b',"Value":[', 10)
    while i < n:
        if i:
            put_char(out, b",")
        if vr == VR_AT:
            put_char(out, b'"')
            put_hex(out, <uint32_t>load_u16(p + i, big_endian) << 16 | load_u16(p + i + 2, big_endian))
            put_char(out, b'"')
        elif descriptor and i == 0:
            put_number(out, p, VR_US, big_endian)
        else:
            put_number(out, p + i, vr, big_endian)
        i += unit
    return put_char(out, b"]")
