// Small products on matrix units: how float32 operands become fragments, and how fragments are multiplied.
//
// A Multiplier has `depth`, the k of one product; FragmentA and FragmentB, what a lane holds of 16 rows of A and 8 columns
// of B; and add(sums, a, b). Lane (g, t) = (lane / 4, lane % 4) makes them from A's elements in rows g and g + 8, one
// after the other, and B's in column g, at k = t, t + 4, ... (The 16-bit instructions number k otherwise, but the order is
// ours to choose as long as it is the same for both.) Of the sums it holds columns 2 t and 2 t + 1 of row g, then of g + 8.
#pragma once

#include "common/math.h"
#include "cuda/device.cuh"
#include "cuda/launch.h"

namespace tilefuse::cuda {

// x = of[0] + of[1] + of[2], tf32 numbers of decreasing size: exactly, but for denormals. Infinity has no other parts,
// NaN stays NaN, and the largest numbers don't become infinite. `finite` is of[0] or, instead of infinity and NaN, 0:
// what is multiplied with the other factor's small parts, which may be 0.
struct Parts {
    uint32_t of[3], finite;
    __device__ __forceinline__ explicit Parts(float x) {
        const float largest = __uint_as_float(0x7f7fe000u);
        const uint32_t whole = 0xffffe000u;  // to_tf32 leaves the other bits open
        of[0] = x != x ? 0x7fffe000u : (x <= largest && x >= -largest ? to_tf32(x) : __float_as_uint(x)) & whole;
        const float rest = x - __uint_as_float(of[0]);
        of[1] = rest == rest ? to_tf32(rest) & whole : 0;
        of[2] = rest == rest ? to_tf32(rest - __uint_as_float(of[1])) : 0;
        finite = rest == rest ? of[0] : 0;
    }
};

// As accurate as multiply-adds in float32: the products of parts that count, the smallest first. (With two parts and their
// four products, sums of fewer than 16 products are up to 2.4 times less accurate than by FMA.)
struct Split {
    using Element = float;
    static constexpr int depth = 8;

    template <int Count> struct Fragment {
        uint32_t of[3][Count], finite[Count];
        Fragment() = default;
        __device__ __forceinline__ explicit Fragment(const float (&x)[Count]) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < Count; ++i) {
                const Parts parts(x[i]);
                TILEFUSE_UNROLL_ALL
                for (int part = 0; part < 3; ++part) of[part][i] = parts.of[part];
                finite[i] = parts.finite;
            }
        }
    };
    using FragmentA = Fragment<4>;
    using FragmentB = Fragment<2>;

    static __device__ __forceinline__ void add(float (&sums)[4], const FragmentA& a, const FragmentB& b) {
        // Tensor cores cut off what they add to a sum (Fasi, Higham, Mikaitis, Pranesh: Numerical behavior of NVIDIA tensor
        // cores, 2021), which over many steps drifts one way: the long sum is made by rounded additions (Ootomo, Yokota:
        // Recovering single precision accuracy from Tensor Cores, 2022).
        float products[4] = {};
        mma_tf32_m16n8k8(products, a.of[2], b.finite);
        mma_tf32_m16n8k8(products, a.finite, b.of[2]);
        mma_tf32_m16n8k8(products, a.of[1], b.of[1]);
        mma_tf32_m16n8k8(products, a.of[1], b.finite);
        mma_tf32_m16n8k8(products, a.finite, b.of[1]);
        mma_tf32_m16n8k8(products, a.of[0], b.of[0]);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < 4; ++i) sums[i] += products[i];
    }
};

// Operands rounded to tf32: 11 bits, float32's range.
struct Tf32 {
    using Element = float;
    static constexpr int depth = 8;

    template <int Count> struct Fragment {
        uint32_t of[Count];
        Fragment() = default;
        __device__ __forceinline__ explicit Fragment(const float (&x)[Count]) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < Count; ++i) of[i] = to_tf32(x[i]);
        }
    };
    using FragmentA = Fragment<4>;
    using FragmentB = Fragment<2>;

    static __device__ __forceinline__ void add(float (&sums)[4], const FragmentA& a, const FragmentB& b) {
        mma_tf32_m16n8k8(sums, a.of, b.of);
    }
};

// The formats of 16 bits.
struct Bfloat16 {
    static __device__ __forceinline__ uint32_t pair(float x, float y) {
        return bits_as<uint32_t>(__floats2bfloat162_rn(x, y));
    }
    static __device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        mma_bf16_m16n8k16(d, a, b);
    }
};
struct Float16 {
    static __device__ __forceinline__ uint32_t pair(float x, float y) {
        return bits_as<uint32_t>(__floats2half2_rn(x, y));
    }
    static __device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        mma_f16_m16n8k16(d, a, b);
    }
};

// Operands rounded to one of them.
template <class Format> struct Rounded {
    using Element = float;
    static constexpr int depth = 16;

    struct FragmentA {
        uint32_t of[4];
        __device__ __forceinline__ explicit FragmentA(const float (&x)[8]) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < 4; ++i) of[i] = Format::pair(x[i / 2 * 4 + i % 2], x[i / 2 * 4 + i % 2 + 2]);
        }
    };
    struct FragmentB {
        uint32_t of[2];
        __device__ __forceinline__ explicit FragmentB(const float (&x)[4])
            : of{Format::pair(x[0], x[1]), Format::pair(x[2], x[3])} {}
    };

    static __device__ __forceinline__ void add(float (&sums)[4], const FragmentA& a, const FragmentB& b) {
        Format::multiply(sums, a.of, b.of);
    }
};

// Operands that lie in shared memory in one of them: the instruction's own order of k.
template <class Format> struct Stored {
    using Element = uint16_t;
    static constexpr int depth = 16;

    static __device__ __forceinline__ uint32_t pair(float x, float y) { return Format::pair(x, y); }

    template <int Count> struct Fragment {
        uint32_t of[Count];
        Fragment() = default;
        __device__ __forceinline__ explicit Fragment(const uint32_t (&words)[Count]) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < Count; ++i) of[i] = words[i];
        }
    };
    using FragmentA = Fragment<4>;
    using FragmentB = Fragment<2>;

    static __device__ __forceinline__ void add(float (&sums)[4], const FragmentA& a, const FragmentB& b) {
        Format::multiply(sums, a.of, b.of);
    }
};

// Tensor cores for these formats came with sm_80: the code that runs here must have been compiled for it, as well. (PTX
// for sm_75 runs on later GPUs, too.)
template <class... Parameters> bool has_matrix_units(const Kernel<Parameters...>& kernel) {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel.function)), kernel.name);
    return attributes.ptxVersion >= 80;
}

}  // namespace tilefuse::cuda
