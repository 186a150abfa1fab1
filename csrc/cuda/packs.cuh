// Elementwise kernels: 16 bytes of an array in one access where its address allows, element by element where not.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device.cuh"
#include "cuda/launch.h"

namespace tilefuse::cuda {

template <class T> constexpr int pack_size = 16 / sizeof(T);

// Whether accesses of so many bytes are aligned in all of these arrays.
inline bool packs_fit(std::initializer_list<const void*> arrays, unsigned bytes = 16) {
    return std::all_of(arrays.begin(), arrays.end(),
                       [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; });
}

constexpr int threads_of_block = 256;

constexpr int64_t quotient(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- some elements side by side ------------------------------------------------------------------------------------

// Loads and stores up to N elements, whole packs at once if the address allows.
template <int N, class T> __device__ __forceinline__ Pack<T, N> load_upto(const T* p, int64_t count, bool packs) {
    if (packs && count >= N) return load_pack<N>(p);
    Pack<T, N> x = {};
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < N; ++i)
        if (i < count) x.of[i] = p[i];
    return x;
}
template <int N, class T>
__device__ __forceinline__ void store_upto(T* p, const Pack<T, N>& x, int64_t count, bool packs) {
    if (packs && count >= N) {
        store_pack(p, x);
        return;
    }
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < N; ++i)
        if (i < count) p[i] = x.of[i];
}

// ---- where arrays lie -----------------------------------------------------------------------------------------------

template <class T> constexpr int sector_size = 32 / sizeof(T);  // what global memory moves at least

// How many elements after the beginning of a sector p lies.
template <class T> __host__ __device__ __forceinline__ int phase_of(const T* p) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(p) / sizeof(T) % sector_size<T>);
}

// Of arrays that an elementwise kernel goes through together: the first one's phase, where blocks cut it so that all
// but the first begin with a sector; and whether packs from there on are aligned in all of them (null: no matter).
struct Layout {
    int phase;
    bool packs;
};

template <class T> __host__ __device__ __forceinline__ bool aligned_past(const T* p, int phase, int bytes) {
    return p == nullptr || reinterpret_cast<uintptr_t>(p - phase) % static_cast<unsigned>(bytes) == 0;
}

template <class T> Layout layout_of(std::initializer_list<const void*> arrays) {
    const int phase = phase_of(static_cast<const T*>(*arrays.begin()));
    return {phase, std::all_of(arrays.begin(), arrays.end(),
                               [&](const void* p) { return aligned_past(static_cast<const T*>(p), phase, 16); })};
}

// Blocks in which every thread has one pack. A grid has at most 2^31 - 1 of them: 2^43 bytes.
template <class T> dim3 blocks_for(int64_t elements, const Layout& layout) {
    return dim3(static_cast<unsigned>(quotient(elements + layout.phase, threads_of_block * pack_size<T>)));
}

// ---- a thread's share of an array ----------------------------------------------------------------------------------

// Up to N elements: side by side, read and written in one access (`whole`); or `count` of them, `stride` apart.
struct Share {
    int64_t first;
    int stride, count;
    bool whole;
};

// What falls to this thread of the elements [begin, end), but for those below 0, when each gets up to N. A pack, if all
// threads get whole ones; else neighbouring threads get neighbouring elements, so that a warp's access has no gaps
// either.
template <int N> __device__ __forceinline__ Share share_of(int64_t begin, int64_t end, bool packs) {
    const int thread = static_cast<int>(threadIdx.x);
    if (packs && begin >= 0 && end - begin >= N * threads_of_block) return {begin + N * thread, 1, N, true};
    int64_t first = begin + thread;
    const int64_t left = end - first, most = N * threads_of_block;
    int count = static_cast<int>(left < most ? left : most) + threads_of_block - 1;
    count = count < 0 ? 0 : count / threads_of_block;
    if (count > N) count = N;
    if (first < 0 && count > 0) {
        first += threads_of_block;
        --count;
    }
    return {first, threads_of_block, count, false};
}

// The same of [0, elements), for kernels launched on blocks_for.
template <class T> __device__ __forceinline__ Share share_of_block(int64_t elements, const Layout& layout) {
    constexpr int n = pack_size<T>;
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * (threads_of_block * n) - layout.phase;
    return share_of<n>(begin, elements, layout.packs);
}

// What is beyond `count` is 0.
template <int N, class T> __device__ __forceinline__ Pack<T, N> load(const T* p, const Share& share) {
    if (share.whole) return load_pack<N>(p + share.first);
    Pack<T, N> x = {};
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < N; ++i)
        if (i < share.count) x.of[i] = p[share.first + i * share.stride];
    return x;
}
template <int N, class T> __device__ __forceinline__ void store(T* p, const Share& share, const Pack<T, N>& x) {
    if (share.whole) {
        store_pack(p + share.first, x);
        return;
    }
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < N; ++i)
        if (i < share.count) p[share.first + i * share.stride] = x.of[i];
}

// ---- copies to shared memory and back -------------------------------------------------------------------------------

// Calls one(i) and pack(i) so that together they cover elements [phase, end) of a tile, for all of `threads` threads,
// not fewer than a sector has elements. Whole sectors go by packs, what is left at either end element by element.
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
        for (int i = thread - phase_of(to); i < count; i += threads)
            if (i >= 0) to[i] = from[i];
        return;
    }
    cover<T>(
        phase, phase + count, thread, threads, [&](int i) { to[i - phase] = from[i - phase]; },
        [&](int i) { store_pack(to + (i - phase), load_pack<pack_size<T>>(from + (i - phase))); });
}

}  // namespace tilefuse::cuda
