/* The samples of a row of quads by AVX-512, 16 quads at a time. Bits are brought to their places by permutations of
 * bytes and shifts of each word, after a sum over the lengths has told where those of each quad begin. */
#ifndef HT_DECODE_AVX512_H
#define HT_DECODE_AVX512_H

#include "decode_rows.h"

#if HT_X86

/* 64 bytes behind `carry`, of which `count` bits (at most 7) are there. */
HT_AVX512 HT_INLINE void ht_put_bytes_avx512(uint8_t *to, __m512i bytes, uint32_t carry, uint32_t count) {
  __m512i before = _mm512_alignr_epi64(bytes, _mm512_setzero_si512(), 7);
  bytes = _mm512_shldv_epi64(bytes, before, _mm512_set1_epi64((int)count));
  _mm512_storeu_si512(to, _mm512_or_si512(bytes, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)carry))));
}

HT_AVX512 HT_INLINE __mmask64 ht_first_bytes_avx512(size_t count) {
  return count >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1;
}

/* As ht_unstuff_forward, from FF to FF; up to 64 bytes more are written. */
HT_AVX512 static inline size_t ht_unstuff_forward_avx512(const uint8_t *data, size_t length, uint8_t *to, size_t room) {
  uint8_t *out = to, *most = to + room;
  uint32_t carry = 0, count = 0;
  size_t at = 0;
  while (at < length && out < most) {
    size_t left = length - at < 64 ? length - at : 64;
    __m512i bytes = _mm512_maskz_loadu_epi8(ht_first_bytes_avx512(left), data + at);
    uint64_t full = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(-1));
    ht_put_bytes_avx512(out, bytes, carry, count);
    if (full) left = ht_trailing_zeros(full) + 1;
    at += left;
    out += left;
    carry = (uint32_t)data[at - 1] << count >> 8;
    uint32_t byte = full ? 255 : 0;
    while (byte == 255 && at < length && out < most) {
      byte = data[at++];
      carry |= byte << count;
      *out = (uint8_t)carry;
      out += count > 0; /* seven bits more */
      carry >>= count > 0 ? 8 : 0;
      count = (count + 7) & 7;
    }
  }
  ht_store_64(out, carry | ~UINT64_C(0) << count);
  return (size_t)(out - to) * 8 + count;
}

/* As ht_unstuff_backward, from one byte of seven bits to the next. */
HT_AVX512 static inline uint8_t *ht_unstuff_backward_avx512(const uint8_t *data, size_t suffix, uint8_t *out) {
  const __m512i order = _mm512_setr_epi64(0x38393a3b3c3d3e3f, 0x3031323334353637, 0x28292a2b2c2d2e2f,
                                          0x2021222324252627, 0x18191a1b1c1d1e1f, 0x1011121314151617,
                                          0x08090a0b0c0d0e0f, 0x0001020304050607); /* -1, -2 ... modulo 64 */
  uint32_t carry = data[suffix - 2] >> 4u, count = (carry & 7) == 7 ? 3 : 4;
  uint64_t above = carry > 8;
  size_t left = suffix - 2;
  while (left > 0) {
    size_t some = left < 64 ? left : 64;
    __mmask64 there = ht_first_bytes_avx512(some);
    __m512i bytes = _mm512_maskz_loadu_epi8(there, data + left - some);
    bytes = _mm512_maskz_permutexvar_epi8(there, _mm512_add_epi8(order, _mm512_set1_epi8((char)some)), bytes);
    uint64_t high = _mm512_cmpgt_epu8_mask(bytes, _mm512_set1_epi8((char)0x8f));
    __m512i low = _mm512_and_si512(bytes, _mm512_set1_epi8(0x7f));
    uint64_t stuffed = _mm512_cmpeq_epi8_mask(low, _mm512_set1_epi8(0x7f)) & (high << 1 | above);
    ht_put_bytes_avx512(out, bytes, carry, count);
    if (stuffed) some = ht_trailing_zeros(stuffed);
    if (some > 0) {
      left -= some;
      out += some;
      carry = (uint32_t)data[left] << count >> 8;
      above = high >> (some - 1) & 1;
    }
    if (stuffed) {
      uint32_t byte = data[--left];
      carry |= byte << count;
      *out = (uint8_t)carry;
      out += count > 0;
      carry >>= count > 0 ? 8 : 0;
      count = (count + 7) & 7;
      above = byte > 0x8f;
    }
  }
  ht_store_64(out, carry);
  return out + 8;
}

