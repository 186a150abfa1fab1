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

// The large tile leaves no registers for pooling, nor for operands that are not read by packs.
template <class Tile> constexpr bool lean = Tile::rows == 128;

// Rows are pixels, or columns of weights; k goes along taps and their channels.
template <class Tile, int Width> class PixelsByTaps : public Panel<typename Tile::T, Width, Tile::depth> {
    using T = typename Tile::T;

public:
    __device__ __forceinline__ PixelsByTaps(const Images<T>& images, const StoredPixel* pixels, const int& step_h,
                                            const int& step_w, const int& taps_w, const int& channels,
                                            const Steps& steps, int64_t k, int depth)
        : Base(lean<Tile> ? Reading::packs_along_k : images.reading), images_(images), pixels_(pixels + at_),
          along_(step_h, step_w, taps_w, channels, steps, k, depth, k_, k_distance) {}

    __device__ __forceinline__ void fetch() {
        if (Base::reading_ == Reading::packs_along_k) {
            const Pixel pixel = load_pixel(pixels_);
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < packs; ++i) {
                hold(i, load_channels<pack>(images_, along_.spot(pixel, i * k_distance)));
                along_.advance();
            }
        } else {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < elements; ++i) {
                const Pixel pixel = load_pixel(pixels_ + i % pack * at_distance);
                held_[i] = load_channels<1>(images_, along_.spot(pixel, i / pack * k_distance)).of[0];
                if (i % pack == pack - 1) along_.advance();
            }
        }
        along_.end_step(Tile::depth);
    }

private:
    using Base = Panel<T, Width, Tile::depth>;
    using Base::pack, Base::packs, Base::elements, Base::k_distance, Base::at_distance;
    using Base::at_, Base::k_, Base::held_, Base::hold;

    const Images<T>& images_;
    const StoredPixel* const pixels_;
    AlongTaps<lean<Tile>> along_;
};

// Rows are taps and their channels; k goes along pixels.
template <class Tile, int Width> class TapsByPixels : public Panel<typename Tile::T, Width, Tile::depth> {
    using T = typename Tile::T;

public:
    template <class RowOf>
    __device__ __forceinline__ TapsByPixels(const Images<T>& images, RowOf row_of, const int& stride_h, const int& stride_w,
                                            const int& out_h, const int& out_w, const Steps& steps, int64_t k, int depth)
        : Base(lean<Tile> ? Reading::packs_across : images.reading), images_(images),
          along_(row_of(at_), stride_h, stride_w, out_h, out_w, steps, k, depth, k_,
                 by_packs() ? k_distance : k_distance_of_elements) {}

    __device__ __forceinline__ void fetch() {
        if (by_packs()) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < packs; ++i) hold(i, next<pack>(i * k_distance));
        } else {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < elements; ++i) held_[i] = next<1>(i * k_distance_of_elements).of[0];
        }
        along_.end_step(Tile::depth);
    }

private:
    using Base = Panel<T, Width, Tile::depth>;
    using Base::pack, Base::packs, Base::elements, Base::k_distance, Base::k_distance_of_elements;
    using Base::at_, Base::k_, Base::held_, Base::hold;

    __device__ __forceinline__ bool by_packs() const { return Base::reading_ == Reading::packs_across; }

    template <int N> __device__ __forceinline__ Pack<T, N> next(int ahead) {
        const Pack<T, N> x = load_channels<N>(images_, along_.spot(images_, ahead));
        along_.advance();
        return x;
    }

    const Images<T>& images_;
    AlongPixels<lean<Tile>> along_;
};

// ---- pooling --------------------------------------------------------------------------------------------------------

