// Products of a few rows and a matrix, Y[i, j] = sum over p of X[i, p] M[p, j], which use every element of M a few times: they
// are as fast as M can be read, in the order in which it lies. X has contiguous rows. E are the elements that are multiplied, made
// from what lies in memory of M (S: matmul_pack.h) as it is read.
#pragma once

#include <algorithm>
#include <bit>
#include <utility>

#include "cpu/matmul_epilogue.h"
#include "cpu/matmul_pack.h"

namespace tilefuse::inline TILEFUSE_ISA {

// X, M and Y, with the elements from one row to the next of X, and from one contiguous row or column of M to the next.
template <class E, class S> struct FewRows {
    int64_t rows, k, columns;  // k: elements
    const E* x;
    int64_t x_stride;
    const S* m;
    int64_t m_stride;
    Sum<E>* y;     // contiguous
    Sum<E>* part;  // as large: for sums of a part of k
};

// Rows of M are contiguous: y += X[:, p] M[p, :] for a few p in one pass over y, or y = that.
template <int Rows, int Deep, class T, class S> void add_rows_of(const FewRows<T, S>& f, int64_t p, T* y, bool add) {
    const T* x = f.x + p;
    const S* m = f.m + p * f.m_stride;
    for_vectors<T>(f.columns, [&](int64_t j, int count) __attribute__((always_inline)) {
        Vec<T> sums[Rows];
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) sums[i] = add ? load_upto(y + i * f.columns + j, count) : Vec<T>{};
#pragma GCC unroll 8
        for (int r = 0; r < Deep; ++r) {
            const S* const from = m + r * f.m_stride + j;
            Vec<T> row = across<T>(from, count);
            if (Rows > 1) keep_in_register(row);
#pragma GCC unroll 4
            for (int i = 0; i < Rows; ++i) sums[i] += splat(x[i * f.x_stride + r]) * row;
        }
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) store_upto(y + i * f.columns + j, sums[i], count);
    });
}

// With more rows of X, tiles are as fast. (Zen 4, 256 x 256 and 1024 x 1024 for 2, 3 and 4 rows: 56, 61 and 103, and 33, 66 and
// 78 GFLOP/s by tiles; 70, 70 and 87, and 63, 72 and 84 so.)
constexpr int most_added_rows = 3;

// Each sum is in the order of p, for 512 at a time as in tiles: the rounding errors of long sums grow with their lengths.
template <int Rows = most_added_rows, class T, class S> void add_rows(const FewRows<T, S>& f) {
    if constexpr (Rows > 1)
        if (f.rows < Rows) return add_rows<Rows - 1>(f);
    constexpr int64_t together = 8, deep = 512;
    for (int64_t first = 0; first < f.k; first += deep) {
        T* const y = first == 0 ? f.y : f.part;
        int64_t p = first;
        for (const int64_t past = std::min(f.k, first + deep); p < past;) {
            if (p + together <= past) {
                add_rows_of<Rows, together>(f, p, y, p > first);
                p += together;
            } else {
                add_rows_of<Rows, 1>(f, p, y, p > first);
                ++p;
            }
        }
        if (first == 0) continue;
        for_vectors<T>(Rows * f.columns, [&](int64_t j, int count) {
            store_upto(f.y + j, load_upto(f.y + j, count) + load_upto(y + j, count), count);
        });
    }
}

// The sums of the lanes of Count vectors, a power of two, pairwise: that of v[i] in lane i lanes / Count.
template <class T, int Width = lanes<T> / 2, int Count> inline Vec<T> fold(const Vec<T> (&v)[Count]) {
    if constexpr (Width == 0) {
        return v[0];
    } else {
        constexpr int half = Count > 1 ? Count / 2 : 1;
        Vec<T> folded[half];
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) {
            Vec<T> low = v[i], high = v[Count > 1 ? i + half : i];
            exchange<T, Width>(low, high, std::make_integer_sequence<int, lanes<T>>());
            folded[i] = low + high;
        }
        return fold<T, Width / 2>(folded);
    }
}

