// Vectors of the width that this translation unit is compiled for: GCC/Clang vector types, with masked tails.
// TILEFUSE_ISA names the instruction set (and the inline namespace that keeps the copies of a kernel apart).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef TILEFUSE_ISA
#error "a kernel is compiled once per instruction set: see csrc/CMakeLists.txt"
#endif

#if defined(TILEFUSE_VECTOR_BYTES)  // given: wider than the instruction set has, to test what another one will do
#elif defined(__AVX512F__)
#define TILEFUSE_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define TILEFUSE_VECTOR_BYTES 32
#else
#define TILEFUSE_VECTOR_BYTES 16
#endif

namespace tilefuse::inline TILEFUSE_ISA {

template <class T> struct VectorOf {
    typedef T type __attribute__((vector_size(TILEFUSE_VECTOR_BYTES)));
};

template <class T> using Vec = typename VectorOf<T>::type;

template <class T> inline constexpr int lanes = TILEFUSE_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T> constexpr int64_t vectors_of(int64_t numbers) { return (numbers + lanes<T> - 1) / lanes<T>; }

template <class T> inline Vec<T> splat(T x) { return x - Vec<T>{}; }  // x - 0 keeps -0, infinities and NaN

template <class T> inline Vec<T> load(const T* p) {
    Vec<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T> inline void store(T* p, Vec<T> v) { std::memcpy(p, &v, sizeof v); }

// The first n lanes, 0 < n < lanes<T>; the others are zero, and their memory isn't touched.
#if defined(__AVX512F__) && TILEFUSE_VECTOR_BYTES == 64
inline Vec<float> load(const float* p, int n) { return (Vec<float>)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
inline Vec<double> load(const double* p, int n) { return (Vec<double>)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p); }
inline Vec<uint32_t> load(const uint32_t* p, int n) {
    return (Vec<uint32_t>)_mm512_maskz_loadu_epi32((__mmask16)((1u << n) - 1), p);
}
inline void store(uint32_t* p, Vec<uint32_t> v, int n) { _mm512_mask_storeu_epi32(p, (__mmask16)((1u << n) - 1), (__m512i)v); }
inline void store(float* p, Vec<float> v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v); }
inline void store(double* p, Vec<double> v, int n) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v); }
#else
#if defined(__AVX2__) && TILEFUSE_VECTOR_BYTES == 32
inline __m256i first_lanes(int n, float) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first_lanes(int n, double) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }
inline Vec<float> load(const float* p, int n) { return (Vec<float>)_mm256_maskload_ps(p, first_lanes(n, 0.f)); }
inline Vec<double> load(const double* p, int n) { return (Vec<double>)_mm256_maskload_pd(p, first_lanes(n, 0.0)); }
#else
template <class T> inline Vec<T> load(const T* p, int n) {
    Vec<T> v{};
    for (int i = 0; i < n; ++i) {
        T x;
        std::memcpy(&x, p + i, sizeof x);  // it may begin anywhere
        v[i] = x;
    }
    return v;
}
#endif
template <class T> inline void store(T* p, Vec<T> v, int n) {
    alignas(TILEFUSE_VECTOR_BYTES) T lane[lanes<T>];
    store(lane, v);
    for (int i = 0; i < n; ++i) p[i] = lane[i];
}
#endif

// Calls body(i, n) for every vector of [0, count): n is lanes<T> but for the tail.
template <class T, class Body> inline void for_vectors(int64_t count, Body body) {
    int64_t i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>) body(i, lanes<T>);
    if (i < count) body(i, static_cast<int>(count - i));
}

// From here on the compiler knows nothing of the vector but that it is in a register: it reads memory once for every use of
// it otherwise, if there are two or three.
template <class V> inline void keep_in_register(V& v) {
#if TILEFUSE_VECTOR_BYTES == 64 && defined(__AVX512F__)
    asm("" : "+v"(v));
#elif TILEFUSE_VECTOR_BYTES == 32 && defined(__AVX2__) || TILEFUSE_VECTOR_BYTES == 16 && defined(__SSE2__)
    asm("" : "+x"(v));
#else
    (void)v;
#endif
}

// Load and store for use inside for_vectors: whole vectors but for the tail.
template <class T> inline Vec<T> load_upto(const T* p, int n) { return n == lanes<T> ? load(p) : load(p, n); }
template <class T> inline void store_upto(T* p, Vec<T> v, int n) {
    if (n == lanes<T>) {
        store(p, v);
    } else {
        store(p, v, n);
    }
}

// The lanes added pairwise: the same order at every call.
template <class T> inline T sum(Vec<T> v) {
    T lane[lanes<T>];
    store(lane, v);
    for (int width = lanes<T> / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
    return lane[0];
}

}  // namespace tilefuse::inline TILEFUSE_ISA
