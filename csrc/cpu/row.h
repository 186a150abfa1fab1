// One row of an array, vector by vector, for kernels that reduce rows.
#pragma once

#include "common/math.h"
#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

template <class T> struct LaneNumbers {
    constexpr LaneNumbers() : of() {
        for (int i = 0; i < lanes<T>; ++i) of[i] = i;
    }
    Integers<T> of[lanes<T>];
};

// 0, 1, 2, ... as integers of T's size.
template <class T> inline Integers<Vec<T>> lane_numbers() {
    static constexpr LaneNumbers<T> numbers;
    Integers<Vec<T>> v;
    std::memcpy(&v, numbers.of, sizeof v);
    return v;
}

// Bit i says whether lane i of the comparison's result is true.
template <class T> inline unsigned bits_of(Integers<Vec<T>> truth) {
#if defined(__AVX512F__) && TILEFUSE_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4) return _mm512_movepi32_mask((__m512i)truth);
    return _mm512_movepi64_mask((__m512i)truth);
#elif defined(__AVX2__) && TILEFUSE_VECTOR_BYTES == 32
    if constexpr (sizeof(T) == 4) return static_cast<unsigned>(_mm256_movemask_ps((__m256)truth));
    return static_cast<unsigned>(_mm256_movemask_pd((__m256d)truth));
#else
    unsigned bits = 0;
    for (int i = 0; i < lanes<T>; ++i) bits |= (truth[i] != 0 ? 1u : 0u) << i;
    return bits;
#endif
}

// v in the first n lanes, `otherwise` in the others.
template <class T> inline Vec<T> first(Vec<T> v, int n, T otherwise) {
    return n == lanes<T> ? v : (lane_numbers<T>() < static_cast<Integers<T>>(n) ? v : splat(otherwise));
}

// As load_upto, with `otherwise` in place of what lies beyond.
template <class T> inline Vec<T> load_first(const T* p, int n, T otherwise) {
    return first(load_upto(p, n), n, otherwise);
}

// A sum over a row, in blocks of 16 vectors, so that rounding errors don't grow with the row.
template <class T> class RowSum {
public:
    void add(Vec<T> v) {
        block_ += v;
        if (++vectors_ % 16 == 0) {
            blocks_ += block_;
            block_ = Vec<T>{};
        }
    }
    T total() const { return sum<T>(blocks_ + block_); }

private:
    Vec<T> block_{}, blocks_{};
    int64_t vectors_ = 0;
};

// The largest element; NaN counts only if there is nothing else, as minus infinity.
template <class T> inline T row_max(const T* x, int64_t cols) {
    constexpr T lowest = -static_cast<T>(__builtin_inf());
    Vec<T> m = splat(lowest);
    for_vectors<T>(cols, [&](int64_t j, int n) {
        const Vec<T> v = load_first(x + j, n, lowest);
        m = v > m ? v : m;
    });
    T lane[lanes<T>];
    store(lane, m);
    for (int width = lanes<T> / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lane[i] = lane[i + width] > lane[i] ? lane[i + width] : lane[i];
    return lane[0];
}

// The first j with x[j] == value; -1 if there is none.
template <class T> inline int64_t find(const T* x, int64_t cols, T value) {
    for (int64_t j = 0; j < cols; j += lanes<T>) {
        const int n = cols - j < lanes<T> ? static_cast<int>(cols - j) : lanes<T>;
        const unsigned equal = bits_of<T>(load_upto(x + j, n) == splat(value)) & ((1u << n) - 1);
        if (equal != 0) return j + __builtin_ctz(equal);
    }
    return -1;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