// y[i] = the sum of v[i]'s lanes.
template <class T, int Count> inline void sums_of(const Vec<T> (&v)[Count], T (&y)[Count]) {
    constexpr int many = std::min<int>(lanes<T>, std::bit_ceil(static_cast<unsigned>(Count)));
#pragma GCC unroll 8
    for (int first = 0; first < Count; first += many) {
        Vec<T> some[many];
#pragma GCC unroll 16
        for (int i = 0; i < many; ++i) some[i] = first + i < Count ? v[first + i] : Vec<T>{};
        T sums[lanes<T>];
        store(sums, fold<T>(some));
        for (int i = 0; i < many && first + i < Count; ++i) y[first + i] = sums[i * (lanes<T> / many)];
    }
}

// A tile of Y, and the part of k that is added up.
struct DotTile {
    int64_t row, column, p, rows, columns, k;
    bool fetch;  // ask for the next columns of M
};

template <int Chains, int Rows, int Columns, class E, class S> void add_dots_of(const FewRows<E, S>& f, const DotTile& t) {
    using T = Sum<E>;
    const E* x = f.x + t.row * f.x_stride + t.p;
    const S* m = f.m + t.column * f.m_stride + t.p;
    const bool fetch = Rows > 1 && Columns > 1 && t.fetch;
    Vec<T> sums[Rows * Columns] = {}, others[Rows * Columns] = {};
    const auto add = [&](int64_t p, int count, Vec<T>(&to)[Rows * Columns]) __attribute__((always_inline)) {
        Vec<E> row[Rows];
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) row[i] = load_upto(x + i * f.x_stride + p, count);
#pragma GCC unroll 4
        for (int j = 0; j < Columns; ++j) {
            const S* const from = m + j * f.m_stride + p;
            Vec<E> column = across<E>(from, count);
            if (Rows > 1) keep_in_register(column);
            if (fetch) __builtin_prefetch(from + Columns * f.m_stride);
#pragma GCC unroll 4
            for (int i = 0; i < Rows; ++i) to[i * Columns + j] = add_products<E>(row[i], column, to[i * Columns + j]);
        }
    };
    int64_t p = 0;
    for (; Chains == 2 && p + 2 * lanes<T> <= t.k; p += 2 * lanes<T>) {
        add(p, lanes<T>, sums);
        add(p + lanes<T>, lanes<T>, others);
    }
    for_vectors<T>(t.k - p, [&](int64_t q, int count) __attribute__((always_inline)) { add(p + q, count, sums); });
#pragma GCC unroll 16
    for (int i = 0; Chains == 2 && i < Rows * Columns; ++i) sums[i] += others[i];
    T total[Rows * Columns];
    sums_of<T>(sums, total);
    for (int i = 0; i < Rows; ++i)
        for (int j = 0; j < Columns; ++j) {
            T& y = f.y[(t.row + i) * f.columns + t.column + j];
            y = t.p > 0 ? y + total[i * Columns + j] : total[i * Columns + j];
        }
}

// At most as many sums as a vector has lanes, or eight, so that there are enough to keep two FMA units busy.
template <class T> constexpr int dot_rows = lanes<T> >= 8 ? lanes<T> / 4 : 2;
constexpr int dot_columns = 4;

template <int Chains, int Rows, class E, class S> void add_dots_of(const FewRows<E, S>& f, DotTile t) {
    if constexpr (Rows > 1)
        if (t.rows < Rows) return add_dots_of<Chains, Rows - 1>(f, t);
    if (t.columns == dot_columns) return add_dots_of<Chains, Rows, dot_columns>(f, t);
    for (int64_t j = 0; j < t.columns; ++j, ++t.column) add_dots_of<Chains, Rows, 1>(f, t);
}

