// Convolution, its max-pooling, and its gradients, on FMA units (conv.cuh says which products they are; matmul_fma.cuh has
// the loop).
//
// Max-pooling happens where the sums are made: the rows of a tile are whole windows. As in matmul.cu, a sum over many taps or
// pixels is cut into parts where there are few tiles; how often depends on the shape alone, and so do the bits.
#include <numeric>

#include "common/dtype.h"
#include "cuda/conv.cuh"
#include "cuda/matmul_fma.cuh"

namespace tilefuse::cuda::convolutions {

// ---- operands -------------------------------------------------------------------------------------------------------

// Rows are pixels, k goes along taps and their channels. Or rows are columns of weights.
template <class T, int Width, int Depth> class PixelsByTaps : public Panel<T, Width, Depth> {
public:
    __device__ __forceinline__ PixelsByTaps(const Images<T>& images, const StoredPixel* pixels, int step_h, int step_w,
                                            int taps_w, int channels, int64_t k, int depth)
        : Base(images.reading), images_(images), pixels_(pixels + at_), step_h_(step_h), step_w_(step_w),
          walk_(k + k_, k_distance, taps_w, channels), depth_(depth - k_) {}

    __device__ __forceinline__ void fetch() {
        if (images_.reading == Reading::packs_along_k) {
            const Pixel pixel = load_pixel(pixels_);
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < packs; ++i) {
                hold(i, read<pack>(pixel, i * k_distance));
                walk_.advance();
            }
        } else {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < elements; ++i) {
                held_[i] = read<1>(load_pixel(pixels_ + i % pack * at_distance), i / pack * k_distance).of[0];
                if (i % pack == pack - 1) walk_.advance();
            }
        }
        depth_ -= Depth;
    }

private:
    using Base = Panel<T, Width, Depth>;
    using Base::pack, Base::packs, Base::elements, Base::k_distance, Base::at_distance;
    using Base::at_, Base::k_, Base::held_, Base::hold;

    template <int N> __device__ __forceinline__ Pack<T, N> read(const Pixel& pixel, int k) const {
        const int i = k < depth_ ? pixel.i + walk_.high * step_h_ : outside;
        return load_channels<N>(images_, pixel.base, i, pixel.j + walk_.middle * step_w_, walk_.low);
    }

    const Images<T>& images_;
    const StoredPixel* const pixels_;
    const int step_h_, step_w_;
    Walk walk_;  // taps and channels
    int depth_;  // of k, from this thread's first element on
};

// Rows are taps and their channels, k goes along pixels.
template <class T, int Width, int Depth> class TapsByPixels : public Panel<T, Width, Depth> {
public:
    // Of a thread's row: its tap as an offset, and its channel.
    struct Row {
        int h, w, channel;
    };

    template <class RowOf>
    __device__ __forceinline__ TapsByPixels(const Images<T>& images, RowOf row_of, int stride_h, int stride_w, int out_h,
                                            int out_w, int64_t k, int depth)
        : Base(images.reading), images_(images), row_(row_of(at_)), stride_h_(stride_h), stride_w_(stride_w),
          walk_(k + k_, by_packs() ? k_distance : k_distance_of_elements, out_h, out_w), depth_(depth - k_) {}

    __device__ __forceinline__ void fetch() {
        if (by_packs()) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < packs; ++i) hold(i, read<pack>(i * k_distance));
        } else {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < elements; ++i) held_[i] = read<1>(i * k_distance_of_elements).of[0];
        }
        depth_ -= Depth;
    }

private:
    using Base = Panel<T, Width, Depth>;
    using Base::pack, Base::packs, Base::elements, Base::k_distance, Base::k_distance_of_elements;
    using Base::at_, Base::k_, Base::held_, Base::hold;

    __device__ __forceinline__ bool by_packs() const { return images_.reading == Reading::packs_across; }

    template <int N> __device__ __forceinline__ Pack<T, N> read(int k) {
        const int i = k < depth_ ? walk_.middle * stride_h_ + row_.h : outside, j = walk_.low * stride_w_ + row_.w;
        const Pack<T, N> x = load_channels<N>(images_, walk_.high * images_.image, i, j, row_.channel);
        walk_.advance();
        return x;
    }

    const Images<T>& images_;
    const Row row_;
    const int stride_h_, stride_w_;
    Walk walk_;  // images and their pixels
    int depth_;
};

// ---- pooling --------------------------------------------------------------------------------------------------------

