// Multi-layer perceptrons of width up to 128: forward in one kernel, backward in one and the sum of its gradients.
//
// A block takes 32 rows of the batch through all layers. Their activations (or gradients) stay in shared memory, each
// layer's sums in registers; weights come through shared memory, 32 of their rows or columns at a time. Backward, a
// block has the part of dw and db that its rows give; a second kernel adds up the blocks' parts in their order.
//
// Everything in shared memory is float32; operands are split or rounded on their way to the matrix units.
#include <algorithm>

#include "common/activation.h"
#include "cuda/kernels.h"
#include "cuda/mma.cuh"
#include "cuda/packs.cuh"

namespace tilefuse::cuda::networks {

constexpr int width = TILEFUSE_MLP_WIDTH;
constexpr int tile_rows = 32;  // of the batch
constexpr int depth = 32;      // of a product at a time
constexpr int threads = 256;
constexpr int pack = 4;

// ---- arguments ------------------------------------------------------------------------------------------------------

struct Layer {
    tilefuse_mlp_layer of;
    int64_t inputs;
    float *dw_parts, *db_parts;  // a block's parts of dw and db; null: not wanted
    bool weight_packs, packs;    // whether 16-byte accesses to w and dw, or to the arrays [batch, outputs], are aligned
    bool mask_packs;             // likewise, 4 bytes
};

struct Network {
    int64_t batch;
    int layers;
    Layer layer[TILEFUSE_MLP_LAYERS];
    const float *x, *dy;
    float* dx;
    bool x_packs, dy_packs;
    int64_t tiles, part_stride;  // tiles of a block; elements from one block's parts to the next's
};

// ---- matrices in shared memory --------------------------------------------------------------------------------------

// Where column `column` of a row lies. Lanes that read 8 rows of 4 neighbouring columns, and lanes that read 4 rows of
// 8, both hit 32 different banks; packs stay whole, and so do 32 columns.
__device__ __forceinline__ int swizzled(int row, int column) { return column ^ ((row & 3) << 3 | (row & 4)); }

// to[Rows][Columns] = the corner of a matrix that has `rows` x `columns` left, zeros elsewhere.
template <int Rows, int Columns>
__device__ __forceinline__ void load_matrix(float* to, const float* from, int64_t stride, int64_t rows, int64_t columns,
                                            bool packs) {
    constexpr int packs_of_row = Columns / pack;
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < Rows * packs_of_row / threads; ++i) {
        const int index = i * threads + static_cast<int>(threadIdx.x);
        const int row = index / packs_of_row, column = index % packs_of_row * pack;
        const int64_t count = row < rows ? columns - column : 0;
        store_pack(to + row * Columns + swizzled(row, column),
                   load_upto<pack>(from + row * stride + column, count, packs));
    }
}

// A[32, 32] of a product: part of a [32][width] matrix, whose rows are A's, or A's columns if transposed.
template <bool Transposed> struct MatrixA {
    const float* data;
    int at;  // the first column of the part

    __device__ __forceinline__ float operator()(int i, int k) const {
        return Transposed ? data[k * width + swizzled(k, at + i)] : data[i * width + swizzled(i, at + k)];
    }
    __device__ __forceinline__ Pack<float, pack> along_k(int i, int k) const {
        if constexpr (Transposed) {
            Pack<float, pack> x;
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < pack; ++e) x.of[e] = (*this)(i, k + e);
            return x;
        } else {
            return load_pack<pack>(data + i * width + swizzled(i, at + k));
        }
    }
};

// B[32, width]: a [32][width] matrix, or a [width][32] one if transposed.
template <bool Transposed> struct MatrixB {
    static constexpr bool transposed = Transposed;
    const float* data;

    __device__ __forceinline__ float operator()(int k, int j) const {
        return Transposed ? data[j * depth + swizzled(j, k)] : data[k * width + swizzled(k, j)];
    }
    __device__ __forceinline__ Pack<float, pack> along(int row, int column) const {
        return load_pack<pack>(data + row * (Transposed ? depth : width) + swizzled(row, column));
    }
};

// ---- products: the block's C[32, columns] += A[32, 32] B[32, columns] -----------------------------------------------
// Each has the sums of this thread, `add` a product, and `each`, which calls body(row, column, pack) for all of them.

