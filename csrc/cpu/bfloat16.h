// Rounding to bfloat16, the upper 16 bits of a float32, and products of pairs of such numbers.
#pragma once

#include <type_traits>

#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

typedef uint32_t Words __attribute__((vector_size(TILEFUSE_VECTOR_BYTES)));

// bfloat16 numbers in the upper halves of words: the nearest ones to x, ties to even. NaN stays NaN.
inline Words rounded(Vec<float> x) {
    const Words bits = (Words)x, up = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    return x == x ? up : (bits | 0x00400000u) & 0xffff0000u;
}

// One number of 16 bits.
inline float widened(uint16_t bits) {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float x;
    std::memcpy(&x, &word, sizeof x);
    return x;
}
inline uint16_t narrowed(float x) {
    uint32_t word;
    std::memcpy(&word, &x, sizeof word);
    return static_cast<uint16_t>((x == x ? word + 0x7fff + (word >> 16 & 1) : word | 0x00400000u) >> 16);
}

// The upper halves of words, by themselves.
typedef uint16_t HalfWords __attribute__((vector_size(TILEFUSE_VECTOR_BYTES / 2)));

inline HalfWords halves_of(Vec<float> x) {
#if defined(__AVX512BF16__)
    return (HalfWords)_mm512_cvtneps_pbh((__m512)x);
#else
    return __builtin_convertvector(rounded(x) >> 16, HalfWords);
#endif
}

inline Words words_of(HalfWords halves) {
#if defined(__AVX512F__) && TILEFUSE_VECTOR_BYTES == 64
    return (Words)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)halves);  // GCC 12 makes four instructions of the other
#else
    return __builtin_convertvector(halves, Words);
#endif
}

// The first n, 0 < n <= lanes, as load and store.
inline HalfWords load_halves(const uint16_t* p, int n) {
    HalfWords halves{};
    if (n == lanes<float>) {
        std::memcpy(&halves, p, sizeof halves);
    } else {
#if defined(__AVX512BW__) && defined(__AVX512VL__) && TILEFUSE_VECTOR_BYTES == 64
        halves = (HalfWords)_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), p);
#else
        for (int i = 0; i < n; ++i) halves[i] = p[i];
#endif
    }
    return halves;
}
inline void store_halves(uint16_t* p, HalfWords halves, int n) {
    if (n == lanes<float>) {
        std::memcpy(p, &halves, sizeof halves);
    } else {
#if defined(__AVX512BW__) && defined(__AVX512VL__) && TILEFUSE_VECTOR_BYTES == 64
        _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1), (__m256i)halves);
#else
        std::memcpy(p, &halves, sizeof(uint16_t) * static_cast<size_t>(n));
#endif
    }
}

// to[n] = x, rounded
inline void narrow_numbers(int64_t n, const float* x, uint16_t* to) {
    for_vectors<float>(n, [&](int64_t i, int count) { store_halves(to + i, halves_of(load_upto(x + i, count)), count); });
}

inline void round_to_bfloat16(int64_t n, float* x) {
    for_vectors<float>(n,
                       [&](int64_t i, int count) { store_upto(x + i, (Vec<float>)rounded(load_upto(x + i, count)), count); });
}
inline void round_to_bfloat16(int64_t, double*) {}  // float64 has but one precision

// Two numbers, the first in the lower half: what an instruction multiplies at a time, and adds up in float32.
using Pair = uint32_t;

// An element of a product is a number or a pair of them; what it is added up in.
template <class E> constexpr bool is_pair = std::is_same_v<E, Pair>;
template <class E> using Sum = std::conditional_t<is_pair<E>, float, E>;

// (Emulated beside emulated tile registers, and where vectors are wider than the instruction set's, that they can be tested.)
#if defined(__AVX512BF16__) || defined(TILEFUSE_TILES) || (TILEFUSE_VECTOR_BYTES == 64 && !defined(__AVX512F__))
#define TILEFUSE_MULTIPLIES_PAIRS 1
#else
#define TILEFUSE_MULTIPLIES_PAIRS 0
#endif
constexpr bool multiplies_pairs = TILEFUSE_MULTIPLIES_PAIRS;

inline Vec<float> firsts(Words pairs) { return (Vec<float>)(pairs << 16); }
inline Vec<float> seconds(Words pairs) { return (Vec<float>)(pairs & 0xffff0000u); }

template <class E> inline Vec<Sum<E>> add_products(Vec<E> x, Vec<E> y, Vec<Sum<E>> sum) {
    if constexpr (!is_pair<E>) {
        return sum + x * y;
    } else {
#if defined(__AVX512BF16__)
        return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
#else
        return sum + seconds(x) * seconds(y) + firsts(x) * firsts(y);
#endif
    }
}

inline Words paired(HalfWords firsts, HalfWords seconds) {
    return words_of(firsts) | words_of(seconds) << 16;
}

// to[i] = (x[i], y[i])
inline void pair(int64_t count, const float* x, const float* y, Pair* to) {
    for_vectors<float>(count, [&](int64_t i, int n) {
        store_upto(to + i, paired(halves_of(load_upto(x + i, n)), halves_of(load_upto(y + i, n))), n);
    });
}

// to[i] = (x[2 i], x[2 i + 1])
inline void pair_neighbours(int64_t count, const float* x, Pair* to) {
    narrow_numbers(2 * count, x, reinterpret_cast<uint16_t*>(to));
}

}  // namespace tilefuse::inline TILEFUSE_ISA