// Pools a tile whose rows are whole windows, `across` columns at a time: those that a warp's threads have in one pack.
template <class Tile>
__device__ __forceinline__ void pool_tile(const Finish<typename Tile::T>& f, const Target& target, Sums<Tile>& sums,
                                          typename Tile::T* buffer, int64_t row, int64_t rows, int64_t column,
                                          int64_t columns_left) {
    constexpr int pack = Tile::pack, column_packs = Tile::thread_columns / pack, across = 8 * pack;
    static_assert(Tile::rows * across * sizeof(typename Tile::T) <= sizeof(Buffers<Tile>));
    const int columns = static_cast<int>(columns_left < Tile::columns ? columns_left : Tile::columns);
    TILEFUSE_UNROLL(1)
    for (int first = 0; first < columns; first += across) {
        const int mine = first - thread_column<Tile>() / across * across;
        TILEFUSE_UNROLL_ALL
        for (int j = 0; j < column_packs; ++j) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < Tile::thread_rows; ++i) {
                if (mine != column_distance<Tile>(j)) continue;
                Pack<typename Tile::T, pack> x;
                TILEFUSE_UNROLL_ALL
                for (int e = 0; e < pack; ++e) x.of[e] = sums[i][j][e];
                store_pack(buffer + (thread_row<Tile>() + row_distance<Tile>(i)) * across + thread_column<Tile>() % across, x);
            }
        }
        block_barrier();
        pool_windows(f, target, buffer, across, static_cast<int>(rows) / target.window(), across, Tile::threads,
                     row / target.window(), column + first, columns_left - first);
        block_barrier();
    }
}

// ---- kernels --------------------------------------------------------------------------------------------------------

// Where a product's columns begin in the rows of C.
template <class T> __device__ __forceinline__ int64_t first_column(const Product<T>& p, const Target& target, int64_t product) {
    return product / target.phases() * p.n;
}

template <class Tile, bool Turned> __global__ void __launch_bounds__(Tile::threads, Tile::threads == 256 ? 1 : Tile::blocks)
    convolve(Product<typename Tile::T> p, Convolution<typename Tile::T> c) {
    using T = typename Tile::T;
    TILEFUSE_SHARED(Buffers<Tile>, buffers);
    TILEFUSE_SHARED(StoredPixel[Tile::rows], pixels);
    TILEFUSE_SHARED(StoredPixel[Tile::columns], columns);  // of weights
    TILEFUSE_SHARED(int64_t[Tile::rows], results);

    Work work = work_of<Tile>(p);
    work.row = work.row / Tile::rows * c.rows_of_tile;
    const Target& target = c.target;
    const int phase = static_cast<int>(work.product % target.phases());
    const int group = static_cast<int>(work.product / target.phases());
    const Taps h = taps_of<Turned>(c.h, phase / target.phases_w), w = taps_of<Turned>(c.w, phase % target.phases_w);
    const int64_t left = static_cast<int64_t>(h.count) * w.count * c.inputs - work.k;
    const int depth = static_cast<int>(left < 0 ? 0 : left < work.depth ? left : work.depth);
    const int thread = static_cast<int>(threadIdx.x);
    const int64_t rows = p.m - work.row < c.rows_of_tile ? p.m - work.row : c.rows_of_tile;
    if (thread < Tile::rows) {
        Pixel pixel = {0, outside, 0};
        results[thread] = -1;
        if (thread < rows) {
            const Place place = place_of(target, work.row + thread);
            pixel = {place.image * c.images.image + group * c.inputs, place.i * (Turned ? 1 : c.h.stride) + h.first,
                     place.j * (Turned ? 1 : c.w.stride) + w.first};
            results[thread] = result_row(target, phase, place);
        }
        store_pixel(pixels + thread, pixel);
    }
    if (Turned && thread < Tile::columns) {
        const int64_t column = work.column + thread;
        store_pixel(columns + thread, {column * c.matrix.stride + group * c.inputs, column < p.n ? h.index : outside, w.index});
    }
    block_barrier();

    PixelsByTaps<T, Tile::rows, Tile::depth> a(c.images, pixels, h.step, w.step, w.count, c.inputs, work.k, depth);
    Sums<Tile> sums;
    if constexpr (Turned) {
        PixelsByTaps<T, Tile::columns, Tile::depth> b(c.weights, columns, h.index_step, w.index_step, w.count, c.inputs, work.k,
                                                      depth);
        multiply_panels<Tile>(a, b, depth, buffers, sums, [] {});
    } else {
        const T* weights = c.matrix.data + work.k * c.matrix.k_stride + group * p.n + work.column;
        Operand<T, Tile::columns, Tile::depth> b(c.matrix, weights, p.n - work.column, depth);
        multiply_panels<Tile>(a, b, depth, buffers, sums, [] {});
    }

    const int64_t columns_left = p.n - work.column, first = first_column(p, target, work.product) + work.column;
    if (target.pools && !target.adds)
        return pool_tile<Tile>(p.finish, target, sums, buffers, work.row, rows, first, columns_left);
    for_packs<Tile>(sums, rows, columns_left, [&](int r, int column, const auto& x) {
        if (target.adds) {
            store_pack(place_of_sums(p, work, work.row + r, work.column + column), x);
        } else if (results[r] >= 0) {
            finish<false>(p.finish, no_step<T>, x, 0, results[r], first + column, columns_left - column);
        }
    });
}

