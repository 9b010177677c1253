/* The quads of a code-block to codes and magnitudes, sixteen at a time, for AVX-512 and magnitudes below 2^15.
 *
 * Nothing but the packing of bits depends on what was coded before, so the rest is computed for sixteen quads (32
 * samples of two rows) at once: in lanes of 32 bits, one byte for each sample of a quad in order of T.814 Figure 2, what
 * belongs to the quad in all four bytes or in the lowest one. Vectors end as words of fields with their masks, which
 * PEXT packs: it is fast on every processor with VBMI2.
 */
#ifndef HT_ENCODE_AVX512_H
#define HT_ENCODE_AVX512_H

#include "encode_portable.h"

#if HT_X86

/* Compilers are to load what was just stored, not to take vectors apart, which is slower. */
#define HT_LOADED(array) __asm__ volatile("" : "+m"(array))

/* Of sixteen quads, what the row of quads below asks for. T.814 7.3.5, 7.3.7 */
typedef struct {
    __m512i kappa;   /* of quads with more than one significant sample, in all bytes */
    __mmask16 left;  /* a significant sample above, at the left border: bit 0 of the context */
    __mmask16 right; /* at the right border: bit 2 */
} ht_above_512;

/* Sixteen quads of the row under way. */
typedef struct {
    __m512i words[2];  /* 2 (magnitude - 1) + sign of quads 0, 1, 4, 5, 8, 9, 12, 13 and of the other ones */
    __m512i exponents; /* in natural order, a byte for each sample */
    __m512i rho;
} ht_quads_512;

/* Two rows of samples, 32 of each, to quads. */
HT_AVX512 HT_INLINE ht_quads_512 ht_quads_of_512(__m512i upper, __m512i lower)
{
    const __m512i one = _mm512_set1_epi16(1), below = _mm512_set1_epi32(0x8000);
    ht_quads_512 quads;
    __m512i samples[2] = {_mm512_unpacklo_epi16(upper, lower), _mm512_unpackhi_epi16(upper, lower)}, exponents[2];
    for (int i = 0; i < 2; i++) {
        __m512i magnitude = _mm512_abs_epi16(samples[i]);
        quads.words[i] = _mm512_shldi_epi16(_mm512_sub_epi16(magnitude, one), samples[i], 1);
        /* The exponent of 2 magnitude - 1 and of 0, by leading zeros of 32 bits in which a one stands below the 16. */
        __m512i doubled = _mm512_subs_epu16(_mm512_add_epi16(magnitude, magnitude), one);
        __m512i high = _mm512_lzcnt_epi32(_mm512_or_si512(doubled, below));
        __m512i low = _mm512_lzcnt_epi32(_mm512_or_si512(_mm512_slli_epi32(doubled, 16), below));
        exponents[i] = _mm512_or_si512(_mm512_slli_epi32(high, 16), low);
    }
    quads.exponents = _mm512_sub_epi8(_mm512_set1_epi8(16), _mm512_packus_epi16(exponents[0], exponents[1]));
    __m512i significant = _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(quads.exponents, quads.exponents),
                                                _mm512_set1_epi32(0x08040201));
    quads.rho = _mm512_dpbusd_epi32(_mm512_setzero_si512(), significant, _mm512_set1_epi8(1));
    return quads;
}

/* What the next row asks for; `before` and `after`: exponents of the sixteen quads before and after. */
HT_AVX512 HT_INLINE ht_above_512 ht_above_of_512(__m512i before, __m512i exponents, __m512i after)
{
    const __m512i lower_left = _mm512_set4_epi32(0x0d0d0d0d, 0x09090909, 0x05050505, 0x01010101);
    const __m512i lower_right = _mm512_set4_epi32(0x0f0f0f0f, 0x0b0b0b0b, 0x07070707, 0x03030303);
    __m512i previous = _mm512_alignr_epi32(exponents, before, 15), next = _mm512_alignr_epi32(after, exponents, 1);
    __m512i left = _mm512_shuffle_epi8(exponents, lower_left), right = _mm512_shuffle_epi8(exponents, lower_right);
    left = _mm512_max_epu8(left, _mm512_shuffle_epi8(previous, lower_right));
    right = _mm512_max_epu8(right, _mm512_shuffle_epi8(next, lower_left));
    const __m512i one = _mm512_set1_epi8(1);
    ht_above_512 above;
    above.kappa = _mm512_max_epu8(_mm512_subs_epu8(_mm512_max_epu8(left, right), one), one);
    above.left = _mm512_test_epi32_mask(left, left);
    above.right = _mm512_test_epi32_mask(right, right);
    return above;
}

