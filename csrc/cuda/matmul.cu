// C[m, n] = epilogue(A[m, k] B[k, n] + beta C), batched, A and B of any strides; and the sum of columns.
//
// A block computes one tile of C. It walks over k in steps: the tile's parts of A and B for one step lie in shared
// memory, both with k as the slow axis, and every thread multiplies a few of A's elements with a few of B's, kept in
// registers; meanwhile what the next step needs is on its way from global memory to registers. Every element of C is
// one chain of multiply-adds in the order of k, whatever the tile.
//
// Where C has too few tiles to fill a GPU but k is large, a block takes a part of k, and a second kernel adds the parts
// up in their order. How often k is cut depends on the shape alone, and so do the bits of the result.
#include <algorithm>

#include "common/activation.h"
#include "common/dtype.h"
#include "cuda/device.cuh"
#include "cuda/kernels.h"
#include "cuda/optimizer.cuh"

namespace tilefuse::cuda::products {

// ---- tiles ----------------------------------------------------------------------------------------------------------

// A tile of C, `Depth` elements of k at a time; a thread computes ThreadRows x ThreadColumns of it. A warp's lanes
// stand in 4 rows of 8. A thread's elements come in packs of 16 bytes, of which neighbouring lanes have neighbouring
// ones, so that a warp's access to shared memory or to C has no gaps.
template <class Element, int Rows, int Columns, int Depth, int ThreadRows, int ThreadColumns> struct Tile {
    using T = Element;
    static constexpr int pack = pack_size<T>;
    static constexpr int rows = Rows, columns = Columns, depth = Depth;
    static constexpr int thread_rows = ThreadRows, thread_columns = ThreadColumns;
    static constexpr int warp_rows = 4 * ThreadRows, warp_columns = 8 * ThreadColumns;
    static constexpr int threads = Rows * Columns / (ThreadRows * ThreadColumns);
    static constexpr int blocks = sizeof(T) == 4 ? 512 / threads : 1;  // of a multiprocessor: 128 registers a thread
    static constexpr int unrolled = ThreadRows * ThreadColumns == 64 ? 2 : 8;  // more, and 128 registers don't suffice
    static_assert(Rows % warp_rows == 0 && Columns % warp_columns == 0);
    static_assert(ThreadRows % pack == 0 && ThreadColumns % pack == 0 && Depth % (2 * pack) == 0);
    static_assert(threads == 2 * Rows && threads == 2 * Columns, "Operand spreads its work so");
};

using LargeFloat = Tile<float, 128, 128, 8, 8, 8>;
using MediumFloat = Tile<float, 64, 64, 16, 8, 4>;
using SmallFloat = Tile<float, 32, 32, 32, 4, 4>;
using MediumDouble = Tile<double, 64, 64, 8, 8, 4>;
using SmallDouble = Tile<double, 32, 32, 16, 4, 4>;

// ---- arguments ------------------------------------------------------------------------------------------------------

// How a block reads an operand; `across` is along m or n. Packs where 16-byte accesses are aligned, else elements.
enum class Reading { packs_along_k, packs_across, elements_along_k, elements_across };

template <class T> struct Matrix {
    const T* data;
    int64_t stride, k_stride;  // from row to row of A, or column to column of B; from k to k + 1
    Reading reading;
};

template <class T> struct Finish {
    T beta;
    T* c;
    int64_t n, c_stride;
    bool packs;  // whether 16-byte accesses to all of these are aligned
    tilefuse_epilogue epilogue;
};

template <class T> struct Product {
    int64_t m, n, k, products;
    int64_t tiles_down, tiles_across;
    int64_t parts, depth;  // of k; depth is below 2^31
    int64_t first;         // block of this launch
    Matrix<T> a, b;
    int batch_axes;
    int64_t batch_shape[TILEFUSE_MAX_BATCH_AXES];
    int64_t a_batch_strides[TILEFUSE_MAX_BATCH_AXES];
    int64_t b_batch_strides[TILEFUSE_MAX_BATCH_AXES];
    int64_t c_batch_strides[TILEFUSE_MAX_BATCH_AXES];
    T* sums;  // [product, part, m, columns_of_sums], if there are several parts
    Finish<T> finish;
};

// Whole packs, so that every row of the parts' sums is aligned.
template <class T> __host__ __device__ constexpr int64_t columns_of_sums(int64_t n) {
    return (n + pack_size<T> - 1) / pack_size<T> * pack_size<T>;
}

// Where a product's operands and results begin.
struct Offsets {
    int64_t a = 0, b = 0, c = 0;
};

template <class T> __device__ Offsets offsets_of(const Product<T>& p, int64_t product) {
    Offsets at;
    for (int axis = p.batch_axes - 1; axis >= 0; --axis) {
        const int64_t i = product % p.batch_shape[axis];
        product /= p.batch_shape[axis];
        at.a += i * p.a_batch_strides[axis];
        at.b += i * p.b_batch_strides[axis];
        at.c += i * p.c_batch_strides[axis];
    }
    return at;
}

__device__ __forceinline__ float multiply_add(float x, float y, float z) { return fmaf(x, y, z); }
__device__ __forceinline__ double multiply_add(double x, double y, double z) { return fma(x, y, z); }

// ---- one operand's way to shared memory -----------------------------------------------------------------------------

// `Width` rows of A or columns of B: Width * Depth elements a step, half of Depth for every thread of the block.
template <class T, int Width, int Depth> class Operand {
public:
    // A row of a buffer in shared memory has 4 elements more than the tile. Lanes that write along k, 2 packs or 2
    // packs' elements of a few rows, then hit different banks.
    static constexpr int stride = Width + 4;

    __device__ __forceinline__ Operand(const Matrix<T>& matrix, const T* data, int64_t width, int depth)
        : matrix_(matrix), width_(width < Width ? static_cast<int>(width) : Width), depth_(depth) {
        const int thread = static_cast<int>(threadIdx.x);
        switch (matrix_.reading) {
            case Reading::packs_along_k: place(thread / 2, thread % 2 * pack); break;
            case Reading::packs_across: place(thread % (Width / pack) * pack, thread / (Width / pack)); break;
            case Reading::elements_along_k: place(thread / (2 * pack), thread % (2 * pack)); break;
            default: place(thread % Width, thread / Width); break;  // elements_across
        }
        from_ = data + at_ * matrix.stride + k_ * matrix.k_stride;
        depth_ -= k_;
    }

    // Reads the next step's elements: zeros where the matrix ends.
    __device__ __forceinline__ void fetch() {
        switch (matrix_.reading) {
            case Reading::packs_along_k:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < packs; ++i) {
                    const int k = i * 2 * pack;
                    take_pack(i, from_ + k, at_ < width_ ? depth_ - k : 0);
                }
                break;
            case Reading::packs_across:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < packs; ++i) {
                    const int k = i * 2 * pack;
                    take_pack(i, from_ + k * matrix_.k_stride, k < depth_ ? width_ - at_ : 0);
                }
                break;
            case Reading::elements_along_k:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) {
                    const int along = i % pack * (Width / pack), k = i / pack * (2 * pack);
                    const bool valid = at_ + along < width_ && k < depth_;
                    held_[i] = valid ? from_[along * matrix_.stride + k * matrix_.k_stride] : T(0);
                }
                break;
            default:  // elements_across
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) {
                    const bool valid = at_ < width_ && 2 * i < depth_;
                    held_[i] = valid ? from_[2 * i * matrix_.k_stride] : T(0);
                }
                break;
        }
        from_ += Depth * matrix_.k_stride;
        depth_ -= Depth;
    }

    // Writes what was fetched to buffer[Depth][stride].
    __device__ __forceinline__ void store(T* buffer) const {
        T* to = buffer + k_ * stride + at_;
        switch (matrix_.reading) {
            case Reading::packs_along_k:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) to[(i / pack * 2 * pack + i % pack) * stride] = held_[i];
                break;
            case Reading::packs_across:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < packs; ++i) {
                    Pack<T, pack> x;
                    TILEFUSE_UNROLL_ALL
                    for (int e = 0; e < pack; ++e) x.of[e] = held_[i * pack + e];
                    store_pack(to + i * 2 * pack * stride, x);
                }
                break;
            case Reading::elements_along_k:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) {
                    to[i / pack * (2 * pack) * stride + i % pack * (Width / pack)] = held_[i];
                }
                break;
            default:  // elements_across
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) to[2 * i * stride] = held_[i];
                break;
        }
    }

