// Known patterns of access: prints lines of this file and, for each, how many accesses by warps there were, the sectors
// or wavefronts that they took, and the fewest that would do.
#include "harness.h"

namespace {

constexpr int rounds = 3;  // of the two warps of one block
struct Input {
    const float* floats;
    const double* doubles;
    const unsigned char* bytes;
    int zero;
};

__global__ void global_patterns(Input in, float* out) {
    const int i = threadIdx.x, lane = i % 32, warp = i / 32;
    float sum = 0;
    for (int round = 0; round < rounds; round++) {
        sum += in.floats[i];                                       // count: coalesced_load
        sum += in.floats[i + 3];                                   // count: shifted_load
        sum += in.floats[warp * 64 + 2 * lane];                    // count: strided_load
        sum += in.floats[16 * lane];                               // count: scattered_load
        sum += in.floats[in.zero];                                 // count: broadcast_load
        sum += load_pack<4>(in.floats + 4 * i).of[1];              // count: pack_load
        sum += in.bytes[i];                                        // count: byte_load
        sum += static_cast<float>(in.doubles[i]);                  // count: double_load
        if (lane < 16) sum += in.floats[i + 64];              // count: half_of_the_lanes
        out[i] = sum;                                              // count: coalesced_store
        block_barrier();
    }
}

__global__ void shared_patterns(float* out) {
    TILEFUSE_SHARED(float[32][32], tile);
    TILEFUSE_SHARED(float[32][33], padded);
    TILEFUSE_SHARED(double[64], doubles);
    TILEFUSE_SHARED(unsigned short[32][72], halves);
    TILEFUSE_SHARED(unsigned short[32][64], close_halves);
    const int i = threadIdx.x, lane = i % 32;
    for (int j = i; j < 32 * 32; j += 64) tile[j / 32][j % 32] = padded[j / 32][j % 32] = 1.0f;
    for (int j = i; j < 32 * 64; j += 64) halves[j / 64][j % 64] = close_halves[j / 64][j % 64] = 1;
    doubles[i] = 1.0;
    block_barrier();
    float sum = 0;
    uint32_t f[4];
    for (int round = 0; round < rounds; round++) {
        sum += tile[round][lane];                                  // count: shared_rows
        sum += tile[round][7];                                     // count: shared_broadcast
        sum += tile[lane / 16][2 * lane % 32];                     // count: shared_two_way
        sum += tile[lane][round];                                  // count: shared_columns
        sum += padded[lane][round];                                // count: shared_padded_columns
        sum += load_pack<4>(&tile[lane / 8][lane % 8 * 4]).of[0];  // count: shared_packs
        sum += load_pack<4>(&tile[lane][0]).of[0];                 // count: shared_packs_apart
        sum += static_cast<float>(doubles[i]);                     // count: shared_doubles
        load_matrices(f, &halves[lane % 16][lane / 16 * 8], false);  // count: shared_matrices
        load_matrices(f, &close_halves[lane][0], false);           // count: shared_matrices_conflict
        block_barrier();
    }
    out[i] = sum + static_cast<float>(f[0]);
}

// Half of the lanes come to the load once more than the others: what tells its passes apart is the shuffle between.
__global__ void uneven_passes(Input in, float* out) {
    const int lane = threadIdx.x;
    float sum = 0;
    for (int pass = in.zero; pass < 2; pass++) {
        if (pass > 0 || lane < 16) sum += in.floats[pass > 0 ? 64 : lane];
        sum += shuffle_xor(sum, 16);
    }
    out[lane] = sum;
}

}  // namespace

int main() {
    Array<float> floats(std::vector<float>(512, 1.0f)), out(64);
    Array<double> doubles(std::vector<double>(64, 1.0));
    Array<unsigned char> bytes(small_integers<unsigned char>(64, 1));
    launch(TILEFUSE_KERNEL(global_patterns), 1, 64, 0, nullptr, Input{floats, doubles, bytes, 0}, out);
    EXPECT(simt::counts().size() == 1);
    simt::reset_counts();
    EXPECT(simt::counts().empty());
    launch(TILEFUSE_KERNEL(global_patterns), 1, 64, 0, nullptr, Input{floats, doubles, bytes, 0}, out);
    launch(TILEFUSE_KERNEL(shared_patterns), 1, 64, 0, nullptr, out);
    const auto counts = simt::counts();
    EXPECT(counts.size() == 2 && counts[0].kernel == "global_patterns" && counts[1].kernel == "shared_patterns");
    EXPECT(counts[0].block.x == 64 && counts[0].grid.x == 1);

    for (const auto& launched : counts) {
        for (const auto& a : launched.accesses) {
            std::printf("%d %lu %lu %lu\n", a.source.line, a.accesses, a.transfers, a.ideal);
        }
    }
    const auto total = counts[0].total(false);
    EXPECT(counts[0].total(true).accesses == 0 && total.accesses == 6 * 10);

    simt::reset_counts();
    launch(TILEFUSE_KERNEL(uneven_passes), 1, 32, 0, nullptr, Input{floats, doubles, bytes, 0}, out);
    const auto uneven = simt::counts()[0].total(false);
    EXPECT(uneven.accesses == 2 + 1 && uneven.transfers == 2 + 1 + 4 && uneven.ideal == uneven.transfers);
}
