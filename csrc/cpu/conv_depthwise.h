// Depthwise convolution: each channel by itself, many channels at a time.
#pragma once

#include <algorithm>
#include <array>
#include <type_traits>

#include "cpu/conv_tile.h"
#include "cpu/matmul_pack.h"

namespace tilefuse::inline TILEFUSE_ISA {

// Pixels and vectors of channels, or taps and one vector, that are added up together: enough sums to keep two
// multiply-add units busy.
constexpr int64_t depthwise_channels = 64;
constexpr int depthwise_pixels = 4, depthwise_vectors = 2, depthwise_taps = 12;

template <class T, int Pixels, int Vectors>
void depthwise_tile(int64_t taps, int64_t channels, const T* a, const int64_t* a_at, const Segment* segments, const T* w, T* c,
                    const int64_t* c_at, int tail) {
    Vec<T> sums[Pixels][Vectors] = {};
    const int64_t next = Pixels * channels, last = taps > 0 ? segments[taps - 1].at : 0;
#pragma GCC unroll 4
    for (int i = 0; i < Pixels; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {  // (56 x 56 x 128, two threads: 153 GFLOP/s, 104 without)
            __builtin_prefetch(c + c_at[i] + next + v * lanes<T>, 1);
            __builtin_prefetch(a + a_at[i] + last + next + v * lanes<T>);
        }
    for (int64_t t = 0; t < taps; ++t) {
        const auto loaded = [&](const T* p, int v) { return v + 1 < Vectors || tail == lanes<T> ? load(p) : load(p, tail); };
        Vec<T> weights[Vectors];
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) weights[v] = loaded(w + segments[t].row * channels + v * lanes<T>, v);
#pragma GCC unroll 4
        for (int i = 0; i < Pixels; ++i) {
            const T* x = a + (a_at[i] + segments[t].at);
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) sums[i][v] += loaded(x + v * lanes<T>, v) * weights[v];
        }
    }
    write_tile<T, Pixels, Vectors>(sums, c, [&](int i) { return c_at[i]; }, false, tail);
}

// C[pixel, channel] = the sum over taps of a[a_at[pixel] + segment + channel] w[tap, channel]; a segment is a tap's, and its
// row the tap. Pixels take all their channels in turn, so that memory is read in the order in which it lies.
template <class T>
void multiply_depthwise(int64_t pixels, int64_t taps, int64_t channels, const T* a, const int64_t* a_at,
                        const Segment* segments, const T* w, T* c, const int64_t* c_at) {
    constexpr int64_t both = depthwise_vectors * lanes<T>;
    const auto columns = [&](int64_t p, int64_t first, int64_t past, auto together) {
        constexpr int count = decltype(together)::value;
        int64_t k = first;
        for (; k + both <= past; k += both)
            depthwise_tile<T, count, depthwise_vectors>(taps, channels, a + k, a_at + p, segments, w + k, c + k, c_at + p,
                                                        lanes<T>);
        for (; k < past; k += lanes<T>) {
            const int tail = static_cast<int>(std::min<int64_t>(lanes<T>, past - k));
            depthwise_tile<T, count, 1>(taps, channels, a + k, a_at + p, segments, w + k, c + k, c_at + p, tail);
        }
    };
    for (int64_t first = 0; first < channels; first += depthwise_channels) {
        const int64_t past = std::min(channels, first + depthwise_channels);
        int64_t p = 0;
        for (; p + depthwise_pixels <= pixels; p += depthwise_pixels)
            columns(p, first, past, std::integral_constant<int, depthwise_pixels>());
        for (; p < pixels; ++p) columns(p, first, past, std::integral_constant<int, 1>());
    }
}

// A tile of the gradient at the weights: some taps by one vector of channels.
template <class T> struct DepthwiseWeightTile {
    int64_t pixels;
    const T *x, *dy;
    const int64_t *x_at, *dy_at;  // of each pixel
    const Segment* segments;      // a tap each
    T* c;
    int64_t c_stride;
    int tail;
};

template <class T, int Taps> void depthwise_weight_tile(const DepthwiseWeightTile<T>& tile) {
    Vec<T> sums[Taps][1] = {};
    const T* x[Taps];
#pragma GCC unroll 16
    for (int t = 0; t < Taps; ++t) x[t] = tile.x + tile.segments[t].at;
    const auto add_up = [&](const auto& loaded) __attribute__((always_inline)) {
        for (int64_t p = 0; p < tile.pixels; ++p) {
            const Vec<T> dy = loaded(tile.dy + tile.dy_at[p]);
#pragma GCC unroll 16
            for (int t = 0; t < Taps; ++t) sums[t][0] += loaded(x[t] + tile.x_at[p]) * dy;
        }
    };
    if (tile.tail == lanes<T>) {
        add_up([](const T* at) { return load(at); });
    } else {
        add_up([&](const T* at) { return load(at, tile.tail); });
    }
    write_tile<T, Taps, 1>(sums, tile.c, [&](int t) { return tile.segments[t].row * tile.c_stride; }, true, tile.tail);
}

template <class T> using DepthwiseWeights = void (*)(const DepthwiseWeightTile<T>&);
template <class T, int... Taps>
constexpr std::array<DepthwiseWeights<T>, sizeof...(Taps)> list_depthwise_weights(std::integer_sequence<int, Taps...>) {
    return {depthwise_weight_tile<T, Taps + 1>...};
}

// C[tap, channel] += the sum over pixels of x[x_at[pixel] + segment + channel] dy[dy_at[pixel] + channel]; the first `valid`
// channels
template <class T> void add_depthwise(DepthwiseWeightTile<T> tile, int64_t taps, int64_t valid) {
    constexpr auto tiles = list_depthwise_weights<T>(std::make_integer_sequence<int, depthwise_taps>());
    const Parts parts(taps, depthwise_taps);
    const Segment* const first = tile.segments;
    for_vectors<T>(valid, [&](int64_t, int n) {
        tile.tail = n;
        for (int64_t part = 0; part < parts.count; ++part) {
            tile.segments = first + parts.begin(part);
            tiles[static_cast<size_t>(parts.begin(part + 1) - parts.begin(part) - 1)](tile);
        }
        tile.x += lanes<T>;
        tile.dy += lanes<T>;
        tile.c += lanes<T>;
    });
}

}  // namespace tilefuse::inline TILEFUSE_ISA