private:
    static constexpr int pack = pack_size<T>;
    static constexpr int elements = Depth / 2, packs = elements / pack;

    __device__ __forceinline__ void place(int at, int k) {
        at_ = at;
        k_ = k;
    }

    __device__ __forceinline__ void take_pack(int i, const T* from, int valid) {
        const Pack<T, pack> x = load_upto<pack>(from, valid, true);
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < pack; ++e) held_[i * pack + e] = x.of[e];
    }

    const Matrix<T>& matrix_;
    const int width_;  // rows or columns that the matrix has here
    int depth_;        // of k, from this thread's first element on
    int at_, k_;       // that element's place in a step
    const T* from_;
    T held_[elements] = {};
};

// ---- the epilogue ---------------------------------------------------------------------------------------------------

// What becomes of the sums of a pack of C at (row, column); `offset` is where this product's C begins.
template <class T>
__device__ __forceinline__ void finish(const Finish<T>& f, const Step<T>* step, Pack<T, pack_size<T>> x, int64_t offset,
                                       int64_t row, int64_t column, int64_t columns_left) {
    constexpr int pack = pack_size<T>;
    const int count = columns_left < pack ? static_cast<int>(columns_left) : pack;
    const tilefuse_epilogue& e = f.epilogue;
    const int64_t at = offset + row * f.c_stride + column, dense_at = row * f.n + column;
    if (f.beta != 0) {
        const Pack<T, pack> c = load_upto<pack>(f.c + at, count, f.packs);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) x.of[i] = multiply_add(f.beta, c.of[i], x.of[i]);
    }
    if (e.bias != nullptr) {
        const Pack<T, pack> bias = load_upto<pack>(static_cast<const T*>(e.bias) + column, count, f.packs);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) x.of[i] += bias.of[i];
    }
    if (e.preactivation != nullptr) store_upto(static_cast<T*>(e.preactivation) + at, x, count, f.packs);
    if (e.activation != TILEFUSE_LINEAR) {
        with_activation<T>(e.activation, e.activation_alpha, [&](auto g) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < pack; ++i) x.of[i] = g.forward(x.of[i]);
        });
    }
    if (e.mask != nullptr) {
        const Pack<uint8_t, pack> kept = load_upto<pack>(e.mask + dense_at, count, f.packs);
        const T scale = static_cast<T>(e.mask_scale);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) x.of[i] = kept.of[i] != 0 ? x.of[i] * scale : T(0);
    }
    if (e.derivative_at != nullptr) {
        const Pack<T, pack> y = load_upto<pack>(static_cast<const T*>(e.derivative_at) + at, count, f.packs);
        with_activation<T>(e.derivative, e.derivative_alpha, [&](auto g) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < pack; ++i) x.of[i] *= g.derivative(y.of[i]);
        });
    }
    if (e.rule != nullptr) {
        update(*e.rule, *step, e.parameter, dense_at, x, count, f.packs);
    } else {
        store_upto(f.c + at, x, count, f.packs);
    }
}

