/* The quads of a code-block to codes and magnitudes, eight at a time, for AVX2 and magnitudes below 2^15.
 *
 * As encode_avx512.h, which see, with half the width. PEXT is slow on some of these processors: bits are joined by
 * variable shifts, to words of up to four quads.
 */
#ifndef HT_ENCODE_AVX2_H
#define HT_ENCODE_AVX2_H

#include "encode_portable.h"

#if HT_X86

/* Exponents of the samples of a row of quads, four bytes for each, zeros on both sides. */
typedef struct {
    uint8_t before[32];
    uint8_t exponents[2 * HT_BLOCK];
    uint8_t after[32];
} ht_row_256;

typedef struct {
    __m256i words[2];  /* 2 (magnitude - 1) + sign of quads 0, 1, 4, 5 and of 2, 3, 6, 7 */
    __m256i exponents; /* in natural order, a byte for each sample */
    __m256i significant; /* FF or 0 for each sample */
    __m256i rho;
} ht_quads_256;

/* How many bits each byte has. */
HT_AVX2 HT_INLINE __m256i ht_bit_lengths_256(__m256i bytes, __m256i of_lower, __m256i of_upper)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i lower = _mm256_shuffle_epi8(of_lower, _mm256_and_si256(bytes, nibble));
    __m256i upper = _mm256_shuffle_epi8(of_upper, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
    return _mm256_max_epu8(lower, upper);
}

HT_AVX2 HT_INLINE __m256i ht_table_256(uint64_t low, uint64_t high)
{
    return _mm256_set_epi64x((long long)high, (long long)low, (long long)high, (long long)low);
}

/* The sum of the four bytes of each lane of 32 bits. */
HT_AVX2 HT_INLINE __m256i ht_sum_of_bytes_256(__m256i bytes)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
}

/* Two rows of samples, 16 of each, to quads. */
HT_AVX2 HT_INLINE ht_quads_256 ht_quads_of_256(__m256i upper, __m256i lower)
{
    const __m256i one = _mm256_set1_epi16(1), byte = _mm256_set1_epi16(0xff);
    __m256i samples[2] = {_mm256_unpacklo_epi16(upper, lower), _mm256_unpackhi_epi16(upper, lower)}, doubled[2];
    ht_quads_256 quads;
    for (int i = 0; i < 2; i++) {
        __m256i magnitude = _mm256_abs_epi16(samples[i]);
        doubled[i] = _mm256_subs_epu16(_mm256_add_epi16(magnitude, magnitude), one);
        quads.words[i] =
            _mm256_sub_epi16(_mm256_add_epi16(doubled[i], _mm256_srli_epi16(samples[i], 15)), one);
    }
    /* The exponent of 2 magnitude - 1 and of 0, a nibble at a time. */
    __m256i low = _mm256_packus_epi16(_mm256_and_si256(doubled[0], byte), _mm256_and_si256(doubled[1], byte));
    __m256i high = _mm256_packus_epi16(_mm256_srli_epi16(doubled[0], 8), _mm256_srli_epi16(doubled[1], 8));
    low = ht_bit_lengths_256(low, ht_table_256(0x0303030302020100, 0x0404040404040404),
                             ht_table_256(0x0707070706060500, 0x0808080808080808));
    high = ht_bit_lengths_256(high, ht_table_256(0x0b0b0b0b0a0a0900, 0x0c0c0c0c0c0c0c0c),
                              ht_table_256(0x0f0f0f0f0e0e0d00, 0x1010101010101010));
    quads.exponents = _mm256_max_epu8(low, high);
    quads.significant = _mm256_cmpgt_epi8(quads.exponents, _mm256_setzero_si256());
    quads.rho = ht_sum_of_bytes_256(_mm256_and_si256(quads.significant, _mm256_set1_epi32(0x08040201)));
    return quads;
}

/* The first byte, and so on, of each lane of 32 bits in all of its bytes. */
HT_AVX2 HT_INLINE __m256i ht_spread_256(__m256i bytes, int which)
{
    __m256i lanes = _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    return _mm256_shuffle_epi8(bytes, _mm256_add_epi8(lanes, _mm256_set1_epi8((char)which)));
}

