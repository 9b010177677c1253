/* What is decoded of an HT code-block, row by row of quads, in portable C: codes from MEL and VLC (decode_quads.h),
 * then magnitudes and signs from MagSgn. T.814 clause 7 */
#ifndef HT_DECODE_ROWS_H
#define HT_DECODE_ROWS_H

#include "decode_quads.h"

#define HT_MOST_PLANES 30 /* magnitudes below 2^30; U_q is at most one more */
#define HT_BEHIND 1024    /* bytes behind the end of a segment that a row may read: twice 128 samples of 32 bits */

/* At least 64 bytes aligned; one for each thread. */
typedef struct {
  uint8_t vlc[HT_MOST_SUFFIX + 2 * HT_ROW_VLC + 153];
  uint8_t magnitudes[HT_BLOCK * HT_BLOCK * 4 + HT_BEHIND + 64];
  ht_quad_row rows[2];
  uint32_t below[2][16 + HT_BLOCK + 16]; /* of the samples that end a row of quads: see ht_sample_row */
  int16_t narrow[HT_BLOCK * HT_BLOCK];
} ht_decode_scratch;

/* What is being decoded. */
typedef struct {
  ht_decode_scratch *scratch;
  void *samples;
  ptrdiff_t stride;
  uint32_t width, height, limit; /* limit: of U_q */
  size_t at, end;                /* bits of MagSgn: read, there */
  const uint8_t *vlc_end;
  ht_vlc vlc;
  ht_mel mel;
  uint64_t events;
  uint64_t below; /* the lower samples of the row above: see ht_contexts */
} ht_decoding;

/* What is wrong with the lengths of the segments: not 0. */
HT_INLINE int ht_decode_suffix(const uint8_t *data, size_t length, size_t *suffix) {
  if (length < 2) return 1;
  *suffix = (size_t)data[length - 1] << 4 | (data[length - 2] & 15);
  return *suffix < 2 || *suffix > length || *suffix > HT_MOST_SUFFIX;
}

/* Behind un-stuffed segments: `end` bits of MagSgn, bytes of VLC to `vlc_end`. */
static inline void ht_decode_segments(ht_decoding *block, const uint8_t *suffix, size_t suffix_length, size_t end,
                                      uint8_t *vlc_end) {
  ht_decode_scratch *scratch = block->scratch;
  block->at = 0;
  block->end = end;
  memset(scratch->magnitudes + end / 64 * 8 + 8, 255, block->width * block->limit / 4 + 80);
  memset(vlc_end, 0, 2 * HT_ROW_VLC + 16);
  block->vlc_end = vlc_end;
  block->vlc = (ht_vlc){scratch->vlc, 0, 0};
  ht_vlc_fill(&block->vlc);
  ht_mel_start(&block->mel, suffix, suffix_length);
  block->events = 1;
  memset(scratch->below, 0, sizeof scratch->below);
  memset(scratch->rows, 0, sizeof scratch->rows);
  block->below = 0;
}

/* The bytes of MagSgn that all samples may take. */
HT_INLINE size_t ht_most_magnitudes(const ht_decoding *block) {
  return ((size_t)block->width * block->height * block->limit + 7) / 8;
}

/* Un-stuffs the segments. What is wrong with them: not 0. */
HT_INLINE int ht_decode_start(ht_decoding *block, const uint8_t *data, size_t length) {
  size_t suffix;
  if (ht_decode_suffix(data, length, &suffix)) return 1;
  size_t prefix = length - suffix;
  size_t end = ht_unstuff_forward(data, prefix, block->scratch->magnitudes, ht_most_magnitudes(block));
  uint8_t *vlc_end = ht_unstuff_backward(data + prefix, suffix, block->scratch->vlc);
  ht_decode_segments(block, data + prefix, suffix, end, vlc_end);
  return 0;
}

/* VLC gives zeros behind its end, for a row at least. */
HT_INLINE void ht_vlc_stay(ht_decoding *block) {
  block->vlc.next = block->vlc.next < block->vlc_end ? block->vlc.next : block->vlc_end;
}

/* Not 0: samples outside the code-block are significant in row `row`. */
HT_INLINE int ht_outside(const ht_decoding *block, uint32_t row) {
  uint32_t columns = (block->width + 1) >> 1;
  uint32_t outside = 2 * row + 1 == block->height && block->below;
  if (block->width & 1) outside |= block->scratch->rows[row & 1].samples[columns - 1] & 12u;
  return outside != 0;
}

/* Events of MEL for all quads of a following row. */
HT_INLINE void ht_listen(ht_decoding *block) {
  if (HT_UNLIKELY(block->events >> 32 == 0)) block->events = ht_mel_events(&block->mel, block->events, 32);
}

/* The quads of row `row`; `bextr` as above. Not 0: samples outside the code-block are significant. */
HT_INLINE int ht_decode_quads(ht_decoding *block, uint32_t row, int bextr) {
  ht_quad_row *quads = &block->scratch->rows[row & 1];
  uint32_t columns = (block->width + 1) >> 1;
  uint64_t contexts = ht_contexts(block->below);
  ht_vlc_stay(block);
  if (row == 0) {
    block->below = ht_first_quads(quads, columns, &block->vlc, &block->mel, &block->events);
  } else if (ht_all_heard(contexts, columns)) {
    block->below = ht_following_quads(quads, contexts, columns, &block->vlc, &block->events, 1, bextr);
  } else {
    ht_listen(block);
    block->below = ht_following_quads(quads, contexts, columns, &block->vlc, &block->events, 0, bextr);
  }
  return ht_outside(block, row);
}