// ---- kernels --------------------------------------------------------------------------------------------------------

// Neighbouring blocks take tiles from the same 8 rows of tiles, so that they find each other's operands in L2.
struct Place {
    int64_t down, across;
};

__device__ __forceinline__ Place place_of(int64_t tile, int64_t tiles_down, int64_t tiles_across) {
    constexpr int64_t band = 8;
    const int64_t first = tile / (band * tiles_across) * band, in_band = tile % (band * tiles_across);
    const int64_t height = tiles_down - first < band ? tiles_down - first : band;
    return {first + in_band % height, in_band / height};
}

template <class Tile> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    multiply(Product<typename Tile::T> p) {
    using T = typename Tile::T;
    using OperandA = Operand<T, Tile::rows, Tile::depth>;
    using OperandB = Operand<T, Tile::columns, Tile::depth>;
    constexpr int pack = Tile::pack;
    constexpr int row_packs = Tile::thread_rows / pack, column_packs = Tile::thread_columns / pack;
    using BufferA = T[Tile::depth * OperandA::stride];
    using BufferB = T[Tile::depth * OperandB::stride];
    TILEFUSE_SHARED(BufferA[2], buffers_a);
    TILEFUSE_SHARED(BufferB[2], buffers_b);
    TILEFUSE_SHARED(StepMemory<T>, step_memory);

    const int64_t block = p.first + blockIdx.x, tiles = p.tiles_down * p.tiles_across;
    const int64_t part = block / tiles % p.parts, product = block / tiles / p.parts;
    const Place tile = place_of(block % tiles, p.tiles_down, p.tiles_across);
    const int64_t row = tile.down * Tile::rows, column = tile.across * Tile::columns;
    const Offsets at = offsets_of(p, product);
    const int64_t k = part * p.depth;
    const int depth = static_cast<int>(p.k - k < p.depth ? p.k - k : p.depth);
    OperandA a(p.a, p.a.data + at.a + row * p.a.stride + k * p.a.k_stride, p.m - row, depth);
    OperandB b(p.b, p.b.data + at.b + column * p.b.stride + k * p.b.k_stride, p.n - column, depth);

    const int thread = static_cast<int>(threadIdx.x), warp = thread / warp_size, lane = thread % warp_size;
    constexpr int warps_across = Tile::columns / Tile::warp_columns;
    const int thread_row = warp / warps_across * Tile::warp_rows + lane / 8 * pack;
    const int thread_column = warp % warps_across * Tile::warp_columns + lane % 8 * pack;

    T sums[Tile::thread_rows][column_packs][pack];
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < Tile::thread_rows; ++i)
        TILEFUSE_UNROLL_ALL
        for (int j = 0; j < Tile::thread_columns; ++j) sums[i][j / pack][j % pack] = 0;

    const int steps = (depth + Tile::depth - 1) / Tile::depth;
    if (steps > 0) {
        a.fetch();
        b.fetch();
        a.store(buffers_a[0]);
        b.store(buffers_b[0]);
    }
    if (thread == 0 && p.parts == 1 && p.finish.epilogue.rule != nullptr) step_memory.make(*p.finish.epilogue.rule);
    block_barrier();
    for (int step = 0; step < steps; ++step) {
        const bool more = step + 1 < steps;
        if (more) {
            a.fetch();
            b.fetch();
        }
        const T* from_a = buffers_a[step % 2] + thread_row;
        const T* from_b = buffers_b[step % 2] + thread_column;
        TILEFUSE_UNROLL(1)
        for (int first = 0; first < Tile::depth; first += Tile::unrolled)
            TILEFUSE_UNROLL_ALL
            for (int i = first; i < first + Tile::unrolled; ++i) {
                Pack<T, pack> x[row_packs], y[column_packs];
                TILEFUSE_UNROLL_ALL
                for (int r = 0; r < row_packs; ++r)
                    x[r] = load_pack<pack>(from_a + i * OperandA::stride + r * 4 * pack);
                TILEFUSE_UNROLL_ALL
                for (int c = 0; c < column_packs; ++c)
                    y[c] = load_pack<pack>(from_b + i * OperandB::stride + c * 8 * pack);
                TILEFUSE_UNROLL_ALL
                for (int r = 0; r < Tile::thread_rows; ++r)
                    TILEFUSE_UNROLL_ALL
                    for (int c = 0; c < Tile::thread_columns; ++c) {
                        T& sum = sums[r][c / pack][c % pack];
                        sum = multiply_add(x[r / pack].of[r % pack], y[c / pack].of[c % pack], sum);
                    }
            }
        if (more) {
            a.store(buffers_a[(step + 1) % 2]);
            b.store(buffers_b[(step + 1) % 2]);
        }
        block_barrier();
    }

    // Row after row, each time from sums[0], since registers have no index; and so there is one copy of the epilogue.
    TILEFUSE_UNROLL(1)
    for (int i = 0; i < Tile::thread_rows; ++i) {
        const int64_t r = row + thread_row + i / pack * (4 * pack) + i % pack;
        if (r >= p.m) break;
        TILEFUSE_UNROLL_ALL
        for (int j = 0; j < column_packs; ++j) {
            const int64_t c = column + thread_column + j * 8 * pack;
            Pack<T, pack> x;
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < pack; ++e) x.of[e] = sums[0][j][e];
            if (c >= p.n) continue;
            if (p.parts > 1) {
                store_pack(p.sums + ((product * p.parts + part) * p.m + r) * columns_of_sums<T>(p.n) + c, x);
            } else {
                finish(p.finish, step_memory.step(), x, at.c, r, c, p.n - c);
            }
        }
        TILEFUSE_UNROLL_ALL
        for (int next = 1; next < Tile::thread_rows; ++next)
            TILEFUSE_UNROLL_ALL
            for (int j = 0; j < Tile::thread_columns; ++j)
                sums[next - 1][j / pack][j % pack] = sums[next][j / pack][j % pack];
    }
}

