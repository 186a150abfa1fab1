// Convolution and its gradients on matrix units (conv.cuh says which products they are; matmul_mma.cuh has the loop).
#include "cuda/conv.cuh"
#include "cuda/matmul_mma.cuh"

namespace tilefuse::cuda::convolutions {

// ---- operands -------------------------------------------------------------------------------------------------------

// Of images: the way of a unit of channels, or of one.
template <class Tile, int Width> class MmaImagePanel : public MmaPanel<Tile, Width> {
    using Base = MmaPanel<Tile, Width>;

public:
    using typename Base::Element;

protected:
    using Base::unit, Base::by_units_, Base::move, Base::move_element;

    __device__ __forceinline__ MmaImagePanel(const Images<float>& images, bool along, Reading by_packs)
        : Base(along, images.reading == by_packs), images_(images) {}

    __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x); }
    __device__ __forceinline__ int width() const { return by_units_ ? unit : 1; }

    __device__ __forceinline__ void move_channels(int i, Element* to, const Spot& spot) {
        if (Tile::direct && images_.argmax == nullptr) {
            const bool within = inside(images_, spot);
            move(i, to, within ? address(images_, spot) : images_.data, within ? unit : 0);
        } else {
            move(i, to, load_channels<unit>(images_, spot));
        }
    }
    __device__ __forceinline__ void move_channel(Element* to, const Spot& spot) {
        move_element(to, load_channels<1>(images_, spot).of[0]);
    }

    const Images<float>& images_;
};

// Rows are pixels, or columns of weights; k goes along taps and their channels.
template <class Tile, int Width> class MmaPixelsByTaps : public MmaImagePanel<Tile, Width> {
    using Base = MmaImagePanel<Tile, Width>;

public:
    using typename Base::Element;

    __device__ __forceinline__ MmaPixelsByTaps(const Images<float>& images, const StoredPixel* pixels, const int& step_h,
                                               const int& step_w, const int& taps_w, const int& channels,
                                               const Steps& steps, int64_t k, int left)
        : Base(images, true, Reading::packs_along_k), pixels_(pixels), first_(thread() % (depth / width()) * width()),
          along_(step_h, step_w, taps_w, channels, steps, k, left, first_, depth) {}

    __device__ __forceinline__ void copy(Element* buffer) {
        if (by_units_) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < units; ++i) {
                const int line = unit * index(i) / depth;
                move_channels(i, buffer + place(line, first_), along_.spot(load_pixel(pixels_ + line), 0));
            }
        } else {
            TILEFUSE_UNROLL(4)
            for (int i = 0; i < elements; ++i) {
                const int line = index(i) / depth;
                move_channel(buffer + place(line, first_), along_.spot(load_pixel(pixels_ + line), 0));
            }
        }
        along_.advance();
        along_.end_step(depth);
    }

private:
    using Base::unit, Base::units, Base::elements, Base::depth, Base::by_units_, Base::index, Base::place;
    using Base::thread, Base::width, Base::move_channels, Base::move_channel;

    const StoredPixel* const pixels_;
    const int first_;  // k
    AlongTaps<false> along_;
};

// Rows are taps and their channels; k goes along pixels.
template <class Tile, int Width> class MmaTapsByPixels : public MmaImagePanel<Tile, Width> {
    using Base = MmaImagePanel<Tile, Width>;

public:
    using typename Base::Element;

    template <class RowOf>
    __device__ __forceinline__ MmaTapsByPixels(const Images<float>& images, RowOf row_of, const int& stride_h,
                                               const int& stride_w, const int& out_h, const int& out_w,
                                               const Steps& steps, int64_t k, int left)
        : Base(images, false, Reading::packs_across), at_(thread() * width() % Width), first_(thread() * width() / Width),
          along_(row_of(at_), stride_h, stride_w, out_h, out_w, steps, k, left, first_, lines * width()) {}

    __device__ __forceinline__ void copy(Element* buffer) {
        if (by_units_) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < units; ++i) {
                const int ahead = lines * unit * i;
                move_channels(i, buffer + place(first_ + ahead, at_), along_.spot(images_, ahead));
                along_.advance();
            }
        } else {
            TILEFUSE_UNROLL(4)
            for (int i = 0; i < elements; ++i) {
                const int ahead = lines * i;
                move_channel(buffer + place(first_ + ahead, at_), along_.spot(images_, ahead));
                along_.advance();
            }
        }
        along_.end_step(depth);
    }

