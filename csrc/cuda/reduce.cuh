// Sums and maxima over some lanes of a warp or over a block. The order is fixed, and every thread gets the same bits.
#pragma once

#include "cuda/device.cuh"

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

}  // namespace tilefuse::cuda
