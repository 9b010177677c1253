/* The samples of a row of quads by AVX2, eight quads at a time: the bits of each quad lie within 16 bytes, from which a
 * byte shuffle brings those of each sample to a lane of 32 bits. */
#ifndef HT_DECODE_AVX2_H
#define HT_DECODE_AVX2_H

#include "decode_rows.h"

#if HT_X86

#define HT_AVX2_PLANES 24 /* a sample of more has bits in five bytes */

/* As ht_decode_start. */
HT_AVX2 static inline int ht_decode_start_avx2(ht_decoding *block, const uint8_t *data, size_t length) {
  return ht_decode_start(block, data, length);
}

/* Of eight quads, what MagSgn has of their samples. */
typedef struct {
  __m256i lengths; /* a byte for each sample: how many bits */
  __m256i before;  /* a byte for each sample: how many of its quad are before these */
  __m256i ones;    /* a byte for each sample: FF if the bit above those is 1 */
  __m256i there;   /* a byte for each sample: FF if it is significant */
  __m256i at;      /* of each quad: how many of the eight are before it */
  uint32_t sum;
} ht_lengths_avx2;

/* u of eight quads, from four pairs. */
HT_AVX2 HT_INLINE __m256i ht_u_avx2(const uint32_t *pairs, const uint32_t *windows) {
  const __m128i three = _mm_set1_epi32(7), all = _mm_set1_epi32(-1);
  __m128i pair = _mm_loadu_si128((const __m128i *)pairs), bits = _mm_loadu_si128((const __m128i *)windows);
  __m128i suffix = _mm_and_si128(_mm_srli_epi32(pair, HT_SUFFIX), three);
  bits = _mm_srlv_epi32(bits, _mm_and_si128(_mm_srli_epi32(pair, HT_PREFIXES), three));
  __m128i first = _mm_add_epi32(_mm_and_si128(_mm_srli_epi32(pair, HT_U), three),
                                _mm_andnot_si128(_mm_sllv_epi32(all, suffix), bits));
  bits = _mm_srlv_epi32(bits, suffix);
  suffix = _mm_and_si128(_mm_srli_epi32(pair, HT_SUFFIX_2), three);
  __m128i second = _mm_add_epi32(_mm_and_si128(_mm_srli_epi32(pair, HT_U_2), three),
                                 _mm_andnot_si128(_mm_sllv_epi32(all, suffix), bits));
  return _mm256_cvtepu16_epi32(_mm_or_si128(first, _mm_slli_epi32(second, 16)));
}

/* The greatest exponent of the samples above each of eight quads less 1, at least 1. `above`: the one above the first
 * quad's upper left sample. T.814 7.3.7 */
HT_AVX2 HT_INLINE __m256i ht_above_avx2(const uint32_t *above) {
  __m256i low = _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(above - 1)),
                                _mm256_loadu_si256((const __m256i *)(above + 1)));
  __m256i high = _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(above + 7)),
                                 _mm256_loadu_si256((const __m256i *)(above + 9)));
  __m256i even = _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high), 0x88));
  __m256i odd = _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high), 0xdd));
  __m256i all = _mm256_or_si256(_mm256_or_si256(even, odd), _mm256_set1_epi32(2));
  all = _mm256_permute4x64_epi64(all, 0xd8);
  /* The exponent of a float, which must not be rounded up. */
  all = _mm256_andnot_si256(_mm256_srli_epi32(all, 1), all);
  all = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(all)), 23);
  return _mm256_sub_epi32(all, _mm256_set1_epi32(127));
}

/* Bytes FF where a byte of `quads`, spread over four, has the bit of its place. */
HT_AVX2 HT_INLINE __m256i ht_bits_avx2(__m256i quads, int places) {
  __m256i mask = _mm256_set1_epi32(places);
  return _mm256_cmpeq_epi8(_mm256_and_si256(quads, mask), mask);
}

/* How many bits each sample has, if no U_q is above `limit`; else not 0. */
HT_AVX2 HT_INLINE int ht_lengths_of_avx2(__m256i codes, __m256i u, __m256i above, uint32_t limit, ht_lengths_avx2 *of) {
  const __m256i first = _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
  const __m256i one = _mm256_set1_epi32(1);
  __m256i several = _mm256_cmpgt_epi32(_mm256_and_si256(codes, _mm256_set1_epi32(HT_SEVERAL)), _mm256_setzero_si256());
  __m256i bound = _mm256_add_epi32(u, _mm256_blendv_epi8(one, above, several));
  __m256i damaged = _mm256_cmpgt_epi32(bound, _mm256_set1_epi32((int)limit));
  __m256i low = _mm256_shuffle_epi8(codes, first);
  of->there = ht_bits_avx2(low, 0x08040201);
  __m256i known = ht_bits_avx2(low, (int)0x80402010);
  of->ones = ht_bits_avx2(_mm256_shuffle_epi8(_mm256_srli_epi32(codes, HT_ONES), first), 0x08040201);
  of->lengths = _mm256_and_si256(_mm256_add_epi8(_mm256_shuffle_epi8(bound, first), known), of->there);
  __m256i sums = _mm256_mullo_epi32(of->lengths, _mm256_set1_epi32(0x01010101));
  of->before = _mm256_slli_epi32(sums, 8);
  __m256i quad = _mm256_srli_epi32(sums, 24);
  sums = _mm256_add_epi32(quad, _mm256_slli_si256(quad, 4));
  sums = _mm256_add_epi32(sums, _mm256_slli_si256(sums, 8));
  __m256i lower = _mm256_permutevar8x32_epi32(sums, _mm256_set1_epi32(3));
  sums = _mm256_add_epi32(sums, _mm256_blend_epi32(_mm256_setzero_si256(), lower, 0xf0));
  of->at = _mm256_sub_epi32(sums, quad);
  of->sum = (uint32_t)_mm_extract_epi32(_mm256_extracti128_si256(sums, 1), 3);
  return !_mm256_testz_si256(damaged, damaged);
}

