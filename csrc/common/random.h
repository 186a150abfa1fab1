// Random numbers from a counter: a function of (key, counter) without state, the same on every device and
// thread.
#pragma once

#include "common/math.h"

namespace tilefuse::inline TILEFUSE_ISA {

// Four 32-bit words, each in the low half of a V = uint64_t or a vector of them; the high halves hold
// anything.
template <class V> struct Words {
    V w[4];
};

// Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11, 2011.
// multiply(a, b) is the 64-bit product of the low halves.
template <class V, class Multiply>
TILEFUSE_INLINE Words<V> philox4x32(Words<V> c, uint64_t key, Multiply multiply) {
    uint32_t key_0 = static_cast<uint32_t>(key), key_1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const V p0 = multiply(c.w[0], 0xD2511F53u), p1 = multiply(c.w[2], 0xCD9E8D57u);
        c = {{(p1 >> 32) ^ c.w[1] ^ static_cast<uint64_t>(key_0), p1,
              (p0 >> 32) ^ c.w[3] ^ static_cast<uint64_t>(key_1), p0}};
        key_0 += 0x9E3779B9u;
        key_1 += 0xBB67AE85u;
    }
    return c;
}

// A dropout mask's layout: elements come in groups of 64, made by 16 counters of 4 words each. Element r of
// group g is kept if word r / 16 of counter 16 g + r % 16 is at least dropout_threshold(rate); so neighbours
// sit in one vector.
inline constexpr int dropout_lanes = 16, dropout_group = 64;

TILEFUSE_INLINE uint32_t dropout_threshold(double rate) { return static_cast<uint32_t>(rate * 4294967296.0); }

// The words of `counter` (with the step as its upper half) under the key `seed`.
template <class V, class Multiply>
TILEFUSE_INLINE Words<V> dropout_words(V counter, uint64_t step, uint64_t seed, Multiply multiply) {
    return philox4x32<V>({{counter, counter >> 32, V{} + step, V{} + (step >> 32)}}, seed, multiply);
}

}  // namespace tilefuse::inline TILEFUSE_ISA
