// Matrix products by every tile (which one is chosen depends on the shape), on shapes around the tile's edges, and
// their traffic: no bank conflicts, and no more sectors than aligned operands need.
#include "cuda/matmul.cu"

#include "harness.h"

namespace {

// C = relu(A B + bias) with small integers, so that there is one right answer.
template <class Tile> void check(int m, int n, int k, bool transpose_a, bool transpose_b, int shift) {
    using T = typename Tile::T;
    const auto a = small_integers<T>(static_cast<size_t>(m * k + shift), 1);
    const auto b = small_integers<T>(static_cast<size_t>(k * n + shift), 2);
    const auto bias = small_integers<T>(static_cast<size_t>(n), 3);
    const Array<T> device_a(a), device_b(b), device_bias(bias);
    Array<T> c(std::vector<T>(static_cast<size_t>(m * n), T(NAN)));
    tilefuse_matmul_args args = {};
    args.m = m;
    args.n = n;
    args.k = k;
    args.a = device_a.data + shift;
    args.b = device_b.data + shift;
    args.c = c.data;
    args.a_row_stride = transpose_a ? 1 : k;
    args.a_col_stride = transpose_a ? m : 1;
    args.b_row_stride = transpose_b ? 1 : n;
    args.b_col_stride = transpose_b ? k : 1;
    args.c_row_stride = n;
    args.epilogue.bias = device_bias.data;
    args.epilogue.activation = TILEFUSE_RELU;
    const Array<char> workspace(workspace_by<Tile>(args));
    matmul_by<Tile>({nullptr, workspace.data}, args);
    const auto result = c.host();
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
            T sum = bias[static_cast<size_t>(j)];
            for (int p = 0; p < k; ++p) {
                const int64_t at_a = shift + i * args.a_row_stride + p * args.a_col_stride;
                const int64_t at_b = shift + p * args.b_row_stride + j * args.b_col_stride;
                sum += a[static_cast<size_t>(at_a)] * b[static_cast<size_t>(at_b)];
            }
            EXPECT(result[static_cast<size_t>(i * n + j)] == (sum > 0 ? sum : 0));
        }
}

template <class Tile> void check_edges() {
    const int rows[] = {1, Tile::rows - 1, Tile::rows, Tile::rows + 1};
    const int columns[] = {1, Tile::columns - 1, Tile::columns, Tile::columns + 1};
    const int depths[] = {0, 1, Tile::depth - 1, Tile::depth, Tile::depth + 1, 2 * Tile::depth + 3};
    int turn = 0;
    for (const int m : rows)
        for (const int n : columns)
            for (const int k : depths) {
                check<Tile>(m, n, k, turn & 1, turn >> 1 & 1, turn % 3);
                ++turn;
            }
    for (int layout = 0; layout < 8; ++layout)
        check<Tile>(Tile::rows, 36, 300, layout & 1, layout >> 1 & 1, layout >> 2);
}

template <class Tile> void check_traffic() {
    for (int layout = 0; layout < 4; ++layout) {
        simt::reset_counts();
        check<Tile>(Tile::rows, 2 * Tile::columns, 2 * Tile::depth, layout & 1, layout >> 1, 0);
        check<Tile>(Tile::rows, Tile::columns, 512, layout & 1, layout >> 1, 0);
        EXPECT(simt::counts().size() == (simt::checked ? 3 : 0));
        for (const auto& launch : simt::counts()) {
            EXPECT(launch.total(true).transfers == launch.total(true).ideal);
            EXPECT(launch.total(false).transfers == launch.total(false).ideal);
        }
    }
}

#define TILE(name)                                  \
    CASE(name##_edges) { check_edges<name>(); }     \
    CASE(name##_traffic) { check_traffic<name>(); }
TILE(LargeFloat)
TILE(MediumFloat)
TILE(SmallFloat)
TILE(MediumDouble)
TILE(SmallDouble)

CASE(column_sums) {
    for (const int m : {0, 1, 3, 128, 515, 3000})
        for (const int n : {1, 2, 10, 31, 32, 33, 64}) {
            const auto x = small_integers<float>(static_cast<size_t>(m * n), 1);
            const Array<float> device_x(x);
            Array<float> y(std::vector<float>(static_cast<size_t>(n), NAN));
            tilefuse_column_sum_args args = {};
            args.m = m;
            args.n = n;
            args.x = device_x.data;
            args.y = y.data;
            const Array<char> workspace(column_sum_workspace(args));
            column_sum({nullptr, workspace.data}, args);
            const auto result = y.host();
            for (int j = 0; j < n; ++j) {
                float sum = 0;
                for (int i = 0; i < m; ++i) sum += x[static_cast<size_t>(i * n + j)];
                EXPECT(result[static_cast<size_t>(j)] == sum);
            }
        }
}

}  // namespace

int main(int count, char** names) { run_cases(count, names); }