/* Context and kappa (in all bytes) of eight quads of a row that is not the first. T.814 7.3.5, 7.3.7 */
HT_AVX2 HT_INLINE __m256i ht_context_256(const uint8_t *above, __m256i rho, __m256i left_rho, __m256i *kappa)
{
    const __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi8(1);
    __m256i exponents = _mm256_load_si256((const __m256i *)above);
    __m256i previous = _mm256_loadu_si256((const __m256i *)(above - 4));
    __m256i next = _mm256_loadu_si256((const __m256i *)(above + 4));
    __m256i left = _mm256_max_epu8(ht_spread_256(exponents, 1), ht_spread_256(previous, 3));
    __m256i right = _mm256_max_epu8(ht_spread_256(exponents, 3), ht_spread_256(next, 1));
    __m256i most = _mm256_max_epu8(_mm256_subs_epu8(_mm256_max_epu8(left, right), one), one);
    __m256i single = _mm256_cmpeq_epi32(_mm256_and_si256(rho, _mm256_sub_epi32(rho, _mm256_set1_epi32(1))), zero);
    *kappa = _mm256_blendv_epi8(most, one, single);
    __m256i context = _mm256_andnot_si256(_mm256_cmpeq_epi32(left, zero), _mm256_set1_epi32(1));
    __m256i beside = _mm256_and_si256(left_rho, _mm256_set1_epi32(12));
    context = _mm256_or_si256(context, _mm256_andnot_si256(_mm256_cmpeq_epi32(beside, zero), _mm256_set1_epi32(2)));
    return _mm256_or_si256(context, _mm256_andnot_si256(_mm256_cmpeq_epi32(right, zero), _mm256_set1_epi32(4)));
}

HT_AVX2 HT_INLINE __m256i ht_lower_32_256(__m256i lanes)
{
    return _mm256_blend_epi32(lanes, _mm256_setzero_si256(), 0xaa);
}

/* Joins two lanes of 32 bits to one; `lengths` of both. Bits above are 0. */
HT_AVX2 HT_INLINE __m256i ht_join_32_256(__m256i values, __m256i lengths)
{
    __m256i upper = _mm256_sllv_epi64(_mm256_srli_epi64(values, 32), ht_lower_32_256(lengths));
    return _mm256_or_si256(ht_lower_32_256(values), upper);
}

HT_AVX2 HT_INLINE __m256i ht_sum_32_256(__m256i lengths)
{
    return _mm256_add_epi64(ht_lower_32_256(lengths), _mm256_srli_epi64(lengths, 32));
}

typedef struct {
    __m256i words;
    __m256i lengths;
} ht_words_256;

HT_AVX2 HT_INLINE ht_words_256 ht_join_64_256(ht_words_256 of)
{
    ht_words_256 joined;
    joined.words = _mm256_or_si256(of.words, _mm256_sllv_epi64(_mm256_unpackhi_epi64(of.words, of.words), of.lengths));
    joined.lengths = _mm256_add_epi64(of.lengths, _mm256_unpackhi_epi64(of.lengths, of.lengths));
    return joined;
}

/* What MagSgn holds of four quads: `values` without the bits above `lengths`. T.814 7.3.8 */
HT_AVX2 HT_INLINE ht_words_256 ht_magnitudes_256(__m256i values, __m256i lengths)
{
    const __m256i zero = _mm256_setzero_si256();
    ht_words_256 quads;
    __m256i upper = _mm256_sllv_epi32(_mm256_srli_epi32(values, 16), _mm256_blend_epi16(lengths, zero, 0xaa));
    values = _mm256_or_si256(_mm256_blend_epi16(values, zero, 0xaa), upper);
    lengths = _mm256_madd_epi16(lengths, _mm256_set1_epi16(1));
    quads.words = ht_join_32_256(values, lengths);
    quads.lengths = ht_sum_32_256(lengths);
    return quads;
}

/* Whether a length in lanes 0 and 2 is above what may be appended. */
HT_AVX2 HT_INLINE int ht_too_long_256(__m256i lengths)
{
    __m256i above = _mm256_cmpgt_epi32(lengths, _mm256_set1_epi64x(HT_APPENDED_MOST));
    return (_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_slli_epi64(above, 32))) & 5) != 0;
}

