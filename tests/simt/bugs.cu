// Kernels with a planted bug each, and what must be found: BUG(name, kind). A line that may be reported has the comment
// "here: name"; of a race there are two, and the finding names both. PLAIN_BUG: the plain build finds it as well.
#include "harness.h"

#define BUG(name, kind) CASE(name)
#define PLAIN_BUG(name, kind) CASE(name)

namespace {

constexpr int n = 256;
const std::vector<float> ones(n, 1.0f);

// ---- races within a block -------------------------------------------------------------------------------------------

__global__ void missing_barrier_kernel(float* y) {
    TILEFUSE_SHARED(float[n], x);
    x[threadIdx.x] = 1.0f;                        // here: missing_barrier
    y[threadIdx.x] = x[(threadIdx.x + 40) % n];   // here: missing_barrier
}
BUG(missing_barrier, "race|uninitialised") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(missing_barrier_kernel), 1, n, 0, nullptr, y);
}

__global__ void missing_barrier_filled_kernel(float* y) {
    TILEFUSE_SHARED(float[n], x);
    x[threadIdx.x] = 0.0f;
    block_barrier();
    x[threadIdx.x] = 1.0f;                        // here: missing_barrier_filled
    y[threadIdx.x] = x[(threadIdx.x + 40) % n];   // here: missing_barrier_filled
}
BUG(missing_barrier_filled, "race") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(missing_barrier_filled_kernel), 1, n, 0, nullptr, y);
}

// A tile is loaded again before everybody has used it.
__global__ void reused_tile_kernel(const float* x, float* y) {
    TILEFUSE_SHARED(float[n], tile);
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        tile[threadIdx.x] = x[threadIdx.x];         // here: reused_tile
        block_barrier();
        sum += tile[n - 1 - threadIdx.x];           // here: reused_tile
    }
    y[threadIdx.x] = sum;
}
BUG(reused_tile, "race") {
    Array<float> x(ones), y(n);
    launch(TILEFUSE_KERNEL(reused_tile_kernel), 1, n, 0, nullptr, x, y);
}

// Two buffers and one barrier a step are enough; with the wrong buffer they aren't.
__global__ void double_buffer_kernel(const float* x, float* y) {
    TILEFUSE_SHARED(float[2][n], tile);
    tile[0][threadIdx.x] = x[threadIdx.x];
    block_barrier();
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += tile[i % 2][n - 1 - threadIdx.x];           // here: double_buffer
        tile[i % 2][threadIdx.x] = x[threadIdx.x] + i;     // here: double_buffer
        block_barrier();
    }
    y[threadIdx.x] = sum;
}
BUG(double_buffer, "race|uninitialised") {
    Array<float> x(ones), y(n);
    launch(TILEFUSE_KERNEL(double_buffer_kernel), 1, n, 0, nullptr, x, y);
}

__global__ void write_write_kernel(float* y) {
    TILEFUSE_SHARED(float[n], x);
    x[threadIdx.x / 2] = threadIdx.x;  // here: write_write
    block_barrier();
    y[threadIdx.x] = x[threadIdx.x / 2];
}
BUG(write_write, "race") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(write_write_kernel), 1, n, 0, nullptr, y);
}

// Each thread's own byte, but for the last of each word.
__global__ void byte_race_kernel(unsigned char* y) {
    TILEFUSE_SHARED(unsigned char[n], x);
    x[threadIdx.x % 4 == 3 ? threadIdx.x - 1 : threadIdx.x] = 1;  // here: byte_race
    block_barrier();
    y[threadIdx.x] = x[threadIdx.x / 4 * 4];
}
BUG(byte_race, "race") {
    Array<unsigned char> y(n);
    launch(TILEFUSE_KERNEL(byte_race_kernel), 1, n, 0, nullptr, y);
}