// On FMA units, every sum one chain in the order of k. As many columns of warps as there are 32 columns of C (1, 2 or
// 4), and a thread has so many rows of 4 columns.
class Fma {
public:
    __device__ __forceinline__ explicit Fma(int columns)
        : across_(columns > 64 ? 4 : columns > 32 ? 2 : 1), row_(warp() / across_ * (4 * across_) + lane() / 8),
          column_(warp() % across_ * 32) {
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < 16; ++i) sums_[i / 4][i % 4] = 0;
    }

    template <class A, class B> __device__ __forceinline__ void add(const A& a, const B& b) {
        if (across_ == 4) {
            add_rows<4>(a, b);
        } else if (across_ == 2) {
            add_rows<2>(a, b);
        } else {
            add_rows<1>(a, b);
        }
    }

    template <bool TransposedB, class Body> __device__ __forceinline__ void each(Body body) {
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < 4; ++i) {
            if (i < across_) {
                if constexpr (TransposedB) {
                    TILEFUSE_UNROLL_ALL
                    for (int j = 0; j < 4; ++j) body(row_ + 4 * i, column<true>(j), Pack<float, 1>{{sums_[i][j]}});
                } else {
                    body(row_ + 4 * i, column<false>(0),
                         Pack<float, 4>{{sums_[i][0], sums_[i][1], sums_[i][2], sums_[i][3]}});
                }
            }
        }
    }

private:
    static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / warp_size; }
    static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % warp_size; }

    // Neighbouring lanes read neighbouring packs: of a row of B, or one of every row.
    template <bool TransposedB> __device__ __forceinline__ int column(int j) const {
        return column_ + (TransposedB ? lane() % 8 + 8 * j : lane() % 8 * 4 + j);
    }

    template <int Rows, class A, class B> __device__ __forceinline__ void add_rows(const A& a, const B& b) {
        TILEFUSE_UNROLL(1)
        for (int k = 0; k < depth; k += pack) {
            Pack<float, pack> x[Rows], y[pack];  // y: a pack for every k, or for every column
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < Rows; ++i) x[i] = a.along_k(row_ + 4 * i, k);
            TILEFUSE_UNROLL_ALL
            for (int j = 0; j < pack; ++j)
                y[j] = B::transposed ? b.along(column<true>(j), k) : b.along(k + j, column<false>(0));
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < pack; ++e)
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < Rows; ++i)
                    TILEFUSE_UNROLL_ALL
                    for (int j = 0; j < pack; ++j) {
                        float& sum = sums_[i][j];
                        sum = fmaf(x[i].of[e], B::transposed ? y[j].of[e] : y[e].of[j], sum);
                    }
        }
    }

    const int across_, row_, column_;
    float sums_[4][pack];
};

// On matrix units (mma.cuh): a warp has 16 rows, and 8 of every 32 columns. The order of k has no bank conflicts.
template <class Multiplier> class Mma {
public:
    __device__ __forceinline__ explicit Mma(int columns) : columns_(columns) {
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < 16; ++i) sums_[i / 4][i % 4] = 0;
    }

    template <class A, class B> __device__ __forceinline__ void add(const A& a, const B& b) {
        constexpr int held = Multiplier::depth / 4;
        TILEFUSE_UNROLL(1)
        for (int k = 0; k < depth; k += Multiplier::depth) {
            float x[2 * held], y[held];
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < held; ++e) {
                x[2 * e] = a(row(), k + t() + 4 * e);
                x[2 * e + 1] = a(row() + 8, k + t() + 4 * e);
            }
            const typename Multiplier::FragmentA fragment(x);
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < 4; ++i) {
                if (32 * i < columns_) {
                    TILEFUSE_UNROLL_ALL
                    for (int e = 0; e < held; ++e) y[e] = b(k + t() + 4 * e, group(i) + g());
                    Multiplier::add(sums_[i], fragment, typename Multiplier::FragmentB(y));
                }
            }
        }
    }

    template <bool, class Body> __device__ __forceinline__ void each(Body body) {
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < 4; ++i) {
            if (32 * i < columns_) {
                body(row(), group(i) + 2 * t(), Pack<float, 2>{{sums_[i][0], sums_[i][1]}});
                body(row() + 8, group(i) + 2 * t(), Pack<float, 2>{{sums_[i][2], sums_[i][3]}});
            }
        }
    }

