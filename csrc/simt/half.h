// __half, __nv_bfloat16 and their pairs: the part of cuda_fp16.h and cuda_bf16.h that device code uses. Arithmetic is
// done in float and rounded, to nearest even, once an operation.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace simt {

inline float half_to_float(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
    const float tiny = static_cast<float>(magnitude) * 0x1p-24f;
    return sign ? -tiny : tiny;
}

inline uint16_t float_to_half(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    if (magnitude > 0x7f800000u) return 0x7fff;                  // any NaN: the one that a GPU gives
    if (magnitude >= 0x477ff000u) return sign | 0x7c00u;         // rounds to infinity
    if (magnitude < 0x38800000u) {                               // denormal: float's own addition rounds
        const float sum = std::bit_cast<float>(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3f000000u));
    }
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
}

inline float bfloat16_to_float(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

inline uint16_t float_to_bfloat16(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// A 16-bit float with float's arithmetic.
template <float (*Widen)(uint16_t), uint16_t (*Round)(float)> struct Half {
    uint16_t bits;

    Half() = default;
    template <class N> requires std::is_arithmetic_v<N> Half(N x) : bits(Round(static_cast<float>(x))) {}
    operator float() const { return Widen(bits); }

    friend Half operator+(Half a, Half b) { return Half(Widen(a.bits) + Widen(b.bits)); }
    friend Half operator-(Half a, Half b) { return Half(Widen(a.bits) - Widen(b.bits)); }
    friend Half operator*(Half a, Half b) { return Half(Widen(a.bits) * Widen(b.bits)); }
    friend Half operator/(Half a, Half b) { return Half(Widen(a.bits) / Widen(b.bits)); }
    friend Half operator-(Half a) {
        a.bits ^= 0x8000u;
        return a;
    }
    Half& operator+=(Half b) { return *this = *this + b; }
    Half& operator-=(Half b) { return *this = *this - b; }
    Half& operator*=(Half b) { return *this = *this * b; }
    friend bool operator==(Half a, Half b) { return Widen(a.bits) == Widen(b.bits); }
    friend bool operator!=(Half a, Half b) { return Widen(a.bits) != Widen(b.bits); }
    friend bool operator<(Half a, Half b) { return Widen(a.bits) < Widen(b.bits); }
    friend bool operator>(Half a, Half b) { return Widen(a.bits) > Widen(b.bits); }
    friend bool operator<=(Half a, Half b) { return Widen(a.bits) <= Widen(b.bits); }
    friend bool operator>=(Half a, Half b) { return Widen(a.bits) >= Widen(b.bits); }
};

}  // namespace simt

using __half = simt::Half<simt::half_to_float, simt::float_to_half>;
using __nv_bfloat16 = simt::Half<simt::bfloat16_to_float, simt::float_to_bfloat16>;
using half = __half;

struct alignas(4) __half2 {
    __half x, y;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline float __half2float(__half x) { return x; }
inline __half __ushort_as_half(unsigned short bits) { return std::bit_cast<__half>(bits); }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }

inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return std::bit_cast<__nv_bfloat16>(bits); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