/* A row of quads on the way to its codes: what is computed of it before they are looked up. Two parts of sixteen. */
typedef struct {
    uint64_t words[2][16]; /* of ht_quads_512: four times 16 bits of each quad */
    uint32_t codes[2][16]; /* indices of ht_encoder_codes, then what stands there */
    __m512i absent[2];     /* of each sample 16 less the bits that MagSgn holds of it, if the code tells none */
    __m512i u[2];          /* in all bytes */
    uint32_t significant[2];
    uint32_t above_2[2];
} ht_row_512;

/* Contexts, kappa, exponents and u of sixteen quads, of which those in `valid` are in the code-block; `before`: rho of
 * the sixteen quads before. Adds to `events` at bit 16 `part`. T.814 7.3.5, 7.3.7 */
HT_AVX512 HT_INLINE void ht_classify_512(const ht_quads_512 *quads, __m512i before, const ht_above_512 *above,
                                         int first_row, __mmask16 valid, int part, ht_row_events *events,
                                         ht_row_512 *row)
{
    const __m512i one = _mm512_set1_epi8(1);
    __m512i left = _mm512_alignr_epi32(quads->rho, before, 15), context, kappa = one;
    if (first_row) {
        context = _mm512_or_si512(_mm512_srli_epi32(left, 1), _mm512_and_si512(left, _mm512_set1_epi32(1)));
    } else {
        __mmask16 several = _mm512_test_epi32_mask(quads->rho, _mm512_sub_epi32(quads->rho, _mm512_set1_epi32(1)));
        kappa = _mm512_mask_mov_epi32(one, several, above->kappa);
        context = _mm512_maskz_mov_epi32(above->left, _mm512_set1_epi32(1));
        context = _mm512_mask_or_epi32(context, _mm512_test_epi32_mask(left, _mm512_set1_epi32(12)), context,
                                       _mm512_set1_epi32(2));
        context = _mm512_mask_or_epi32(context, above->right, context, _mm512_set1_epi32(4));
    }
    /* The largest exponent of each quad, in all of its bytes. */
    __m512i most = _mm512_max_epu8(quads->exponents, _mm512_rol_epi32(quads->exponents, 16));
    most = _mm512_max_epu8(most, _mm512_rol_epi32(most, 8));
    __m512i u_q = _mm512_max_epu8(most, kappa), u = _mm512_sub_epi8(u_q, kappa);
    __mmask16 coded = _mm512_test_epi32_mask(u, u);
    __m512i largest = _mm512_set1_epi32(0x08040201);
    largest = _mm512_maskz_mov_epi8(_mm512_cmpeq_epi8_mask(quads->exponents, most), largest);
    __m512i index = _mm512_or_si512(_mm512_slli_epi32(context, 8), _mm512_slli_epi32(quads->rho, 4));
    index = _mm512_mask_dpbusd_epi32(index, coded, largest, one);
    /* Index 0 has no code. */
    _mm512_store_si512(row->codes[part], _mm512_maskz_mov_epi32(valid, index));
    __mmask64 significant = _mm512_test_epi8_mask(quads->exponents, quads->exponents);
    row->absent[part] = _mm512_mask_sub_epi8(_mm512_set1_epi8(16), significant, _mm512_set1_epi8(16), u_q);
    row->u[part] = u;
    _mm512_store_si512(row->words[part], quads->words[0]);
    _mm512_store_si512(row->words[part] + 8, quads->words[1]);
    row->significant[part] = _mm512_test_epi32_mask(quads->rho, quads->rho);
    events->silent |= (uint64_t)_mm512_mask_testn_epi32_mask(valid, context, context) << 16 * part;
    events->significant |= (uint64_t)row->significant[part] << 16 * part;
    if (first_row) {
        row->above_2[part] = _mm512_cmpgt_epi32_mask(u, _mm512_set1_epi32(0x02020202));
        events->coded |= (uint64_t)coded << 16 * part;
        events->above_2 |= (uint64_t)row->above_2[part] << 16 * part;
    }
}