__global__ void missing_warp_barrier_kernel(int* y) {
    TILEFUSE_SHARED(int[32], x);
    x[threadIdx.x] = 0;
    warp_barrier();
    x[threadIdx.x] = threadIdx.x;       // here: missing_warp_barrier
    y[threadIdx.x] = x[31 - threadIdx.x];  // here: missing_warp_barrier
}
BUG(missing_warp_barrier, "race") {
    Array<int> y(32);
    launch(TILEFUSE_KERNEL(missing_warp_barrier_kernel), 1, 32, 0, nullptr, y);
}

// Lanes of one half meet; the other half's data is read.
__global__ void half_warp_barrier_kernel(int* y) {
    TILEFUSE_SHARED(int[32], x);
    x[threadIdx.x] = 0;
    warp_barrier();
    x[threadIdx.x] = threadIdx.x;          // here: half_warp_barrier
    warp_barrier(threadIdx.x < 16 ? 0xffffu : 0xffff0000u);
    y[threadIdx.x] = x[31 - threadIdx.x];  // here: half_warp_barrier
}
BUG(half_warp_barrier, "race") {
    Array<int> y(32);
    launch(TILEFUSE_KERNEL(half_warp_barrier_kernel), 1, 32, 0, nullptr, y);
}

__global__ void warp_barrier_for_block_kernel(int* y) {
    TILEFUSE_SHARED(int[64], x);
    x[threadIdx.x] = 0;
    block_barrier();
    x[threadIdx.x] = threadIdx.x;          // here: warp_barrier_for_block
    warp_barrier();
    y[threadIdx.x] = x[63 - threadIdx.x];  // here: warp_barrier_for_block
}
BUG(warp_barrier_for_block, "race") {
    Array<int> y(64);
    launch(TILEFUSE_KERNEL(warp_barrier_for_block_kernel), 1, 64, 0, nullptr, y);
}

// A shuffle orders no memory.
__global__ void shuffle_for_barrier_kernel(int* y) {
    TILEFUSE_SHARED(int[32], x);
    x[threadIdx.x] = 0;
    warp_barrier();
    x[threadIdx.x] = threadIdx.x;                       // here: shuffle_for_barrier
    const int from = shuffle(31 - static_cast<int>(threadIdx.x), threadIdx.x);
    y[threadIdx.x] = x[from];                           // here: shuffle_for_barrier
}
BUG(shuffle_for_barrier, "race") {
    Array<int> y(32);
    launch(TILEFUSE_KERNEL(shuffle_for_barrier_kernel), 1, 32, 0, nullptr, y);
}

__global__ void atomic_and_plain_kernel(int* y) {
    TILEFUSE_SHARED(int, count);
    if (threadIdx.x == 0) count = 0;      // here: atomic_and_plain
    atomic_add(&count, 1);                // here: atomic_and_plain
    block_barrier();
    y[threadIdx.x] = count;
}
BUG(atomic_and_plain, "race|uninitialised") {
    Array<int> y(n);
    launch(TILEFUSE_KERNEL(atomic_and_plain_kernel), 1, n, 0, nullptr, y);
}

__global__ void global_race_in_block_kernel(float* y) {
    y[threadIdx.x] = 1.0f;                       // here: global_race_in_block
    y[threadIdx.x] += y[n - 1 - threadIdx.x];    // here: global_race_in_block
}
BUG(global_race_in_block, "race") {
    Array<float> y(ones);
    launch(TILEFUSE_KERNEL(global_race_in_block_kernel), 1, n, 0, nullptr, y);
}

// ---- races between blocks -------------------------------------------------------------------------------------------

__global__ void blocks_write_kernel(float* y) {
    y[threadIdx.x] = blockIdx.x;  // here: blocks_write
}
BUG(blocks_write, "race") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(blocks_write_kernel), 2, n, 0, nullptr, y);
}

