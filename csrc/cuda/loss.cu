// Losses. Each row's loss, gradient, probabilities and correctness come from one pass over it in global memory. A class
// of target 0 adds nothing to a cross-entropy, even where its probability is 0.
#include "common/activation.h"
#include "common/dtype.h"
#include "cuda/kernels.h"
#include "cuda/row.cuh"

namespace tilefuse::cuda {
namespace losses {

constexpr double margin = 1e-7;  // probabilities are clipped to [margin, 1 - margin]

// What a row is and what comes of it. Outputs may be null, and in x's or the labels' place.
template <class T, class Columns> struct RowOfLoss {
    Columns cols;
    const T* x;
    const T* labels;
    int label;       // of sparse labels
    T weight;
    T* exponentials; // room for them in shared memory, or null: they are computed again
    T* probabilities;
    T* dx;
};

struct Outcome {
    double loss, correct;
};

// ---- cross-entropy over classes ------------------------------------------------------------------------------------

// A row's labels as a distribution over the classes, smoothed.
template <class T> struct ClassIds {
    template <class Row>
    __device__ __forceinline__ ClassIds(const tilefuse_loss_args& args, const Row& row)
        : label(row.label), valid(label >= 0 && label < args.cols),
          share(static_cast<T>(args.label_smoothing / static_cast<double>(args.cols))),
          rest(static_cast<T>(1 - args.label_smoothing)) {}

    template <class Index> __device__ __forceinline__ T operator()(Index j) const {
        return (j == label ? rest : T(0)) + share;
    }
    template <class Team, class Row> __device__ __forceinline__ int64_t most_likely(const Team&, const Row&) const {
        return label;
    }
    static constexpr bool adds_up_to_one = true;

    const int label;
    const bool valid;
    const T share, rest;
};

template <class T> struct Distribution {
    template <class Row>
    __device__ __forceinline__ Distribution(const tilefuse_loss_args& args, const Row& row)
        : labels(row.labels), share(static_cast<T>(args.label_smoothing / static_cast<double>(args.cols))),
          rest(static_cast<T>(1 - args.label_smoothing)) {}

    template <class Index> __device__ __forceinline__ T operator()(Index j) const { return labels[j] * rest + share; }
    template <class Team, class Row>
    __device__ __forceinline__ int64_t most_likely(const Team& team, const Row& row) const {
        return find(team, labels, row.cols, row_max(team, labels, row.cols));
    }
    static constexpr bool valid = true, adds_up_to_one = false;

    const T* const labels;
    const T share, rest;
};

// loss = sum(t) log(sum(exp(x))) - sum(t x), dx = softmax(x) sum(t) - t, all with x less its maximum.
template <class T, class Team, class Row, class Target>
__device__ __forceinline__ T from_logits(const Team& team, const Row& row, T largest, const Target& target, T scale) {
    T sum = 0, targets = 0, products = 0;
    each(team, row.cols, [&](auto j) {
        const T d = row.x[j] - largest, t = target(j), e = tilefuse::exp(d);
        if (row.exponentials != nullptr) row.exponentials[j] = e;
        sum += e;
        targets += t;
        products += t != 0 ? t * d : T(0);
    });
    const T total = row_sum(team, sum), target_sum = Target::adds_up_to_one ? T(1) : row_sum(team, targets);
    products = row_sum(team, products);
    if (row.dx != nullptr || row.probabilities != nullptr) {
        each(team, row.cols, [&](auto j) {
            const T e = row.exponentials != nullptr ? row.exponentials[j] : tilefuse::exp(row.x[j] - largest);
            const T p = e / total, gradient = (p * target_sum - target(j)) * scale;
            if (row.probabilities != nullptr) row.probabilities[j] = p;
            if (row.dx != nullptr) row.dx[j] = gradient;
        });
    }
    return tilefuse::log(total) * target_sum - products;
}

// With q = x / sum(x) and p = clip(q): loss = -sum(t log(p)); dq = -t / p where p = q,
// dx = (dq - sum(dq q)) / sum(x).
template <class T, class Team, class Row, class Target>
__device__ __forceinline__ T from_probabilities(const Team& team, const Row& row, const Target& target, T scale) {
    const auto slope = [](T t, T q) {
        const T p = clamp(q, margin, 1 - margin);
        return p == q || q != q ? -t / p : T(0);
    };
    T sum = 0, losses = 0, products = 0;
    each(team, row.cols, [&](auto j) { sum += row.x[j]; });
    const T total = row_sum(team, sum);
    each(team, row.cols, [&](auto j) {
        const T t = target(j), q = row.x[j] / total;
        losses += t * -tilefuse::log(clamp(q, margin, 1 - margin));
        products += slope(t, q) * q;
    });
    const T product = row_sum(team, products);
    if (row.dx != nullptr || row.probabilities != nullptr) {
        each(team, row.cols, [&](auto j) {
            const T given = row.x[j], gradient = (slope(target(j), given / total) - product) / total * scale;
            if (row.probabilities != nullptr) row.probabilities[j] = given;
            if (row.dx != nullptr) row.dx[j] = gradient;
        });
    }
    return row_sum(team, losses);
}

template <class T, class Target, class Team, class Row>
__device__ __forceinline__ Outcome categorical(const tilefuse_loss_args& args, const Team& team, const Row& row) {
    const Target target(args, row);
    const T weight = target.valid ? row.weight : static_cast<T>(__builtin_nan(""));
    const T scale = weight * static_cast<T>(args.scale), largest = row_max(team, row.x, row.cols);
    bool correct = false;
    if (args.row_correct != nullptr) {  // before dx or the probabilities, which may take x's place
        const int64_t predicted = find(team, row.x, row.cols, largest);
        const int64_t most_likely = target.most_likely(team, row);
        correct = predicted < row.cols && predicted == most_likely;
    }
    T loss = args.from_logits ? from_logits(team, row, largest, target, scale)
                              : from_probabilities(team, row, target, scale);
    if (row.cols == 0) loss = 0;
    return {static_cast<double>(loss) * static_cast<double>(weight), static_cast<double>(correct)};
}

// ---- losses of one number at a time, averaged over the columns -----------------------------------------------------

template <class T> struct Term {
    T loss, slope, probability, correct;
};

// loss = max(x, 0) - x t + log(1 + exp(-|x|)) = -t log(p) - (1 - t) log(1 - p) for p = sigmoid(x)
template <class T> __device__ __forceinline__ Term<T> binary_from_logits(T x, T label, T smoothing) {
    const T t = label * (1 - smoothing) + smoothing / 2;
    const T e = tilefuse::exp(-tilefuse::abs(x));
    const T p = (x < 0 ? e : T(1)) / (1 + e);  // above one half where sigmoid(x) is
    const T correct = (p > T(0.5)) == (label > T(0.5)) ? T(1) : T(0);
    return {(x > 0 ? x : T(0)) - x * t + tilefuse::log1p(e), p - t, p, correct};
}

template <class T> __device__ __forceinline__ Term<T> binary_from_probabilities(T x, T label, T smoothing) {
    const T t = label * (1 - smoothing) + smoothing / 2;
    const T p = clamp(x, margin, 1 - margin);
    const T slope = p == x || x != x ? (1 - t) / (1 - p) - t / p : T(0);
    const T correct = (x > T(0.5)) == (label > T(0.5)) ? T(1) : T(0);
    return {-(t * tilefuse::log(p) + (1 - t) * tilefuse::log(1 - p)), slope, x, correct};
}

template <class T> __device__ __forceinline__ Term<T> squared_error(T x, T label) {
    const T difference = x - label;
    return {difference * difference, 2 * difference, x, T(0)};
}

template <class T, class Team, class Row>
__device__ __forceinline__ Outcome elementwise(const tilefuse_loss_args& args, const Team& team, const Row& row) {
    const T columns = static_cast<T>(args.cols > 0 ? args.cols : 1), smoothing = static_cast<T>(args.label_smoothing);
    const T scale = static_cast<T>(args.scale) / columns * row.weight;
    T losses = 0, correct = 0;
    each(team, row.cols, [&](auto j) {
        const T x = row.x[j], label = row.labels[j];
        const Term<T> term = args.loss == TILEFUSE_MEAN_SQUARED_ERROR ? squared_error(x, label)
                             : args.from_logits                      ? binary_from_logits(x, label, smoothing)
                                                                     : binary_from_probabilities(x, label, smoothing);
        losses += term.loss;
        correct += term.correct;
        if (row.probabilities != nullptr) row.probabilities[j] = term.probability;
        if (row.dx != nullptr) row.dx[j] = term.slope * scale;
    });
    const double of_columns = static_cast<double>(columns);
    return {static_cast<double>(row_sum(team, losses)) / of_columns * static_cast<double>(row.weight),
            static_cast<double>(row_sum(team, correct)) / of_columns};
}

// ---- kernels -------------------------------------------------------------------------------------------------------

enum class Labels { class_ids, distributions, numbers };

template <class T, Labels labels, class Team, class Row>
__device__ __forceinline__ Outcome outcome_of(const tilefuse_loss_args& args, const Team& team, const Row& row) {
    if constexpr (labels == Labels::class_ids) {
        return categorical<T, ClassIds<T>>(args, team, row);
    } else if constexpr (labels == Labels::distributions) {
        return categorical<T, Distribution<T>>(args, team, row);
    } else {
        return elementwise<T>(args, team, row);
    }
}

template <class T> __device__ __forceinline__ T weight_of_row(const tilefuse_loss_args& args, int64_t row) {
    return args.sample_weight == nullptr ? T(1) : static_cast<const T*>(args.sample_weight)[row / args.rows_per_sample];
}

// The tiles: x; and labels, if every column has one. Results take their places, the gradient the second if there are
// probabilities too, which then is there in any case.
inline int tiles_of(const tilefuse_loss_args& args) {
    const bool dense = args.loss != TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY;
    return dense || (args.dx != nullptr && args.probabilities != nullptr) ? 2 : 1;
}

// Elements [begin, begin + count) of the arrays in shared memory.
template <class T, bool dense> struct Tiles {
    int64_t begin;
    int count;
    T *first, *second;

    __device__ __forceinline__ void read(const tilefuse_loss_args& args, T* tile, T* second_tile, int thread,
                                         int threads) {
        first = stage(static_cast<const T*>(args.x) + begin, count, tile, thread, threads);
        if constexpr (dense) {
            second = stage(static_cast<const T*>(args.labels) + begin, count, second_tile, thread, threads);
        } else {
            second = second_tile + phase_of(static_cast<const T*>(args.dx) + begin);
        }
    }
    __device__ __forceinline__ void write(const tilefuse_loss_args& args, int thread, int threads) const {
        const int phase = phase_of(static_cast<const T*>(args.x) + begin);
        T* const dx = static_cast<T*>(args.dx) + begin;
        T* const probabilities = static_cast<T*>(args.probabilities) + begin;
        if (args.probabilities != nullptr) unstage(first, phase, count, probabilities, thread, threads);
        if (args.dx == nullptr) return;
        if (args.probabilities == nullptr) {
            unstage(first, phase, count, dx, thread, threads);
        } else {
            const T* const like = dense ? static_cast<const T*>(args.labels) + begin : dx;
            unstage(second, phase_of(like), count, dx, thread, threads);
        }
    }
    // The row that begins at element `at`.
    template <class Columns>
    __device__ __forceinline__ RowOfLoss<T, Columns> row(const tilefuse_loss_args& args, int at, Columns cols,
                                                         int label, T weight) const {
        const bool gradient = args.dx != nullptr, probabilities = args.probabilities != nullptr;
        T *const x = first + at, *const other = second + at;
        return {cols, x, other, label, weight, gradient || probabilities ? x : nullptr, probabilities ? x : nullptr,
                !gradient ? nullptr : probabilities ? other : x};
    }
};

// (Blocks of a multiprocessor: as many as without spilled registers.)
template <class T, Labels labels>
__global__ void __launch_bounds__(row_warps * warp_size, 4)
    by_warps(tilefuse_loss_args args, RowPlan plan) {
    constexpr bool dense = labels != Labels::class_ids;
    const WarpRows warp(plan, args.rows);
    if (warp.count <= 0) return;
    const int cols = static_cast<int>(args.cols);
    Tiles<T, dense> tiles = {warp.first * args.cols, warp.count * cols, nullptr, nullptr};
    tiles.read(args, warp.tile<T>(plan, 0), warp.tile<T>(plan, 1), warp.lane, warp_size);
    T weight = 0;
    int label = 0;
    if (warp.keeps()) {
        const int64_t row = warp.first + warp.kept_row();
        weight = weight_of_row<T>(args, row);
        if (!dense) label = static_cast<const int32_t*>(args.labels)[row];
    }
    warp_barrier();
    Outcome outcome = {};
    for (int pass = 0; pass < warp.passes; ++pass) {
        const int at = warp.row(pass), keeper = warp.keeper(pass), label_of_row = dense ? 0 : shuffle(label, keeper);
        const T weight_of_this = shuffle(weight, keeper);
        const auto row = tiles.row(args, at * cols, at < warp.count ? cols : 0, label_of_row, weight_of_this);
        const Outcome found = outcome_of<T, labels>(args, warp.team, row);
        if (warp.team.member == pass) outcome = found;
    }
    warp_barrier();
    tiles.write(args, warp.lane, warp_size);
    if (!warp.keeps()) return;
    const int64_t row = warp.first + warp.kept_row();
    if (args.row_loss != nullptr) args.row_loss[row] = outcome.loss;
    if (args.row_correct != nullptr) args.row_correct[row] = outcome.correct;
}

template <class T, Labels labels>
__global__ void __launch_bounds__(threads_of_block, sizeof(T) == 4 ? 3 : 2)
    by_blocks(tilefuse_loss_args args, RowPlan plan) {
    constexpr bool dense = labels != Labels::class_ids;
    const BlockOfRow block;
    const int64_t i = blockIdx.x, begin = i * args.cols;
    const T weight = weight_of_row<T>(args, i);
    const int label = dense ? 0 : static_cast<const int32_t*>(args.labels)[i];
    Tiles<T, dense> tiles = {begin, static_cast<int>(args.cols), nullptr, nullptr};
    RowOfLoss<T, int64_t> row;
    if (plan.staged) {
        tiles.read(args, dynamic_shared<T>(), dynamic_shared<T>() + plan.tile, block.member, block.members);
        block_barrier();
        row = tiles.row(args, 0, args.cols, label, weight);
    } else {
        T* const dx = args.dx != nullptr ? static_cast<T*>(args.dx) + begin : nullptr;
        T* const probabilities = args.probabilities != nullptr ? static_cast<T*>(args.probabilities) + begin : nullptr;
        row = {args.cols, static_cast<const T*>(args.x) + begin, static_cast<const T*>(args.labels) + begin, label,
               weight, nullptr, probabilities, dx};
    }
    const Outcome outcome = outcome_of<T, labels>(args, block, row);
    if (plan.staged) {
        block_barrier();
        tiles.write(args, block.member, block.members);
    }
    if (block.member != 0) return;
    if (args.row_loss != nullptr) args.row_loss[i] = outcome.loss;
    if (args.row_correct != nullptr) args.row_correct[i] = outcome.correct;
}

template <class T, Labels labels> void queue_loss(const Context& context, const tilefuse_loss_args& args) {
    const RowPlan plan = plan_rows<T>(args.cols, tiles_of(args));
    if (plan.lanes > 0) {
        launch(TILEFUSE_KERNEL(by_warps<T, labels>), row_grid(plan, args.rows), row_warps * warp_size,
               shared_bytes<T>(plan), context.stream, args, plan);
    } else {
        launch(TILEFUSE_KERNEL(by_blocks<T, labels>), row_grid(plan, args.rows), threads_of_block,
               shared_bytes<T>(plan), context.stream, args, plan);
    }
}

}  // namespace losses

void loss(const Context& context, const tilefuse_loss_args& args) {
    using namespace losses;
    if (args.rows == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        switch (args.loss) {
            case TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY: return queue_loss<T, Labels::class_ids>(context, args);
            case TILEFUSE_CATEGORICAL_CROSSENTROPY: return queue_loss<T, Labels::distributions>(context, args);
            case TILEFUSE_BINARY_CROSSENTROPY:
            case TILEFUSE_MEAN_SQUARED_ERROR: return queue_loss<T, Labels::numbers>(context, args);
        }
    });
}
size_t loss_workspace(const tilefuse_loss_args&) { return 0; }

}  // namespace tilefuse::cuda
