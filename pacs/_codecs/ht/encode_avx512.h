/* The quads of a code-block to codes and magnitudes, sixteen at a time, for AVX-512 and magnitudes below 2^15.
 *
 * Nothing but the packing of bits depends on what was coded before, so all of it is computed for sixteen quads (32
 * samples of two rows) at once: in lanes of 32 bits, one byte for each sample of a quad in order of T.814 Figure 2, what
 * belongs to the quad in all four bytes or in the lowest one. Bits are joined by variable shifts, to words of up to four
 * quads, which are then appended to the streams.
 */
#ifndef HT_ENCODE_AVX512_H
#define HT_ENCODE_AVX512_H

#include "encode_portable.h"

#if HT_X86

#define HT_EVEN_32 0x5555     /* lanes of 32 bits that are the lower half of 64 */
#define HT_EVEN_16 0x55555555 /* lanes of 16 bits that are the lower half of 32 */

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
    __m512i left = _mm512_max_epu8(_mm512_shuffle_epi8(exponents, lower_left), _mm512_shuffle_epi8(previous, lower_right));
    __m512i right = _mm512_max_epu8(_mm512_shuffle_epi8(exponents, lower_right), _mm512_shuffle_epi8(next, lower_left));
    const __m512i one = _mm512_set1_epi8(1);
    ht_above_512 above;
    above.kappa = _mm512_max_epu8(_mm512_subs_epu8(_mm512_max_epu8(left, right), one), one);
    above.left = _mm512_test_epi32_mask(left, left);
    above.right = _mm512_test_epi32_mask(right, right);
    return above;
}

/* Joins two lanes of `half` bits to one, the lower one first: values, whose lower one may have bits above its length.
 * `room`: in each lower lane `half` less its length, in each upper one 0. */
HT_AVX512 HT_INLINE __m512i ht_join_16(__m512i values, __m512i room)
{
    return _mm512_srlv_epi32(_mm512_sllv_epi16(values, room), room);
}

HT_AVX512 HT_INLINE __m512i ht_join_32(__m512i values, __m512i room)
{
    return _mm512_srlv_epi64(_mm512_sllv_epi32(values, room), room);
}

HT_AVX512 HT_INLINE __m512i ht_room_32(__m512i lengths)
{
    return _mm512_maskz_sub_epi32(HT_EVEN_32, _mm512_set1_epi32(32), lengths);
}

/* The sum of two lanes of 32 bits, as a lane of 64. */
HT_AVX512 HT_INLINE __m512i ht_sum_32(__m512i lengths)
{
    return _mm512_maskz_add_epi32(HT_EVEN_32, lengths, _mm512_srli_epi64(lengths, 32));
}

/* Words of 64 bits and their lengths. */
typedef struct {
    __m512i words;
    __m512i lengths;
} ht_words_512;

/* Joins the words of lanes 0 and 1, 2 and 3 and so on; they stand in the even lanes then. */
HT_AVX512 HT_INLINE ht_words_512 ht_join_64(ht_words_512 of)
{
    ht_words_512 joined;
    joined.words = _mm512_or_si512(of.words, _mm512_sllv_epi64(_mm512_unpackhi_epi64(of.words, of.words), of.lengths));
    joined.lengths = _mm512_add_epi64(of.lengths, _mm512_unpackhi_epi64(of.lengths, of.lengths));
    return joined;
}

/* What MagSgn holds of eight quads: of each sample the lower `lengths` bits. T.814 7.3.8 */
HT_AVX512 HT_INLINE ht_words_512 ht_magnitudes_512(__m512i values, __m512i lengths)
{
    const __m512i all = _mm512_set1_epi16(-1);
    ht_words_512 quads;
    values = _mm512_andnot_si512(_mm512_sllv_epi16(all, lengths), values);
    values = ht_join_16(values, _mm512_maskz_sub_epi16(HT_EVEN_16, _mm512_set1_epi16(16), lengths));
    lengths = _mm512_madd_epi16(lengths, _mm512_set1_epi16(1));
    quads.words = ht_join_32(values, ht_room_32(lengths));
    quads.lengths = ht_sum_32(lengths);
    return quads;
}

