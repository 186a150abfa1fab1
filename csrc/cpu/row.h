// One row of an array, vector by vector, for kernels that reduce rows.
#pragma once

#include "common/math.h"
#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

// 0, 1, 2, ... as integers of T's size.
template <class T> inline Integers<Vec<T>> lane_numbers() {
    Integers<Vec<T>> numbers;
    for (int i = 0; i < lanes<T>; ++i) numbers[i] = i;
    return numbers;
}

// v in the first n lanes, `otherwise` in the others.
template <class T> inline Vec<T> first(Vec<T> v, int n, T otherwise) {
    return n == lanes<T> ? v : (lane_numbers<T>() < static_cast<Integers<T>>(n) ? v : splat(otherwise));
}

// As load_upto, with `otherwise` in place of what lies beyond.
template <class T> inline Vec<T> load_first(const T* p, int n, T otherwise) { return first(load_upto(p, n), n, otherwise); }

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
    return max<T>(m);
}

// The first j with x[j] == value; -1 if there is none.
template <class T> inline int64_t find(const T* x, int64_t cols, T value) {
    const auto numbers = lane_numbers<T>();
    for (int64_t j = 0; j < cols; j += lanes<T>) {
        const int n = cols - j < lanes<T> ? static_cast<int>(cols - j) : lanes<T>;
        const Vec<T> v = load_upto(x + j, n);
        Integers<Vec<T>> at = v == splat(value) ? numbers : numbers - numbers + lanes<T>;
        int nearest = lanes<T>;
        for (int i = 0; i < lanes<T>; ++i) nearest = at[i] < nearest ? static_cast<int>(at[i]) : nearest;
        if (nearest < n) return j + nearest;
    }
    return -1;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