private:
    static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / warp_size; }
    static __device__ __forceinline__ int g() { return static_cast<int>(threadIdx.x) % warp_size / 4; }
    static __device__ __forceinline__ int t() { return static_cast<int>(threadIdx.x) % 4; }
    static __device__ __forceinline__ int row() { return warp() % 2 * 16 + g(); }
    static __device__ __forceinline__ int group(int i) { return (warp() / 2 + 4 * i) * 8; }

    const int columns_;
    float sums_[4][4];
};

// ---- steps of a layer -----------------------------------------------------------------------------------------------

// matrix[32][width] = the sums.
template <bool TransposedB, class Product> __device__ __forceinline__ void keep(Product& product, float* matrix) {
    product.template each<TransposedB>(
        [&](int row, int column, const auto& x) { store_pack(matrix + row * width + swizzled(row, column), x); });
}

// body(row, column, x) with every pack x of matrix[32][width]; what it returns takes the place of x. The packs go on to
// a multiple of 32 columns, since products do.
template <class Body> __device__ __forceinline__ void for_packs(float* matrix, int columns, Body body) {
    const int packs_of_row = (columns + depth - 1) / depth * (depth / pack);
    TILEFUSE_UNROLL(1)
    for (int index = static_cast<int>(threadIdx.x); index < tile_rows * packs_of_row; index += threads) {
        const int row = index / packs_of_row, column = index % packs_of_row * pack;
        float* const x = matrix + row * width + swizzled(row, column);
        store_pack(x, body(row, column, load_pack<pack>(x)));
    }
}

// x = mask ? x * mask_scale : 0, where `at` is the place of the first of `count` elements.
__device__ __forceinline__ void drop(const Layer& layer, int64_t at, int count, Pack<float, pack>& x) {
    if (layer.of.mask == nullptr) return;
    const Pack<uint8_t, pack> kept = load_upto<pack>(layer.of.mask + at, count, layer.mask_packs);
    const float scale = static_cast<float>(layer.of.mask_scale);
    TILEFUSE_UNROLL_ALL
    for (int e = 0; e < pack; ++e) x.of[e] = kept.of[e] != 0 ? x.of[e] * scale : 0;
}

// In place: z, then y; both are written out where wanted, and are zero beyond the layer's outputs.
__device__ __forceinline__ void activate(const Layer& layer, float* matrix, int64_t first, int64_t rows) {
    const tilefuse_mlp_layer& l = layer.of;
    for_packs(matrix, l.outputs, [&](int row, int column, Pack<float, pack> x) {
        const int count = row < rows ? l.outputs - column : 0;
        const int64_t at = (first + row) * l.outputs + column;
        if (l.b != nullptr) {
            const Pack<float, pack> b = load_upto<pack>(l.b + column, l.outputs - column, layer.packs);
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < pack; ++e) x.of[e] += b.of[e];
        }
        if (l.z != nullptr) store_upto(l.z + at, x, count, layer.packs);
        with_activation<float>(l.activation, l.activation_alpha, [&](auto f) {
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < pack; ++e) x.of[e] = f.forward(x.of[e]);
        });
        drop(layer, at, count, x);
        if (l.y != nullptr) store_upto(l.y + at, x, count, layer.packs);
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < pack; ++e)
            if (e >= count) x.of[e] = 0;
        return x;
    });
}

// In place: dy to dz.
__device__ __forceinline__ void derive(const Layer& layer, float* matrix, int64_t first, int64_t rows) {
    const tilefuse_mlp_layer& l = layer.of;
    const float* const from = l.activation < TILEFUSE_SILU ? l.y : l.z;
    for_packs(matrix, l.outputs, [&](int row, int column, Pack<float, pack> x) {
        const int count = row < rows ? l.outputs - column : 0;
        const int64_t at = (first + row) * l.outputs + column;
        drop(layer, at, count, x);
        if (l.activation != TILEFUSE_LINEAR) {
            const Pack<float, pack> y = load_upto<pack>(from + at, count, layer.packs);
            with_activation<float>(l.activation, l.activation_alpha, [&](auto f) {
                TILEFUSE_UNROLL_ALL
                for (int e = 0; e < pack; ++e) x.of[e] *= f.derivative(y.of[e]);
            });
        }
        if (l.dz != nullptr) store_upto(l.dz + at, x, count, layer.packs);
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < pack; ++e)
            if (e >= count) x.of[e] = 0;
        return x;
    });
}

