// Convolution and its gradients on matrix units (conv.cuh says which products they are; matmul_mma.cuh has the loop).
#include "cuda/conv.cuh"
#include "cuda/matmul_mma.cuh"

namespace tilefuse::cuda::convolutions {

// ---- operands -------------------------------------------------------------------------------------------------------

// A pack of channels goes to shared memory, where it arrives later, or, of a pooling's gradient, at once.
__device__ __forceinline__ void copy_pack(float* to, const Images<float>& images, const Spot& spot) {
    constexpr int pack = pack_size<float>;
    if (images.argmax != nullptr) return store_pack(to, load_channels<pack>(images, spot));
    const bool within = inside(images, spot);
    copy_async(to, within ? address(images, spot) : images.data, within ? 16 : 0);
}

// Rows are pixels, or columns of weights; k goes along taps and their channels.
template <int Width> class MmaPixelsByTaps : public MmaPanel<float, Width> {
public:
    __device__ __forceinline__ MmaPixelsByTaps(const Images<float>& images, const StoredPixel* pixels, const int& step_h,
                                               const int& step_w, const int& taps_w, const int& channels,
                                               const Steps& steps, int64_t k, int left)
        : Base(true), images_(images), pixels_(pixels), first_(thread() % (depth / width()) * width()),
          along_(step_h, step_w, taps_w, channels, steps, k, left, first_, depth) {}

    __device__ __forceinline__ void copy(float* buffer) {
        if (by_packs()) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < 2; ++i) {
                const int line = (i * threads + thread()) * pack / depth;
                copy_pack(buffer + place(line, first_), images_, along_.spot(load_pixel(pixels_ + line), 0));
            }
        } else {
            TILEFUSE_UNROLL(4)
            for (int i = 0; i < 2 * pack; ++i) {
                const int line = (i * threads + thread()) / depth;
                const Spot spot = along_.spot(load_pixel(pixels_ + line), 0);
                buffer[place(line, first_)] = load_channels<1>(images_, spot).of[0];
            }
        }
        along_.advance();
        along_.end_step(depth);
    }

private:
    using Base = MmaPanel<float, Width>;
    using Base::pack, Base::depth, Base::threads, Base::place;

    __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x); }
    __device__ __forceinline__ bool by_packs() const { return images_.reading == Reading::packs_along_k; }
    __device__ __forceinline__ int width() const { return by_packs() ? pack : 1; }

    const Images<float>& images_;
    const StoredPixel* const pixels_;
    const int first_;  // k
    AlongTaps<false> along_;
};

// Rows are taps and their channels; k goes along pixels.
template <int Width> class MmaTapsByPixels : public MmaPanel<float, Width> {
public:
    template <class RowOf>
    __device__ __forceinline__ MmaTapsByPixels(const Images<float>& images, RowOf row_of, const int& stride_h,
                                               const int& stride_w, const int& out_h, const int& out_w,
                                               const Steps& steps, int64_t k, int left)
        : Base(false), images_(images), at_(thread() * width() % Width), first_(thread() * width() / Width),
          along_(row_of(at_), stride_h, stride_w, out_h, out_w, steps, k, left, first_, 2 * width()) {}

    __device__ __forceinline__ void copy(float* buffer) {
        if (by_packs()) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < 2; ++i) {
                copy_pack(buffer + place(first_ + 2 * pack * i, at_), images_, along_.spot(images_, 2 * pack * i));
                along_.advance();
            }
        } else {
            TILEFUSE_UNROLL(4)
            for (int i = 0; i < 2 * pack; ++i) {
                buffer[place(first_ + 2 * i, at_)] = load_channels<1>(images_, along_.spot(images_, 2 * i)).of[0];
                along_.advance();
            }
        }
        along_.end_step(depth);
    }

private:
    using Base = MmaPanel<float, Width>;
    using Base::pack, Base::depth, Base::threads, Base::place;

    __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x); }
    __device__ __forceinline__ bool by_packs() const { return images_.reading == Reading::packs_across; }
    __device__ __forceinline__ int width() const { return by_packs() ? pack : 1; }

    const Images<float>& images_;
    const int at_, first_;  // row, and k
    AlongPixels<false> along_;
};

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class Tile, bool Turned> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    convolve_mma(Product<float> p, Convolution<float> c) {
    using BlockShare = Assignment<Turned, Tile::rows, Tile::columns>;
    TILEFUSE_SHARED(BlockShare, share);
    float* const buffers = dynamic_shared<float>();
    share.template make<Tile>(p, c, Tile::depth);

    const Target& target = c.target;
    const Work& work = share.work;
    const Taps &h = share.h, &w = share.w;
    MmaPixelsByTaps<Tile::rows> a(c.images, share.pixels, h.step, w.step, w.count, c.inputs, share.steps, work.k, share.depth);
    MmaSums<Tile> sums = {};
    if constexpr (Turned) {
        MmaPixelsByTaps<Tile::columns> b(c.weights, share.columns, h.index_step, w.index_step, w.count, c.inputs, share.steps,
                                         work.k, share.depth);
        multiply_panels<Tile>(a, b, share.depth, buffers, sums, [] {});
    } else {
        MmaOperand<float, Tile::columns> b(c.matrix, share.weights(p, c.matrix), p.n - work.column, share.depth);
        multiply_panels<Tile>(a, b, share.depth, buffers, sums, [] {});
    }
    stage_sums<Tile>(sums, buffers);

    if (target.pools && !target.adds) {
        return pool_windows(p.finish, target, [&](int r, int at) { return buffers + place_in_tile<Tile>(r, at); },
                            share.rows / target.window(), Tile::columns, Tile::threads, work.row / target.window(),
                            share.first_column, share.columns_left);
    }
    const int column = column_of_thread<Tile>(), columns_left = share.columns_left - column;
    if (columns_left <= 0) return;
    const auto bias = bias_of(p.finish, share.first_column + column, columns_left);
    for_staged_packs<Tile>(buffers, share.rows, [&](int r, const auto& x) {
        if (target.adds) {
            store_pack(place_of_sums(p, work, work.row + r, work.column + column), x);
        } else if (share.results[r] >= 0) {
            finish<false>(p.finish, no_step<float>, x, 0, share.results[r], share.first_column + column, columns_left, &bias);
        }
    });
}

