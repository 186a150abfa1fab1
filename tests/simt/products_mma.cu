// Matrix products on matrix units by every tile, on shapes around the tile's edges, and their traffic: no bank conflicts,
// and no more sectors than aligned operands need. Part of the program "products".
#include "cuda/matmul_mma.cu"

#include "harness.h"

using namespace tilefuse::cuda::products;

namespace {

template <class Element> std::vector<Element> stored(const std::vector<float>& numbers, tilefuse_storage as) {
    std::vector<Element> v;
    for (const float x : numbers) {
        if constexpr (sizeof(Element) == 4) {
            v.push_back(x);
        } else {
            v.push_back(narrowed(x, as));
        }
    }
    return v;
}

template <class M> constexpr tilefuse_storage format_of = TILEFUSE_STORED_WHOLE;
template <> constexpr tilefuse_storage format_of<Stored<Bfloat16>> = TILEFUSE_STORED_BFLOAT16;
template <> constexpr tilefuse_storage format_of<Stored<Float16>> = TILEFUSE_STORED_FLOAT16;

struct Problem {
    int m, n, k;
    bool transpose_a = false, transpose_b = false;
    int shift = 0;         // of the operands' first elements
    int padding = 0;       // of their rows
    bool narrow = false;   // C lies in 16 bits as well
};

// What launches of a problem should move between global memory and the blocks, in sectors of 32 bytes: operands once for
// each tile that needs them, C and the parts of k once.
double ideal_sectors(int m, int n, int k, int rows, int columns, int parts, size_t operand_bytes, size_t result_bytes) {
    const double tiles_down = (m + rows - 1) / rows, tiles_across = (n + columns - 1) / columns;
    const double operands = (tiles_across * m + tiles_down * n) * k * static_cast<double>(operand_bytes);
    const double sums = parts > 1 ? 2.0 * parts * m * n * 4 : 0;
    return (operands + sums + m * n * static_cast<double>(result_bytes) + n * 4.0) / 32;
}

// C = relu(A B + 0.5 C + bias), with small integers, so that there is one right answer.
template <class Tile> void check(const Problem& of) {
    using Source = typename Tile::Source;
    constexpr tilefuse_storage format = format_of<typename Tile::Multiplier>;
    constexpr tilefuse_storage operands = sizeof(Source) == 2 ? format : TILEFUSE_STORED_WHOLE;
    const auto [m, n, k, transpose_a, transpose_b, shift, padding, narrow] = of;
    const int a_stride = (transpose_a ? m : k) + padding, b_stride = (transpose_b ? k : n) + padding;
    const auto a = small_integers<float>(static_cast<size_t>((transpose_a ? k : m) * a_stride + shift), 1);
    const auto b = small_integers<float>(static_cast<size_t>((transpose_b ? n : k) * b_stride + shift), 2);
    const auto bias = small_integers<float>(static_cast<size_t>(n), 3);
    std::vector<float> old = small_integers<float>(static_cast<size_t>(m * n), 4);
    const Array<Source> device_a(stored<Source>(a, operands)), device_b(stored<Source>(b, operands));
    const Array<float> device_bias(bias);
    const tilefuse_storage result = narrow ? format : TILEFUSE_STORED_WHOLE;
    const Array<float> whole(old);
    const Array<uint16_t> half(narrow ? stored<uint16_t>(old, result) : std::vector<uint16_t>(1));
    tilefuse_matmul_args args = {};
    args.operands = operands;
    args.result = result;
    args.m = m;
    args.n = n;
    args.k = k;
    args.a = device_a.data + shift;
    args.b = device_b.data + shift;
    args.c = narrow ? static_cast<void*>(half.data) : whole.data;
    args.a_row_stride = transpose_a ? 1 : a_stride;
    args.a_col_stride = transpose_a ? a_stride : 1;
    args.b_row_stride = transpose_b ? 1 : b_stride;
    args.b_col_stride = transpose_b ? b_stride : 1;
    args.c_row_stride = n;
    args.beta = 2;
    args.epilogue.bias = device_bias.data;
    args.epilogue.activation = TILEFUSE_RELU;
    const Array<char> workspace(bytes_of_sums<float>(extents_of(args), cut_of<Tile>(extents_of(args))));
    multiply_mma_by<Tile>({nullptr, workspace.data}, args);
    const auto floats = whole.host();
    const auto halves = half.host();
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
            const size_t at = static_cast<size_t>(i * n + j);
            float sum = bias[static_cast<size_t>(j)] + 2 * old[at];
            for (int p = 0; p < k; ++p) {
                const int64_t at_a = shift + i * args.a_row_stride + p * args.a_col_stride;
                const int64_t at_b = shift + p * args.b_row_stride + j * args.b_col_stride;
                sum += a[static_cast<size_t>(at_a)] * b[static_cast<size_t>(at_b)];
            }
            if (sum < 0) sum = 0;
            EXPECT(narrow ? halves[at] == narrowed(sum, result) : floats[at] == sum);
        }
}

