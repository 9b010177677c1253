/* The three bit streams of a cleanup pass, T.814 7.1: MagSgn, MEL and VLC, bits to bytes with bit stuffing.
 *
 * MagSgn and VLC gather bits in a word of 64 and store eight bytes at a time, of which only the whole ones count. What
 * needs a stuffed bit is rare and looked for in all eight bytes at once; only then it goes byte by byte.
 */
#ifndef HT_ENCODE_PACK_H
#define HT_ENCODE_PACK_H

#include "tables.h"

#define HT_APPENDED_MOST 50 /* bits that may be appended to MagSgn or VLC at once */

#define HT_EACH_BYTE(byte) (0x0101010101010101u * (uint64_t)(byte))

/* MagSgn grows forward. After a byte FF a byte holds 7 bits. */
typedef struct {
    uint64_t bits;
    uint32_t count;
    uint8_t *at;
} ht_magnitude_stream;

/* VLC grows backward. After a byte above 8F, one whose lower 7 bits are ones holds only these. */
typedef struct {
    uint64_t bits;
    uint32_t count;
    uint8_t *at; /* the last byte that was written */
} ht_code_stream;

/* MEL grows forward, highest bit of a byte first. After a byte FF a byte holds 7 bits. */
typedef struct {
    uint32_t bits;
    uint32_t room; /* bits that the byte under way still takes */
    uint32_t run;  /* events of 0 that are not told yet */
    uint32_t state;
    uint8_t *at;
} ht_event_stream;

/* Byte by byte. An FF stays until all 7 bits after it are there. */
static inline void ht_stuff_magnitudes(ht_magnitude_stream *stream)
{
    while (stream->count >= 8) {
        uint8_t byte = (uint8_t)stream->bits;
        if (byte == 0xff) {
            if (stream->count < 15) return;
            *stream->at++ = byte;
            *stream->at++ = (uint8_t)(stream->bits >> 8 & 0x7f);
            stream->bits >>= 15;
            stream->count -= 15;
        } else {
            *stream->at++ = byte;
            stream->bits >>= 8;
            stream->count -= 8;
        }
    }
}

/* Bits above `length` in `word` are 0. Eight bytes from stream->at on are written. */
HT_INLINE void ht_append_magnitudes(ht_magnitude_stream *stream, uint64_t word, uint32_t length)
{
    uint64_t bits = stream->bits | word << stream->count;
    uint32_t count = stream->count + length;
    if (HT_UNLIKELY((~bits - HT_EACH_BYTE(1)) & bits & HT_EACH_BYTE(0x80))) {
        stream->bits = bits;
        stream->count = count;
        ht_stuff_magnitudes(stream);
        return;
    }
    ht_store_64(stream->at, bits);
    stream->at += count >> 3;
    stream->bits = bits >> (count & 56);
    stream->count = count & 7;
}

/* Any length up to 64. */
HT_INLINE void ht_append_magnitudes_64(ht_magnitude_stream *stream, uint64_t word, uint32_t length)
{
    if (HT_UNLIKELY(length > HT_APPENDED_MOST)) {
        ht_append_magnitudes(stream, word & 0xffffffff, 32);
        word >>= 32;
        length -= 32;
    }
    ht_append_magnitudes(stream, word, length);
}

/* The last byte is filled with ones; an FF at the end is left out, the decoder supplies it. T.814 7.1.3 */
static inline void ht_end_magnitudes(ht_magnitude_stream *stream)
{
    uint32_t held = 8;
    if (stream->count >= 8) { /* an FF, and less than 7 bits */
        *stream->at++ = 0xff;
        stream->bits >>= 8;
        stream->count -= 8;
        held = 7;
        if (stream->count == 0) stream->at--;
    }
    if (stream->count > 0) {
        uint8_t byte = (uint8_t)((stream->bits | ~0ull << stream->count) & (0xffu >> (8 - held)));
        if (byte != 0xff) *stream->at++ = byte;
    }
}

/* `end`: behind the last byte of the segment, whose 12 bits of Scup are ones for now. T.814 7.1.4 */
HT_INLINE void ht_begin_codes(ht_code_stream *stream, uint8_t *end)
{
    stream->at = end - 1;
    *stream->at = 0xff;
    stream->bits = 15;
    stream->count = 4;
}

static inline void ht_stuff_codes(ht_code_stream *stream)
{
    while (stream->count >= 7) {
        uint32_t held = 8;
        if (*stream->at > 0x8f && (stream->bits & 0x7f) == 0x7f) held = 7;
        else if (stream->count < 8) return;
        *--stream->at = (uint8_t)(stream->bits & (0xffu >> (8 - held)));
        stream->bits >>= held;
        stream->count -= held;
    }
}

