// Sums and maxima over some lanes of a warp or over a block. The order is fixed, and every thread gets the same bits.
#pragma once

#include "cuda/packs.cuh"

namespace tilefuse::cuda {

struct Add {
    template <class T> __device__ __forceinline__ T operator()(T x, T y) const { return x + y; }
};
struct Smallest {
    template <class T> __device__ __forceinline__ T operator()(T x, T y) const { return y < x ? y : x; }
};
struct Largest {
    template <class T> __device__ __forceinline__ T operator()(T x, T y) const { return y > x ? y : x; }
};

// Over `lanes` neighbouring lanes, a power of two up to a warp's. All lanes of the warp must call it.
template <class T, class Combine> __device__ __forceinline__ T reduce_lanes(T x, int lanes, Combine combine) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) x = combine(x, shuffle_xor(x, distance));
    return x;
}

// Over a block of whole warps, all of which must call it. `nothing` changes nothing when combined.
template <class T, class Combine> __device__ __forceinline__ T reduce_block(T x, T nothing, Combine combine) {
    TILEFUSE_SHARED(T[warp_size], of_warps);
    const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
    x = reduce_lanes(x, warp_size, combine);
    block_barrier();  // what an earlier call left there has been read
    if (lane == 0) of_warps[warp] = x;
    block_barrier();
    const int warps = static_cast<int>(blockDim.x) / warp_size;
    return reduce_lanes(lane < warps ? of_warps[lane] : nothing, warp_size, combine);
}

// The sum of term(i) over [begin, end), for all threads of a block: elements 0, 256, ... of the range are one chain,
// 1, 257, ... the next, and a fixed tree adds up the chains. `term` reads `x`. Each warp's accesses begin where a
// sector does; which thread has which chain depends on that, and the bits don't, as they would by packs.
template <class T, class Term>
__device__ __forceinline__ double sum_of_block(const T* x, int64_t begin, int64_t end, Term term) {
    TILEFUSE_SHARED(double[threads_of_block], chains);
    const int thread = static_cast<int>(threadIdx.x), phase = phase_of(x + begin);
    double sum = 0;
    TILEFUSE_UNROLL(8)
    for (int64_t i = begin - phase + thread; i < end; i += threads_of_block)
        if (i >= begin) sum += term(i);
    if (phase != 0) {
        chains[(thread - phase) & (threads_of_block - 1)] = sum;
        block_barrier();
        sum = chains[thread];
    }
    return reduce_block(sum, 0.0, Add{});
}

}  // namespace tilefuse::cuda
