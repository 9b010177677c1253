/* The reversible 5/3 wavelet and what lies between it and a frame's samples, in 16 and 32 bits, for each tier. */

#ifndef PACS_HT_WAVELET_H
#define PACS_HT_WAVELET_H

#include <stddef.h>
#include <stdint.h>

#include "target.h"

enum { HT_U8, HT_I8, HT_U16, HT_I16, HT_I32 };

/* Samples of a frame, whose bytes may begin at an odd address: it is a part of what was received. */
#if defined(__GNUC__) || defined(__clang__)
#define HT_ANYWHERE __attribute__((aligned(1)))
#else
#define HT_ANYWHERE
#endif
typedef uint16_t ht_frame_u16 HT_ANYWHERE;
typedef int16_t ht_frame_i16 HT_ANYWHERE;
typedef uint32_t ht_frame_u32 HT_ANYWHERE;

/* Where the sub-bands of one decomposition lie; strides in samples. */
typedef struct {
    int16_t *ll, *hl, *lh, *hh;
    size_t ll_stride, stride;
} ht_bands_16;

typedef struct {
    int32_t *ll, *hl, *lh, *hh;
    size_t ll_stride, stride;
} ht_bands_32;

#define HT_SAMPLE int16_t
#define HT_UNSIGNED uint16_t
#define HT_NAME(name) ht_body_##name##_16
#define HT_BANDS ht_bands_16
#include "wavelet_level.h"
#include "samples.h"
#undef HT_SAMPLE
#undef HT_UNSIGNED
#undef HT_NAME
#undef HT_BANDS

#define HT_SAMPLE int32_t
#define HT_UNSIGNED uint32_t
#define HT_NAME(name) ht_body_##name##_32
#define HT_BANDS ht_bands_32
#include "wavelet_level.h"
#include "samples.h"
#undef HT_SAMPLE
#undef HT_UNSIGNED
#undef HT_NAME
#undef HT_BANDS

/* The least and greatest of `count` samples. */
HT_INLINE void ht_body_range(const void *frame, int kind, size_t count, int32_t *least, int32_t *greatest)
{
    int32_t low = INT32_MAX, high = INT32_MIN;
    size_t i;
#define HT_RANGE(type)                                                                         \
    do {                                                                                       \
        const type *from = (const type *)frame;                                                \
        type least_of = from[0], greatest_of = from[0];                                        \
        for (i = 1; i < count; i++) {                                                          \
            least_of = from[i] < least_of ? from[i] : least_of;                                \
            greatest_of = from[i] > greatest_of ? from[i] : greatest_of;                       \
        }                                                                                      \
        low = least_of, high = greatest_of;                                                    \
    } while (0)
    switch (kind) {
    case HT_U8: HT_RANGE(uint8_t); break;
    case HT_I8: HT_RANGE(int8_t); break;
    case HT_U16: HT_RANGE(ht_frame_u16); break;
    default: HT_RANGE(ht_frame_i16); break;
    }
#undef HT_RANGE
    *least = low;
    *greatest = high;
}

/* A function for each tier around an inlined body, and ht_NAME(tier, ...), which chooses among them. */
#define HT_UNPACK(...) __VA_ARGS__
#if HT_X86
#define HT_TIERS(name, parameters, arguments)                                                  \
    HT_AVX512 static void ht_avx512_##name parameters { ht_body_##name arguments; }            \
    HT_AVX2 static void ht_avx2_##name parameters { ht_body_##name arguments; }                \
    static void ht_portable_##name parameters { ht_body_##name arguments; }                    \
    static inline void ht_##name(int tier, HT_UNPACK parameters)                               \
    {                                                                                          \
        if (tier >= HT_TIER_AVX512)                                                            \
            ht_avx512_##name arguments;                                                        \
        else if (tier == HT_TIER_AVX2)                                                         \
            ht_avx2_##name arguments;                                                          \
        else                                                                                   \
            ht_portable_##name arguments;                                                      \
    }
#else
#define HT_TIERS(name, parameters, arguments)                                                  \
    static inline void ht_##name(int tier, HT_UNPACK parameters) { (void)tier; ht_body_##name arguments; }
#endif

#define HT_WAVELET(sample, bits)                                                               \
    HT_TIERS(analyse_##bits,                                                                   \
             (const sample *image, size_t image_stride, size_t width, size_t height, size_t first, size_t last,    \
              ht_bands_##bits to, sample *spare),                                              \
             (image, image_stride, width, height, first, last, to, spare))                     \
    HT_TIERS(synthesise_##bits,                                                                \
             (sample *image, size_t image_stride, size_t width, size_t height, size_t first, size_t last,          \
              ht_bands_##bits from, sample *spare),                                            \
             (image, image_stride, width, height, first, last, from, spare))                   \
    HT_TIERS(load_row_##bits,                                                                  \
             (const void *frame, int kind, size_t columns, size_t component, size_t step, int32_t shift, sample *plane), \
             (frame, kind, columns, component, step, shift, plane))                            \
    HT_TIERS(store_row_##bits,                                                                 \
             (void *frame, int kind, size_t columns, size_t component, size_t step, int32_t shift, const sample *plane), \
             (frame, kind, columns, component, step, shift, plane))                            \
    HT_TIERS(rct_row_##bits, (sample *r, sample *g, sample *b, size_t columns), (r, g, b, columns)) \
    HT_TIERS(inverse_rct_row_##bits, (sample *y, sample *u, sample *v, size_t columns), (y, u, v, columns))

HT_WAVELET(int16_t, 16)
HT_WAVELET(int32_t, 32)
HT_TIERS(range, (const void *frame, int kind, size_t count, int32_t *least, int32_t *greatest),
         (frame, kind, count, least, greatest))

#undef HT_WAVELET
#undef HT_TIERS
#undef HT_UNPACK

#endif
