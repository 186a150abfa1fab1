// Rows of contiguous arrays, for kernels that reduce them. Whole rows are copied to shared memory, by packs and whole
// sectors however long a row is, and results leave the same way: so every byte moves once. In shared memory
// - some rows at a time belong to a warp, each to as many lanes as the largest power of two that divides its length (at
//   most all of them): then lanes side by side in a row, in rows side by side, never meet in a bank;
// - or, where those are too few for their elements, one row to all lanes of a warp;
// - or a row belongs to a block; and if it does not fit into shared memory, it is read anew in each pass, and written
//   in the last one only.
// What a row's sum adds up first depends on its length alone.
#pragma once

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/packs.cuh"
#include "cuda/reduce.cuh"

namespace tilefuse::cuda {

constexpr int row_warps = 4;  // of a block of which each warp has rows of its own

struct RowPlan {
    int lanes;   // of a row; 0: all threads of a block
    int passes;  // of a warp over its rows: warp_size / lanes of them at a time
    bool staged; // in shared memory
    int tile;    // elements of shared memory for one array of a warp's (or block's) rows
    int tiles;   // arrays
};

// The most shared memory that a block may have on this machine.
inline int64_t most_shared_bytes() {
    int device = 0, bytes = 0;
    check(cudaGetDevice(&device), "the device in use");
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "its shared memory");
    return bytes;
}

template <class T> RowPlan plan_rows(int64_t cols, int tiles) {
    // Shared memory for 8 warps on a multiprocessor that has only 64 KB (Turing), and for 32 on one with 228 (Hopper);
    // for a block what it gets without asking for more, or all that there is. 1 KB of it is for reductions.
    constexpr int64_t bytes_of_warp = 6 * 1024, bytes_of_block = 48 * 1024;
    constexpr int most_passes = 8;
    const auto room = [&](int64_t bytes) { return bytes / tiles / static_cast<int64_t>(sizeof(T)) - sector_size<T>; };
    const int64_t for_warp = room(bytes_of_warp);
    // In its tile an array begins as far after a sector's beginning as in global memory.
    const auto tile_of = [](int64_t elements) {
        return static_cast<int>((elements + 2 * sector_size<T> - 2) / sector_size<T> * sector_size<T>);
    };
    int lanes = 1;
    while (lanes < warp_size && cols > 0 && cols % (2 * lanes) == 0) lanes *= 2;
    if (warp_size / lanes * cols > for_warp) lanes = warp_size;
    const int64_t at_once = warp_size / lanes * cols;
    if (at_once <= for_warp) {
        const int passes = static_cast<int>(
            std::min<int64_t>(std::min(lanes, most_passes), at_once > 0 ? for_warp / at_once : 1));
        return {lanes, passes, true, tile_of(passes * at_once), tiles};
    }
    if (cols <= room(bytes_of_block - 1024) || cols <= room(most_shared_bytes() - 1024)) {
        return {0, 1, true, tile_of(cols), tiles};
    }
    return {0, 1, false, 0, 0};
}

template <class T> size_t shared_bytes(const RowPlan& plan) {
    const int tiles = plan.tiles * (plan.lanes > 0 ? row_warps : 1);
    return sizeof(T) * static_cast<size_t>(plan.tile) * static_cast<size_t>(tiles);
}

inline dim3 row_grid(const RowPlan& plan, int64_t rows) {
    const int64_t of_block = plan.lanes > 0 ? row_warps * plan.passes * (warp_size / plan.lanes) : 1;
    return dim3(static_cast<unsigned>(quotient(rows, of_block)));
}

// ---- a row's threads -----------------------------------------------------------------------------------------------

// The members of a row take elements member, member + members, ... of it.
struct LanesOfRow {
    using Index = int;
    int member, members;
    template <class T, class Combine> __device__ __forceinline__ T reduce(T x, T, Combine combine) const {
        return reduce_lanes(x, members, combine);
    }
};

struct BlockOfRow {
    using Index = int64_t;
    int member = static_cast<int>(threadIdx.x);
    static constexpr int members = threads_of_block;
    template <class T, class Combine> __device__ __forceinline__ T reduce(T x, T nothing, Combine combine) const {
        return reduce_block(x, nothing, combine);
    }
};

template <class Team, class Index, class Body>
__device__ __forceinline__ void each(const Team& team, Index cols, Body body) {
    TILEFUSE_UNROLL(1)
    for (Index j = team.member; j < cols; j += team.members) body(j);
}

template <class Team, class T> __device__ __forceinline__ T row_sum(const Team& team, T mine) {
    return team.reduce(mine, T(0), Add{});
}

// The largest element; NaN counts only if there is nothing else, as minus infinity.
template <class Team, class T>
__device__ __forceinline__ T row_max(const Team& team, const T* x, typename Team::Index cols) {
    constexpr T lowest = -static_cast<T>(__builtin_inf());
    T m = lowest;
    each(team, cols, [&](auto j) { m = x[j] > m ? x[j] : m; });
    return team.reduce(m, lowest, Largest{});
}

// The first j with x[j] == value; `cols` if there is none.
template <class Team, class T>
__device__ __forceinline__ int64_t find(const Team& team, const T* x, typename Team::Index cols, T value) {
    using Number = std::conditional_t<sizeof(cols) == 4, int, long long>;  // what shuffles take
    Number found = cols;
    each(team, cols, [&](auto j) {
        if (x[j] == value && j < found) found = j;
    });
    return team.reduce(found, static_cast<Number>(cols), Smallest{});
}

// ---- a warp's rows -------------------------------------------------------------------------------------------------

// Pass i is over the rows i * at_once + group of the warp's, one for each group of lanes. Numbers that belong to a row,
// such as its label, are read and written by the lane that `keeps` them: all of a warp's at once, in one access.
struct WarpRows {
    __device__ __forceinline__ WarpRows(const RowPlan& plan, int64_t rows)
        : lane(static_cast<int>(threadIdx.x) % warp_size), team{lane % plan.lanes, plan.lanes},
          group(lane / plan.lanes), at_once(warp_size / plan.lanes), passes(plan.passes),
          warp(static_cast<int>(threadIdx.x) / warp_size),
          first((static_cast<int64_t>(blockIdx.x) * row_warps + warp) * (passes * at_once)),
          count(rows - first < passes * at_once ? static_cast<int>(rows - first) : passes * at_once) {}

    template <class T> __device__ __forceinline__ T* tile(const RowPlan& plan, int number) const {
        return dynamic_shared<T>() + (warp * plan.tiles + number) * plan.tile;
    }
    __device__ __forceinline__ int row(int pass) const { return pass * at_once + group; }
    __device__ __forceinline__ int kept_row() const { return row(team.member); }
    __device__ __forceinline__ bool keeps() const { return team.member < passes && kept_row() < count; }
    __device__ __forceinline__ int keeper(int pass) const { return group * team.members + pass; }

    const int lane;
    const LanesOfRow team;
    const int group, at_once, passes, warp;
    const int64_t first;
    const int count;
};

}  // namespace tilefuse::cuda