/* Bits above `length` in `word` are 0. Eight bytes before stream->at are written. */
HT_INLINE void ht_append_codes(ht_code_stream *stream, uint64_t word, uint32_t length)
{
    uint64_t bits = stream->bits | word << stream->count;
    uint32_t count = stream->count + length;
    if (HT_UNLIKELY(((~bits & HT_EACH_BYTE(0x7f)) - HT_EACH_BYTE(1)) & HT_EACH_BYTE(0x80))) {
        stream->bits = bits;
        stream->count = count;
        ht_stuff_codes(stream);
        return;
    }
    ht_store_64_reversed(stream->at - 8, bits);
    stream->at -= count >> 3;
    stream->bits = bits >> (count & 56);
    stream->count = count & 7;
}

/* Any length up to 64. */
HT_INLINE void ht_append_codes_64(ht_code_stream *stream, uint64_t word, uint32_t length)
{
    if (HT_UNLIKELY(length > HT_APPENDED_MOST)) {
        ht_append_codes(stream, word & 0xffffffff, 32);
        word >>= 32;
        length -= 32;
    }
    ht_append_codes(stream, word, length);
}

HT_INLINE void ht_begin_events(ht_event_stream *stream, uint8_t *at)
{
    stream->bits = stream->run = stream->state = 0;
    stream->room = 8;
    stream->at = at;
}

/* The lower `length` bits of `word`, the highest first. */
HT_INLINE void ht_append_event_bits(ht_event_stream *stream, uint32_t word, uint32_t length)
{
    while (length >= stream->room) {
        length -= stream->room;
        stream->bits = stream->bits << stream->room | word >> length;
        word &= (1u << length) - 1;
        *stream->at++ = (uint8_t)stream->bits;
        stream->room = stream->bits == 0xff ? 7 : 8;
        stream->bits = 0;
    }
    stream->bits = stream->bits << length | word;
    stream->room -= length;
}

/* `count` MEL events, the first one lowest in `events`, which is 0 above them. T.814 7.3.3, from the encoder's side */
static inline void ht_append_events(ht_event_stream *stream, uint64_t events, uint32_t count)
{
    while (count > 0) {
        uint32_t zeros = events ? ht_trailing_zeros(events) : count, exponent;
        stream->run += zeros;
        while (stream->run >> (exponent = ht_run_exponents[stream->state])) {
            ht_append_event_bits(stream, 1, 1);
            stream->run -= 1u << exponent;
            if (stream->state < 12) stream->state++;
        }
        if (zeros == count) return;
        ht_append_event_bits(stream, stream->run, exponent + 1);
        stream->run = 0;
        if (stream->state > 0) stream->state--;
        events = events >> zeros >> 1;
        count -= zeros + 1;
    }
}

#if HT_X86
/* What is told by MEL of the quads of a row, a bit for each. */
typedef struct {
    uint64_t silent;      /* quads in context 0 */
    uint64_t significant; /* quads with significant samples */
    uint64_t coded;       /* quads with a u above 0 */
    uint64_t above_2;     /* quads with a u above 2 */
} ht_row_events;

/* MEL events of a row: of each quad in context 0 whether it has significant samples; in the first row, after the second
 * quad of a pair that both have a u, whether both are above 2. */
HT_AVX2 HT_INLINE void ht_append_row_events(ht_event_stream *stream, const ht_row_events *of, int first_row)
{
    uint64_t told = of->silent, events = of->significant;
    if (first_row) {
        const uint64_t even = 0x5555555555555555u, third = 0x1249249249249249u;
        uint64_t pairs = of->coded & of->coded >> 1, large = of->above_2 & of->above_2 >> 1;
        told = _pdep_u64(_pext_u64(told, even), third) | _pdep_u64(_pext_u64(told >> 1, even), third << 1) |
               _pdep_u64(_pext_u64(pairs, even), third << 2);
        events = _pdep_u64(_pext_u64(events, even), third) | _pdep_u64(_pext_u64(events >> 1, even), third << 1) |
                 _pdep_u64(_pext_u64(large, even), third << 2);
    }
    if (told == 0) return;
    ht_append_events(stream, _pext_u64(events, told), (uint32_t)_mm_popcnt_u64(told));
}
#endif

/* Ends both. They share a byte if the bits of each allow it and it is not FF. T.814 7.1.4 */
static inline void ht_end_events_and_codes(ht_event_stream *events, ht_code_stream *codes, const uint8_t *codes_end)
{
    if (events->run > 0) ht_append_event_bits(events, 1, 1);
    uint32_t event_mask = 0xffu << events->room & 0xff, code_mask = 0xffu >> (8 - codes->count);
    if ((event_mask | code_mask) == 0) return;
    uint32_t event_byte = events->bits << events->room, code_byte = (uint32_t)codes->bits;
    uint32_t shared = event_byte | code_byte;
    int agree = (((shared ^ event_byte) & event_mask) | ((shared ^ code_byte) & code_mask)) == 0;
    if (agree && shared != 0xff && codes_end - codes->at > 1) {
        *events->at++ = (uint8_t)shared;
        return;
    }
    *events->at++ = (uint8_t)event_byte;
    *--codes->at = (uint8_t)code_byte;
}

#endif