/* Sixteen quads to MagSgn. Four of them are joined if that is short enough for all, or two. */
HT_AVX512 HT_INLINE void ht_append_quads_512(ht_magnitude_stream *stream, const ht_quads_512 *quads, __m512i lengths)
{
    const __m512i zero = _mm512_setzero_si512(), most = _mm512_set1_epi64(HT_APPENDED_MOST);
    uint64_t words[16] __attribute__((aligned(64))), sizes[16] __attribute__((aligned(64)));
    ht_words_512 even = ht_magnitudes_512(quads->words[0], _mm512_unpacklo_epi8(lengths, zero));
    ht_words_512 odd = ht_magnitudes_512(quads->words[1], _mm512_unpackhi_epi8(lengths, zero));
    ht_words_512 even_pairs = ht_join_64(even), odd_pairs = ht_join_64(odd);
    __m512i total = _mm512_add_epi64(even_pairs.lengths, odd_pairs.lengths);
    if (!(_mm512_cmpgt_epu64_mask(total, most) & 0x55)) {
        __m512i joined = _mm512_sllv_epi64(odd_pairs.words, even_pairs.lengths);
        _mm512_store_si512(words, _mm512_or_si512(even_pairs.words, joined));
        _mm512_store_si512(sizes, total);
        for (int i = 0; i < 8; i += 2) ht_append_magnitudes(stream, words[i], (uint32_t)sizes[i]);
        return;
    }
    if (!(_mm512_cmpgt_epu64_mask(_mm512_max_epu64(even_pairs.lengths, odd_pairs.lengths), most) & 0x55)) {
        _mm512_store_si512(words, _mm512_unpacklo_epi64(even_pairs.words, odd_pairs.words));
        _mm512_store_si512(sizes, _mm512_unpacklo_epi64(even_pairs.lengths, odd_pairs.lengths));
        for (int i = 0; i < 8; i++) ht_append_magnitudes(stream, words[i], (uint32_t)sizes[i]);
        return;
    }
    _mm512_store_si512(words, even.words);
    _mm512_store_si512(words + 8, odd.words);
    _mm512_store_si512(sizes, even.lengths);
    _mm512_store_si512(sizes + 8, odd.lengths);
    for (int i = 0; i < 16; i++) {
        int at = (i >> 2 << 1) | (i & 1) | (i & 2) << 2;
        ht_append_magnitudes_64(stream, words[at], (uint32_t)sizes[at]);
    }
}

/* Prefix and suffix of u of sixteen quads, and their lengths. */
typedef struct {
    __m512i prefixes;
    __m512i prefix_lengths;
    __m512i suffixes;
    __m512i suffix_lengths;
} ht_u_512;

/* Of each u below 16, in lanes of 32 bits. T.814 Table 3 */
HT_AVX512 HT_INLINE ht_u_512 ht_u_of_512(__m512i u)
{
    ht_u_512 of;
    of.prefixes = _mm512_shuffle_epi8(_mm512_set4_epi32(0, 0, 0x00000004, 0x04020100), u);
    of.prefix_lengths = _mm512_shuffle_epi8(_mm512_set4_epi32(0x03030303, 0x03030303, 0x03030303, 0x03020100), u);
    of.suffixes = _mm512_shuffle_epi8(_mm512_set4_epi32(0x0a090807, 0x06050403, 0x02010001, 0x00000000), u);
    of.suffix_lengths = _mm512_shuffle_epi8(_mm512_set4_epi32(0x05050505, 0x05050505, 0x05050501, 0x01000000), u);
    return of;
}

/* The same in the first row of quads: where both of a pair are above 2 they are less by 2; where only the first one is,
 * the second one is a single bit. T.814 7.3.6 */
HT_AVX512 HT_INLINE ht_u_512 ht_first_row_u_of_512(__m512i u, __mmask16 above_2)
{
    uint32_t both = above_2 & above_2 >> 1 & HT_EVEN_32, first = above_2 & HT_EVEN_32 & ~both;
    ht_u_512 of = ht_u_of_512(_mm512_mask_sub_epi32(u, (__mmask16)(both | both << 1), u, _mm512_set1_epi32(2)));
    __mmask16 single = (__mmask16)(first << 1) & _mm512_test_epi32_mask(u, u);
    of.prefixes = _mm512_mask_sub_epi32(of.prefixes, single, u, _mm512_set1_epi32(1));
    of.prefix_lengths = _mm512_mask_mov_epi32(of.prefix_lengths, single, _mm512_set1_epi32(1));
    return of;
}

/* Codes of sixteen quads (of ht_encoder_codes) and their u to VLC. T.814 7.3.4 */
HT_AVX512 HT_INLINE void ht_append_codes_512(ht_code_stream *stream, __m512i codes, ht_u_512 u)
{
    const __m512i byte = _mm512_set1_epi32(0xff), seven = _mm512_set1_epi32(7);
    uint64_t words[8] __attribute__((aligned(64))), sizes[8] __attribute__((aligned(64)));
    __m512i lengths = _mm512_and_si512(_mm512_srli_epi32(codes, 4), seven);
    __m512i words_of_codes = ht_join_32(_mm512_and_si512(_mm512_srli_epi32(codes, 8), byte), ht_room_32(lengths));
    __m512i prefixes = ht_join_32(u.prefixes, ht_room_32(u.prefix_lengths));
    __m512i suffixes = ht_join_32(u.suffixes, ht_room_32(u.suffix_lengths));
    __m512i to_prefixes = ht_sum_32(lengths);
    __m512i to_suffixes = _mm512_add_epi64(to_prefixes, ht_sum_32(u.prefix_lengths));
    ht_words_512 pairs;
    pairs.words = _mm512_ternarylogic_epi64(words_of_codes, _mm512_sllv_epi64(prefixes, to_prefixes),
                                            _mm512_sllv_epi64(suffixes, to_suffixes), 0xfe);
    pairs.lengths = _mm512_add_epi64(to_suffixes, ht_sum_32(u.suffix_lengths));
    pairs = ht_join_64(pairs);
    _mm512_store_si512(words, pairs.words);
    _mm512_store_si512(sizes, pairs.lengths);
    for (int i = 0; i < 8; i += 2) ht_append_codes_64(stream, words[i], (uint32_t)sizes[i]);
}