/* As ht_decode_start. */
HT_AVX512 static inline int ht_decode_start_avx512(ht_decoding *block, const uint8_t *data, size_t length) {
  size_t suffix;
  if (ht_decode_suffix(data, length, &suffix)) return 1;
  size_t prefix = length - suffix;
  size_t end = ht_unstuff_forward_avx512(data, prefix, block->scratch->magnitudes, ht_most_magnitudes(block));
  uint8_t *vlc_end = ht_unstuff_backward_avx512(data + prefix, suffix, block->scratch->vlc);
  ht_decode_segments(block, data + prefix, suffix, end, vlc_end);
  return 0;
}

/* Of 16 quads, what MagSgn has of their samples. */
typedef struct {
  __m512i lengths;   /* a byte for each sample: how many bits MagSgn has of it */
  __m512i before;    /* a byte for each sample: how many of its quad are before these */
  __m512i at;        /* of each quad: how many of the 16 quads are before it */
  __m512i ones;      /* a byte for each sample: FF if the bit above those is 1 */
  __mmask64 there;   /* of each sample: whether it is significant */
  uint32_t sum8, sum; /* of the bits of 8 quads and of all */
} ht_lengths_avx512;

/* Nibbles to bytes, 0 to 00 and 1 to FF. */
HT_AVX512 HT_INLINE __m512i ht_nibble_bytes_avx512(__m512i nibbles) {
  const __m512i bytes = _mm512_setr_epi32(
      0, 0xff, 0xff00, 0xffff, 0xff0000, 0xff00ff, 0xffff00, 0xffffff, (int)0xff000000, (int)0xff0000ff,
      (int)0xff00ff00, (int)0xff00ffff, (int)0xffff0000, (int)0xffff00ff, (int)0xffffff00, -1);
  return _mm512_permutexvar_epi32(nibbles, bytes);
}

/* u of 16 quads, from 8 pairs. */
HT_AVX512 HT_INLINE __m512i ht_u_avx512(const uint32_t *pairs, const uint32_t *windows) {
  const __m256i three = _mm256_set1_epi32(7), all = _mm256_set1_epi32(-1);
  __m256i pair = _mm256_loadu_si256((const __m256i *)pairs), bits = _mm256_loadu_si256((const __m256i *)windows);
  __m256i suffix = _mm256_and_si256(_mm256_srli_epi32(pair, HT_SUFFIX), three);
  bits = _mm256_srlv_epi32(bits, _mm256_and_si256(_mm256_srli_epi32(pair, HT_PREFIXES), three));
  __m256i first = _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(pair, HT_U), three),
                                   _mm256_andnot_si256(_mm256_sllv_epi32(all, suffix), bits));
  bits = _mm256_srlv_epi32(bits, suffix);
  suffix = _mm256_and_si256(_mm256_srli_epi32(pair, HT_SUFFIX_2), three);
  __m256i second = _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(pair, HT_U_2), three),
                                    _mm256_andnot_si256(_mm256_sllv_epi32(all, suffix), bits));
  return _mm512_cvtepu16_epi32(_mm256_or_si256(first, _mm256_slli_epi32(second, 16)));
}