// In place, with a border that the neighbouring block writes.
__global__ void blocks_read_kernel(float* x) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const float left = i > 0 ? x[i - 1] : 0.0f;  // here: blocks_read
    block_barrier();
    x[i] += left;                                // here: blocks_read
}
BUG(blocks_read, "race") {
    Array<float> x(ones);
    launch(TILEFUSE_KERNEL(blocks_read_kernel), n / 64, 64, 0, nullptr, x);
}

__global__ void unfinished_sum_kernel(const float* x, float* sum) {
    if (threadIdx.x == 0) *sum += x[blockIdx.x];  // here: unfinished_sum
}
BUG(unfinished_sum, "race") {
    Array<float> x(ones), sum(std::vector<float>(1));
    launch(TILEFUSE_KERNEL(unfinished_sum_kernel), 8, 32, 0, nullptr, x, sum);
}

// ---- bounds ---------------------------------------------------------------------------------------------------------

__global__ void tile_off_by_one_kernel(float* y) {
    TILEFUSE_SHARED(float[8][32], tile);
    const int row = threadIdx.x / 32, column = threadIdx.x % 32;
    tile[row][column] = 1.0f;
    block_barrier();
    y[threadIdx.x] = tile[row][column] + (&tile[0][0])[row * 32 + column + 1];  // here: tile_off_by_one
}
BUG(tile_off_by_one, "out of bounds") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(tile_off_by_one_kernel), 1, n, 0, nullptr, y);
}

__global__ void past_shared_kernel(float* y) {
    TILEFUSE_SHARED(float[64], x);
    float* p = x;
    for (int i = threadIdx.x; i <= 64; i += 32) p[i] = 1.0f;  // here: past_shared
    y[threadIdx.x] = 1.0f;
}
PLAIN_BUG(past_shared, "out of bounds") {
    Array<float> y(32);
    launch(TILEFUSE_KERNEL(past_shared_kernel), 1, 32, 0, nullptr, y);
}

__global__ void past_dynamic_kernel(float* y) {
    float* x = dynamic_shared<float>();
    x[threadIdx.x] = 1.0f;  // here: past_dynamic
    y[threadIdx.x] = 1.0f;
}
PLAIN_BUG(past_dynamic, "out of bounds") {
    Array<float> y(32);
    launch(TILEFUSE_KERNEL(past_dynamic_kernel), 1, 32, 31 * 4, nullptr, y);
}

__global__ void past_end_kernel(float* y, int size) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= size) y[i] = 1.0f;  // here: past_end
}
PLAIN_BUG(past_end, "out of bounds") {
    Array<float> y(n - 6);
    launch(TILEFUSE_KERNEL(past_end_kernel), 4, 64, 0, nullptr, y, n - 6);
}

__global__ void before_beginning_kernel(float* y) {
    y[static_cast<int>(threadIdx.x) - 1] = 1.0f;  // here: before_beginning
}
PLAIN_BUG(before_beginning, "out of bounds") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(before_beginning_kernel), 1, n, 0, nullptr, y);
}

__global__ void read_past_end_kernel(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x + 1];  // here: read_past_end
}
BUG(read_past_end, "out of bounds") {
    Array<float> x(ones), y(n);
    launch(TILEFUSE_KERNEL(read_past_end_kernel), 1, n, 0, nullptr, x, y);
}

__global__ void pack_past_end_kernel(const float* x, float* y, int size) {
    for (int i = threadIdx.x * 4; i < size; i += blockDim.x * 4) {
        store_pack(y + i, load_pack<4>(x + i));  // here: pack_past_end
    }
}
BUG(pack_past_end, "out of bounds") {
    Array<float> x(ones), y(n - 1);
    launch(TILEFUSE_KERNEL(pack_past_end_kernel), 1, 32, 0, nullptr, x, y, n - 1);
}