template <class Tile> __global__ void __launch_bounds__(Tile::threads, Tile::threads == 256 ? 1 : Tile::blocks)
    weigh(Product<typename Tile::T> p, Gradient<typename Tile::T> g) {
    using T = typename Tile::T;
    TILEFUSE_SHARED(Buffers<Tile>, buffers);
    TILEFUSE_SHARED(StepMemory<T>, step_memory);
    using PanelA = TapsByPixels<T, Tile::rows, Tile::depth>;
    using PanelB = TapsByPixels<T, Tile::columns, Tile::depth>;

    const Work work = work_of<Tile>(p);
    const int group = static_cast<int>(work.product);
    const auto row_of_a = [&](int at) -> typename PanelA::Row {
        const int row = static_cast<int>(work.row) + at, tap = row / g.inputs;
        const int i = tap / g.w.kernel * g.h.dilation - g.h.pad, j = tap % g.w.kernel * g.w.dilation - g.w.pad;
        return {row < p.m ? i : outside, j, group * g.inputs + row % g.inputs};
    };
    const auto row_of_b = [&](int at) -> typename PanelB::Row {
        const int column = static_cast<int>(work.column) + at;
        return {column < p.n ? 0 : outside, 0, group * static_cast<int>(p.n) + column};
    };
    PanelA a(g.x, row_of_a, g.h.stride, g.w.stride, g.out_h, g.out_w, work.k, work.depth);
    PanelB b(g.dy, row_of_b, 1, 1, g.out_h, g.out_w, work.k, work.depth);
    Sums<Tile> sums;
    multiply_panels<Tile>(a, b, work.depth, buffers, sums, [&] {
        if (threadIdx.x == 0 && !g.target.adds && p.finish.epilogue.rule != nullptr) step_memory.make(*p.finish.epilogue.rule);
    });
    const int64_t columns_left = p.n - work.column, first = first_column(p, g.target, work.product) + work.column;
    for_packs<Tile>(sums, p.m - work.row, columns_left, [&](int r, int column, const auto& x) {
        if (g.target.adds) {
            store_pack(place_of_sums(p, work, work.row + r, work.column + column), x);
        } else {
            finish<false>(p.finish, step_memory.step(), x, 0, work.row + r, first + column, columns_left - column);
        }
    });
}

constexpr int add_threads = 128;

// Adds the parts' sums, in the order of k, and pools them.
template <class T> __global__ void __launch_bounds__(add_threads) add_and_pool(Product<T> p, Target target) {
    constexpr int pack = pack_size<T>;
    TILEFUSE_SHARED(StepMemory<T>, step_memory);
    if (p.finish.epilogue.rule != nullptr) {
        if (threadIdx.x == 0) step_memory.make(*p.finish.epilogue.rule);
        block_barrier();
    }
    const int64_t columns = columns_of_sums<T>(p.n), packs = columns / pack, windows = p.m / target.window();
    const int64_t index = (p.first + blockIdx.x) * add_threads + threadIdx.x, product = index / packs / windows;
    const int64_t window = index / packs % windows, column = index % packs * pack;
    if (product >= p.products) return;
    const T* sums = p.sums + (product * p.parts * p.m + window * target.window()) * columns + column;
    const auto total_of = [&](int place) {
        Pack<T, pack> total = load_pack<pack>(sums + place * columns);
        for (int64_t part = 1; part < p.parts; ++part) {
            const Pack<T, pack> x = load_pack<pack>(sums + (part * p.m + place) * columns);
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < pack; ++e) total.of[e] += x.of[e];
        }
        return total;
    };
    const int64_t to = first_column(p, target, product) + column;
    if (target.pools) {
        Maximum<T> best = {total_of(0)};
        for (int place = 1; place < target.window(); ++place) best.take(total_of(place), place);
        return finish_window(p.finish, target, best, window, to, p.n - column);
    }
    const int64_t row = result_row(target, static_cast<int>(product % target.phases()), place_of(target, window));
    if (row >= 0) finish<false>(p.finish, step_memory.step(), total_of(0), 0, row, to, p.n - column);
}

