// Matrix units. Fragment layouts: PTX ISA, "Matrix fragments for mma.m16n8k8" and "... mma.m16n8k16", "ldmatrix".
#include <bit>
#include <cstring>

#include "simt/checker.h"
#include "simt/executor.h"

namespace simt {

namespace {

float low_half(uint32_t pair, Elements elements) {
    const auto bits = static_cast<uint16_t>(pair);
    return elements == Elements::bf16 ? bfloat16_to_float(bits) : half_to_float(bits);
}

// d += a b, with a [16, k], b [k, 8]. Products are exact in double.
void multiply_tile(double (&d)[16][8], const double (&a)[16][16], const double (&b)[16][8], int k) {
    for (int i = 0; i < 16; i++) {
        double sum[8] = {};
        for (int p = 0; p < k; p++) {
            for (int j = 0; j < 8; j++) sum[j] += a[i][p] * b[p][j];
        }
        for (int j = 0; j < 8; j++) d[i][j] += sum[j];
    }
}

}  // namespace

void multiply(Thread* warp) {
    double a[16][16], b[16][8], d[16][8];
    const Elements elements = static_cast<const MmaData*>(warp->data)->elements;
    const bool tf32 = elements == Elements::tf32;
    for (int lane = 0; lane < 32; lane++) {
        const auto& data = *static_cast<const MmaData*>(warp[lane].data);
        const int g = lane / 4, t = lane % 4;
        if (data.elements != elements) {
            fail({.kind = "warp mask", .thread = warp[lane].index, .where = warp[lane].where},
                 "another matrix operation than lane 0's, at line %u", static_cast<unsigned>(warp->where.line()));
        }
        for (int r = 0; r < 4; r++) {
            const int row = g + r % 2 * 8;
            if (tf32) {  // the low 13 bits are not read
                a[row][t + r / 2 * 4] = std::bit_cast<float>(data.a[r] & 0xffffe000u);
            } else {
                a[row][2 * t + r / 2 * 8] = low_half(data.a[r], elements);
                a[row][2 * t + r / 2 * 8 + 1] = low_half(data.a[r] >> 16, elements);
            }
            d[g + r / 2 * 8][2 * t + r % 2] = data.d[r];
        }
        for (int r = 0; r < 2; r++) {
            if (tf32) {
                b[t + r * 4][g] = std::bit_cast<float>(data.b[r] & 0xffffe000u);
            } else {
                b[2 * t + r * 8][g] = low_half(data.b[r], elements);
                b[2 * t + r * 8 + 1][g] = low_half(data.b[r] >> 16, elements);
            }
        }
    }
    multiply_tile(d, a, b, tf32 ? 8 : 16);
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = lane % 4;
        float* to = static_cast<const MmaData*>(warp[lane].data)->d;
        for (int r = 0; r < 4; r++) to[r] = static_cast<float>(d[g + r / 2 * 8][2 * t + r % 2]);
    }
}

void load_matrices(Thread* warp) {
    const void* rows[32];
    for (int lane = 0; lane < 32; lane++) {
        Thread& thread = warp[lane];
        rows[lane] = static_cast<const MatrixData*>(thread.data)->row;
        if (reinterpret_cast<uintptr_t>(rows[lane]) % 16 != 0) {
            fail({.kind = "misaligned", .thread = thread.index, .where = thread.where},
                 "gives %p as a matrix row, which is not a multiple of 16", rows[lane]);
        }
        if (!is_shared(rows[lane])) {
            fail({.kind = "out of bounds", .thread = thread.index, .where = thread.where},
                 "gives %p as a matrix row, which is not in shared memory", rows[lane]);
        }
        if constexpr (checked) check_access(thread, rows[lane], 16, Access::read, thread.code);
    }
    for (int lane = 0; lane < 32; lane++) {
        const auto& data = *static_cast<const MatrixData*>(warp[lane].data);
        const int g = lane / 4, t = lane % 4;
        for (int m = 0; m < 4; m++) {
            uint16_t pair[2];
            for (int i = 0; i < 2; i++) {
                const int row = data.transposed ? 2 * t + i : g, column = data.transposed ? g : 2 * t + i;
                std::memcpy(&pair[i], static_cast<const char*>(rows[m * 8 + row]) + 2 * column, 2);
            }
            std::memcpy(&data.fragment[m], pair, 4);
        }
    }
}

}  // namespace simt