__global__ void copy_past_end_kernel(const float* x, float* y) {
    TILEFUSE_SHARED(float[64][4], tile);
    copy_async(tile[threadIdx.x], x + 4 * threadIdx.x);  // here: copy_past_end
    copy_async_commit();
    copy_async_wait<0>();
    y[threadIdx.x] = tile[threadIdx.x][0];
}
BUG(copy_past_end, "out of bounds") {
    Array<float> x(std::vector<float>(4 * 64 - 2, 1.0f)), y(64);
    launch(TILEFUSE_KERNEL(copy_past_end_kernel), 1, 64, 0, nullptr, x, y);
}

// Padding that makes the static arrays too many.
__global__ void too_much_shared_kernel(float* y) {
    TILEFUSE_SHARED(float[64][96], a);
    TILEFUSE_SHARED(float[64][97], b);  // here: too_much_shared
    a[0][threadIdx.x] = b[0][threadIdx.x] = 1.0f;
    y[threadIdx.x] = a[0][threadIdx.x];
}
PLAIN_BUG(too_much_shared, "shared memory") {
    Array<float> y(32);
    launch(TILEFUSE_KERNEL(too_much_shared_kernel), 1, 32, 0, nullptr, y);
}

// ---- alignment ------------------------------------------------------------------------------------------------------

__global__ void misaligned_load_kernel(const float* x, float* y) {
    const auto four = load_pack<4>(x + 4 * threadIdx.x + 1);  // here: misaligned_load
    y[threadIdx.x] = four.of[0] + four.of[3];
}
PLAIN_BUG(misaligned_load, "misaligned") {
    Array<float> x(std::vector<float>(4 * n + 4, 1.0f)), y(n);
    launch(TILEFUSE_KERNEL(misaligned_load_kernel), 1, n, 0, nullptr, x, y);
}

// Rows of 33 floats are not multiples of 16 bytes.
__global__ void misaligned_row_kernel(float* y) {
    TILEFUSE_SHARED(float[8][33], tile);
    for (int i = threadIdx.x; i < 8 * 33; i += 32) tile[i / 33][i % 33] = 1.0f;
    block_barrier();
    const auto two = load_pack<2>(&tile[threadIdx.x % 8][threadIdx.x / 8 * 2]);  // here: misaligned_row
    y[threadIdx.x] = two.of[0] + two.of[1];
}
PLAIN_BUG(misaligned_row, "misaligned") {
    Array<float> y(32);
    launch(TILEFUSE_KERNEL(misaligned_row_kernel), 1, 32, 0, nullptr, y);
}

__global__ void misaligned_cast_kernel(const unsigned char* x, int* y) {
    y[threadIdx.x] = *reinterpret_cast<const int*>(x + threadIdx.x);  // here: misaligned_cast
}
BUG(misaligned_cast, "misaligned") {
    Array<unsigned char> x(small_integers<unsigned char>(n, 1));
    Array<int> y(32);
    launch(TILEFUSE_KERNEL(misaligned_cast_kernel), 1, 32, 0, nullptr, x, y);
}

__global__ void misaligned_matrix_kernel(uint32_t* y) {
    TILEFUSE_SHARED(unsigned short[16][20], x);  // rows of 40 bytes
    for (int i = threadIdx.x; i < 16 * 20; i += 32) x[i / 20][i % 20] = 1;
    warp_barrier();
    uint32_t f[4];
    load_matrices(f, &x[threadIdx.x % 16][threadIdx.x / 16 * 8], false);  // here: misaligned_matrix
    for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = f[i];
}
PLAIN_BUG(misaligned_matrix, "misaligned") {
    Array<uint32_t> y(128);
    launch(TILEFUSE_KERNEL(misaligned_matrix_kernel), 1, 32, 0, nullptr, y);
}

// ---- memory that holds nothing, or is not the device's --------------------------------------------------------------

__global__ void uninitialised_shared_kernel(float* y) {
    TILEFUSE_SHARED(float[n], sums);
    sums[threadIdx.x] += 1.0f;  // here: uninitialised_shared
    y[threadIdx.x] = sums[threadIdx.x];
}
BUG(uninitialised_shared, "uninitialised") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(uninitialised_shared_kernel), 1, n, 0, nullptr, y);
}

