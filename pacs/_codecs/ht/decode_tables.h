/* Look-up tables of the HT block decoder, made of those of tables.h. */
#ifndef HT_DECODE_TABLES_H
#define HT_DECODE_TABLES_H

#include "tables.h"

/* A code of Annex C. In `next` are its length and above it 7, as BEXTR takes them to get the index of the next code. */
typedef struct {
  uint16_t next;
  uint16_t west;    /* what it gives to the context of the next quad, in bytes of its table */
  uint16_t u;       /* u_off, in bytes of ht_u_pairs if it is the second quad of a pair */
  uint16_t samples; /* rho in bits 0 to 3, e_k in 4 to 7, e_1 in 8 to 11, HT_SEVERAL, its lower samples in 15 and 14 */
} ht_quad_code;
enum {
  HT_KNOWN = 4,
  HT_ONES = 8,
  HT_LOWER = 14,
  HT_SEVERAL = 1 << 12, /* more than one sample is significant (gamma of 7.3.7) */
  HT_NEXT = 7 << 8,
  HT_LENGTH = 63 /* of `next` */
};

/* By context and the next seven bits, for the first row and the following ones. In the latter the context lies
 * otherwise than in T.814: of the samples above its bits 0 and 2 in bits 1 and 0, of those to the west bit 1 in bit 2.
 * The context 8 (and 12, with the quad to the west) is that of a quad that is outside the code-block or has no code. */
enum { HT_CONTEXT = 128 * sizeof(ht_quad_code), HT_OUTSIDE = 8 * HT_CONTEXT };
static ht_quad_code ht_first_codes[13 << 7], ht_following_codes[13 << 7];

/* u of two quads: by u_off of both and the next seven bits; [2] is for two quads of the first row that both are above 2
 * by a MEL event, of which only the last 128 entries are used. T.814 Table 3, 7.3.6
 * As `next` above in bits 0 to 15, the length of the two prefixes in 16 to 18, of the suffixes in 19 to 21 and 22 to
 * 24, u_pfx in 25 to 27 and 28 to 30. */
enum { HT_PREFIXES = 16, HT_SUFFIX = 19, HT_SUFFIX_2 = 22, HT_U = 25, HT_U_2 = 28 };
enum { HT_U_OFF = 2 * 128 * sizeof(uint32_t) };
enum { HT_PAIRS_INITIAL, HT_PAIRS_FOLLOWING, HT_PAIRS_ABOVE_2 };
static uint32_t ht_u_pairs[3][4 << 7];

/* MEL: by state << 6 | the next six bits: how many bits a run takes in bits 0 to 5, how many events it makes in 8 to
 * 15, whether the last one is a 1 in bit 16, the next state in 24 to 27. T.814 7.3.3 */
enum { HT_EVENTS = 8, HT_LAST_ONE = 16, HT_STATE = 24 };
static uint32_t ht_runs[13 << 6];

static inline void ht_fill_quad_codes(void) {
  for (int row = 0; row < 2; row++)
    for (uint32_t index = 0; index < 13 << 7; index++) {
      uint32_t context = index >> 7, bits = index & 127;
      if (row) context = (context & 8) | (context & 1) << 2 | (context & 6) >> 1;
      uint32_t code = context < 8 ? ht_decoder_codes[row][context << 7 | bits] : 0, rho = code & 15;
      uint32_t west = row ? (rho & 12 ? 4 : 0) : rho >> 1 | (rho & 1);
      ht_quad_code *entry = row ? &ht_following_codes[index] : &ht_first_codes[index];
      entry->next = (uint16_t)(code >> 13 | HT_NEXT);
      entry->west = (uint16_t)(west * HT_CONTEXT);
      entry->u = (uint16_t)((code >> 12 & 1) * HT_U_OFF);
      uint32_t lower = (rho & 2) | (rho >> 3 & 1);
      entry->samples = (uint16_t)((code & 0xfff) | (rho & (rho - 1) ? HT_SEVERAL : 0) | lower << HT_LOWER);
    }
}

typedef struct {
  uint32_t length, suffix, u;
} ht_prefix;

static inline ht_prefix ht_u_code(uint32_t bits) {
  static const ht_prefix one = {1, 0, 1}, two = {2, 0, 2}, three = {3, 1, 3}, five = {3, 5, 5};
  return bits & 1 ? one : bits & 2 ? two : bits & 4 ? three : five;
}

static inline uint32_t ht_u_pair(int kind, uint32_t index) {
  ht_prefix first = {0, 0, 0}, second = {0, 0, 0};
  uint32_t bits = index & 127, told = index >> 7;
  if (told & 1) first = ht_u_code(bits);
  if (told & 2) second = ht_u_code(bits >> first.length);
  if (kind == HT_PAIRS_INITIAL && told == 3 && first.length == 3) {
    second.length = 1;
    second.suffix = 0;
    second.u = 1 + (bits >> 3 & 1);
  }
  if (kind == HT_PAIRS_ABOVE_2) {
    first.u += 2;
    second.u += 2;
  }
  uint32_t prefixes = first.length + second.length;
  return (prefixes + first.suffix + second.suffix) | HT_NEXT | prefixes << HT_PREFIXES | first.suffix << HT_SUFFIX |
         second.suffix << HT_SUFFIX_2 | first.u << HT_U | second.u << HT_U_2;
}

static inline uint32_t ht_run(uint32_t state, uint32_t bits) {
  uint32_t exponent = ht_run_exponents[state];
  if (bits & 32) return 1 | 1u << exponent << HT_EVENTS | (state < 12 ? state + 1 : 12) << HT_STATE;
  uint32_t zeros = (bits & 31) >> (5 - exponent);
  return (1 + exponent) | (zeros + 1) << HT_EVENTS | 1u << HT_LAST_ONE | (state > 0 ? state - 1 : 0) << HT_STATE;
}

/* To be called once, behind ht_fill_tables and before anything is decoded. */
static inline void ht_fill_decode_tables(void) {
  ht_fill_quad_codes();
  for (int kind = 0; kind < 3; kind++)
    for (uint32_t index = 0; index < 4 << 7; index++) ht_u_pairs[kind][index] = ht_u_pair(kind, index);
  for (uint32_t state = 0; state < 13; state++)
    for (uint32_t bits = 0; bits < 64; bits++) ht_runs[state << 6 | bits] = ht_run(state, bits);
}

#endif
