// Dropout: the mask from its counters, and its application. A row may begin within a group of the generator's.
#include "common/dtype.h"
#include "common/random.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace tilefuse::inline TILEFUSE_ISA {

namespace {

template <class T> struct BytesOf {
    typedef uint8_t type __attribute__((vector_size(lanes<T>)));
};

typedef uint64_t Counters __attribute__((vector_size(TILEFUSE_VECTOR_BYTES)));
constexpr int counters = TILEFUSE_VECTOR_BYTES / 8;

// The 64-bit products of the low halves: one instruction, which compilers do not find.
Counters multiply(Counters a, uint32_t b) {
    const Counters factor = static_cast<uint64_t>(b) - Counters{};
#if defined(__AVX512F__) && TILEFUSE_VECTOR_BYTES == 64
    return (Counters)_mm512_maskz_mul_epu32((__mmask8)-1, (__m512i)a, (__m512i)factor);
#elif defined(__AVX2__) && TILEFUSE_VECTOR_BYTES == 32
    return (Counters)_mm256_mul_epu32((__m256i)a, (__m256i)factor);
#elif defined(__SSE2__) && TILEFUSE_VECTOR_BYTES == 16
    return (Counters)_mm_mul_epu32((__m128i)a, (__m128i)factor);
#else
    return (a & 0xffffffffu) * factor;
#endif
}

// The 64 bytes of one group.
void mask_of_group(uint64_t group, uint64_t step, uint64_t seed, uint32_t threshold, uint8_t* mask) {
    uint32_t words[dropout_group];
    Counters evens;
    for (int i = 0; i < counters; ++i) evens[i] = 2 * static_cast<uint64_t>(i);
    for (int lane = 0; lane < dropout_lanes; lane += 2 * counters) {
        const Counters counter = evens + (group * dropout_lanes + static_cast<uint64_t>(lane));
        const Words<Counters> even = dropout_words(counter, step, seed, multiply);
        const Words<Counters> odd = dropout_words(counter + 1, step, seed, multiply);
        for (int i = 0; i < 4; ++i) {  // in memory: the word of each even lane, then that of the odd one
            const Counters pairs = (even.w[i] & 0xffffffffu) | (odd.w[i] << 32);
            std::memcpy(words + i * dropout_lanes + lane, &pairs, sizeof pairs);
        }
    }
    for (int i = 0; i < dropout_group; ++i) mask[i] = words[i] >= threshold;
}

}  // namespace

void dropout_mask(Team& team, const tilefuse_dropout_mask_args& args) {
    const Range rows = team.range(args.rows);
    const int64_t end = rows.end * args.cols;
    const uint64_t step = *args.step;
    const uint32_t threshold = dropout_threshold(args.rate);
    for (int64_t e = rows.begin * args.cols; e < end;) {
        const int64_t group = e / dropout_group, skip = e % dropout_group;
        const int64_t count = end - e < dropout_group - skip ? end - e : dropout_group - skip;
        if (count == dropout_group) {
            mask_of_group(static_cast<uint64_t>(group), step, args.seed, threshold, args.mask + e);
        } else {
            uint8_t part[dropout_group];
            mask_of_group(static_cast<uint64_t>(group), step, args.seed, threshold, part);
            std::memcpy(args.mask + e, part + skip, static_cast<size_t>(count));
        }
        e += count;
    }
}

Cost dropout_mask_cost(const tilefuse_dropout_mask_args& args) {
    Cost cost;
    cost.work = 40 * static_cast<double>(args.rows) * static_cast<double>(args.cols);
    return cost;
}

void dropout(Team& team, const tilefuse_dropout_args& args) {
    const Range rows = team.range(args.rows);
    const int64_t begin = rows.begin * args.cols, count = rows.end * args.cols - begin;
    const uint8_t* mask = args.mask + begin;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        using Bytes = typename BytesOf<T>::type;
        const T* x = static_cast<const T*>(args.x) + begin;
        T* y = static_cast<T*>(args.y) + begin;
        const T scale = static_cast<T>(args.scale);
        for_vectors<T>(count, [&](int64_t i, int n) {
            Bytes kept{};
            if (n == lanes<T>) {
                std::memcpy(&kept, mask + i, sizeof kept);
            } else {
                for (int lane = 0; lane < n; ++lane) kept[lane] = mask[i + lane];
            }
            const auto wide = __builtin_convertvector(kept, Integers<Vec<T>>);
            store_upto(y + i, wide != 0 ? load_upto(x + i, n) * scale : Vec<T>{}, n);
        });
    });
}

Cost dropout_cost(const tilefuse_dropout_args& args) {
    Cost cost;
    cost.work = 6 * static_cast<double>(args.rows) * static_cast<double>(args.cols);
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
