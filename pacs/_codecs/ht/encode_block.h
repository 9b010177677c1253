/* The HT block encoder: the samples of one code-block to the bytes of its cleanup pass. T.814 clause 7
 *
 * Only what lossless images need: the cleanup pass of bit-plane 0 (reversible), code-blocks of at most 64 by 64.
 */
#ifndef HT_ENCODE_BLOCK_H
#define HT_ENCODE_BLOCK_H

#include "encode_avx2.h"
#include "encode_avx512.h"
#include "encode_stuff.h"

/* MagSgn has at most 31 bits a sample, the codes 30 for two quads, MEL less than 2 an event, all of them one bit more
 * after 7 or 15: less than 20,000 bytes. And room for what is stored eight bytes at a time. */
#define HT_ENCODED_MOST 20480

#define HT_MAGNITUDES_MOST (HT_BLOCK * HT_BLOCK * 31 / 8 + HT_AHEAD)
#define HT_EVENTS_MOST 512
#define HT_CODES_MOST 2560

typedef struct {
    union { /* a copy of the block */
        int32_t wide[HT_BLOCK * HT_BLOCK];
        int16_t narrow[HT_BLOCK * HT_BLOCK];
    } rows;
    uint8_t magnitude_bits[HT_MAGNITUDES_MOST]; /* without stuffed bits */
    uint8_t code_bits[HT_CODES_MOST];
    uint8_t codes[HT_CODES_MOST];
    uint8_t events[HT_EVENTS_MOST];
} ht_encode_scratch; /* aligned to 64 bytes */

HT_INLINE ht_streams ht_begin_streams(ht_encode_scratch *scratch)
{
    /* The last 12 bits of VLC, which are its first, are Scup's and ones for now. T.814 7.1.4 */
    ht_streams streams = {{0, 0, scratch->magnitude_bits}, {15, 4, scratch->code_bits}, {0, 8, 0, 0, scratch->events}};
    return streams;
}

/* Puts MEL and VLC behind MagSgn, with their length (Scup) in the last 12 bits. T.814 7.1.1, 7.1.2 */
HT_INLINE size_t ht_end_streams(ht_streams streams, uint8_t *out, ht_encode_scratch *scratch, int tier)
{
    uint8_t *codes_end = scratch->codes + HT_CODES_MOST;
    codes_end[-1] = 0xff;
    ht_code_bytes code_bytes = ht_stuff_codes(streams.codes, scratch->code_bits, codes_end - 1, tier);
    ht_end_events_and_codes(&streams.events, &code_bytes, codes_end);
    uint8_t *end = ht_stuff_magnitudes(streams.magnitudes, scratch->magnitude_bits, out, tier);
    size_t events = (size_t)(streams.events.at - scratch->events), codes = (size_t)(codes_end - code_bytes.at);
    memcpy(end, scratch->events, events);
    memcpy(end + events, code_bytes.at, codes);
    end += events + codes;
    end[-1] = (uint8_t)((events + codes) >> 4);
    end[-2] = (uint8_t)((end[-2] & 0xf0) | ((events + codes) & 15));
    return (size_t)(end - out);
}

/* Copies the block to rows of HT_BLOCK samples, with zeros up to sixteen columns and two rows. All bits of all
 * magnitudes: 0 if all samples are 0. */
#define HT_COPY_ROWS(name, from_type, to_type)                                                                         \
    HT_INLINE uint32_t name(const from_type *samples, ptrdiff_t stride, uint32_t width, uint32_t height, to_type *rows) \
    {                                                                                                                  \
        uint32_t any = 0, beyond = (0 - width) & 15;                                                                   \
        for (uint32_t y = 0; y < height; y++, samples += stride, rows += HT_BLOCK) {                                   \
            for (uint32_t x = 0; x < width; x++) {                                                                     \
                any |= (uint32_t)(samples[x] < 0 ? -samples[x] : samples[x]);                                          \
                rows[x] = (to_type)samples[x];                                                                         \
            }                                                                                                          \
            memset(rows + width, 0, beyond * sizeof *rows);                                                            \
        }                                                                                                              \
        if (height & 1) memset(rows, 0, (width + beyond) * sizeof *rows);                                              \
        return any;                                                                                                    \
    }
HT_COPY_ROWS(ht_copy_rows_16, int16_t, int32_t)
HT_COPY_ROWS(ht_copy_rows_32, int32_t, int32_t)
#if HT_X86
HT_COPY_ROWS(ht_copy_narrow_rows_16, int16_t, int16_t)
HT_COPY_ROWS(ht_copy_narrow_rows_32, int32_t, int16_t)
#endif
#undef HT_COPY_ROWS

static inline size_t ht_encode_portable(uint32_t width, uint32_t height, uint8_t *out, ht_encode_scratch *scratch)
{
    ht_streams streams = ht_begin_streams(scratch);
    ht_encode_rows(scratch->rows.wide, width, height, &streams);
    return ht_end_streams(streams, out, scratch, HT_PORTABLE);
}

