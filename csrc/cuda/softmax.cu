// Softmax and log-softmax over rows, and their gradients. The row's maximum is subtracted first, so that no exponential
// overflows.
#include "common/dtype.h"
#include "common/math.h"
#include "cuda/kernels.h"
#include "cuda/row.cuh"

namespace tilefuse::cuda {
namespace softmaxes {

template <class T, int Held, bool WholeBlock>
__global__ void __launch_bounds__(row_block) forward(bool log_of_it, int64_t rows, int64_t cols, const T* x, T* y, int lanes) {
    const Row<T, Held, WholeBlock> row(x, rows, cols, lanes);
    const T largest = row.largest();
    const T total = row.sum([&](int64_t, T v) { return tilefuse::exp(v - largest); });
    const T log_total = log_of_it ? tilefuse::log(total) : T(0);
    T* const out = y + row.index() * cols;
    row.each([&](int64_t j, T v) {
        out[j] = log_of_it ? (v - largest) - log_total : tilefuse::exp(v - largest) / total;
    });
}

// softmax: dx = y (dy - sum(dy y)); log-softmax: dx = dy - exp(y) sum(dy)
template <class T, int Held, bool WholeBlock>
__global__ void __launch_bounds__(row_block)
    backward(bool log_of_it, int64_t rows, int64_t cols, const T* dy, const T* y, T* dx, int lanes) {
    const Row<T, Held, WholeBlock> gradient(dy, rows, cols, lanes), output(y, rows, cols, lanes);
    T products = 0;
    gradient.each_with(output, [&](int64_t, T g, T v) { products += log_of_it ? g : g * v; });
    const T total = gradient.reduce(products, T(0), Add{});
    T* const out = dx + gradient.index() * cols;
    gradient.each_with(output, [&](int64_t j, T g, T v) {
        out[j] = log_of_it ? g - tilefuse::exp(v) * total : v * (g - total);
    });
}

}  // namespace softmaxes

void softmax(const Context& context, const tilefuse_softmax_args& args) {
    if (args.rows == 0 || args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        share_rows(args.rows, args.cols, [&](auto held, auto whole_block, dim3 grid, int lanes) {
            launch(TILEFUSE_KERNEL(softmaxes::forward<T, held(), whole_block()>), grid, row_block, 0, context.stream,
                   args.log != 0, args.rows, args.cols, static_cast<const T*>(args.x), static_cast<T*>(args.y), lanes);
        });
    });
}
size_t softmax_workspace(const tilefuse_softmax_args&) { return 0; }

void softmax_backward(const Context& context, const tilefuse_softmax_backward_args& args) {
    if (args.rows == 0 || args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        share_rows(args.rows, args.cols, [&](auto held, auto whole_block, dim3 grid, int lanes) {
            launch(TILEFUSE_KERNEL(softmaxes::backward<T, held(), whole_block()>), grid, row_block, 0, context.stream,
                   args.log != 0, args.rows, args.cols, static_cast<const T*>(args.dy), static_cast<const T*>(args.y),
                   static_cast<T*>(args.dx), lanes);
        });
    });
}
size_t softmax_backward_workspace(const tilefuse_softmax_backward_args&) { return 0; }

}  // namespace tilefuse::cuda
