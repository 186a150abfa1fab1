// Products of a vector and a matrix, y[j] = sum over p of x[p] M[p, j], which use every element of M once: they are as fast
// as M can be read, in the order in which it lies.
#pragma once

#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

// Rows of M are contiguous: y += x[p] M[p, :], eight rows of M in one pass over y. Each sum is in the order of p.
template <class T> void add_rows(int64_t k, int64_t n, const T* x, const T* m, int64_t stride, T* y) {
    constexpr int64_t rows = 8;
    std::memset(y, 0, sizeof(T) * static_cast<size_t>(n));
    int64_t p = 0;
    for (; p + rows <= k; p += rows, m += rows * stride) {
        for_vectors<T>(n, [&](int64_t j, int count) {
            Vec<T> sum = load_upto(y + j, count);
#pragma GCC unroll 8
            for (int64_t r = 0; r < rows; ++r) sum += splat(x[p + r]) * load_upto(m + r * stride + j, count);
            store_upto(y + j, sum, count);
        });
    }
    for (; p < k; ++p, m += stride) {
        for_vectors<T>(n, [&](int64_t j, int count) {
            store_upto(y + j, load_upto(y + j, count) + splat(x[p]) * load_upto(m + j, count), count);
        });
    }
}

// The sums of several rows of products, whose vectors are added pairwise: the same for any number of rows.
template <class T, int Rows> inline void dot_rows(int64_t k, const T* x, const T* m, int64_t stride, T* y) {
    constexpr int64_t chains = 2, step = chains * lanes<T>;
    Vec<T> sums[Rows][chains] = {};
    int64_t p = 0;
    for (; p + step <= k; p += step) {
#pragma GCC unroll 2
        for (int64_t c = 0; c < chains; ++c) {
            const Vec<T> v = load(x + p + c * lanes<T>);
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) sums[r][c] += v * load(m + r * stride + p + c * lanes<T>);
        }
    }
    for_vectors<T>(k - p, [&](int64_t i, int count) {
        const Vec<T> v = load_upto(x + p + i, count);
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) sums[r][0] += v * load_upto(m + r * stride + p + i, count);
    });
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) y[r] = sum<T>(sums[r][0] + sums[r][1]);
}

// Columns of M are contiguous: y[j] is the product of two contiguous vectors.
template <class T> void dot_columns(int64_t k, int64_t n, const T* x, const T* m, int64_t stride, T* y) {
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) dot_rows<T, 4>(k, x, m + j * stride, stride, y + j);
    for (; j < n; ++j) dot_rows<T, 1>(k, x, m + j * stride, stride, y + j);
}

}  // namespace tilefuse::inline TILEFUSE_ISA