__device__ __forceinline__ int64_t smaller(int64_t a, int64_t b) { return b < a ? b : a; }

// ---- kernels --------------------------------------------------------------------------------------------------------

constexpr int matrix_size = tile_rows * width;  // also of 32 rows or columns of weights
constexpr size_t shared_bytes = 3 * matrix_size * sizeof(float);

// Shared memory: the activations, and two buffers for rows of weights.
template <class Product> __global__ void __launch_bounds__(threads, 2) forward(Network n) {
    float* const matrix = dynamic_shared<float>();
    float* const buffers = matrix + matrix_size;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * tile_rows, rows = n.batch - first;
    int turn = 0;
    TILEFUSE_UNROLL(1)
    for (int l = 0; l < n.layers; ++l) {
        const Layer& layer = n.layer[l];
        const int outputs = layer.of.outputs;
        Product product(outputs);
        TILEFUSE_UNROLL(1)
        for (int64_t k = 0; k < layer.inputs; k += depth) {
            const int at = static_cast<int>(k % width);
            if (l == 0 && at == 0) {
                block_barrier();
                load_matrix<tile_rows, width>(matrix, n.x + first * layer.inputs + k, layer.inputs, rows,
                                              layer.inputs - k, n.x_packs);
            }
            // One barrier a step: who writes to a buffer has passed the step before, so all have read it two steps ago.
            float* const weights = buffers + turn * matrix_size;
            load_matrix<depth, width>(weights, layer.of.w + k * outputs, outputs, layer.inputs - k, outputs,
                                      layer.weight_packs);
            block_barrier();
            product.add(MatrixA<false>{matrix, at}, MatrixB<false>{weights});
            turn = 1 - turn;
        }
        block_barrier();
        keep<false>(product, matrix);
        block_barrier();
        activate(layer, matrix, first, rows);
    }
}

// Writes a pack of sums to a matrix of `columns` columns, or adds it to what is there.
template <int N>
__device__ __forceinline__ void put(float* to, const Pack<float, N>& x, int64_t columns_left, bool packs, bool adds) {
    Pack<float, N> sum = x;
    if (adds) {
        const Pack<float, N> old = load_upto<N>(to, columns_left, packs);
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) sum.of[e] += old.of[e];
    }
    store_upto(to, sum, columns_left, packs);
}