/* Eight quads to MagSgn. Four of them are joined if that is short enough for all, or two. */
HT_AVX2 HT_INLINE void ht_append_quads_256(ht_bit_stream *stream, const ht_quads_256 *quads, __m256i lengths)
{
    const __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi16(1);
    uint64_t words[8] __attribute__((aligned(32))), sizes[8] __attribute__((aligned(32)));
    /* 1 << length, a byte at a time; of 16 it is 0, as shuffles have it with 0x70 + 16. */
    __m256i index = _mm256_add_epi8(lengths, _mm256_set1_epi8(0x70));
    __m256i low = _mm256_shuffle_epi8(ht_table_256(0x8040201008040201, 0), index);
    __m256i high = _mm256_shuffle_epi8(ht_table_256(0, 0x8040201008040201), index);
    __m256i even_mask = _mm256_sub_epi16(_mm256_unpacklo_epi8(low, high), one);
    __m256i odd_mask = _mm256_sub_epi16(_mm256_unpackhi_epi8(low, high), one);
    __m256i even_words = _mm256_and_si256(quads->words[0], even_mask);
    __m256i odd_words = _mm256_and_si256(quads->words[1], odd_mask);
    ht_words_256 even = ht_magnitudes_256(even_words, _mm256_unpacklo_epi8(lengths, zero));
    ht_words_256 odd = ht_magnitudes_256(odd_words, _mm256_unpackhi_epi8(lengths, zero));
    ht_words_256 even_pairs = ht_join_64_256(even), odd_pairs = ht_join_64_256(odd);
    __m256i total = _mm256_add_epi64(even_pairs.lengths, odd_pairs.lengths);
    if (!ht_too_long_256(total)) {
        __m256i joined = _mm256_sllv_epi64(odd_pairs.words, even_pairs.lengths);
        _mm256_store_si256((__m256i *)words, _mm256_or_si256(even_pairs.words, joined));
        _mm256_store_si256((__m256i *)sizes, total);
        for (int i = 0; i < 4; i += 2) ht_append(stream, words[i], (uint32_t)sizes[i]);
    } else if (!ht_too_long_256(_mm256_max_epi32(even_pairs.lengths, odd_pairs.lengths))) {
        _mm256_store_si256((__m256i *)words, _mm256_unpacklo_epi64(even_pairs.words, odd_pairs.words));
        _mm256_store_si256((__m256i *)sizes, _mm256_unpacklo_epi64(even_pairs.lengths, odd_pairs.lengths));
        for (int i = 0; i < 4; i++) ht_append(stream, words[i], (uint32_t)sizes[i]);
    } else {
        _mm256_store_si256((__m256i *)words, even.words);
        _mm256_store_si256((__m256i *)(words + 4), odd.words);
        _mm256_store_si256((__m256i *)sizes, even.lengths);
        _mm256_store_si256((__m256i *)(sizes + 4), odd.lengths);
        for (int i = 0; i < 8; i++) {
            int at = (i >> 2 << 1) | (i & 1) | (i & 2) << 1;
            ht_append_64(stream, words[at], (uint32_t)sizes[at]);
        }
    }
}

typedef struct {
    __m256i prefixes;
    __m256i prefix_lengths;
    __m256i suffixes;
    __m256i suffix_lengths;
} ht_u_256;

/* Of each u below 16, in lanes of 32 bits. T.814 Table 3 */
HT_AVX2 HT_INLINE ht_u_256 ht_u_of_256(__m256i u)
{
    ht_u_256 of;
    of.prefixes = _mm256_shuffle_epi8(ht_table_256(0x0000000404020100, 0), u);
    of.prefix_lengths = _mm256_shuffle_epi8(ht_table_256(0x0303030303020100, 0x0303030303030303), u);
    of.suffixes = _mm256_shuffle_epi8(ht_table_256(0x0201000100000000, 0x0a09080706050403), u);
    of.suffix_lengths = _mm256_shuffle_epi8(ht_table_256(0x0505050101000000, 0x0505050505050505), u);
    return of;
}

