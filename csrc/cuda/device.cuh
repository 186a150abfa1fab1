// What device code uses beyond plain C++: shared memory, warps, atomics, 16-byte accesses, matrix units, asynchronous
// copies. The only file with intrinsics and inline PTX; csrc/simt/device.h is its twin, which executes them on a CPU.
#pragma once

#if defined(TILEFUSE_SIMT)
#include "simt/device.h"
#else

#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// Before a loop. TILEFUSE_UNROLL_ALL: a copy of its body for each of its passes, whose number the compiler must know;
// so arrays that it goes through are registers. TILEFUSE_UNROLL(n): n copies. (Not for all of them: from compute_100 on
// nvcc 13.0 then unrolls late, and takes minutes for what otherwise takes seconds.)
#define TILEFUSE_UNROLL_ALL TILEFUSE_PRAGMA(unroll)
#define TILEFUSE_UNROLL(n) TILEFUSE_PRAGMA(unroll n)
#define TILEFUSE_PRAGMA(text) _Pragma(#text)

namespace tilefuse::cuda {

// ---- shared memory --------------------------------------------------------------------------------------------------

template <class T> struct SharedType {
    using type = T;
};

// TILEFUSE_SHARED(float[32][33], tile): an array that the threads of a block share, not initialised.
// It is aligned to 16 bytes, for packs.
#define TILEFUSE_SHARED(type_, name) __shared__ __align__(16) typename ::tilefuse::cuda::SharedType<type_>::type name

// The shared memory that the launch asked for, 16-byte aligned.
template <class T> __device__ __forceinline__ T* dynamic_shared() {
    extern __shared__ int4 tilefuse_dynamic_shared_memory[];
    return reinterpret_cast<T*>(tilefuse_dynamic_shared_memory);
}

// ---- warps ----------------------------------------------------------------------------------------------------------

constexpr int warp_size = 32;
constexpr unsigned whole_warp = 0xffffffffu;

__device__ __forceinline__ void block_barrier() { __syncthreads(); }
__device__ __forceinline__ void warp_barrier(unsigned mask = whole_warp) { __syncwarp(mask); }

template <class T> __device__ __forceinline__ T shuffle(T x, int lane, unsigned mask = whole_warp) {
    return __shfl_sync(mask, x, lane);
}
template <class T> __device__ __forceinline__ T shuffle_xor(T x, int lane_mask, unsigned mask = whole_warp) {
    return __shfl_xor_sync(mask, x, lane_mask);
}
template <class T> __device__ __forceinline__ T shuffle_down(T x, unsigned delta, unsigned mask = whole_warp) {
    return __shfl_down_sync(mask, x, delta);
}
template <class T> __device__ __forceinline__ T shuffle_up(T x, unsigned delta, unsigned mask = whole_warp) {
    return __shfl_up_sync(mask, x, delta);
}
__device__ __forceinline__ unsigned ballot(bool p, unsigned mask = whole_warp) { return __ballot_sync(mask, p); }
__device__ __forceinline__ bool any(bool p, unsigned mask = whole_warp) { return __any_sync(mask, p); }
__device__ __forceinline__ bool all(bool p, unsigned mask = whole_warp) { return __all_sync(mask, p); }

// ---- atomics: each returns the old value --------------------------------------------------------------------------

template <class T> __device__ __forceinline__ T atomic_add(T* p, T x) { return atomicAdd(p, x); }
template <class T> __device__ __forceinline__ T atomic_max(T* p, T x) { return atomicMax(p, x); }
template <class T> __device__ __forceinline__ T atomic_min(T* p, T x) { return atomicMin(p, x); }
template <class T> __device__ __forceinline__ T atomic_exchange(T* p, T x) { return atomicExch(p, x); }
template <class T> __device__ __forceinline__ T atomic_compare_exchange(T* p, T expected, T x) {
    return atomicCAS(p, expected, x);
}

// ---- registers ------------------------------------------------------------------------------------------------------

// x; what is made of it is made here, each time, instead of being kept in registers from before a loop.
__device__ __forceinline__ int made_here(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

// ---- several elements in one access ---------------------------------------------------------------------------------

// N elements that are loaded and stored together: sizeof(T) * N is 4, 8 or 16 bytes, and so is the address's alignment.
template <class T, int N> struct alignas(sizeof(T) * N) Pack {
    T of[N];
};

template <int N, class T> __device__ __forceinline__ Pack<T, N> load_pack(const T* p) {
    return *reinterpret_cast<const Pack<T, N>*>(p);
}
template <int N, class T> __device__ __forceinline__ void store_pack(T* p, const Pack<T, N>& pack) {
    *reinterpret_cast<Pack<T, N>*>(p) = pack;
}

// ---- asynchronous copies from global to shared memory, 16 bytes each ------------------------------------------------

// Of `from`, the first `bytes` are read; zeros take the place of the others.
__device__ __forceinline__ void copy_async(void* to, const void* from, int bytes = 16) {
#if __CUDA_ARCH__ >= 800
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(bytes)
                 : "memory");
#else
    for (int i = 0; i < 16; ++i) static_cast<char*>(to)[i] = i < bytes ? static_cast<const char*>(from)[i] : char{0};
#endif
}
__device__ __forceinline__ void copy_async_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
// Until all but the last `Pending` groups of this thread have arrived; other threads see them after a barrier.
template <int Pending> __device__ __forceinline__ void copy_async_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
#endif
}

// ---- matrix units ------------------------------------------------------------------------------------------------
// Fragments as in the PTX ISA, "Matrix fragments for mma.m16n8k8" and "... mma.m16n8k16"; d += a b.

// The low 13 bits are open; matrix units don't read them.
__device__ __forceinline__ uint32_t to_tf32(float x) {
#if __CUDA_ARCH__ >= 800
    uint32_t y;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(y) : "f"(x));
    return y;
#else
    return __float_as_uint(x);
#endif
}

__device__ __forceinline__ void mma_tf32_m16n8k8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

__device__ __forceinline__ void mma_bf16_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

__device__ __forceinline__ void mma_f16_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Four 8 x 8 matrices of 16-bit elements from shared memory; lane i gives the address of row i % 8 of matrix i / 8. All
// lanes agree on `transposed`, which may be known at run time alone: then it is one of two instructions, without a branch.
__device__ __forceinline__ void load_matrices(uint32_t (&fragment)[4], const void* row, bool transposed) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("{\n.reg .pred p;\nsetp.ne.s32 p, %5, 0;\n"
                 "@!p ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 "@p ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n}\n"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(address), "r"(static_cast<int>(transposed))
                 : "memory");
}
}  // namespace tilefuse::cuda

#endif
