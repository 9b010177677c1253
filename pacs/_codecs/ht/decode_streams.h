/* The three segments of an HT cleanup pass, freed of stuffed bits: MagSgn, MEL and VLC. T.814 7.1, Annex C
 *
 * MagSgn and VLC are copied first, so that any place can be read without a branch. Behind their end MagSgn gives ones,
 * VLC zeros and MEL ones, as other decoders have it; data that needs them is damaged, but cannot lead astray. */
#ifndef HT_DECODE_STREAMS_H
#define HT_DECODE_STREAMS_H

#include "decode_tables.h"

#define HT_MOST_SUFFIX 4079 /* bytes of MEL and VLC together */
#define HT_ROW_VLC 60 /* bytes of a row of 16 pairs: two codes of 7 bits, two prefixes of 3, two suffixes of 5 each */

#define HT_EVERY_BYTE(byte) ((byte) * UINT64_C(0x0101010101010101))

/* Bits gathered from the lowest on. */
typedef struct {
  uint8_t *to;
  uint64_t word;
  uint32_t count; /* of bits in `word`, at most 63 */
} ht_gathered;

/* One byte, of which `held` bits count. A highest bit that does not is or-ed to the next one: it ought to be 0. */
HT_INLINE void ht_gather_byte(ht_gathered *bits, uint32_t byte, uint32_t held) {
  bits->word |= (uint64_t)byte << bits->count;
  bits->count += held;
  if (bits->count >= 64) {
    ht_store_64(bits->to, bits->word);
    bits->to += 8;
    bits->count -= 64;
    bits->word = byte >> (held - bits->count);
  }
}

HT_INLINE void ht_gather_word(ht_gathered *bits, uint64_t word) {
  ht_store_64(bits->to, bits->word | word << bits->count);
  bits->to += 8;
  bits->word = word >> 1 >> (63 - bits->count);
}

/* The MagSgn segment into `to`, at least `room` bytes of it if there are as many; few more are written. After FF a byte
 * holds 7 bits. How many bits there are; what is behind them in the last word is one. T.814 7.3.2 */
HT_INLINE size_t ht_unstuff_forward(const uint8_t *data, size_t length, uint8_t *to, size_t room) {
  ht_gathered bits = {to, 0, 0};
  uint32_t held = 8;
  size_t at = 0;
  while (length - at >= 8 && (size_t)(bits.to - to) < room) {
    uint64_t word = ht_load_64(data + at);
    if (held == 8 && !((~word - HT_EVERY_BYTE(1)) & word & HT_EVERY_BYTE(0x80))) {
      ht_gather_word(&bits, word);
    } else {
      for (int i = 0; i < 8; i++, word >>= 8) {
        ht_gather_byte(&bits, (uint32_t)(word & 255), held);
        held = (word & 255) == 255 ? 7 : 8;
      }
    }
    at += 8;
  }
  for (; at < length && (size_t)(bits.to - to) < room; at++) {
    ht_gather_byte(&bits, data[at], held);
    held = data[at] == 255 ? 7 : 8;
  }
  ht_store_64(bits.to, bits.word | ~UINT64_C(0) << bits.count);
  return (size_t)(bits.to - to) * 8 + bits.count;
}

HT_INLINE uint64_t ht_reversed(uint64_t word) {
#if defined(__GNUC__) || defined(__clang__)
  return __builtin_bswap64(word);
#else
  word = (word & UINT64_C(0x00ff00ff00ff00ff)) << 8 | (word >> 8 & UINT64_C(0x00ff00ff00ff00ff));
  word = (word & UINT64_C(0x0000ffff0000ffff)) << 16 | (word >> 16 & UINT64_C(0x0000ffff0000ffff));
  return word << 32 | word >> 32;
#endif
}

/* The VLC segment, which grows backward from the upper half of the last byte but one of `suffix` bytes of MEL and VLC,
 * into `to`. After a byte above 8F one of 7F holds 7 bits. Where the next byte is to be written. T.814 7.3.4 */
HT_INLINE uint8_t *ht_unstuff_backward(const uint8_t *data, size_t suffix, uint8_t *to) {
  uint32_t first = data[suffix - 2] >> 4u;
  ht_gathered bits = {to, first, (first & 7) == 7 ? 3 : 4};
  int above = first > 8;
  const uint8_t *from = data + suffix - 2;
  while (from - data >= 8) {
    from -= 8;
    uint64_t word = ht_reversed(ht_load_64(from));
    uint64_t low = word & HT_EVERY_BYTE(0x7f);
    uint64_t high = (low + HT_EVERY_BYTE(0x70)) & word & HT_EVERY_BYTE(0x80); /* of bytes above 8F */
    uint64_t stuffed = (low + HT_EVERY_BYTE(1)) & (high << 8 | (above ? 0x80u : 0u)) & HT_EVERY_BYTE(0x80);
    if (!stuffed) {
      ht_gather_word(&bits, word);
    } else {
      for (int i = 0; i < 8; i++, word >>= 8, stuffed >>= 8)
        ht_gather_byte(&bits, (uint32_t)(word & 255), 8 - (uint32_t)(stuffed >> 7 & 1));
    }
    above = (int)(high >> 63);
  }
  while (from > data) {
    uint32_t byte = *--from;
    ht_gather_byte(&bits, byte, above && (byte & 0x7f) == 0x7f ? 7 : 8);
    above = byte > 0x8f;
  }
  ht_store_64(bits.to, bits.word);
  return bits.to + 8;
}

/* The events of the MEL segment, in the order in which they come. T.814 7.3.3 */
typedef struct {
  const uint8_t *at, *last; /* the last byte of MEL, of which the lower half is VLC's */
  uint64_t bits;            /* the next ones, the first one highest */
  uint32_t count;           /* of them */
  uint32_t held;            /* bits of the next byte */
  uint32_t state;
} ht_mel;

HT_INLINE void ht_mel_start(ht_mel *mel, const uint8_t *data, size_t suffix) {
  mel->at = data;
  mel->last = data + suffix - 2;
  mel->bits = 0;
  mel->count = 0;
  mel->held = 8;
  mel->state = 0;
}

static inline void ht_mel_read(ht_mel *mel) {
  while (mel->count <= 56) {
    uint32_t byte = mel->at < mel->last ? *mel->at : mel->at == mel->last ? *mel->at | 15u : 255;
    mel->at += mel->at <= mel->last;
    mel->bits |= (uint64_t)byte << (64 - mel->held - mel->count);
    mel->count += mel->held;
    mel->held = byte == 255 ? 7 : 8;
  }
}

/* At least `wanted` events, at most 32, behind those that are left: the first one lowest, a one above the last one. */
static inline uint64_t ht_mel_events(ht_mel *mel, uint64_t events, uint32_t wanted) {
  while (events >> wanted == 0) {
    uint32_t left = ht_bit_length((uint32_t)events) - 1;
    if (mel->count < 6) ht_mel_read(mel);
    uint32_t run = ht_runs[mel->state << 6 | (uint32_t)(mel->bits >> 58)];
    uint32_t length = run & 63, more = run >> HT_EVENTS & 255;
    mel->bits <<= length;
    mel->count -= length;
    mel->state = run >> HT_STATE;
    events ^= UINT64_C(1) << left;
    events |= (uint64_t)(2 | (run >> HT_LAST_ONE & 1)) << (left + more - 1);
  }
  return events;
}

#endif
