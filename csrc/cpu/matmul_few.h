// Products of a few rows and a matrix, Y[i, j] = sum over p of X[i, p] M[p, j], which use every element of M a few times: they
// are as fast as M can be read, in the order in which it lies. X has contiguous rows. E are the elements that are multiplied, made
// from what lies in memory of M (S: matmul_pack.h) as it is read.
#pragma once

#include <algorithm>
#include <bit>
#include <utility>

#include "cpu/matmul_pack.h"

namespace tilefuse::inline TILEFUSE_ISA {

// X, M and Y, with the elements from one row to the next of X, and from one contiguous row or column of M to the next.
template <class E, class S> struct FewRows {
    int64_t rows, k, columns;  // k: elements
    const E* x;
    int64_t x_stride;
    const S* m;
    int64_t m_stride;
    Sum<E>* y;     // contiguous
    Sum<E>* part;  // as large: for sums of a part of k
};

// Rows of M are contiguous: y += X[:, p] M[p, :] for a few p in one pass over y, or y = that.
template <int Rows, int Deep, class T, class S> void add_rows_of(const FewRows<T, S>& f, int64_t p, T* y, bool add) {
    const T* x = f.x + p;
    const S* m = f.m + p * f.m_stride;
    for_vectors<T>(f.columns, [&](int64_t j, int count) __attribute__((always_inline)) {
        Vec<T> sums[Rows];
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) sums[i] = add ? load_upto(y + i * f.columns + j, count) : Vec<T>{};
#pragma GCC unroll 8
        for (int r = 0; r < Deep; ++r) {
            const S* const from = m + r * f.m_stride + j;
            Vec<T> row = across<T>(from, from, count);
            if (Rows > 1) keep_in_register(row);
#pragma GCC unroll 4
            for (int i = 0; i < Rows; ++i) sums[i] += splat(x[i * f.x_stride + r]) * row;
        }
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) store_upto(y + i * f.columns + j, sums[i], count);
    });
}

// With more rows of X, tiles are as fast. (Zen 4, 256 x 256 and 1024 x 1024 for 2, 3 and 4 rows: 56, 61 and 103, and 33, 66 and
// 78 GFLOP/s by tiles; 70, 70 and 87, and 63, 72 and 84 so.)
constexpr int most_added_rows = 3;

// Each sum is in the order of p, for 512 at a time as in tiles: the rounding errors of long sums grow with their lengths.
template <int Rows = most_added_rows, class T, class S> void add_rows(const FewRows<T, S>& f) {
    if constexpr (Rows > 1)
        if (f.rows < Rows) return add_rows<Rows - 1>(f);
    constexpr int64_t together = 8, deep = 512;
    for (int64_t first = 0; first < f.k; first += deep) {
        T* const y = first == 0 ? f.y : f.part;
        int64_t p = first;
        for (const int64_t past = std::min(f.k, first + deep); p < past;) {
            if (p + together <= past) {
                add_rows_of<Rows, together>(f, p, y, p > first);
                p += together;
            } else {
                add_rows_of<Rows, 1>(f, p, y, p > first);
                ++p;
            }
        }
        if (first == 0) continue;
        for_vectors<T>(Rows * f.columns, [&](int64_t j, int count) {
            store_upto(f.y + j, load_upto(f.y + j, count) + load_upto(y + j, count), count);
        });
    }
}

// The sums of the lanes of Count vectors, a power of two, pairwise: that of v[i] in lane i lanes / Count.
template <class T, int Width = lanes<T> / 2, int Count> inline Vec<T> fold(const Vec<T> (&v)[Count]) {
    if constexpr (Width == 0) {
        return v[0];
    } else {
        constexpr int half = Count > 1 ? Count / 2 : 1;
        Vec<T> folded[half];
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) {
            Vec<T> low = v[i], high = v[Count > 1 ? i + half : i];
            exchange<T, Width>(low, high, std::make_integer_sequence<int, lanes<T>>());
            folded[i] = low + high;
        }
        return fold<T, Width / 2>(folded);
    }
}

// y[i] = the sum of v[i]'s lanes.
template <class T, int Count> inline void sums_of(const Vec<T> (&v)[Count], T (&y)[Count]) {
    constexpr int many = std::min<int>(lanes<T>, std::bit_ceil(static_cast<unsigned>(Count)));
#pragma GCC unroll 8
    for (int first = 0; first < Count; first += many) {
        Vec<T> some[many];
#pragma GCC unroll 16
        for (int i = 0; i < many; ++i) some[i] = first + i < Count ? v[first + i] : Vec<T>{};
        T sums[lanes<T>];
        store(sums, fold<T>(some));
        for (int i = 0; i < many && first + i < Count; ++i) y[first + i] = sums[i * (lanes<T> / many)];
    }
}

