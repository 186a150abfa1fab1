// Convolution and its gradients, without an im2col: products (matmul_tile.h says how) whose operand A is the images
// themselves, found through tables (conv_plan.h), or copies of what a block of them reads. Forward and the gradient at x are in
// conv_pixels.h, the gradient at w in conv_weights.h; those of one tap are conv_product.h's, tiny ones conv_small.h's. Their
// elements are numbers, or pairs of bfloat16 numbers where there is an instruction for such.
#include "common/dtype.h"
#include "cpu/conv_pixels.h"
#include "cpu/conv_product.h"
#include "cpu/conv_small.h"
#include "cpu/conv_weights.h"
#include "cpu/kernels.h"

namespace tilefuse::inline TILEFUSE_ISA {
namespace {

// Whether it multiplies pairs, of channels or of images: not where every other one of a pair would be missing.
template <class Args> bool takes_pairs(const Args& args) {
    constexpr bool of_weights = std::is_same_v<Args, tilefuse_conv2d_backward_weights_args>;
    const tilefuse_conv2d_shape& s = args.shape;
    constexpr bool turned = std::is_same_v<Args, tilefuse_conv2d_backward_data_args>;
    const int64_t inputs = of_group(turned ? s.f : s.c, s.groups), outputs = of_group(turned ? s.c : s.f, s.groups);
    const bool halves = of_weights ? s.n > 1 : inputs % 2 == 0 || (s.groups == 1 && inputs > 4);
    return multiplies_pairs && args.dtype == TILEFUSE_FLOAT32 && args.precision == TILEFUSE_PRECISION_BFLOAT16 && halves &&
           !by_channels<float>(s, inputs, outputs) && pixels_of(s) > 0;
}

// One direction, in elements E.
template <class E, class Args> void convolve(Team& team, const Args& args) {
    const Direction<E> d = direction<E>(args);
    if (d.n == 0 || d.out_h == 0 || d.out_w == 0 || d.channels() == 0) return;
    Convolution<E>(d, team.scratch<char>(), team.shared<char>())(team);
}
template <class E> void convolve(Team& team, const tilefuse_conv2d_backward_weights_args& args) {
    if (args.shape.f > 0) WeightGradient<E>(args, team.scratch<char>(), team.shared<char>())(team);
}

// Of one that needs no memory.
template <class Args> Cost bare_cost(const Args& args) {
    Cost cost;
    cost.work = 2 * multiply_adds(args.shape);
    return cost;
}

template <class Plan, class Args> Cost cost_of(const Plan& plan, const Args& args) {
    Cost cost = bare_cost(args);
    cost.scratch = plan.scratch_size;
    cost.shared = plan.shared_size;
    return cost;
}
template <class E, class Args> Cost convolution_cost(const Args& args) {
    return cost_of(Convolution<E>(direction<E>(args), nullptr, nullptr), args);
}
template <class E> Cost convolution_cost(const tilefuse_conv2d_backward_weights_args& args) {
    return cost_of(WeightGradient<E>(args, nullptr, nullptr), args);
}

}  // namespace

#if defined(TILEFUSE_BASE_ISA)

// An instruction set that adds to another one has convolutions of pairs, and leaves the rest to that one.
#define TILEFUSE_OF_PAIRS(name)                                                \
    void name(Team& team, const tilefuse_##name##_args& args) {                \
        if (takes_pairs(args)) return convolve<Pair>(team, args);              \
        TILEFUSE_BASE_ISA::table().name.run(team, args);                       \
    }                                                                          \
    Cost name##_cost(const tilefuse_##name##_args& args) {                     \
        if (takes_pairs(args)) return convolution_cost<Pair>(args);            \
        return TILEFUSE_BASE_ISA::table().name.cost(args);                     \
    }
TILEFUSE_CONVOLUTIONS(TILEFUSE_OF_PAIRS)

#else

namespace {

// body(E{}) with the elements that such a convolution multiplies.
template <class Args, class Body> void by_element(const Args& args, const Body& body) {
    if constexpr (multiplies_pairs)
        if (takes_pairs(args)) return body(Pair{});
    by_dtype(args.dtype, body);
}

template <class Args> void run_small(Team& team, const Args& args) {
    if (team.rank == 0) by_dtype(args.dtype, [&](auto zero) { convolve_small<decltype(zero)>(args); });
}
template <class Args> void run_convolution(Team& team, const Args& args) {
    if (is_product(args)) return multiply_product(team, args);
    if (is_small(args)) return run_small(team, args);
    by_element(args, [&](auto zero) { convolve<decltype(zero)>(team, args); });
}
template <class Args> Cost cost_of_convolution(const Args& args) {
    if (is_product(args)) return product_cost(args);
    if (is_small(args)) return bare_cost(args);
    Cost cost;
    by_element(args, [&](auto zero) { cost = convolution_cost<decltype(zero)>(args); });
    return cost;
}

template <class T> void zero_gradients(Team& team, const tilefuse_conv2d_backward_weights_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    if (team.rank > 0 || args.rule) return;
    fill_zeros(static_cast<T*>(args.dw), taps_of(s) * (s.c / s.groups) * s.f);
    if (args.db) fill_zeros(static_cast<T*>(args.db), s.f);
}

}  // namespace

void conv2d(Team& team, const tilefuse_conv2d_args& args) { run_convolution(team, args); }
Cost conv2d_cost(const tilefuse_conv2d_args& args) { return cost_of_convolution(args); }

void conv2d_backward_data(Team& team, const tilefuse_conv2d_backward_data_args& args) { run_convolution(team, args); }
Cost conv2d_backward_data_cost(const tilefuse_conv2d_backward_data_args& args) { return cost_of_convolution(args); }

void conv2d_backward_weights(Team& team, const tilefuse_conv2d_backward_weights_args& args) {
    if (is_small(args)) {
        run_small(team, args);
        if (args.db) kernels().column_sum.run(team, bias_sum_of(args));
        return;
    }
    by_element(args, [&](auto zero) {
        using E = decltype(zero);
        if (pixels_of(args.shape) == 0) return zero_gradients<Sum<E>>(team, args);
        if (is_product(args)) return ProductGradient<Sum<E>>(args, team.scratch<char>(), team.shared<char>())(team);
        convolve<E>(team, args);
    });
}
Cost conv2d_backward_weights_cost(const tilefuse_conv2d_backward_weights_args& args) {
    if (pixels_of(args.shape) == 0 || is_small(args)) return bare_cost(args);
    Cost cost;
    by_element(args, [&](auto zero) {
        using E = decltype(zero);
        cost = is_product(args) ? cost_of(ProductGradient<Sum<E>>(args, nullptr, nullptr), args) : convolution_cost<E>(args);
    });
    return cost;
}

#endif

}  // namespace tilefuse::inline TILEFUSE_ISA
