// Batch, layer and RMS normalisation, and their gradients. All of them read x twice from memory at most: once for sums,
// once to write.
//
// Sums over rows are made slice by slice, whose number depends on the shape alone; a slice's are added up by blocks of a
// few rows in T, the blocks and then the slices in double, in their order. So neither rounding errors nor the bits depend
// on the number of rows and threads.
#include <numeric>

#include "common/dtype.h"
#include "cpu/cut.h"
#include "cpu/kernels.h"
#include "cpu/matmul_epilogue.h"
#include "cpu/row.h"

namespace tilefuse::inline TILEFUSE_ISA {
namespace {

constexpr int64_t block_rows = 32;   // added up in T
constexpr int64_t most_slices = 64;  // more than a machine has cores, more or less
constexpr int strip_vectors = 4;     // columns that are added up together: so many sums are on their way at once
template <class T> constexpr int64_t strip_size = strip_vectors * lanes<T>;

// A vector of a parameter that may be absent.
template <class T> Vec<T> load_or(const T* p, int64_t j, int n, T otherwise) { return p ? load_upto(p + j, n) : splat(otherwise); }

// What becomes of a parameter's gradient: it is stored, or the parameter updated with it, if anybody wants that.
template <class T> struct Gradient {
    const tilefuse_optimizer_rule* rule;
    const tilefuse_parameter& parameter;
    T* stored;

    bool wanted() const { return rule ? parameter.w != nullptr : stored != nullptr; }
    void operator()(const double* values, T* rounded, Range columns) const {
        if (!wanted()) return;
        T* const to = rule ? rounded : stored;
        for (int64_t j = columns.begin; j < columns.end; ++j) to[j] = static_cast<T>(values[j]);
        if (rule) Update<T>(*rule, parameter)(columns.begin, to + columns.begin, columns.end - columns.begin);
    }
};

// ---- columns --------------------------------------------------------------------------------------------------------

// How x is cut. Where columns are few, some rows side by side count as one wide row, whose vectors are full; its columns
// c, c + cols, ... are all of column c. The last wide row may be shorter.
template <class T> struct Cuts {
    Cuts(int64_t rows_, int64_t cols_) : rows(rows_), cols(cols_) {
        if (cols > 0 && cols < strip_size<T>) {
            const int64_t least = lanes<T> / std::gcd<int64_t>(cols, lanes<T>);
            fold = least * ((strip_size<T> - 1) / (cols * least) + 1);
        }
        width = cols * fold;
        whole = rows / fold;
        rest = rows % fold;
        slices = std::clamp<int64_t>(whole / (2 * block_rows), 1, most_slices);
    }

    Range slice(int64_t s) const { return {whole * s / slices, whole * (s + 1) / slices}; }

    // body(number of x's rows, place in the slices' sums) for each slice and each row of a wide row, where there are any.
    template <class Body> void for_parts(const Body& body) const {
        for (int64_t s = 0; s < slices; ++s)
            for (int64_t k = 0; k < fold; ++k) {
                const Range wide = slice(s);
                const int64_t count = wide.end - wide.begin + (s == slices - 1 && k < rest ? 1 : 0);
                if (count > 0) body(count, 2 * s * width + k * cols);
            }
    }

    // body(wide row, rows, so many of the slice before, columns, sums) for all blocks of the member's slices and columns.
    template <class Body> void for_blocks(Team& team, double* sums, const Body& body) const {
        const int64_t strips = (width + strip_size<T> - 1) / strip_size<T>;
        const Range mine = team.range(slices * strips);
        for (int64_t unit = mine.begin; unit < mine.end;) {
            const int64_t s = unit / strips, end = std::min(mine.end, (s + 1) * strips);
            const Range of_slice = slice(s);
            Range columns = {(unit - s * strips) * strip_size<T>, std::min(width, (end - s * strips) * strip_size<T>)};
            double* const of_sums = sums + 2 * s * width;
            for (int64_t i = of_slice.begin; i < of_slice.end; i += block_rows)
                body(i, std::min(block_rows, of_slice.end - i), i - of_slice.begin, columns, of_sums);
            columns.end = std::min(columns.end, rest * cols);
            if (s == slices - 1 && columns.begin < columns.end)
                body(whole, int64_t{1}, of_slice.end - of_slice.begin, columns, of_sums);
            unit = end;
        }
    }

    // body(first element, so many) for all wide rows of the member, and after some of them the epilogue of `out`.
    template <class Body> void for_rows(Team& team, const tilefuse_epilogue& of_out, T* out, const Body& body) const {
        constexpr int64_t near = 4 * 1024 / sizeof(T);  // what is still in L1 then
        const int64_t elements = rows * cols, some = std::max<int64_t>(1, near / width);
        const Range mine = team.range(whole + (rest > 0));
        const Epilogue<T> epilogue(of_out, elements, 0);
        for (int64_t i = mine.begin; i < mine.end; i += some) {
            const int64_t begin = i * width, end = std::min(elements, std::min(i + some, mine.end) * width);
            for (int64_t at = begin; at < end; at += width) body(at, std::min(width, end - at));
            epilogue(out + begin, 0, 0, 0, begin, 1, end - begin);
        }
    }

    // array[c] for all columns of a wide row.
    void widen(T* array, Range columns) const {
        for (int64_t k = 1; k < fold; ++k) std::copy(array + columns.begin, array + columns.end, array + k * cols + columns.begin);
    }

    int64_t rows, cols, fold = 1, width, whole, rest, slices;
};

// Calls body(column, lanes in the last vector, vectors) for strips, and single vectors where there is no whole one.
template <class T, class Body> void for_strips(Range columns, const Body& body) {
    int64_t j = columns.begin;
    for (; j + strip_size<T> <= columns.end; j += strip_size<T>) body(j, lanes<T>, std::integral_constant<int, strip_vectors>{});
    for (; j < columns.end; j += lanes<T>)
        body(j, static_cast<int>(std::min<int64_t>(lanes<T>, columns.end - j)), std::integral_constant<int, 1>{});
}

// Some vectors, element by element.
template <class T, int V> struct Strip {
    alignas(64) T of[V * lanes<T>] = {};
    void take(const Vec<T> (&vectors)[V]) { std::memcpy(of, vectors, sizeof of); }
};

// Mean, and sum of squared distances from it, of two sets of numbers, put together (Chan, Golub and LeVeque, 1979).
inline void merge(double& mean, double& squares, double other_mean, double other_squares, double share, double before) {
    const double delta = other_mean - mean;
    mean += delta * share;
    squares += other_squares + delta * delta * (before * share);
}

// Adds a block of a strip to its means and sums of squares. Distances from nearly the mean are summed up, so that nothing
// cancels however large the mean is: from the mean of the rows before, or of the first block's.
template <class T, int V>
void add_to_moments(const T* x, int64_t stride, int64_t rows, int n, int64_t before, double* mean, double* squares) {
    constexpr int last = V - 1;
    const int columns = last * lanes<T> + n;
    const auto vector = [&](const T* row, int v) { return v < last ? load(row + v * lanes<T>) : load_upto(row + v * lanes<T>, n); };
    Strip<T, V> shifts, sums, sums_of_squares;
    Vec<T> shift[V] = {}, sum[V] = {}, square[V] = {};
    if (before == 0) {
        for (int64_t i = 0; i < rows; ++i)
            for (int v = 0; v < V; ++v) shift[v] += vector(x + i * stride, v);
        for (int v = 0; v < V; ++v) shift[v] /= static_cast<T>(rows);
        shifts.take(shift);
        for (int j = 0; j < columns; ++j) mean[j] = static_cast<double>(shifts.of[j]), squares[j] = 0;
    } else {
        for (int j = 0; j < columns; ++j) shifts.of[j] = static_cast<T>(mean[j]);
        std::memcpy(shift, shifts.of, sizeof shift);
    }
    for (int64_t i = 0; i < rows; ++i)
        for (int v = 0; v < V; ++v) {
            const Vec<T> distance = vector(x + i * stride, v) - shift[v];
            sum[v] += distance;
            square[v] += distance * distance;
        }
    sums.take(sum);
    sums_of_squares.take(square);
    const double count = static_cast<double>(rows), earlier = static_cast<double>(before), share = count / (earlier + count);
    for (int j = 0; j < columns; ++j) {
        const double total = static_cast<double>(sums.of[j]), distance = total / count;
        merge(mean[j], squares[j], static_cast<double>(shifts.of[j]) + distance,
              static_cast<double>(sums_of_squares.of[j]) - total * distance, share, earlier);
    }
}

// The same for sum(dy) and sum(dy (x - mean)).
template <class T, int V>
void add_to_gradients(const T* dy, const T* x, int64_t stride, int64_t rows, int n, int64_t before, const T* mean, double* of_dy,
                      double* of_products) {
    constexpr int last = V - 1;
    const auto vector = [&](const T* row, int v) { return v < last ? load(row + v * lanes<T>) : load_upto(row + v * lanes<T>, n); };
    Strip<T, V> sums, products;
    Vec<T> sum[V] = {}, product[V] = {}, centre[V];
    for (int v = 0; v < V; ++v) centre[v] = vector(mean, v);
    for (int64_t i = 0; i < rows; ++i)
        for (int v = 0; v < V; ++v) {
            const Vec<T> g = vector(dy + i * stride, v);
            sum[v] += g;
            product[v] += g * (vector(x + i * stride, v) - centre[v]);
        }
    sums.take(sum);
    products.take(product);
    for (int j = 0; j < last * lanes<T> + n; ++j) {
        of_dy[j] = (before ? of_dy[j] : 0) + static_cast<double>(sums.of[j]);
        of_products[j] = (before ? of_products[j] : 0) + static_cast<double>(products.of[j]);
    }
}

// ---- batch norm -----------------------------------------------------------------------------------------------------

// y = (x - centre) scale + offset: offset takes up what the mean loses when it is rounded.
template <class T> class BatchNorm {
public:
    BatchNorm(const tilefuse_batch_norm_args& args, void* shared) : args_(args), cuts_(args.rows, args.cols) {
        Cut ours(shared);
        sums_ = ours.take<double>(args.training ? 2 * cuts_.slices * cuts_.width : 0);
        for (T** constants : {&centre_, &scale_, &offset_}) *constants = ours.take<T>(cuts_.width);
        shared_size = ours.size();
    }

    void operator()(Team& team) const {
        const T* const x = static_cast<const T*>(args_.x);
        if (args_.training) {
            cuts_.for_blocks(team, sums_, [&](int64_t i, int64_t rows, int64_t before, Range columns, double* sums) {
                for_strips<T>(columns, [&](int64_t j, int n, auto vectors) {
                    add_to_moments<T, vectors>(x + i * cuts_.width + j, cuts_.width, rows, n, before, sums + j, sums + cuts_.width + j);
                });
            });
            team.barrier();
        }
        prepare(team.range(args_.cols));
        team.barrier();
        T* const y = static_cast<T*>(args_.y);
        cuts_.for_rows(team, args_.epilogue, y, [&](int64_t at, int64_t count) {
            for_vectors<T>(count, [&](int64_t j, int n) {
                const Vec<T> distance = load_upto(x + at + j, n) - load_upto(centre_ + j, n);
                store_upto(y + at + j, distance * load_upto(scale_ + j, n) + load_upto(offset_ + j, n), n);
            });
        });
    }

    size_t shared_size;

private:
    // The constants of some columns.
    void prepare(Range columns) const {
        const auto of = [](const void* p, int64_t c, double otherwise) { return p ? static_cast<double>(static_cast<const T*>(p)[c]) : otherwise; };
        const auto put = [](void* p, int64_t c, double value) {
            if (p) static_cast<T*>(p)[c] = static_cast<T>(value);
        };
        if (args_.training) merge_slices(columns);
        for (int64_t c = columns.begin; c < columns.end; ++c) {
            double mean, variance;
            if (args_.training) {
                mean = args_.rows > 0 ? sums_[c] : 0;
                variance = args_.rows > 0 ? sums_[cuts_.width + c] / static_cast<double>(args_.rows) : 0;
                if (variance < 0) variance = 0;
                const auto move = [&](void* moving, double batch) {
                    if (args_.rows > 0) put(moving, c, of(moving, c, 0) * args_.momentum + batch * (1 - args_.momentum));
                };
                move(args_.moving_mean, mean);
                move(args_.moving_variance, variance);
            } else {
                mean = of(args_.moving_mean, c, 0);
                variance = of(args_.moving_variance, c, 1);
            }
            const double inv_std = 1 / sqrt(variance + args_.epsilon), scale = of(args_.gamma, c, 1) * inv_std;
            put(args_.mean, c, mean);
            put(args_.inv_std, c, inv_std);
            centre_[c] = static_cast<T>(mean);
            scale_[c] = static_cast<T>(scale);
            offset_[c] = static_cast<T>(of(args_.beta, c, 0) - (mean - static_cast<double>(centre_[c])) * scale);
        }
        for (T* constants : {centre_, scale_, offset_}) cuts_.widen(constants, columns);
    }

    // Into the first part.
    void merge_slices(Range columns) const {
        double* const squares = sums_ + cuts_.width;
        double rows = 0;
        cuts_.for_parts([&](int64_t count, int64_t place) {
            const double more = static_cast<double>(count), share = more / (rows + more);
            for (int64_t c = columns.begin; rows > 0 && c < columns.end; ++c)
                merge(sums_[c], squares[c], sums_[place + c], squares[place + c], share, rows);
            rows += more;
        });
    }

    const tilefuse_batch_norm_args& args_;
    const Cuts<T> cuts_;
    double* sums_;  // of each slice the means, then the sums of squares
    T *centre_, *scale_, *offset_;
};

// dx = scale dy + (slope (x - centre) + offset)
template <class T> class BatchNormBackward {
public:
    BatchNormBackward(const tilefuse_batch_norm_backward_args& args, void* scratch, void* shared)
        : args_(args), cuts_(args.rows, args.cols),
          gamma_{args.rule, args.gamma_parameter, static_cast<T*>(args.dgamma)},
          beta_{args.rule, args.beta_parameter, static_cast<T*>(args.dbeta)},
          sums_wanted_(gamma_.wanted() || beta_.wanted() || (args.training && args.dx)) {
        Cut mine(scratch);
        centre_ = mine.take<T>(cuts_.width);
        scratch_size = mine.size();
        Cut ours(shared);
        sums_ = ours.take<double>(sums_wanted_ ? 2 * cuts_.slices * cuts_.width : 0);
        for (T** constants : {&scale_, &slope_, &offset_}) *constants = ours.take<T>(cuts_.width);
        rounded_ = ours.take<T>(args.cols);
        shared_size = ours.size();
    }

    void operator()(Team& team) const {
        const T *const x = static_cast<const T*>(args_.x), *const dy = static_cast<const T*>(args_.dy);
        std::copy_n(static_cast<const T*>(args_.mean), args_.cols, centre_);
        cuts_.widen(centre_, {0, args_.cols});
        if (sums_wanted_) {
            cuts_.for_blocks(team, sums_, [&](int64_t i, int64_t rows, int64_t before, Range columns, double* sums) {
                for_strips<T>(columns, [&](int64_t j, int n, auto vectors) {
                    const int64_t at = i * cuts_.width + j;
                    add_to_gradients<T, vectors>(dy + at, x + at, cuts_.width, rows, n, before, centre_ + j, sums + j, sums + cuts_.width + j);
                });
            });
            team.barrier();
        }
        prepare(team.range(args_.cols));
        T* const dx = static_cast<T*>(args_.dx);
        if (!dx) return;
        team.barrier();
        const bool training = args_.training != 0;
        cuts_.for_rows(team, args_.epilogue, dx, [&](int64_t at, int64_t count) {
            for_vectors<T>(count, [&](int64_t j, int n) {
                Vec<T> v = load_upto(scale_ + j, n) * load_upto(dy + at + j, n);
                if (training) v += load_upto(slope_ + j, n) * (load_upto(x + at + j, n) - load_upto(centre_ + j, n)) + load_upto(offset_ + j, n);
                store_upto(dx + at + j, v, n);
            });
        });
    }

    size_t scratch_size, shared_size;

private:
    // The constants of some columns; after these, as an update changes gamma, what becomes of the parameters.
    void prepare(Range columns) const {
        const T *const gamma = static_cast<const T*>(args_.gamma), *const inv_stds = static_cast<const T*>(args_.inv_std);
        double* const products = sums_ + cuts_.width;
        if (sums_wanted_) add_slices(columns);
        for (int64_t c = columns.begin; c < columns.end; ++c) {
            const double inv_std = static_cast<double>(inv_stds[c]), scale = (gamma ? static_cast<double>(gamma[c]) : 1) * inv_std;
            scale_[c] = static_cast<T>(scale);
            if (!sums_wanted_) continue;
            products[c] *= inv_std;  // dgamma
            slope_[c] = static_cast<T>(-scale * inv_std * products[c] / static_cast<double>(args_.rows));
            offset_[c] = static_cast<T>(-scale * sums_[c] / static_cast<double>(args_.rows));
        }
        for (T* constants : {scale_, slope_, offset_}) cuts_.widen(constants, columns);
        gamma_(products, rounded_, columns);
        beta_(sums_, rounded_, columns);
    }

    // Into the first part.
    void add_slices(Range columns) const {
        double* const products = sums_ + cuts_.width;
        if (args_.rows == 0)
            for (int64_t c = columns.begin; c < columns.end; ++c) sums_[c] = products[c] = 0;
        cuts_.for_parts([&](int64_t, int64_t place) {
            for (int64_t c = columns.begin; place > 0 && c < columns.end; ++c)
                sums_[c] += sums_[place + c], products[c] += products[place + c];
        });
    }

    const tilefuse_batch_norm_backward_args& args_;
    const Cuts<T> cuts_;
    const Gradient<T> gamma_, beta_;
    const bool sums_wanted_;
    double* sums_;  // of each slice those of dy, then those of dy (x - mean)
    T *centre_, *scale_, *slope_, *offset_, *rounded_;
};

// ---- layer norm -----------------------------------------------------------------------------------------------------

// n = ((x - centre) - rest) inv_std: the mean in two parts, as one may not be precise enough.
template <class T> struct Moments {
    T centre = 0, rest = 0, inv_std;
    Vec<T> operator()(Vec<T> x) const { return ((x - centre) - rest) * inv_std; }
};

template <class T> Moments<T> moments_of(const T* x, int64_t cols, bool rms, double epsilon) {
    const double count = static_cast<double>(cols);
    Moments<T> m;
    RowSum<T> sums, distances, squares;
    if (!rms) {
        for_vectors<T>(cols, [&](int64_t j, int n) { sums.add(load_upto(x + j, n)); });
        m.centre = static_cast<T>(static_cast<double>(sums.total()) / count);
    }
    for_vectors<T>(cols, [&](int64_t j, int n) {
        const Vec<T> distance = first(load_upto(x + j, n) - m.centre, n, T{});
        distances.add(distance);
        squares.add(distance * distance);
    });
    const double rest = rms ? 0 : static_cast<double>(distances.total()) / count;
    const double variance = static_cast<double>(squares.total()) / count - rest * rest;
    m.rest = static_cast<T>(rest);
    m.inv_std = static_cast<T>(1 / sqrt((variance < 0 ? 0 : variance) + epsilon));
    return m;
}

template <class T> void layer_norm_of(const tilefuse_layer_norm_args& args, Range rows) {
    const T *const gamma = static_cast<const T*>(args.gamma), *const beta = static_cast<const T*>(args.beta);
    for (int64_t i = rows.begin; i < rows.end; ++i) {
        const T* const x = static_cast<const T*>(args.x) + i * args.cols;
        T* const y = static_cast<T*>(args.y) + i * args.cols;
        const Moments<T> m = moments_of(x, args.cols, args.rms, args.epsilon);
        if (args.mean) static_cast<T*>(args.mean)[i] = m.centre + m.rest;
        if (args.inv_std) static_cast<T*>(args.inv_std)[i] = m.inv_std;
        for_vectors<T>(args.cols, [&](int64_t j, int n) {
            store_upto(y + j, m(load_upto(x + j, n)) * load_or(gamma, j, n, T{1}) + load_or(beta, j, n, T{0}), n);
        });
    }
}

template <class T> class LayerNormBackward {
public:
    LayerNormBackward(const tilefuse_layer_norm_backward_args& args, void* scratch, void* shared)
        : args_(args), slices_(std::clamp<int64_t>(args.rows / (block_rows / 2), 1, most_slices)),
          gamma_{args.rule, args.gamma_parameter, static_cast<T*>(args.dgamma)},
          beta_{args.rule, args.beta_parameter, static_cast<T*>(args.dbeta)}, sums_wanted_(gamma_.wanted() || beta_.wanted()) {
        Cut mine(scratch);
        for (T** sums : {&of_products_, &of_dy_}) *sums = mine.take<T>(args.cols);
        scratch_size = mine.size();
        Cut ours(shared);
        sums_ = ours.take<double>(sums_wanted_ ? 2 * slices_ * args.cols : 0);
        rounded_ = ours.take<T>(args.cols);
        shared_size = ours.size();
    }

    void operator()(Team& team) const {
        const Range mine = team.range(slices_);
        for (int64_t s = mine.begin; s < mine.end; ++s) {
            const Range rows = {args_.rows * s / slices_, args_.rows * (s + 1) / slices_};
            if (sums_wanted_) std::fill_n(of_slice(s), 2 * args_.cols, 0.0);
            for (int64_t i = rows.begin; i < rows.end; i += block_rows) {
                if (sums_wanted_) std::fill_n(of_products_, args_.cols, T{}), std::fill_n(of_dy_, args_.cols, T{});
                for (int64_t r = i; r < std::min(i + block_rows, rows.end); ++r) row(r);
                if (sums_wanted_) add_block(of_slice(s));
            }
        }
        if (!sums_wanted_) return;
        team.barrier();
        const Range columns = team.range(args_.cols);
        for (int64_t s = 1; s < slices_; ++s)
            for (int64_t j = columns.begin; j < columns.end; ++j)
                sums_[j] += of_slice(s)[j], sums_[args_.cols + j] += of_slice(s)[args_.cols + j];
        gamma_(sums_, rounded_, columns);
        beta_(sums_ + args_.cols, rounded_, columns);
    }

    size_t scratch_size, shared_size;

private:
    double* of_slice(int64_t s) const { return sums_ + 2 * s * args_.cols; }  // dgamma's, then dbeta's

    void row(int64_t i) const {
        const T *const dy = static_cast<const T*>(args_.dy) + i * args_.cols, *const x = static_cast<const T*>(args_.x) + i * args_.cols;
        const T* const gamma = static_cast<const T*>(args_.gamma);
        const Moments<T> m = moments(i, x);
        RowSum<T> of_g, of_products;
        if (args_.dx) {
            for_vectors<T>(args_.cols, [&](int64_t j, int n) {
                const Vec<T> g = load_upto(dy + j, n) * load_or(gamma, j, n, T{1});
                of_g.add(g);
                of_products.add(first(g * m(load_upto(x + j, n)), n, T{}));
            });
        }
        const T count = static_cast<T>(args_.cols);
        const T shift = args_.rms ? T{} : of_g.total() / count, slope = of_products.total() / count;
        T* const dx = args_.dx ? static_cast<T*>(args_.dx) + i * args_.cols : nullptr;
        for_vectors<T>(args_.cols, [&](int64_t j, int n) {
            const Vec<T> given = load_upto(dy + j, n), normalised = m(load_upto(x + j, n));
            if (dx) store_upto(dx + j, (given * load_or(gamma, j, n, T{1}) - shift - normalised * slope) * m.inv_std, n);
            if (!sums_wanted_) return;
            store_upto(of_products_ + j, load_upto(of_products_ + j, n) + given * normalised, n);
            store_upto(of_dy_ + j, load_upto(of_dy_ + j, n) + given, n);
        });
    }

    Moments<T> moments(int64_t i, const T* x) const {
        if (!args_.inv_std) return moments_of(x, args_.cols, args_.rms, args_.epsilon);
        return {args_.rms ? T{} : static_cast<const T*>(args_.mean)[i], T{}, static_cast<const T*>(args_.inv_std)[i]};
    }

    void add_block(double* sums) const {
        for (int64_t j = 0; j < args_.cols; ++j) {
            sums[j] += static_cast<double>(of_products_[j]);
            sums[args_.cols + j] += static_cast<double>(of_dy_[j]);
        }
    }

    const tilefuse_layer_norm_backward_args& args_;
    const int64_t slices_;
    const Gradient<T> gamma_, beta_;
    const bool sums_wanted_;
    T *of_products_, *of_dy_;  // of a block
    double* sums_;
    T* rounded_;
};

// In the time of one multiplication and addition, `each` element by `each`; memory is what takes the time.
double norm_work(int64_t rows, int64_t cols, double each) { return static_cast<double>(rows) * static_cast<double>(cols) * each; }

}  // namespace

void batch_norm(Team& team, const tilefuse_batch_norm_args& args) {
    if (args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) { BatchNorm<decltype(zero)>(args, team.shared<char>())(team); });
}
Cost batch_norm_cost(const tilefuse_batch_norm_args& args) {
    Cost cost;
    cost.work = norm_work(args.rows, args.cols, (args.training ? 8 : 4) + (args.epilogue.activation > TILEFUSE_LEAKY_RELU ? 40 : 0));
    by_dtype(args.dtype, [&](auto zero) { cost.shared = BatchNorm<decltype(zero)>(args, nullptr).shared_size; });
    return cost;
}