/* The bytes of two quads, of eight that lie in order. */
HT_AVX2 HT_INLINE __m128i ht_two_avx2(__m256i bytes, int low, int high) {
  const __m256i order = _mm256_setr_epi32(low, high, low, high, low, high, low, high);
  return _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(bytes, order));
}

/* The samples of quads `low` and `high` of eight, 2 (magnitude - 1) and the sign lowest. `at`: where the bits of each
 * quad begin. */
HT_AVX2 HT_INLINE __m256i ht_samples_avx2(const uint8_t *magnitudes, const ht_lengths_avx2 *of, const uint32_t *at,
                                          __m256i shifts, int low, int high) {
  const __m256i dup = _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
  __m256i bytes = _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(magnitudes + (at[low] >> 3)))),
      _mm_loadu_si128((const __m128i *)(magnitudes + (at[high] >> 3))), 1);
  __m256i of_quads = _mm256_permutevar8x32_epi32(shifts, _mm256_setr_epi32(low, low, low, low, high, high, high, high));
  __m256i place = _mm256_add_epi32(_mm256_cvtepu8_epi32(ht_two_avx2(of->before, low, high)), of_quads);
  __m256i index = _mm256_shuffle_epi8(_mm256_srli_epi32(place, 3), dup);
  bytes = _mm256_shuffle_epi8(bytes, _mm256_add_epi8(index, _mm256_set1_epi32(0x03020100)));
  bytes = _mm256_srlv_epi32(bytes, _mm256_and_si256(place, _mm256_set1_epi32(7)));
  const __m256i one = _mm256_set1_epi32(1);
  __m256i above = _mm256_sllv_epi32(one, _mm256_cvtepu8_epi32(ht_two_avx2(of->lengths, low, high)));
  __m256i known = _mm256_and_si256(above, _mm256_cvtepi8_epi32(ht_two_avx2(of->ones, low, high)));
  return _mm256_or_si256(known, _mm256_and_si256(bytes, _mm256_sub_epi32(above, one)));
}

HT_AVX2 HT_INLINE __m256i ht_signed_avx2(__m256i samples, __m128i there) {
  const __m256i one = _mm256_set1_epi32(1);
  __m256i sign = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_and_si256(samples, one)); /* -1, else 0 */
  __m256i value = _mm256_add_epi32(_mm256_xor_si256(_mm256_srli_epi32(samples, 1), sign), _mm256_add_epi32(sign, one));
  return _mm256_and_si256(value, _mm256_cvtepi8_epi32(there));
}

/* Eight samples of the upper row and eight of the lower one, if `count` is as great: the quads are 0 and 2 of four, and
 * 1 and 3. */
HT_AVX2 HT_INLINE void ht_put_avx2(ht_decoding *block, ptrdiff_t at, uint32_t count, int last, __m256i even,
                                   __m256i odd, int wide) {
  if (wide) {
    __m256 a = _mm256_castsi256_ps(even), b = _mm256_castsi256_ps(odd);
    int32_t *upper = (int32_t *)block->samples + at, *lower = upper + block->stride, rest[16];
    int32_t *to = count >= 8 ? upper : rest, *below = count >= 8 && !last ? lower : rest + 8;
    _mm256_storeu_si256((__m256i *)to, _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)));
    _mm256_storeu_si256((__m256i *)below, _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd)));
    if (count >= 8) return;
    memcpy(upper, rest, count * sizeof *rest);
    if (!last) memcpy(lower, rest + 8, count * sizeof *rest);
  } else {
    const __m256i words = _mm256_set1_epi32(0xffff), by_row = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    __m256i all = _mm256_packus_epi32(_mm256_and_si256(even, words), _mm256_and_si256(odd, words));
    all = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(all, by_row), 0xd8);
    int16_t *upper = (int16_t *)block->samples + at, *lower = upper + block->stride, rest[16];
    int16_t *to = count >= 8 ? upper : rest, *below = count >= 8 && !last ? lower : rest + 8;
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(all));
    _mm_storeu_si128((__m128i *)below, _mm256_extracti128_si256(all, 1));
    if (count >= 8) return;
    memcpy(upper, rest, count * sizeof *rest);
    if (!last) memcpy(lower, rest + 8, count * sizeof *rest);
  }
}

