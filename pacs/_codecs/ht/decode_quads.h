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

/* A row of quads. */
typedef struct {
  uint16_t samples[HT_COLUMNS];     /* of ht_quad_code */
  uint32_t pairs[HT_COLUMNS / 2];   /* entries of ht_u_pairs */
  uint32_t windows[HT_COLUMNS / 2]; /* the bits that begin with those */
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

/* The seven bits behind an entry's own. `bextr`: the processor has BMI. */
HT_INLINE uint64_t ht_index(uint64_t window, uint64_t next, int bextr) {
#if HT_X86
  if (bextr) {
    uint64_t index;
    __asm__("bextr %2, %1, %0" : "=r"(index) : "r"(window), "r"(next) : "cc");
    return index;
  }
#endif
  (void)bextr;
  return window >> (next & HT_LENGTH) & 127;
}

/* Keeps the compiler from summing up in another order: what is known early comes first. */
#if defined(__GNUC__) || defined(__clang__)
#define HT_EARLY(pointer) __asm__("" : "+r"(pointer))
#else
#define HT_EARLY(pointer) (void)(pointer)
#endif

HT_INLINE const ht_quad_code *ht_quad_code_at(const ht_quad_code *table, size_t context, size_t west, uint64_t index) {
  const char *from = (const char *)table + context;
  HT_EARLY(from);
  return (const ht_quad_code *)(from + west) + index;
}
HT_INLINE uint32_t ht_u_pair_at(const uint32_t *table, size_t first, size_t second, uint64_t index) {
  const char *from = (const char *)table + first;
  HT_EARLY(from);
  return ((const uint32_t *)(from + second))[index];
}

/* In context 0 a quad takes an event of MEL, and if that is 0, it has no code. */
HT_INLINE uint32_t ht_heard(uint32_t context, uint64_t *events) {
  uint32_t event = (uint32_t)*events & 1;
  *events >>= context == 0;
  return (context | event) == 0 ? (uint32_t)HT_OUTSIDE : context;
}

/* The code of a quad in a following row; without events if the context cannot be 0. */
HT_INLINE const ht_quad_code *ht_code_of(uint32_t context, uint32_t west, uint64_t index, uint64_t *events) {
  if (events == NULL) return ht_quad_code_at(ht_following_codes, context, west, index);
  return ht_quad_code_at(ht_following_codes, ht_heard(context + west, events), 0, index);
}

/* The lower samples of a row, and those of a further pair. */
HT_INLINE uint64_t ht_lower(uint64_t below, uint32_t first, uint32_t second) {
  return below << 4 | (first >> HT_LOWER << 2) | second >> HT_LOWER;
}

/* The first row. The lower samples, as ht_following_quads. */
HT_INLINE uint64_t ht_first_quads(ht_quad_row *row, uint32_t columns, ht_vlc *vlc, ht_mel *mel, uint64_t *events) {
  uint32_t context = 0;
  uint64_t below = 0;
  for (uint32_t q = 0; q < columns; q += 2) {
    if (*events < 8) *events = ht_mel_events(mel, *events, 3);
    ht_vlc_fill(vlc);
    uint64_t window = vlc->window;
    const ht_quad_code *first = ht_quad_code_at(ht_first_codes, ht_heard(context, events), 0, window & 127);
    window >>= first->next & HT_LENGTH;
    context = q + 1 < columns ? ht_heard(first->west, events) : (uint32_t)HT_OUTSIDE;
    const ht_quad_code *second = ht_quad_code_at(ht_first_codes, context, 0, window & 127);
    window >>= second->next & HT_LENGTH;
    context = second->west;
    int kind = HT_PAIRS_INITIAL;
    if (first->u && second->u) {
      if (*events & 1) kind = HT_PAIRS_ABOVE_2;
      *events >>= 1;
    }
    uint32_t pair = ht_u_pair_at(ht_u_pairs[kind], first->u / 2, second->u, window & 127);
    row->samples[q] = first->samples;
    row->samples[q + 1] = second->samples;
    row->pairs[q / 2] = pair;
    row->windows[q / 2] = (uint32_t)window;
    vlc->window = window >> (pair & HT_LENGTH);
    vlc->count -= (first->next & HT_LENGTH) + (second->next & HT_LENGTH) + (pair & HT_LENGTH);
    below = ht_lower(below, first->samples, second->samples);
  }
  return below >> (columns & 1) * 2;
}

/* What a row gives to the contexts of the next one, two bits for each quad, the last one lowest, of which `below` has
 * the lower samples: from the samples above and above to the left, from those above and above to the right. */
HT_INLINE uint64_t ht_contexts(uint64_t below) {
  const uint64_t even = UINT64_C(0x5555555555555555);
  return ((below | below << 1) & even) | ((below | below >> 1) & ~even);
}

/* Whether none of so many contexts is 0. */
HT_INLINE int ht_all_heard(uint64_t contexts, uint32_t columns) {
  const uint64_t even = UINT64_C(0x5555555555555555);
  return (~(contexts | contexts >> 1) & even >> (64 - 2 * columns)) == 0;
}

/* Between two pairs of a following row. */
typedef struct {
  ht_vlc vlc;
  uint64_t before;   /* bits that begin with those of the last entry, */
  uint32_t next;     /* whose length is here */
  uint32_t west;     /* of the last quad */
  uint64_t contexts; /* of the next pair highest */
  uint64_t below, events;
} ht_following;

HT_INLINE void ht_following_pair(ht_following *of, ht_quad_row *row, size_t p, int heard, int outside, int bextr) {
  uint64_t *events = heard ? NULL : &of->events;
  uint64_t contexts = of->contexts = of->contexts << 4 | of->contexts >> 60;
  uint64_t index = ht_index(of->before, of->next, bextr);
  const ht_quad_code *first = ht_code_of((contexts & 12) * (HT_CONTEXT / 4), of->west, index, events);
  uint32_t next = first->next, u = first->u / 2;
  ht_vlc_fill(&of->vlc);
  index = ht_index(of->vlc.window, next, bextr);
  const ht_quad_code *second = outside ? ht_quad_code_at(ht_following_codes, HT_OUTSIDE, 0, index)
                                       : ht_code_of((contexts & 3) * HT_CONTEXT, first->west, index, events);
  uint64_t window = of->vlc.window >> (next & HT_LENGTH);
  uint32_t taken = next;
  next = second->next;
  taken += next;
  index = ht_index(window, next, bextr);
  window >>= next & HT_LENGTH;
  next = ht_u_pair_at(ht_u_pairs[HT_PAIRS_FOLLOWING], u, second->u, index);
  uint32_t first_samples = first->samples, second_samples = second->samples;
  of->west = second->west;
  row->samples[2 * p] = (uint16_t)first_samples;
  row->samples[2 * p + 1] = (uint16_t)second_samples;
  row->pairs[p] = next;
  row->windows[p] = (uint32_t)window;
  of->below = ht_lower(of->below, first_samples, second_samples);
  of->before = window;
  of->next = next;
  of->vlc.window = window >> (next & HT_LENGTH);
  of->vlc.count -= (taken + next) & HT_LENGTH; /* at most 30 in all */
}

HT_INLINE void ht_following_start(ht_following *of, uint64_t contexts, uint32_t columns, const ht_vlc *vlc,
                                  uint64_t events) {
  *of = (ht_following){*vlc, vlc->window, HT_NEXT, 0, contexts << (64 - 2 * columns), 0, events};
}

/* A following row; `contexts` as above. There are events for all quads; none are taken if `heard`: no context is 0.
 * The lower samples, two bits for each quad, the last one lowest. */
HT_INLINE uint64_t ht_following_quads(ht_quad_row *row, uint64_t contexts, uint32_t columns, ht_vlc *vlc,
                                      uint64_t *events, int heard, int bextr) {
  uint32_t pairs = columns / 2, odd = columns & 1;
  ht_following of;
  ht_following_start(&of, contexts, columns, vlc, *events);
  for (size_t p = 0; p < pairs; p++) ht_following_pair(&of, row, p, heard, 0, bextr);
  if (odd) ht_following_pair(&of, row, pairs, heard, 1, bextr);
  *vlc = of.vlc;
  *events = of.events;
  return of.below >> (2 * odd);
}

/* The same of two code-blocks at once: two chains of look-ups take hardly longer than one. */
HT_INLINE void ht_following_quads_of_two(ht_quad_row *row[2], const uint64_t contexts[2], uint32_t columns,
                                         ht_vlc *vlc[2], uint64_t *events[2], uint64_t *below[2], int heard,
                                         int bextr) {
  uint32_t pairs = columns / 2, odd = columns & 1;
  ht_following a, b;
  ht_following_start(&a, contexts[0], columns, vlc[0], *events[0]);
  ht_following_start(&b, contexts[1], columns, vlc[1], *events[1]);
  for (size_t p = 0; p < pairs; p++) {
    ht_following_pair(&a, row[0], p, heard, 0, bextr);
    ht_following_pair(&b, row[1], p, heard, 0, bextr);
  }
  if (odd) {
    ht_following_pair(&a, row[0], pairs, heard, 1, bextr);
    ht_following_pair(&b, row[1], pairs, heard, 1, bextr);
  }
  *vlc[0] = a.vlc;
  *vlc[1] = b.vlc;
  *events[0] = a.events;
  *events[1] = b.events;
  *below[0] = a.below >> (2 * odd);
  *below[1] = b.below >> (2 * odd);
}

#endif