// Of each pair of 16-bit elements, one is written.
__global__ void uninitialised_half_kernel(float* y) {
    TILEFUSE_SHARED(__nv_bfloat16[64], x);
    x[2 * threadIdx.x] = __float2bfloat16(1.0f);
    block_barrier();
    y[threadIdx.x] = __bfloat162float(x[2 * threadIdx.x + 1]);  // here: uninitialised_half
}
BUG(uninitialised_half, "uninitialised") {
    Array<float> y(32);
    launch(TILEFUSE_KERNEL(uninitialised_half_kernel), 1, 32, 0, nullptr, y);
}

// What the block before left in shared memory is not the next one's.
__global__ void left_by_other_block_kernel(float* y, unsigned first) {
    TILEFUSE_SHARED(float[32], x);
    if (blockIdx.x == first) x[threadIdx.x] = 1.0f;
    y[blockIdx.x * 32 + threadIdx.x] = x[threadIdx.x];  // here: left_by_other_block
}
BUG(left_by_other_block, "uninitialised") {
    Array<float> y(64);
    launch(TILEFUSE_KERNEL(left_by_other_block_kernel), 2, 32, 0, nullptr, y, 0);
}

__global__ void uninitialised_global_kernel(const float* x, float* y) {
    y[threadIdx.x] += x[threadIdx.x];  // here: uninitialised_global
}
BUG(uninitialised_global, "uninitialised") {
    Array<float> x(ones), y(n);
    launch(TILEFUSE_KERNEL(uninitialised_global_kernel), 1, n, 0, nullptr, x, y);
}

__global__ void host_pointer_kernel(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];  // here: host_pointer
}
BUG(host_pointer, "host pointer") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(host_pointer_kernel), 1, n, 0, nullptr, ones.data(), y);
}

struct Arguments {
    const float* x;
    float* y;
};
__global__ void host_struct_kernel(const Arguments* arguments) {
    const Arguments& a = *arguments;
    a.y[threadIdx.x] = a.x[threadIdx.x];  // here: host_struct
}
BUG(host_struct, "host pointer") {
    Array<float> x(ones), y(n);
    const Arguments arguments{x, y};
    launch(TILEFUSE_KERNEL(host_struct_kernel), 1, n, 0, nullptr, &arguments);
}

__global__ void null_pointer_kernel(const float* bias, float* y) {
    y[threadIdx.x] = 1.0f + bias[threadIdx.x];  // here: null_pointer
}
BUG(null_pointer, "host pointer") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(null_pointer_kernel), 1, n, 0, nullptr, nullptr, y);
}

__global__ void use_after_free_kernel(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];  // here: use_after_free
}
BUG(use_after_free, "use after free") {
    Array<float> y(n);
    float* stale;
    {
        Array<float> x(ones);
        stale = x;
    }
    launch(TILEFUSE_KERNEL(use_after_free_kernel), 1, n, 0, nullptr, stale, y);
}

__global__ void others_local_memory_kernel(int* y) {
    TILEFUSE_SHARED(int* [64], addresses);
    int mine[4] = {static_cast<int>(threadIdx.x), 1, 2, 3};
    addresses[threadIdx.x] = mine;
    block_barrier();
    y[threadIdx.x] = addresses[63 - threadIdx.x][threadIdx.x % 4];  // here: others_local_memory
    block_barrier();
}
BUG(others_local_memory, "out of bounds") {
    Array<int> y(64);
    launch(TILEFUSE_KERNEL(others_local_memory_kernel), 1, 64, 0, nullptr, y);
}

// ---- barriers -------------------------------------------------------------------------------------------------------

