// Winograd's minimal filtering F(2 x 2, 3 x 3): a window of 2 x 2 pixels of a 3 x 3 convolution, 36 multiply-adds for each
// input and output channel, from 16. What a window reads and the filters are transformed to 16 points each; at each point
// there is a product of matrices, [windows, inputs] by [inputs, outputs]; sums of the points are the pixels. The transforms
// have the factors 1 and 1/2, so that small integers stay exact. The error by norm, against multiply-adds', of normal numbers:
// 0.8 with 64 channels, 1.7 with 256, 2.1 with 512; of gradients 0.8 to 1.05.
// Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1.
#pragma once

#include "cpu/conv_plan.h"

namespace tilefuse::inline TILEFUSE_ISA {

constexpr int winograd_points = 16;

// Whether one axis is such as windows are made for.
inline bool winograd_fits(int64_t kernel, int64_t stride, int64_t dilation) {
    return kernel == 3 && stride == 1 && dilation == 1;
}

// Windows that are transformed together: so that their points stay in L2 (256 KB), and at least some strips of tiles.
inline int64_t windows_together(int64_t inputs) {
    constexpr int64_t numbers = 4096, strip = 12;
    return std::clamp<int64_t>(numbers / std::max<int64_t>(1, inputs) / strip, 3, 10) * strip;
}

// Whether the transforms pay, for so many windows of which the image has so many taps. In cycles of two multiply-adds of
// vectors: a window takes products, and so many cycles for each vector of channels and `window`; all points, `passes` times,
// two or ten a vector as they fit in L2. (Two cores, Zen 5, 40 shapes: of those chosen 2 are slower than without, by 5 %
// and by 20 %; the median is 1.4 times as fast.)
template <class T>
bool winograd_pays(const tilefuse_conv2d_shape& s, double windows, double inside, int64_t inputs, int64_t outputs,
                   double of_input, double of_output, double window, double passes) {
    constexpr double step = 2 * lanes<T>, sure = 0.9;
    const double columns = static_cast<double>(vectors_of<T>(outputs) * lanes<T>),
                 channels = static_cast<double>(inputs) * columns;
    const double points = winograd_points * channels / lanes<T>;
    const double each = winograd_points * channels / step + of_input * static_cast<double>(inputs) / lanes<T> +
                        of_output * static_cast<double>(outputs) / lanes<T> + window;
    return s.groups == 1 && winograd_fits(s.kernel_h, s.stride_h, s.dilation_h) &&
           winograd_fits(s.kernel_w, s.stride_w, s.dilation_w) &&
           windows * each + passes * points * (points * TILEFUSE_VECTOR_BYTES > 1 << 20 ? 10 : 2) <
               sure * inside * channels / step;
}

// Pixels [size, size] of an image from (top, left) on; `zeros` stands for those outside of [h, w], which is as much of the
// image as any output reads: a window's last row or column may be of no use to the outputs that there are.
template <int Size, class T>
void window_pixels(const T* image, int64_t row_pitch, int64_t pixel, int64_t h, int64_t w, int64_t top, int64_t left,
                   const T* zeros, const T* (&pixels)[Size][Size]) {
    for (int64_t i = 0; i < Size; ++i)
        for (int64_t j = 0; j < Size; ++j) {
            const bool inside = top + i >= 0 && top + i < h && left + j >= 0 && left + j < w;
            pixels[i][j] = inside ? image + (top + i) * row_pitch + (left + j) * pixel : zeros;
        }
}

// A 2-D transform is one of the columns, then of the rows.
template <int From, int To, class V, class Transform>
[[gnu::always_inline]] inline void transform_both(const V (&in)[From][From], V (&out)[To][To], const Transform& transform) {
    V columns[To][From];
#pragma GCC unroll 4
    for (int j = 0; j < From; ++j) {
        V from[From], to[To];
#pragma GCC unroll 4
        for (int i = 0; i < From; ++i) from[i] = in[i][j];
        transform(from, to);
#pragma GCC unroll 4
        for (int i = 0; i < To; ++i) columns[i][j] = to[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < To; ++i) transform(columns[i], out[i]);
}

// square[i][j] = the first n lanes at `at(i, j)`
template <int Size, class V, class At>
[[gnu::always_inline]] inline void load_square(const At& at, V (&square)[Size][Size], int n) {
#pragma GCC unroll 4
    for (int i = 0; i < Size; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < Size; ++j) square[i][j] = load_upto(at(i, j), n);
}

// to[point] = the first n lanes of a vector of each point
template <class T>
[[gnu::always_inline]] inline void store_points(const Vec<T> (&points)[4][4], T* to, int64_t pitch, int n) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store_upto(to + (4 * i + j) * pitch, points[i][j], n);
}

// A product of matrices at one point, in strips of rows: of A, `a_step` from row to row, and of C.
template <class T> void multiply_strips(From from, int64_t rows, int64_t a_step, int vectors, TileArgs<T> tile) {
    const T* const a = tile.a;
    T* const c = tile.c;
    const Parts strips(rows, max_rows(vectors));
    for (int64_t strip = 0; strip < strips.count; ++strip) {
        const int64_t first = strips.begin(strip);
        tile.a = a + first * a_step;
        tile.c = c + first * tile.c_stride;
        Tiles<T>::all.of[static_cast<int>(from)][vectors - 1][strips.begin(strip + 1) - first - 1](tile);
    }
}

// to[point] = the points of the 4 x 4 pixels at `from`, `pitch` apart
template <class T> void winograd_inputs(const T* const (&from)[4][4], int64_t channels, T* to, int64_t pitch) {
    for_vectors<T>(channels, [&](int64_t k, int n) {
        Vec<T> pixels[4][4], points[4][4];
        load_square([&](int i, int j) { return from[i][j] + k; }, pixels, n);
        transform_both(pixels, points, [](const Vec<T>(&d)[4], Vec<T>(&v)[4]) __attribute__((always_inline)) {
            v[0] = d[0] - d[2], v[1] = d[1] + d[2], v[2] = d[2] - d[1], v[3] = d[1] - d[3];
        });
        store_points<T>(points, to + k, pitch, n);
    });
}

// to[point] = the points of filters, whose taps [3, 3] are `tap_pitch` apart
template <class T> void winograd_filters(const T* taps, int64_t tap_pitch, int64_t count, T* to, int64_t pitch) {
    for_vectors<T>(count, [&](int64_t k, int n) {
        Vec<T> filter[3][3], points[4][4];
        load_square([&](int i, int j) { return taps + (3 * i + j) * tap_pitch + k; }, filter, n);
        transform_both(filter, points, [](const Vec<T>(&g)[3], Vec<T>(&u)[4]) __attribute__((always_inline)) {
            const Vec<T> ends = (g[0] + g[2]) * T(0.5), middle = g[1] * T(0.5);
            u[0] = g[0], u[1] = ends + middle, u[2] = ends - middle, u[3] = g[2];
        });
        store_points<T>(points, to + k, pitch, n);
    });
}

// to[point] = the points of a gradient at 2 x 2 pixels: the transposed transform of the pixels'
template <class T> void winograd_gradients(const T* const (&from)[2][2], int64_t channels, T* to, int64_t pitch) {
    for_vectors<T>(channels, [&](int64_t k, int n) {
        Vec<T> pixels[2][2], points[4][4];
        load_square([&](int i, int j) { return from[i][j] + k; }, pixels, n);
        transform_both(pixels, points, [](const Vec<T>(&y)[2], Vec<T>(&m)[4]) __attribute__((always_inline)) {
            m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[0] - y[1], m[3] = -y[1];
        });
        store_points<T>(points, to + k, pitch, n);
    });
}

// The gradient at the filters from that at their points: the transposed transform of theirs.
template <class T>
[[gnu::always_inline]] inline void winograd_filter_gradient(const Vec<T> (&points)[4][4], Vec<T> (&filter)[3][3]) {
    transform_both(points, filter, [](const Vec<T>(&u)[4], Vec<T>(&g)[3]) __attribute__((always_inline)) {
        const Vec<T> both = (u[1] + u[2]) * T(0.5);
        g[0] = u[0] + both, g[1] = (u[1] - u[2]) * T(0.5), g[2] = both + u[3];
    });
}

// The 2 x 2 pixels of points that are `pitch` apart; to[i][j] is nullptr where there is none. Returns whether all are finite.
template <class T> bool winograd_outputs(const T* points, int64_t pitch, int64_t channels, T* const (&to)[2][2]) {
    Vec<T> spoiled{};
    for_vectors<T>(channels, [&](int64_t k, int n) {
        Vec<T> sums[4][4], pixels[2][2];
        load_square([&](int i, int j) { return points + (4 * i + j) * pitch + k; }, sums, n);
        transform_both(sums, pixels, [](const Vec<T>(&m)[4], Vec<T>(&y)[2]) __attribute__((always_inline)) {
            y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
        });
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i)
#pragma GCC unroll 2
            for (int j = 0; j < 2; ++j) {
                spoiled += pixels[i][j] - pixels[i][j];  // NaN of infinity and NaN
                if (to[i][j]) store_upto(to[i][j] + k, pixels[i][j], n);
            }
    });
    return sum<T>(spoiled) == 0;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
