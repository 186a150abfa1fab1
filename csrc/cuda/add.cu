// Sums of two arrays.
#include "tilefuse/add.h"

#include "common/activation.h"
#include "common/dtype.h"
#include "cuda/kernels.h"
#include "cuda/packs.cuh"

namespace tilefuse::cuda {
namespace sums {

template <class T>
__global__ void __launch_bounds__(threads_of_block)
    add(int64_t n, const T* one, T* y, tilefuse_epilogue e, Layout layout) {
    constexpr int pack = pack_size<T>;
    const Share share = share_of_block<T>(n, layout);
    Pack<T, pack> x = load<pack>(one, share);
    const Pack<T, pack> other = load<pack>(static_cast<const T*>(e.addend), share);
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < pack; ++i) x.of[i] += other.of[i];
    if (e.preactivation != nullptr) store(static_cast<T*>(e.preactivation), share, x);
    if (e.activation != TILEFUSE_LINEAR) {
        with_activation<T>(e.activation, e.activation_alpha, [&](auto f) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < pack; ++i) x.of[i] = f.forward(x.of[i]);
        });
    }
    if (e.mask != nullptr) {
        const Pack<uint8_t, pack> kept = load<pack>(e.mask, share);
        const T scale = static_cast<T>(e.mask_scale);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) x.of[i] = kept.of[i] != 0 ? x.of[i] * scale : T(0);
    }
    if (e.derivative_at != nullptr) {
        const Pack<T, pack> at = load<pack>(static_cast<const T*>(e.derivative_at), share);
        with_activation<T>(e.derivative, e.derivative_alpha, [&](auto f) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < pack; ++i) x.of[i] *= f.derivative(at.of[i]);
        });
    }
    store(y, share, x);
}

}  // namespace sums

void add(const Context& context, const tilefuse_add_args& args) {
    const int64_t n = args.rows * args.cols;
    if (n == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const tilefuse_epilogue& e = args.epilogue;
        Layout layout = layout_of<T>({args.y, args.x, e.addend, e.preactivation, e.derivative_at});
        layout.packs = layout.packs && aligned_past(e.mask, layout.phase, pack_size<T>);
        launch(TILEFUSE_KERNEL(sums::add<T>), blocks_for<T>(n, layout), threads_of_block, 0, context.stream, n,
               static_cast<const T*>(args.x), static_cast<T*>(args.y), e, layout);
    });
}
size_t add_workspace(const tilefuse_add_args&) { return 0; }

}  // namespace tilefuse::cuda
