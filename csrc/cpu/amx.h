// The tile registers of Intel's AMX, for products in bfloat16: eight, of up to 16 rows of 64 bytes. All of them are used
// whole here: 16 x 16 floats, 16 x 32 bfloat16 of the left operand, or 16 pairs of rows x 16 columns of the right one.
// Where the instruction set lacks them they are memory, and the instructions are loops: to test what is written for them.
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, "TDPBF16PS".
#pragma once

#include "cpu/simd.h"

#if defined(__AMX_BF16__)

#define TILEFUSE_TILE_ZERO(tile) _tile_zero(tile)
#define TILEFUSE_TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define TILEFUSE_TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define TILEFUSE_TILE_PRODUCT(sums, left, right) _tile_dpbf16ps(sums, left, right)

namespace tilefuse::inline TILEFUSE_ISA {

// GCC does not know what memory the tile instructions read: what was written to it must be there from here on.
inline void tiles_read_memory(const void* memory) { asm volatile("" ::"r"(memory) : "memory"); }

// The calling thread may use tile registers as long as this lives.
class TileRegisters {
public:
    TileRegisters() {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        static_assert(sizeof config == 64);
        tiles_read_memory(&config);
        _tile_loadconfig(&config);
    }
    ~TileRegisters() { _tile_release(); }
    TileRegisters(const TileRegisters&) = delete;
};

}  // namespace tilefuse::inline TILEFUSE_ISA

#else

#define TILEFUSE_TILE_ZERO(tile) tiles_emulated.zero(tile)
#define TILEFUSE_TILE_LOAD(tile, from, stride) tiles_emulated.load(tile, from, stride)
#define TILEFUSE_TILE_STORE(tile, to, stride) tiles_emulated.store(tile, to, stride)
#define TILEFUSE_TILE_PRODUCT(sums, left, right) tiles_emulated.product(sums, left, right)

namespace tilefuse::inline TILEFUSE_ISA {

class EmulatedTiles {
public:
    void zero(int tile) { std::memset(tiles_[tile], 0, sizeof tiles_[tile]); }
    void load(int tile, const void* from, int64_t stride) {
        for (int row = 0; row < 16; ++row) std::memcpy(tiles_[tile][row], static_cast<const char*>(from) + row * stride, 64);
    }
    void store(int tile, void* to, int64_t stride) const {
        for (int row = 0; row < 16; ++row) std::memcpy(static_cast<char*>(to) + row * stride, tiles_[tile][row], 64);
    }
    // Elements with even and with odd k are added up apart, then together, then to the sums.
    void product(int sums, int left, int right) {
        for (int m = 0; m < 16; ++m) {
            float even[16] = {}, odd[16] = {};
            for (int pair = 0; pair < 16; ++pair) {
                const uint32_t a = tiles_[left][m][pair];
                for (int n = 0; n < 16; ++n) {
                    const uint32_t b = tiles_[right][pair][n];
                    even[n] += number(a << 16) * number(b << 16);
                    odd[n] += number(a & 0xffff0000u) * number(b & 0xffff0000u);
                }
            }
            for (int n = 0; n < 16; ++n) {
                const float sum = number(tiles_[sums][m][n]) + (even[n] + odd[n]);
                std::memcpy(&tiles_[sums][m][n], &sum, sizeof sum);
            }
        }
    }

private:
    static float number(uint32_t bits) {
        float x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    }
    uint32_t tiles_[8][16][16];
};

inline thread_local EmulatedTiles tiles_emulated;

inline void tiles_read_memory(const void*) {}

struct TileRegisters {
    TileRegisters() {}
};

}  // namespace tilefuse::inline TILEFUSE_ISA

#endif
