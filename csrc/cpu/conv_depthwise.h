// Depthwise convolution: each channel by itself, many channels at a time.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cpu/conv_tile.h"

namespace tilefuse::inline TILEFUSE_ISA {

// Pixels and vectors of channels, or taps and one vector, that are added up together: enough sums to keep two
// multiply-add units busy.
constexpr int depthwise_pixels = 4, depthwise_vectors = 2, depthwise_taps = 8;

template <class T, int Pixels, int Vectors>
void depthwise_tile(int64_t taps, int64_t channels, const T* a, const int64_t* a_at, const Segment* segments, const T* w, T* c,
                    const int64_t* c_at, int tail) {
    Vec<T> sums[Pixels][Vectors] = {};
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
void multiply_depthwise(int64_t pixels, int64_t taps, int64_t channels, const T* a, const int64_t* a_at, const Segment* segments,
                        const T* w, T* c, const int64_t* c_at) {
    constexpr int64_t both = depthwise_vectors * lanes<T>;
    const auto row = [&](int64_t p, auto together) {
        constexpr int count = decltype(together)::value;
        int64_t k = 0;
        for (; k + both <= channels; k += both)
            depthwise_tile<T, count, depthwise_vectors>(taps, channels, a + k, a_at + p, segments, w + k, c + k, c_at + p, lanes<T>);
        for (; k < channels; k += lanes<T>) {
            const int tail = static_cast<int>(std::min<int64_t>(lanes<T>, channels - k));
            depthwise_tile<T, count, 1>(taps, channels, a + k, a_at + p, segments, w + k, c + k, c_at + p, tail);
        }
    };
    int64_t p = 0;
    for (; p + depthwise_pixels <= pixels; p += depthwise_pixels) row(p, std::integral_constant<int, depthwise_pixels>());
    for (; p < pixels; ++p) row(p, std::integral_constant<int, 1>());
}

template <class T, int Taps>
void depthwise_weight_tile(int64_t pixels, const T* x, const int64_t* at, const Segment* segments, const T* panel, int64_t pitch, T* c,
                           int64_t c_stride, int tail) {
    Vec<T> sums[Taps][1] = {};
    const T* a[Taps];
#pragma GCC unroll 8
    for (int t = 0; t < Taps; ++t) a[t] = x + segments[t].at;
    for (int64_t p = 0; p < pixels; ++p, panel += pitch) {
        const Vec<T> dy = load(panel);
#pragma GCC unroll 8
        for (int t = 0; t < Taps; ++t) sums[t][0] += (tail == lanes<T> ? load(a[t] + at[p]) : load(a[t] + at[p], tail)) * dy;
    }
    write_tile<T, Taps, 1>(sums, c, [&](int t) { return segments[t].row * c_stride; }, true, tail);
}

// C[tap, channel] += the sum over pixels of x[at[pixel] + segment + channel] panel[pixel, channel], for a panel of channels
template <class T>
void add_depthwise(int64_t pixels, int64_t taps, int vectors, int64_t valid, const T* x, const int64_t* at, const Segment* segments,
                   const T* panel, T* c, int64_t c_stride) {
    const int64_t pitch = vectors * lanes<T>;
    for (int v = 0; v < vectors; ++v) {
        const int64_t k = v * lanes<T>;
        const int tail = static_cast<int>(std::min<int64_t>(lanes<T>, valid - k));
        int64_t t = 0;
        for (; t + depthwise_taps <= taps; t += depthwise_taps)
            depthwise_weight_tile<T, depthwise_taps>(pixels, x + k, at, segments + t, panel + k, pitch, c + k, c_stride, tail);
        for (; t < taps; ++t)
            depthwise_weight_tile<T, 1>(pixels, x + k, at, segments + t, panel + k, pitch, c + k, c_stride, tail);
    }
}

}  // namespace tilefuse::inline TILEFUSE_ISA
