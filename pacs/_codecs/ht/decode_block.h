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

/* Decodes `length` bytes to `width` x `height` samples (1 to 64 each) with `stride` samples from row to row, of at most
 * `bit_planes` (1 to 15) bits. 0, or not 0 if the data is damaged: then the samples are anything. */
static inline int ht_decode_block_16(const uint8_t *data, size_t length, int16_t *samples, ptrdiff_t stride,
                                     uint32_t width, uint32_t height, uint32_t bit_planes, ht_decode_scratch *scratch,
                                     int tier) {
  ht_decoding block = {.scratch = scratch, .samples = samples, .stride = stride, .width = width, .height = height};
  if (bit_planes > 15 || ht_decode_start(&block, data, length, bit_planes)) return 1;
#if HT_X86
  if (tier >= HT_TIER_AVX512) return ht_decode_avx512_16(&block);
  if (tier >= HT_TIER_AVX2) return ht_decode_avx2_16(&block);
#else
  (void)tier;
#endif
  return ht_decode_portable_16(&block);
}

/* The same with at most 30 bits. */
static inline int ht_decode_block_32(const uint8_t *data, size_t length, int32_t *samples, ptrdiff_t stride,
                                     uint32_t width, uint32_t height, uint32_t bit_planes, ht_decode_scratch *scratch,
                                     int tier) {
  ht_decoding block = {.scratch = scratch, .samples = samples, .stride = stride, .width = width, .height = height};
  if (bit_planes > HT_MOST_PLANES || ht_decode_start(&block, data, length, bit_planes)) return 1;
#if HT_X86
  if (tier >= HT_TIER_AVX2 && bit_planes <= HT_AVX2_PLANES) return ht_decode_avx2_32(&block);
#else
  (void)tier;
#endif
  return ht_decode_portable_32(&block);
}

#endif
