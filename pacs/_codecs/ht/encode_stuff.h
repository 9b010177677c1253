/* Bytes of MagSgn and VLC with stuffed bits, T.814 7.1.3 and 7.1.4, and how the three segments end.
 *
 * What needs a stuffed bit is rare, so it is looked for in many bytes at once.
 */
#ifndef HT_ENCODE_STUFF_H
#define HT_ENCODE_STUFF_H

#include "encode_pack.h"

#define HT_EACH_BYTE(byte) (0x0101010101010101u * (uint64_t)(byte))
#define HT_AHEAD 16 /* bytes behind the last bit that are written and read */

/* At least 57 bits from bit `at` on. */
HT_INLINE uint64_t ht_peek(const uint8_t *bits, size_t at)
{
    return ht_load_64(bits + (at >> 3)) >> (at & 7);
}

/* A one in the highest bit of each byte that is FF, but for what is above the lowest one of them. */
HT_INLINE uint64_t ht_find_ff(uint64_t bytes)
{
    return (~bytes - HT_EACH_BYTE(1)) & bytes & HT_EACH_BYTE(0x80);
}

/* A one in the highest bit of each byte whose lower 7 bits are ones. */
HT_INLINE uint64_t ht_find_7f(uint64_t bytes)
{
    return ~((~bytes & HT_EACH_BYTE(0x7f)) + HT_EACH_BYTE(0x7f)) & HT_EACH_BYTE(0x80);
}

#if HT_X86
/* 64 bytes from bit `at` on. */
HT_AVX512 HT_INLINE __m512i ht_peek_512(const uint8_t *bits, size_t at)
{
    __m512i first = _mm512_loadu_si512(bits + (at >> 3)), second = _mm512_loadu_si512(bits + (at >> 3) + 8);
    return _mm512_shrdv_epi64(first, second, _mm512_set1_epi64((long long)(at & 7)));
}

/* Bytes of MagSgn as ht_stuff_magnitudes(), as long as there are 64. */
HT_AVX512 static inline uint8_t *ht_stuff_magnitudes_512(const uint8_t *bits, size_t *at, size_t end, uint8_t *out)
{
    while (*at + 520 <= end) {
        __m512i bytes = ht_peek_512(bits, *at);
        uint64_t found = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(-1));
        _mm512_storeu_si512(out, bytes);
        if (found == 0) {
            out += 64;
            *at += 512;
        } else {
            size_t whole = _tzcnt_u64(found) + 1;
            out += whole;
            *at += 8 * whole;
            *out++ = (uint8_t)(ht_peek(bits, *at) & 0x7f);
            *at += 7;
        }
    }
    return out;
}

/* Bytes of VLC as ht_stuff_codes(), as long as there are 64. */
HT_AVX512 static inline uint8_t *ht_stuff_codes_512(const uint8_t *bits, size_t *at, size_t end, uint8_t *out)
{
    const __m512i seven = _mm512_set1_epi8(0x7f);
    const __m512i backward = _mm512_set_epi64(0x0001020304050607, 0x08090a0b0c0d0e0f, 0x1011121314151617,
                                              0x18191a1b1c1d1e1f, 0x2021222324252627, 0x28292a2b2c2d2e2f,
                                              0x3031323334353637, 0x38393a3b3c3d3e3f);
    while (*at + 520 <= end) {
        __m512i bytes = ht_peek_512(bits, *at);
        uint64_t large = _mm512_cmpgt_epu8_mask(bytes, _mm512_set1_epi8((char)0x8f));
        uint64_t found = _mm512_cmpeq_epi8_mask(_mm512_and_si512(bytes, seven), seven) & (large << 1 | (*out > 0x8f));
        _mm512_storeu_si512(out - 64, _mm512_permutexvar_epi8(backward, bytes));
        if (found == 0) {
            out -= 64;
            *at += 512;
        } else {
            size_t whole = _tzcnt_u64(found);
            out -= whole + 1;
            *out = 0x7f;
            *at += 8 * whole + 7;
        }
    }
    return out;
}
#endif

/* Bits of MagSgn to bytes from `out` on: after a byte FF a byte holds 7 bits. The last byte is filled with ones; an FF
 * at the end is left out, the decoder supplies it. T.814 7.1.3. `bits` has HT_AHEAD bytes more. Behind the last byte. */
