// Sums over the rows of contiguous [rows, cols] arrays, column by column, in two stages: a block adds up a slab of rows of
// 32 columns, in double but for a few rows at a time; then the slabs' results are put together in their order. How x is cut
// depends on its shape alone, and so do the bits.
#pragma once

#include <algorithm>
#include <numeric>

#include "cuda/launch.h"
#include "cuda/packs.cuh"

namespace tilefuse::cuda {

constexpr int warps_of_block = threads_of_block / warp_size;
template <class T> constexpr int rows_at_once = 64 / sizeof(T);  // of a thread: loaded together, and added up in T

// `fold` rows side by side count as one wide row, so that a warp's columns begin with a sector and, where columns are few,
// none of its lanes idles. Columns c, c + cols, ... of a wide row are all of column c; the last wide row may be shorter.
struct Columns {
    int64_t rows, cols, fold, width, elements;
    int64_t slab, slabs;  // wide rows of one, number
    __host__ __device__ int64_t doubles() const { return 2 * slabs * width; }  // that the first stage leaves: two a column
};

inline Columns columns_of(int64_t rows, int64_t cols) {
    constexpr int64_t few = 256, sector = 8, blocks = 2 * 108;  // enough for a large GPU: not this one's number
    Columns c = {rows, cols, 1, cols, rows * cols, 0, 0};
    const int64_t whole = cols < few ? warp_size : sector;
    c.fold = whole / std::gcd(cols, whole);
    c.width = cols * c.fold;
    const int64_t wide = quotient(rows, c.fold), across = quotient(c.width, warp_size);
    constexpr int64_t least = 32 * warps_of_block;
    c.slabs = std::clamp<int64_t>(wide / least, 1, std::max<int64_t>(1, blocks / across));
    c.slab = std::max<int64_t>(1, quotient(quotient(wide, c.slabs), warps_of_block)) * warps_of_block;
    c.slabs = std::max<int64_t>(1, quotient(wide, c.slab));
    return c;
}

inline dim3 column_grid(const Columns& c) {
    return dim3(static_cast<unsigned>(quotient(c.width, warp_size)), static_cast<unsigned>(c.slabs));
}

// A thread's elements of its slab: `count` of them, `step` apart, in rows of x that are 8 `fold` apart.
struct PlaceInColumn {
    __device__ __forceinline__ explicit PlaceInColumn(const Columns& c)
        : lane(static_cast<int>(threadIdx.x) % warp_size), warp(static_cast<int>(threadIdx.x) / warp_size),
          column(static_cast<int64_t>(blockIdx.x) * warp_size + lane), step(warps_of_block * c.width) {
        const int64_t wide = blockIdx.y * c.slab + warp, past = (blockIdx.y + int64_t{1}) * c.slab;
        at = wide * c.width + column;
        row = wide * c.fold + column / c.cols;
        const int64_t left = c.elements - at, of_slab = (past - wide + warps_of_block - 1) / warps_of_block;
        count = column >= c.width || left <= 0 ? 0 : (left + step - 1) / step;
        if (count > of_slab) count = of_slab;
    }

