// A convolution of one tap that takes all pixels as they lie is a product of matrices, [pixels, c] by [c, f]: matmul's.
// (Cascade Lake, one thread, five layers of ResNet-50 and MobileNet: 1.2 times as fast as by tiles of pixels, gradients at
// the weights 1.0 to 2.2 times.)
#pragma once

#include "cpu/conv_plan.h"
#include "cpu/cut.h"
#include "cpu/kernels.h"

namespace tilefuse::inline TILEFUSE_ISA {

inline int64_t pixels_of(const tilefuse_conv2d_shape& s) { return s.n * s.out_h * s.out_w; }

// (With bfloat16, convolutions have instructions of their own.)
inline bool is_product(const tilefuse_conv2d_shape& s, tilefuse_precision precision) {
    const bool one_tap = s.kernel_h == 1 && s.kernel_w == 1 && s.pad_top == 0 && s.pad_left == 0;
    const bool all_pixels = s.stride_h == 1 && s.stride_w == 1 && s.out_h == s.h && s.out_w == s.w;
    return one_tap && all_pixels && s.groups == 1 && precision != TILEFUSE_PRECISION_BFLOAT16;
}
inline bool is_product(const tilefuse_conv2d_args& args) {
    return is_product(args.shape, args.precision) && args.pool.height == 0;
}
inline bool is_product(const tilefuse_conv2d_backward_data_args& args) {
    return is_product(args.shape, args.precision) && args.argmax == nullptr;
}
// Not with so few filters that turned round (conv_weights.h) they fill vectors twice as well. (Cascade Lake, two threads and one,
// 8 x 28 x 28, from channels to filters, us, by tiles of pixels and as products: 256 to 4 372 and 556, 628 and 1094; 96 to 8 189
// and 185, 324 and 366; 64 to 20 242 and 195, 363 and 333; 8 to 8 71 and 40, 98 and 60; 16 to 24 109 and 66, 159 and 112.)
inline bool is_product(const tilefuse_conv2d_backward_weights_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    const bool filled = s.c * vectors_of<float>(s.f) < 2 * s.f * vectors_of<float>(s.c);
    return is_product(s, args.precision) && args.argmax == nullptr && filled;
}

inline tilefuse_matmul_args product_of(const tilefuse_conv2d_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    tilefuse_matmul_args product{};
    product.dtype = args.dtype, product.precision = args.precision;
    product.m = pixels_of(s), product.n = s.f, product.k = s.c;
    product.a = args.x, product.a_row_stride = s.c, product.a_col_stride = 1;
    product.b = args.w, product.b_row_stride = s.f, product.b_col_stride = 1;
    product.c = args.y, product.c_row_stride = s.f;
    product.epilogue = args.epilogue;
    return product;
}

inline tilefuse_matmul_args product_of(const tilefuse_conv2d_backward_data_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    tilefuse_matmul_args product{};
    product.dtype = args.dtype, product.precision = args.precision;
    product.m = pixels_of(s), product.n = s.c, product.k = s.f;
    product.a = args.dy, product.a_row_stride = s.f, product.a_col_stride = 1;
    product.b = args.w, product.b_row_stride = 1, product.b_col_stride = s.f;
    product.c = args.dx, product.c_row_stride = s.c;
    product.epilogue = args.epilogue;
    return product;
}

template <class Args> Cost product_cost(const Args& args) { return kernels().matmul.cost(product_of(args)); }
template <class Args> void multiply_product(Team& team, const Args& args) { kernels().matmul.run(team, product_of(args)); }

inline tilefuse_column_sum_args bias_sum_of(const tilefuse_conv2d_backward_weights_args& args) {
    return {.dtype = args.dtype, .m = pixels_of(args.shape), .n = args.shape.f, .x = args.dy, .y = args.db, .rule = args.rule,
            .parameter = args.bias};
}

// The gradient at the weights, [c, f], adds up over all pixels. Where there are many pixels for few sums, it does so in slices,
// which members share out, so that none reads what another one does; or each is multiplied by all members, where they are
// too many for that. (Cascade Lake, two threads, all members together and slices shared out, ms: 8 x 28 x 28, 512 to 128 8.1 and
// 4.9; 8 x 56 x 56, 256 to 64 7.0 and 4.5, 64 to 64 2.4 and 1.5, 128 to 128 6.4 and 4.9.)
template <class T> class ProductGradient {
public:
    ProductGradient(const tilefuse_conv2d_backward_weights_args& args, void* scratch, void* shared)
        : args_(args), count_(args.shape.c * args.shape.f), slices_(slices_of(pixels_of(args.shape), count_)) {
        Cost cost = kernels().column_sum.cost(bias_sum_of(args));
        const auto include = [&](int64_t pixels) {
            const Cost product = kernels().matmul.cost(product_of_pixels(0, pixels, nullptr));
            cost.scratch = std::max(cost.scratch, product.scratch);
            cost.shared = std::max(cost.shared, product.shared);
        };
        include(slices_.largest());
        if (slices_.smallest() < slices_.largest()) include(slices_.smallest());
        Cut mine(scratch), ours(shared);
        scratch_ = mine.take<char>(static_cast<int64_t>(cost.scratch));
        shared_of_one_ = mine.take<char>(sliced() ? static_cast<int64_t>(cost.shared) : 0);
        ours.take<char>(static_cast<int64_t>(cost.shared));  // matmul's
        sums_ = ours.take<T>(sliced() || args.rule ? slices_.count * count_ : 0);
        bias_sums_ = ours.take<T>(sliced() && has_bias() ? slices_.count * args.shape.f : 0);
        scratch_size = mine.size();
        shared_size = ours.size();
    }

    void operator()(Team& team) const {
        if (!sliced()) {
            kernels().matmul.run(team, product_of_pixels(0, pixels_of(args_.shape), args_.rule ? sums_ : args_.dw));
            if (has_bias()) kernels().column_sum.run(team, bias_sum_of(args_));
            if (args_.rule == nullptr) return;
        } else if (const int64_t most = (slices_.count + team.size - 1) / team.size; 4 * most * team.size <= 5 * slices_.count) {
            Team alone(0, 1, nullptr, scratch_, shared_of_one_);
            const Range mine = team.range(slices_.count);
            for (int64_t slice = mine.begin; slice < mine.end; ++slice) add_slice(alone, slice);
        } else {
            for (int64_t slice = 0; slice < slices_.count; ++slice) add_slice(team, slice);
        }
        team.barrier();
        finish_slices(team, count_, slices_.count, sums_, args_.rule, args_.kernel, args_.dw);
        if (sliced() && has_bias())
            finish_slices(team, args_.shape.f, slices_.count, bias_sums_, args_.rule, args_.bias, args_.db);
    }

    size_t scratch_size, shared_size;

private:
    static Parts slices_of(int64_t pixels, int64_t sums) {
        constexpr int64_t depth_least = 512;  // so that what is left to add is little beside the products
        const int64_t slices = slices_of_sums<T>(sums, pixels / depth_least);
        return Parts(pixels, (pixels + slices - 1) / slices);
    }
    bool sliced() const { return slices_.count > 1; }
    bool has_bias() const { return args_.rule ? args_.bias.w != nullptr : args_.db != nullptr; }

    void add_slice(Team& team, int64_t slice) const {
        const int64_t begin = slices_.begin(slice), end = slices_.begin(slice + 1), f = args_.shape.f;
        kernels().matmul.run(team, product_of_pixels(begin, end, sums_ + slice * count_));
        if (!has_bias()) return;
        kernels().column_sum.run(team, {.dtype = args_.dtype, .m = end - begin, .n = f,
                                        .x = static_cast<const T*>(args_.dy) + begin * f, .y = bias_sums_ + slice * f,
                                        .rule = nullptr, .parameter = {}});
    }

    tilefuse_matmul_args product_of_pixels(int64_t begin, int64_t end, void* sums) const {
        const tilefuse_conv2d_shape& s = args_.shape;
        tilefuse_matmul_args product{};
        product.dtype = args_.dtype, product.precision = args_.precision;
        product.m = s.c, product.n = s.f, product.k = end - begin;
        product.a = static_cast<const T*>(args_.x) + begin * s.c, product.a_row_stride = 1, product.a_col_stride = s.c;
        product.b = static_cast<const T*>(args_.dy) + begin * s.f, product.b_row_stride = s.f, product.b_col_stride = 1;
        product.c = sums, product.c_row_stride = s.f;
        return product;
    }

    const tilefuse_conv2d_backward_weights_args& args_;
    const int64_t count_;
    const Parts slices_;
    char *scratch_, *shared_of_one_;
    T *sums_, *bias_sums_;  // of each slice
};

}  // namespace tilefuse::inline TILEFUSE_ISA