constexpr int add_threads = 128;

// Adds the parts' sums, in the order of k.
template <class T> __global__ void __launch_bounds__(add_threads) add_parts(Product<T> p) {
    constexpr int pack = pack_size<T>;
    TILEFUSE_SHARED(StepMemory<T>, step_memory);
    if (p.finish.epilogue.rule != nullptr) {
        if (threadIdx.x == 0) step_memory.make(*p.finish.epilogue.rule);
        block_barrier();
    }
    const int64_t columns = columns_of_sums<T>(p.n), packs = columns / pack;
    const int64_t index = (p.first + blockIdx.x) * add_threads + threadIdx.x, product = index / packs / p.m;
    const int64_t row = index / packs % p.m, column = index % packs * pack;
    const T* sums = p.sums + (product * p.parts * p.m + row) * columns + column;
    if (product >= p.products) return;
    Pack<T, pack> total = load_pack<pack>(sums);
    for (int64_t part = 1; part < p.parts; ++part) {
        const Pack<T, pack> x = load_pack<pack>(sums + part * p.m * columns);
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < pack; ++e) total.of[e] += x.of[e];
    }
    finish(p.finish, step_memory.step(), total, offsets_of(p, product).c, row, column, p.n - column);
}

// ---- sums of columns ------------------------------------------------------------------------------------------------

