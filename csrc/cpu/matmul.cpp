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
           !in_16_bits(args) && products_of(args) == 1;
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
    const int64_t size = in_16_bits(args) ? sizeof(uint16_t) : sizeof(T);
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
    cost.scratch = has_few<E, S>(args) ? FewProduct<E, S>(args).scratch() : Product<E, S>::scratch(args);
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