// Columns of M are contiguous. Each sum is lane by lane in the order of p, then over the lanes, for 2048 elements at a time: so
// deep a part of a few columns is in a near cache when strips of X pass it. If M is too large for any cache, the next columns
// are asked for meanwhile. (Zen 4, 2 to 16 rows, six sizes, times PyTorch's speed, geometric means of two runs: AVX-512 1.92
// and 1.82, AVX2 1.61 and 1.59; never asked for 1.75 and 1.73, 1.50 and 1.52; always 1.75 and 1.78, 1.51 and 1.46; 1024
// elements, never 1.63 and 1.63, 1.51 and 1.47.) Where the product has but one row, each sum is two, of every other vector.
// (256 x 256: 33 GFLOP/s, with one 21.)
template <int Chains, class E, class S> void add_dots(const FewRows<E, S>& f) {
    constexpr int64_t most_rows = Chains == 2 ? 1 : dot_rows<Sum<E>>;
    constexpr int64_t deep = 2048, caches_bytes = 8 * 1024 * 1024;
    const bool far = f.columns * f.k * static_cast<int64_t>(sizeof(S)) > caches_bytes;
    const Parts strips(f.rows, most_rows);
    for (int64_t p = 0; p < f.k; p += deep)
        for (int64_t j = 0; j < f.columns; j += dot_columns)
            for (int64_t strip = 0; strip < strips.count; ++strip) {
                const int64_t i = strips.begin(strip), past = strips.begin(strip + 1);
                const bool fetch = far && strip == 0 && j + 2 * dot_columns <= f.columns;
                add_dots_of<Chains, most_rows>(
                    f, {i, j, p, past - i, std::min<int64_t>(dot_columns, f.columns - j), std::min(deep, f.k - p), fetch});
            }
}

// ---- the team -------------------------------------------------------------------------------------------------------

// The most rows of A that dot products with B's columns pay for, rather than a copy of B by rows; their sums over lanes take
// some time too. (Zen 4, 784 x 128 for 4, 8, 16 and 24 rows: 47, 66, 82 and 93 GFLOP/s with copies, 103, 105, 104 and 106 with
// dots; 128 x 128 for 4, 8 and 16: 40, 60 and 79, and 65, 72 and 76; 6272 x 512 for 4, 16 and 24: 41, 81 and 88, and 71, 92 and
// 85.)
constexpr int64_t most_dotted_rows(int64_t k) { return std::min<int64_t>(16, k / 16); }