/* The same in the first row of quads: where both of a pair are above 2 they are less by 2; where only the first one is,
 * the second one is a single bit. T.814 7.3.6 */
HT_AVX2 HT_INLINE ht_u_256 ht_first_row_u_of_256(__m256i u)
{
    const __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi32(1), two = _mm256_set1_epi32(2);
    __m256i above_2 = _mm256_cmpgt_epi32(u, two), first = _mm256_shuffle_epi32(above_2, 0xa0);
    __m256i both = _mm256_and_si256(first, _mm256_shuffle_epi32(above_2, 0xf5));
    __m256i single = _mm256_andnot_si256(above_2, _mm256_and_si256(first, _mm256_cmpgt_epi32(u, zero)));
    ht_u_256 of = ht_u_of_256(_mm256_sub_epi32(u, _mm256_and_si256(both, two)));
    of.prefixes = _mm256_blendv_epi8(of.prefixes, _mm256_sub_epi32(u, one), single);
    of.prefix_lengths = _mm256_blendv_epi8(of.prefix_lengths, one, single);
    return of;
}

/* Codes of eight quads (of ht_encoder_codes) and their u to VLC. T.814 7.3.4 */
HT_AVX2 HT_INLINE void ht_append_codes_256(ht_bit_stream *stream, __m256i codes, ht_u_256 u)
{
    uint64_t words[4] __attribute__((aligned(32))), sizes[4] __attribute__((aligned(32)));
    __m256i lengths = _mm256_and_si256(_mm256_srli_epi32(codes, 4), _mm256_set1_epi32(7));
    __m256i first = ht_join_32_256(_mm256_and_si256(_mm256_srli_epi32(codes, 8), _mm256_set1_epi32(0x7f)), lengths);
    __m256i prefixes = ht_join_32_256(u.prefixes, u.prefix_lengths);
    __m256i suffixes = ht_join_32_256(u.suffixes, u.suffix_lengths);
    __m256i to_prefixes = ht_sum_32_256(lengths);
    __m256i to_suffixes = _mm256_add_epi64(to_prefixes, ht_sum_32_256(u.prefix_lengths));
    ht_words_256 pairs;
    pairs.words = _mm256_or_si256(_mm256_or_si256(first, _mm256_sllv_epi64(prefixes, to_prefixes)),
                                  _mm256_sllv_epi64(suffixes, to_suffixes));
    pairs.lengths = _mm256_add_epi64(to_suffixes, ht_sum_32_256(u.suffix_lengths));
    pairs = ht_join_64_256(pairs);
    _mm256_store_si256((__m256i *)words, pairs.words);
    _mm256_store_si256((__m256i *)sizes, pairs.lengths);
    for (int i = 0; i < 4; i += 2) ht_append_64(stream, words[i], (uint32_t)sizes[i]);
}

/* A bit for each lane of 32 bits whose highest bit is 1. */
HT_AVX2 HT_INLINE uint64_t ht_mask_256(__m256i lanes)
{
    return (uint64_t)_mm256_movemask_ps(_mm256_castsi256_ps(lanes));
}

/* Eight quads, of which those in `valid` are in the code-block; `left_rho` of the quads before each of them. Adds to
 * `events` at bit `at`. */