/* The codes of a part of a row. A gather takes twice as long. */
HT_INLINE void ht_look_up_codes(uint32_t codes[16], int first_row)
{
    HT_LOADED(*(uint32_t(*)[16])codes);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) codes[i] = ht_encoder_codes[!first_row][codes[i]];
}

/* The bits of `words` under the ones of `masks`, four times 16 of each quad, `quads` from quad `first` on as one word.
 * In both stand quads 0, 1, 4, 5, 8, 9, 12, 13, then the other ones. */
HT_AVX512 HT_INLINE void ht_append_quads_512(ht_bit_stream *stream, const uint64_t words[16], const uint64_t masks[16],
                                             int first, int quads)
{
    uint64_t joined = 0;
    uint32_t length = 0;
#pragma GCC unroll 4
    for (int quad = first; quad < first + quads; quad++) {
        int at = (quad >> 2 << 1) | (quad & 1) | (quad & 2) << 2;
        joined |= _pext_u64(words[at], masks[at]) << length;
        length += (uint32_t)_mm_popcnt_u64(masks[at]);
    }
    if (quads > 1) ht_append(stream, joined, length);
    else ht_append_64(stream, joined, length);
}

/* MagSgn of sixteen quads: of each significant sample U_q bits, one less where the code tells the highest one.
 * T.814 7.3.8 */
HT_AVX512 HT_INLINE void ht_pack_magnitudes_512(ht_bit_stream *stream, const ht_row_512 *row, int part, __m512i codes)
{
    const __m512i zero = _mm512_setzero_si512(), all = _mm512_set1_epi16(-1);
    const __m512i spread = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    uint64_t masks[16] __attribute__((aligned(64)));
    __mmask64 known = _mm512_test_epi8_mask(_mm512_shuffle_epi8(codes, spread), _mm512_set1_epi32(0x08040201));
    __m512i absent = _mm512_mask_add_epi8(row->absent[part], known, row->absent[part], _mm512_set1_epi8(1));
    _mm512_store_si512(masks, _mm512_srlv_epi16(all, _mm512_unpacklo_epi8(absent, zero)));
    _mm512_store_si512(masks + 8, _mm512_srlv_epi16(all, _mm512_unpackhi_epi8(absent, zero)));
    /* Words of four quads if all of these are short enough, of two, or of one. Lengths as 16 bits less a sample. */
    __m512i two = _mm512_sad_epu8(absent, zero), four = _mm512_add_epi64(two, _mm512_shuffle_epi32(two, _MM_PERM_BADC));
    if (!_mm512_cmplt_epu64_mask(four, _mm512_set1_epi64(256 - HT_APPENDED_MOST))) {
        HT_LOADED(masks);
#pragma GCC unroll 4
        for (int quad = 0; quad < 16; quad += 4) ht_append_quads_512(stream, row->words[part], masks, quad, 4);
    } else if (!_mm512_cmplt_epu64_mask(two, _mm512_set1_epi64(128 - HT_APPENDED_MOST))) {
        HT_LOADED(masks);
#pragma GCC unroll 8
        for (int quad = 0; quad < 16; quad += 2) ht_append_quads_512(stream, row->words[part], masks, quad, 2);
    } else {
        HT_LOADED(masks);
        for (int quad = 0; quad < 16; quad++) ht_append_quads_512(stream, row->words[part], masks, quad, 1);
    }
}

/* Of each u below 16 in all bytes of 32 bits: in byte 2 the prefix, in 3 the suffix. T.814 Table 3 */
HT_AVX512 HT_INLINE __m512i ht_u_words_512(__m512i u)
{
    const __m512i words = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0x04020100, 0x00000004, 0, 0, 0, 0x02010001,
                                            0x06050403, 0x0a090807);
    return _mm512_permutexvar_epi8(_mm512_add_epi8(u, _mm512_set1_epi32(0x30201000)), words);
}

