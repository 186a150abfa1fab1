// Losses, each with its gradient, probabilities and correctness in one pass over the rows. A class of target 0 adds
// nothing to a cross-entropy, even where its probability is 0.
#include "common/activation.h"
#include "common/dtype.h"
#include "cuda/kernels.h"
#include "cuda/row.cuh"

namespace tilefuse::cuda {
namespace losses {

constexpr double margin = 1e-7;  // probabilities are clipped to [margin, 1 - margin]

template <class T> __device__ __forceinline__ T weight_of_row(const tilefuse_loss_args& args, int64_t row) {
    return args.sample_weight == nullptr ? T(1) : static_cast<const T*>(args.sample_weight)[row / args.rows_per_sample];
}

template <class T> __device__ __forceinline__ T* row_of(void* array, int64_t row, int64_t cols) {
    return array == nullptr ? nullptr : static_cast<T*>(array) + row * cols;
}

// ---- cross-entropy over classes -------------------------------------------------------------------------------------

// A row's labels as a distribution over the classes, smoothed.
template <class T> struct ClassIds {
    __device__ __forceinline__ ClassIds(const tilefuse_loss_args& args, int64_t row, bool exists)
        : label(exists ? static_cast<const int32_t*>(args.labels)[row] : 0), valid(label >= 0 && label < args.cols),
          share(static_cast<T>(args.label_smoothing / static_cast<double>(args.cols))),
          rest(static_cast<T>(1 - args.label_smoothing)) {}

    __device__ __forceinline__ T operator()(int64_t j) const { return (j == label ? rest : T(0)) + share; }
    template <class Shared> __device__ __forceinline__ int64_t most_likely(const Shared&) const { return label; }

    const int64_t label;
    const bool valid;
    const T share, rest;
    static constexpr bool adds_up_to_one = true;
};

template <class T> struct Distribution {
    __device__ __forceinline__ Distribution(const tilefuse_loss_args& args, int64_t row, bool)
        : labels(static_cast<const T*>(args.labels) + row * args.cols),
          share(static_cast<T>(args.label_smoothing / static_cast<double>(args.cols))),
          rest(static_cast<T>(1 - args.label_smoothing)) {}

    __device__ __forceinline__ T operator()(int64_t j) const { return labels[j] * rest + share; }
    template <class Shared> __device__ __forceinline__ int64_t most_likely(const Shared& row) const {
        T largest = Shared::lowest();
        row.each([&](int64_t j, T) { largest = labels[j] > largest ? labels[j] : largest; });
        largest = row.reduce(largest, Shared::lowest(), Largest{});
        return row.find([&](int64_t j, T) { return labels[j] == largest; });
    }

    const T* labels;
    const T share, rest;
    static constexpr bool valid = true, adds_up_to_one = false;
};

template <class T, class Target, int Held, bool WholeBlock>
__global__ void __launch_bounds__(row_block) categorical(tilefuse_loss_args args, int lanes) {
    const Row<T, Held, WholeBlock> row(static_cast<const T*>(args.x), args.rows, args.cols, lanes);
    const int64_t i = row.index(), cols = args.cols;
    const Target target(args, i, row.exists());
    T* const dx = row_of<T>(args.dx, i, cols);
    T* const probabilities = row_of<T>(args.probabilities, i, cols);
    const T weight = !row.exists() ? T(0) : target.valid ? weight_of_row<T>(args, i) : static_cast<T>(__builtin_nan(""));
    const T scale = weight * static_cast<T>(args.scale), largest = row.largest();
    bool correct = false;
    if (args.row_correct != nullptr) {  // before dx or the probabilities, which may take x's place
        const int64_t predicted = row.find([&](int64_t, T x) { return x == largest; });
        correct = predicted < cols && predicted == target.most_likely(row);
    }
    T loss;
    if (args.from_logits) {
        // loss = sum(t) log(sum(exp(x))) - sum(t x), dx = softmax(x) sum(t) - t, all with x less its maximum
        const T total = row.sum([&](int64_t, T x) { return tilefuse::exp(x - largest); });
        const T targets = Target::adds_up_to_one ? T(1) : row.sum([&](int64_t j, T) { return target(j); });
        const T products = row.sum([&](int64_t j, T x) {
            const T t = target(j);
            return t != 0 ? t * (x - largest) : T(0);
        });
        loss = tilefuse::log(total) * targets - products;
        row.each([&](int64_t j, T x) {
            const T p = tilefuse::exp(x - largest) / total, t = target(j);
            if (probabilities != nullptr) probabilities[j] = p;
            if (dx != nullptr) dx[j] = (p * targets - t) * scale;
        });
    } else {
        // With q = x / sum(x) and p = clip(q): loss = -sum(t log(p)); dq = -t / p where p = q,
        // dx = (dq - sum(dq q)) / sum(x).
        const T total = row.sum([](int64_t, T x) { return x; });
        const auto slope = [](T t, T q) {
            const T p = clamp(q, margin, 1 - margin);
            return p == q || q != q ? -t / p : T(0);
        };
        loss = row.sum([&](int64_t j, T x) { return target(j) * -tilefuse::log(clamp(x / total, margin, 1 - margin)); });
        const T product = row.sum([&](int64_t j, T x) { return slope(target(j), x / total) * (x / total); });
        row.each([&](int64_t j, T x) {
            const T t = target(j);
            if (probabilities != nullptr) probabilities[j] = x;
            if (dx != nullptr) dx[j] = (slope(t, x / total) - product) / total * scale;
        });
    }
    if (!row.first_thread()) return;
    if (cols == 0) loss = 0;
    if (args.row_loss != nullptr) args.row_loss[i] = static_cast<double>(loss) * static_cast<double>(weight);
    if (args.row_correct != nullptr) args.row_correct[i] = correct;
}

// ---- losses of one number at a time, averaged over the columns ------------------------------------------------------

template <class T> struct Term {
    T loss, slope, probability, correct;
};

// loss = max(x, 0) - x t + log(1 + exp(-|x|)) = -t log(p) - (1 - t) log(1 - p) for p = sigmoid(x)
template <class T> __device__ __forceinline__ Term<T> binary_from_logits(T x, T label, T smoothing) {
    const T t = label * (1 - smoothing) + smoothing / 2;
    const T e = tilefuse::exp(-tilefuse::abs(x));
    const T p = (x < 0 ? e : T(1)) / (1 + e);  // above one half where sigmoid(x) is
    const T correct = (p > T(0.5)) == (label > T(0.5));
    return {(x > 0 ? x : T(0)) - x * t + tilefuse::log1p(e), p - t, p, correct};
}

template <class T> __device__ __forceinline__ Term<T> binary_from_probabilities(T x, T label, T smoothing) {
    const T t = label * (1 - smoothing) + smoothing / 2;
    const T p = clamp(x, margin, 1 - margin);
    const T slope = p == x || x != x ? (1 - t) / (1 - p) - t / p : T(0);
    const T correct = (x > T(0.5)) == (label > T(0.5));
    return {-(t * tilefuse::log(p) + (1 - t) * tilefuse::log(1 - p)), slope, x, correct};
}

template <class T> __device__ __forceinline__ Term<T> squared_error(T x, T label) {
    const T difference = x - label;
    return {difference * difference, 2 * difference, x, T(0)};
}

template <class T, int Held, bool WholeBlock>
__global__ void __launch_bounds__(row_block) elementwise(tilefuse_loss_args args, int lanes) {
    const Row<T, Held, WholeBlock> row(static_cast<const T*>(args.x), args.rows, args.cols, lanes);
    const int64_t i = row.index(), cols = args.cols;
    const T* const labels = static_cast<const T*>(args.labels) + i * cols;
    T* const dx = row_of<T>(args.dx, i, cols);
    T* const probabilities = row_of<T>(args.probabilities, i, cols);
    const T weight = row.exists() ? weight_of_row<T>(args, i) : T(0), columns = static_cast<T>(cols > 0 ? cols : 1);
    const T scale = static_cast<T>(args.scale) / columns * weight, smoothing = static_cast<T>(args.label_smoothing);
    T losses = 0, correct = 0;
    row.each([&](int64_t j, T x) {
        const T label = labels[j];
        const Term<T> term = args.loss == TILEFUSE_MEAN_SQUARED_ERROR ? squared_error(x, label)
                             : args.from_logits                      ? binary_from_logits(x, label, smoothing)
                                                                     : binary_from_probabilities(x, label, smoothing);
        losses += term.loss;
        correct += term.correct;
        if (probabilities != nullptr) probabilities[j] = term.probability;
        if (dx != nullptr) dx[j] = term.slope * scale;
    });
    losses = row.reduce(losses, T(0), Add{});
    correct = row.reduce(correct, T(0), Add{});
    if (!row.first_thread()) return;
    if (args.row_loss != nullptr) {
        args.row_loss[i] = static_cast<double>(losses) / static_cast<double>(columns) * static_cast<double>(weight);
    }
    if (args.row_correct != nullptr) args.row_correct[i] = static_cast<double>(correct) / static_cast<double>(columns);
}

}  // namespace losses

void loss(const Context& context, const tilefuse_loss_args& args) {
    if (args.rows == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        share_rows(args.rows, args.cols, [&](auto held, auto whole_block, dim3 grid, int lanes) {
            const auto on = [&](const auto& kernel) { launch(kernel, grid, row_block, 0, context.stream, args, lanes); };
            if (args.loss == TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY) {
                on(TILEFUSE_KERNEL(losses::categorical<T, losses::ClassIds<T>, held(), whole_block()>));
            } else if (args.loss == TILEFUSE_CATEGORICAL_CROSSENTROPY) {
                on(TILEFUSE_KERNEL(losses::categorical<T, losses::Distribution<T>, held(), whole_block()>));
            } else {
                on(TILEFUSE_KERNEL(losses::elementwise<T, held(), whole_block()>));
            }
        });
    });
}
size_t loss_workspace(const tilefuse_loss_args&) { return 0; }

}  // namespace tilefuse::cuda
