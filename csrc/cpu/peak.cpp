// Multiply-adds and nothing else: the arithmetic that the processor can do at most.
#include "common/dtype.h"
#include "cpu/amx.h"
#include "cpu/bfloat16.h"
#include "cpu/kernels.h"

namespace tilefuse::inline TILEFUSE_ISA {
namespace {

// Enough for two FMA units of latency 4 or 5, and few enough for 16 registers.
constexpr int chains = 12;

// Of numbers, or pairs of them.
template <class E> double peak_of(Team& team, int64_t turns) {
    using T = Sum<E>;
    T* const memory = team.scratch<T>();
    std::memset(memory, 0, peak_scratch);
    asm volatile("" ::"r"(memory) : "memory");  // the compiler must not know that they are zeros
    const Vec<E> x = (Vec<E>)splat(memory[0]), y = (Vec<E>)splat(memory[1]);
    Vec<T> sums[chains];
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = load(memory + i * lanes<T>);
    for (int64_t turn = 0; turn < turns; ++turn) {
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) {
            if constexpr (is_pair<E>) {
                sums[i] = add_products<E>(x, y, sums[i]);
            } else {
                sums[i] = sums[i] * x + y;  // (a product of x and y would be made once)
            }
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) store(memory + i * lanes<T>, sums[i]);
    return 2.0 * chains * lanes<E> * (is_pair<E> ? 2 : 1) * static_cast<double>(turns) * team.size;
}
static_assert(chains * sizeof(Vec<float>) <= peak_scratch);

#if defined(TILEFUSE_TILES)
double peak_of_tiles(Team& team, int64_t turns) {
    TileRegisters registers;
    char* const memory = team.scratch<char>();
    std::memset(memory, 0, peak_scratch);
    tiles_read_memory(memory);
    TILEFUSE_TILE_ZERO(0);
    TILEFUSE_TILE_ZERO(1);
    TILEFUSE_TILE_ZERO(2);
    TILEFUSE_TILE_ZERO(3);
    TILEFUSE_TILE_LOAD(4, memory, 64);
    TILEFUSE_TILE_LOAD(5, memory, 64);
    TILEFUSE_TILE_LOAD(6, memory, 64);
    TILEFUSE_TILE_LOAD(7, memory, 64);
    for (int64_t turn = 0; turn < turns; turn += 16) {  // they take about as long as 16 of the others
        TILEFUSE_TILE_PRODUCT(0, 4, 6);
        TILEFUSE_TILE_PRODUCT(1, 4, 7);
        TILEFUSE_TILE_PRODUCT(2, 5, 6);
        TILEFUSE_TILE_PRODUCT(3, 5, 7);
    }
    TILEFUSE_TILE_STORE(0, memory, 64);
    return 2.0 * 4 * 16 * 16 * 32 * static_cast<double>((turns + 15) / 16) * team.size;
}
static_assert(peak_scratch >= 16 * 64);
#endif

}  // namespace

double peak(Team& team, tilefuse_dtype dtype, tilefuse_precision precision, int64_t turns) {
    if (dtype == TILEFUSE_FLOAT32 && precision == TILEFUSE_PRECISION_BFLOAT16) {
#if defined(TILEFUSE_TILES)
        return peak_of_tiles(team, turns);
#elif TILEFUSE_MULTIPLIES_PAIRS
        return peak_of<Pair>(team, turns);
#endif
    }
#if defined(TILEFUSE_BASE_ISA)
    return TILEFUSE_BASE_ISA::table().peak(team, dtype, precision, turns);
#else
    double operations = 0;
    by_dtype(dtype, [&](auto zero) { operations = peak_of<decltype(zero)>(team, turns); });
    return operations;
#endif
}

}  // namespace tilefuse::inline TILEFUSE_ISA
