/* The quads of a code-block to codes and magnitudes, one after the other, for any processor and any magnitude. */
#ifndef HT_ENCODE_PORTABLE_H
#define HT_ENCODE_PORTABLE_H

#include "encode_pack.h"

/* For each column of quads and one more: the largest exponent of the two samples of the row above that lie beside its
 * left border, 0 if they are not significant. T.814 7.3.5, 7.3.7: what contexts and kappa are made of */
typedef uint8_t ht_borders[HT_BLOCK / 2 + 2];

typedef struct {
    uint32_t rho;
    uint32_t code; /* of ht_encoder_codes */
    uint32_t u;
    uint32_t context;
} ht_quad;

/* Of a quad, its samples in order of T.814 Figure 2: upper left, lower left, upper right, lower right. `left`: rho of
 * the quad before. Without branches, but for quads in which nothing is significant. */
HT_INLINE ht_quad ht_encode_quad(const int32_t sample[4], int first_row, uint32_t left, const uint8_t *above,
                                 uint8_t *below, ht_bit_stream *magnitudes)
{
    ht_quad quad = {0, 0, 0, 0};
    uint32_t word[4], exponent[4], most = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t sign = (uint32_t)sample[i] >> 31, magnitude = ((uint32_t)sample[i] ^ (0u - sign)) + sign;
        /* 2 (magnitude - 1) + sign, what MagSgn holds, T.814 7.3.8; of 0 it is not used. */
        word[i] = magnitude * 2 - 2 + sign;
        exponent[i] = ht_bit_length_31(magnitude * 2 - (magnitude != 0));
        most = exponent[i] > most ? exponent[i] : most;
        quad.rho |= (uint32_t)(magnitude != 0) << i;
    }
    uint32_t kappa = 1;
    if (first_row) {
        quad.context = left >> 1 | (left & 1);
    } else {
        uint32_t highest = above[0] > above[1] ? above[0] : above[1], several = (quad.rho & (quad.rho - 1)) != 0;
        quad.context = (uint32_t)(above[0] > 0) | (uint32_t)((left & 12) > 0) << 1 | (uint32_t)(above[1] > 0) << 2;
        highest = highest & (0 - several);
        kappa = highest > 2 ? highest - 1 : 1;
    }
    below[0] = (uint8_t)(exponent[1] > below[0] ? exponent[1] : below[0]);
    below[1] = (uint8_t)exponent[3];
    uint32_t u_q = most > kappa ? most : kappa, epsilon = 0;
    quad.u = u_q - kappa;
    for (int i = 0; i < 4; i++) epsilon |= (uint32_t)(exponent[i] == most) << i;
    epsilon &= 0 - (uint32_t)(quad.u > 0);
    quad.code = ht_encoder_codes[!first_row][quad.context << 8 | quad.rho << 4 | epsilon];
    if (quad.rho == 0) return quad;

    uint64_t half[2] = {0, 0};
    uint32_t length[2] = {0, 0};
    for (int i = 0; i < 4; i++) {
        uint32_t bits = (u_q - (quad.code >> i & 1)) & (0 - (quad.rho >> i & 1));
        half[i >> 1] |= (word[i] & ((1ull << bits) - 1)) << length[i >> 1];
        length[i >> 1] += bits;
    }
    if (HT_UNLIKELY(length[0] + length[1] > HT_APPENDED_MOST)) {
        ht_append_64(magnitudes, half[0], length[0]);
        ht_append_64(magnitudes, half[1], length[1]);
    } else {
        ht_append(magnitudes, half[0] | half[1] << length[0], length[0] + length[1]);
    }
    return quad;
}

/* The codes of two quads, then their prefixes of u, then the suffixes. T.814 7.3.6
 * In the first row of quads, if both have a u, a MEL event tells whether both are above 2 (then they are less by 2);
 * if not and the first one is, the second one is a single bit. */
HT_INLINE void ht_append_pair(ht_bit_stream *codes, ht_quad first, ht_quad second, int first_row)
{
    uint32_t u = ht_u_codes[first.u], v = ht_u_codes[second.u];
    if (first_row && first.u > 2 && second.u > 0) {
        int both = second.u > 2;
        u = ht_u_codes[first.u - (both ? 2 : 0)];
        v = both ? ht_u_codes[second.u - 2] : (second.u - 1) | 1 << 8;
    }
    uint32_t length = first.code >> 4 & 7, word = first.code >> 8 & 0x7f;
    word |= (second.code >> 8 & 0x7f) << length;
    length += second.code >> 4 & 7;
    word |= (u & 0xff) << length;
    length += u >> 8 & 0xff;
    word |= (v & 0xff) << length;
    length += v >> 8 & 0xff;
    word |= (u >> 16 & 0xff) << length;
    length += u >> 24;
    word |= (v >> 16 & 0xff) << length;
    length += v >> 24;
    ht_append(codes, word, length);
}

/* Rows 2 n and 2 n + 1 of a code-block, `columns` of quads, in `rows` with zeros beyond an odd width and height. */
HT_INLINE void ht_encode_quad_row(const int32_t *rows, uint32_t columns, int first_row, const uint8_t *above,
                                  uint8_t *below, ht_streams *streams)
{
    ht_row_events events = {0, 0, 0, 0};
    uint32_t left = 0;
    below[0] = 0;
    for (uint32_t q = 0; q < columns; q += 2) {
        ht_quad pair[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
        for (uint32_t i = q; i < q + 2 && i < columns; i++) {
            const int32_t *at = rows + 2 * i;
            const int32_t sample[4] = {at[0], at[HT_BLOCK], at[1], at[HT_BLOCK + 1]};
            ht_quad quad = ht_encode_quad(sample, first_row, left, above + i, below + i, &streams->magnitudes);
            left = quad.rho;
            events.silent |= (uint64_t)(quad.context == 0) << i;
            events.significant |= (uint64_t)(quad.rho > 0) << i;
            events.coded |= (uint64_t)(quad.u > 0) << i;
            events.above_2 |= (uint64_t)(quad.u > 2) << i;
            pair[i - q] = quad;
        }
        ht_append_pair(&streams->codes, pair[0], pair[1], first_row);
    }
    ht_append_row_events(&streams->events, &events, first_row);
}

HT_INLINE void ht_encode_rows(const int32_t *rows, uint32_t width, uint32_t height, ht_streams *streams)
{
    ht_borders borders[2] = {{0}, {0}};
    for (uint32_t y = 0; y < height; y += 2) {
        const uint8_t *above = borders[y >> 1 & 1];
        uint8_t *below = borders[~y >> 1 & 1];
        if (y == 0) ht_encode_quad_row(rows, (width + 1) / 2, 1, above, below, streams);
        else ht_encode_quad_row(rows + y * HT_BLOCK, (width + 1) / 2, 0, above, below, streams);
    }
}

#endif