/* Sixteen quads: which of `valid` are in the code-block, `left` rho of the quads before. Adds to `events` at bit `at`. */
HT_AVX512 HT_INLINE void ht_encode_quads_512(const ht_quads_512 *quads, __m512i before, const ht_above_512 *above,
                                             int first_row, __mmask16 valid, uint32_t at, ht_row_events *events,
                                             ht_streams *streams)
{
    const __m512i one = _mm512_set1_epi8(1), weights = _mm512_set1_epi32(0x08040201);
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
    __m512i u_q = _mm512_max_epu8(most, kappa);
    __m512i u = _mm512_and_si512(_mm512_sub_epi8(u_q, kappa), _mm512_set1_epi32(0xff));
    __mmask16 coded = _mm512_test_epi32_mask(u, u);
    __m512i largest = _mm512_maskz_mov_epi8(_mm512_cmpeq_epi8_mask(quads->exponents, most), weights);
    __m512i index = _mm512_or_si512(_mm512_slli_epi32(context, 8), _mm512_slli_epi32(quads->rho, 4));
    index = _mm512_add_epi32(index, _mm512_maskz_dpbusd_epi32(coded, _mm512_setzero_si512(), largest, one));
    __m512i codes = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), valid, index, ht_encoder_codes[!first_row], 2);

    uint64_t significant = _mm512_test_epi32_mask(quads->rho, quads->rho);
    events->silent |= (uint64_t)_mm512_mask_testn_epi32_mask(valid, context, context) << at;
    events->significant |= significant << at;
    if (first_row) {
        __mmask16 above_2 = _mm512_cmpgt_epi32_mask(u, _mm512_set1_epi32(2));
        events->coded |= (uint64_t)coded << at;
        events->above_2 |= (uint64_t)above_2 << at;
        ht_append_codes_512(&streams->codes, codes, ht_first_row_u_of_512(u, above_2));
    } else {
        ht_append_codes_512(&streams->codes, codes, ht_u_of_512(u));
    }
    if (significant == 0) return;
    /* Of each significant sample U_q bits, one less where the code tells the highest one. */
    const __m512i spread = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    __m512i lengths = _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(quads->exponents, quads->exponents), u_q);
    __mmask64 known = _mm512_test_epi8_mask(_mm512_shuffle_epi8(codes, spread), weights);
    ht_append_quads_512(&streams->magnitudes, quads, _mm512_mask_sub_epi8(lengths, known, lengths, one));
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

/* One row of quads; `above` is of the row before and becomes that of this one. The exponents that are significant. */
HT_AVX512 HT_INLINE __m512i ht_encode_row_512(const void *samples, ptrdiff_t stride, uint32_t width, int single,
                                              int first_row, int bytes, ht_above_512 above[2], ht_streams *streams)
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
    }
    for (int i = 0; i < parts; i++) {
        uint32_t columns = (width + 1) / 2 - 16 * (uint32_t)i;
        ht_encode_quads_512(&quads[i], i ? quads[0].rho : zero, &above[i], first_row, (__mmask16)ht_ones_below(columns),
                            16 * (uint32_t)i, &events, streams);
    }
    ht_append_row_events(&streams->events, &events, first_row);
    above[0] = ht_above_of_512(zero, quads[0].exponents, quads[1].exponents);
    if (parts > 1) above[1] = ht_above_of_512(quads[0].exponents, quads[1].exponents, zero);
    return _mm512_or_si512(quads[0].exponents, quads[1].exponents);
}

/* A code-block of samples of 2 or 4 `bytes`, whose magnitudes are below 2^15. 0 if all are 0. */
HT_AVX512 HT_INLINE int ht_encode_rows_512(const void *samples, ptrdiff_t stride, uint32_t width, uint32_t height,
                                           int bytes, ht_streams *streams)
{
    ht_above_512 above[2];
    __m512i any = ht_encode_row_512(samples, stride, width, height == 1, 1, bytes, above, streams);
    for (uint32_t y = 2; y < height; y += 2) {
        const char *row = (const char *)samples + (ptrdiff_t)y * stride * bytes;
        any = _mm512_or_si512(any, ht_encode_row_512(row, stride, width, y + 1 == height, 0, bytes, above, streams));
    }
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