template <class Tile> void check_edges() {
    const int edges[] = {1, Tile::rows - 1, Tile::rows + 1};
    const int depths[] = {0, 1, Tile::depth - 1, Tile::depth, Tile::depth + 1, 5 * Tile::depth + 3};
    const bool narrow = sizeof(typename Tile::Source) == 2;
    int turn = 0;
    for (const int m : edges)
        for (const int n : edges)
            for (const int k : {depths[turn % 6], depths[(turn + 3) % 6]}) {
                check<Tile>({m, n, k, (turn & 1) != 0, (turn & 2) != 0, turn % 3, 0, narrow && turn % 2 == 0});
                ++turn;
            }
    // Whole packs whose last ones the matrix doesn't fill.
    for (int layout = 0; layout < 4; ++layout)
        check<Tile>({Tile::rows - 5, 37, Tile::depth + 9, (layout & 1) != 0, (layout & 2) != 0, 0,
                     8 - (layout & 1 ? (Tile::rows - 5) % 8 : (Tile::depth + 9) % 8), false});
    for (int layout = 0; layout < 8; ++layout)
        check<Tile>({Tile::rows, 40, 304, (layout & 1) != 0, (layout & 2) != 0, layout >> 2, 0, narrow});
}

template <class Tile> void check_traffic() {
    const size_t bytes = sizeof(typename Tile::Source);
    const bool narrow = bytes == 2;
    for (int layout = 0; layout < 4; ++layout) {
        simt::reset_counts();
        const bool transpose_a = (layout & 1) != 0, transpose_b = (layout & 2) != 0;
        const int m = Tile::rows, n = 2 * Tile::columns, k = 4 * Tile::depth, deep = 512;
        check<Tile>({m, n, k, transpose_a, transpose_b, 0, 0, narrow});
        check<Tile>({m, m, deep, transpose_a, transpose_b, 0, 0, narrow});
        if (!simt::checked) continue;
        const auto counts = simt::counts();
        EXPECT(counts.size() == 3);  // of the second problem, k is cut
        double moved[2] = {};
        for (size_t i = 0; i < 3; ++i) {
            EXPECT(counts[i].total(true).transfers == counts[i].total(true).ideal);
            EXPECT(counts[i].total(false).transfers == counts[i].total(false).ideal);
            moved[i > 0] += static_cast<double>(counts[i].total(false).transfers);
        }
        tilefuse_matmul_args args = {};
        args.m = args.n = m;
        args.k = deep;
        const int parts = static_cast<int>(cut_of<Tile>(extents_of(args)).parts);
        EXPECT(parts > 1);
        const size_t c = 2 * (narrow ? 2 : 4);  // it is read too
        EXPECT(moved[0] <= 1.1 * ideal_sectors(m, n, k, Tile::rows, Tile::columns, 1, bytes, c));
        EXPECT(moved[1] <= 1.1 * ideal_sectors(m, m, deep, Tile::rows, Tile::columns, parts, bytes, c));
    }
}

#define MULTIPLIER(name, ...)                                              \
    CASE(name##_large_edges) { check_edges<LargeMma<__VA_ARGS__>>(); }     \
    CASE(name##_small_edges) { check_edges<SmallMma<__VA_ARGS__>>(); }     \
    CASE(name##_large_traffic) { check_traffic<LargeMma<__VA_ARGS__>>(); } \
    CASE(name##_small_traffic) { check_traffic<SmallMma<__VA_ARGS__>>(); }
MULTIPLIER(split, Split, float)
MULTIPLIER(tf32, Tf32, float)
MULTIPLIER(rounded_bfloat16, Stored<Bfloat16>, float)
MULTIPLIER(rounded_float16, Stored<Float16>, float)
MULTIPLIER(stored_bfloat16, Stored<Bfloat16>, uint16_t)
MULTIPLIER(stored_float16, Stored<Float16>, uint16_t)

}  // namespace
