// Convolution with each output channel by itself, many at a time: depthwise, or in groups too small to fill vectors.
// Neighbouring pixels of a row meet the same pixels of the image: a tile loads each of these once, and multiplies it with all
// the taps of a row that it meets. (A load across two lines of the cache takes as long as two, and arrays seldom begin where a
// line does. Cascade Lake, one thread, GFLOP/s with a load for each multiply-add and so: 7 x 7, 203 channels: 23 and 43; 6 x 6,
// 159 channels: 17 and 28; gradients of the weights of 3 x 3, 56 x 56 x 128: 11 and 19.)
#pragma once

#include <numeric>

#include "common/math.h"
#include "cpu/conv_tile.h"
#include "cpu/cut.h"
#include "cpu/matmul_pack.h"
#include "cpu/team.h"
#include "tilefuse/conv.h"

namespace tilefuse::inline TILEFUSE_ISA {

// Which input channels a vector of output channels takes: input number a of each one's group, after one load and a shuffle.
template <class T> struct GroupChannels {
    int64_t groups, inputs, outputs;  // of each group
    // Of each vector: the first channel that it takes, how many may be loaded from there, and where each lane's first one is.
    int64_t* first = nullptr;
    int* taken = nullptr;
    Integers<Vec<T>>* places = nullptr;

    bool is_depthwise() const { return inputs == 1 && outputs == 1; }
    int64_t vectors() const { return vectors_of<T>(groups * outputs); }
    // How many channels a vector takes at most.
    int64_t span() const {
        const int64_t met = lanes<T> % outputs == 0 ? lanes<T> / outputs : (lanes<T> + outputs - 2) / outputs + 1;
        return std::min(groups, met) * inputs;
    }

    // With memory for the vectors.
    void prepare() {
        for (int64_t v = 0; v < vectors(); ++v) {
            first[v] = v * lanes<T> / outputs * inputs;
            taken[v] = static_cast<int>(std::min<int64_t>(lanes<T>, groups * inputs - first[v]));
            for (int lane = 0; lane < lanes<T>; ++lane) {
                const int64_t output = std::min(v * lanes<T> + lane, groups * outputs - 1);
                places[v][lane] = static_cast<Integers<T>>(output / outputs * inputs - first[v]);
            }
        }
    }
};

template <class T> void take_group_channels(Cut& cut, GroupChannels<T>& of_groups) {
    of_groups.first = cut.take<int64_t>(of_groups.vectors());
    of_groups.taken = cut.take<int>(of_groups.vectors());
    of_groups.places = cut.take<Integers<Vec<T>>>(of_groups.vectors());
}

// Whether output channels are best taken by themselves: depthwise, or where a vector takes no more channels than it has lanes
// and groups leave much of vectors empty otherwise. Counted in multiply-adds of vectors, of which these need more loads, and
// shuffles. (Zen 4, two threads, 3 x 3, ms group by group and so, forward and dw: 8 x 14 x 14 x 256 in 32 groups 0.60 and 0.40,
// 0.71 and 0.48; 16 x 30 x 30 x 32 in 4 groups 0.64 and 0.39, 0.67 and 0.39; 16 x 30 x 30 x 16 in 8 groups 0.61 and 0.12, 0.41
// and 0.06.)
template <class T> bool by_channels(const tilefuse_conv2d_shape& s, int64_t inputs, int64_t outputs) {
    if (s.groups <= 1 || inputs == 0 || outputs == 0) return false;
    const GroupChannels<T> channels{s.groups, inputs, outputs};
    if (channels.is_depthwise()) return true;
    constexpr bool shuffles = TILEFUSE_VECTOR_BYTES >= 32;  // in an instruction
    constexpr double slower = 1.5;
    return shuffles && channels.span() <= lanes<T> &&
           slower * static_cast<double>(channels.vectors()) < static_cast<double>(s.groups * vectors_of<T>(outputs));
}

// Tiles have so many taps of a row of them at the most, more take turns; and 1, 2, 4 or 8 pixels. (Fewer in float64, which
// networks seldom have: each kind of tile takes its time to compile.)
template <class T> constexpr int depthwise_taps = std::is_same_v<T, float> ? 7 : 3;
constexpr int depthwise_pixels_log = 3, depthwise_pixels = 1 << depthwise_pixels_log;
// Pixels share what they meet if their strides, by the taps' distance, are at most this.
constexpr int depthwise_strides = 2;

// How neighbouring pixels of a row share what they meet: those that are `apart`, and so many taps from one to the next.
struct DepthwiseSharing {
    DepthwiseSharing(int64_t pixel_pitch, int64_t tap_pitch) {
        const int64_t common = std::gcd(pixel_pitch, tap_pitch);
        apart = tap_pitch / common;
        stride = pixel_pitch / common;
    }
    int64_t apart, stride;
};

// Pixels of a row: y[pixel, channel] = the sum over taps and inputs of x[pixel, tap, the group's input] w[tap, input, channel],
// or that is added.
template <class T> struct DepthwiseRow {
    const GroupChannels<T>* of_groups;  // none: depthwise
    Range channels;                               // those of y, from a whole vector on
    int64_t tap_rows, taps;                       // taps of each row
    int64_t row_pitch, tap_pitch, pixel_pitch;    // of x, from tap to tap and from pixel to pixel
    int64_t w_row_pitch, w_pitch, w_input_pitch;  // from tap to tap and from input to input; whole vectors
    int64_t y_pitch;
    const T *x, *w;
    T* y;
    bool accumulate = false;
};

// What a vector of output channels takes of a pixel.
template <class T, bool Selects> struct DepthwiseInput {
    DepthwiseInput(const GroupChannels<T>* of_groups, int64_t k, int n) : taken(n), first(k) {
        if constexpr (Selects) {
            const int64_t vector = k / lanes<T>;
            inputs = of_groups->inputs, first = of_groups->first[vector], taken = of_groups->taken[vector];
            places = of_groups->places[vector];
        }
    }
    [[gnu::always_inline]] Vec<T> operator()(const T* pixel, int count) const {
        const Vec<T> value = load_upto(pixel, count);
        if constexpr (Selects) return __builtin_shuffle(value, places);
        return value;
    }
    void next() { places += 1; }  // input

    int64_t inputs = 1;
    int taken;
    int64_t first;
    Integers<Vec<T>> places{};
};

// What the next tile will be the first to read and write.
template <int Pixels, class T>
[[gnu::always_inline]] inline void prefetch_depthwise(const DepthwiseRow<T>& row, int64_t first, int64_t k) {
    const T* x = row.x + first + (row.tap_rows - 1) * row.row_pitch + (row.taps - 1) * row.tap_pitch + Pixels * row.pixel_pitch;
    const T* y = row.y + k + Pixels * row.y_pitch;
#pragma GCC unroll 8
    for (int i = 0; i < Pixels; ++i) {
        __builtin_prefetch(x + i * row.pixel_pitch);
        __builtin_prefetch(y + i * row.y_pitch, 1);
    }
}

// body(k, n, input, count) for each vector of n output channels, from k on, which may load `count` input channels.
template <class T, bool Selects, class Body> void for_depthwise_vectors(const DepthwiseRow<T>& row, const Body& body) {
    for_vectors<T>(row.channels.end - row.channels.begin, [&](int64_t i, int n) {
        const int64_t k = row.channels.begin + i;
        const DepthwiseInput<T, Selects> input(row.of_groups, k, n);
        if (Selects && input.taken == lanes<T>) {
            body(k, n, input, lanes<T>);
        } else {
            body(k, n, input, input.taken);
        }
    });
}

// Stride: of the pixels, in taps.
template <class T, bool Selects, int Pixels, int Stride, int Taps> void depthwise_tile(const DepthwiseRow<T>& row) {
    for_depthwise_vectors<T, Selects>(row, [&](int64_t k, int n, auto input, int count) __attribute__((always_inline)) {
        Vec<T> sums[Pixels][1] = {};
        prefetch_depthwise<Pixels>(row, input.first, k);
        for (int64_t a = 0; a < input.inputs; ++a, input.next()) {
            const T *x = row.x + input.first, *w = row.w + a * row.w_input_pitch + k;
            for (int64_t p = 0; p < row.tap_rows; ++p, x += row.row_pitch, w += row.w_row_pitch) {
                Vec<T> weights[Taps];
#pragma GCC unroll 8
                for (int q = 0; q < Taps; ++q) weights[q] = load(w + q * row.w_pitch);
                constexpr int met = (Pixels - 1) * Stride + Taps;
                const Lines<T, met> at(x, row.tap_pitch);
#pragma GCC unroll 32
                for (int m = 0; m < met; ++m) {
                    const Vec<T> value = input(at[m], count);
#pragma GCC unroll 8
                    for (int i = 0; i < Pixels; ++i) {
                        const int q = m - i * Stride;
                        if (q >= 0 && q < Taps) sums[i][0] += value * weights[q];
                    }
                }
            }
        }
        write_tile<T, Pixels, 1>(sums, row.y + k, [&](int i) { return i * row.y_pitch; }, row.accumulate, n);
    });
}

// Any stride: nothing is shared.
template <class T, bool Selects, int Pixels> void depthwise_tile_apart(const DepthwiseRow<T>& row) {
    for_depthwise_vectors<T, Selects>(row, [&](int64_t k, int n, auto input, int count) __attribute__((always_inline)) {
        Vec<T> sums[Pixels][1] = {};
        prefetch_depthwise<Pixels>(row, input.first, k);
        for (int64_t a = 0; a < input.inputs; ++a, input.next())
            for (int64_t p = 0; p < row.tap_rows; ++p)
                for (int64_t q = 0; q < row.taps; ++q) {
                    const Vec<T> weights = load(row.w + p * row.w_row_pitch + q * row.w_pitch + a * row.w_input_pitch + k);
                    const Lines<T, Pixels> at(row.x + p * row.row_pitch + q * row.tap_pitch + input.first, row.pixel_pitch);
#pragma GCC unroll 8
                    for (int i = 0; i < Pixels; ++i) sums[i][0] += input(at[i], count) * weights;
                }
        write_tile<T, Pixels, 1>(sums, row.y + k, [&](int i) { return i * row.y_pitch; }, row.accumulate, n);
    });
}

// The gradient at the weights of some taps and one vector of channels: dw[tap, channel] += the sum over pixels of
// x[pixel, tap, the group's input] dy[pixel, channel], of an input.
template <class T> struct DepthwiseGradient {
    const GroupChannels<T>* of_groups;  // none: depthwise
    int64_t images, rows, cols;  // the pixels
    int64_t x_image_pitch, x_row_pitch, pixel_pitch;
    int64_t row_pitch, tap_pitch;  // of x, from tap to tap
    int64_t dy_image_pitch, dy_row_pitch, dy_pitch;
    int64_t w_row_pitch, w_pitch, w_input_pitch;
    const T *x, *dy;
    T* dw;
    int64_t first = 0, input = 0;  // output channel, and input of its group
    int channels = 0;
};

// As many sums as there are registers for. (Pixels share what they meet: with several rows of taps, dy too.)
constexpr int depthwise_sums = TILEFUSE_VECTOR_BYTES == 64 ? 21 : 12;
constexpr int most_depthwise_rows = 7;
constexpr int depthwise_rows(int taps) { return std::min(taps == 1 ? most_depthwise_rows : 4, depthwise_sums / taps); }

template <class T, bool Selects, int Stride, int Taps, int Rows> void depthwise_gradient_tile(const DepthwiseGradient<T>& t) {
    Vec<T> sums[Rows * Taps][1] = {};
    DepthwiseInput<T, Selects> input(t.of_groups, t.first, t.channels);
    input.places += static_cast<Integers<T>>(t.input);
    const auto add_up = [&](int n, int count) __attribute__((always_inline)) {
        for (int64_t image = 0; image < t.images; ++image)
            for (int64_t row = 0; row < t.rows; ++row) {
                const T* x = t.x + input.first + image * t.x_image_pitch + row * t.x_row_pitch;
                const T* dy = t.dy + image * t.dy_image_pitch + row * t.dy_row_pitch;
                const auto step = [&](auto together) __attribute__((always_inline)) {
                    constexpr int pixels = decltype(together)::value, met = (pixels - 1) * Stride + Taps;
                    Vec<T> gradients[pixels];
                    const Lines<T, pixels> dy_at(dy, t.dy_pitch);
#pragma GCC unroll 4
                    for (int i = 0; i < pixels; ++i) {
                        gradients[i] = load_upto(dy_at[i], n);
                        __builtin_prefetch(dy_at[i] + lanes<T>, 0, 2);  // the next channels'
                        __builtin_prefetch(x + (Rows - 1) * t.row_pitch + i * t.pixel_pitch + lanes<T>, 0, 2);
                    }
#pragma GCC unroll 8
                    for (int p = 0; p < Rows; ++p) {
                        const Lines<T, met> at(x + p * t.row_pitch, t.tap_pitch);
#pragma GCC unroll 32
                        for (int m = 0; m < met; ++m) {
                            const Vec<T> value = input(at[m], count);
#pragma GCC unroll 4
                            for (int i = 0; i < pixels; ++i) {
                                const int q = m - i * Stride;
                                if (q >= 0 && q < Taps) sums[p * Taps + q][0] += value * gradients[i];
                            }
                        }
                    }
                    x += pixels * t.pixel_pitch;
                    dy += pixels * t.dy_pitch;
                };
                constexpr int most = 4;
                int64_t col = 0;
                for (; col + most <= t.cols; col += most) step(std::integral_constant<int, most>());
                for (; col < t.cols; ++col) step(std::integral_constant<int, 1>());
            }
    };
    if (t.channels == lanes<T> && input.taken == lanes<T>) {
        add_up(lanes<T>, lanes<T>);
    } else {
        add_up(t.channels, input.taken);
    }
    write_tile<T, Rows * Taps, 1>(sums, t.dw, [&](int i) { return i / Taps * t.w_row_pitch + i % Taps * t.w_pitch; }, true,
                                  t.channels);
}

template <class T, bool Selects> struct DepthwiseTiles {
    void (*of_pixels[depthwise_strides][depthwise_taps<T>][depthwise_pixels_log + 1])(const DepthwiseRow<T>&) = {};
    void (*apart[depthwise_pixels_log + 1])(const DepthwiseRow<T>&) = {};
    void (*of_weights[depthwise_strides][depthwise_taps<T>][most_depthwise_rows])(const DepthwiseGradient<T>&) = {};

    constexpr DepthwiseTiles() {
        add_strides(std::make_integer_sequence<int, depthwise_strides>());
        add_apart(std::make_integer_sequence<int, depthwise_pixels_log + 1>());
    }

private:
    template <int... S> constexpr void add_strides(std::integer_sequence<int, S...>) {
        (add_taps<S + 1>(std::make_integer_sequence<int, depthwise_taps<T>>()), ...);
    }
    template <int Stride, int... Q> constexpr void add_taps(std::integer_sequence<int, Q...>) {
        (add_pixels<Stride, Q + 1>(std::make_integer_sequence<int, depthwise_pixels_log + 1>()), ...);
        (add_rows<Stride, Q + 1>(std::make_integer_sequence<int, depthwise_rows(Q + 1)>()), ...);
    }
    template <int Stride, int Taps, int... Log> constexpr void add_pixels(std::integer_sequence<int, Log...>) {
        ((of_pixels[Stride - 1][Taps - 1][Log] = depthwise_tile<T, Selects, 1 << Log, Stride, Taps>), ...);
    }
    template <int Stride, int Taps, int... Row> constexpr void add_rows(std::integer_sequence<int, Row...>) {
        ((of_weights[Stride - 1][Taps - 1][Row] = depthwise_gradient_tile<T, Selects, Stride, Taps, Row + 1>), ...);
    }
    template <int... Log> constexpr void add_apart(std::integer_sequence<int, Log...>) {
        ((apart[Log] = depthwise_tile_apart<T, Selects, 1 << Log>), ...);
    }
};

template <class T, bool Selects> constexpr DepthwiseTiles<T, Selects> depthwise_tiles;

// body(tiles) with those that such channels take.
template <class T, class Body> void with_depthwise_tiles(const GroupChannels<T>* of_groups, const Body& body) {
    if constexpr (TILEFUSE_VECTOR_BYTES >= 32)
        if (of_groups != nullptr) return body(depthwise_tiles<T, true>);
    body(depthwise_tiles<T, false>);
}

// A row of so many pixels.
template <class T> void multiply_depthwise(const DepthwiseRow<T>& row, int64_t pixels, const DepthwiseSharing& sharing) {
    const bool shares = sharing.stride <= depthwise_strides;
    const int64_t apart = shares ? sharing.apart : 1;
    const Parts parts(row.taps, shares ? depthwise_taps<T> : row.taps);
    with_depthwise_tiles(row.of_groups, [&](const auto& tiles) {
        for (int64_t first = 0; first < std::min(apart, pixels); ++first)
            for (int64_t part = 0; part < parts.count; ++part) {
                DepthwiseRow<T> t = row;
                const int64_t begin = parts.begin(part);
                t.taps = parts.begin(part + 1) - begin;
                t.x += first * row.pixel_pitch + begin * row.tap_pitch;
                t.w += begin * row.w_pitch;
                t.y += first * row.y_pitch;
                t.pixel_pitch *= apart;
                t.y_pitch *= apart;
                t.accumulate = part > 0;
                const auto* const of_pixels = shares ? tiles.of_pixels[sharing.stride - 1][t.taps - 1] : tiles.apart;
                int64_t left = (pixels - first + apart - 1) / apart;
                for (int log = depthwise_pixels_log; log >= 0; --log)
                    for (const int64_t count = 1 << log; left >= count; left -= count) {
                        of_pixels[log](t);
                        t.x += count * t.pixel_pitch;
                        t.y += count * t.y_pitch;
                    }
            }
    });
}

// The gradient of all taps of some rows of them, [tap_rows, taps], and `channels` channels from `gradient.first` on.
template <class T>
void add_depthwise(const DepthwiseGradient<T>& gradient, int64_t tap_rows, int64_t taps, int64_t channels,
                   const DepthwiseSharing& sharing) {
    const bool shares = sharing.stride <= depthwise_strides;
    const int64_t apart = shares ? sharing.apart : 1, inputs = gradient.of_groups ? gradient.of_groups->inputs : 1;
    const Parts cols(taps, shares ? depthwise_taps<T> : 1);
    const Parts rows(tap_rows, depthwise_rows(static_cast<int>(cols.largest())));
    // body(row, column, first pixel) for all tiles
    const auto for_tiles = [&](const auto& body) {
        for (int64_t row = 0; row < rows.count; ++row)
            for (int64_t col = 0; col < cols.count; ++col)
                for (int64_t first = 0; first < std::min(apart, gradient.cols); ++first) body(row, col, first);
    };
    with_depthwise_tiles(gradient.of_groups, [&](const auto& tiles) {
        for_vectors<T>(channels, [&](int64_t k, int n) {
            for_tiles([&](int64_t row, int64_t col, int64_t first) {
                DepthwiseGradient<T> t = gradient;
                const int64_t p = rows.begin(row), q = cols.begin(col);
                t.cols = (gradient.cols - first + apart - 1) / apart;
                t.x += p * t.row_pitch + q * t.tap_pitch + first * t.pixel_pitch;
                t.dy += k + first * t.dy_pitch;
                t.dw += k + p * t.w_row_pitch + q * t.w_pitch;
                t.first += k;
                t.pixel_pitch *= apart;
                t.dy_pitch *= apart;
                if (!shares) t.tap_pitch = t.pixel_pitch;  // of tiles of one tap
                t.channels = n;
                const int64_t stride = shares ? sharing.stride : 1;
                const auto tile = tiles.of_weights[stride - 1][cols.begin(col + 1) - q - 1][rows.begin(row + 1) - p - 1];
                for (; t.input < inputs; ++t.input, t.dw += t.w_input_pitch) tile(t);
            });
        });
    });
}

}  // namespace tilefuse::inline TILEFUSE_ISA
