"""Writing UTF-8 JSON into a growable C buffer. Every writer reserves before it writes."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "Python.h":
    enum: Py_DTSF_ADD_DOT_0
    char* PyOS_double_to_string(double value, char code, int precision, int flags, int* kind) except NULL


cdef struct Out:
    char* data
    size_t used
    size_t capacity


cdef inline int reserve(Out* out, size_t n) except -1:
    """Room for `n` more bytes, doubling: the total copied stays within twice the output."""
    cdef size_t wanted = out.used + n
    cdef size_t capacity = out.capacity
    cdef void* grown
    if wanted <= capacity:
        return 0
    capacity = capacity * 2 if capacity else 4096
    if capacity < wanted:
        capacity = wanted
    grown = PyMem_Realloc(out.data, capacity)
    if grown is NULL:
        raise MemoryError()
    out.data = <char*>grown
    out.capacity = capacity
    return 0


cdef inline int put(Out* out, const char* text, size_t n) except -1:
    reserve(out, n)
    memcpy(out.data + out.used, text, n)
    out.used += n
    return 0


cdef inline int put_char(Out* out, char c) except -1:
    reserve(out, 1)
    out.data[out.used] = c
    out.used += 1
    return 0


cdef inline void hex_digits(char* to, uint32_t value, int digits) noexcept nogil:
    cdef int i, nibble
    for i in range(digits):
        nibble = (value >> (4 * (digits - 1 - i))) & 15
        to[i] = <char>(48 + nibble if nibble < 10 else 55 + nibble)


cdef inline int put_hex(Out* out, uint32_t value) except -1:
    """Eight upper-case hexadecimal digits."""
    reserve(out, 8)
    hex_digits(out.data + out.used, value, 8)
    out.used += 8
    return 0


cdef inline int put_unsigned(Out* out, uint64_t value) except -1:
    cdef char digits[20]
    cdef int n = 20
    while True:
        n -= 1
        digits[n] = <char>(48 + value % 10)
        value //= 10
        if value == 0:
            break
    return put(out, digits + n, 20 - n)


cdef inline int put_signed(Out* out, int64_t value) except -1:
    if value < 0:
        put_char(out, b"-")
        return put_unsigned(out, <uint64_t>0 - <uint64_t>value)
    return put_unsigned(out, <uint64_t>value)


cdef inline int put_double(Out* out, double value) except -1:
    """The shortest digits that read back as `value`; JSON has no number for the rest, so those are strings."""
    cdef char* text
    cdef size_t n = 0
    if value != value:
        return put(out, b'"NaN"', 5)
    if value - value != 0:
        return put(out, b'"Infinity"', 10) if value > 0 else put(out, b'"-Infinity"', 11)
    text = PyOS_double_to_string(value, b"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    while text[n]:
        n += 1
    try:
        put(out, text, n)
    finally:
        PyMem_Free(text)
    return 0


cdef inline int put_escaped(Out* out, const uint8_t* text, size_t n, bint latin_1) except -1:
    """The characters of a JSON string, without its quotes; `text` is valid UTF-8 or, if `latin_1`, ISO 8859-1."""
    cdef size_t i = 0, stop
    cdef uint8_t c
    cdef char* to
    while i < n:
        # In pieces, so that the worst case (six for one) is never reserved for a whole long text.
        stop = i + 1024 if n - i > 1024 else n
        reserve(out, 6 * (stop - i))
        to = out.data + out.used
        while i < stop:
            c = text[i]
            i += 1
            if c == 34 or c == 92:
                to[0] = 92
                to[1] = <char>c
                to += 2
            elif c < 32:
                memcpy(to, b"\\u", 2)
                hex_digits(to + 2, c, 4)
                to += 6
            elif c >= 128 and latin_1:
                to[0] = <char>(0xC0 | c >> 6)
                to[1] = <char>(0x80 | c & 63)
                to += 2
            else:
                to[0] = <char>c
                to += 1
        out.used = to - out.data
    return 0


cdef inline int put_base64(Out* out, const uint8_t* p, size_t n) except -1:
    cdef const char* alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef size_t i = 0
    cdef uint32_t bits
    cdef char* to
    reserve(out, (n // 3 + 1) * 4)
    to = out.data + out.used
    while i < n:
        bits = <uint32_t>p[i] << 16
        if i + 1 < n:
            bits |= <uint32_t>p[i + 1] << 8
        if i + 2 < n:
            bits |= p[i + 2]
        to[0] = alphabet[bits >> 18]
        to[1] = alphabet[bits >> 12 & 63]
        to[2] = alphabet[bits >> 6 & 63] if i + 1 < n else b"="
        to[3] = alphabet[bits & 63] if i + 2 < n else b"="
        to += 4
        i += 3
    out.used = to - out.data
    return 0


cdef inline bint valid_utf8(const uint8_t* p, size_t n) noexcept nogil:
    """Whether these bytes are well-formed UTF-8: no overlong form, no surrogate, nothing above U+10FFFF."""
    cdef size_t i = 0, follow, k
    cdef uint8_t c, low, high
    while i < n:
        c = p[i]
        i += 1
        if c < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= c <= 0xDF:
            follow = 1
        elif 0xE0 <= c <= 0xEF:
            follow = 2
            if c == 0xE0:
                low = 0xA0
            elif c == 0xED:
                high = 0x9F
        elif 0xF0 <= c <= 0xF4:
            follow = 3
            if c == 0xF0:
                low = 0x90
            elif c == 0xF4:
                high = 0x8F
        else:
            return False
        if n - i < follow:
            return False
        if not (low <= p[i] <= high):
            return False
        for k in range(1, follow):
            if p[i + k] & 0xC0 != 0x80:
                return False
        i += follow
    return True