__global__ void exit_before_barrier_kernel(float* y, int size) {
    if (static_cast<int>(threadIdx.x) >= size) return;
    TILEFUSE_SHARED(float[n], x);
    x[threadIdx.x] = 1.0f;
    block_barrier();  // here: exit_before_barrier
    y[threadIdx.x] = x[size - 1 - threadIdx.x];
}
PLAIN_BUG(exit_before_barrier, "divergent barrier") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(exit_before_barrier_kernel), 1, n, 0, nullptr, y, n - 1);
}

__global__ void barrier_in_branch_kernel(float* y) {
    TILEFUSE_SHARED(float[n], x);
    x[threadIdx.x] = 1.0f;
    if (threadIdx.x < 100) {
        block_barrier();  // here: barrier_in_branch
        y[threadIdx.x] = x[99 - threadIdx.x];
    }
}
PLAIN_BUG(barrier_in_branch, "divergent barrier") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(barrier_in_branch_kernel), 1, n, 0, nullptr, y);
}

__global__ void two_barriers_kernel(float* y) {
    TILEFUSE_SHARED(float[n], x);
    x[threadIdx.x] = 1.0f;
    if (threadIdx.x % 2 == 0) {
        block_barrier();  // here: two_barriers
        y[threadIdx.x] = x[n - 1 - threadIdx.x];
    } else {
        block_barrier();  // here: two_barriers
        y[threadIdx.x] = -x[n - 1 - threadIdx.x];
    }
}
PLAIN_BUG(two_barriers, "divergent barrier") {
    Array<float> y(n);
    launch(TILEFUSE_KERNEL(two_barriers_kernel), 1, n, 0, nullptr, y);
}

// As many rounds as the thread has elements.
__global__ void uneven_rounds_kernel(const float* x, float* y, int size) {
    TILEFUSE_SHARED(float[128], tile);
    for (int i = threadIdx.x; i < size; i += 128) {
        tile[threadIdx.x] = x[i];
        block_barrier();  // here: uneven_rounds
        y[i] = tile[127 - threadIdx.x];
        block_barrier();  // here: uneven_rounds
    }
}
PLAIN_BUG(uneven_rounds, "divergent barrier") {
    Array<float> x(ones), y(n);
    launch(TILEFUSE_KERNEL(uneven_rounds_kernel), 1, 128, 0, nullptr, x, y, 200);
}

// ---- warps ----------------------------------------------------------------------------------------------------------

__global__ void lane_not_in_mask_kernel(int* y) {
    y[threadIdx.x] = 0;
    if (threadIdx.x < 16) y[threadIdx.x] = shuffle_xor(1, 16, 0xffffu);  // here: lane_not_in_mask
}
PLAIN_BUG(lane_not_in_mask, "warp mask") {
    Array<int> y(32);
    launch(TILEFUSE_KERNEL(lane_not_in_mask_kernel), 1, 32, 0, nullptr, y);
}

__global__ void not_in_own_mask_kernel(unsigned* y) {
    y[threadIdx.x] = ballot(true, 0xfffffffeu);  // here: not_in_own_mask
}
PLAIN_BUG(not_in_own_mask, "warp mask") {
    Array<unsigned> y(32);
    launch(TILEFUSE_KERNEL(not_in_own_mask_kernel), 1, 32, 0, nullptr, y);
}

__global__ void exited_lane_kernel(int* y) {
    if (threadIdx.x >= 24) return;
    int sum = 1;
    for (int step = 16; step > 0; step /= 2) sum += shuffle_xor(sum, step);  // here: exited_lane
    y[threadIdx.x] = sum;
}
PLAIN_BUG(exited_lane, "warp mask") {
    Array<int> y(32);
    launch(TILEFUSE_KERNEL(exited_lane_kernel), 1, 32, 0, nullptr, y);
}

__global__ void shuffle_in_branch_kernel(int* y) {
    int x = threadIdx.x;
    if (threadIdx.x < 16) x = shuffle(x, 3);  // here: shuffle_in_branch
    block_barrier();
    y[threadIdx.x] = x;
}
PLAIN_BUG(shuffle_in_branch, "deadlock") {
    Array<int> y(32);
    launch(TILEFUSE_KERNEL(shuffle_in_branch_kernel), 1, 32, 0, nullptr, y);
}