private:
    using Base::unit, Base::units, Base::elements, Base::depth, Base::threads, Base::by_units_, Base::place;
    using Base::thread, Base::width, Base::move_channels, Base::move_channel, Base::images_;
    static constexpr int lines = threads / Width;  // that all threads fill together, if each moves one element

    const int at_, first_;  // row, and k
    AlongPixels<false> along_;
};

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class Tile, bool Turned> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    convolve_mma(Product<float> p, Convolution<float> c) {
    using BlockShare = Assignment<Turned, Tile::rows, Tile::columns>;
    TILEFUSE_SHARED(BlockShare, share);
    typename Tile::Element* const buffers = dynamic_shared<typename Tile::Element>();
    share.template make<Tile>(p, c, Tile::depth);

    const Target& target = c.target;
    const Work& work = share.work;
    const Taps &h = share.h, &w = share.w;
    MmaPixelsByTaps<Tile, Tile::rows> a(c.images, share.pixels, h.step, w.step, w.count, c.inputs, share.steps, work.k,
                                        share.depth);
    MmaSums<Tile> sums = {};
    if constexpr (Turned) {
        MmaPixelsByTaps<Tile, Tile::columns> b(c.weights, share.columns, h.index_step, w.index_step, w.count, c.inputs,
                                               share.steps, work.k, share.depth);
        multiply_panels<Tile>(a, b, share.depth, buffers, sums, [] {});
    } else {
        MmaOperand<Tile, Tile::columns> b(c.matrix, share.weights(p, c.matrix), p.n - work.column, share.depth);
        multiply_panels<Tile>(a, b, share.depth, buffers, sums, [] {});
    }
    float* const staged = dynamic_shared<float>();
    stage_sums<Tile>(sums, staged);

    if (target.pools && !target.adds) {
        return pool_windows(p.finish, target, [&](int r, int at) { return staged + place_in_tile<Tile>(r, at); },
                            share.rows / target.window(), Tile::columns, Tile::threads, work.row / target.window(),
                            share.first_column, share.columns_left);
    }
    const int column = column_of_thread<Tile>(), columns_left = share.columns_left - column;
    if (columns_left <= 0) return;
    const auto bias = bias_of(p.finish, share.first_column + column, columns_left);
    for_staged_packs<Tile>(staged, share.rows, [&](int r, const auto& x) {
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
    typename Tile::Element* const buffers = dynamic_shared<typename Tile::Element>();
    share.template make<Tile>(p, g);

    constexpr int one = 1;
    const Work& work = share.work;
    const auto row_of_a = [&](int at) { return tap_row(p, g, work, at); };
    const auto row_of_b = [&](int at) { return tap_column(p, work, at); };
    MmaTapsByPixels<Tile, Tile::rows> a(g.x, row_of_a, g.h.stride, g.w.stride, g.out_h, g.out_w, share.steps_x, work.k,
                                        work.depth);
    MmaTapsByPixels<Tile, Tile::columns> b(g.dy, row_of_b, one, one, g.out_h, g.out_w, share.steps_dy, work.k, work.depth);
    MmaSums<Tile> sums = {};
    multiply_panels<Tile>(a, b, work.depth, buffers, sums, [] {});
    float* const staged = dynamic_shared<float>();
    stage_sums<Tile>(sums, staged);

    const int columns_left = static_cast<int>(p.n - work.column), column = column_of_thread<Tile>();
    const int first = first_column(p, g.target, static_cast<int>(work.product)) + static_cast<int>(work.column);
    if (column >= columns_left) return;
    for_staged_packs<Tile>(staged, p.m - work.row, [&](int r, const auto& x) {
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
    with_multiplier(args.precision, [&](auto multiplier, auto source) {
        with_mma_tile<decltype(multiplier), decltype(source)>(
            problem.extents, [&](auto tile) { body(tile, plan_of<decltype(tile)>(problem)); });
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
