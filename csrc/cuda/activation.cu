// Elementwise activations, forward and backward.
#include "common/activation.h"

#include "common/dtype.h"
#include "cuda/kernels.h"
#include "cuda/packs.cuh"

namespace tilefuse::cuda {
namespace activations {

template <class T>
__global__ void __launch_bounds__(threads_of_block)
    forward(tilefuse_activation_kind activation, double alpha, int64_t n, const T* x, T* y, Layout layout) {
    constexpr int pack = pack_size<T>;
    const Share share = share_of_block<T>(n, layout);
    Pack<T, pack> v = load<pack>(x, share);
    with_activation<T>(activation, alpha, [&](auto f) {
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < pack; ++e) v.of[e] = f.forward(v.of[e]);
    });
    store(y, share, v);
}

template <class T>
__global__ void __launch_bounds__(threads_of_block) backward(tilefuse_activation_kind activation, double alpha, int64_t n,
                                                             const T* dy, const T* at, T* dx, Layout layout) {
    constexpr int pack = pack_size<T>;
    const Share share = share_of_block<T>(n, layout);
    Pack<T, pack> g = load<pack>(dy, share);
    const Pack<T, pack> v = load<pack>(at, share);
    with_activation<T>(activation, alpha, [&](auto f) {
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < pack; ++e) g.of[e] *= f.derivative(v.of[e]);
    });
    store(dx, share, g);
}

}  // namespace activations

void activation(const Context& context, const tilefuse_activation_args& args) {
    const int64_t n = args.rows * args.cols;
    if (n == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const Layout layout = layout_of<T>({args.y, args.x});
        launch(TILEFUSE_KERNEL(activations::forward<T>), blocks_for<T>(n, layout), threads_of_block, 0, context.stream,
               args.activation, args.alpha, n, static_cast<const T*>(args.x), static_cast<T*>(args.y), layout);
    });
}
size_t activation_workspace(const tilefuse_activation_args&) { return 0; }

void activation_backward(const Context& context, const tilefuse_activation_backward_args& args) {
    const int64_t n = args.rows * args.cols;
    if (n == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const Layout layout = layout_of<T>({args.dx, args.dy, args.at});
        launch(TILEFUSE_KERNEL(activations::backward<T>), blocks_for<T>(n, layout), threads_of_block, 0, context.stream,
               args.activation, args.alpha, n, static_cast<const T*>(args.dy), static_cast<const T*>(args.at),
               static_cast<T*>(args.dx), layout);
    });
}
size_t activation_backward_workspace(const tilefuse_activation_backward_args&) { return 0; }

}  // namespace tilefuse::cuda
