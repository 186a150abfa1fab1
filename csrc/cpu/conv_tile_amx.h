// Tiles of pixels by output channels in tile registers (amx.h): 16 pixels by up to 64 channels, or 32 by up to 32, from pairs of
// input channels. The pixels' pairs are copied together, 16 of a segment at a time, since they lie at any distance.
#pragma once

#include "cpu/amx.h"
#include "cpu/conv_tile.h"

namespace tilefuse::inline TILEFUSE_ISA {

constexpr int64_t tile_edge = 16;  // rows of a tile, and numbers or pairs of a row
constexpr int64_t tile_size = tile_edge * tile_edge;

constexpr int64_t tiled_pixels(int vectors) { return vectors <= 2 ? 2 * tile_edge : tile_edge; }

#if defined(TILEFUSE_TILES)

constexpr bool multiplies_tiles = true;

// step(a, b, bytes from row to row of b) for every 16 pairs of each segment, filled up with zeros at its end.
template <int Tiles, class Step>
[[gnu::always_inline]] inline void for_steps(const PixelTile<Pair>& t, int64_t pixels, int64_t columns, const Step& step) {
    alignas(64) Pair a[Tiles * tile_size], last[tile_edge * panel_columns<float>];
    for (const Segment *segment = t.segments, *end = segment + t.count; segment != end; ++segment)
        for (int64_t p = 0; p < segment->length; p += tile_edge) {
            const Pair* b = t.b + (segment->row + p) * columns;
            const Pair* const pairs = t.a + segment->at + p;
            if (const int64_t deep = segment->length - p; deep >= tile_edge) {
                for (int64_t i = 0; i < pixels; ++i) std::memcpy(a + i * tile_edge, pairs + t.a_at[i], tile_edge * sizeof(Pair));
            } else {
                std::memset(a, 0, sizeof a);
                std::memset(last, 0, sizeof last);
                for (int64_t i = 0; i < pixels; ++i)
                    std::memcpy(a + i * tile_edge, pairs + t.a_at[i], static_cast<size_t>(deep) * sizeof(Pair));
                std::memcpy(last, b, static_cast<size_t>(deep * columns) * sizeof(Pair));
                b = last;
            }
            tiles_read_memory(a);
            step(a, b, columns * static_cast<int64_t>(sizeof(Pair)));
        }
}

// As pixel_tile, for up to tiled_pixels(vectors) of them.
inline void pixel_tiles(const PixelTile<Pair>& t, int64_t pixels, int vectors) {
    alignas(64) float sums[4 * tile_size];
    const int64_t columns = vectors * tile_edge, pitch = vectors <= 2 ? 2 * tile_edge : 4 * tile_edge;
    const int64_t bytes = pitch * static_cast<int64_t>(sizeof(float));
    TILEFUSE_TILE_ZERO(0);
    TILEFUSE_TILE_ZERO(1);
    TILEFUSE_TILE_ZERO(2);
    TILEFUSE_TILE_ZERO(3);
    if (vectors <= 2) {
        const bool right = vectors == 2, below = pixels > tile_edge;
        for_steps<2>(t, pixels, columns, [&](const Pair* a, const Pair* b, int64_t b_pitch) {
            TILEFUSE_TILE_LOAD(4, a, 64);
            TILEFUSE_TILE_LOAD(6, b, b_pitch);
            TILEFUSE_TILE_PRODUCT(0, 4, 6);
            if (below) {
                TILEFUSE_TILE_LOAD(5, a + tile_size, 64);
                TILEFUSE_TILE_PRODUCT(2, 5, 6);
            }
            if (right) {
                TILEFUSE_TILE_LOAD(7, b + tile_edge, b_pitch);
                TILEFUSE_TILE_PRODUCT(1, 4, 7);
                if (below) TILEFUSE_TILE_PRODUCT(3, 5, 7);
            }
        });
        TILEFUSE_TILE_STORE(2, sums + tile_edge * pitch, bytes);
        TILEFUSE_TILE_STORE(3, sums + tile_edge * pitch + tile_edge, bytes);
    } else {
        for_steps<1>(t, pixels, columns, [&](const Pair* a, const Pair* b, int64_t b_pitch) {
            TILEFUSE_TILE_LOAD(4, a, 64);
            TILEFUSE_TILE_LOAD(5, b, b_pitch);
            TILEFUSE_TILE_PRODUCT(0, 4, 5);
            TILEFUSE_TILE_LOAD(6, b + tile_edge, b_pitch);
            TILEFUSE_TILE_PRODUCT(1, 4, 6);
            TILEFUSE_TILE_LOAD(7, b + 2 * tile_edge, b_pitch);
            TILEFUSE_TILE_PRODUCT(2, 4, 7);
            if (vectors == 3) return;
            TILEFUSE_TILE_LOAD(5, b + 3 * tile_edge, b_pitch);
            TILEFUSE_TILE_PRODUCT(3, 4, 5);
        });
        TILEFUSE_TILE_STORE(2, sums + 2 * tile_edge, bytes);
        TILEFUSE_TILE_STORE(3, sums + 3 * tile_edge, bytes);
    }
    TILEFUSE_TILE_STORE(0, sums, bytes);
    TILEFUSE_TILE_STORE(1, sums + tile_edge, bytes);
    for (int64_t i = 0; i < pixels; ++i) {
        float* c = t.c + t.c_at[i];
        for (int64_t j = 0; j < columns; j += tile_edge, c += tile_edge) {
            const int n = j + tile_edge < columns ? static_cast<int>(tile_edge) : t.tail;
            Vec<float> sum = load(sums + i * pitch + j);
            if (t.accumulate) sum += load_upto(c, n);
            store_upto(c, sum, n);
        }
    }
}

#else

constexpr bool multiplies_tiles = false;

#endif

}  // namespace tilefuse::inline TILEFUSE_ISA
