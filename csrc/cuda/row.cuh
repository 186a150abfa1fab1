// Rows of contiguous arrays, for kernels that reduce them. Whole rows are copied to shared memory, by packs and whole
// sectors however long a row is, and results leave the same way: so every byte moves once. In shared memory
// - some rows at a time belong to a warp, each to as many lanes as the largest power of two that divides its length (at
//   most all of them): then lanes side by side in a row, in rows side by side, never meet in a bank;
// - or, where those are too few for their elements, one row to all lanes of a warp;
// - or a row belongs to a block; and if it does not fit into shared memory, it is read anew in each pass.
// What a row's sum adds up first depends on its length alone.
#pragma once

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/packs.cuh"
#include "cuda/reduce.cuh"

namespace tilefuse::cuda {

constexpr int row_warps = 4;  // of a block of which each warp has rows of its own

template <class T> constexpr int sector_size = 32 / sizeof(T);  // what global memory moves at least

struct RowPlan {
    int lanes;   // of a row; 0: all threads of a block
    int passes;  // of a warp over its rows: warp_size / lanes of them at a time
    bool staged; // in shared memory
    int tile;    // elements of shared memory for one array of a warp's (or block's) rows
    int tiles;   // arrays
};

template <class T> RowPlan plan_rows(int64_t cols, int tiles) {
    // Shared memory for 8 warps on a multiprocessor that has only 64 KB (Turing), and for 32 on one with 228 (Hopper);
    // and what a block gets without asking for more, less what reductions take.
    constexpr int64_t bytes_of_warp = 6 * 1024, bytes_of_block = 47 * 1024;
    constexpr int most_passes = 8;
    const int64_t for_warp = bytes_of_warp / tiles / static_cast<int64_t>(sizeof(T)) - sector_size<T>;
    const int64_t for_block = bytes_of_block / tiles / static_cast<int64_t>(sizeof(T)) - sector_size<T>;
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
    if (cols <= for_block) return {0, 1, true, tile_of(cols), tiles};
    return {0, 1, false, 0, 0};
}

template <class T> size_t shared_bytes(const RowPlan& plan) {
    const int tiles = plan.tiles * (plan.lanes > 0 ? row_warps : 1);
    return sizeof(T) * static_cast<size_t>(plan.tile) * static_cast<size_t>(tiles);
}

inline dim3 row_grid(const RowPlan& plan, int64_t rows) {
    const int64_t of_block = plan.lanes > 0 ? row_warps * plan.passes * (warp_size / plan.lanes) : 1;
    return dim3(static_cast<unsigned>((rows + of_block - 1) / of_block));
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

// ---- copies --------------------------------------------------------------------------------------------------------

// How many elements after the beginning of a sector p lies.
template <class T> __device__ __forceinline__ int phase_of(const T* p) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(p) / sizeof(T) % sector_size<T>);
}

// Calls one(i) and pack(i) so that together they cover elements [phase, end) of a tile, for all of `threads` threads, not
// fewer than a sector has elements. Whole sectors go by packs, what is left at either end element by element.
template <class T, class One, class Whole>
__device__ __forceinline__ void cover(int phase, int end, int thread, int threads, One one, Whole pack) {
    constexpr int sector = sector_size<T>;
    const int first = min((phase + sector - 1) / sector * sector, end), last = max(first, end / sector * sector);
    if (phase + thread < first) one(phase + thread);
    for (int i = first + pack_size<T> * thread; i < last; i += pack_size<T> * threads) pack(i);
    if (last + thread < end) one(last + thread);
}

// Copies `count` elements to tile + phase_of(from), and returns that.
template <class T>
__device__ __forceinline__ T* stage(const T* from, int count, T* tile, int thread, int threads) {
    const int phase = phase_of(from);
    cover<T>(
        phase, phase + count, thread, threads, [&](int i) { tile[i] = from[i - phase]; },
        [&](int i) { store_pack(tile + i, load_pack<pack_size<T>>(from + (i - phase))); });
    return tile + phase;
}

// The way back, from tile + phase.
template <class T>
__device__ __forceinline__ void unstage(const T* from, int phase, int count, T* to, int thread, int threads) {
    if ((phase_of(to) - phase) % pack_size<T> != 0) {
        for (int i = thread; i < count; i += threads) to[i] = from[i];
        return;
    }
    cover<T>(
        phase, phase + count, thread, threads, [&](int i) { to[i - phase] = from[i - phase]; },
        [&](int i) { store_pack(to + (i - phase), load_pack<pack_size<T>>(from + (i - phase))); });
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