// C = A B as X, M and Y. Members take products, or columns of Y, or rows if they must.
template <class E, class S> class FewProduct {
    using T = Sum<E>;

public:
    static constexpr bool dots_are_of_pairs = is_pair<E> && std::is_same_v<S, uint16_t>;

    explicit FewProduct(const tilefuse_matmul_args& args)
        : args_(args), column_(args.n == 1), rows_(column_ ? 1 : args.m), outputs_(column_ ? args.m : args.n),
          lead_(column_ ? args.a_row_stride : args.b_col_stride), epilogue_(args) {}

    size_t scratch() const { return static_cast<size_t>(2 * rows_ * outputs_ + rows_ * args_.k) * sizeof(T); }

    void operator()(Team& team) {
        const int64_t products = products_of(args_);
        const bool whole = products >= 2 * team.size, by_rows = args_.split == TILEFUSE_SPLIT_ROWS && !column_;
        const int64_t grain = column_ ? 1 : lead_ == 1 ? lanes<T> : dot_columns;
        rows_here_ = by_rows && !whole ? team.range(rows_) : Range{0, rows_};
        columns_ = by_rows || whole ? Range{0, outputs_} : team.range(outputs_, grain);
        if (rows_here_.begin >= rows_here_.end || columns_.begin >= columns_.end) return;
        y_ = team.scratch<T>();
        for_products(args_, whole ? team.range(products) : Range{0, products}, [&](int64_t a, int64_t b, int64_t offset) {
            const S *of_a = static_cast<const S*>(args_.a) + a, *of_b = static_cast<const S*>(args_.b) + b;
            const S* const x = column_ ? of_b : of_a + rows_here_.begin * args_.a_row_stride;
            const S* const m = (column_ ? of_a : of_b) + columns_.begin * lead_;
            if (lead_ == 1) {
                add_rows(few<T, S>(x, m, column_ ? args_.a_col_stride : args_.b_row_stride));
            } else if constexpr (dots_are_of_pairs) {
                dot(few<Pair, Pair>(x, reinterpret_cast<const Pair*>(m), lead_ / 2));
            } else {
                dot(few<T, S>(x, m, lead_));
            }
            finish(offset);
        });
    }

private:
    int64_t rows() const { return rows_here_.end - rows_here_.begin; }
    int64_t columns() const { return columns_.end - columns_.begin; }

    template <class X, class M> FewRows<X, M> few(const S* x, const M* m, int64_t m_stride) const {
        T *const part = y_ + rows_ * outputs_, *const copy = part + rows_ * outputs_;
        FewRows<X, M> f = {rows(), elements_of<X>(args_.k), columns(), nullptr, 0, m, m_stride, y_, part};
        read(x, reinterpret_cast<X*>(copy), f);
        return f;
    }

    template <class X, class M> void dot(const FewRows<X, M>& f) const { rows_ == 1 ? add_dots<2>(f) : add_dots<1>(f); }

    // X as it lies, or copied where its rows are not contiguous, or other elements.
    template <class X, class M> void read(const S* x, X* copy, FewRows<X, M>& f) const {
        const int64_t stride = column_ ? args_.b_row_stride : args_.a_col_stride;
        f.x = copy;
        f.x_stride = f.k;
        if constexpr (std::is_same_v<X, S>) {
            if (stride == 1) {
                f.x = x;
                f.x_stride = args_.a_row_stride;
                return;
            }
        }
        for (int64_t i = 0; i < f.rows; ++i, x += args_.a_row_stride, copy += f.k) {
            if (stride == 1) {
                copy_along(args_.k, x, copy);
            } else {
                for (int64_t p = 0; p < f.k; ++p)
                    copy[p] = element<X>(x + p * numbers_of<X> * stride, stride, args_.k - p * numbers_of<X>);
            }
        }
    }

    // Y is C's rows, or its only column, or the gradient of a parameter.
    void finish(int64_t offset) const {
        if (args_.epilogue.rule) return epilogue_(y_, columns(), 0, rows_here_.begin, columns_.begin, rows(), columns());
        const int64_t row = column_ ? columns_.begin : rows_here_.begin, column = column_ ? 0 : columns_.begin;
        const int64_t first = offset + row * args_.c_row_stride + column;
        // (A column that is contiguous is copied as a row.)
        const bool one_row = column_ && args_.c_row_stride == 1;
        const int64_t lines = column_ ? (one_row ? 1 : columns()) : rows(), length = rows() * columns() / lines;
        const bool narrow = in_16_bits(args_);
        uint16_t* const to_narrow = static_cast<uint16_t*>(args_.c) + first;
        T* const to = static_cast<T*>(args_.c) + first;
        const T beta = static_cast<T>(args_.beta);
        for (int64_t i = 0; i < lines && beta != 0; ++i)
            for (int64_t j = 0; j < length; ++j) {
                const int64_t at = i * args_.c_row_stride + j;
                y_[i * length + j] += beta * (narrow ? static_cast<T>(widened(to_narrow[at])) : to[at]);
            }
        epilogue_(y_, column_ ? 1 : columns(), offset, row, column, column_ ? columns() : rows(), column_ ? 1 : columns());
        for (int64_t i = 0; i < lines; ++i) {
            const T* const y = y_ + i * length;
            if constexpr (sizeof(T) == sizeof(float))
                if (narrow) {
                    narrow_numbers(length, y, to_narrow + i * args_.c_row_stride);
                    continue;
                }
            for (int64_t j = 0; j < length; ++j) to[i * args_.c_row_stride + j] = y[j];
        }
    }

    const tilefuse_matmul_args& args_;
    const bool column_;  // B is one; its product with A is that of B' and A'
    const int64_t rows_, outputs_, lead_;
    const Epilogue<T> epilogue_;
    Range rows_here_, columns_;  // this member's
    T* y_;
};

// Whether A has few rows, or B one column, and the other one is best read as it lies.
template <class E, class S> bool has_few(const tilefuse_matmul_args& args) {
    const tilefuse_epilogue& e = args.epilogue;
    if (args.m == 0 || args.k == 0 || args.split == TILEFUSE_SPLIT_SUM) return false;
    const bool column = args.n == 1;
    // A column is updated as one row, which the others could not be.
    if (column && e.rule && (e.scale || e.bias || e.addend || e.preactivation || e.derivative_at || e.mask)) return false;
    if (column ? args.a_row_stride == 1 : args.b_col_stride == 1) return column || args.m <= most_added_rows;
    if ((column ? args.a_col_stride : args.b_row_stride) != 1) return false;
    const int64_t lead = column ? args.a_row_stride : args.b_col_stride;
    if (FewProduct<E, S>::dots_are_of_pairs && (lead % 2 != 0 || args.k % 2 != 0)) return false;
    return column || args.m == 1 || args.m <= (std::is_same_v<S, Unrounded> ? most_added_rows : most_dotted_rows(args.k));
}

}  // namespace tilefuse::inline TILEFUSE_ISA
