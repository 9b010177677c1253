/* Look-up tables of the HT block decoder, made of those of tables.h. */
#ifndef HT_DECODE_TABLES_H
#define HT_DECODE_TABLES_H

#include "tables.h"

/* A code of Annex C by the next seven bits. Lengths lie lowest, so that a shift by an entry is one by its length: x86
 * shifts look at six bits, and other code masks them. */
enum {
  HT_LENGTH = 63,          /* bits 0 to 5 of any entry here: how many bits it takes */
  HT_U_FIRST = 1 << 8,     /* u_off of the first quad of a pair: an offset in ht_u_pairs, in bytes */
  HT_U_SECOND = 1 << 9,    /* the same of the second */
  HT_WEST = 1 << 10,       /* in following rows: bit 1 of the next quad's context, as an offset in ht_quad_codes */
  HT_WEST_INITIAL = 11,    /* in the first row: the next quad's context in bits 11 to 13 */
  HT_RHO = 16,             /* bits 16 to 19: which samples are significant */
  HT_KNOWN = 20,           /* bits 20 to 23: e_k */
  HT_ONES = 24,            /* bits 24 to 27: e_1 */
  HT_SEVERAL = 1 << 28     /* more than one sample is significant (gamma of 7.3.7) */
};

/* By row and context << 7 | bits; offsets are in bytes, so that bit 0 of the context is HT_CONTEXT. The context 8 (and
 * 10, with HT_WEST) is that of a quad outside the code-block: no code. */
enum { HT_CONTEXT = 1 << 9, HT_OUTSIDE = 8 * HT_CONTEXT, HT_CODES = 11 << 7 };
static uint32_t ht_quad_codes[2][HT_CODES];

/* u of two quads: by row, u_off of both (HT_U_FIRST, HT_U_SECOND) and the next six bits; [2] and [3] are for two quads with u_off of the
 * first row, [2] if both are above 2 by a MEL event, of which only the last 64 entries are used. T.814 Table 3, 7.3.6
 * The length of all in bits 0 to 5, of the two prefixes in 8 to 10, of the suffixes in 11 to 13 and 14 to 16, u_pfx in
 * 17 to 20 and 21 to 24. */
enum { HT_PREFIXES = 8, HT_SUFFIX = 11, HT_SUFFIX_2 = 14, HT_U = 17, HT_U_2 = 21 };
enum { HT_PAIRS_INITIAL, HT_PAIRS_FOLLOWING, HT_PAIRS_ABOVE_2 };
static uint32_t ht_u_pairs[3][256];

/* MEL: by state << 6 | the next six bits: how many bits a run takes in bits 0 to 5, how many events it makes in 8 to 15,
 * whether the last one is a 1 in bit 16, the next state in 24 to 27. T.814 7.3.3 */
enum { HT_EVENTS = 8, HT_LAST_ONE = 16, HT_STATE = 24 };
static uint32_t ht_runs[13 << 6];

static inline void ht_fill_quad_codes(void) {
  memset(ht_quad_codes, 0, sizeof ht_quad_codes);
  for (int row = 0; row < 2; row++)
    for (uint32_t index = 0; index < 1024; index++) {
      uint32_t code = ht_decoder_codes[row][index], rho = code & 15;
      uint32_t entry = code >> 13 | (code >> 12 & 1 ? HT_U_FIRST | HT_U_SECOND : 0) | (code & 0xfff) << HT_RHO;
      if (rho & (rho - 1)) entry |= HT_SEVERAL;
      if (row == 0) entry |= (rho >> 1 | (rho & 1)) << HT_WEST_INITIAL;
      else if (rho & 12) entry |= HT_WEST;
      ht_quad_codes[row][index] = entry;
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
  uint32_t bits = index & 63, told = index >> 6;
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
  return (prefixes + first.suffix + second.suffix) | prefixes << HT_PREFIXES | first.suffix << HT_SUFFIX |
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
    for (uint32_t index = 0; index < 256; index++) ht_u_pairs[kind][index] = ht_u_pair(kind, index);
  for (uint32_t state = 0; state < 13; state++)
    for (uint32_t bits = 0; bits < 64; bits++) ht_runs[state << 6 | bits] = ht_run(state, bits);
}

#endif