// Pools a tile whose rows are whole windows, `across` columns at a time: those that a warp's threads have in one pack.
template <class Tile>
__device__ __forceinline__ void pool_tile(const Finish<typename Tile::T>& f, const Target& target, Sums<Tile>& sums,
                                          typename Tile::T* buffer, int64_t row, int rows, int column, int columns_left) {
    constexpr int pack = Tile::pack, column_packs = Tile::thread_columns / pack, across = 8 * pack;
    static_assert(Tile::rows * across * sizeof(typename Tile::T) <= sizeof(Buffers<Tile>));
    const int columns = columns_left < Tile::columns ? columns_left : Tile::columns;
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
        pool_windows(f, target, [&](int r, int at) { return buffer + r * across + at; }, rows / target.window(), across,
                     Tile::threads, row / target.window(), column + first, columns_left - first);
        block_barrier();
    }
}

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class Tile, bool Turned> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    convolve(Product<typename Tile::T> p, Convolution<typename Tile::T> c) {
    using T = typename Tile::T;
    using BlockShare = Assignment<Turned, Tile::rows, Tile::columns>;
    TILEFUSE_SHARED(Buffers<Tile>, buffers);
    TILEFUSE_SHARED(BlockShare, share);
    share.template make<Tile>(p, c, 2 * Tile::pack);

    const Target& target = c.target;
    const Work& work = share.work;
    const Taps &h = share.h, &w = share.w;
    PixelsByTaps<Tile, Tile::rows> a(c.images, share.pixels, h.step, w.step, w.count, c.inputs, share.steps, work.k,
                                     share.depth);
    Sums<Tile> sums;
    if constexpr (Turned) {
        PixelsByTaps<Tile, Tile::columns> b(c.weights, share.columns, h.index_step, w.index_step, w.count, c.inputs,
                                            share.steps, work.k, share.depth);
        multiply_panels<Tile>(a, b, share.depth, buffers, sums, [] {});
    } else {
        Matrix<T> matrix = c.matrix;
        if (lean<Tile>) matrix.reading = Reading::packs_across;
        Operand<T, Tile::columns, Tile::depth> b(matrix, share.weights(p, matrix), p.n - work.column, share.depth);
        multiply_panels<Tile>(a, b, share.depth, buffers, sums, [] {});
    }

    if (!lean<Tile> && target.pools && !target.adds)
        return pool_tile<Tile>(p.finish, target, sums, buffers, work.row, share.rows, share.first_column, share.columns_left);
    for_packs<Tile>(sums, share.rows, share.columns_left, [&](int r, int column, const auto& x) {
        if (target.adds) {
            store_pack(place_of_sums(p, work, work.row + r, work.column + column), x);
        } else if (share.results[r] >= 0) {
            finish<false>(p.finish, no_step<T>, x, 0, share.results[r], share.first_column + column,
                          share.columns_left - column);
        }
    });
}