/* As many ones as they have bits: in byte 0 of the prefix, in 1 of the suffix. */
HT_AVX512 HT_INLINE __m512i ht_u_masks_512(__m512i u)
{
    const __m512i masks = _mm512_setr_epi32(0x07030100, 0x07070707, 0x07070707, 0x07070707, 0x01000000, 0x1f1f1f01,
                                            0x1f1f1f1f, 0x1f1f1f1f, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_permutexvar_epi8(_mm512_add_epi8(u, _mm512_set1_epi32(0x30201000)), masks);
}

/* VLC of sixteen quads: of two of them the codes, then the prefixes of u, then the suffixes. T.814 7.3.4, 7.3.6 */
HT_AVX512 HT_INLINE void ht_pack_codes_512(ht_bit_stream *stream, const ht_row_512 *row, int part, int first_row,
                                           __m512i codes)
{
    uint64_t words[8] __attribute__((aligned(64))), masks[8] __attribute__((aligned(64)));
    __m512i u = row->u[part];
    uint32_t both = 0, single = 0;
    if (first_row) {
        /* Where both of a pair are above 2 they are less by 2; where only the first is, the second is a single bit. */
        both = row->above_2[part] & row->above_2[part] >> 1 & 0x5555;
        single = (row->above_2[part] & 0x5555 & ~both) << 1;
        single &= _mm512_test_epi32_mask(u, u);
        u = _mm512_mask_sub_epi8(u, _mm512_movepi8_mask(_mm512_movm_epi32((__mmask16)(both | both << 1))), u,
                                 _mm512_set1_epi8(2));
    }
    __m512i word = ht_u_words_512(u), mask = ht_u_masks_512(u);
    if (first_row) {
        const __m512i prefix = _mm512_set1_epi32(0xff0000), one = _mm512_set1_epi32(0x10000);
        word = _mm512_mask_sub_epi32(word, (__mmask16)single, _mm512_and_si512(u, prefix), one);
        mask = _mm512_mask_mov_epi32(mask, (__mmask16)single, _mm512_set1_epi32(1));
    }
    /* Bytes 1 of `word` and 2 of `mask` are the code's. */
    word = _mm512_ternarylogic_epi32(word, codes, _mm512_set1_epi32(0x7f00), 0xf8);
    mask = _mm512_ternarylogic_epi32(mask, codes, _mm512_set1_epi32(0x7f0000), 0xf8);
    if (_mm512_test_epi32_mask(mask, mask) == 0) return;
    const __m512i of_words = _mm512_set4_epi32((int)0xffff0f0b, 0x0e0a0d09, (int)0xffff0703, 0x06020501);
    const __m512i of_masks = _mm512_set4_epi32((int)0xffff0d09, 0x0c080e0a, (int)0xffff0501, 0x04000602);
    _mm512_store_si512(words, _mm512_shuffle_epi8(word, of_words));
    _mm512_store_si512(masks, _mm512_shuffle_epi8(mask, of_masks));
    HT_LOADED(words);
    HT_LOADED(masks);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        uint32_t length = (uint32_t)_mm_popcnt_u64(masks[i]);
        uint64_t joined = _pext_u64(words[i], masks[i]) | _pext_u64(words[i + 1], masks[i + 1]) << length;
        ht_append_64(stream, joined, length + (uint32_t)_mm_popcnt_u64(masks[i + 1]));
    }
}

/* 32 samples of 16 bits, those in `mask`, from samples of 16 or 32 bits. */
HT_AVX512 HT_INLINE __m512i ht_load_512(const void *samples, ptrdiff_t at, uint32_t mask, int bytes)
{
    if (bytes == 2) return _mm512_maskz_loadu_epi16(mask, (const int16_t *)samples + at);
    const int32_t *from = (const int32_t *)samples + at;
    __m512i first = _mm512_maskz_loadu_epi32((__mmask16)mask, from);
    __m512i second = _mm512_setzero_si512();
    if (mask >> 16) second = _mm512_maskz_loadu_epi32((__mmask16)(mask >> 16), from + 16);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(first)), _mm512_cvtepi32_epi16(second), 1);
}

/* The lower `count` bits, 32 at most. */
HT_INLINE uint32_t ht_ones_below(uint32_t count)
{
    return count >= 32 ? 0xffffffff : (1u << count) - 1;
}