// A block takes a frame of F rows by W columns at a time, F x W <= frame_size<slots>, from the first of its rows to the
// last. Frames follow each other by whole sectors, so that each thread can have the same places in all of them, with
// neighbouring places for a warp, which begin with a sector wherever rows do; and each place has the same column in all
// frames, whose elements it adds up in order. In the end the block adds up the places of each column.
template <int slots> constexpr int frame_size = threads_of_block * (slots > 1 ? slots - 1 : 1);  // 1 slot for the edges
constexpr int frame_rows = threads_of_block / warp_size;  // where each warp has a row

struct Frame {
    int rows, width;
    bool by_rows;  // each warp has one; else the rows lie end to end, and all threads go through them together
};

// y[slab, j] = sum of x[i, j] over the slab's rows; or, with a rule, the update by the sums of the only slab. With one
// slot, rows are whole sectors, and the blocks' columns begin with one.
template <class T, int slots>
__global__ void __launch_bounds__(threads_of_block)
    sum_columns(const T* x, int64_t m, int64_t n, int64_t rows, Frame frame, T* y, const tilefuse_optimizer* rule,
                tilefuse_parameter parameter) {
    TILEFUSE_SHARED(T[frame_size<slots>], sums);
    TILEFUSE_SHARED(StepMemory<T>, step_memory);
    const int thread = static_cast<int>(threadIdx.x), warp = thread / warp_size, lane = thread % warp_size;
    const int64_t first = blockIdx.y * rows, end = m - first < rows ? m : first + rows;
    const int64_t column = static_cast<int64_t>(blockIdx.x) * frame.width - (slots == 1 ? phase_of(x) : 0);
    const int columns = n - column < frame.width ? static_cast<int>(n - column) : frame.width;
    x += first * n;
    const int64_t left = (end - first) * n, step = frame.rows * n;

    // Of this thread: where its places begin in x and in `sums`, and the first and the distance of them.
    const int64_t origin = frame.by_rows ? warp * n + column : 0;
    T* const of_thread = sums + (frame.by_rows ? warp * frame.width : 0);
    const int from = (frame.by_rows ? lane : thread) - (slots == 1 ? 0 : phase_of(x + origin));
    const int distance = frame.by_rows ? warp_size : threads_of_block;
    const int lowest = column < 0 ? static_cast<int>(-column) : 0;
    const int room = frame.by_rows ? frame.width : frame.rows * frame.width, places = frame.by_rows ? columns : room;

    T sum[slots] = {};
    const auto add_frame = [&](int64_t at) {
        TILEFUSE_UNROLL_ALL
        for (int s = 0; s < slots; ++s) {
            const int place = from + s * distance;
            if (place >= lowest && place < places && at + place < left) sum[s] += x[at + place];
        }
    };
    if constexpr (slots == 1) {
        TILEFUSE_UNROLL(8)
        for (int64_t at = origin; at < left; at += step) add_frame(at);
    } else {
        TILEFUSE_UNROLL(1)
        for (int64_t at = origin; at < left; at += step) add_frame(at);
    }
    TILEFUSE_UNROLL_ALL
    for (int s = 0; s < slots; ++s) {
        const int place = from + s * distance;
        if (place >= 0 && place < room) of_thread[place] = sum[s];
    }
    if (thread == 0 && rule != nullptr) step_memory.make(*rule);
    block_barrier();
    int count = frame.rows;
    TILEFUSE_UNROLL(1)
    while (count > 1) {
        const int half = (count + 1) / 2;
        for (int i = thread; i < (count - half) * frame.width; i += threads_of_block)
            sums[i] += sums[i + half * frame.width];
        block_barrier();
        count = half;
    }
    T* const to = (rule != nullptr ? static_cast<T*>(parameter.w) : y + blockIdx.y * n) + column;
    for (int j = thread - phase_of(to); j < columns; j += threads_of_block) {
        if (j < lowest) continue;
        if (rule != nullptr) {
            update(*rule, *step_memory.step(), parameter, column + j, sums[j]);
        } else {
            to[j] = sums[j];
        }
    }
}

}  // namespace tilefuse::cuda::products

