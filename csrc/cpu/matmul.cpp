// C[m, n] = epilogue(A[m, k] B[k, n] + beta C), and the sum of columns, which is a bias's gradient.
//
// A member of the team owns a rectangle of C, which it makes from blocks of B and of A (matmul_block.h). Where A has but a few
// rows, what matters is how B is read (matmul_few.h). The order in which an element of C is added up hangs on the product alone,
// not on the tile in which it lies: so the bits don't depend on the number of threads.
#include "common/dtype.h"
#include "cpu/kernels.h"
#include "cpu/matmul_block.h"
#include "cpu/matmul_few.h"

namespace tilefuse::inline TILEFUSE_ISA {
namespace {

// ---- the team -------------------------------------------------------------------------------------------------------

struct Grid {
    int rows, columns;  // members; rows * columns == team size
};

// How many members share out the rows and how many the columns: the member with most to do decides, and what each
// reads of A and B on top of it (columns of B may have to be packed, so reading them counts more).
template <class T> Grid choose_grid(const tilefuse_matmul_args& args, int size) {
    if (args.split != TILEFUSE_SPLIT_AUTO) return {size, 1};
    Grid best = {size, 1};
    double best_cost = 0;
    for (int columns = 1; columns <= size; ++columns) {
        if (size % columns != 0) continue;
        const int rows = size / columns;
        const double height = static_cast<double>((args.m + rows - 1) / rows);
        const int64_t vectors = vectors_of<T>(args.n);
        const double width = static_cast<double>((vectors + columns - 1) / columns * lanes<T>);
        const double cost = height * width + 8 * width + height;
        if (columns == 1 || cost < best_cost) {
            best = {rows, columns};
            best_cost = cost;
        }
    }
    return best;
}

// Whether members take parts of k: only for one product that is cut into blocks of k anyway.
template <class E, class S> bool splits_sums(const tilefuse_matmul_args& args) {
    return args.split == TILEFUSE_SPLIT_SUM && elements_of<E>(args.k) > blocking<E, S>(args).k && args.beta == 0 &&
           args.result == TILEFUSE_STORED_WHOLE && products_of(args) == 1;
}
template <class E, class S> int64_t depth_of_part(const tilefuse_matmul_args& args) { return numbers_of<E> * blocking<E, S>(args).k; }

// Each member multiplies with its own rows of B. The parts are the blocks of k that one member alone would add up one
// after the other, and they are added in that order: the bits are the same.
template <class E, class S> void matmul_by_sums(Team& team, const tilefuse_matmul_args& args) {
    using T = Sum<E>;
    const Blocking sizes = blocking<E, S>(args);  // not those of a part: the last one may be shorter, with wider blocks
    const int64_t depth = depth_of_part<E, S>(args), parts = (args.k + depth - 1) / depth;
    const int64_t groups = (team.size + parts - 1) / parts;  // of rows, where there are more members than parts
    const int64_t size = args.m * args.n;
    T* const sums = team.shared<T>();
    const Range mine = team.range(parts * groups);
    for (int64_t unit = mine.begin; unit < mine.end; ++unit) {
        const int64_t part = unit / groups, group = unit % groups;
        tilefuse_matmul_args block = args;
        block.epilogue = {};
        block.k = std::min(depth, args.k - part * depth);
        block.c_row_stride = args.n;
        Product<E, S>(block, sizes, team.scratch<char>())(
            static_cast<const S*>(args.a) + part * depth * args.a_col_stride,
            static_cast<const S*>(args.b) + part * depth * args.b_row_stride, sums + part * size, 0,
            {args.m * group / groups, args.m * (group + 1) / groups}, {0, args.n});
    }
    team.barrier();
    const Epilogue<T> epilogue(args);
    const Range rows = team.range(args.m);
    for (int64_t i = rows.begin; i < rows.end; ++i) {
        T* c = static_cast<T*>(args.c) + i * args.c_row_stride;
        for_vectors<T>(args.n, [&](int64_t j, int n) {
            Vec<T> total = load_upto(sums + i * args.n + j, n);
            for (int64_t part = 1; part < parts; ++part) total += load_upto(sums + part * size + i * args.n + j, n);
            store_upto(c + j, total, n);
        });
        epilogue(c, args.c_row_stride, 0, i, 0, 1, args.n);
    }
}

// The most rows of A that dot products with B's columns pay for, rather than a copy of B by rows; their sums over lanes take
// some time too. (Zen 4, 784 x 128 for 4, 8, 16 and 24 rows: 47, 66, 82 and 93 GFLOP/s with copies, 103, 105, 104 and 106 with
// dots; 128 x 128 for 4, 8 and 16: 40, 60 and 79, and 65, 72 and 76; 6272 x 512 for 4, 16 and 24: 41, 81 and 88, and 71, 92 and
// 85.)
constexpr int64_t most_dotted_rows(int64_t k) { return std::min<int64_t>(16, k / 16); }

// X, M and Y of matmul_few.h. Members take products, or columns of Y, or rows if they must.
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
        const bool narrow = args_.result != TILEFUSE_STORED_WHOLE;
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

template <class E, class S> void matmul_of(Team& team, const tilefuse_matmul_args& args) {
    using T = Sum<E>;
    if (has_few<E, S>(args)) return FewProduct<E, S>(args)(team);
    if (team.size > 1 && splits_sums<E, S>(args)) return matmul_by_sums<E, S>(team, args);
    const int64_t products = products_of(args);

    // Whole products to each member where there are enough of them, else a part of every one.
    const bool whole = products >= 2 * team.size;
    const Range mine = whole ? team.range(products) : Range{0, products};
    const Grid grid = whole ? Grid{1, 1} : choose_grid<T>(args, team.size);
    const int row_rank = whole ? 0 : team.rank / grid.columns, column_rank = whole ? 0 : team.rank % grid.columns;
    const int64_t vectors = vectors_of<T>(args.n);
    Range rows{0, args.m}, columns{0, args.n};  // one member's too: to divide takes as long as a small product
    if (grid.rows > 1) rows = {args.m * row_rank / grid.rows, args.m * (row_rank + 1) / grid.rows};
    if (grid.columns > 1)
        columns = {std::min(args.n, vectors * column_rank / grid.columns * lanes<T>),
                   std::min(args.n, vectors * (column_rank + 1) / grid.columns * lanes<T>)};

    Product<E, S> product(args, blocking<E, S>(args), team.scratch<char>());
    const int64_t size = args.result == TILEFUSE_STORED_WHOLE ? sizeof(T) : sizeof(uint16_t);
    for_products(args, mine, [&](int64_t a, int64_t b, int64_t c) {
        product(static_cast<const S*>(args.a) + a, static_cast<const S*>(args.b) + b, static_cast<char*>(args.c) + c * size, c, rows,
                columns);
    });
}

// Whether A and B are multiplied as bfloat16.
bool in_bfloat16(const tilefuse_matmul_args& args) {
    return args.dtype == TILEFUSE_FLOAT32 &&
           (args.operands != TILEFUSE_STORED_WHOLE || args.precision == TILEFUSE_PRECISION_BFLOAT16);
}

// body(E{}, S{}) with the elements that such a product multiplies, and what they are made from.
template <class Body> void by_element_in_bfloat16(const tilefuse_matmul_args& args, const Body& body) {
    using E = std::conditional_t<multiplies_pairs, Pair, float>;
    if (args.operands != TILEFUSE_STORED_WHOLE) return body(E{}, uint16_t{});
    body(E{}, Unrounded{});
}

template <class E, class S> Cost cost_of(const tilefuse_matmul_args& args) {
    using T = Sum<E>;
    Cost cost;
    cost.work = 2.0 * static_cast<double>(args.m) * static_cast<double>(args.n) * static_cast<double>(args.k);
    cost.work *= static_cast<double>(products_of(args));
    cost.scratch = Product<E, S>::scratch(args);
    if (has_few<E, S>(args)) cost.scratch = FewProduct<E, S>(args).scratch();
    if (splits_sums<E, S>(args)) {
        const int64_t depth = depth_of_part<E, S>(args);
        cost.shared = static_cast<size_t>((args.k + depth - 1) / depth * args.m * args.n) * sizeof(T);
    }
    return cost;
}

}  // namespace

#if defined(TILEFUSE_BASE_ISA)

// An instruction set that adds to another one has products of pairs, and leaves the rest to that one.
void matmul(Team& team, const tilefuse_matmul_args& args) {
    if (!in_bfloat16(args)) return TILEFUSE_BASE_ISA::table().matmul.run(team, args);
    by_element_in_bfloat16(args, [&](auto e, auto s) { matmul_of<decltype(e), decltype(s)>(team, args); });
}

Cost matmul_cost(const tilefuse_matmul_args& args) {
    if (!in_bfloat16(args)) return TILEFUSE_BASE_ISA::table().matmul.cost(args);
    Cost cost;
    by_element_in_bfloat16(args, [&](auto e, auto s) { cost = cost_of<decltype(e), decltype(s)>(args); });
    return cost;
}

#else

namespace {

template <class Body> void by_element(const tilefuse_matmul_args& args, const Body& body) {
    if (in_bfloat16(args)) return by_element_in_bfloat16(args, body);
    by_dtype(args.dtype, [&](auto zero) { body(zero, zero); });
}

template <class T> void column_sum_of(Team& team, const tilefuse_column_sum_args& args) {
    const T* x = static_cast<const T*>(args.x);
    T* const sums = args.rule ? team.scratch<T>() : static_cast<T*>(args.y);
    const Range mine = team.range(args.n, lanes<T>);
    for_vectors<T>(mine.end - mine.begin, [&](int64_t offset, int n) {
        const int64_t j = mine.begin + offset;
        Vec<T> total{};
        for (int64_t i = 0; i < args.m; ++i) total += load_upto(x + i * args.n + j, n);
        store_upto(sums + j, total, n);
    });
    if (args.rule && mine.begin < mine.end) {
        Update<T>(*args.rule, args.parameter)(mine.begin, sums + mine.begin, mine.end - mine.begin);
    }
}

}  // namespace

void matmul(Team& team, const tilefuse_matmul_args& args) {
    by_element(args, [&](auto e, auto s) { matmul_of<decltype(e), decltype(s)>(team, args); });
}

Cost matmul_cost(const tilefuse_matmul_args& args) {
    Cost cost;
    by_element(args, [&](auto e, auto s) { cost = cost_of<decltype(e), decltype(s)>(args); });
    return cost;
}

void column_sum(Team& team, const tilefuse_column_sum_args& args) {
    by_dtype(args.dtype, [&](auto zero) { column_sum_of<decltype(zero)>(team, args); });
}

Cost column_sum_cost(const tilefuse_column_sum_args& args) {
    Cost cost;
    cost.work = static_cast<double>(args.m) * static_cast<double>(args.n);
    cost.scratch = static_cast<size_t>(args.n) * sizeof(double);
    return cost;
}

#endif

}  // namespace tilefuse::inline TILEFUSE_ISA