/* How many bits each sample of quads `lanes` has, if no U_q is above `limit`; else not 0. */
HT_AVX512 HT_INLINE int ht_lengths_of_avx512(__m512i codes, __m512i u, __m512i above, __mmask16 lanes, uint32_t limit,
                                             ht_lengths_avx512 *of) {
  __mmask16 several = _mm512_test_epi32_mask(codes, _mm512_set1_epi32(HT_SEVERAL));
  __m512i bound = _mm512_add_epi32(u, _mm512_mask_mov_epi32(_mm512_set1_epi32(1), several, above));
  __mmask16 damaged = _mm512_mask_cmpgt_epu32_mask(lanes, bound, _mm512_set1_epi32((int)limit));
  __m512i there = ht_nibble_bytes_avx512(codes);
  __m512i known = ht_nibble_bytes_avx512(_mm512_srli_epi32(codes, HT_KNOWN));
  of->ones = ht_nibble_bytes_avx512(_mm512_srli_epi32(codes, HT_ONES));
  of->there = _mm512_movepi8_mask(there);
  bound = _mm512_shuffle_epi8(bound, _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
  of->lengths = _mm512_and_si512(_mm512_add_epi8(bound, known), there);
  __m512i sums = _mm512_mullo_epi32(of->lengths, _mm512_set1_epi32(0x01010101));
  of->before = _mm512_slli_epi32(sums, 8);
  __m512i quad = _mm512_srli_epi32(sums, 24);
  sums = _mm512_add_epi32(quad, _mm512_bslli_epi128(quad, 4));
  sums = _mm512_add_epi32(sums, _mm512_bslli_epi128(sums, 8));
  __m512i first = _mm512_maskz_permutexvar_epi32(0xfff0, _mm512_set1_epi32(3), sums);
  __m512i second = _mm512_maskz_permutexvar_epi32(0xff00, _mm512_set1_epi32(7), sums);
  __m512i third = _mm512_maskz_permutexvar_epi32(0xf000, _mm512_set1_epi32(11), sums);
  sums = _mm512_add_epi32(_mm512_add_epi32(sums, first), _mm512_add_epi32(second, third));
  of->at = _mm512_sub_epi32(sums, quad);
  __m512i totals = _mm512_permutexvar_epi32(_mm512_set4_epi32(15, 7, 15, 7), sums);
  uint64_t both = (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(totals));
  of->sum8 = (uint32_t)both;
  of->sum = (uint32_t)(both >> 32);
  return damaged != 0;
}

/* The 32 samples, 16 bits each, of quads 8 * `half` and on, 2 (magnitude - 1) and the sign lowest. `at`: of each quad,
 * where its bits begin in `bytes`. */
HT_AVX512 HT_INLINE __m512i ht_samples_avx512_16(const uint8_t *bytes, const ht_lengths_avx512 *of, __m512i at,
                                                 int half) {
  const __m512i eight = _mm512_set1_epi64(0x0706050403020100), bytes_of = _mm512_set1_epi64(0x0101010101010101);
  const __m512i quads = _mm512_add_epi64(_mm512_setr_epi64(0, 4, 8, 12, 16, 20, 24, 28), _mm512_set1_epi64(32 * half));
  const __m512i here = _mm512_mullo_epi64(quads, bytes_of);
  __m512i index = _mm512_add_epi8(_mm512_permutexvar_epi8(here, _mm512_srli_epi32(at, 3)), eight);
  __m512i low = _mm512_permutexvar_epi8(index, _mm512_loadu_si512(bytes));
  __m512i high = _mm512_permutexvar_epi8(index, _mm512_loadu_si512(bytes + 8));
  __m256i at_half = half ? _mm512_extracti64x4_epi64(at, 1) : _mm512_castsi512_si256(at);
  __m512i shift = _mm512_and_si512(_mm512_cvtepu32_epi64(at_half), _mm512_set1_epi64(7));
  __m512i bits = _mm512_shrdv_epi64(low, high, shift);
  __m256i half_before = half ? _mm512_extracti64x4_epi64(of->before, 1) : _mm512_castsi512_si256(of->before);
  __m512i before = _mm512_cvtepu8_epi16(half_before);
  const __m512i twice = _mm512_set4_epi32(0x0e0e0c0c, 0x0a0a0808, 0x06060404, 0x02020000);
  before = _mm512_add_epi8(_mm512_shuffle_epi8(before, twice), _mm512_set1_epi16(0x0800));
  bits = _mm512_multishift_epi64_epi8(before, bits);
  __m256i half_lengths = half ? _mm512_extracti64x4_epi64(of->lengths, 1) : _mm512_castsi512_si256(of->lengths);
  __m256i half_ones = half ? _mm512_extracti64x4_epi64(of->ones, 1) : _mm512_castsi512_si256(of->ones);
  __m512i above = _mm512_sllv_epi16(_mm512_set1_epi16(1), _mm512_cvtepu8_epi16(half_lengths));
  __m512i known = _mm512_and_si512(above, _mm512_cvtepi8_epi16(half_ones));
  return _mm512_or_si512(known, _mm512_and_si512(bits, _mm512_sub_epi16(above, _mm512_set1_epi16(1))));
}

HT_AVX512 HT_INLINE __m512i ht_signed_avx512_16(__m512i samples, __mmask32 there) {
  const __m512i one = _mm512_set1_epi16(1);
  __m512i positive = _mm512_sub_epi16(_mm512_and_si512(samples, one), one); /* -1, else 0 */
  __m512i value = _mm512_srli_epi16(samples, 1);
  value = _mm512_ternarylogic_epi64(value, positive, positive, 0xc3); /* xor with not */
  return _mm512_maskz_sub_epi16(there, value, positive);
}

/* As ht_sample_row. `below` has of each quad the lower left sample, and in the upper half the lower right one. */
HT_AVX512 HT_INLINE int ht_sample_row_avx512_16(ht_decoding *block, uint32_t row) {
  const __m512i even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24,
                                        22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
  const ht_quad_row *quads = &block->scratch->rows[row & 1];
  const uint32_t *above = block->scratch->below[row & 1] + 16;
  uint32_t *below = block->scratch->below[~row & 1] + 16;
  int16_t *upper = (int16_t *)block->samples + (ptrdiff_t)(2 * row) * block->stride, *lower = upper + block->stride;
  int last = 2 * row + 1 == block->height;
  size_t at = block->at < block->end ? block->at : block->end;
  for (uint32_t x = 0; x < block->width; x += 32) {
    uint32_t q = x / 2, columns = block->width - x;
    __mmask32 samples = columns >= 32 ? 0xffffffffu : (1u << columns) - 1;
    __mmask16 lanes = (__mmask16)(columns >= 32 ? 0xffffu : (1u << ((columns + 1) >> 1)) - 1);
    __m256i words = _mm256_loadu_si256((const __m256i *)(quads->samples + q));
    __m512i codes = _mm512_maskz_cvtepu16_epi32(lanes, words);
    __m512i u = ht_u_avx512(quads->pairs + q / 2, quads->windows + q / 2);
    __m512i over = _mm512_loadu_si512(above + q);
    over = _mm512_ternarylogic_epi32(over, _mm512_loadu_si512(above + q - 1), _mm512_set1_epi32((int)0xffff0000), 0xf8);
    over = _mm512_ternarylogic_epi32(over, _mm512_loadu_si512(above + q + 1), _mm512_set1_epi32(0xffff), 0xf8);
    over = _mm512_ternarylogic_epi32(over, _mm512_slli_epi32(over, 16), _mm512_set1_epi32(0x20000), 0xfe);
    over = _mm512_sub_epi32(_mm512_set1_epi32(15), _mm512_lzcnt_epi32(over));
    ht_lengths_avx512 of;
    if (HT_UNLIKELY(ht_lengths_of_avx512(codes, u, over, lanes, block->limit, &of))) return 1;
    const uint8_t *bytes = block->scratch->magnitudes;
    size_t at8 = at + of.sum8;
    __m512i places = _mm512_add_epi32(of.at, _mm512_set1_epi32((int)(at & 7)));
    __m512i first = ht_samples_avx512_16(bytes + (at >> 3), &of, places, 0);
    places = _mm512_add_epi32(of.at, _mm512_set1_epi32((int)(at8 & 7) - (int)of.sum8));
    __m512i second = ht_samples_avx512_16(bytes + (at8 >> 3), &of, places, 1);
    at += of.sum;
    _mm512_storeu_si512(below + q, _mm512_permutex2var_epi16(first, odd, second));
    first = ht_signed_avx512_16(first, (__mmask32)of.there);
    second = ht_signed_avx512_16(second, (__mmask32)(of.there >> 32));
    _mm512_mask_storeu_epi16(upper + x, samples, _mm512_permutex2var_epi16(first, even, second));
    if (!last) _mm512_mask_storeu_epi16(lower + x, samples, _mm512_permutex2var_epi16(first, odd, second));
  }
  block->at = at;
  return 0;
}

/* The samples of a row wait until the codes of the next one are read, so that both take place at the same time: codes
 * are a chain of look-ups, and what they have just written could not be loaded at once. */
HT_AVX512 static inline int ht_decode_avx512_16(ht_decoding *block) {
  uint32_t rows = (block->height + 1) >> 1;
  for (uint32_t row = 0; row < rows; row++) {
    if (ht_decode_quads(block, row, 1)) return 1;
    if (row > 0 && ht_sample_row_avx512_16(block, row - 1)) return 1;
  }
  return ht_sample_row_avx512_16(block, rows - 1);
}

HT_AVX512 static inline int ht_decode_two_avx512_16(ht_decoding *a, ht_decoding *b) {
  uint32_t rows = (a->height + 1) >> 1;
  for (uint32_t row = 0; row < rows; row++) {
    if (ht_decode_quads_of_two(a, b, row, 1)) return 1;
    if (row > 0 && (ht_sample_row_avx512_16(a, row - 1) || ht_sample_row_avx512_16(b, row - 1))) return 1;
  }
  return ht_sample_row_avx512_16(a, rows - 1) || ht_sample_row_avx512_16(b, rows - 1);
}

/* Most magnitudes of 32-bit samples are small: they are decoded to 16 bits, in which those below 2^14 have their place.
 * Not 0: it cannot be, or is damaged. Then `block` is as it was before. */
#define HT_NARROW 15 /* the limit of U_q */

HT_AVX512 HT_INLINE void ht_narrow_avx512(ht_decoding *block) {
  block->samples = block->scratch->narrow;
  block->stride = HT_BLOCK;
  block->limit = block->limit < HT_NARROW ? block->limit : HT_NARROW;
}

HT_AVX512 HT_INLINE void ht_restart_avx512(ht_decoding *block, const ht_decoding *before) {
  *block = *before;
  memset(block->scratch->below, 0, sizeof block->scratch->below);
  memset(block->scratch->rows, 0, sizeof block->scratch->rows);
}

HT_AVX512 HT_INLINE void ht_widen_avx512(const ht_decoding *block) {
  for (uint32_t y = 0; y < block->height; y++) {
    const int16_t *from = block->scratch->narrow + y * HT_BLOCK;
    int32_t *to = (int32_t *)block->samples + (ptrdiff_t)y * block->stride;
    for (uint32_t x = 0; x < block->width; x += 16) {
      uint32_t left = block->width - x;
      __mmask16 there = (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1);
      __m256i words = _mm256_loadu_si256((const __m256i *)(from + x));
      _mm512_mask_storeu_epi32(to + x, there, _mm512_cvtepi16_epi32(words));
    }
  }
}

HT_AVX512 static inline int ht_decode_narrow_avx512(ht_decoding *block) {
  ht_decoding narrow = *block;
  ht_narrow_avx512(&narrow);
  int wide = ht_decode_avx512_16(&narrow);
  if (wide) ht_restart_avx512(&narrow, block);
  else ht_widen_avx512(block);
  return wide;
}

HT_AVX512 static inline int ht_decode_two_narrow_avx512(ht_decoding *a, ht_decoding *b) {
  ht_decoding of_a = *a, of_b = *b;
  ht_narrow_avx512(&of_a);
  ht_narrow_avx512(&of_b);
  int wide = ht_decode_two_avx512_16(&of_a, &of_b);
  if (wide) {
    ht_restart_avx512(&of_a, a);
    ht_restart_avx512(&of_b, b);
  } else {
    ht_widen_avx512(a);
    ht_widen_avx512(b);
  }
  return wide;
}

#endif
#endif
