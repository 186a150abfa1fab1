// Convolutions so small that a plan (conv_plan.h) would take longer than the sums themselves: the loops of the definition, run
// by one member.
#pragma once

#include "cpu/conv_plan.h"
#include "cpu/matmul_epilogue.h"

namespace tilefuse::inline TILEFUSE_ISA {

// So many multiply-adds. (Cascade Lake, forward, dx and dw with a plan and without, us: 72 multiply-adds 2.5 and 0.8, 4.7 and
// 0.9, 1.9 and 0.9; 288 3.0 and 1.8, 5.8 and 1.7, 2.4 and 1.4; 576 3.1 and 1.2, 5.1 and 2.1, 2.0 and 2.1.)
constexpr double small_most = 512;

inline bool is_small(const tilefuse_conv2d_shape& s) {
    const double count = multiply_adds(s);
    return count > 0 && count <= small_most && product(s.n * s.h, s.w) * static_cast<double>(s.c) <= 16 * small_most;
}
template <class Args> bool is_small(const Args& args) {
    const bool plain = args.precision != TILEFUSE_PRECISION_BFLOAT16 && args.pool.height == 0 && args.argmax == nullptr;
    if constexpr (requires { args.rule; })
        if (args.rule) return false;
    return plain && is_small(args.shape);
}

inline bool inside(int64_t at, int64_t size) { return static_cast<uint64_t>(at) < static_cast<uint64_t>(size); }

// body(pixel of x, tap) for those that pixel (n, i, j) of y reads.
template <class Body> void for_taps_of(const tilefuse_conv2d_shape& s, int64_t n, int64_t i, int64_t j, const Body& body) {
    for (int64_t p = 0, row = i * s.stride_h - s.pad_top; p < s.kernel_h; ++p, row += s.dilation_h)
        for (int64_t q = 0, col = j * s.stride_w - s.pad_left; q < s.kernel_w && inside(row, s.h); ++q, col += s.dilation_w)
            if (inside(col, s.w)) body((n * s.h + row) * s.w + col, p * s.kernel_w + q);
}

// body(pixel of x, pixel of y) for those that meet at tap (p, q). (Inlined, a fifth of dw's time is saved.)
template <class Body>
[[gnu::always_inline]] inline void for_pixels_at(const tilefuse_conv2d_shape& s, int64_t p, int64_t q, const Body& body) {
    for (int64_t n = 0; n < s.n; ++n)
        for (int64_t i = 0, row = p * s.dilation_h - s.pad_top; i < s.out_h; ++i, row += s.stride_h)
            for (int64_t j = 0, col = q * s.dilation_w - s.pad_left; j < s.out_w && inside(row, s.h); ++j, col += s.stride_w)
                if (inside(col, s.w)) body((n * s.h + row) * s.w + col, (n * s.out_h + i) * s.out_w + j);
}

template <class T> void convolve_small(const tilefuse_conv2d_args& args) {
    const tilefuse_conv2d_shape s = planned(args.shape);
    const int64_t inputs = of_group(s.c, s.groups), outputs = of_group(s.f, s.groups);
    const T *const x = static_cast<const T*>(args.x), *const w = static_cast<const T*>(args.w);
    T* y = static_cast<T*>(args.y);
    for (int64_t n = 0; n < s.n; ++n)
        for (int64_t i = 0; i < s.out_h; ++i)
            for (int64_t j = 0; j < s.out_w; ++j, y += s.f)
                for (int64_t group = 0; group < s.groups; ++group)
                    for_vectors<T>(outputs, [&](int64_t k, int count) {
                        const int64_t f = group * outputs + k;
                        Vec<T> total{};
                        for_taps_of(s, n, i, j, [&](int64_t from, int64_t tap) {
                            const T *const of_x = x + from * s.c + group * inputs, *const of_w = w + tap * inputs * s.f + f;
                            for (int64_t a = 0; a < inputs; ++a) total += splat(of_x[a]) * load_upto(of_w + a * s.f, count);
                        });
                        store_upto(y + f, total, count);
                    });
    Epilogue<T>(args.epilogue, s.f, s.f)(static_cast<T*>(args.y), s.f, 0, 0, 0, s.n * s.out_h * s.out_w, s.f);
}

// body(row and column of a tap, group, input channel of the group): the weights of the group's filters there lie together.
template <class Body> void for_weights_of(const tilefuse_conv2d_shape& s, const Body& body) {
    const int64_t inputs = of_group(s.c, s.groups);
    for (int64_t p = 0; p < s.kernel_h; ++p)
        for (int64_t q = 0; q < s.kernel_w; ++q)
            for (int64_t group = 0; group < s.groups; ++group)
                for (int64_t a = 0; a < inputs; ++a) body(p, q, group, a);
}

template <class T> void convolve_small(const tilefuse_conv2d_backward_data_args& args) {
    const tilefuse_conv2d_shape s = planned(args.shape);
    const int64_t inputs = of_group(s.c, s.groups), outputs = of_group(s.f, s.groups);
    T* const dx = static_cast<T*>(args.dx);
    fill_zeros(dx, s.n * s.h * s.w * s.c);
    for_weights_of(s, [&](int64_t p, int64_t q, int64_t group, int64_t a) {
        const T* const dy = static_cast<const T*>(args.dy) + group * outputs;
        const T* const w = static_cast<const T*>(args.w) + ((p * s.kernel_w + q) * inputs + a) * s.f + group * outputs;
        T* const sums = dx + group * inputs + a;
        for_pixels_at(s, p, q, [&](int64_t to, int64_t from) {
            T total{};
            const T* const of_pixel = dy + from * s.f;
            for (int64_t k = 0; k < outputs; ++k) {
                total += of_pixel[k] * w[k];
                asm volatile("");  // no vectors, which would cost more than so few sums
            }
            sums[to * s.c] += total;
        });
    });
    Epilogue<T>(args.epilogue, s.c, s.c)(dx, s.c, 0, 0, 0, s.n * s.h * s.w, s.c);
}

template <class T> void convolve_small(const tilefuse_conv2d_backward_weights_args& args) {
    const tilefuse_conv2d_shape s = planned(args.shape);
    const int64_t inputs = of_group(s.c, s.groups), outputs = of_group(s.f, s.groups);
    T* const dw = static_cast<T*>(args.dw);
    for_weights_of(s, [&](int64_t p, int64_t q, int64_t group, int64_t a) {
        const T* const x = static_cast<const T*>(args.x) + group * inputs + a;
        const T* const dy = static_cast<const T*>(args.dy) + group * outputs;
        T* const to = dw + ((p * s.kernel_w + q) * inputs + a) * s.f + group * outputs;
        for_vectors<T>(outputs, [&](int64_t k, int count) {
            Vec<T> total{};
            for_pixels_at(s, p, q, [&](int64_t of_x, int64_t of_y) __attribute__((always_inline)) {
                total += splat(x[of_x * s.c]) * load_upto(dy + of_y * s.f + k, count);
            });
            store_upto(to + k, total, count);
        });
    });
}

}  // namespace tilefuse::inline TILEFUSE_ISA
