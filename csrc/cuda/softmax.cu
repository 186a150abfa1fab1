// Softmax and log-softmax over rows, and their gradients. The row's maximum is subtracted first, so that no exponential
// overflows.
#include "common/dtype.h"
#include "common/math.h"
#include "cuda/kernels.h"
#include "cuda/row.cuh"

namespace tilefuse::cuda {
namespace softmaxes {

// y may be x. Where it is in shared memory it keeps the exponentials between; else they are computed again, since that
// takes no more than reading x once more.
template <bool Shared, class Team, class T>
__device__ __forceinline__ void softmax_row(const Team& team, bool log, const T* x, T* y, typename Team::Index cols) {
    const T largest = row_max(team, x, cols);
    T sum = 0;
    if (log) {
        each(team, cols, [&](auto j) { sum += tilefuse::exp(x[j] - largest); });
        const T log_total = tilefuse::log(row_sum(team, sum));
        each(team, cols, [&](auto j) { y[j] = (x[j] - largest) - log_total; });
    } else {
        each(team, cols, [&](auto j) {
            const T e = tilefuse::exp(x[j] - largest);
            if constexpr (Shared) y[j] = e;
            sum += e;
        });
        const T total = row_sum(team, sum);
        each(team, cols, [&](auto j) {
            const T e = Shared ? y[j] : tilefuse::exp(x[j] - largest);
            y[j] = e / total;
        });
    }
}

// softmax: dx = y (dy - sum(dy y)); log-softmax: dx = dy - exp(y) sum(dy). dx may be dy.
template <class Team, class T>
__device__ __forceinline__ void gradient_row(const Team& team, bool log, const T* dy, const T* y, T* dx,
                                             typename Team::Index cols) {
    T sum = 0;
    each(team, cols, [&](auto j) { sum += log ? dy[j] : dy[j] * y[j]; });
    const T total = row_sum(team, sum);
    each(team, cols, [&](auto j) { dx[j] = log ? dy[j] - tilefuse::exp(y[j]) * total : y[j] * (dy[j] - total); });
}

template <class T>
__global__ void __launch_bounds__(row_warps * warp_size, 6)
    forward_by_warps(RowPlan plan, bool log, int64_t rows, int64_t cols, const T* x, T* y) {
    const WarpRows warp(plan, rows);
    if (warp.count <= 0) return;
    const int length = static_cast<int>(cols), elements = warp.count * length;
    const int64_t begin = warp.first * cols;
    T* const staged = stage(x + begin, elements, warp.tile<T>(plan, 0), warp.lane, warp_size);
    warp_barrier();
    for (int pass = 0; pass < warp.passes; ++pass) {
        T* const row = staged + warp.row(pass) * length;
        softmax_row<true>(warp.team, log, row, row, warp.row(pass) < warp.count ? length : 0);
    }
    warp_barrier();
    unstage(staged, phase_of(x + begin), elements, y + begin, warp.lane, warp_size);
}

template <class T>
__global__ void __launch_bounds__(threads_of_block, 3)
    forward_by_blocks(bool staged, bool log, int64_t cols, const T* x, T* y) {
    const BlockOfRow block;
    x += blockIdx.x * cols;
    y += blockIdx.x * cols;
    if (!staged) return softmax_row<false>(block, log, x, y, cols);
    const int length = static_cast<int>(cols);
    T* const row = stage(x, length, dynamic_shared<T>(), block.member, block.members);
    block_barrier();
    softmax_row<true>(block, log, row, row, cols);
    block_barrier();
    unstage(row, phase_of(x), length, y, block.member, block.members);
}

template <class T>
__global__ void __launch_bounds__(row_warps * warp_size, 6)
    backward_by_warps(RowPlan plan, bool log, int64_t rows, int64_t cols, const T* dy, const T* y, T* dx) {
    const WarpRows warp(plan, rows);
    if (warp.count <= 0) return;
    const int length = static_cast<int>(cols), elements = warp.count * length;
    const int64_t begin = warp.first * cols;
    T* const gradients = stage(dy + begin, elements, warp.tile<T>(plan, 0), warp.lane, warp_size);
    const T* const outputs = stage(y + begin, elements, warp.tile<T>(plan, 1), warp.lane, warp_size);
    warp_barrier();
    for (int pass = 0; pass < warp.passes; ++pass) {
        const int at = warp.row(pass) * length, columns = warp.row(pass) < warp.count ? length : 0;
        gradient_row(warp.team, log, gradients + at, outputs + at, gradients + at, columns);
    }
    warp_barrier();
    unstage(gradients, phase_of(dy + begin), elements, dx + begin, warp.lane, warp_size);
}

template <class T>
__global__ void __launch_bounds__(threads_of_block, 4)
    backward_by_blocks(RowPlan plan, bool log, int64_t cols, const T* dy, const T* y, T* dx) {
    const BlockOfRow block;
    dy += blockIdx.x * cols;
    y += blockIdx.x * cols;
    dx += blockIdx.x * cols;
    if (!plan.staged) return gradient_row(block, log, dy, y, dx, cols);
    const int length = static_cast<int>(cols);
    T* const gradients = stage(dy, length, dynamic_shared<T>(), block.member, block.members);
    const T* const outputs = stage(y, length, dynamic_shared<T>() + plan.tile, block.member, block.members);
    block_barrier();
    gradient_row(block, log, gradients, outputs, gradients, cols);
    block_barrier();
    unstage(gradients, phase_of(dy), length, dx, block.member, block.members);
}

}  // namespace softmaxes

void softmax(const Context& context, const tilefuse_softmax_args& args) {
    if (args.rows == 0 || args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const RowPlan plan = plan_rows<T>(args.cols, 1);
        const T* x = static_cast<const T*>(args.x);
        T* y = static_cast<T*>(args.y);
        if (plan.lanes > 0) {
            launch(TILEFUSE_KERNEL(softmaxes::forward_by_warps<T>), row_grid(plan, args.rows), row_warps * warp_size,
                   shared_bytes<T>(plan), context.stream, plan, args.log != 0, args.rows, args.cols, x, y);
        } else {
            launch(TILEFUSE_KERNEL(softmaxes::forward_by_blocks<T>), row_grid(plan, args.rows), threads_of_block,
                   shared_bytes<T>(plan), context.stream, plan.staged, args.log != 0, args.cols, x, y);
        }
    });
}
size_t softmax_workspace(const tilefuse_softmax_args&) { return 0; }

void softmax_backward(const Context& context, const tilefuse_softmax_backward_args& args) {
    if (args.rows == 0 || args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const RowPlan plan = plan_rows<T>(args.cols, 2);
        const T *dy = static_cast<const T*>(args.dy), *y = static_cast<const T*>(args.y);
        T* dx = static_cast<T*>(args.dx);
        if (plan.lanes > 0) {
            launch(TILEFUSE_KERNEL(softmaxes::backward_by_warps<T>), row_grid(plan, args.rows), row_warps * warp_size,
                   shared_bytes<T>(plan), context.stream, plan, args.log != 0, args.rows, args.cols, dy, y, dx);
        } else {
            launch(TILEFUSE_KERNEL(softmaxes::backward_by_blocks<T>), row_grid(plan, args.rows), threads_of_block,
                   shared_bytes<T>(plan), context.stream, plan, args.log != 0, args.cols, dy, y, dx);
        }
    });
}
size_t softmax_backward_workspace(const tilefuse_softmax_backward_args&) { return 0; }

}  // namespace tilefuse::cuda
