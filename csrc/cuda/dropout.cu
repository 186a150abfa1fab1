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
constexpr int counters_of_thread = 2;
constexpr int bytes_of_block = threads_of_block * counters_of_thread * words;

// A counter's elements lie 16 apart: they meet their neighbours in shared memory, and leave it in packs.
__global__ void __launch_bounds__(threads_of_block)
    make_mask(int64_t n, uint64_t seed, const uint64_t* step, uint32_t threshold, uint8_t* mask) {
    constexpr int pack = pack_size<uint8_t>;
    using Bytes = Pack<uint8_t, pack>;
    TILEFUSE_SHARED(Bytes[(bytes_of_block + sector_size<uint8_t>) / pack], tile);
    TILEFUSE_SHARED(uint64_t, step_of_block);
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) step_of_block = *step;
    block_barrier();
    const int64_t first = static_cast<int64_t>(blockIdx.x) * bytes_of_block, left = n - first;
    const int phase = phase_of(mask + first);
    uint8_t* const bytes = tile[0].of + phase;
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < counters_of_thread; ++i) {
        const int counter = thread + i * threads_of_block;
        const Words<uint64_t> random =
            dropout_words(static_cast<uint64_t>(first / words + counter), step_of_block, seed, Multiply{});
        const int at = counter / dropout_lanes * dropout_group + counter % dropout_lanes;
        TILEFUSE_UNROLL_ALL
        for (int w = 0; w < words; ++w)
            bytes[at + w * dropout_lanes] = static_cast<uint32_t>(random.w[w]) >= threshold ? 1 : 0;
    }
    block_barrier();
    const int count = left < bytes_of_block ? static_cast<int>(left) : bytes_of_block;
    unstage(bytes, phase, count, mask + first, thread, threads_of_block);
}

// y = mask ? x * scale : 0
template <class T>
__global__ void __launch_bounds__(threads_of_block)
    apply(int64_t n, const T* x, const uint8_t* mask, T scale, T* y, Layout layout) {
    constexpr int pack = pack_size<T>;
    const Share share = share_of_block<T>(n, layout);
    Pack<T, pack> v = load<pack>(x, share);
    const Pack<uint8_t, pack> kept = load<pack>(mask, share);
    TILEFUSE_UNROLL_ALL
    for (int e = 0; e < pack; ++e) v.of[e] = kept.of[e] != 0 ? v.of[e] * scale : T(0);
    store(y, share, v);
}

}  // namespace dropouts

void dropout_mask(const Context& context, const tilefuse_dropout_mask_args& args) {
    const int64_t n = args.rows * args.cols;
    if (n == 0) return;
    launch(TILEFUSE_KERNEL(dropouts::make_mask), dim3(static_cast<unsigned>(quotient(n, dropouts::bytes_of_block))),
           threads_of_block, 0, context.stream, n, args.seed, args.step, dropout_threshold(args.rate), args.mask);
}
size_t dropout_mask_workspace(const tilefuse_dropout_mask_args&) { return 0; }

void dropout(const Context& context, const tilefuse_dropout_args& args) {
    const int64_t n = args.rows * args.cols;
    if (n == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        Layout layout = layout_of<T>({args.y, args.x});
        layout.packs = layout.packs && aligned_past(args.mask, layout.phase, pack_size<T>);
        launch(TILEFUSE_KERNEL(dropouts::apply<T>), blocks_for<T>(n, layout), threads_of_block, 0, context.stream, n,
               static_cast<const T*>(args.x), args.mask, static_cast<T>(args.scale), static_cast<T*>(args.y), layout);
    });
}
size_t dropout_workspace(const tilefuse_dropout_args&) { return 0; }

}  // namespace tilefuse::cuda