template <class Tile> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    weigh(Product<typename Tile::T> p, Gradient<typename Tile::T> g) {
    using T = typename Tile::T;
    TILEFUSE_SHARED(Buffers<Tile>, buffers);
    TILEFUSE_SHARED(Weighing<T>, share);
    share.template make<Tile>(p, g);

    constexpr int one = 1;
    const Work& work = share.work;
    const auto row_of_a = [&](int at) { return tap_row(p, g, work, at); };
    const auto row_of_b = [&](int at) { return tap_column(p, work, at); };
    TapsByPixels<Tile, Tile::rows> a(g.x, row_of_a, g.h.stride, g.w.stride, g.out_h, g.out_w, share.steps_x, work.k,
                                     work.depth);
    TapsByPixels<Tile, Tile::columns> b(g.dy, row_of_b, one, one, g.out_h, g.out_w, share.steps_dy, work.k, work.depth);
    Sums<Tile> sums;
    multiply_panels<Tile>(a, b, work.depth, buffers, sums, [] {});

    const int columns_left = static_cast<int>(p.n - work.column);
    const int first = first_column(p, g.target, static_cast<int>(work.product)) + static_cast<int>(work.column);
    for_packs<Tile>(sums, p.m - work.row, columns_left, [&](int r, int column, const auto& x) {
        if (g.target.adds) {
            store_pack(place_of_sums(p, work, work.row + r, work.column + column), x);
        } else {
            finish<false>(p.finish, share.step_memory.step(), x, 0, work.row + r, first + column, columns_left - column);
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
    const int64_t index = (p.first + blockIdx.x) * add_threads + threadIdx.x, line = index / packs;
    const int product = static_cast<int>(line / windows);
    const int64_t window = line - product * windows, column = (index - line * packs) * pack;
    if (product >= p.products) return;
    const T* sums = p.sums + (product * p.parts * p.m + window * target.window()) * columns + column;
    const auto total_of = [&](int place) {
        Pack<T, pack> total = load_pack<pack>(sums + place * columns);
        TILEFUSE_UNROLL(4)  // more, and registers are spilled
        for (int64_t part = 1; part < p.parts; ++part) {
            const Pack<T, pack> x = load_pack<pack>(sums + (part * p.m + place) * columns);
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < pack; ++e) total.of[e] += x.of[e];
        }
        return total;
    };
    const int to = first_column(p, target, product) + static_cast<int>(column);
    if (target.pools) {
        Maximum<T> best = {total_of(0)};
        for (int place = 1; place < target.window(); ++place) best.take(total_of(place), place);
        return finish_window(p.finish, target, best, window, to, p.n - column);
    }
    const int64_t row = result_row(target, product % target.phases(), place_of(target, window));
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

template <class T> void queue_add_and_pool_of(const Context& context, const Product<T>& p, const Target& target) {
    const int64_t packs = p.products * (p.m / target.window()) * columns_of_sums<T>(p.n) / pack_size<T>;
    launch_all(TILEFUSE_KERNEL(add_and_pool<T>), p, quotient(packs, add_threads), add_threads, 0, context.stream, target);
}
void queue_add_and_pool(const Context& context, const Product<float>& p, const Target& target) {
    queue_add_and_pool_of(context, p, target);
}
void queue_add_and_pool(const Context& context, const Product<double>& p, const Target& target) {
    queue_add_and_pool_of(context, p, target);
}

namespace {

bool nothing(const Extents& e) { return e.m == 0 || e.n == 0 || e.products == 0; }

template <class Tile, bool Turned, class Args> void convolve_by(const Context& context, const Plan& plan, const Args& args) {
    auto c = convolution_of<typename Tile::T>(args, plan.target);
    c.rows_of_tile = plan.rows_of_tile;
    multiply_by<Tile>(TILEFUSE_KERNEL(convolve<Tile, Turned>), context, plan, 0, c, args);
}
template <class Tile> void queue_by(const Context& context, const Plan& plan, const tilefuse_conv2d_args& args) {
    convolve_by<Tile, false>(context, plan, args);
}
template <class Tile> void queue_by(const Context& context, const Plan& plan, const tilefuse_conv2d_backward_data_args& args) {
    convolve_by<Tile, true>(context, plan, args);
}
template <class Tile>
void queue_by(const Context& context, const Plan& plan, const tilefuse_conv2d_backward_weights_args& args) {
    const auto g = gradient_of<typename Tile::T>(args, plan.target);
    multiply_by<Tile>(TILEFUSE_KERNEL(weigh<Tile>), context, plan, 0, g, args);
}

// Whether the large tile will do: by the shape, and by where the arrays lie.
bool by_packs(int64_t inputs, int64_t outputs, int64_t within) { return inputs % 4 == 0 && outputs % 4 == 0 && within >= 8; }
bool lean_shape(const tilefuse_conv2d_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    return args.pool.height == 0 && by_packs(s.c / s.groups, s.f / s.groups, s.c / s.groups);
}
bool lean_shape(const tilefuse_conv2d_backward_data_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    return by_packs(s.f / s.groups, s.f / s.groups, s.f / s.groups);
}
bool lean_shape(const tilefuse_conv2d_backward_weights_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    return by_packs(s.c / s.groups, s.f / s.groups, s.out_w);
}
bool aligned(const tilefuse_conv2d_args& args) { return packs_fit({args.x, args.w}); }
bool aligned(const tilefuse_conv2d_backward_data_args& args) {
    return packs_fit({args.dy, args.w}) && packs_fit({args.argmax}, 4);
}
bool aligned(const tilefuse_conv2d_backward_weights_args& args) {
    return packs_fit({args.x, args.dy}) && packs_fit({args.argmax}, 4);
}

// body(Tile{}, plan). How a product is cut up depends on its shape alone, and so do the workspace and the bits; where arrays
// lie so that the large tile can't read them, the medium one takes its place.
template <class Args, class Body> void with_plan(const Args& args, Body&& body) {
    const Problem problem = problem_of(args);
    by_dtype(args.dtype, [&](auto zero) {
        with_tile<decltype(zero)>(problem.extents, lean_shape(args), [&](auto tile) {
            using Tile = decltype(tile);
            Plan plan = plan_of<Tile>(problem);
            if constexpr (lean<Tile>) {
                if (!aligned(args)) {
                    const Plan medium = plan_of<MediumFloat>(problem);
                    plan.rows_of_tile = medium.rows_of_tile;
                    plan.cut.tiles_down = medium.cut.tiles_down;
                    plan.cut.tiles_across = medium.cut.tiles_across;
                    return body(MediumFloat{}, plan);
                }
            }
            body(tile, plan);
        });
    });
}

template <class Args> void queue(const Context& context, const Args& args) {
    if (nothing(problem_of(args).extents)) return;
    check_sizes(args.shape, args.pool);
    if (is_depthwise(args)) return convolve_depthwise(context, args);
    if (for_matrix_units(args.dtype, args.precision, problem_of(args).extents)) return convolve_on_matrix_units(context, args);
    with_plan(args, [&](auto tile, const Plan& plan) { queue_by<decltype(tile)>(context, plan, args); });
}

template <class Args> size_t workspace(const Args& args) {
    const Extents extents = problem_of(args).extents;
    if (nothing(extents)) return 0;
    if (is_depthwise(args)) return workspace_of_depthwise(args);
    if (for_matrix_units(args.dtype, args.precision, extents)) return workspace_on_matrix_units(args);
    size_t bytes = 0;
    with_plan(args, [&](auto tile, const Plan& plan) { bytes = workspace_of<typename decltype(tile)::T>(plan); });
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
