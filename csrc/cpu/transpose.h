// Transposing a matrix by blocks of lanes x lanes in registers.
#pragma once

#include <utility>

#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

// One step of the butterfly: exchanges the halves of blocks of 2 * Width lanes between rows i and i + Width.
template <class T, int Width, int... Lane>
inline void exchange(Vec<T>& low, Vec<T>& high, std::integer_sequence<int, Lane...>) {
    const Vec<T> a = low, b = high;
    low = __builtin_shufflevector(a, b, (Lane & Width ? lanes<T> + Lane - Width : Lane)...);
    high = __builtin_shufflevector(a, b, (Lane & Width ? lanes<T> + Lane : Lane + Width)...);
}

template <class T, int Width = lanes<T> / 2> inline void transpose_block(Vec<T> (&rows)[lanes<T>]) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i)
        if (!(i & Width)) exchange<T, Width>(rows[i], rows[i + Width], std::make_integer_sequence<int, lanes<T>>());
    if constexpr (Width > 1) transpose_block<T, Width / 2>(rows);
}

// y[j, i] = x[i, j] for x of m rows and n columns
template <class T> inline void transpose(int64_t m, int64_t n, const T* x, int64_t x_stride, T* y, int64_t y_stride) {
    constexpr int64_t block = lanes<T>;
    int64_t i = 0;
    for (; i + block <= m; i += block) {
        int64_t j = 0;
        for (; j + block <= n; j += block) {
            Vec<T> rows[block];
#pragma GCC unroll 16
            for (int64_t r = 0; r < block; ++r) rows[r] = load(x + (i + r) * x_stride + j);
            transpose_block<T>(rows);
#pragma GCC unroll 16
            for (int64_t r = 0; r < block; ++r) store(y + (j + r) * y_stride + i, rows[r]);
        }
        for (; j < n; ++j)
            for (int64_t r = 0; r < block; ++r) y[j * y_stride + i + r] = x[(i + r) * x_stride + j];
    }
    for (; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) y[j * y_stride + i] = x[i * x_stride + j];
}

}  // namespace tilefuse::inline TILEFUSE_ISA
