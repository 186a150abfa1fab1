// Softmax and log-softmax over rows, and their gradients. The row's maximum is subtracted first, so that no
// exponential overflows.
#include "common/dtype.h"
#include "cpu/kernels.h"
#include "cpu/row.h"

namespace tilefuse::inline TILEFUSE_ISA {

namespace {

template <class T> void softmax_row(const T* x, T* y, int64_t cols) {
    const T largest = row_max(x, cols);
    RowSum<T> sums;
    for_vectors<T>(cols, [&](int64_t j, int n) {
        const Vec<T> e = exp(load_upto(x + j, n) - largest);
        store_upto(y + j, e, n);
        sums.add(first(e, n, T{}));
    });
    const T total = sums.total();
    for_vectors<T>(cols, [&](int64_t j, int n) { store_upto(y + j, load_upto(y + j, n) / total, n); });
}

template <class T> void log_softmax_row(const T* x, T* y, int64_t cols) {
    const T largest = row_max(x, cols);
    RowSum<T> sums;
    for_vectors<T>(cols,
                   [&](int64_t j, int n) { sums.add(first(exp(load_upto(x + j, n) - largest), n, T{})); });
    const T log_total = log(sums.total());
    for_vectors<T>(
        cols, [&](int64_t j, int n) { store_upto(y + j, (load_upto(x + j, n) - largest) - log_total, n); });
}

// dx = y * (dy - sum(dy * y))
template <class T> void softmax_backward_row(const T* dy, const T* y, T* dx, int64_t cols) {
    RowSum<T> sums;
    for_vectors<T>(cols, [&](int64_t j, int n) { sums.add(load_upto(dy + j, n) * load_upto(y + j, n)); });
    const T total = sums.total();
    for_vectors<T>(cols, [&](int64_t j, int n) {
        store_upto(dx + j, load_upto(y + j, n) * (load_upto(dy + j, n) - total), n);
    });
}

// dx = dy - exp(y) * sum(dy)
template <class T> void log_softmax_backward_row(const T* dy, const T* y, T* dx, int64_t cols) {
    RowSum<T> sums;
    for_vectors<T>(cols, [&](int64_t j, int n) { sums.add(load_upto(dy + j, n)); });
    const T total = sums.total();
    for_vectors<T>(cols, [&](int64_t j, int n) {
        store_upto(dx + j, load_upto(dy + j, n) - exp(load_upto(y + j, n)) * total, n);
    });
}

}  // namespace

void softmax(Team& team, const tilefuse_softmax_args& args) {
    const Range mine = team.range(args.rows);
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const auto row = args.log ? log_softmax_row<T> : softmax_row<T>;
        for (int64_t i = mine.begin; i < mine.end; ++i)
            row(static_cast<const T*>(args.x) + i * args.cols, static_cast<T*>(args.y) + i * args.cols,
                args.cols);
    });
}

Cost softmax_cost(const tilefuse_softmax_args& args) {
    Cost cost;
    cost.work = static_cast<double>(args.rows) * (40 * static_cast<double>(args.cols) + 200);
    return cost;
}

void softmax_backward(Team& team, const tilefuse_softmax_backward_args& args) {
    const Range mine = team.range(args.rows);
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const auto row = args.log ? log_softmax_backward_row<T> : softmax_backward_row<T>;
        for (int64_t i = mine.begin; i < mine.end; ++i) {
            const int64_t at = i * args.cols;
            row(static_cast<const T*>(args.dy) + at, static_cast<const T*>(args.y) + at,
                static_cast<T*>(args.dx) + at, args.cols);
        }
    });
}

Cost softmax_backward_cost(const tilefuse_softmax_backward_args& args) {
    Cost cost;
    cost.work = static_cast<double>(args.rows) * ((args.log ? 40 : 8) * static_cast<double>(args.cols) + 100);
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