/* The samples of quads `q` to `q` + 3 of eight, those of the left one in column `x`. */
HT_AVX2 HT_INLINE void ht_four_avx2(ht_decoding *block, uint32_t row, uint32_t x, const uint8_t *bytes,
                                    const ht_lengths_avx2 *of, const uint32_t *places, __m256i shifts, int q, int wide,
                                    uint32_t *below) {
  __m256i even = ht_samples_avx2(bytes, of, places, shifts, q, q + 2);
  __m256i odd = ht_samples_avx2(bytes, of, places, shifts, q + 1, q + 3);
  __m256 lower = _mm256_shuffle_ps(_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd), 0xdd);
  _mm256_storeu_si256((__m256i *)(below + x), _mm256_castps_si256(lower));
  even = ht_signed_avx2(even, ht_two_avx2(of->there, q, q + 2));
  odd = ht_signed_avx2(odd, ht_two_avx2(of->there, q + 1, q + 3));
  ptrdiff_t at = (ptrdiff_t)(2 * row) * block->stride + x;
  ht_put_avx2(block, at, block->width - x, 2 * row + 1 == block->height, even, odd, wide);
}

/* As ht_sample_row. `below` has the lower samples of the row. */
HT_AVX2 HT_INLINE int ht_sample_row_avx2(ht_decoding *block, uint32_t row, int wide) {
  const ht_quad_row *quads = &block->scratch->rows[row & 1];
  const uint32_t *above = block->scratch->below[row & 1] + 16;
  uint32_t *below = block->scratch->below[~row & 1] + 16;
  size_t at = block->at < block->end ? block->at : block->end;
  for (uint32_t x = 0; x < block->width; x += 16) {
    uint32_t q = x / 2;
    __m256i codes = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(quads->samples + q)));
    __m256i u = ht_u_avx2(quads->pairs + q / 2, quads->windows + q / 2);
    ht_lengths_avx2 of;
    if (HT_UNLIKELY(ht_lengths_of_avx2(codes, u, ht_above_avx2(above + x), block->limit, &of))) return 1;
    uint32_t places[8];
    __m256i place = _mm256_add_epi32(of.at, _mm256_set1_epi32((int)(at & 7)));
    _mm256_storeu_si256((__m256i *)places, place);
    const uint8_t *bytes = block->scratch->magnitudes + (at >> 3);
    at += of.sum;
    place = _mm256_and_si256(place, _mm256_set1_epi32(7));
    ht_four_avx2(block, row, x, bytes, &of, places, place, 0, wide, below);
    if (x + 8 < block->width) ht_four_avx2(block, row, x + 8, bytes, &of, places, place, 4, wide, below);
  }
  block->at = at;
  return 0;
}

/* The samples of a row wait until the codes of the next one are read, so that both take place at the same time: codes
 * are a chain of look-ups, and what they have just written could not be loaded at once. */
HT_AVX2 HT_INLINE int ht_decode_rows_avx2(ht_decoding *block, int wide) {
  uint32_t rows = (block->height + 1) >> 1;
  for (uint32_t row = 0; row < rows; row++) {
    if (ht_decode_quads(block, row, 1)) return 1;
    if (row > 0 && ht_sample_row_avx2(block, row - 1, wide)) return 1;
  }
  return ht_sample_row_avx2(block, rows - 1, wide);
}

HT_AVX2 HT_INLINE int ht_decode_rows_of_two_avx2(ht_decoding *a, ht_decoding *b, int wide) {
  uint32_t rows = (a->height + 1) >> 1;
  for (uint32_t row = 0; row < rows; row++) {
    if (ht_decode_quads_of_two(a, b, row, 1)) return 1;
    if (row > 0 && (ht_sample_row_avx2(a, row - 1, wide) || ht_sample_row_avx2(b, row - 1, wide))) return 1;
  }
  return ht_sample_row_avx2(a, rows - 1, wide) || ht_sample_row_avx2(b, rows - 1, wide);
}

HT_AVX2 static inline int ht_decode_avx2_16(ht_decoding *block) { return ht_decode_rows_avx2(block, 0); }
HT_AVX2 static inline int ht_decode_avx2_32(ht_decoding *block) { return ht_decode_rows_avx2(block, 1); }
HT_AVX2 static inline int ht_decode_two_avx2_16(ht_decoding *a, ht_decoding *b) {
  return ht_decode_rows_of_two_avx2(a, b, 0);
}
HT_AVX2 static inline int ht_decode_two_avx2_32(ht_decoding *a, ht_decoding *b) {
  return ht_decode_rows_of_two_avx2(a, b, 1);
}

#endif
#endif
