/* The HT block decoder: the bytes of one code-block to its samples. One cleanup pass at bit-plane 0. T.814 clause 7
 *
 * Whatever the bytes are, loops depend on width and height alone, and the buffers hold what the longest codes of all
 * quads take. */
#ifndef HT_DECODE_BLOCK_H
#define HT_DECODE_BLOCK_H

#include "decode_avx2.h"
#include "decode_avx512.h"
#include "decode_rows.h"

static inline int ht_decode_portable_16(ht_decoding *block) { return ht_decode_rows(block, 0); }
static inline int ht_decode_portable_32(ht_decoding *block) { return ht_decode_rows(block, 1); }

/* Un-stuffs the segments. What is wrong with them: not 0. */
static inline int ht_decode_segments_of(ht_decoding *block, const uint8_t *data, size_t length, int tier) {
#if HT_X86
  if (tier >= HT_TIER_AVX512) return ht_decode_start_avx512(block, data, length);
  if (tier >= HT_TIER_AVX2) return ht_decode_start_avx2(block, data, length);
#endif
  (void)tier;
  return ht_decode_start(block, data, length);
}

static inline int ht_decode_started_16(ht_decoding *block, int tier) {
#if HT_X86
  if (tier >= HT_TIER_AVX512) return ht_decode_avx512_16(block);
  if (tier >= HT_TIER_AVX2) return ht_decode_avx2_16(block);
#endif
  (void)tier;
  return ht_decode_portable_16(block);
}

static inline int ht_decode_started_32(ht_decoding *block, int tier) {
#if HT_X86
  if (tier >= HT_TIER_AVX512 && ht_decode_narrow_avx512(block) == 0) return 0;
  if (tier >= HT_TIER_AVX2 && block->limit <= HT_AVX2_PLANES + 1) return ht_decode_avx2_32(block);
#endif
  (void)tier;
  return ht_decode_portable_32(block);
}

/* Decodes `length` bytes to `width` x `height` samples (1 to 64 each) with `stride` samples from row to row, of at most
 * `bit_planes` (1 to 15) bits. 0, or not 0 if the data is damaged: then the samples are anything. */
static inline int ht_decode_block_16(const uint8_t *data, size_t length, int16_t *samples, ptrdiff_t stride,
                                     uint32_t width, uint32_t height, uint32_t bit_planes, ht_decode_scratch *scratch,
                                     int tier) {
  ht_decoding block = {.scratch = scratch, .samples = samples, .stride = stride,
                       .width = width, .height = height, .limit = bit_planes + 1};
  if (bit_planes > 15 || ht_decode_segments_of(&block, data, length, tier)) return 1;
  return ht_decode_started_16(&block, tier);
}

/* The same with at most 30 bits. */
static inline int ht_decode_block_32(const uint8_t *data, size_t length, int32_t *samples, ptrdiff_t stride,
                                     uint32_t width, uint32_t height, uint32_t bit_planes, ht_decode_scratch *scratch,
                                     int tier) {
  ht_decoding block = {.scratch = scratch, .samples = samples, .stride = stride,
                       .width = width, .height = height, .limit = bit_planes + 1};
  if (bit_planes > HT_MOST_PLANES || ht_decode_segments_of(&block, data, length, tier)) return 1;
  return ht_decode_started_32(&block, tier);
}

/* Two code-blocks of one size, which take less time together than one by one; `scratch` is two. 0, or not 0 if either
 * is damaged: then the samples of both are anything. */
static inline int ht_decode_block_pair_16(const uint8_t *const data[2], const size_t length[2],
                                          int16_t *const samples[2], ptrdiff_t stride, uint32_t width, uint32_t height,
                                          uint32_t bit_planes, ht_decode_scratch *scratch, int tier) {
  ht_decoding a = {.scratch = scratch, .samples = samples[0], .stride = stride,
                   .width = width, .height = height, .limit = bit_planes + 1};
  ht_decoding b = {.scratch = scratch + 1, .samples = samples[1], .stride = stride,
                   .width = width, .height = height, .limit = bit_planes + 1};
  if (bit_planes > 15 || ht_decode_segments_of(&a, data[0], length[0], tier) ||
      ht_decode_segments_of(&b, data[1], length[1], tier))
    return 1;
#if HT_X86
  if (tier >= HT_TIER_AVX512) return ht_decode_two_avx512_16(&a, &b);
  if (tier >= HT_TIER_AVX2) return ht_decode_two_avx2_16(&a, &b);
#endif
  return ht_decode_started_16(&a, tier) || ht_decode_started_16(&b, tier);
}

static inline int ht_decode_block_pair_32(const uint8_t *const data[2], const size_t length[2],
                                          int32_t *const samples[2], ptrdiff_t stride, uint32_t width, uint32_t height,
                                          uint32_t bit_planes, ht_decode_scratch *scratch, int tier) {
  ht_decoding a = {.scratch = scratch, .samples = samples[0], .stride = stride,
                   .width = width, .height = height, .limit = bit_planes + 1};
  ht_decoding b = {.scratch = scratch + 1, .samples = samples[1], .stride = stride,
                   .width = width, .height = height, .limit = bit_planes + 1};
  if (bit_planes > HT_MOST_PLANES || ht_decode_segments_of(&a, data[0], length[0], tier) ||
      ht_decode_segments_of(&b, data[1], length[1], tier))
    return 1;
#if HT_X86
  if (tier >= HT_TIER_AVX512 && ht_decode_two_narrow_avx512(&a, &b) == 0) return 0;
  if (tier >= HT_TIER_AVX2 && bit_planes <= HT_AVX2_PLANES) return ht_decode_two_avx2_32(&a, &b);
#endif
  return ht_decode_started_32(&a, tier) || ht_decode_started_32(&b, tier);
}

#endif