__global__ void different_masks_kernel(int* y) {
    y[threadIdx.x] = shuffle(5, 8, threadIdx.x < 16 ? 0x0000ffffu : 0xffffff00u);  // here: different_masks
}
PLAIN_BUG(different_masks, "deadlock|warp mask") {
    Array<int> y(32);
    launch(TILEFUSE_KERNEL(different_masks_kernel), 1, 32, 0, nullptr, y);
}

__global__ void different_operations_kernel(int* y) {
    y[threadIdx.x] = 0;
    if (threadIdx.x % 2) {
        y[threadIdx.x] = shuffle_xor(1, 1);  // here: different_operations
    } else {
        warp_barrier();                      // here: different_operations
    }
}
PLAIN_BUG(different_operations, "deadlock") {
    Array<int> y(32);
    launch(TILEFUSE_KERNEL(different_operations_kernel), 1, 32, 0, nullptr, y);
}

__global__ void part_of_a_warp_kernel(float* y) {
    float d[4] = {};
    const uint32_t a[4] = {}, b[2] = {};
    mma_tf32_m16n8k8(d, a, b);  // here: part_of_a_warp
    y[threadIdx.x] = d[0];
}
PLAIN_BUG(part_of_a_warp, "warp mask") {
    Array<float> y(32);
    launch(TILEFUSE_KERNEL(part_of_a_warp_kernel), 1, 16, 0, nullptr, y);
}

// ---- asynchronous copies --------------------------------------------------------------------------------------------

__global__ void missing_wait_kernel(const float* x, float* y) {
    TILEFUSE_SHARED(float[64][4], tile);
    copy_async(tile[threadIdx.x], x + 4 * threadIdx.x);
    copy_async_commit();
    block_barrier();
    y[threadIdx.x] = tile[63 - threadIdx.x][0];  // here: missing_wait
}
BUG(missing_wait, "pending copy") {
    Array<float> x(ones), y(64);
    launch(TILEFUSE_KERNEL(missing_wait_kernel), 1, 64, 0, nullptr, x, y);
}

__global__ void missing_commit_kernel(const float* x, float* y) {
    TILEFUSE_SHARED(float[64][4], tile);
    copy_async(tile[threadIdx.x], x + 4 * threadIdx.x);
    copy_async_wait<0>();
    block_barrier();
    y[threadIdx.x] = tile[63 - threadIdx.x][0];  // here: missing_commit
}
BUG(missing_commit, "pending copy") {
    Array<float> x(ones), y(64);
    launch(TILEFUSE_KERNEL(missing_commit_kernel), 1, 64, 0, nullptr, x, y);
}

__global__ void wait_without_barrier_kernel(const float* x, float* y) {
    TILEFUSE_SHARED(float[64][4], tile);
    tile[threadIdx.x][0] = 0.0f;
    block_barrier();
    copy_async(tile[threadIdx.x], x + 4 * threadIdx.x);  // here: wait_without_barrier
    copy_async_commit();
    copy_async_wait<0>();
    y[threadIdx.x] = tile[63 - threadIdx.x][0];          // here: wait_without_barrier
}
BUG(wait_without_barrier, "race") {
    Array<float> x(ones), y(64);
    launch(TILEFUSE_KERNEL(wait_without_barrier_kernel), 1, 64, 0, nullptr, x, y);
}

// The barrier comes before the wait, which makes only the thread's own copies visible.
__global__ void barrier_before_wait_kernel(const float* x, float* y) {
    TILEFUSE_SHARED(float[64][4], tile);
    copy_async(tile[threadIdx.x], x + 4 * threadIdx.x);  // here: barrier_before_wait
    copy_async_commit();
    block_barrier();
    copy_async_wait<0>();
    y[threadIdx.x] = tile[63 - threadIdx.x][0];          // here: barrier_before_wait
}
BUG(barrier_before_wait, "race|pending copy") {
    Array<float> x(ones), y(64);
    launch(TILEFUSE_KERNEL(barrier_before_wait_kernel), 1, 64, 0, nullptr, x, y);
}

