// Multiply-adds and nothing else: the arithmetic that the processor can do at most.
#include "common/dtype.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {
namespace {

// Enough for two FMA units of latency 4 or 5, and few enough for 16 registers.
constexpr int chains = 12;

template <class T> double peak_of(Team& team, int64_t turns) {
    T* const memory = team.scratch<T>();
    std::memset(memory, 0, peak_scratch);
    asm volatile("" ::"r"(memory) : "memory");  // the compiler must not know that they are zeros
    const Vec<T> x = splat(memory[0]), y = splat(memory[1]);
    Vec<T> sums[chains];
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = load(memory + i * lanes<T>);
    for (int64_t turn = 0; turn < turns; ++turn) {
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) sums[i] = sums[i] * x + y;
    }
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) store(memory + i * lanes<T>, sums[i]);
    return 2.0 * chains * lanes<T> * static_cast<double>(turns) * team.size;
}
static_assert(chains * sizeof(Vec<float>) <= peak_scratch);

}  // namespace

double peak(Team& team, tilefuse_dtype dtype, int64_t turns) {
    double operations = 0;
    by_dtype(dtype, [&](auto zero) { operations = peak_of<decltype(zero)>(team, turns); });
    return operations;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
