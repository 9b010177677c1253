/* Digests of what the HT block coder and the wavelet make of invented samples: the same on every processor, with every
 * tier and compiler. `ht_digest TIER`; status 3: there is no such tier. Integers alone, one call of next() a statement:
 * the order of operands is the compiler's. */
#include "decode_block.h"
#include "encode_block.h"
#include "wavelet.h"

#include <stdio.h>
#include <stdlib.h>

enum { ENCODED, DECODED, PAIRS, DAMAGED, WAVELET, FRAMES, TABLES, DIGESTS };
static const char *const names[DIGESTS] = {"encoded", "decoded", "pairs", "damaged", "wavelet", "frames", "tables"};
static uint64_t digests[DIGESTS], state = 815;
static int tier;
static _Alignas(64) ht_encode_scratch encode_scratch;
static _Alignas(64) ht_decode_scratch decode_scratch[2];

static uint32_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state * UINT64_C(0x2545F4914F6CDD1D)) >> 32);
}

static void add(int which, uint64_t value)
{
    digests[which] = (digests[which] ^ value) * UINT64_C(0x100000001b3);
    digests[which] ^= digests[which] >> 29;
}

static void add_samples(int which, const void *samples, size_t count, int wide)
{
    for (size_t i = 0; i < count; i++)
        add(which, (uint32_t)(wide ? ((const int32_t *)samples)[i] : ((const int16_t *)samples)[i]));
}

static void expect(int as_expected, const char *what)
{
    if (as_expected) return;
    printf("%s\n", what);
    exit(1);
}

/* At an odd address, at the end of its memory. */
static uint8_t *room_at_odd(size_t bytes, void **to_free)
{
    uint8_t *room = *to_free = malloc(bytes + 1);
    expect(room != NULL, "no memory");
    memset(room, 0, bytes + 1);
    return room + 1;
}

/* Of each block another kind: noise, small values with rare large ones, few that are not 0, all alike. */
static void invent(int32_t *wide, int16_t *narrow, uint32_t count, uint32_t bits)
{
    uint32_t kind = next() & 3, same = next(), rare = 1u << (next() & 7);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t word = kind == 3 ? same : next(), usual = next() % rare;
        if (kind == 1 && usual) word &= 0x80000003;
        if (kind == 2 && usual) word = 0;
        int32_t magnitude = (int32_t)(word & ((1u << bits) - 1));
        wide[i] = word >> 31 ? -magnitude : magnitude;
        narrow[i] = (int16_t)wide[i];
    }
}

static int decode(int which, const uint8_t *data, size_t length, uint32_t width, uint32_t height, uint32_t planes,
                  int wide, void *samples)
{
    int damaged = wide ? ht_decode_block_32(data, length, samples, width, width, height, planes, decode_scratch, tier)
                       : ht_decode_block_16(data, length, samples, width, width, height, planes, decode_scratch, tier);
    add(which, damaged != 0);
    if (!damaged) add_samples(which, samples, (size_t)width * height, wide);
    return damaged;
}

static int decode_pair(int which, const uint8_t *const data[2], const size_t length[2], uint32_t width,
                       uint32_t height, uint32_t planes, int wide)
{
    static int32_t wide_samples[2][HT_BLOCK * HT_BLOCK];
    static int16_t samples[2][HT_BLOCK * HT_BLOCK];
    int32_t *const to_wide[2] = {wide_samples[0], wide_samples[1]};
    int16_t *const to[2] = {samples[0], samples[1]};
    ht_decode_scratch *two = decode_scratch;
    int damaged = wide ? ht_decode_block_pair_32(data, length, to_wide, width, width, height, planes, two, tier)
                       : ht_decode_block_pair_16(data, length, to, width, width, height, planes, two, tier);
    add(which, damaged != 0);
    for (int i = 0; i < 2 && !damaged; i++)
        add_samples(which, wide ? (void *)to_wide[i] : (void *)to[i], (size_t)width * height, wide);
    return damaged;
}

static size_t damage(uint8_t *data, size_t length)
{
    uint32_t kind = next() & 3, times = 1 + (next() & 3);
    if (kind == 0) return 1 + next() % length;
    for (uint32_t i = 0; i < times; i++) {
        size_t at = next() % length, byte = next();
        data[at] = (uint8_t)(kind == 1 ? byte : kind == 2 ? 0xff : data[at] ^ 1u << (byte & 7));
    }
    return length;
}

