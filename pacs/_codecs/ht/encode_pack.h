/* The three bit streams of a cleanup pass, T.814 7.1: MagSgn, MEL and VLC.
 *
 * Bits of MagSgn and VLC are first put together without stuffed bits: what needs one cannot be foreseen by the
 * processor, and while quads are coded that would cost hundreds of cycles each. encode_stuff.h makes bytes of them.
 */
#ifndef HT_ENCODE_PACK_H
#define HT_ENCODE_PACK_H

#include "tables.h"

#define HT_APPENDED_MOST 56 /* bits that may be appended at once */

/* Bits, the first one lowest. */
typedef struct {
    uint64_t bits; /* `count` of them, less than 8, are not stored yet */
    uint32_t count;
    uint8_t *at;
} ht_bit_stream;

/* MEL, highest bit of a byte first. After a byte FF a byte holds 7 bits. */
typedef struct {
    uint32_t bits;
    uint32_t room; /* bits that the byte under way still takes */
    uint32_t run;  /* events of 0 that are not told yet */
    uint32_t state;
    uint8_t *at;
} ht_event_stream;

typedef struct {
    ht_bit_stream magnitudes;
    ht_bit_stream codes;
    ht_event_stream events;
} ht_streams;

/* Bits above `length` in `word` are 0. Eight bytes from stream->at on are written. */
HT_INLINE void ht_append(ht_bit_stream *stream, uint64_t word, uint32_t length)
{
    uint64_t bits = stream->bits | word << stream->count;
    uint32_t count = stream->count + length;
    ht_store_64(stream->at, bits);
    stream->at += count >> 3;
    stream->bits = bits >> (count & 56);
    stream->count = count & 7;
}

/* Any length up to 64. */
HT_INLINE void ht_append_64(ht_bit_stream *stream, uint64_t word, uint32_t length)
{
    if (HT_UNLIKELY(length > HT_APPENDED_MOST)) {
        ht_append(stream, word & 0xffffffff, 32);
        word >>= 32;
        length -= 32;
    }
    ht_append(stream, word, length);
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

/* As many events of 0. T.814 7.3.3, from the encoder's side. The exponent of the run under way then. */
HT_INLINE uint32_t ht_append_zeros(ht_event_stream *stream, uint32_t count)
{
    uint32_t exponent;
    stream->run += count;
    while (stream->run >> (exponent = ht_run_exponents[stream->state])) {
        ht_append_event_bits(stream, 1, 1);
        stream->run -= 1u << exponent;
        if (stream->state < 12) stream->state++;
    }
    return exponent;
}

/* MEL events: of each bit in `told` the one in `events`, the lowest first. */
static inline ht_event_stream ht_append_events(ht_event_stream stream, uint64_t told, uint64_t events)
{
    for (uint64_t ones = told & events; ones; ones &= ones - 1) {
        uint64_t before = told & ((ones & (0 - ones)) - 1);
        uint32_t exponent = ht_append_zeros(&stream, ht_count_ones(before));
        ht_append_event_bits(&stream, stream.run, exponent + 1);
        stream.run = 0;
        if (stream.state > 0) stream.state--;
        told ^= before | (ones & (0 - ones));
    }
    ht_append_zeros(&stream, ht_count_ones(told));
    return stream;
}

/* What MEL tells of the quads of a row, a bit for each. */
typedef struct {
    uint64_t silent;      /* quads in context 0 */
    uint64_t significant; /* quads with significant samples */
    uint64_t coded;       /* quads with a u above 0; of the first row only */
    uint64_t above_2;     /* quads with a u above 2 */
} ht_row_events;

/* Of each quad in context 0 whether it has significant samples; in the first row, after the second quad of a pair that
 * both have a u, whether both are above 2. T.814 7.3.5, 7.3.6 */
HT_INLINE void ht_append_row_events(ht_event_stream *stream, const ht_row_events *of, int first_row)
{
    uint64_t told = of->silent, events = of->significant;
    if (first_row) {
        uint64_t pairs = of->coded & of->coded >> 1, large = of->above_2 & of->above_2 >> 1;
        told = events = 0;
        for (uint32_t pair = 0; pair < HT_BLOCK / 4; pair++) { /* three bits for each */
            told |= ((of->silent >> 2 * pair & 3) | (pairs >> 2 * pair & 1) << 2) << 3 * pair;
            events |= ((of->significant >> 2 * pair & 3) | (large >> 2 * pair & 1) << 2) << 3 * pair;
        }
    }
    if (told) *stream = ht_append_events(*stream, told, events);
}

#endif
