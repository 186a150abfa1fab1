// Elementwise kernels: 16 bytes of an array in one access where its address allows, element by element where not.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device.cuh"
#include "cuda/launch.h"

namespace tilefuse::cuda {

template <class T> constexpr int pack_size = 16 / sizeof(T);

inline bool packs_fit(std::initializer_list<const void*> arrays) {
    return std::all_of(arrays.begin(), arrays.end(), [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; });
}

constexpr int threads_of_block = 256;

// Blocks in which every thread has one pack. A grid has at most 2^31 - 1 of them: 2^41 elements.
template <class T> dim3 blocks_for(int64_t elements) {
    const int64_t share = threads_of_block * pack_size<T>;
    return dim3(static_cast<unsigned>((elements + share - 1) / share));
}

// Loads and stores up to N elements, whole packs at once if the address allows.
template <int N, class T> __device__ __forceinline__ Pack<T, N> load_upto(const T* p, int64_t count, bool packs) {
    if (packs && count >= N) return load_pack<N>(p);
    Pack<T, N> x = {};
    TILEFUSE_UNROLL(16)
    for (int i = 0; i < N; ++i)
        if (i < count) x.of[i] = p[i];
    return x;
}
template <int N, class T> __device__ __forceinline__ void store_upto(T* p, const Pack<T, N>& x, int64_t count, bool packs) {
    if (packs && count >= N) {
        store_pack(p, x);
        return;
    }
    TILEFUSE_UNROLL(16)
    for (int i = 0; i < N; ++i)
        if (i < count) p[i] = x.of[i];
}

// body(i, n, whole): elements [i, i + n) are this thread's; `whole` means a pack that can be loaded at once. Threads that
// take single elements take neighbouring ones, so that a warp's access has no gaps. For kernels launched on blocks_for.
template <class T, class Body> __device__ __forceinline__ void for_share(int64_t elements, bool packs, Body body) {
    constexpr int n = pack_size<T>;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * (threads_of_block * n);
    if (packs) {
        const int64_t i = first + static_cast<int64_t>(threadIdx.x) * n;
        if (i < elements) body(i, elements - i < n ? static_cast<int>(elements - i) : n, elements - i >= n);
        return;
    }
    for (int part = 0; part < n; ++part) {
        const int64_t i = first + part * threads_of_block + threadIdx.x;
        if (i < elements) body(i, 1, false);
    }
}

}  // namespace tilefuse::cuda