namespace tilefuse::cuda {
namespace {

using namespace products;

// ---- what to launch -------------------------------------------------------------------------------------------------

// Of a large GPU. Results must not depend on the machine's number, and a smaller one has enough to do all the same.
constexpr int64_t multiprocessors = 108;
constexpr int64_t most_blocks = 0x7fffffff;  // of a launch

int64_t products_of(const tilefuse_matmul_args& args) {
    int64_t products = 1;
    for (int axis = 0; axis < args.batch_axes; ++axis) products *= args.batch_shape[axis];
    return products;
}

template <class T> bool whole_packs(int64_t stride, int axes, const int64_t* batch_strides) {
    bool whole = stride % pack_size<T> == 0;
    for (int axis = 0; axis < axes; ++axis) whole = whole && batch_strides[axis] % pack_size<T> == 0;
    return whole;
}

template <class T>
Matrix<T> matrix_of(const void* data, int64_t stride, int64_t k_stride, int axes, const int64_t* batch_strides) {
    const bool along_k = k_stride == 1 || (stride != 1 && std::abs(k_stride) < std::abs(stride));
    const bool packs = packs_fit({data}) && (along_k ? k_stride : stride) == 1 &&
                       whole_packs<T>(along_k ? stride : k_stride, axes, batch_strides);
    const Reading reading = along_k ? (packs ? Reading::packs_along_k : Reading::elements_along_k)
                                    : (packs ? Reading::packs_across : Reading::elements_across);
    return {static_cast<const T*>(data), stride, k_stride, reading};
}

template <class T> Finish<T> finish_of(const tilefuse_matmul_args& args) {
    const tilefuse_epilogue& e = args.epilogue;
    bool packs = whole_packs<T>(args.c_row_stride, args.batch_axes, args.c_batch_strides) &&
                 packs_fit({args.c, e.bias, e.preactivation, e.derivative_at});
    const auto dense = [&](bool aligned) { return aligned && args.n % pack_size<T> == 0; };  // of contiguous [m, n]
    if (e.rule != nullptr) packs = packs && dense(parameter_aligned<T>(e.parameter));
    if (e.mask != nullptr) packs = packs && dense(packs_fit({e.mask}, pack_size<T>));
    return {static_cast<T>(args.beta), static_cast<T*>(args.c), args.n, args.c_row_stride, packs, e};
}

// How a product is cut up.
struct Cut {
    int64_t tiles_down, tiles_across, parts, depth;
};

template <class Tile> Cut cut_of(const tilefuse_matmul_args& args) {
    // A part should outweigh what it costs to write and add its sums, and a cut the second launch.
    constexpr int64_t least_k = 256, least_depth = 64, most_depth = int64_t{1} << 30;
    const int64_t down = quotient(args.m, Tile::rows), across = quotient(args.n, Tile::columns);
    const int64_t blocks = down * across * products_of(args);
    int64_t parts = quotient(args.k, most_depth);
    if (args.k >= least_k && blocks > 0)
        parts = std::max(parts, std::min(multiprocessors / blocks, args.k / least_depth));
    if (parts <= 1) return {down, across, 1, args.k};
    const int64_t depth = quotient(quotient(args.k, parts), Tile::depth) * Tile::depth;
    return {down, across, quotient(args.k, depth), depth};
}

// body(Tile{}) with the tile for this shape.
template <class T, class Body> void with_tile(const tilefuse_matmul_args& args, Body&& body) {
    // Waves of blocks, times a tile's size, over how well it uses the multiply-add units (as loads from shared memory a
    // multiply-add suggest; not measured).
    const auto cost = [&]<class Tile>(Tile, double use) {
        const int64_t blocks = quotient(args.m, Tile::rows) * quotient(args.n, Tile::columns) * products_of(args);
        return static_cast<double>(quotient(blocks, multiprocessors) * Tile::rows * Tile::columns) / use;
    };
    if constexpr (sizeof(T) == 4) {
        const double large = cost(LargeFloat{}, 1), medium = cost(MediumFloat{}, 0.85), small = cost(SmallFloat{}, 0.6);
        if (large < medium && large < small) return body(LargeFloat{});
        return medium < small ? body(MediumFloat{}) : body(SmallFloat{});
    } else {
        return cost(MediumDouble{}, 1) < cost(SmallDouble{}, 0.8) ? body(MediumDouble{}) : body(SmallDouble{});
    }
}

// launch, for any number of blocks; the kernel adds `first` to its block's number.
template <class T>
void launch_all(const Kernel<Product<T>>& kernel, Product<T> p, int64_t blocks, int threads, cudaStream_t stream) {
    for (p.first = 0; p.first < blocks; p.first += most_blocks) {
        const unsigned count = static_cast<unsigned>(std::min(blocks - p.first, most_blocks));
        launch(kernel, dim3(count), dim3(static_cast<unsigned>(threads)), 0, stream, p);
    }
}

template <class Tile> void matmul_by(const Context& context, const tilefuse_matmul_args& args) {
    using T = typename Tile::T;
    const Cut cut = cut_of<Tile>(args);
    Product<T> p = {};
    p.m = args.m;
    p.n = args.n;
    p.k = args.k;
    p.products = products_of(args);
    p.tiles_down = cut.tiles_down;
    p.tiles_across = cut.tiles_across;
    p.parts = cut.parts;
    p.depth = cut.depth;
    p.a = matrix_of<T>(args.a, args.a_row_stride, args.a_col_stride, args.batch_axes, args.a_batch_strides);
    p.b = matrix_of<T>(args.b, args.b_col_stride, args.b_row_stride, args.batch_axes, args.b_batch_strides);
    p.batch_axes = args.batch_axes;
    for (int axis = 0; axis < args.batch_axes; ++axis) {
        p.batch_shape[axis] = args.batch_shape[axis];
        p.a_batch_strides[axis] = args.a_batch_strides[axis];
        p.b_batch_strides[axis] = args.b_batch_strides[axis];
        p.c_batch_strides[axis] = args.c_batch_strides[axis];
    }
    p.sums = static_cast<T*>(context.workspace);
    p.finish = finish_of<T>(args);
    const int64_t blocks = p.tiles_down * p.tiles_across * p.parts * p.products;
    launch_all(TILEFUSE_KERNEL(multiply<Tile>), p, blocks, Tile::threads, context.stream);
    if (p.parts > 1) {
        const int64_t packs = p.products * p.m * columns_of_sums<T>(p.n) / pack_size<T>;
        launch_all(TILEFUSE_KERNEL(add_parts<T>), p, quotient(packs, add_threads), add_threads, context.stream);
    }
}

template <class Tile> size_t workspace_by(const tilefuse_matmul_args& args) {
    using T = typename Tile::T;
    const Cut cut = cut_of<Tile>(args);
    if (cut.parts == 1) return 0;
    return static_cast<size_t>(products_of(args) * cut.parts * args.m * columns_of_sums<T>(args.n)) * sizeof(T);
}

// How x is cut up: frames, and rows of a slab.
struct Slabs {
    Frame frame;
    bool narrow;  // frames of one slot
    int64_t across, count, rows;
};

template <class T> constexpr int wide_slots = sizeof(T) == 4 ? 17 : 9;  // 16 KB of shared memory

template <class T> Slabs slabs_of(const tilefuse_column_sum_args& args) {
    constexpr int64_t sector = sector_size<T>, wide = frame_size<wide_slots<T>>;
    Slabs s = {};
    // A slab has rows enough for every thread to add up 16, or for the slabs' sums to be a small part of what is read.
    int64_t least = 16 * frame_rows;
    if (args.n % sector == 0 && args.n >= warp_size) {
        s.narrow = true;
        s.frame = {frame_rows, warp_size, true};
    } else if (args.n > wide / frame_rows) {
        const int64_t across = quotient(args.n, wide / frame_rows);
        s.frame = {frame_rows, static_cast<int>(quotient(args.n, across)), true};
    } else {
        const int64_t rows = std::clamp(quotient(args.m, sector), int64_t{1}, wide / args.n / sector) * sector;
        s.frame = {static_cast<int>(rows), static_cast<int>(args.n), false};
        least = quotient(96, rows) * rows;
    }
    s.across = quotient(args.n, s.frame.width);
    // As many slabs as give two blocks a multiprocessor, of whole frames.
    const int64_t most = std::max<int64_t>(1, 2 * multiprocessors / s.across);
    s.count = std::max<int64_t>(1, std::min(most, args.m / least));
    s.rows = quotient(quotient(args.m, s.count), s.frame.rows) * s.frame.rows;
    s.count = s.rows > 0 ? quotient(args.m, s.rows) : 1;
    return s;
}

template <class T> void column_sum_of(const Context& context, const tilefuse_column_sum_args& args) {
    if (args.n == 0) return;
    const Slabs s = slabs_of<T>(args);
    const auto sum_by = [&](auto kernel, const void* from, int64_t m, int64_t rows, int64_t count, void* y,
                            const tilefuse_optimizer* rule) {
        const T* x = static_cast<const T*>(from);
        const int64_t across = s.narrow ? quotient(args.n + phase_of(x), s.frame.width) : s.across;
        launch(kernel, dim3(static_cast<unsigned>(across), static_cast<unsigned>(count)), dim3(threads_of_block), 0,
               context.stream, x, m, args.n, rows, s.frame, static_cast<T*>(y), rule, args.parameter);
    };
    const auto sum = [&](auto... arguments) {
        if (s.narrow) return sum_by(TILEFUSE_KERNEL(sum_columns<T, 1>), arguments...);
        sum_by(TILEFUSE_KERNEL(sum_columns<T, wide_slots<T>>), arguments...);
    };
    if (s.count == 1) return sum(args.x, args.m, args.m, 1, args.y, args.rule);
    sum(args.x, args.m, s.rows, s.count, context.workspace, nullptr);
    sum(static_cast<const void*>(context.workspace), s.count, s.count, 1, args.y, args.rule);
}

}  // namespace

void matmul(const Context& context, const tilefuse_matmul_args& args) {
    if (args.m == 0 || args.n == 0 || products_of(args) == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        with_tile<decltype(zero)>(args, [&](auto tile) { matmul_by<decltype(tile)>(context, args); });
    });
}

size_t matmul_workspace(const tilefuse_matmul_args& args) {
    size_t bytes = 0;
    by_dtype(args.dtype, [&](auto zero) {
        with_tile<decltype(zero)>(args, [&](auto tile) { bytes = workspace_by<decltype(tile)>(args); });
    });
    return bytes;
}

void column_sum(const Context& context, const tilefuse_column_sum_args& args) {
    by_dtype(args.dtype, [&](auto zero) { column_sum_of<decltype(zero)>(context, args); });
}

size_t column_sum_workspace(const tilefuse_column_sum_args& args) {
    if (args.n == 0) return 0;
    size_t bytes = 0;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const Slabs s = slabs_of<T>(args);
        if (s.count > 1) bytes = static_cast<size_t>(s.count * args.n) * sizeof(T);
    });
    return bytes;
}

}  // namespace tilefuse::cuda
