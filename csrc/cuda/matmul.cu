// C[m, n] = epilogue(A[m, k] B[k, n] + beta C), batched, A and B of any strides; and the sum of columns.
//
// Where C has too few tiles to fill a GPU but k is large, a block takes a part of k, and a second kernel adds the parts
// up in their order. How often k is cut depends on the shape alone, and so do the bits of the result.
#include "common/dtype.h"
#include "cuda/matmul_fma.cuh"

namespace tilefuse::cuda::products {

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class Tile> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    multiply(Product<typename Tile::T> p, Matrix<typename Tile::T> left, Matrix<typename Tile::T> right) {
    using T = typename Tile::T;
    TILEFUSE_SHARED(Buffers<Tile>, buffers);
    TILEFUSE_SHARED(StepMemory<T>, step_memory);

    const Work work = work_of<Tile>(p);
    const int64_t row = work.row, column = work.column;
    const Offsets at = offsets_of(p, work.product);
    Operand<T, Tile::rows, Tile::depth> a(left, left.data + at.a + row * left.stride + work.k * left.k_stride, p.m - row,
                                          work.depth);
    Operand<T, Tile::columns, Tile::depth> b(right, right.data + at.b + column * right.stride + work.k * right.k_stride,
                                             p.n - column, work.depth);
    Sums<Tile> sums;
    multiply_panels<Tile>(a, b, work.depth, buffers, sums, [&] {
        if (threadIdx.x == 0 && p.parts == 1 && p.finish.epilogue.rule != nullptr) step_memory.make(*p.finish.epilogue.rule);
    });
    for_packs<Tile>(sums, p.m - row, p.n - column, [&](int r, int c, const auto& x) {
        if (p.parts > 1) {
            store_pack(place_of_sums(p, work, row + r, column + c), x);
        } else {
            finish<false>(p.finish, step_memory.step(), x, at.c, row + r, column + c, p.n - column - c);
        }
    });
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
    TILEFUSE_UNROLL(8)
    for (int64_t part = 1; part < p.parts; ++part) {
        const Pack<T, pack> x = load_pack<pack>(sums + part * p.m * columns);
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < pack; ++e) total.of[e] += x.of[e];
    }
    finish<true>(p.finish, step_memory.step(), total, offsets_of(p, product).c, row, column, p.n - column);
}

template <class T> void queue_add_parts_of(const Context& context, const Product<T>& p) {
    const int64_t packs = p.products * p.m * columns_of_sums<T>(p.n) / pack_size<T>;
    launch_all(TILEFUSE_KERNEL(add_parts<T>), p, quotient(packs, add_threads), add_threads, 0, context.stream);
}
void queue_add_parts(const Context& context, const Product<float>& p) { queue_add_parts_of(context, p); }
void queue_add_parts(const Context& context, const Product<double>& p) { queue_add_parts_of(context, p); }

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
    sum_columns(const T* x, int64_t m, int64_t n, int64_t rows, Frame frame, T* y, const tilefuse_optimizer_rule* rule,
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

template <class Tile> void matmul_by(const Context& context, const tilefuse_matmul_args& args) {
    using T = typename Tile::T;
    const auto p = product_of<T>(context, args, cut_of<Tile>(extents_of(args)));
    const int64_t blocks = p.tiles_down * p.tiles_across * p.parts * p.products;
    launch_all(TILEFUSE_KERNEL(multiply<Tile>), p, blocks, Tile::threads, 0, context.stream, matrix_a<T>(args),
               matrix_b<T>(args));
    if (p.parts > 1) queue_add_parts(context, p);
}

template <class Tile> size_t workspace_by(const tilefuse_matmul_args& args) {
    return bytes_of_sums<typename Tile::T>(extents_of(args), cut_of<Tile>(extents_of(args)));
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
                            const tilefuse_optimizer_rule* rule) {
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
    if (for_matrix_units(args)) return matmul_on_matrix_units(context, args);
    by_dtype(args.dtype, [&](auto zero) {
        with_tile<decltype(zero)>(extents_of(args), true, [&](auto tile) { matmul_by<decltype(tile)>(context, args); });
    });
}

size_t matmul_workspace(const tilefuse_matmul_args& args) {
    if (for_matrix_units(args)) return workspace_on_matrix_units(args);
    size_t bytes = 0;
    by_dtype(args.dtype, [&](auto zero) {
        with_tile<decltype(zero)>(extents_of(args), true, [&](auto tile) { bytes = workspace_by<decltype(tile)>(args); });
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
