// Dropout: the mask from its counters, the same bits as on the CPU, and its application.
#include "common/dtype.h"
#include "common/random.h"
#include "cuda/kernels.h"
#include "cuda/packs.cuh"

namespace tilefuse::cuda {
namespace dropouts {

struct Multiply {
    __device__ __forceinline__ uint64_t operator()(uint64_t a, uint32_t b) const { return (a & 0xffffffffu) * b; }
};

constexpr int words = 4;  // of a counter

// A thread computes one counter, a warp the 128 bytes of two groups. A counter's elements lie 16 apart, so the lanes
// exchange what they found, and each writes 4 neighbouring bytes; or, if `packs` is false, every 32nd byte.
__global__ void __launch_bounds__(threads_of_block)
    make_mask(int64_t n, uint64_t seed, const uint64_t* step, uint32_t threshold, uint8_t* mask, bool packs) {
    constexpr int bytes_of_warp = warp_size * words;
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * threads_of_block + threadIdx.x;
    TILEFUSE_SHARED(uint64_t, step_of_block);
    if (threadIdx.x == 0) step_of_block = *step;
    block_barrier();
    const Words<uint64_t> random = dropout_words(static_cast<uint64_t>(thread), step_of_block, seed, Multiply{});
    unsigned kept = 0;  // bit w: what word w says
    TILEFUSE_UNROLL(4)
    for (int w = 0; w < words; ++w) kept |= (static_cast<uint32_t>(random.w[w]) >= threshold ? 1u : 0u) << w;

    const int64_t first = (thread - lane) * words;
    packs = packs && n - first >= bytes_of_warp;
    Pack<uint8_t, words> bytes;
    TILEFUSE_UNROLL(4)
    for (int i = 0; i < words; ++i) {
        const int at = packs ? words * lane + i : lane + warp_size * i, in_group = at % dropout_group;
        const unsigned theirs = shuffle(kept, at / dropout_group * dropout_lanes + in_group % dropout_lanes);
        bytes.of[i] = static_cast<uint8_t>(theirs >> (in_group / dropout_lanes) & 1u);
    }
    if (packs) {
        store_pack(mask + first + words * lane, bytes);
    } else {
        TILEFUSE_UNROLL(4)
        for (int i = 0; i < words; ++i) {
            const int64_t at = first + lane + warp_size * i;
            if (at < n) mask[at] = bytes.of[i];
        }
    }
}

// y = mask ? x * scale : 0
template <class T>
__global__ void __launch_bounds__(threads_of_block)
    apply(int64_t n, const T* x, const uint8_t* mask, T scale, T* y, bool packs) {
    constexpr int pack = pack_size<T>;
    const Share share = share_of_block<T>(n, packs);
    Pack<T, pack> v = load<pack>(x, share);
    const Pack<uint8_t, pack> kept = load<pack>(mask, share);
    TILEFUSE_UNROLL(4)
    for (int e = 0; e < pack; ++e) v.of[e] = kept.of[e] != 0 ? v.of[e] * scale : T(0);
    store(y, share, v);
}

}  // namespace dropouts

void dropout_mask(const Context& context, const tilefuse_dropout_mask_args& args) {
    const int64_t n = args.rows * args.cols;
    if (n == 0) return;
    const int64_t groups = (n + dropout_group - 1) / dropout_group;
    const int64_t blocks = (groups * dropout_lanes + threads_of_block - 1) / threads_of_block;
    launch(TILEFUSE_KERNEL(dropouts::make_mask), dim3(static_cast<unsigned>(blocks)), threads_of_block, 0,
           context.stream, n, args.seed, args.step, dropout_threshold(args.rate), args.mask,
           packs_fit({args.mask}, dropouts::words));
}
size_t dropout_mask_workspace(const tilefuse_dropout_mask_args&) { return 0; }

void dropout(const Context& context, const tilefuse_dropout_args& args) {
    const int64_t n = args.rows * args.cols;
    if (n == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        launch(TILEFUSE_KERNEL(dropouts::apply<T>), blocks_for<T>(n), threads_of_block, 0, context.stream, n,
               static_cast<const T*>(args.x), args.mask, static_cast<T>(args.scale), static_cast<T*>(args.y),
               packs_fit({args.x, args.y}) && packs_fit({args.mask}, pack_size<T>));
    });
}
size_t dropout_workspace(const tilefuse_dropout_args&) { return 0; }

}  // namespace tilefuse::cuda
