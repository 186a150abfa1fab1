// The twin of csrc/cuda/device.cuh: the same functions, executed by fibres. Each is inlined into the kernel, so that a
// finding has the kernel's line.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <source_location>

#include "simt/cuda_runtime.h"
#include "simt/half.h"

namespace simt {

using Where = std::source_location;

// ---- what the executor does for a running thread (block.cpp, warp.cpp, copies.cpp, matrix.cpp) ----------------------

// A shared array: one such object for each declaration in the source.
struct SharedSite {
    const char* name;
    uint64_t block = 0;  // the block whose array `memory` is
    void* memory = nullptr;
};
void* shared_array(SharedSite&, size_t bytes, size_t alignment, Where);
void* dynamic_shared_memory();

void block_barrier(Where);

// Lanes of a warp meet: each gives its data and waits until all lanes in its mask have come to the same operation with
// the same mask; the last one to come runs it on everyone's data.
enum class Operation : uint8_t { barrier, shuffle, ballot, mma, load_matrices };
struct ShuffleData {
    uint64_t value;
    int lane;  // whose value is wanted
    uint64_t result;
};
struct BallotData {
    bool predicate;
    unsigned lanes;
};
enum class Elements : uint8_t { tf32, bf16, f16 };
struct MmaData {
    float* d;
    const uint32_t *a, *b;
    Elements elements;
};
struct MatrixData {
    const void* row;
    uint32_t* fragment;
    bool transposed;
};
void meet(Operation, unsigned mask, void* data, Where);
int lane_index();

void copy_async(void* to, const void* from, int bytes, Where);
void copy_async_commit();
void copy_async_wait(int pending);

// ---- accesses that are one instruction on a GPU, and several or none to the compiler's instrumentation --------------

enum class Access : uint8_t { read, write, atomic };
void misaligned(const void* p, size_t bytes, Where);
void see(const void* p, size_t bytes, Access);  // as an instrumented access by the caller

__forceinline__ void touch(const void* p, size_t bytes, Access access, Where where) {
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) misaligned(p, bytes, where);
    if constexpr (checked) see(p, bytes, access);
}
template <class T> TILEFUSE_SIMT_UNSEEN inline T load_unseen(const T* p) { return *p; }
template <class T> TILEFUSE_SIMT_UNSEEN inline void store_unseen(T* p, const T& x) { *p = x; }

template <class T, class... Types> concept one_of = (std::same_as<T, Types> || ...);

// *p = f(*p), atomically: only one fibre runs at a time. Returns the old value.
template <class T, class F> __forceinline__ T atomic(T* p, F f, Where where) {
    touch(p, sizeof(T), Access::atomic, where);
    const T old = load_unseen(p);
    store_unseen(p, f(old));
    return old;
}

}  // namespace simt

// ---- what every device function may call ----------------------------------------------------------------------------

__forceinline__ float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
__forceinline__ unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
__forceinline__ float __int_as_float(int x) { return std::bit_cast<float>(x); }
__forceinline__ int __float_as_int(float x) { return std::bit_cast<int>(x); }
__forceinline__ float __fadd_rn(float x, float y) { return x + y; }
__forceinline__ float __fmul_rn(float x, float y) { return x * y; }
__forceinline__ float __fdiv_rn(float x, float y) { return x / y; }
__forceinline__ float __fsqrt_rn(float x) { return std::sqrt(x); }
__forceinline__ float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
__forceinline__ float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
__forceinline__ int __popc(unsigned x) { return std::popcount(x); }
__forceinline__ int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
__forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
__forceinline__ unsigned __umulhi(unsigned x, unsigned y) {
    return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32);
}
template <class T> requires std::integral<T> __forceinline__ T min(T x, T y) { return y < x ? y : x; }
template <class T> requires std::integral<T> __forceinline__ T max(T x, T y) { return x < y ? y : x; }
__forceinline__ float min(float x, float y) { return std::fmin(x, y); }
__forceinline__ float max(float x, float y) { return std::fmax(x, y); }
__forceinline__ double min(double x, double y) { return std::fmin(x, y); }
__forceinline__ double max(double x, double y) { return std::fmax(x, y); }