// A tile of Y, and the part of k that is added up.
struct DotTile {
    int64_t row, column, p, rows, columns, k;
    bool fetch;  // ask for the next columns of M
};

template <int Chains, int Rows, int Columns, class E, class S> void add_dots_of(const FewRows<E, S>& f, const DotTile& t) {
    using T = Sum<E>;
    const E* x = f.x + t.row * f.x_stride + t.p;
    const S* m = f.m + t.column * f.m_stride + t.p;
    const bool fetch = Rows > 1 && Columns > 1 && t.fetch;
    Vec<T> sums[Rows * Columns] = {}, others[Rows * Columns] = {};
    const auto add = [&](int64_t p, int count, Vec<T>(&to)[Rows * Columns]) __attribute__((always_inline)) {
        Vec<E> row[Rows];
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) row[i] = load_upto(x + i * f.x_stride + p, count);
#pragma GCC unroll 4
        for (int j = 0; j < Columns; ++j) {
            const S* const from = m + j * f.m_stride + p;
            Vec<E> column = across<E>(from, from, count);
            if (Rows > 1) keep_in_register(column);
            if (fetch) __builtin_prefetch(from + Columns * f.m_stride);
#pragma GCC unroll 4
            for (int i = 0; i < Rows; ++i) to[i * Columns + j] = add_products<E>(row[i], column, to[i * Columns + j]);
        }
    };
    int64_t p = 0;
    for (; Chains == 2 && p + 2 * lanes<T> <= t.k; p += 2 * lanes<T>) {
        add(p, lanes<T>, sums);
        add(p + lanes<T>, lanes<T>, others);
    }
    for_vectors<T>(t.k - p, [&](int64_t q, int count) __attribute__((always_inline)) { add(p + q, count, sums); });
#pragma GCC unroll 16
    for (int i = 0; Chains == 2 && i < Rows * Columns; ++i) sums[i] += others[i];
    T total[Rows * Columns];
    sums_of<T>(sums, total);
    for (int i = 0; i < Rows; ++i)
        for (int j = 0; j < Columns; ++j) {
            T& y = f.y[(t.row + i) * f.columns + t.column + j];
            y = t.p > 0 ? y + total[i * Columns + j] : total[i * Columns + j];
        }
}

// At most as many sums as a vector has lanes, or eight, so that there are enough to keep two FMA units busy.
template <class T> constexpr int dot_rows = lanes<T> >= 8 ? lanes<T> / 4 : 2;
constexpr int dot_columns = 4;

template <int Chains, int Rows, class E, class S> void add_dots_of(const FewRows<E, S>& f, DotTile t) {
    if constexpr (Rows > 1)
        if (t.rows < Rows) return add_dots_of<Chains, Rows - 1>(f, t);
    if (t.columns == dot_columns) return add_dots_of<Chains, Rows, dot_columns>(f, t);
    for (int64_t j = 0; j < t.columns; ++j, ++t.column) add_dots_of<Chains, Rows, 1>(f, t);
}

// Columns of M are contiguous. Each sum is lane by lane in the order of p, then over the lanes, for 2048 elements at a time: so
// deep a part of a few columns is in a near cache when strips of X pass it. If M is too large for any cache, the next columns
// are asked for meanwhile. (Zen 4, 2 to 16 rows, six sizes, times PyTorch's speed, geometric means of two runs: AVX-512 1.92
// and 1.82, AVX2 1.61 and 1.59; never asked for 1.75 and 1.73, 1.50 and 1.52; always 1.75 and 1.78, 1.51 and 1.46; 1024
// elements, never 1.63 and 1.63, 1.51 and 1.47.) Where the product has but one row, each sum is two, of every other vector.
// (256 x 256: 33 GFLOP/s, with one 21.)
template <int Chains, class E, class S> void add_dots(const FewRows<E, S>& f) {
    constexpr int64_t most_rows = Chains == 2 ? 1 : dot_rows<Sum<E>>;
    constexpr int64_t deep = 2048, caches_bytes = 8 * 1024 * 1024;
    const bool far = f.columns * f.k * static_cast<int64_t>(sizeof(S)) > caches_bytes;
    const Parts strips(f.rows, most_rows);
    for (int64_t p = 0; p < f.k; p += deep)
        for (int64_t j = 0; j < f.columns; j += dot_columns)
            for (int64_t strip = 0; strip < strips.count; ++strip) {
                const int64_t i = strips.begin(strip), past = strips.begin(strip + 1);
                const bool fetch = far && strip == 0 && j + 2 * dot_columns <= f.columns;
                add_dots_of<Chains, most_rows>(
                    f, {i, j, p, past - i, std::min<int64_t>(dot_columns, f.columns - j), std::min(deep, f.k - p), fetch});
            }
}

}  // namespace tilefuse::inline TILEFUSE_ISA
