// Losses. Each row's loss, gradient, probabilities and correctness come from one pass over it while it is in
// cache. A class of target 0 adds nothing to a cross-entropy, even where its probability is 0.
#include "common/activation.h"
#include "common/dtype.h"
#include "cpu/kernels.h"
#include "cpu/row.h"

namespace tilefuse::inline TILEFUSE_ISA {

namespace {

constexpr double margin = 1e-7;  // probabilities are clipped to [margin, 1 - margin]

template <class T> constexpr T not_a_number() { return static_cast<T>(__builtin_nan("")); }

template <class T> T weight_of_row(const tilefuse_loss_args& args, int64_t row) {
    return args.sample_weight == nullptr
               ? 1
               : static_cast<const T*>(args.sample_weight)[row / args.rows_per_sample];
}

template <class T> T* row_of(void* array, int64_t row, int64_t cols) {
    return array == nullptr ? nullptr : static_cast<T*>(array) + row * cols;
}

// ---- cross-entropy over classes ----

// A row's labels as a distribution over the classes, smoothed: vector j of n columns at a time.
template <class T> struct ClassIds {
    ClassIds(const tilefuse_loss_args& args, int64_t row)
        : label(static_cast<const int32_t*>(args.labels)[row]),
          valid(label >= 0 && label < args.cols),
          share(static_cast<T>(args.label_smoothing / static_cast<double>(args.cols))),
          rest(static_cast<T>(1 - args.label_smoothing)) {}

    Vec<T> operator()(int64_t j, int n) const {
        const Vec<T> hit = lane_numbers<T>() == static_cast<Integers<T>>(label - j) ? splat(rest) : Vec<T>{};
        return first(hit + share, n, T{});
    }
    int64_t most_likely(int64_t) const { return label; }
    static constexpr bool adds_up_to_one = true;

    const int64_t label;
    const bool valid;
    const T share, rest;
};

template <class T> struct Distribution {
    Distribution(const tilefuse_loss_args& args, int64_t row)
        : labels(static_cast<const T*>(args.labels) + row * args.cols),
          share(static_cast<T>(args.label_smoothing / static_cast<double>(args.cols))),
          rest(static_cast<T>(1 - args.label_smoothing)) {}

    Vec<T> operator()(int64_t j, int n) const {
        return first(load_upto(labels + j, n) * rest + share, n, T{});
    }
    int64_t most_likely(int64_t cols) const { return find(labels, cols, row_max(labels, cols)); }
    static constexpr bool adds_up_to_one = false;

    const T* labels;
    const bool valid = true;
    const T share, rest;
};

// loss = sum(t) log(sum(exp(x))) - sum(t x), dx = softmax(x) sum(t) - t, all with x less its maximum.
template <class T, class Target>
T from_logits(const T* x, T largest, const Target& target, int64_t cols, T scale, T* dx, T* probabilities) {
    T* exponentials = probabilities != nullptr ? probabilities : dx;
    RowSum<T> sums, targets, products;
    for_vectors<T>(cols, [&](int64_t j, int n) {
        const Vec<T> d = load_upto(x + j, n) - largest, t = target(j, n), e = exp(d);
        if (exponentials != nullptr) store_upto(exponentials + j, e, n);
        sums.add(first(e, n, T{}));
        targets.add(t);
        products.add(t != 0 ? t * d : Vec<T>{});
    });
    const T total = sums.total(), target_sum = Target::adds_up_to_one ? T{1} : targets.total();
    if (exponentials != nullptr) {
        for_vectors<T>(cols, [&](int64_t j, int n) {
            const Vec<T> p = load_upto(exponentials + j, n) / total;
            if (probabilities != nullptr) store_upto(probabilities + j, p, n);
            if (dx != nullptr) store_upto(dx + j, (p * target_sum - target(j, n)) * scale, n);
        });
    }
    return log(total) * target_sum - products.total();
}

// With q = x / sum(x) and p = clip(q): loss = -sum(t log(p)); dq = -t / p where p = q,
// dx = (dq - sum(dq q)) / sum(x).
template <class T, class Target>
T from_probabilities(const T* x, const Target& target, int64_t cols, T scale, T* dx, T* probabilities) {
    RowSum<T> sums;
    for_vectors<T>(cols, [&](int64_t j, int n) { sums.add(load_upto(x + j, n)); });
    const T total = sums.total();
    const auto slope = [](Vec<T> t, Vec<T> q) {
        const Vec<T> p = clamp(q, margin, 1 - margin);
        return (p == q) | (q != q) ? -t / p : Vec<T>{};
    };
    RowSum<T> losses, products;
    for_vectors<T>(cols, [&](int64_t j, int n) {
        const Vec<T> t = target(j, n), q = load_upto(x + j, n) / total;
        losses.add(first(t * -log(clamp(q, margin, 1 - margin)), n, T{}));
        products.add(first(slope(t, q) * q, n, T{}));
    });
    const T product = products.total();
    if (dx != nullptr || probabilities != nullptr) {
        for_vectors<T>(cols, [&](int64_t j, int n) {
            const Vec<T> given = load_upto(x + j, n);
            if (probabilities != nullptr) store_upto(probabilities + j, given, n);
            if (dx != nullptr)
                store_upto(dx + j, (slope(target(j, n), given / total) - product) / total * scale, n);
        });
    }
    return losses.total();
}

template <class T, class Target> void categorical(const tilefuse_loss_args& args, Range rows) {
    const int64_t cols = args.cols;
    for (int64_t i = rows.begin; i < rows.end; ++i) {
        const T* x = static_cast<const T*>(args.x) + i * cols;
        T* dx = row_of<T>(args.dx, i, cols);
        T* probabilities = row_of<T>(args.probabilities, i, cols);
        const Target target(args, i);
        const T weight = target.valid ? weight_of_row<T>(args, i) : not_a_number<T>();
        const T scale = weight * static_cast<T>(args.scale);
        const T largest = row_max(x, cols);
        if (args.row_correct != nullptr) {  // before dx or the probabilities, which may take x's place
            const int64_t predicted = find(x, cols, largest);
            args.row_correct[i] = predicted >= 0 && predicted == target.most_likely(cols);
        }
        const T loss = cols == 0          ? T{}
                       : args.from_logits ? from_logits(x, largest, target, cols, scale, dx, probabilities)
                                          : from_probabilities(x, target, cols, scale, dx, probabilities);
        if (args.row_loss != nullptr)
            args.row_loss[i] = static_cast<double>(loss) * static_cast<double>(weight);
    }
}

// ---- losses of one number at a time, averaged over the columns ----

template <class T> struct Term {
    Vec<T> loss, slope, probability, correct;
};

// loss = max(x, 0) - x t + log(1 + exp(-|x|)) = -t log(p) - (1 - t) log(1 - p) for p = sigmoid(x)
template <class T> struct BinaryFromLogits {
    T smoothing;
    Term<T> operator()(Vec<T> x, Vec<T> label) const {
        const Vec<T> t = label * (1 - smoothing) + smoothing / 2;
        const Vec<T> e = exp(-abs(x));
        const Vec<T> p = (x < 0 ? e : all<Vec<T>>(1)) / (1 + e);  // above one half where sigmoid(x) is
        const Vec<T> correct = (p > T(0.5)) == (label > T(0.5)) ? all<Vec<T>>(1) : Vec<T>{};
        return {(x > 0 ? x : Vec<T>{}) - x * t + log1p(e), p - t, p, correct};
    }
};

template <class T> struct BinaryFromProbabilities {
    T smoothing;
    Term<T> operator()(Vec<T> x, Vec<T> label) const {
        const Vec<T> t = label * (1 - smoothing) + smoothing / 2;
        const Vec<T> p = clamp(x, margin, 1 - margin);
        const Vec<T> slope = (p == x) | (x != x) ? (1 - t) / (1 - p) - t / p : Vec<T>{};
        const Vec<T> correct = (x > T(0.5)) == (label > T(0.5)) ? all<Vec<T>>(1) : Vec<T>{};
        return {-(t * log(p) + (1 - t) * log(1 - p)), slope, x, correct};
    }
};

template <class T> struct SquaredError {
    Term<T> operator()(Vec<T> x, Vec<T> label) const {
        const Vec<T> difference = x - label;
        return {difference * difference, 2 * difference, x, Vec<T>{}};
    }
};

template <class T, class Loss> void by_rows(const tilefuse_loss_args& args, Range rows, Loss loss) {
    const int64_t cols = args.cols;
    const T columns = static_cast<T>(cols > 0 ? cols : 1);
    for (int64_t i = rows.begin; i < rows.end; ++i) {
        const T* x = static_cast<const T*>(args.x) + i * cols;
        const T* labels = static_cast<const T*>(args.labels) + i * cols;
        T* dx = row_of<T>(args.dx, i, cols);
        T* probabilities = row_of<T>(args.probabilities, i, cols);
        const T weight = weight_of_row<T>(args, i), scale = static_cast<T>(args.scale) / columns * weight;
        RowSum<T> losses, correct;
        for_vectors<T>(cols, [&](int64_t j, int n) {
            const Term<T> term = loss(load_upto(x + j, n), load_upto(labels + j, n));
            losses.add(first(term.loss, n, T{}));
            correct.add(first(term.correct, n, T{}));
            if (probabilities != nullptr) store_upto(probabilities + j, term.probability, n);
            if (dx != nullptr) store_upto(dx + j, term.slope * scale, n);
        });
        if (args.row_loss != nullptr) {
            args.row_loss[i] = static_cast<double>(losses.total()) / static_cast<double>(columns) *
                               static_cast<double>(weight);
        }
        if (args.row_correct != nullptr) {
            args.row_correct[i] = static_cast<double>(correct.total()) / static_cast<double>(columns);
        }
    }
}

// One column: vectors run over rows instead.
template <class T, class Loss> void single_column(const tilefuse_loss_args& args, Range rows, Loss loss) {
    const T* x = row_of<T>(const_cast<void*>(args.x), rows.begin, 1);
    const T* labels = row_of<T>(const_cast<void*>(args.labels), rows.begin, 1);
    T* dx = row_of<T>(args.dx, rows.begin, 1);
    T* probabilities = row_of<T>(args.probabilities, rows.begin, 1);
    for_vectors<T>(rows.end - rows.begin, [&](int64_t j, int n) {
        const Term<T> term = loss(load_upto(x + j, n), load_upto(labels + j, n));
        Vec<T> weights{};
        for (int lane = 0; lane < n; ++lane) weights[lane] = weight_of_row<T>(args, rows.begin + j + lane);
        if (probabilities != nullptr) store_upto(probabilities + j, term.probability, n);
        if (dx != nullptr) store_upto(dx + j, term.slope * (static_cast<T>(args.scale) * weights), n);
        for (int lane = 0; lane < n; ++lane) {
            const int64_t i = rows.begin + j + lane;
            if (args.row_loss != nullptr) {
                args.row_loss[i] = static_cast<double>(term.loss[lane]) * static_cast<double>(weights[lane]);
            }
            if (args.row_correct != nullptr) args.row_correct[i] = static_cast<double>(term.correct[lane]);
        }
    });
}

template <class T, class Loss> void elementwise(const tilefuse_loss_args& args, Range rows, Loss loss) {
    if (args.cols == 1) {
        single_column<T>(args, rows, loss);
    } else {
        by_rows<T>(args, rows, loss);
    }
}

template <class T> void loss_of_type(const tilefuse_loss_args& args, Range rows) {
    const T smoothing = static_cast<T>(args.label_smoothing);
    switch (args.loss) {
        case TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY: return categorical<T, ClassIds<T>>(args, rows);
        case TILEFUSE_CATEGORICAL_CROSSENTROPY: return categorical<T, Distribution<T>>(args, rows);
        case TILEFUSE_BINARY_CROSSENTROPY:
            if (args.from_logits) return elementwise<T>(args, rows, BinaryFromLogits<T>{smoothing});
            return elementwise<T>(args, rows, BinaryFromProbabilities<T>{smoothing});
        case TILEFUSE_MEAN_SQUARED_ERROR: return elementwise<T>(args, rows, SquaredError<T>{});
    }
}

}  // namespace

void loss(Team& team, const tilefuse_loss_args& args) {
    by_dtype(args.dtype, [&](auto zero) { loss_of_type<decltype(zero)>(args, team.range(args.rows)); });
}

Cost loss_cost(const tilefuse_loss_args& args) {
    Cost cost;
    cost.work = static_cast<double>(args.rows) * (60 * static_cast<double>(args.cols) + 300);
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