template <class Tile> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    weigh_mma(Product<float> p, Gradient<float> g) {
    TILEFUSE_SHARED(Weighing<float>, share);
    float* const buffers = dynamic_shared<float>();
    share.template make<Tile>(p, g);

    constexpr int one = 1;
    const Work& work = share.work;
    const auto row_of_a = [&](int at) { return tap_row(p, g, work, at); };
    const auto row_of_b = [&](int at) { return tap_column(p, work, at); };
    MmaTapsByPixels<Tile::rows> a(g.x, row_of_a, g.h.stride, g.w.stride, g.out_h, g.out_w, share.steps_x, work.k, work.depth);
    MmaTapsByPixels<Tile::columns> b(g.dy, row_of_b, one, one, g.out_h, g.out_w, share.steps_dy, work.k, work.depth);
    MmaSums<Tile> sums = {};
    multiply_panels<Tile>(a, b, work.depth, buffers, sums, [] {});
    stage_sums<Tile>(sums, buffers);

    const int columns_left = static_cast<int>(p.n - work.column), column = column_of_thread<Tile>();
    const int first = first_column(p, g.target, static_cast<int>(work.product)) + static_cast<int>(work.column);
    if (column >= columns_left) return;
    for_staged_packs<Tile>(buffers, p.m - work.row, [&](int r, const auto& x) {
        if (g.target.adds) {
            store_pack(place_of_sums(p, work, work.row + r, work.column + column), x);
        } else {
            finish<false>(p.finish, share.step_memory.step(), x, 0, work.row + r, first + column, columns_left - column);
        }
    });
}

// ---- what to launch -------------------------------------------------------------------------------------------------

namespace {

template <class Tile, bool Turned, class Args> void convolve_by(const Context& context, const Plan& plan, const Args& args) {
    auto c = convolution_of<float>(args, plan.target);
    c.rows_of_tile = plan.rows_of_tile;
    multiply_by<Tile>(TILEFUSE_KERNEL(convolve_mma<Tile, Turned>), context, plan, Tile::shared_bytes, c, args);
}
template <class Tile> void queue_by(const Context& context, const Plan& plan, const tilefuse_conv2d_args& args) {
    convolve_by<Tile, false>(context, plan, args);
}
template <class Tile> void queue_by(const Context& context, const Plan& plan, const tilefuse_conv2d_backward_data_args& args) {
    convolve_by<Tile, true>(context, plan, args);
}
template <class Tile>
void queue_by(const Context& context, const Plan& plan, const tilefuse_conv2d_backward_weights_args& args) {
    const auto g = gradient_of<float>(args, plan.target);
    multiply_by<Tile>(TILEFUSE_KERNEL(weigh_mma<Tile>), context, plan, Tile::shared_bytes, g, args);
}

// body(Tile{}, plan).
template <class Args, class Body> void with_plan(const Args& args, Body&& body) {
    const Problem problem = problem_of(args);
    with_multiplier(args.precision, [&](auto multiplier) {
        with_mma_tile<decltype(multiplier)>(problem.extents, [&](auto tile) { body(tile, plan_of<decltype(tile)>(problem)); });
    });
}

}  // namespace

template <class Args> void convolve_on_matrix_units(const Context& context, const Args& args) {
    check_matrix_units("conv2d");
    with_plan(args, [&](auto tile, const Plan& plan) { queue_by<decltype(tile)>(context, plan, args); });
}
template <class Args> size_t workspace_on_matrix_units(const Args& args) {
    size_t bytes = 0;
    with_plan(args, [&](auto, const Plan& plan) { bytes = workspace_of<float>(plan); });
    return bytes;
}

template void convolve_on_matrix_units(const Context&, const tilefuse_conv2d_args&);
template void convolve_on_matrix_units(const Context&, const tilefuse_conv2d_backward_data_args&);
template void convolve_on_matrix_units(const Context&, const tilefuse_conv2d_backward_weights_args&);
template size_t workspace_on_matrix_units(const tilefuse_conv2d_args&);
template size_t workspace_on_matrix_units(const tilefuse_conv2d_backward_data_args&);
template size_t workspace_on_matrix_units(const tilefuse_conv2d_backward_weights_args&);

}  // namespace tilefuse::cuda::convolutions
