// The tiles of conv_tile.h in tile registers (amx.h), of pairs of bfloat16 numbers: 16 rows by up to 64 columns, or 32 by up to
// 32, by steps of 16 pairs. The left operand is copied together for each step, since its rows lie at any distance, or are columns;
// the right one is a panel.
#pragma once

#include "cpu/amx.h"
#include "cpu/conv_tile.h"
#include "cpu/transpose.h"

namespace tilefuse::inline TILEFUSE_ISA {

constexpr int64_t tile_edge = 16;  // rows of a tile register, and numbers or pairs of a row
constexpr int64_t tile_size = tile_edge * tile_edge;
constexpr int tiled_rows(int vectors) { return vectors <= 2 ? 32 : 16; }

// From so many rows or pairs on, half of what a tile register has, they are far ahead of vectors, whose instructions multiply a
// sixteenth of what theirs do.
constexpr int64_t least_of_tile = tile_edge / 2;

#if defined(TILEFUSE_TILES)

constexpr bool multiplies_tiles = true;
static_assert(lanes<float> == tile_edge);

// C[i, :] = the products of all steps, or adds them, for `rows` of C, i at c + row_at(i). `steps` calls step(a, b) for each one:
// a[rows, 16], zeros past the pairs that there are, and a panel b[16, columns]. (What a tile register has past `rows` goes nowhere.)
template <class Steps, class RowAt>
inline void multiply_tiles(int64_t rows, int vectors, const Steps& steps, float* c, const RowAt& row_at, bool accumulate,
                           int tail) {
    alignas(64) float sums[4 * tile_size];
    const int64_t columns = vectors * tile_edge, pitch = 4 * tile_size / tiled_rows(vectors);
    const int64_t bytes = pitch * static_cast<int64_t>(sizeof(float)), b_bytes = columns * static_cast<int64_t>(sizeof(Pair));
    TILEFUSE_TILE_ZERO(0);
    TILEFUSE_TILE_ZERO(1);
    TILEFUSE_TILE_ZERO(2);
    TILEFUSE_TILE_ZERO(3);
    if (vectors <= 2) {
        const bool right = vectors == 2, below = rows > tile_edge;
        steps([&](const Pair* a, const Pair* b) {
            tiles_read_memory(a);
            TILEFUSE_TILE_LOAD(4, a, 64);
            TILEFUSE_TILE_LOAD(6, b, b_bytes);
            TILEFUSE_TILE_PRODUCT(0, 4, 6);
            if (below) {
                TILEFUSE_TILE_LOAD(5, a + tile_size, 64);
                TILEFUSE_TILE_PRODUCT(2, 5, 6);
            }
            if (right) {
                TILEFUSE_TILE_LOAD(7, b + tile_edge, b_bytes);
                TILEFUSE_TILE_PRODUCT(1, 4, 7);
                if (below) TILEFUSE_TILE_PRODUCT(3, 5, 7);
            }
            tiles_read_memory(b);  // before the next step overwrites it
        });
        TILEFUSE_TILE_STORE(2, sums + tile_edge * pitch, bytes);
        TILEFUSE_TILE_STORE(3, sums + tile_edge * pitch + tile_edge, bytes);
    } else {
        steps([&](const Pair* a, const Pair* b) {
            tiles_read_memory(a);
            TILEFUSE_TILE_LOAD(4, a, 64);
            TILEFUSE_TILE_LOAD(5, b, b_bytes);
            TILEFUSE_TILE_PRODUCT(0, 4, 5);
            TILEFUSE_TILE_LOAD(6, b + tile_edge, b_bytes);
            TILEFUSE_TILE_PRODUCT(1, 4, 6);
            TILEFUSE_TILE_LOAD(7, b + 2 * tile_edge, b_bytes);
            TILEFUSE_TILE_PRODUCT(2, 4, 7);
            if (vectors == 4) {
                TILEFUSE_TILE_LOAD(5, b + 3 * tile_edge, b_bytes);
                TILEFUSE_TILE_PRODUCT(3, 4, 5);
            }
            tiles_read_memory(b);
        });
        TILEFUSE_TILE_STORE(2, sums + 2 * tile_edge, bytes);
        TILEFUSE_TILE_STORE(3, sums + 3 * tile_edge, bytes);
    }
    TILEFUSE_TILE_STORE(0, sums, bytes);
    TILEFUSE_TILE_STORE(1, sums + tile_edge, bytes);
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; j += tile_edge) {
            float* const to = c + row_at(i) + j;
            const int n = j + tile_edge < columns ? static_cast<int>(tile_edge) : tail;
            Vec<float> sum = load(sums + i * pitch + j);
            if (accumulate) sum += load_upto(to, n);
            store_upto(to, sum, n);
        }
}

