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

// Blocks in which every thread has one pack. A grid has at most 2^31 - 1 of them: 2^41 bytes.
template <class T> dim3 blocks_for(int64_t elements) {
    const int64_t share = threads_of_block * pack_size<T>;
    return dim3(static_cast<unsigned>((elements + share - 1) / share));
}

// ---- some elements side by side ------------------------------------------------------------------------------------

// Loads and stores up to N elements, whole packs at once if the address allows.
template <int N, class T> __device__ __forceinline__ Pack<T, N> load_upto(const T* p, int64_t count, bool packs) {
    if (packs && count >= N) return load_pack<N>(p);
    Pack<T, N> x = {};
    TILEFUSE_UNROLL(16)
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
    TILEFUSE_UNROLL(16)
    for (int i = 0; i < N; ++i)
        if (i < count) p[i] = x.of[i];
}

// ---- a thread's share of an array ----------------------------------------------------------------------------------

// Up to N elements: side by side, read and written in one access (`whole`); or `count` of them, `stride` apart.
struct Share {
    int64_t first;
    int stride, count;
    bool whole;
};

// What falls to this thread of the elements [begin, end) when each gets up to N. A pack, if all threads get whole ones;
// else neighbouring threads get neighbouring elements, so that a warp's access has no gaps either.
template <int N> __device__ __forceinline__ Share share_of(int64_t begin, int64_t end, bool packs) {
    const int thread = static_cast<int>(threadIdx.x);
    if (packs && end - begin >= N * threads_of_block) return {begin + N * thread, 1, N, true};
    const int64_t left = end - begin - thread, most = N * threads_of_block;
    const int here = static_cast<int>(left < most ? left : most);
    const int count = (here + threads_of_block - 1) / threads_of_block;
    return {begin + thread, threads_of_block, count < 0 ? 0 : count < N ? count : N, false};
}

// The same of [0, elements), for kernels launched on blocks_for.
template <class T> __device__ __forceinline__ Share share_of_block(int64_t elements, bool packs) {
    constexpr int n = pack_size<T>;
    return share_of<n>(static_cast<int64_t>(blockIdx.x) * (threads_of_block * n), elements, packs);
}

// What is beyond `count` is 0.
template <int N, class T> __device__ __forceinline__ Pack<T, N> load(const T* p, const Share& share) {
    if (share.whole) return load_pack<N>(p + share.first);
    Pack<T, N> x = {};
    TILEFUSE_UNROLL(16)
    for (int i = 0; i < N; ++i)
        if (i < share.count) x.of[i] = p[share.first + i * share.stride];
    return x;
}
template <int N, class T> __device__ __forceinline__ void store(T* p, const Share& share, const Pack<T, N>& x) {
    if (share.whole) {
        store_pack(p + share.first, x);
        return;
    }
    TILEFUSE_UNROLL(16)
    for (int i = 0; i < N; ++i)
        if (i < share.count) p[share.first + i * share.stride] = x.of[i];
}

}  // namespace tilefuse::cuda
