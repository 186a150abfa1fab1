// Bytes in memory, and in registers as integers of T's size: masks, and places in windows. (Left to itself, GCC 12 converts
// them one by one.)
#pragma once

#include "common/math.h"
#include "cpu/simd.h"

#if defined(__SSE4_1__)
#include <smmintrin.h>
#endif

namespace tilefuse::inline TILEFUSE_ISA {

// The first n lanes; the others are 0, and their memory isn't touched.
template <class T> inline Integers<Vec<T>> load_bytes(const uint8_t* p, int n) {
#if defined(__AVX512F__) && TILEFUSE_VECTOR_BYTES == 64
    const __m128i bytes = _mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1), p);
    return (Integers<Vec<T>>)(sizeof(T) == 4 ? _mm512_maskz_cvtepu8_epi32((__mmask16)-1, bytes)
                                              : _mm512_maskz_cvtepu8_epi64((__mmask8)-1, bytes));
#else
    typedef uint8_t Bytes __attribute__((vector_size(lanes<T>)));
    Bytes bytes{};
    if (n == lanes<T>) {
        std::memcpy(&bytes, p, sizeof bytes);
    } else {
        uint64_t words[(lanes<T> + 7) / 8] = {};  // not byte by byte to memory: what follows couldn't be loaded at once
        for (int i = 0; i < lanes<T>; ++i)
            if (i < n) words[i / 8] |= static_cast<uint64_t>(p[i]) << i % 8 * 8;
        std::memcpy(&bytes, words, sizeof bytes);
    }
#if defined(__SSE4_1__) && TILEFUSE_VECTOR_BYTES < 64
    __m128i low = _mm_setzero_si128();
    std::memcpy(&low, &bytes, sizeof bytes);
#if TILEFUSE_VECTOR_BYTES == 32
    return (Integers<Vec<T>>)(sizeof(T) == 4 ? _mm256_cvtepu8_epi32(low) : _mm256_cvtepu8_epi64(low));
#else
    return (Integers<Vec<T>>)(sizeof(T) == 4 ? _mm_cvtepu8_epi32(low) : _mm_cvtepu8_epi64(low));
#endif
#else
    return __builtin_convertvector(bytes, Integers<Vec<T>>);
#endif
#endif
}

// The first n lanes of integers from 0 to 255.
template <class T> inline void store_bytes(uint8_t* p, Integers<Vec<T>> v, int n) {
#if defined(__AVX512F__) && TILEFUSE_VECTOR_BYTES == 64
    const __m128i bytes = sizeof(T) == 4 ? _mm512_maskz_cvtepi32_epi8((__mmask16)-1, (__m512i)v)
                                         : _mm512_maskz_cvtepi64_epi8((__mmask8)-1, (__m512i)v);
    _mm_mask_storeu_epi8(p, (__mmask16)((1u << n) - 1), bytes);
#else
    typedef uint8_t Bytes __attribute__((vector_size(lanes<T>)));
#if defined(__SSE4_1__) && TILEFUSE_VECTOR_BYTES < 64
#if TILEFUSE_VECTOR_BYTES == 32
    const __m128i low = _mm256_castsi256_si128((__m256i)v), high = _mm256_extracti128_si256((__m256i)v, 1);
#else
    const __m128i low = (__m128i)v, high = low;
#endif
    // of 64 bits the lower 32, then these to 16 and to 8
    const __m128i halves = (__m128i)_mm_shuffle_ps((__m128)low, (__m128)high, _MM_SHUFFLE(2, 0, 2, 0));
    const __m128i words = sizeof(T) == 4 ? _mm_packus_epi32(low, high) : _mm_packus_epi32(halves, halves);
    const __m128i all = _mm_packus_epi16(words, words);
    Bytes bytes;
    std::memcpy(&bytes, &all, sizeof bytes);
#else
    const Bytes bytes = __builtin_convertvector(v, Bytes);
#endif
    if (n == lanes<T>) {
        std::memcpy(p, &bytes, sizeof bytes);
    } else {
        for (int i = 0; i < lanes<T>; ++i)
            if (i < n) p[i] = reinterpret_cast<const uint8_t*>(&bytes)[i];
    }
#endif
}

}  // namespace tilefuse::inline TILEFUSE_ISA