/* The same of two code-blocks of one size. */
HT_INLINE int ht_decode_quads_of_two(ht_decoding *a, ht_decoding *b, uint32_t row, int bextr) {
  if (row == 0) return ht_decode_quads(a, row, bextr) | ht_decode_quads(b, row, bextr);
  ht_quad_row *quads[2] = {&a->scratch->rows[row & 1], &b->scratch->rows[row & 1]};
  uint64_t contexts[2] = {ht_contexts(a->below), ht_contexts(b->below)};
  ht_vlc *vlc[2] = {&a->vlc, &b->vlc};
  uint64_t *events[2] = {&a->events, &b->events}, *below[2] = {&a->below, &b->below};
  uint32_t columns = (a->width + 1) >> 1;
  ht_vlc_stay(a);
  ht_vlc_stay(b);
  if (ht_all_heard(contexts[0], columns) & ht_all_heard(contexts[1], columns)) {
    ht_following_quads_of_two(quads, contexts, columns, vlc, events, below, 1, bextr);
  } else {
    ht_listen(a);
    ht_listen(b);
    ht_following_quads_of_two(quads, contexts, columns, vlc, events, below, 0, bextr);
  }
  return ht_outside(a, row) | ht_outside(b, row);
}

/* u of the first and second quad of a pair. T.814 7.3.6 */
HT_INLINE uint32_t ht_u_first(uint32_t pair, uint32_t window) {
  return (pair >> HT_U & 7) + (window >> (pair >> HT_PREFIXES & 7) & ((1u << (pair >> HT_SUFFIX & 7)) - 1));
}
HT_INLINE uint32_t ht_u_second(uint32_t pair, uint32_t window) {
  uint32_t before = (pair >> HT_PREFIXES & 7) + (pair >> HT_SUFFIX & 7);
  return (pair >> HT_U_2 & 7) + (window >> before & ((1u << (pair >> HT_SUFFIX_2 & 7)) - 1));
}

/* The bits of a nibble, one in each byte. */
HT_INLINE uint32_t ht_bytes_of(uint32_t nibble) { return (nibble & 15) * 0x00204081u & 0x01010101u; }

/* 2 (magnitude - 1) and the sign lowest, of a sample of `length` bits, and above them `one`. T.814 7.3.8 */
HT_INLINE uint32_t ht_sample(const uint8_t *magnitudes, size_t *at, uint32_t length, uint32_t one) {
  uint64_t bits = ht_load_64(magnitudes + (*at >> 3)) >> (*at & 7);
  *at += length;
  return ((uint32_t)bits & ((1u << length) - 1)) | one << length;
}

HT_INLINE int32_t ht_signed(uint32_t sample, uint32_t there) {
  uint32_t sign = sample & 1;
  return (int32_t)(((sample >> 1) ^ (0u - sign)) + (sign ^ there));
}

HT_INLINE void ht_put(void *samples, ptrdiff_t at, int32_t sample, int wide) {
  if (wide) ((int32_t *)samples)[at] = sample;
  else ((int16_t *)samples)[at] = (int16_t)sample;
}

/* The samples of a row of quads. `below` has of each quad the lower left sample and the lower right one of the quad
 * before, or-ed: the greatest bit is all that matters. Not 0: a magnitude is above the bit-planes. T.814 7.3.7 */
HT_INLINE int ht_sample_row(ht_decoding *block, uint32_t row, int wide) {
  const ht_quad_row *quads = &block->scratch->rows[row & 1];
  const uint8_t *magnitudes = block->scratch->magnitudes;
  uint32_t *below = block->scratch->below[0];
  ptrdiff_t upper = (ptrdiff_t)(2 * row) * block->stride, lower = upper + block->stride;
  int last = 2 * row + 1 == block->height;
  size_t at = block->at < block->end ? block->at : block->end;
  uint32_t right = 0, columns = (block->width + 1) >> 1;
  for (uint32_t q = 0; q < columns; q++) {
    uint32_t code = quads->samples[q], pair = quads->pairs[q / 2], window = quads->windows[q / 2];
    uint32_t above = ht_bit_length(below[q] | below[q + 1] | 2) - 2;
    uint32_t u = q & 1 ? ht_u_second(pair, window) : ht_u_first(pair, window);
    uint32_t bound = u + 1 + (above & (0u - (code / HT_SEVERAL & 1)));
    if (HT_UNLIKELY(bound > block->limit)) return 1;
    uint32_t there = ht_bytes_of(code), ones = ht_bytes_of(code >> HT_ONES);
    uint32_t lengths = there * bound - ht_bytes_of(code >> HT_KNOWN);
    uint32_t a = ht_sample(magnitudes, &at, lengths & 255, ones & 1);
    uint32_t b = ht_sample(magnitudes, &at, lengths >> 8 & 255, ones >> 8 & 1);
    uint32_t c = ht_sample(magnitudes, &at, lengths >> 16 & 255, ones >> 16 & 1);
    uint32_t d = ht_sample(magnitudes, &at, lengths >> 24, ones >> 24);
    below[q] = b | right;
    right = d;
    ptrdiff_t x = 2 * (ptrdiff_t)q;
    ht_put(block->samples, upper + x, ht_signed(a, there & 1), wide);
    if (!last) ht_put(block->samples, lower + x, ht_signed(b, there >> 8 & 1), wide);
    if (2 * q + 1 < block->width) {
      ht_put(block->samples, upper + x + 1, ht_signed(c, there >> 16 & 1), wide);
      if (!last) ht_put(block->samples, lower + x + 1, ht_signed(d, there >> 24), wide);
    }
  }
  below[columns] = right;
  block->at = at;
  return 0;
}

HT_INLINE int ht_decode_rows(ht_decoding *block, int wide) {
  for (uint32_t row = 0; 2 * row < block->height; row++) {
    if (ht_decode_quads(block, row, 0) || ht_sample_row(block, row, wide)) return 1;
  }
  return 0;
}

#endif