HT_AVX2 HT_INLINE void ht_encode_quads_256(const ht_quads_256 *quads, __m256i left_rho, const uint8_t *above,
                                           int first_row, __m256i valid, uint32_t at, ht_row_events *events,
                                           ht_streams *streams)
{
    const __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi8(1);
    __m256i context, kappa = one;
    if (first_row)
        context = _mm256_or_si256(_mm256_srli_epi32(left_rho, 1), _mm256_and_si256(left_rho, _mm256_set1_epi32(1)));
    else
        context = ht_context_256(above, quads->rho, left_rho, &kappa);
    /* The largest exponent of each quad, in all of its bytes. */
    __m256i turned = _mm256_or_si256(_mm256_slli_epi32(quads->exponents, 16), _mm256_srli_epi32(quads->exponents, 16));
    __m256i most = _mm256_max_epu8(quads->exponents, turned);
    turned = _mm256_or_si256(_mm256_slli_epi16(most, 8), _mm256_srli_epi16(most, 8));
    most = _mm256_max_epu8(most, turned);
    __m256i u_q = _mm256_max_epu8(most, kappa);
    __m256i u = _mm256_and_si256(_mm256_sub_epi8(u_q, kappa), _mm256_set1_epi32(0xff));
    __m256i coded = _mm256_cmpgt_epi32(u, zero);
    const __m256i weights = _mm256_set1_epi32(0x08040201);
    __m256i largest = _mm256_and_si256(_mm256_cmpeq_epi8(quads->exponents, most), _mm256_and_si256(coded, weights));
    __m256i index = _mm256_or_si256(_mm256_slli_epi32(context, 8), _mm256_slli_epi32(quads->rho, 4));
    index = _mm256_or_si256(index, ht_sum_of_bytes_256(largest));
    __m256i codes = _mm256_i32gather_epi32((const int *)ht_encoder_codes[!first_row], index, 4);
    codes = _mm256_and_si256(codes, valid);

    uint64_t significant = ht_mask_256(_mm256_cmpgt_epi32(quads->rho, zero));
    events->silent |= ht_mask_256(_mm256_and_si256(valid, _mm256_cmpeq_epi32(context, zero))) << at;
    events->significant |= significant << at;
    if (first_row) {
        events->coded |= ht_mask_256(coded) << at;
        events->above_2 |= ht_mask_256(_mm256_cmpgt_epi32(u, _mm256_set1_epi32(2))) << at;
        ht_append_codes_256(&streams->codes, codes, ht_first_row_u_of_256(u));
    } else {
        ht_append_codes_256(&streams->codes, codes, ht_u_of_256(u));
    }
    if (significant == 0) return;
    /* Of each significant sample U_q bits, one less where the code tells the highest one. */
    __m256i known = _mm256_and_si256(ht_spread_256(codes, 0), weights);
    known = _mm256_add_epi8(one, _mm256_cmpeq_epi8(known, zero));
    ht_append_quads_256(&streams->magnitudes, quads, _mm256_and_si256(quads->significant, _mm256_sub_epi8(u_q, known)));
}

/* One row of quads from two rows of samples, zeros beyond `columns` of quads; `above` is the row before. */
HT_AVX2 HT_INLINE void ht_encode_row_256(const int16_t *rows, uint32_t columns, int first_row, const ht_row_256 *above,
                                         ht_row_256 *row, ht_streams *streams)
{
    static const int32_t valid[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    ht_row_events events = {0, 0, 0, 0};
    __m256i before = _mm256_setzero_si256();
    for (uint32_t q = 0; q < columns; q += 8) {
        ht_quads_256 quads = ht_quads_of_256(_mm256_load_si256((const __m256i *)(rows + 2 * q)),
                                             _mm256_load_si256((const __m256i *)(rows + 2 * q + HT_BLOCK)));
        __m256i left_rho = _mm256_alignr_epi8(quads.rho, _mm256_permute2x128_si256(before, quads.rho, 0x21), 12);
        uint32_t beyond = columns - q < 8 ? 8 - (columns - q) : 0;
        _mm256_store_si256((__m256i *)(row->exponents + 4 * q), quads.exponents);
        ht_encode_quads_256(&quads, left_rho, above->exponents + 4 * q, first_row,
                            _mm256_loadu_si256((const __m256i *)(valid + beyond)), q, &events, streams);
        before = quads.rho;
    }
    ht_append_row_events(&streams->events, &events, first_row);
}

/* A code-block whose samples are in `rows`, zeros beyond it up to whole lanes and an even height. */
HT_AVX2 HT_INLINE void ht_encode_rows_256(const int16_t *rows, uint32_t width, uint32_t height, ht_streams *streams)
{
    ht_row_256 borders[2] __attribute__((aligned(32)));
    uint32_t columns = (width + 1) / 2;
    memset(borders, 0, sizeof borders);
    ht_encode_row_256(rows, columns, 1, &borders[1], &borders[0], streams);
    for (uint32_t y = 2; y < height; y += 2)
        ht_encode_row_256(rows + y * HT_BLOCK, columns, 0, &borders[~y >> 1 & 1], &borders[y >> 1 & 1], streams);
}

#endif
#endif
