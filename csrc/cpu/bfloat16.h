// Rounding to bfloat16: the upper 16 bits of a float32.
#pragma once

#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

typedef uint32_t Words __attribute__((vector_size(TILEFUSE_VECTOR_BYTES)));

// bfloat16 numbers in the upper halves of words: the nearest ones to x, ties to even. NaN stays NaN.
inline Words rounded(Vec<float> x) {
    const Words bits = (Words)x, up = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    return x == x ? up : (bits | 0x00400000u) & 0xffff0000u;
}

// One number of 16 bits.
inline float widened(uint16_t bits) {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float x;
    std::memcpy(&x, &word, sizeof x);
    return x;
}
inline uint16_t narrowed(float x) {
    uint32_t word;
    std::memcpy(&word, &x, sizeof word);
    return static_cast<uint16_t>((x == x ? word + 0x7fff + (word >> 16 & 1) : word | 0x00400000u) >> 16);
}

inline void round_to_bfloat16(int64_t n, float* x) {
    for_vectors<float>(n, [&](int64_t i, int count) { store_upto(x + i, (Vec<float>)rounded(load_upto(x + i, count)), count); });
}
inline void round_to_bfloat16(int64_t, double*) {}  // float64 has but one precision

}  // namespace tilefuse::inline TILEFUSE_ISA