/* One row of quads up to the look-up of codes; `above` is of the row before and becomes that of this one. The exponents
 * that are significant. */
HT_AVX512 HT_INLINE __m512i ht_begin_row_512(const void *samples, ptrdiff_t stride, uint32_t width, int single,
                                             int first_row, int bytes, ht_above_512 above[2], ht_row_512 *row,
                                             ht_event_stream *stream)
{
    const __m512i zero = _mm512_setzero_si512();
    ht_row_events events = {0, 0, 0, 0};
    ht_quads_512 quads[2];
    uint32_t masks[2] = {ht_ones_below(width), width > 32 ? ht_ones_below(width - 32) : 0};
    int parts = width > 32 ? 2 : 1;
    quads[1].exponents = zero;
    for (int i = 0; i < parts; i++) {
        __m512i upper = ht_load_512(samples, 32 * i, masks[i], bytes);
        quads[i] = ht_quads_of_512(upper, single ? zero : ht_load_512(samples, stride + 32 * i, masks[i], bytes));
        uint32_t columns = (width + 1) / 2 - 16 * (uint32_t)i;
        ht_classify_512(&quads[i], i ? quads[0].rho : zero, &above[i], first_row, (__mmask16)ht_ones_below(columns), i,
                        &events, row);
    }
    for (int i = 0; i < parts; i++) ht_look_up_codes(row->codes[i], first_row);
    ht_append_row_events(stream, &events, first_row);
    above[0] = ht_above_of_512(zero, quads[0].exponents, quads[1].exponents);
    if (parts > 1) above[1] = ht_above_of_512(quads[0].exponents, quads[1].exponents, zero);
    return _mm512_or_si512(quads[0].exponents, quads[1].exponents);
}

/* The rest of it. */
HT_AVX512 HT_INLINE void ht_end_row_512(const ht_row_512 *row, uint32_t width, int first_row, ht_streams *streams)
{
    for (int i = 0; i < (width > 32 ? 2 : 1); i++) {
        __m512i codes = _mm512_load_si512(row->codes[i]);
        ht_pack_codes_512(&streams->codes, row, i, first_row, codes);
        if (row->significant[i]) ht_pack_magnitudes_512(&streams->magnitudes, row, i, codes);
    }
}

/* A code-block of samples of 2 or 4 `bytes`, whose magnitudes are below 2^15. 0 if all are 0.
 * A row is ended after the next one was begun: codes that were stored one by one are not loaded at once. */
HT_AVX512 HT_INLINE int ht_encode_rows_512(const void *samples, ptrdiff_t stride, uint32_t width, uint32_t height,
                                           int bytes, ht_streams *streams)
{
    ht_above_512 above[2];
    ht_row_512 rows[2] __attribute__((aligned(64)));
    __m512i any = ht_begin_row_512(samples, stride, width, height == 1, 1, bytes, above, &rows[0], &streams->events);
    uint32_t y = 2;
    for (; y < height; y += 2) {
        const char *row = (const char *)samples + (ptrdiff_t)y * stride * bytes;
        any = _mm512_or_si512(any, ht_begin_row_512(row, stride, width, y + 1 == height, 0, bytes, above,
                                                    &rows[y >> 1 & 1], &streams->events));
        ht_end_row_512(&rows[~y >> 1 & 1], width, y == 2, streams);
    }
    ht_end_row_512(&rows[~y >> 1 & 1], width, y == 2, streams);
    return _mm512_test_epi8_mask(any, any) != 0;
}

/* All bits of all magnitudes. */
HT_AVX512 static inline uint32_t ht_magnitudes_of_512(const int32_t *samples, ptrdiff_t stride, uint32_t width,
                                                      uint32_t height)
{
    __m512i any = _mm512_setzero_si512();
    for (uint32_t y = 0; y < height; y++, samples += stride)
        for (uint32_t x = 0; x < width; x += 16)
            any = _mm512_or_si512(
                any, _mm512_abs_epi32(_mm512_maskz_loadu_epi32((__mmask16)ht_ones_below(width - x), samples + x)));
    return (uint32_t)_mm512_reduce_or_epi32(any);
}

#endif
#endif