#if HT_X86
/* Any magnitudes, for the other tiers. */
HT_AVX2 static inline size_t ht_encode_wide(const int32_t *samples, ptrdiff_t stride, uint32_t width, uint32_t height,
                                            uint8_t *out, ht_encode_scratch *scratch)
{
    ht_streams streams = ht_begin_streams(scratch);
    ht_copy_rows_32(samples, stride, width, height, scratch->rows.wide);
    ht_encode_rows(scratch->rows.wide, width, height, &streams);
    return ht_end_streams(streams, out, scratch, HT_TIER_AVX2);
}

HT_AVX2 static inline size_t ht_encode_narrow_avx2(uint32_t width, uint32_t height, uint8_t *out,
                                                   ht_encode_scratch *scratch)
{
    ht_streams streams = ht_begin_streams(scratch);
    ht_encode_rows_256(scratch->rows.narrow, width, height, &streams);
    return ht_end_streams(streams, out, scratch, HT_TIER_AVX2);
}

HT_AVX2 static inline size_t ht_encode_16_avx2(const int16_t *samples, ptrdiff_t stride, uint32_t width,
                                               uint32_t height, uint8_t *out, ht_encode_scratch *scratch)
{
    if (!ht_copy_narrow_rows_16(samples, stride, width, height, scratch->rows.narrow)) return 0;
    return ht_encode_narrow_avx2(width, height, out, scratch);
}

HT_AVX2 static inline size_t ht_encode_32_avx2(const int32_t *samples, ptrdiff_t stride, uint32_t width,
                                               uint32_t height, uint8_t *out, ht_encode_scratch *scratch)
{
    uint32_t magnitudes = ht_copy_narrow_rows_32(samples, stride, width, height, scratch->rows.narrow);
    if (magnitudes == 0) return 0;
    if (magnitudes > INT16_MAX) return ht_encode_wide(samples, stride, width, height, out, scratch);
    return ht_encode_narrow_avx2(width, height, out, scratch);
}

HT_AVX512 static inline size_t ht_encode_16_avx512(const int16_t *samples, ptrdiff_t stride, uint32_t width,
                                                   uint32_t height, uint8_t *out, ht_encode_scratch *scratch)
{
    ht_streams streams = ht_begin_streams(scratch);
    if (!ht_encode_rows_512(samples, stride, width, height, 2, &streams)) return 0;
    return ht_end_streams(streams, out, scratch, HT_TIER_AVX512);
}

HT_AVX512 static inline size_t ht_encode_32_avx512(const int32_t *samples, ptrdiff_t stride, uint32_t width,
                                                   uint32_t height, uint8_t *out, ht_encode_scratch *scratch)
{
    uint32_t magnitudes = ht_magnitudes_of_512(samples, stride, width, height);
    if (magnitudes == 0) return 0;
    if (magnitudes > INT16_MAX) return ht_encode_wide(samples, stride, width, height, out, scratch);
    ht_streams streams = ht_begin_streams(scratch);
    ht_encode_rows_512(samples, stride, width, height, 4, &streams);
    return ht_end_streams(streams, out, scratch, HT_TIER_AVX512);
}
#endif

/* How many bytes the cleanup pass has, which are written to `out`, with room for HT_ENCODED_MOST. 0: all samples are 0,
 * such a code-block is not included. `stride` in samples; |samples| < 2^30; `width` and `height` from 1 to HT_BLOCK;
 * `tier` as of ht_best_tier(). */
static inline size_t ht_encode_block_32(const int32_t *samples, ptrdiff_t stride, uint32_t width, uint32_t height,
                                        uint8_t *out, ht_encode_scratch *scratch, int tier)
{
#if HT_X86
    if (tier == HT_TIER_AVX512) return ht_encode_32_avx512(samples, stride, width, height, out, scratch);
    if (tier == HT_TIER_AVX2) return ht_encode_32_avx2(samples, stride, width, height, out, scratch);
#endif
    (void)tier;
    if (!ht_copy_rows_32(samples, stride, width, height, scratch->rows.wide)) return 0;
    return ht_encode_portable(width, height, out, scratch);
}

/* The same of |samples| < 2^15. */
static inline size_t ht_encode_block_16(const int16_t *samples, ptrdiff_t stride, uint32_t width, uint32_t height,
                                        uint8_t *out, ht_encode_scratch *scratch, int tier)
{
#if HT_X86
    if (tier == HT_TIER_AVX512) return ht_encode_16_avx512(samples, stride, width, height, out, scratch);
    if (tier == HT_TIER_AVX2) return ht_encode_16_avx2(samples, stride, width, height, out, scratch);
#endif
    (void)tier;
    if (!ht_copy_rows_16(samples, stride, width, height, scratch->rows.wide)) return 0;
    return ht_encode_portable(width, height, out, scratch);
}

#endif