// ---- what to launch -------------------------------------------------------------------------------------------------

void check_sizes(const tilefuse_conv2d_shape& s, const tilefuse_conv2d_pool& pool) {
    constexpr int64_t most = int64_t{1} << 31, farthest = int64_t{1} << 29;
    const auto fits = [&](std::initializer_list<int64_t> factors) {
        double product = 1;
        for (const int64_t factor : factors) product *= static_cast<double>(factor);
        return product < static_cast<double>(most);
    };
    const auto near = [&](int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
        return std::max({size, out * stride, kernel * dilation, pad, -pad, (pool.height > 0 ? 256 : 1) * out}) < farthest;
    };
    if (s.n < most && fits({s.h, s.w, s.c}) && fits({s.out_h, s.out_w, s.f}) && fits({s.kernel_h, s.kernel_w, s.c, s.f}) &&
        near(s.h, s.out_h, s.kernel_h, s.stride_h, s.dilation_h, s.pad_top) &&
        near(s.w, s.out_w, s.kernel_w, s.stride_w, s.dilation_w, s.pad_left))
        return;
    throw std::runtime_error("conv2d: a GPU takes images and filters of fewer than 2^31 elements, with edges, strides and "
                             "paddings that reach no farther than 2^29; make them smaller");
}

Axis axis_of(int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
    return {static_cast<int>(kernel), static_cast<int>(stride), static_cast<int>(dilation), static_cast<int>(pad),
            static_cast<int>(stride / std::gcd(stride, dilation))};
}
Axis axis_h(const tilefuse_conv2d_shape& s) { return axis_of(s.kernel_h, s.stride_h, s.dilation_h, s.pad_top); }
Axis axis_w(const tilefuse_conv2d_shape& s) { return axis_of(s.kernel_w, s.stride_w, s.dilation_w, s.pad_left); }

Problem problem_of(const tilefuse_conv2d_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    const bool pools = args.pool.height > 0;
    const int64_t height = pools ? args.pool.height : 1, width = pools ? args.pool.width : 1;
    const int64_t grid_h = s.out_h / height, grid_w = s.out_w / width;
    return {{s.n * grid_h * grid_w * height * width, s.f / s.groups, taps_of(s) * (s.c / s.groups), s.groups},
            {1, 1, static_cast<int>(grid_h), static_cast<int>(grid_w), static_cast<int>(s.out_h), static_cast<int>(s.out_w),
             static_cast<int>(height), static_cast<int>(width), pools, false, args.argmax}};
}

Problem problem_of(const tilefuse_conv2d_backward_data_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    // No more phases than pixels, and no more taps than those that one of them meets.
    const int64_t phases_h = std::min(s.stride_h, s.h), phases_w = std::min(s.stride_w, s.w);
    const int64_t grid_h = quotient(s.h, s.stride_h), grid_w = quotient(s.w, s.stride_w);
    const int64_t taps = quotient(s.kernel_h, axis_h(s).turned_apart) * quotient(s.kernel_w, axis_w(s).turned_apart);
    return {{s.n * grid_h * grid_w, s.c / s.groups, taps * (s.f / s.groups), s.groups * phases_h * phases_w},
            {static_cast<int>(phases_h), static_cast<int>(phases_w), static_cast<int>(grid_h), static_cast<int>(grid_w),
             static_cast<int>(s.h), static_cast<int>(s.w), 1, 1, false, false, nullptr}};
}

Problem problem_of(const tilefuse_conv2d_backward_weights_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    return {{taps_of(s) * (s.c / s.groups), s.f / s.groups, s.n * s.out_h * s.out_w, s.groups},
            {1, 1, 1, 1, 1, 1, 1, 1, false, false, nullptr}};
}