    const int lane, warp;
    const int64_t column, step;
    int64_t at, row, count;
};

// What the first stage leaves of a column: two numbers, in places `width` apart.
__device__ __forceinline__ double* place_of(const Columns& c, const PlaceInColumn& p, double* sums) {
    return sums + blockIdx.y * (2 * c.width) + p.column;
}

// The second stage: a warp's lanes have a column each, and its warps every 8th part of it. body(rows of x, place).
template <class Body> __device__ __forceinline__ void for_parts(const Columns& c, int64_t column, int warp, Body body) {
    const int64_t whole = c.rows / c.fold, rest = c.rows % c.fold, parts = c.slabs * c.fold;
    for (int64_t part = warp; part < parts && column < c.cols; part += warps_of_block) {
        const int64_t s = part / c.fold, k = part % c.fold, first = s * c.slab;
        const int64_t past = min(first + c.slab, whole + (k < rest ? 1 : 0));
        if (past > first) body(past - first, 2 * s * c.width + k * c.cols + column);
    }
}

inline dim3 grid_of_parts(const Columns& c) { return dim3(static_cast<unsigned>(quotient(c.cols, warp_size))); }

// ---- sums -----------------------------------------------------------------------------------------------------------

struct TwoSums {
    double first = 0, second = 0;
    __device__ __forceinline__ void add(const TwoSums& other) {
        first += other.first;
        second += other.second;
    }
};

// Mean, and sum of squared distances from it, of so many numbers; two such, put together (Chan, Golub and LeVeque, 1979).
struct Spread {
    double count = 0, mean = 0, squares = 0;
    __device__ __forceinline__ void add(const Spread& other) {
        if (other.count == 0) return;
        const double before = count, delta = other.mean - mean;
        count += other.count;
        const double share = other.count / count;
        mean += delta * share;
        squares += other.squares + delta * delta * (before * share);
    }
};

// What the warps of a block found, put together in their order, for the first of them.
template <class Sum> __device__ __forceinline__ Sum sum_of_warps(const Sum& mine, int lane, int warp) {
    constexpr int numbers = sizeof(Sum) / sizeof(double);
    TILEFUSE_SHARED(double[numbers][warps_of_block][warp_size], found);
    const double* const of_mine = reinterpret_cast<const double*>(&mine);
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < numbers; ++i) found[i][warp][lane] = of_mine[i];
    block_barrier();
    Sum total = mine;
    for (int w = 1; warp == 0 && w < warps_of_block; ++w) {
        Sum other;
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < numbers; ++i) reinterpret_cast<double*>(&other)[i] = found[i][w][lane];
        total.add(other);
    }
    return total;
}

// The first stage of means and sums of squared distances. Distances from the mean of the few numbers at hand are summed
// up, so that nothing cancels however large the mean is.
template <class T> __global__ void __launch_bounds__(threads_of_block, 2) add_spreads(Columns c, const T* x, double* sums) {
    constexpr int some = rows_at_once<T>;
    const PlaceInColumn p(c);
    x += p.at;
    Spread spread;
    TILEFUSE_UNROLL(1)
    for (int64_t first = 0; first < p.count; first += some, x += some * p.step) {
        const int n = p.count - first < some ? static_cast<int>(p.count - first) : some;
        T v[some], sum = 0, distances = 0, squares = 0;
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < some; ++i) v[i] = i < n ? x[i * p.step] : T(0);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < some; ++i) sum += v[i];
        const T centre = sum / static_cast<T>(n);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < some; ++i) {
            const T distance = i < n ? v[i] - centre : T(0);
            distances += distance;
            squares += distance * distance;
        }
        const double count = n, total = static_cast<double>(distances), rest = total / count;
        spread.add({count, static_cast<double>(centre) + rest, static_cast<double>(squares) - total * rest});
    }
    spread = sum_of_warps(spread, p.lane, p.warp);
    if (p.warp > 0 || p.column >= c.width) return;
    double* const to = place_of(c, p, sums);
    to[0] = spread.mean;
    to[c.width] = spread.squares;
}

// The first stage of the sums of dy and of dy n, where n = normalised(x, row) once it has begun with the column.
template <class T, class Normalised>
__global__ void __launch_bounds__(threads_of_block, 1)
    add_gradients(Columns c, const T* dy, const T* x, Normalised normalised, double* sums) {
    constexpr int some = rows_at_once<T>;
    const PlaceInColumn p(c);
    dy += p.at;
    x += p.at;
    int64_t row = p.row;
    TwoSums both;
    if (p.count > 0) normalised.begin(p.column % c.cols);
    TILEFUSE_UNROLL(1)
    for (int64_t first = 0; first < p.count; first += some, dy += some * p.step, x += some * p.step) {
        const int n = p.count - first < some ? static_cast<int>(p.count - first) : some;
        T g[some], v[some], sum = 0, products = 0;
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < some; ++i) {
            g[i] = i < n ? dy[i * p.step] : T(0);
            v[i] = i < n ? x[i * p.step] : T(0);
        }
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < some; ++i) {
            sum += g[i];
            if (i < n) products += g[i] * normalised(v[i], row + i * warps_of_block * c.fold);
        }
        row += some * warps_of_block * c.fold;
        both.add({static_cast<double>(sum), static_cast<double>(products)});
    }
    both = sum_of_warps(both, p.lane, p.warp);
    if (p.warp > 0 || p.column >= c.width) return;
    double* const to = place_of(c, p, sums);
    to[0] = both.first;
    to[c.width] = both.second;
}

}  // namespace tilefuse::cuda
