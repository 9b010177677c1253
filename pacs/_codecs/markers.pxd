# JPEG 2000 markers and a bounds-checked reader of big endian fields. Inline only. T.800 A.2, T.814 A
#
# `Reader.at` moves only in here; a read behind `end` sets `failed`, leaves `at` where it was, and gives 0.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SOC = 0xFF4F
    CAP = 0xFF50
    SIZ = 0xFF51
    COD = 0xFF52
    COC = 0xFF53
    TLM = 0xFF55
    PRF = 0xFF56
    PLM = 0xFF57
    PLT = 0xFF58
    CPF = 0xFF59
    QCD = 0xFF5C
    QCC = 0xFF5D
    RGN = 0xFF5E
    POC = 0xFF5F
    PPM = 0xFF60
    PPT = 0xFF61
    CRG = 0xFF63
    COM = 0xFF64
    SOT = 0xFF90
    SOP = 0xFF91
    EPH = 0xFF92
    SOD = 0xFF93
    EOC = 0xFFD9

cdef struct Reader:
    const uint8_t *data
    size_t at
    size_t end
    bint failed


cdef inline size_t left(Reader *r) noexcept nogil:
    return r.end - r.at


cdef inline uint32_t u8(Reader *r) noexcept nogil:
    if r.end - r.at < 1:
        r.failed = True
        return 0
    r.at += 1
    return r.data[r.at - 1]


cdef inline uint32_t u16(Reader *r) noexcept nogil:
    if r.end - r.at < 2:
        r.failed = True
        return 0
    r.at += 2
    return (<uint32_t>r.data[r.at - 2] << 8) | r.data[r.at - 1]


cdef inline uint32_t u32(Reader *r) noexcept nogil:
    cdef uint32_t high
    if r.end - r.at < 4:
        r.failed = True
        return 0
    high = u16(r)
    return (high << 16) | u16(r)


cdef inline uint64_t u64(Reader *r) noexcept nogil:
    cdef uint64_t high
    if r.end - r.at < 8:
        r.failed = True
        return 0
    high = u32(r)
    return (high << 32) | u32(r)


cdef inline void skip(Reader *r, uint64_t count) noexcept nogil:
    if r.end - r.at < count:
        r.failed = True
    else:
        r.at += <size_t>count


cdef inline Reader part(Reader *r, uint64_t count) noexcept nogil:
    """A reader of the next `count` bytes; `r` moves behind them."""
    cdef Reader inner
    inner.data = r.data
    inner.at = r.at
    inner.end = r.at
    inner.failed = False
    skip(r, count)
    if r.failed:
        inner.failed = True
    else:
        inner.end = r.at
    return inner