namespace {

template <class Tile> struct Planned {
    Extents extents;
    Target target;
    Cut cut;
    int rows_of_tile;
};

template <class Tile> Planned<Tile> planned(const Problem& problem) {
    const int window = problem.target.window();
    Planned<Tile> plan = {problem.extents, problem.target, cut_of<Tile>(problem.extents), Tile::rows};
    if (window <= Tile::rows) plan.rows_of_tile = Tile::rows / window * window;
    plan.cut.tiles_down = quotient(problem.extents.m, plan.rows_of_tile);
    plan.target.adds = plan.cut.parts > 1 || window > Tile::rows;
    return plan;
}

template <class Tile> size_t workspace_of(const Planned<Tile>& plan) {
    return plan.target.adds ? size_of_sums<typename Tile::T>(plan.extents, plan.cut) : 0;
}

template <class Tile, class Kernel, class Operands, class Args>
void multiply_by(const Kernel& kernel, const Context& context, const Planned<Tile>& plan, const Operands& operands,
                 const Args& args) {
    using T = typename Tile::T;
    auto p = product_of<T>(context, plan.extents, plan.cut, finish_of<T>(args));
    const int64_t blocks = p.tiles_down * p.tiles_across * p.parts * p.products;
    launch_all(kernel, p, blocks, Tile::threads, 0, context.stream, operands);
    if (!plan.target.adds) return;
    const int64_t packs = p.products * (p.m / plan.target.window()) * columns_of_sums<T>(p.n) / pack_size<T>;
    launch_all(TILEFUSE_KERNEL(add_and_pool<T>), p, quotient(packs, add_threads), add_threads, 0, context.stream, plan.target);
}

template <class Tile, bool Turned, class Args>
void convolve_by(const Context& context, const Planned<Tile>& plan, const Args& args) {
    auto c = convolution_of<typename Tile::T>(args, plan.target);
    c.rows_of_tile = plan.rows_of_tile;
    multiply_by(TILEFUSE_KERNEL(convolve<Tile, Turned>), context, plan, c, args);
}

template <class Tile> void queue_by(const Context& context, const Planned<Tile>& plan, const tilefuse_conv2d_args& args) {
    convolve_by<Tile, false>(context, plan, args);
}
template <class Tile>
void queue_by(const Context& context, const Planned<Tile>& plan, const tilefuse_conv2d_backward_data_args& args) {
    convolve_by<Tile, true>(context, plan, args);
}
template <class Tile>
void queue_by(const Context& context, const Planned<Tile>& plan, const tilefuse_conv2d_backward_weights_args& args) {
    multiply_by(TILEFUSE_KERNEL(weigh<Tile>), context, plan, gradient_of<typename Tile::T>(args, plan.target), args);
}

// body(plan) with how a product is cut up.
template <class Args, class Body> void with_plan(const Args& args, Body&& body) {
    const Problem problem = problem_of(args);
    if (problem.extents.m == 0 || problem.extents.n == 0 || problem.extents.products == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        with_tile<decltype(zero)>(problem.extents, [&](auto tile) { body(planned<decltype(tile)>(problem)); });
    });
}

template <class Args> void queue(const Context& context, const Args& args) {
    check_sizes(args.shape, args.pool);
    with_plan(args, [&](const auto& plan) { queue_by(context, plan, args); });
}

template <class Args> size_t workspace(const Args& args) {
    size_t bytes = 0;
    with_plan(args, [&](const auto& plan) { bytes = workspace_of(plan); });
    return bytes;
}

// A window's gradient goes to one pixel: db is the sum of what pooling left.
tilefuse_column_sum_args bias_gradient(const tilefuse_conv2d_backward_weights_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    const bool pools = args.pool.height > 0;
    const int64_t pixels = pools ? (s.out_h / args.pool.height) * (s.out_w / args.pool.width) : s.out_h * s.out_w;
    return {args.dtype, s.n * pixels, s.f, args.dy, args.db, args.rule, args.bias};
}
bool has_bias(const tilefuse_conv2d_backward_weights_args& args) {
    return args.rule != nullptr ? args.bias.w != nullptr : args.db != nullptr;
}
// Without pixels, a rule has nothing to go by.
bool updates_by_nothing(const tilefuse_conv2d_backward_weights_args& args) {
    return args.rule != nullptr && args.shape.n * args.shape.out_h * args.shape.out_w == 0;
}

}  // namespace
}  // namespace tilefuse::cuda::convolutions

namespace tilefuse::cuda {

void conv2d(const Context& context, const tilefuse_conv2d_args& args) { convolutions::queue(context, args); }
size_t conv2d_workspace(const tilefuse_conv2d_args& args) { return convolutions::workspace(args); }

void conv2d_backward_data(const Context& context, const tilefuse_conv2d_backward_data_args& args) {
    convolutions::queue(context, args);
}
size_t conv2d_backward_data_workspace(const tilefuse_conv2d_backward_data_args& args) { return convolutions::workspace(args); }

void conv2d_backward_weights(const Context& context, const tilefuse_conv2d_backward_weights_args& args) {
    if (convolutions::updates_by_nothing(args)) return;
    convolutions::queue(context, args);
    if (convolutions::has_bias(args)) column_sum(context, convolutions::bias_gradient(args));
}
size_t conv2d_backward_weights_workspace(const tilefuse_conv2d_backward_weights_args& args) {
    return std::max(convolutions::workspace(args), column_sum_workspace(convolutions::bias_gradient(args)));
}

}  // namespace tilefuse::cuda