void batch_norm_backward(Team& team, const tilefuse_batch_norm_backward_args& args) {
    if (args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        BatchNormBackward<decltype(zero)>(args, team.scratch<char>(), team.shared<char>())(team);
    });
}
Cost batch_norm_backward_cost(const tilefuse_batch_norm_backward_args& args) {
    Cost cost;
    cost.work = norm_work(args.rows, args.cols, 12);
    by_dtype(args.dtype, [&](auto zero) {
        const BatchNormBackward<decltype(zero)> backward(args, nullptr, nullptr);
        cost.scratch = backward.scratch_size;
        cost.shared = backward.shared_size;
    });
    return cost;
}

void batch_norm_fold(Team& team, const tilefuse_batch_norm_fold_args& args) {
    const Range columns = team.range(args.cols);
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const auto of = [](const void* p, int64_t c, double otherwise) { return p ? static_cast<double>(static_cast<const T*>(p)[c]) : otherwise; };
        for (int64_t c = columns.begin; c < columns.end; ++c) {
            const double scale = of(args.gamma, c, 1) / sqrt(of(args.variance, c, 1) + args.epsilon);
            static_cast<T*>(args.scale)[c] = static_cast<T>(scale);
            static_cast<T*>(args.shift)[c] = static_cast<T>(of(args.beta, c, 0) + (of(args.bias, c, 0) - of(args.mean, c, 0)) * scale);
        }
    });
}
Cost batch_norm_fold_cost(const tilefuse_batch_norm_fold_args& args) {
    Cost cost;
    cost.work = 20 * static_cast<double>(args.cols);
    return cost;
}

void layer_norm(Team& team, const tilefuse_layer_norm_args& args) {
    if (args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) { layer_norm_of<decltype(zero)>(args, team.range(args.rows)); });
}
Cost layer_norm_cost(const tilefuse_layer_norm_args& args) {
    Cost cost;
    cost.work = norm_work(args.rows, args.cols, 8) + 100 * static_cast<double>(args.rows);
    return cost;
}

void layer_norm_backward(Team& team, const tilefuse_layer_norm_backward_args& args) {
    if (args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        LayerNormBackward<decltype(zero)>(args, team.scratch<char>(), team.shared<char>())(team);
    });
}
Cost layer_norm_backward_cost(const tilefuse_layer_norm_backward_args& args) {
    Cost cost;
    cost.work = norm_work(args.rows, args.cols, 16) + 100 * static_cast<double>(args.rows);
    by_dtype(args.dtype, [&](auto zero) {
        const LayerNormBackward<decltype(zero)> backward(args, nullptr, nullptr);
        cost.scratch = backward.scratch_size;
        cost.shared = backward.shared_size;
    });
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
