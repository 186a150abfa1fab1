// Elementwise activations, forward and backward. A member's rows are one flat range: rows mean nothing here
// but shares.
#include "common/activation.h"

#include "common/dtype.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

namespace {

// In the time of one multiplication and addition: arithmetic alone, and with exponentials and divisions.
double elementwise_work(tilefuse_activation_kind activation, int64_t elements) {
    return static_cast<double>(elements) * (activation <= TILEFUSE_LEAKY_RELU ? 4 : 40);
}

}  // namespace

void activation(Team& team, const tilefuse_activation_args& args) {
    const Range rows = team.range(args.rows);
    const int64_t begin = rows.begin * args.cols, count = rows.end * args.cols - begin;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const T* x = static_cast<const T*>(args.x) + begin;
        T* y = static_cast<T*>(args.y) + begin;
        with_activation<T>(args.activation, args.alpha, [&](auto f) {
            for_vectors<T>(count,
                           [&](int64_t i, int n) { store_upto(y + i, f.forward(load_upto(x + i, n)), n); });
        });
    });
}

Cost activation_cost(const tilefuse_activation_args& args) {
    Cost cost;
    cost.work = elementwise_work(args.activation, args.rows * args.cols);
    return cost;
}

void activation_backward(Team& team, const tilefuse_activation_backward_args& args) {
    const Range rows = team.range(args.rows);
    const int64_t begin = rows.begin * args.cols, count = rows.end * args.cols - begin;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const T* dy = static_cast<const T*>(args.dy) + begin;
        const T* at = static_cast<const T*>(args.at) + begin;
        T* dx = static_cast<T*>(args.dx) + begin;
        with_activation<T>(args.activation, args.alpha, [&](auto f) {
            for_vectors<T>(count, [&](int64_t i, int n) {
                store_upto(dx + i, load_upto(dy + i, n) * f.derivative(load_upto(at + i, n)), n);
            });
        });
    });
}

Cost activation_backward_cost(const tilefuse_activation_backward_args& args) {
    Cost cost;
    cost.work = elementwise_work(args.activation, args.rows * args.cols);
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
