/* The quads (two by two samples) of a code-block, a row at a time: which samples are significant and what tells the
 * bound of their magnitudes, from the MEL and VLC segments. T.814 7.3.5, 7.3.6
 *
 * A code depends on the one before by its length and by the context, so the time that a quad takes is that of a chain:
 * look-up, shift, mask, sum. Everything else is kept off it: contexts of the row above are prepared, whether MEL says
 * that a quad has no code is a mask, and what the bits of u say is found out later from `window` and `pair`. */
#ifndef HT_DECODE_QUADS_H
#define HT_DECODE_QUADS_H

#include "decode_streams.h"

#define HT_COLUMNS (HT_BLOCK / 2) /* quads in a row, at most */

/* A row of quads; of codes the first one is codes[HT_BEFORE]. */
enum { HT_BEFORE = 16 };
typedef struct {
  uint32_t codes[HT_BEFORE + HT_COLUMNS + 16]; /* entries of ht_quad_codes, with zeros on both sides */
  uint32_t pairs[HT_COLUMNS / 2];              /* entries of ht_u_pairs */
  uint32_t windows[HT_COLUMNS / 2];            /* the bits that begin with those */
} ht_quad_row;

/* Reads VLC bits: the next `count` of them are in `window`, the first one lowest. */
typedef struct {
  const uint8_t *next;
  uint64_t window;
  uint32_t count;
} ht_vlc;

/* At least 56 bits. What it adds above `count` is there already or zero. */
HT_INLINE void ht_vlc_fill(ht_vlc *vlc) {
  vlc->window |= ht_load_64(vlc->next) << vlc->count;
  vlc->next += (63 - vlc->count) >> 3;
  vlc->count |= 56;
}

/* An entry of a table from an offset in bytes on. */
HT_INLINE uint32_t ht_entry(const uint32_t *table, size_t offset, uint64_t index) {
  const uint32_t *from = (const uint32_t *)((const char *)table + offset);
#if defined(__GNUC__)
  __asm__("" : "+r"(from)); /* not summed up in another order: the offset is known before the index */
#endif
  return from[index];
}

/* The code of a quad. In context 0 it takes an event of MEL, and if that is 0, there is no code. */
HT_INLINE uint32_t ht_quad_code(const uint32_t *table, uint32_t context, uint64_t window, uint64_t *events) {
  uint32_t code = ht_entry(table, context, window & 127);
  code &= 0u - ((context | ((uint32_t)*events & 1)) != 0);
  *events >>= context == 0;
  return code;
}

/* The first row. The events are at least one more than are taken: the one that ends them. */
HT_INLINE void ht_first_quads(ht_quad_row *row, uint32_t columns, ht_vlc *vlc, ht_mel *mel, uint64_t *events) {
  uint32_t context = 0, of_next = 7 * HT_CONTEXT;
  for (uint32_t q = 0; q < columns; q += 2) {
    if (*events < 8) *events = ht_mel_events(mel, *events, 3);
    ht_vlc_fill(vlc);
    uint64_t window = vlc->window;
    uint32_t first = ht_quad_code(ht_quad_codes[0], context, window, events);
    window >>= first & HT_LENGTH;
    context = q + 1 < columns ? first >> 2 & of_next : HT_OUTSIDE;
    uint32_t second = ht_quad_code(ht_quad_codes[0], context, window, events);
    window >>= second & HT_LENGTH;
    context = second >> 2 & of_next;
    uint32_t told = (first & HT_U_FIRST) | (second & HT_U_SECOND), kind = HT_PAIRS_INITIAL;
    if (told == (HT_U_FIRST | HT_U_SECOND)) {
      if (*events & 1) kind = HT_PAIRS_ABOVE_2;
      *events >>= 1;
    }
    uint32_t pair = ht_entry(ht_u_pairs[kind], told, window & 63);
    row->codes[HT_BEFORE + q] = first;
    row->codes[HT_BEFORE + q + 1] = second;
    row->pairs[q / 2] = pair;
    row->windows[q / 2] = (uint32_t)window;
    vlc->window = window >> (pair & HT_LENGTH);
    vlc->count -= (first & HT_LENGTH) + (second & HT_LENGTH) + (pair & HT_LENGTH);
  }
}

/* What the row above gives to the context of each quad: bit 0 from the samples above and above to the left, bit 2 from
 * those above and above to the right. HT_OUTSIDE for the second quad of a pair that is not there. */
HT_INLINE void ht_contexts(const ht_quad_row *above, uint32_t columns, uint32_t *contexts) {
  for (uint32_t q = 0; q < columns; q++) {
    const uint32_t *codes = above->codes + HT_BEFORE + q;
    contexts[q] = ((codes[0] >> 8 | codes[-1] >> 10) & HT_CONTEXT) | ((codes[0] >> 8 | codes[1] >> 6) & 4 * HT_CONTEXT);
  }
  contexts[columns] = HT_OUTSIDE;
}

/* A following row; `contexts` as above. There are events for all quads. */
HT_INLINE void ht_following_quads(ht_quad_row *row, const uint32_t *contexts, uint32_t columns, ht_vlc *of_vlc,
                                  uint64_t *of_events) {
  const uint32_t *table = ht_quad_codes[1], *pairs = ht_u_pairs[HT_PAIRS_FOLLOWING];
  ht_vlc vlc = *of_vlc;
  uint64_t events = *of_events;
  uint32_t second = 0;
  for (uint32_t q = 0; q < columns; q += 2) {
    uint32_t first = ht_quad_code(table, contexts[q] | (second & HT_WEST), vlc.window, &events);
    ht_vlc_fill(&vlc);
    vlc.window >>= first & HT_LENGTH;
    second = ht_quad_code(table, contexts[q + 1] | (first & HT_WEST), vlc.window, &events);
    vlc.window >>= second & HT_LENGTH;
    uint32_t pair = ht_entry(pairs, (first & HT_U_FIRST) | (second & HT_U_SECOND), vlc.window & 63);
    row->codes[HT_BEFORE + q] = first;
    row->codes[HT_BEFORE + q + 1] = second;
    row->pairs[q / 2] = pair;
    row->windows[q / 2] = (uint32_t)vlc.window;
    vlc.window >>= pair & HT_LENGTH;
    vlc.count -= (first + second + pair) & HT_LENGTH; /* at most 30 in all */
  }
  *of_vlc = vlc;
  *of_events = events;
}

#endif