static void code_block(uint32_t width, uint32_t height)
{
    static int32_t wide[HT_BLOCK * HT_BLOCK], again[HT_BLOCK * HT_BLOCK];
    static int16_t narrow[HT_BLOCK * HT_BLOCK];
    static uint8_t out[HT_ENCODED_MOST], other[HT_ENCODED_MOST], bad[HT_ENCODED_MOST];
    uint32_t large = next() & 1, count = width * height, bits = 1 + next() % (large ? 30 : 15);
    invent(wide, narrow, count, bits);
    size_t length = ht_encode_block_32(wide, width, width, height, out, &encode_scratch, tier);
    add(ENCODED, length);
    for (size_t i = 0; i < length; i++) add(ENCODED, out[i]);
    if (bits <= 15) {
        size_t narrow_length = ht_encode_block_16(narrow, width, width, height, other, &encode_scratch, tier);
        expect(narrow_length == length && memcmp(out, other, length) == 0, "16 and 32 bits are not encoded alike");
    }
    if (length == 0) return;
    for (int is_wide = bits > 15; is_wide < 2; is_wide++) {
        int damaged = decode(DECODED, out, length, width, height, bits, is_wide, again);
        expect(!damaged && memcmp(again, is_wide ? (void *)wide : (void *)narrow, (is_wide ? 4 : 2) * count) == 0,
               "what was encoded is decoded to something else");
        memcpy(bad, out, length);
        const uint8_t *const pair[2] = {out, bad};
        size_t lengths[2] = {length, length};
        expect(!decode_pair(PAIRS, pair, lengths, width, height, bits, is_wide), "a pair is not decoded");
        lengths[1] = damage(bad, length);
        decode(DAMAGED, bad, lengths[1], width, height, bits, is_wide, again);
        decode_pair(DAMAGED, pair, lengths, width, height, bits, is_wide);
    }
}

/* Rows of a frame, at an odd address, to wavelet samples, down, across and back. */
#define CODE_IMAGE(bits)                                                                                               \
    static void code_image_##bits(size_t width, size_t height, int kind, size_t step)                                  \
    {                                                                                                                  \
        size_t half = (width + 1) / 2, lows = (height + 1) / 2, item = kind == HT_U8 || kind == HT_I8 ? 1 : 2;         \
        int32_t shift = kind == HT_U8 ? 128 : kind == HT_U16 ? 2048 : 0, least, greatest;                              \
        size_t band = half * lows;                                                                                     \
        int##bits##_t *image = calloc(width * (height + 2), sizeof *image), *bands = calloc(4 * band, sizeof *bands);  \
        int##bits##_t *spare = calloc(5 * width + 8, sizeof *spare);                                                   \
        void *frame_room, *out_room;                                                                                   \
        uint8_t *frame = room_at_odd(width * step * item, &frame_room);                                                \
        uint8_t *out = room_at_odd(width * step * 4, &out_room);                                                       \
        expect(image && spare && bands, "no memory");                                                                  \
        for (size_t y = 0; y < height; y++) {                                                                          \
            for (size_t i = 0; i < width * step * item; i++) frame[i] = (uint8_t)(next() >> (i & 1 ? 12 : 0) & 0xff);  \
            ht_range(tier, frame, kind, width * step, &least, &greatest);                                              \
            add(FRAMES, (uint64_t)(uint32_t)least << 32 | (uint32_t)greatest);                                         \
            ht_load_row_##bits(tier, frame, kind, width, step - 1, step, shift, image + y * width);                    \
        }                                                                                                              \
        if (height > 2) ht_rct_row_##bits(tier, image, image + width, image + 2 * width, width);                       \
        ht_bands_##bits at = {bands, bands + band, bands + 2 * band, bands + 3 * band, half, half};                    \
        ht_analyse_##bits(tier, image, width, width, height, 0, lows, at, spare);                                      \
        add_samples(WAVELET, bands, 4 * band, bits == 32);                                                             \
        ht_synthesise_##bits(tier, image, width, width, height, 0, lows, at, spare);                                   \
        add_samples(WAVELET, image, width * height, bits == 32);                                                       \
        if (height > 2) ht_inverse_rct_row_##bits(tier, image, image + width, image + 2 * width, width);               \
        for (int to = HT_U8; to <= HT_I32; to++) {                                                                     \
            ht_store_row_##bits(tier, out, to, width, step - 1, step, shift, image);                                   \
            for (size_t i = 0; i < width * step * 4; i++) add(FRAMES, out[i]);                                         \
        }                                                                                                              \
        free(image), free(spare), free(bands), free(frame_room), free(out_room);                                       \
    }
CODE_IMAGE(16)
CODE_IMAGE(32)

int main(int count, char **arguments)
{
    tier = count > 1 ? atoi(arguments[1]) : 0;
    if (tier > ht_best_tier()) return 3;
    ht_fill_tables();
    ht_fill_decode_tables();
    for (int i = 0; i < 2 * 2048; i++) add(TABLES, ht_encoder_codes[i >> 11][i & 2047]);
    for (int i = 0; i < 13 << 7; i++) {
        ht_quad_code first = ht_first_codes[i], following = ht_following_codes[i];
        add(TABLES, first.samples | (uint64_t)following.samples << 16 | (uint64_t)following.next << 32);
    }
    for (uint32_t width = 1; width <= HT_BLOCK; width++)
        for (uint32_t height = 1 + width % 3; height <= HT_BLOCK; height += 3) code_block(width, height);
    for (size_t i = 0; i < 60; i++) {
        uint32_t width = next(), height = next();
        code_image_16(1 + width % 100, 1 + height % 40, (int)i & 3, 1 + i % 3);
        code_image_32(1 + height % 100, 1 + width % 40, (int)i & 3, 1 + i % 3);
    }
    for (int i = 0; i < DIGESTS; i++) printf("%s %016llx\n", names[i], (unsigned long long)digests[i]);
    return 0;
}
