// The inner kernels of convolutions: tiles of a product whose operand A is an image as it lies, found through tables.
#pragma once

#include "cpu/bfloat16.h"
#include "cpu/matmul_tile.h"

namespace tilefuse::inline TILEFUSE_ISA {

// Elements of an image that lie together, and meet as many rows of the weights, from `row` on.
struct Segment {
    int64_t at, length, row;
};

// (E: a number, or a pair of them.)
//
// A tile of pixels by output channels: C[i, :] = sum over the segments of a[a_at[i] + segment] times their rows of B.
template <class E> struct PixelTile {
    const E* a;
    const int64_t* a_at;  // of each row (pixel)
    const Segment* segments;
    int64_t count;
    const E* b;  // panel[rows, columns]
    Sum<E>* c;
    const int64_t* c_at;
    bool accumulate;
    int tail;
};

// A tile of taps and input channels by output channels, or turned round: output channels by taps and input channels. It adds
// up over pixels p: C[i, :] += x[x_at[p] + i] dy[p, :], with dy as a panel[pixels, columns], or, turned,
// C[i, :] += dy[p, i] x[x_at[p] + :], with dy as a strip[pixels, rows].
template <class E> struct WeightTile {
    const E* x;
    const int64_t* x_at;  // of each pixel
    int64_t pixels;
    const E* dy;
    Sum<E>* c;
    int64_t c_stride;
    int tail;
};

// Each row of a pixel tile has a pointer of its own, in a register.
constexpr int most_pixels = 10;
constexpr int max_pixels(int nv) { return max_rows(nv) < most_pixels ? max_rows(nv) : most_pixels; }

template <class E, int Rows, int Vectors> void pixel_tile(const PixelTile<E>& t) {
    using T = Sum<E>;
    constexpr int columns = Vectors * lanes<T>;
    Vec<T> sums[Rows][Vectors];
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) sums[i][v] = Vec<T>{};
        __builtin_prefetch(t.c + t.c_at[i], 1);
    }
    for (const Segment *segment = t.segments, *end = segment + t.count; segment != end; ++segment) {
        const E *a[Rows], *b = t.b + segment->row * columns;
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) a[i] = t.a + (t.a_at[i] + segment->at);
        const auto step = [&](int u) __attribute__((always_inline)) {
            Vec<E> row[Vectors];
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) row[v] = load(b + u * columns + v * lanes<T>);
#pragma GCC unroll 16
            for (int i = 0; i < Rows; ++i) {
                const Vec<E> x = splat(a[i][u]);
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v) sums[i][v] = add_products<E>(x, row[v], sums[i][v]);
            }
        };
        const auto advance = [&](int steps) __attribute__((always_inline)) {
#pragma GCC unroll 16
            for (int i = 0; i < Rows; ++i) {
                a[i] += steps;
                asm volatile("" : "+r"(a[i]));
            }
            b += steps * columns;
        };
        int64_t left = segment->length;
        for (; left >= steps_of_turn; left -= steps_of_turn) {
#pragma GCC unroll 4
            for (int u = 0; u < steps_of_turn; ++u) step(u);
            advance(steps_of_turn);
        }
        for (; left > 0; --left) {
            step(0);
            advance(1);
        }
    }
    write_tile<T, Rows, Vectors>(sums, t.c, [&](int i) { return t.c_at[i]; }, t.accumulate, t.tail);
}

template <class E, bool Turned, int Rows, int Vectors> void weight_tile(const WeightTile<E>& t) {
    using T = Sum<E>;
    constexpr int pitch = Turned ? Rows : Vectors * lanes<T>;  // of dy
    Vec<T> sums[Rows][Vectors];
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
            sums[i][v] = Vec<T>{};
            __builtin_prefetch(t.c + i * t.c_stride + v * lanes<T>, 1);
        }
    const E* dy = t.dy;
    const int64_t* at = t.x_at;
    const auto step = [&](int u) __attribute__((always_inline)) {
        const E *const x = t.x + at[u], *const a = Turned ? dy + u * pitch : x, *const b = Turned ? x : dy + u * pitch;
        Vec<E> row[Vectors];
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
            if constexpr (Turned) {  // there may be nothing past the last pixel
                row[v] = load_upto(b + v * lanes<T>, v + 1 < Vectors ? lanes<T> : t.tail);
            } else {
                row[v] = load(b + v * lanes<T>);
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
            const Vec<E> y = splat(a[i]);
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) sums[i][v] = add_products<E>(y, row[v], sums[i][v]);
        }
    };
    int64_t left = t.pixels;
    for (; left >= steps_of_turn; left -= steps_of_turn) {
#pragma GCC unroll 4
        for (int u = 0; u < steps_of_turn; ++u) step(u);
        at += steps_of_turn;
        dy += steps_of_turn * pitch;
    }
    for (; left > 0; --left) {
        step(0);
        ++at;
        dy += pitch;
    }
    write_tile<T, Rows, Vectors>(sums, t.c, [&](int i) { return i * t.c_stride; }, true, t.tail);
}

// of_pixels[vectors - 1][rows - 1], of_weights[turned] likewise
template <class E> struct ConvTiles {
    void (*of_pixels[max_vectors][most_pixels])(const PixelTile<E>&) = {};
    void (*of_weights[2][max_vectors][most_rows])(const WeightTile<E>&) = {};

    constexpr ConvTiles() { add(std::make_integer_sequence<int, max_vectors>()); }

private:
    template <int... V> constexpr void add(std::integer_sequence<int, V...>) {
        (add_pixels<V + 1>(std::make_integer_sequence<int, max_pixels(V + 1)>()), ...);
        (add_weights<V + 1>(std::make_integer_sequence<int, max_rows(V + 1)>()), ...);
    }
    template <int Vectors, int... R> constexpr void add_pixels(std::integer_sequence<int, R...>) {
        ((of_pixels[Vectors - 1][R] = pixel_tile<E, R + 1, Vectors>), ...);
    }
    template <int Vectors, int... R> constexpr void add_weights(std::integer_sequence<int, R...>) {
        ((of_weights[0][Vectors - 1][R] = weight_tile<E, false, R + 1, Vectors>), ...);
        if constexpr (!is_pair<E>) ((of_weights[1][Vectors - 1][R] = weight_tile<E, true, R + 1, Vectors>), ...);
    }
};

template <class E> constexpr ConvTiles<E> conv_tiles;

}  // namespace tilefuse::inline TILEFUSE_ISA