HT_INLINE uint8_t *ht_stuff_magnitudes(ht_bit_stream stream, uint8_t *bits, uint8_t *out, int tier)
{
    const uint8_t *begin = out;
    size_t at = 0, end = 8 * (size_t)(stream.at - bits) + stream.count;
    ht_store_64(stream.at, stream.bits | ~0ull << stream.count);
    ht_store_64(stream.at + 8, ~0ull);
#if HT_X86
    if (tier == HT_TIER_AVX512) out = ht_stuff_magnitudes_512(bits, &at, end, out);
#endif
    (void)tier;
    while (at + 56 + 7 <= end) {
        uint64_t bytes = ht_peek(bits, at), found = ht_find_ff(bytes) & (HT_EACH_BYTE(0x80) >> 8);
        ht_store_64(out, bytes);
        if (HT_UNLIKELY(found)) {
            size_t before = ht_trailing_zeros(found) & 56;
            out += (before >> 3) + 1;
            at += before + 8;
            *out++ = (uint8_t)(ht_peek(bits, at) & 0x7f);
            at += 7;
        } else {
            out += 7;
            at += 56;
        }
    }
    for (uint32_t held = 8; at < end; at += held, held = *out++ == 0xff ? 7 : 8)
        *out = (uint8_t)(ht_peek(bits, at) & (held == 7 ? 0x7f : 0xff));
    return out > begin && out[-1] == 0xff ? out - 1 : out;
}

/* What is left of VLC when its whole bytes are written. */
typedef struct {
    uint32_t bits;
    uint32_t count; /* less than 8 */
    uint8_t *at;    /* the last byte, which stands lowest */
} ht_code_bytes;

/* Bits of VLC to bytes, down from `out`, the last byte written: after a byte above 8F, one whose lower 7 bits are ones
 * holds only these. T.814 7.1.4. `bits` has HT_AHEAD bytes more. */
HT_INLINE ht_code_bytes ht_stuff_codes(ht_bit_stream stream, const uint8_t *bits, uint8_t *out, int tier)
{
    size_t at = 0, end = 8 * (size_t)(stream.at - bits) + stream.count;
    ht_store_64(stream.at, stream.bits);
#if HT_X86
    if (tier == HT_TIER_AVX512) out = ht_stuff_codes_512(bits, &at, end, out);
#endif
    (void)tier;
    while (at + 56 <= end) {
        uint64_t bytes = ht_peek(bits, at), found = ht_find_7f(bytes) & (HT_EACH_BYTE(0x80) >> 8);
        size_t held = 56;
        for (; HT_UNLIKELY(found); found &= found - 1) {
            size_t before = ht_trailing_zeros(found) & 56;
            if ((before ? bytes >> (before - 8) & 0xff : *out) > 0x8f) {
                bytes &= ~(0x80ull << before);
                held = before + 7;
                break;
            }
        }
        ht_store_64_reversed(out - 8, bytes);
        out -= (held + 1) >> 3;
        at += held;
    }
    for (;;) {
        uint32_t byte = ht_peek(bits, at) & 0xff, held = *out > 0x8f && (byte & 0x7f) == 0x7f ? 7 : 8;
        if (at + held > end) {
            ht_code_bytes rest = {byte & ((1u << (end - at)) - 1), (uint32_t)(end - at), out};
            return rest;
        }
        *--out = (uint8_t)(byte & (0xffu >> (8 - held)));
        at += held;
    }
}

/* Ends MEL, and VLC, which ends before `codes_end`. They share a byte if the bits of each allow it and it is not FF.
 * T.814 7.1.4 */
HT_INLINE void ht_end_events_and_codes(ht_event_stream *events, ht_code_bytes *codes, const uint8_t *codes_end)
{
    if (events->run > 0) ht_append_event_bits(events, 1, 1);
    uint32_t event_mask = 0xffu << events->room & 0xff, code_mask = 0xffu >> (8 - codes->count);
    if ((event_mask | code_mask) == 0) return;
    uint32_t event_byte = events->bits << events->room, shared = event_byte | codes->bits;
    int agree = (((shared ^ event_byte) & event_mask) | ((shared ^ codes->bits) & code_mask)) == 0;
    if (agree && shared != 0xff && codes_end - codes->at > 1) {
        *events->at++ = (uint8_t)shared;
        return;
    }
    *events->at++ = (uint8_t)event_byte;
    *--codes->at = (uint8_t)codes->bits;
}

#endif