// Shared memory: the gradients, some of a layer's inputs, and columns of weights.
template <class Product> __global__ void __launch_bounds__(threads, 2) backward(Network n) {
    float* const gradients = dynamic_shared<float>();
    float* const inputs = gradients + matrix_size;
    float* const weights = inputs + matrix_size;
    const int64_t part = blockIdx.x * n.part_stride;
    TILEFUSE_UNROLL(1)
    for (int64_t tile = 0; tile < n.tiles; ++tile) {
        const int64_t first = (blockIdx.x * n.tiles + tile) * tile_rows, rows = n.batch - first;
        const bool adds = tile > 0;
        if (adds && rows <= 0) break;
        const Layer& last = n.layer[n.layers - 1];
        block_barrier();
        load_matrix<tile_rows, width>(gradients, n.dy + first * last.of.outputs, last.of.outputs, rows, last.of.outputs,
                                      n.dy_packs);
        TILEFUSE_UNROLL(1)
        for (int l = n.layers - 1; l >= 0; --l) {
            const Layer& layer = n.layer[l];
            const int outputs = layer.of.outputs;
            block_barrier();
            derive(layer, gradients, first, rows);
            block_barrier();

            if (const int j = static_cast<int>(threadIdx.x); layer.db_parts != nullptr && j < outputs) {
                float sum = 0;
                TILEFUSE_UNROLL(8)
                for (int i = 0; i < tile_rows; ++i) sum += gradients[i * width + swizzled(i, j)];
                float* const to = layer.db_parts + part + j;
                *to = adds ? *to + sum : sum;
            }

            const float* const x = l > 0 ? n.layer[l - 1].of.y : n.x;
            const bool x_packs = l > 0 ? n.layer[l - 1].packs : n.x_packs;
            const int64_t wanted = layer.dw_parts != nullptr ? layer.inputs : 0;
            TILEFUSE_UNROLL(1)
            for (int64_t i = 0; i < wanted; i += tile_rows) {
                const int at = static_cast<int>(i % width);
                if (at == 0) {
                    block_barrier();
                    load_matrix<tile_rows, width>(inputs, x + first * layer.inputs + i, layer.inputs, rows,
                                                  layer.inputs - i, x_packs);
                    block_barrier();
                }
                Product product(outputs);
                product.add(MatrixA<true>{inputs, at}, MatrixB<false>{gradients});
                product.template each<false>([&](int row, int column, const auto& sums) {
                    if (i + row >= layer.inputs || column >= outputs) return;
                    float* const to = layer.dw_parts + part + (i + row) * outputs + column;
                    put(to, sums, outputs - column, layer.weight_packs, adds);
                });
            }

            if (l == 0 && n.dx == nullptr) continue;
            TILEFUSE_UNROLL(1)
            for (int64_t i = 0; i < layer.inputs; i += width) {
                const int64_t columns = smaller(width, layer.inputs - i);
                Product product(static_cast<int>(columns));
                TILEFUSE_UNROLL(1)
                for (int k = 0; k < outputs; k += depth) {
                    block_barrier();
                    load_matrix<width, depth>(weights, layer.of.w + i * outputs + k, outputs, columns, outputs - k,
                                              layer.weight_packs);
                    block_barrier();
                    product.add(MatrixA<false>{gradients, k}, MatrixB<true>{weights});
                }
                if (l > 0) {
                    block_barrier();
                    keep<true>(product, gradients);
                } else {
                    product.template each<true>([&](int row, int column, const auto& sums) {
                        if (row >= rows || column >= columns) return;
                        put(n.dx + (first + row) * layer.inputs + i + column, sums, columns - column, n.x_packs, false);
                    });
                }
            }
        }
    }
}

// dw and db of all layers: parts[block, size], added up over the blocks.
struct Gradients {
    int count;  // arrays
    float* to[2 * TILEFUSE_MLP_LAYERS];
    int64_t size[2 * TILEFUSE_MLP_LAYERS], begin[2 * TILEFUSE_MLP_LAYERS];  // of each one's part
    const float* parts;
    int64_t stride, blocks;
};

__global__ void __launch_bounds__(threads) add_gradients(Gradients g) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    int array = 0;
    while (array + 1 < g.count && i >= g.begin[array + 1]) ++array;
    const int64_t at = i - g.begin[array];
    if (at >= g.size[array]) return;
    float sum = g.parts[i];
    TILEFUSE_UNROLL(8)
    for (int64_t block = 1; block < g.blocks; ++block) sum += g.parts[block * g.stride + i];
    g.to[array][at] = sum;
}

}  // namespace tilefuse::cuda::networks