// A panel's rows [p, p + 16), those past `end` zeros in `copy`.
inline const Pair* rows_of_step(const Pair* panel, int64_t p, int64_t end, int64_t columns, Pair* copy) {
    if (p + tile_edge <= end) return panel + p * columns;
    std::memcpy(copy, panel + p * columns, static_cast<size_t>((end - p) * columns) * sizeof(Pair));
    std::memset(copy + (end - p) * columns, 0, static_cast<size_t>((p + tile_edge - end) * columns) * sizeof(Pair));
    return copy;
}

// As pixel_tile, for up to tiled_rows(vectors) pixels.
inline void pixel_tiles(const PixelTile<Pair>& t, int64_t pixels, int vectors) {
    alignas(64) Pair a[2 * tile_size], last[tile_edge * panel_columns<float>];
    const int64_t columns = vectors * tile_edge;
    const auto steps = [&](const auto& step) {
        for (const Segment *segment = t.segments, *end = segment + t.count; segment != end; ++segment)
            for (int64_t p = 0; p < segment->length; p += tile_edge) {
                const Pair* const from = t.a + segment->at + p;
                if (const int64_t deep = segment->length - p; deep >= tile_edge) {
                    for (int64_t i = 0; i < pixels; ++i) std::memcpy(a + i * tile_edge, from + t.a_at[i], tile_edge * sizeof(Pair));
                } else {
                    std::memset(a, 0, sizeof a);
                    for (int64_t i = 0; i < pixels; ++i)
                        std::memcpy(a + i * tile_edge, from + t.a_at[i], static_cast<size_t>(deep) * sizeof(Pair));
                }
                step(a, rows_of_step(t.b + segment->row * columns, p, segment->length, columns, last));
            }
    };
    multiply_tiles(pixels, vectors, steps, t.c, [&](int64_t i) { return t.c_at[i]; }, t.accumulate, t.tail);
}

// As weight_tile, not turned, for up to tiled_rows(vectors) input channels.
inline void weight_tiles(const WeightTile<Pair>& t, int64_t rows, int vectors) {
    alignas(64) float a[2 * tile_size];
    alignas(64) Pair last[tile_edge * panel_columns<float>];
    const int64_t columns = vectors * tile_edge;
    const auto steps = [&](const auto& step) {
        for (int64_t p = 0; p < t.pixels; p += tile_edge) {
            const int64_t deep = std::min(tile_edge, t.pixels - p);
            for (int64_t i = 0; i < rows; i += tile_edge) {
                const int valid = static_cast<int>(std::min(tile_edge, rows - i));
                Vec<float> square[tile_edge];
#pragma GCC unroll 16
                for (int64_t q = 0; q < tile_edge; ++q)
                    square[q] = q < deep ? load_upto(reinterpret_cast<const float*>(t.x + t.x_at[p + q] + i), valid) : Vec<float>{};
                transpose_block<float>(square);
#pragma GCC unroll 16
                for (int64_t r = 0; r < tile_edge; ++r) store(a + i * tile_edge + r * tile_edge, square[r]);
            }
            step(reinterpret_cast<const Pair*>(a), rows_of_step(t.dy, p, t.pixels, columns, last));
        }
    };
    multiply_tiles(rows, vectors, steps, t.c, [&](int64_t i) { return i * t.c_stride; }, true, t.tail);
}

#else

constexpr bool multiplies_tiles = false;

#endif

// A tile of so many rows by vectors, in tile registers or in the vector's.
template <class E> void multiply_tile(const PixelTile<E>& t, int64_t rows, int vectors, [[maybe_unused]] bool tiled) {
    if constexpr (multiplies_tiles && is_pair<E>)
        if (tiled) return pixel_tiles(t, rows, vectors);
    conv_tiles<E>.of_pixels[vectors - 1][rows - 1](t);
}
template <class E> void multiply_tile(const WeightTile<E>& t, int64_t rows, int vectors, [[maybe_unused]] bool tiled) {
    if constexpr (multiplies_tiles && is_pair<E>)
        if (tiled) return weight_tiles(t, rows, vectors);
    conv_tiles<E>.of_weights[0][vectors - 1][rows - 1](t);
}

}  // namespace tilefuse::inline TILEFUSE_ISA