// Two stages are under way, and the wait leaves one too many.
__global__ void wait_for_too_few_kernel(const float* x, float* y) {
    TILEFUSE_SHARED(float[2][64][4], tile);
    float sum = 0;
    copy_async(tile[0][threadIdx.x], x + 4 * threadIdx.x);
    copy_async_commit();
    for (int i = 0; i < 4; i++) {
        if (i < 3) {
            copy_async(tile[(i + 1) % 2][threadIdx.x], x + 4 * threadIdx.x);
            copy_async_commit();
        }
        copy_async_wait<1>();
        block_barrier();
        sum += tile[i % 2][63 - threadIdx.x][0];  // here: wait_for_too_few
        block_barrier();
    }
    y[threadIdx.x] = sum;
}
BUG(wait_for_too_few, "pending copy") {
    Array<float> x(ones), y(64);
    launch(TILEFUSE_KERNEL(wait_for_too_few_kernel), 1, 64, 0, nullptr, x, y);
}

// A stage is fetched into the buffer that others still read.
__global__ void copy_into_used_buffer_kernel(const float* x, float* y) {
    TILEFUSE_SHARED(float[2][64][4], tile);
    float sum = 0;
    copy_async(tile[0][threadIdx.x], x + 4 * threadIdx.x);
    copy_async_commit();
    for (int i = 0; i < 4; i++) {
        copy_async_wait<0>();
        block_barrier();
        sum += tile[i % 2][63 - threadIdx.x][0];                             // here: copy_into_used_buffer
        if (i < 3) copy_async(tile[i % 2][threadIdx.x], x + 4 * threadIdx.x);  // here: copy_into_used_buffer
        copy_async_commit();
    }
    y[threadIdx.x] = sum;
}
BUG(copy_into_used_buffer, "race|pending copy") {
    Array<float> x(ones), y(64);
    launch(TILEFUSE_KERNEL(copy_into_used_buffer_kernel), 1, 64, 0, nullptr, x, y);
}

__global__ void copy_to_global_kernel(const float* x, float* y) {
    copy_async(y + 4 * threadIdx.x, x + 4 * threadIdx.x);  // here: copy_to_global
    copy_async_commit();
    copy_async_wait<0>();
}
PLAIN_BUG(copy_to_global, "out of bounds") {
    Array<float> x(ones), y(n);
    launch(TILEFUSE_KERNEL(copy_to_global_kernel), 1, 32, 0, nullptr, x, y);
}

// ---- a launch after a finding works ---------------------------------------------------------------------------------

__global__ void right_kernel(float* y) {
    TILEFUSE_SHARED(float[128], x);
    x[threadIdx.x] = threadIdx.x;
    block_barrier();
    y[threadIdx.x] = shuffle_xor(x[127 - threadIdx.x], 1);
}
void right_launch() {
    Array<float> y(128);
    launch(TILEFUSE_KERNEL(right_kernel), 2 - 1, 128, 0, nullptr, y);
    const auto r = y.host();
    for (int i = 0; i < 128; i++) EXPECT(r[i] == static_cast<float>(127 - (i ^ 1)));
}

}  // namespace

// Prints, for each case, its name, the finding's kind, line and message; "none" if there was none.
int main(int count, char** names) {
    for (int i = 1; i < count; i++) {
        std::printf("%s|", names[i]);
        try {
            cases().at(names[i])();
            std::printf("none|0|\n");
        } catch (const simt::Finding& finding) {
            std::printf("%s|%d|%s\n", finding.kind.c_str(), finding.source.line, finding.what());
        }
        right_launch();
        EXPECT(simt::live_allocations().count == 0);
    }
}