#define TILEFUSE_UNROLL_ALL TILEFUSE_PRAGMA(GCC unroll 64)
#define TILEFUSE_UNROLL(n) TILEFUSE_PRAGMA(GCC unroll n)
#define TILEFUSE_PRAGMA(text) _Pragma(#text)

namespace tilefuse::cuda {

using simt::Where;

// ---- shared memory --------------------------------------------------------------------------------------------------

template <class T> struct SharedType {
    using type = T;
};

#define TILEFUSE_SHARED(type_, name)                                                                                   \
    static constinit ::simt::SharedSite name##_site{#name};                                                            \
    auto& name = *static_cast<typename ::tilefuse::cuda::SharedType<type_>::type*>(::simt::shared_array(               \
        name##_site, sizeof(typename ::tilefuse::cuda::SharedType<type_>::type),                                       \
        alignof(typename ::tilefuse::cuda::SharedType<type_>::type), ::simt::Where::current()))

template <class T> __forceinline__ T* dynamic_shared() { return static_cast<T*>(simt::dynamic_shared_memory()); }

// ---- warps ----------------------------------------------------------------------------------------------------------

constexpr int warp_size = 32;
constexpr unsigned whole_warp = 0xffffffffu;

__forceinline__ void block_barrier(Where where = Where::current()) { simt::block_barrier(where); }
__forceinline__ void warp_barrier(unsigned mask = whole_warp, Where where = Where::current()) {
    simt::meet(simt::Operation::barrier, mask, nullptr, where);
}

// `lane` may be any number: its low five bits count.
template <class T> __forceinline__ T shuffle_from(T x, int lane, unsigned mask, Where where) {
    static_assert(simt::one_of<T, int, unsigned, long, unsigned long, long long, unsigned long long, float, double,
                               __half, __nv_bfloat16, __half2, __nv_bfloat162>);
    simt::ShuffleData data{0, lane, 0};
    std::memcpy(&data.value, &x, sizeof x);
    simt::meet(simt::Operation::shuffle, mask, &data, where);
    std::memcpy(&x, &data.result, sizeof x);
    return x;
}
template <class T>
__forceinline__ T shuffle(T x, int lane, unsigned mask = whole_warp, Where where = Where::current()) {
    return shuffle_from(x, lane & 31, mask, where);
}
template <class T>
__forceinline__ T shuffle_xor(T x, int lane_mask, unsigned mask = whole_warp, Where where = Where::current()) {
    const int lane = simt::lane_index(), from = lane ^ lane_mask;
    return shuffle_from(x, from >= 0 && from < warp_size ? from : lane, mask, where);
}
template <class T>
__forceinline__ T shuffle_down(T x, unsigned delta, unsigned mask = whole_warp, Where where = Where::current()) {
    const unsigned lane = simt::lane_index();
    return shuffle_from(x, static_cast<int>(delta < warp_size - lane ? lane + delta : lane), mask, where);
}
template <class T>
__forceinline__ T shuffle_up(T x, unsigned delta, unsigned mask = whole_warp, Where where = Where::current()) {
    const unsigned lane = simt::lane_index();
    return shuffle_from(x, static_cast<int>(delta <= lane ? lane - delta : lane), mask, where);
}
__forceinline__ unsigned ballot(bool p, unsigned mask = whole_warp, Where where = Where::current()) {
    simt::BallotData data{p, 0};
    simt::meet(simt::Operation::ballot, mask, &data, where);
    return data.lanes;
}
__forceinline__ bool any(bool p, unsigned mask = whole_warp, Where where = Where::current()) {
    return ballot(p, mask, where) != 0;
}
__forceinline__ bool all(bool p, unsigned mask = whole_warp, Where where = Where::current()) {
    return ballot(!p, mask, where) == 0;
}

// ---- atomics: each returns the old value; of the types that a GPU has them for --------------------------------------

template <class T> __forceinline__ T atomic_add(T* p, T x, Where where = Where::current()) {
    static_assert(simt::one_of<T, int, unsigned, unsigned long long, float, double, __half, __nv_bfloat16>);
    return simt::atomic(p, [&](T old) { return static_cast<T>(old + x); }, where);
}
template <class T> __forceinline__ T atomic_max(T* p, T x, Where where = Where::current()) {
    static_assert(simt::one_of<T, int, unsigned, long long, unsigned long long>);
    return simt::atomic(p, [&](T old) { return old < x ? x : old; }, where);
}
template <class T> __forceinline__ T atomic_min(T* p, T x, Where where = Where::current()) {
    static_assert(simt::one_of<T, int, unsigned, long long, unsigned long long>);
    return simt::atomic(p, [&](T old) { return x < old ? x : old; }, where);
}
template <class T> __forceinline__ T atomic_exchange(T* p, T x, Where where = Where::current()) {
    static_assert(simt::one_of<T, int, unsigned, unsigned long long, float>);
    return simt::atomic(p, [&](T) { return x; }, where);
}
template <class T> __forceinline__ T atomic_compare_exchange(T* p, T expected, T x, Where where = Where::current()) {
    static_assert(simt::one_of<T, int, unsigned, unsigned short, unsigned long long>);
    return simt::atomic(p, [&](T old) { return old == expected ? x : old; }, where);
}

// ---- registers ------------------------------------------------------------------------------------------------------

__forceinline__ int made_here(int x) { return x; }

// ---- several elements in one access ---------------------------------------------------------------------------------

template <class T, int N> struct alignas(sizeof(T) * N) Pack {
    T of[N];
};

template <int N, class T> __forceinline__ Pack<T, N> load_pack(const T* p, Where where = Where::current()) {
    simt::touch(p, sizeof(T) * N, simt::Access::read, where);
    return simt::load_unseen(reinterpret_cast<const Pack<T, N>*>(p));
}
template <int N, class T>
__forceinline__ void store_pack(T* p, const Pack<T, N>& pack, Where where = Where::current()) {
    simt::touch(p, sizeof(T) * N, simt::Access::write, where);
    simt::store_unseen(reinterpret_cast<Pack<T, N>*>(p), pack);
}

// ---- asynchronous copies from global to shared memory, 16 bytes each ------------------------------------------------
// They happen as late as they may: when the thread waits for them.

__forceinline__ void copy_async(void* to, const void* from, int bytes = 16, Where where = Where::current()) {
    simt::copy_async(to, from, bytes, where);
}
__forceinline__ void copy_async_commit() { simt::copy_async_commit(); }
template <int Pending> __forceinline__ void copy_async_wait() {
    static_assert(Pending >= 0);
    simt::copy_async_wait(Pending);
}

// ---- matrix units ---------------------------------------------------------------------------------------------------
// More exact than a GPU's: sums are made in double and rounded once.

// To nearest, ties away from zero; as on a GPU, the low 13 bits are open.
__forceinline__ uint32_t to_tf32(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return (bits & 0x007fffffu) ? 0x7fffffffu : bits;
    return bits + 0x1000u;
}

__forceinline__ void mma(simt::Elements elements, float* d, const uint32_t* a, const uint32_t* b, Where where) {
    simt::MmaData data{d, a, b, elements};
    simt::meet(simt::Operation::mma, whole_warp, &data, where);
}
__forceinline__ void mma_tf32_m16n8k8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                      Where where = Where::current()) {
    mma(simt::Elements::tf32, d, a, b, where);
}
__forceinline__ void mma_bf16_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                       Where where = Where::current()) {
    mma(simt::Elements::bf16, d, a, b, where);
}
__forceinline__ void mma_f16_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                      Where where = Where::current()) {
    mma(simt::Elements::f16, d, a, b, where);
}

__forceinline__ void load_matrices(uint32_t (&fragment)[4], const void* row, bool transposed,
                                   Where where = Where::current()) {
    simt::MatrixData data{row, fragment, transposed};
    simt::meet(simt::Operation::load_matrices, whole_warp, &data, where);
}

}  // namespace tilefuse::cuda