namespace tilefuse::cuda {
namespace {

using namespace networks;

constexpr int64_t most_blocks = 256;  // whose parts of the gradients are worth their room and the time to add them

int64_t tiles_of(const tilefuse_mlp_args& args) { return quotient(args.batch, tile_rows); }
// Backward; an empty batch has gradients too.
int64_t tiles_of_block(const tilefuse_mlp_args& args) {
    return std::max<int64_t>(1, quotient(tiles_of(args), most_blocks));
}
int64_t blocks_of(const tilefuse_mlp_args& args) {
    return std::max<int64_t>(1, quotient(tiles_of(args), tiles_of_block(args)));
}

Network network_of(const tilefuse_mlp_args& args) {
    Network n = {};
    n.batch = args.batch;
    n.layers = args.layers;
    n.x = args.x;
    n.dy = args.dy;
    n.dx = args.dx;
    n.x_packs = args.inputs % pack == 0 && packs_fit({args.x, args.dx});
    int64_t inputs = args.inputs;
    for (int l = 0; l < args.layers; ++l) {
        const tilefuse_mlp_layer& of = args.layer[l];
        const bool whole = of.outputs % pack == 0;
        n.layer[l] = {of, inputs, nullptr, nullptr, whole && packs_fit({of.w, of.dw}),
                      whole && packs_fit({of.b, of.z, of.y, of.dz}), whole && packs_fit({of.mask}, pack)};
        inputs = of.outputs;
    }
    n.dy_packs = inputs % pack == 0 && packs_fit({args.dy});
    return n;
}

// The arrays of gradients that are wanted, and their places in a block's parts.
Gradients gradients_of(const tilefuse_mlp_args& args) {
    Gradients g = {};
    const auto add = [&](float* to, int64_t size) {
        if (to == nullptr) return;
        g.to[g.count] = to;
        g.size[g.count] = size;
        g.begin[g.count++] = g.stride;
        g.stride += quotient(size, warp_size) * warp_size;  // whole sectors for every array
    };
    int64_t inputs = args.inputs;
    for (int l = 0; l < args.layers; ++l) {
        add(args.layer[l].dw, inputs * args.layer[l].outputs);
        add(args.layer[l].db, args.layer[l].outputs);
        inputs = args.layer[l].outputs;
    }
    return g;
}

void run_forward(const Context& context, const tilefuse_mlp_args& args) {
    if (args.batch == 0) return;
    const dim3 grid(static_cast<unsigned>(tiles_of(args)));
    const Network n = network_of(args);
    const auto run = [&](auto kernel) { launch(kernel, grid, dim3(threads), shared_bytes, context.stream, n); };
    switch (has_matrix_units(TILEFUSE_KERNEL(forward<Mma<Split>>)) ? args.precision : TILEFUSE_MLP_FMA) {
        case TILEFUSE_MLP_FMA: return run(TILEFUSE_KERNEL(forward<Fma>));
        case TILEFUSE_MLP_SPLIT: return run(TILEFUSE_KERNEL(forward<Mma<Split>>));
        case TILEFUSE_MLP_BFLOAT16: return run(TILEFUSE_KERNEL(forward<Mma<Rounded<Bfloat16>>>));
        case TILEFUSE_MLP_FLOAT16: return run(TILEFUSE_KERNEL(forward<Mma<Rounded<Float16>>>));
    }
}

void run_backward(const Context& context, const tilefuse_mlp_args& args) {
    Gradients g = gradients_of(args);
    Network n = network_of(args);
    g.blocks = blocks_of(args);
    g.parts = static_cast<float*>(context.workspace);
    n.tiles = tiles_of_block(args);
    n.part_stride = g.stride;
    // A block by itself has the whole gradients.
    int array = 0;
    const auto place = [&](float* to) -> float* {
        if (to == nullptr) return nullptr;
        const int64_t at = g.begin[array++];
        return g.blocks == 1 ? to : static_cast<float*>(context.workspace) + at;
    };
    for (int l = 0; l < args.layers; ++l) {
        n.layer[l].dw_parts = place(args.layer[l].dw);
        n.layer[l].db_parts = place(args.layer[l].db);
    }
    const dim3 grid(static_cast<unsigned>(g.blocks));
    const auto run = [&](auto kernel) { launch(kernel, grid, dim3(threads), shared_bytes, context.stream, n); };
    switch (has_matrix_units(TILEFUSE_KERNEL(forward<Mma<Split>>)) ? args.precision : TILEFUSE_MLP_FMA) {
        case TILEFUSE_MLP_FMA: run(TILEFUSE_KERNEL(backward<Fma>)); break;
        case TILEFUSE_MLP_SPLIT: run(TILEFUSE_KERNEL(backward<Mma<Split>>)); break;
        case TILEFUSE_MLP_BFLOAT16: run(TILEFUSE_KERNEL(backward<Mma<Rounded<Bfloat16>>>)); break;
        case TILEFUSE_MLP_FLOAT16: run(TILEFUSE_KERNEL(backward<Mma<Rounded<Float16>>>)); break;
    }
    if (g.blocks > 1 && g.stride > 0) {
        launch(TILEFUSE_KERNEL(add_gradients), dim3(static_cast<unsigned>(quotient(g.stride, threads))), dim3(threads),
               0, context.stream, g);
    }
}

}  // namespace

void mlp(const Context& context, const tilefuse_mlp_args& args) {
    if (args.backward) {
        run_backward(context, args);
    } else {
        run_forward(context, args);
    }
}

size_t mlp_workspace(const tilefuse_mlp_args& args) {
    const int64_t blocks = blocks_of(args);
    return args.backward && blocks > 1 ? static_cast<size_t>(blocks * gradients_of(args).stride) * sizeof(float) : 0;
}

}  // namespace tilefuse::cuda
