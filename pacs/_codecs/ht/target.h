/* Which processor the HT block coder is compiled for and runs on.
 *
 * A function of a tier carries the tier's attribute, the rest of the file is compiled for any processor. On others than
 * x86-64 the attributes do not exist (HT_X86 is 0) and the tier always is 0; with HT_ANY_PROCESSOR there, too, so that
 * what others compile can be tested.
 */
#ifndef HT_TARGET_H
#define HT_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HT_BLOCK 64 /* samples in a row or column of a code-block, at most */

enum { HT_PORTABLE, HT_TIER_AVX2, HT_TIER_AVX512 };

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(HT_ANY_PROCESSOR)
#define HT_X86 1
#include <immintrin.h>
#define HT_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt,movbe")))
#define HT_AVX512                                                                                                      \
    __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt,movbe,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vbmi,"     \
                        "avx512vbmi2,avx512vnni")))
#else
#define HT_X86 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define HT_INLINE static inline __attribute__((always_inline))
#define HT_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#else
#define HT_INLINE static inline
#define HT_UNLIKELY(condition) (condition)
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

/* The best tier this processor has. Every processor with AVX2 and BMI2 has LZCNT, POPCNT and MOVBE. */
static inline int ht_best_tier(void)
{
#if HT_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2"))
        return HT_PORTABLE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
            __builtin_cpu_supports("avx512vnni"))
        return HT_TIER_AVX512;
    return HT_TIER_AVX2;
#else
    return HT_PORTABLE;
#endif
}

/* How many bits a number has: 0 of 0, 1 of 1, 2 of 2 and 3. */
HT_INLINE uint32_t ht_bit_length(uint32_t number)
{
#if defined(__GNUC__) || defined(__clang__)
    return number ? 32u - (uint32_t)__builtin_clz(number) : 0;
#elif defined(_MSC_VER)
    unsigned long highest;
    return _BitScanReverse(&highest, number) ? (uint32_t)highest + 1 : 0;
#else
    uint32_t bits = 0;
    for (; number; number >>= 1) bits++;
    return bits;
#endif
}

/* The same of at most 31 bits, without a branch. */
HT_INLINE uint32_t ht_bit_length_31(uint32_t number)
{
    return ht_bit_length(number << 1 | 1) - 1;
}

/* Where the lowest one of a number is, which is not 0. */
HT_INLINE uint32_t ht_trailing_zeros(uint64_t number)
{
#if defined(__GNUC__) || defined(__clang__)
    return (uint32_t)__builtin_ctzll(number);
#else
    uint32_t zeros = 0;
    for (; !(number & 1); number >>= 1) zeros++;
    return zeros;
#endif
}

HT_INLINE uint32_t ht_count_ones(uint64_t number)
{
#if defined(__GNUC__) || defined(__clang__)
    return (uint32_t)__builtin_popcountll(number);
#else
    uint32_t ones = 0;
    for (; number; number &= number - 1) ones++;
    return ones;
#endif
}

/* Eight bytes at any address, the first one lowest. */
HT_INLINE uint64_t ht_load_64(const uint8_t *from)
{
    uint64_t word;
    memcpy(&word, from, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

HT_INLINE void ht_store_64(uint8_t *to, uint64_t word)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(to, &word, 8);
}

/* The same, the first byte highest. */
HT_INLINE void ht_store_64_reversed(uint8_t *to, uint64_t word)
{
#if defined(__GNUC__) || defined(__clang__)
    ht_store_64(to, __builtin_bswap64(word));
#else
    for (int i = 0; i < 8; i++) to[7 - i] = (uint8_t)(word >> (8 * i));
#endif
}

#endif
