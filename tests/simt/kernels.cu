// Right kernels: right results in every order, and no finding. Runs the cases that it is asked for.
#include <algorithm>
#include <cmath>

#include "harness.h"

namespace {

// ---- matrix products ------------------------------------------------------------------------------------------------

// c = a b, [m, k] and [k, n], any sizes: tiles of 32 x 32, four rows of a tile a thread.
template <class T> __global__ void tiled_product(const T* a, const T* b, T* c, int m, int n, int k) {
    TILEFUSE_SHARED(T[32][33], a_tile);
    TILEFUSE_SHARED(T[32][32], b_tile);
    const int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 32, column = blockIdx.x * 32;
    T sum[4] = {};
    for (int k0 = 0; k0 < k; k0 += 32) {
        for (int i = y; i < 32; i += 8) {
            a_tile[i][x] = row + i < m && k0 + x < k ? a[(row + i) * k + k0 + x] : T(0);
            b_tile[i][x] = k0 + i < k && column + x < n ? b[(k0 + i) * n + column + x] : T(0);
        }
        block_barrier();
        for (int p = 0; p < 32; p++) {
            for (int i = 0; i < 4; i++) sum[i] += a_tile[y + 8 * i][p] * b_tile[p][x];
        }
        block_barrier();
    }
    for (int i = 0; i < 4; i++) {
        if (row + y + 8 * i < m && column + x < n) c[(row + y + 8 * i) * n + column + x] = sum[i];
    }
}

template <class T> std::vector<T> product(const std::vector<T>& a, const std::vector<T>& b, int m, int n, int k) {
    std::vector<T> c(static_cast<size_t>(m) * n);
    for (int i = 0; i < m; i++) {
        for (int p = 0; p < k; p++) {
            for (int j = 0; j < n; j++) c[i * n + j] += a[i * k + p] * b[p * n + j];
        }
    }
    return c;
}

template <class T> void check_tiled_product(int m, int n, int k) {
    const auto a = small_integers<T>(m * k, 1), b = small_integers<T>(k * n, 2);
    Array<T> da(a), db(b), dc(m * n);
    launch(TILEFUSE_KERNEL(tiled_product<T>), dim3((n + 31) / 32, (m + 31) / 32), dim3(32, 8), 0, nullptr, da, db, dc,
           m, n, k);
    EXPECT(dc.host() == product(a, b, m, n, k));
}

CASE(tiled_sgemm) {
    check_tiled_product<float>(70, 50, 37);
    check_tiled_product<float>(32, 32, 32);
    check_tiled_product<double>(33, 31, 65);
}

// One warp computes a tile of 16 x 8 of c with tf32: a [m, k], b [k, n]; m, n, k multiples of 16, 8, 8.
__global__ void tf32_product(const float* a, const float* b, float* c, int n, int k) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4, row = blockIdx.y * 16, column = blockIdx.x * 8;
    float d[4] = {};
    for (int p = 0; p < k; p += 8) {
        const uint32_t x[4] = {to_tf32(a[(row + g) * k + p + t]), to_tf32(a[(row + g + 8) * k + p + t]),
                               to_tf32(a[(row + g) * k + p + t + 4]), to_tf32(a[(row + g + 8) * k + p + t + 4])};
        const uint32_t y[2] = {to_tf32(b[(p + t) * n + column + g]), to_tf32(b[(p + t + 4) * n + column + g])};
        mma_tf32_m16n8k8(d, x, y);
    }
    for (int i = 0; i < 4; i++) c[(row + g + i / 2 * 8) * n + column + 2 * t + i % 2] = d[i];
}

CASE(tf32_mma) {
    const int m = 48, n = 40, k = 56;
    const auto a = small_integers<float>(m * k, 1), b = small_integers<float>(k * n, 2);
    Array<float> da(a), db(b), dc(m * n);
    launch(TILEFUSE_KERNEL(tf32_product), dim3(n / 8, m / 16), 32, 0, nullptr, da, db, dc, n, k);
    EXPECT(dc.host() == product(a, b, m, n, k));
}

// A block of 64 x 64 of c, four warps of 32 x 32 each, 16-bit operands through two buffers of shared memory that
// asynchronous copies fill: a [m, k], b [k, n]; m, n, k multiples of 64, 64, 32.
constexpr int block_k = 32, a_stride = block_k + 8, b_stride = 64 + 8;  // 16 bytes more: rows start in different banks

template <class T> __device__ void copy_tiles(T (*a_tile)[a_stride], T (*b_tile)[b_stride], const T* a, const T* b,
                                              int n, int k, int k0) {
    for (int i = threadIdx.x; i < 64 * block_k / 8; i += 128) {
        const int row = i / (block_k / 8), column = i % (block_k / 8) * 8;
        copy_async(&a_tile[row][column], &a[(blockIdx.y * 64 + row) * k + k0 + column]);
    }
    for (int i = threadIdx.x; i < block_k * 64 / 8; i += 128) {
        const int row = i / 8, column = i % 8 * 8;
        copy_async(&b_tile[row][column], &b[(k0 + row) * n + blockIdx.x * 64 + column]);
    }
    copy_async_commit();
}

template <class T> __global__ void half_product(const T* a, const T* b, float* c, int n, int k) {
    TILEFUSE_SHARED(T[2][64][a_stride], a_tile);
    TILEFUSE_SHARED(T[2][block_k][b_stride], b_tile);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = warp / 2 * 32, column = warp % 2 * 32;
    float d[2][4][4] = {};
    copy_tiles(a_tile[0], b_tile[0], a, b, n, k, 0);
    for (int k0 = 0; k0 < k; k0 += block_k) {
        const int now = k0 / block_k % 2;
        if (k0 + block_k < k) {
            copy_tiles(a_tile[1 - now], b_tile[1 - now], a, b, n, k, k0 + block_k);
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        block_barrier();
        for (int p = 0; p < block_k; p += 16) {
            uint32_t x[2][4], y[4][2];
            for (int i = 0; i < 2; i++) load_matrices(x[i], &a_tile[now][row + i * 16 + lane % 16][p + lane / 16 * 8], false);
            for (int j = 0; j < 4; j += 2) {
                uint32_t both[4];
                load_matrices(both, &b_tile[now][p + lane % 16][column + j * 8 + lane / 16 * 8], true);
                y[j][0] = both[0], y[j][1] = both[1], y[j + 1][0] = both[2], y[j + 1][1] = both[3];
            }
            for (int i = 0; i < 2; i++) {
                for (int j = 0; j < 4; j++) {
                    if constexpr (std::is_same_v<T, __half>) {
                        mma_f16_m16n8k16(d[i][j], x[i], y[j]);
                    } else {
                        mma_bf16_m16n8k16(d[i][j], x[i], y[j]);
                    }
                }
            }
        }
        block_barrier();
    }
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++) {
            for (int r = 0; r < 2; r++) {
                const int at_row = blockIdx.y * 64 + row + i * 16 + lane / 4 + r * 8;
                const int at_column = blockIdx.x * 64 + column + j * 8 + lane % 4 * 2;
                store_pack(&c[at_row * n + at_column], Pack<float, 2>{{d[i][j][2 * r], d[i][j][2 * r + 1]}});
            }
        }
    }
}

template <class T> void check_half_product(int m, int n, int k) {
    const auto a = small_integers<float>(m * k, 1), b = small_integers<float>(k * n, 2);
    Array<T> da(std::vector<T>(a.begin(), a.end())), db(std::vector<T>(b.begin(), b.end()));
    Array<float> dc(m * n);
    launch(TILEFUSE_KERNEL(half_product<T>), dim3(n / 64, m / 64), 128, 0, nullptr, da, db, dc, n, k);
    EXPECT(dc.host() == product(a, b, m, n, k));
}
CASE(bf16_mma_pipeline) { check_half_product<__nv_bfloat16>(64, 128, 96); }
CASE(f16_mma_pipeline) { check_half_product<__half>(128, 64, 64); }

// ---- convolution, reductions ----------------------------------------------------------------------------------------

// y = x * w, 3 x 3, zeros around: a tile of 16 x 16 with its border in shared memory.
__global__ void convolution(const float* x, const float* w, float* y, int height, int width) {
    TILEFUSE_SHARED(float[18][18], tile);
    const int top = blockIdx.y * 16 - 1, left = blockIdx.x * 16 - 1;
    for (int i = threadIdx.y * 16 + threadIdx.x; i < 18 * 18; i += 256) {
        const int r = top + i / 18, c = left + i % 18;
        tile[i / 18][i % 18] = r >= 0 && r < height && c >= 0 && c < width ? x[r * width + c] : 0.0f;
    }
    block_barrier();
    const int r = top + 1 + threadIdx.y, c = left + 1 + threadIdx.x;
    if (r >= height || c >= width) return;
    float sum = 0;
    for (int i = 0; i < 9; i++) sum += tile[threadIdx.y + i / 3][threadIdx.x + i % 3] * w[i];
    y[r * width + c] = sum;
}

CASE(convolution_3x3) {
    const int height = 37, width = 50;
    const auto x = small_integers<float>(height * width, 1), w = small_integers<float>(9, 2);
    Array<float> dx(x), dw(w), dy(height * width);
    launch(TILEFUSE_KERNEL(convolution), dim3((width + 15) / 16, (height + 15) / 16), dim3(16, 16), 0, nullptr, dx, dw,
           dy, height, width);
    std::vector<float> y(x.size());
    for (int r = 0; r < height; r++) {
        for (int c = 0; c < width; c++) {
            for (int i = 0; i < 9; i++) {
                const int rr = r + i / 3 - 1, cc = c + i % 3 - 1;
                if (rr >= 0 && rr < height && cc >= 0 && cc < width) y[r * width + c] += x[rr * width + cc] * w[i];
            }
        }
    }
    EXPECT(dy.host() == y);
}

template <class T> __device__ T warp_sum(T x) {
    for (int step = 16; step > 0; step /= 2) x += shuffle_xor(x, step);
    return x;
}
// Sums of blocks; then, with one block, the sum of those: a fixed order, two stages.
template <class T> __global__ void block_sums(const T* x, T* sums, int n) {
    TILEFUSE_SHARED(T[32], of_warps);
    T sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
    block_barrier();
    if (threadIdx.x >= 32) return;
    sum = warp_sum(threadIdx.x < blockDim.x / 32 ? of_warps[threadIdx.x] : T(0));
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <class T> void check_sum(int n) {
    const auto x = small_integers<T>(n, 3);
    Array<T> dx(x), sums(24), sum(1);
    launch(TILEFUSE_KERNEL(block_sums<T>), 24, 256, 0, nullptr, dx, sums, n);
    launch(TILEFUSE_KERNEL(block_sums<T>), 1, 1024, 0, nullptr, sums, sum, 24);
    T expected = 0;
    for (const T v : x) expected += v;
    EXPECT(sum.host()[0] == expected);
}
CASE(two_stage_sum) {
    check_sum<float>(10007);
    check_sum<double>(999);
    check_sum<int>(1);
}

// Inclusive sums of each row of 32, up and down.
__global__ void scans(const int* x, int* up, int* down) {
    const int lane = threadIdx.x % 32;
    int from_left = x[threadIdx.x], from_right = from_left;
    for (unsigned step = 1; step < 32; step *= 2) {
        const int left = shuffle_up(from_left, step), right = shuffle_down(from_right, step);
        if (lane >= static_cast<int>(step)) from_left += left;
        if (lane + static_cast<int>(step) < 32) from_right += right;
    }
    up[threadIdx.x] = from_left;
    down[threadIdx.x] = from_right;
}
CASE(warp_scans) {
    const auto x = small_integers<int>(96, 4);
    Array<int> dx(x), up(96), down(96);
    launch(TILEFUSE_KERNEL(scans), 1, 96, 0, nullptr, dx, up, down);
    const auto u = up.host(), d = down.host();
    for (int i = 0; i < 96; i++) {
        int left = 0, right = 0;
        for (int j = i / 32 * 32; j <= i; j++) left += x[j];
        for (int j = i; j < i / 32 * 32 + 32; j++) right += x[j];
        EXPECT(u[i] == left && d[i] == right);
    }
}

// ---- warps ----------------------------------------------------------------------------------------------------------

__global__ void votes(unsigned* result) {
    const int lane = threadIdx.x;
    unsigned* mine = result + 8 * lane;
    mine[0] = ballot(lane % 3 == 0);
    mine[1] = any(lane == 7);
    mine[2] = any(lane > 99);
    mine[3] = all(lane < 32);
    mine[4] = all(lane != 31);
    mine[5] = mine[6] = mine[7] = 0;
    if (lane % 2 == 0) {  // the lanes of each branch meet by themselves, in different numbers of steps
        for (int i = 0; i <= 3; i++) mine[5] += ballot(lane < 8 * i, 0x55555555u);
        mine[6] = shuffle(lane * 10, 4, 0x55555555u);
    } else {
        mine[5] = ballot(lane < 8, 0xaaaaaaaau);
        mine[6] = shuffle(lane * 10, lane, 0xaaaaaaaau);
    }
    mine[7] = shuffle(lane, 33 + lane);
}
CASE(warp_votes) {
    Array<unsigned> result(8 * 32);
    launch(TILEFUSE_KERNEL(votes), 1, 32, 0, nullptr, result);
    const auto r = result.host();
    for (unsigned lane = 0; lane < 32; lane++) {
        const unsigned* mine = &r[8 * lane];
        EXPECT(mine[0] == 0x49249249u && mine[1] == 1 && mine[2] == 0 && mine[3] == 1 && mine[4] == 0);
        if (lane % 2 == 0) {
            EXPECT(mine[5] == 0x55u + 0x5555u + 0x555555u && mine[6] == 40);
        } else {
            EXPECT(mine[5] == 0xaau && mine[6] == lane * 10);
        }
        EXPECT(mine[7] == (lane + 1) % 32);
    }
}

template <class T> __global__ void rotate(const T* x, T* y) {
    y[threadIdx.x] = shuffle(x[threadIdx.x], (static_cast<int>(threadIdx.x) + 5) % 32);
}
template <class T> void check_rotate() {
    std::vector<T> x(32);
    for (int i = 0; i < 32; i++) x[i] = T(i + 1);
    Array<T> dx(x), dy(32);
    launch(TILEFUSE_KERNEL(rotate<T>), 1, 32, 0, nullptr, dx, dy);
    const auto y = dy.host();
    for (int i = 0; i < 32; i++) EXPECT(y[i] == T((i + 5) % 32 + 1));
}
CASE(shuffles_of_every_type) {
    check_rotate<int>();
    check_rotate<unsigned>();
    check_rotate<int64_t>();
    check_rotate<unsigned long long>();
    check_rotate<float>();
    check_rotate<double>();
    check_rotate<__half>();
    check_rotate<__nv_bfloat16>();
}

// Lanes exchange through shared memory, with nothing but warp barriers: of whole warps, then of halves.
__global__ void exchange(int* y) {
    TILEFUSE_SHARED(int[64], x);
    const int lane = threadIdx.x % 32, warp = threadIdx.x - lane;
    x[threadIdx.x] = threadIdx.x;
    warp_barrier();
    int sum = x[warp + 31 - lane];
    warp_barrier();
    x[threadIdx.x] = sum;
    const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
    warp_barrier(half);
    for (int i = 0; i < lane % 3; i++) warp_barrier(1u << lane);
    sum += x[warp + (lane ^ 15)];
    y[threadIdx.x] = sum;
}
CASE(warp_barriers) {
    Array<int> y(64);
    launch(TILEFUSE_KERNEL(exchange), 1, 64, 0, nullptr, y);
    const auto r = y.host();
    for (int i = 0; i < 64; i++) {
        const int warp = i / 32 * 32, lane = i % 32;
        EXPECT(r[i] == warp + 31 - lane + warp + 31 - (lane ^ 15));
    }
}

// Threads that end early, warps that are not full, operations of those that are left.
__global__ void leave_early(int* y) {
    const int i = threadIdx.x;
    if (i % 32 >= 20) return;
    y[i] = static_cast<int>(ballot(true));
    if (i % 32 >= 10) return;
    y[i] += shuffle_xor(1, 1, 0x3ffu);
}
CASE(early_exits) {
    Array<int> y(std::vector<int>(84));
    launch(TILEFUSE_KERNEL(leave_early), 1, 84, 0, nullptr, y);
    const auto r = y.host();
    for (int i = 0; i < 84; i++) EXPECT(r[i] == (i % 32 < 10 ? 0x100000 : i % 32 < 20 ? 0xfffff : 0));
}

// ---- atomics --------------------------------------------------------------------------------------------------------

__global__ void histogram(const int* x, int* counts, int n) {
    TILEFUSE_SHARED(int[16], mine);
    if (threadIdx.x < 16) mine[threadIdx.x] = 0;
    block_barrier();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        atomic_add(&mine[x[i] + 7], 1);
    }
    block_barrier();
    if (threadIdx.x < 16) atomic_add(&counts[threadIdx.x], mine[threadIdx.x]);
}
template <class T> __global__ void add(T* sum) { atomic_add(sum, T(threadIdx.x % 4)); }
template <class T> __global__ void extremes(T* values) {
    const T x = static_cast<T>(threadIdx.x * 37 % 64) - static_cast<T>(5);
    atomic_max(&values[0], x);
    atomic_min(&values[1], x);
}
__global__ void exchanges(unsigned* values, unsigned* lock_owner) {
    values[1 + threadIdx.x] = atomic_exchange(&values[0], 1 + threadIdx.x);
    atomic_compare_exchange(lock_owner, 0u, 1 + threadIdx.x);
}

template <class T> void check_add() {
    Array<T> sum(std::vector<T>{T(3)});
    launch(TILEFUSE_KERNEL(add<T>), 2, 64, 0, nullptr, sum);
    EXPECT(static_cast<double>(sum.host()[0]) == 3 + 2 * 16 * 6);
}
template <class T> void check_extremes() {
    Array<T> values(std::vector<T>{T(0), T(1000)});
    launch(TILEFUSE_KERNEL(extremes<T>), 1, 64, 0, nullptr, values);
    const auto v = values.host();
    EXPECT(v[0] == (T(-1) < T(0) ? T(58) : T(-1)) && v[1] == (T(-1) < T(0) ? T(-5) : T(0)));
}
CASE(atomics) {
    const auto x = small_integers<int>(5000, 5);
    Array<int> dx(x), counts(std::vector<int>(16));
    launch(TILEFUSE_KERNEL(histogram), 3, 128, 0, nullptr, dx, counts, 5000);
    const auto c = counts.host();
    for (int i = 0; i < 16; i++) EXPECT(c[i] == std::count(x.begin(), x.end(), i - 7));

    check_add<int>();
    check_add<unsigned>();
    check_add<unsigned long long>();
    check_add<float>();
    check_add<double>();
    check_add<__half>();
    check_add<__nv_bfloat16>();
    check_extremes<int>();
    check_extremes<long long>();
    check_extremes<unsigned>();
    check_extremes<unsigned long long>();

    Array<unsigned> values(std::vector<unsigned>(65)), owner(std::vector<unsigned>(1));
    launch(TILEFUSE_KERNEL(exchanges), 1, 64, 0, nullptr, values, owner);
    auto v = values.host();  // each value was there once: a chain from 0 to the last
    std::sort(v.begin(), v.end());
    for (unsigned i = 0; i < 65; i++) EXPECT(v[i] == i);
    EXPECT(owner.host()[0] >= 1 && owner.host()[0] <= 64);
}

// ---- places, parameters, memory -------------------------------------------------------------------------------------

__global__ void places(unsigned* y) {
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned at = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    y[at * blockDim.x * blockDim.y * blockDim.z + thread] = at * 1000 + thread;
}
CASE(grids_and_blocks_of_three_axes) {
    Array<unsigned> y(2 * 3 * 5 * 4 * 3 * 7);
    launch(TILEFUSE_KERNEL(places), dim3(2, 3, 5), dim3(4, 3, 7), 0, nullptr, y);
    const auto r = y.host();
    for (unsigned i = 0; i < r.size(); i++) EXPECT(r[i] == i / 84 * 1000 + i % 84);
}

struct Chunk {
    float* data[100];
    int sizes[100];
    int count;
};
constexpr int powers[8] = {1, 2, 4, 8, 16, 32, 64, 128};
__global__ void many_arrays(Chunk chunk, float scale) {
    const Chunk* at = &chunk;
    for (int i = blockIdx.x; i < at->count; i += gridDim.x) {
        for (int j = threadIdx.x; j < at->sizes[i]; j += blockDim.x) at->data[i][j] = scale * powers[j % 8];
    }
}
CASE(parameters_by_value) {
    Array<float> x(10), y(33);
    Chunk chunk{};
    chunk.data[0] = x, chunk.data[1] = y, chunk.sizes[0] = 10, chunk.sizes[1] = 33, chunk.count = 2;
    launch(TILEFUSE_KERNEL(many_arrays), 3, 32, 0, nullptr, chunk, 0.5f);
    const auto r = y.host();
    for (int i = 0; i < 33; i++) EXPECT(r[i] == 0.5f * powers[i % 8]);
    EXPECT(x.host()[9] == 1.0f);
}

__global__ void fill_shared(float* y, int n) {
    float* x = dynamic_shared<float>();
    TILEFUSE_SHARED(float[256], part);
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = i % 5;
    part[threadIdx.x] = 0;
    block_barrier();
    for (int i = threadIdx.x; i < n; i += blockDim.x) part[threadIdx.x] += x[n - 1 - i];
    block_barrier();
    float sum = 0;
    if (threadIdx.x != 0) return;
    for (int i = 0; i < 256; i++) sum += part[i];
    y[blockIdx.x] = sum;
}
CASE(large_shared_memory) {
    Array<float> y(2);
    const int n = (227 * 1024 - 1024) / 4;
    launch(TILEFUSE_KERNEL(fill_shared), 2, 256, n * 4, nullptr, y, n);
    float sum = 0;
    for (int i = 0; i < n; i++) sum += i % 5;
    EXPECT(y.host()[0] == sum && y.host()[1] == sum);
}

// Neighbours write different bytes of one word.
template <class T> __global__ void narrow(const T* x, T* y, int n) {
    TILEFUSE_SHARED(T[64], turned);
    const int i = threadIdx.x;
    turned[63 - i] = i < n ? x[i] : T(0);
    block_barrier();
    if (i < n) y[i] = turned[63 - i];
    block_barrier();
    turned[i] = T(0);
}
template <class T> void check_narrow() {
    const auto x = small_integers<T>(61, 6);
    Array<T> dx(x), dy(61);
    launch(TILEFUSE_KERNEL(narrow<T>), 1, 64, 0, nullptr, dx, dy, 61);
    const auto y = dy.host();
    EXPECT(std::memcmp(x.data(), y.data(), 61 * sizeof(T)) == 0);
}
CASE(narrow_types) {
    check_narrow<unsigned char>();
    check_narrow<short>();
    check_narrow<__half>();
    check_narrow<__nv_bfloat16>();
}

__global__ void twice(const float* x, float* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i];
}
CASE(host_uses_device_memory) {
    Array<float> x(100), y(100);
    for (int i = 0; i < 100; i++) x.data[i] = static_cast<float>(i);  // not by cudaMemcpy
    launch(TILEFUSE_KERNEL(twice), 1, 128, 0, nullptr, x, y, 100);
    for (int i = 0; i < 100; i++) EXPECT(y.data[i] == 2.0f * static_cast<float>(i));
    EXPECT(simt::owns(x.data) && simt::owns(x.data + 99) && !simt::owns(x.data + 100) && !simt::owns(&x));
}

CASE(memory_functions) {
    const auto before = simt::live_allocations();
    float* p = nullptr;
    OK(cudaMalloc(&p, 0));
    EXPECT(p == nullptr);
    OK(cudaMalloc(&p, 1001));
    EXPECT(reinterpret_cast<uintptr_t>(p) % 256 == 0);
    EXPECT(simt::live_allocations().count == before.count + 1 && simt::live_allocations().bytes == before.bytes + 1001);
    OK(cudaMemset(p, 0x3f, 1000));
    unsigned word = 0;
    OK(cudaMemcpy(&word, p + 249, 4, cudaMemcpyDeviceToHost));
    EXPECT(word == 0x3f3f3f3f);
    EXPECT(cudaMemset(p, 0, 1002) == cudaErrorInvalidValue);
    EXPECT(cudaMemcpy(&word, p, 4, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    EXPECT(cudaMemcpy(p, &word, 4, cudaMemcpyDeviceToDevice) == cudaErrorInvalidValue);
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess);
    EXPECT(cudaFree(p + 1) == cudaErrorInvalidValue);
    OK(cudaFree(p));
    EXPECT(cudaFree(p) == cudaErrorInvalidValue);
    OK(cudaFree(nullptr));
    EXPECT(cudaMalloc(&p, size_t{1} << 60) == cudaErrorMemoryAllocation);
    EXPECT(cudaGetLastError() == cudaErrorMemoryAllocation);
    EXPECT(simt::live_allocations().count == before.count);
    EXPECT(std::string(cudaGetErrorName(cudaErrorMemoryAllocation)) == "cudaErrorMemoryAllocation");
    EXPECT(std::string(cudaGetErrorString(cudaErrorMemoryAllocation)) == "out of memory");
}

// ---- streams, events, graphs ----------------------------------------------------------------------------------------

__global__ void step(float* x, const float* rate, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += *rate * static_cast<float>(i);
}
CASE(graphs) {
    cudaStream_t stream, other;
    cudaEvent_t forked, joined;
    OK(cudaStreamCreate(&stream));
    OK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    OK(cudaEventCreate(&forked));
    OK(cudaEventCreateWithFlags(&joined, cudaEventDisableTiming));
    Array<float> x(std::vector<float>(50)), y(50), rate(std::vector<float>{1.0f});
    std::vector<float> seen(50, -1.0f);

    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaStreamCaptureStatus status;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    {
        float* local_x = x;  // the arguments are copied when they are recorded
        const float* local_rate = rate;
        int n = 50;
        launch(TILEFUSE_KERNEL(step), 1, 64, 0, stream, local_x, local_rate, n);
        local_x = nullptr, local_rate = nullptr, n = 0;
    }
    OK(cudaEventRecord(forked, stream));
    OK(cudaStreamWaitEvent(other, forked));
    OK(cudaMemsetAsync(y, 0, 200, other));
    launch(TILEFUSE_KERNEL(twice), 1, 64, 0, other, x, y, 50);
    OK(cudaEventRecord(joined, other));
    OK(cudaStreamWaitEvent(stream, joined));
    OK(cudaMemcpyAsync(seen.data(), y, 200, cudaMemcpyDeviceToHost, stream));
    OK(cudaStreamIsCapturing(stream, &status));
    EXPECT(status == cudaStreamCaptureStatusActive);
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&exec, graph));
    OK(cudaGraphDestroy(graph));
    EXPECT(x.host()[7] == 0 && seen[7] == -1);  // nothing has happened yet

    for (int i = 1; i <= 3; i++) {
        OK(cudaGraphLaunch(exec, stream));
        const float next = static_cast<float>(i + 1);
        OK(cudaMemcpyAsync(rate, &next, 4, cudaMemcpyHostToDevice, stream));
        OK(cudaStreamSynchronize(stream));
        EXPECT(seen[7] == 2 * 7 * static_cast<float>(i * (i + 1) / 2));
    }

    // What a capture does not allow ends it.
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    EXPECT(cudaMemcpy(x, y, 200, cudaMemcpyDeviceToDevice) == cudaErrorStreamCaptureImplicit);
    EXPECT(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
    EXPECT(cudaMemsetAsync(x, 0, 4, stream) == cudaErrorStreamCaptureInvalidated);
    EXPECT(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated && graph == nullptr);
    EXPECT(cudaGetLastError() == cudaErrorStreamCaptureInvalidated);
    cudaGetLastError();
    OK(cudaMemsetAsync(x, 0, 4, stream));

    float milliseconds = -1;
    OK(cudaEventRecord(forked, stream));
    OK(cudaEventRecord(joined, stream));
    OK(cudaEventSynchronize(joined));
    OK(cudaEventElapsedTime(&milliseconds, forked, joined));
    EXPECT(milliseconds >= 0 && milliseconds < 1000);
    OK(cudaGraphExecDestroy(exec));
    OK(cudaEventDestroy(forked));
    OK(cudaEventDestroy(joined));
    OK(cudaStreamDestroy(stream));
    OK(cudaStreamDestroy(other));
}

// ---- half types -----------------------------------------------------------------------------------------------------

CASE(half_conversions) {
    for (unsigned bits = 0; bits < 65536; bits++) {
        const auto h = __ushort_as_half(static_cast<unsigned short>(bits));
        const auto b = __ushort_as_bfloat16(static_cast<unsigned short>(bits));
        const int exponent = bits >> 10 & 31, fraction = bits & 1023;
        const double sign = bits >> 15 ? -1 : 1;
        if (exponent == 31) {
            EXPECT(fraction ? std::isnan(__half2float(h)) : __half2float(h) == sign * HUGE_VAL);
        } else {
            const int digits = exponent ? 1024 + fraction : fraction;
            EXPECT(__half2float(h) == sign * std::ldexp(digits, std::max(exponent, 1) - 25));
        }
        EXPECT(std::isnan(__half2float(h)) || __half_as_ushort(__float2half(__half2float(h))) == bits);
        EXPECT(std::isnan(__bfloat162float(b)) || __bfloat16_as_ushort(__float2bfloat16(__bfloat162float(b))) == bits);
    }
    // To the nearest of the two neighbours, and to the even one from halfway between them.
    for (unsigned bits = 0; bits < 0x7bff; bits++) {
        const float low = __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
        const float high = __half2float(__ushort_as_half(static_cast<unsigned short>(bits + 1)));
        const float middle = (low + high) / 2;
        EXPECT(__half_as_ushort(__float2half(middle)) == bits + bits % 2);
        EXPECT(__half_as_ushort(__float2half(std::nextafter(middle, 0.0f))) == bits);
        EXPECT(__half_as_ushort(__float2half(std::nextafter(middle, 1e9f))) == bits + 1);
        EXPECT(__half_as_ushort(__float2half(-std::nextafter(middle, 1e9f))) == (bits + 1) + 0x8000);
    }
    EXPECT(__half_as_ushort(__float2half(65519.0f)) == 0x7bff && __half_as_ushort(__float2half(65520.0f)) == 0x7c00);
    for (unsigned bits = 0; bits < 0x7f7f; bits += 7) {
        const float low = __bfloat162float(__ushort_as_bfloat16(static_cast<unsigned short>(bits)));
        const float high = __bfloat162float(__ushort_as_bfloat16(static_cast<unsigned short>(bits + 1)));
        const float middle = std::bit_cast<float>((std::bit_cast<unsigned>(low) + std::bit_cast<unsigned>(high)) / 2);
        EXPECT(__bfloat16_as_ushort(__float2bfloat16(middle)) == bits + bits % 2);
        EXPECT(__bfloat16_as_ushort(__float2bfloat16(std::nextafter(middle, HUGE_VALF))) == bits + 1);
    }
    EXPECT(std::isnan(__half2float(__float2half(NAN))) && std::isnan(__bfloat162float(__float2bfloat16(NAN))));
    const auto tf32 = [](float x) { return std::bit_cast<float>(to_tf32(x) & 0xffffe000u); };
    EXPECT(tf32(1.0f + 0x1p-11f) == 1.0f + 0x1p-10f && tf32(1.0f) == 1.0f);
    EXPECT(static_cast<float>(__half(1.0f) + __half(0x1p-11f)) == 1.0f);
}

// ---- what the executor says of itself -------------------------------------------------------------------------------

__global__ void arrivals(int* counter, int* order) {
    order[atomic_add(counter, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}
std::vector<int> order_of_threads() {
    Array<int> counter(std::vector<int>(1)), order(4 * 70);
    launch(TILEFUSE_KERNEL(arrivals), 4, 70, 0, nullptr, counter, order);
    return order.host();
}
CASE(orders) {
    std::vector<int> in_order(4 * 70);
    for (int i = 0; i < 280; i++) in_order[i] = i;
    simt::set_order("forward");
    EXPECT(order_of_threads() == in_order);
    simt::set_order(simt::Order::reverse);
    EXPECT(order_of_threads() == std::vector<int>(in_order.rbegin(), in_order.rend()));
    simt::set_order("random:7");
    const auto seven = order_of_threads(), next = order_of_threads();
    EXPECT(seven != in_order && next != seven);
    simt::set_order("random:8");
    const auto eight = order_of_threads();
    EXPECT(eight != seven);
    simt::set_order(simt::Order::random, 7);
    EXPECT(order_of_threads() == seven && order_of_threads() == next);
    for (auto order : {seven, eight}) {
        std::sort(order.begin(), order.end());
        EXPECT(order == in_order);
    }
    for (const char* wrong : {"", "backward", "random:", "random:x", "random:1x", "random1"}) {
        bool refused = false;
        try {
            simt::set_order(wrong);
        } catch (const std::invalid_argument&) {
            refused = true;
        }
        EXPECT(refused);
    }
}

__global__ void nothing() {}
cudaError_t try_launch(dim3 grid, dim3 block, size_t shared_bytes = 0) {
    const cudaError_t error = simt::launch("nothing", nothing, grid, block, shared_bytes, nullptr);
    EXPECT(cudaGetLastError() == error && cudaGetLastError() == cudaSuccess);
    return error;
}
CASE(refused_launches) {
    EXPECT(try_launch(1, 1024) == cudaSuccess);
    EXPECT(try_launch(dim3(2, 65535, 1), 1) == cudaSuccess);
    EXPECT(try_launch(1, dim3(4, 4, 64)) == cudaSuccess);
    EXPECT(try_launch(1, 32, 48 * 1024) == cudaSuccess);
    EXPECT(try_launch(1, 32, 48 * 1024 + 1) == cudaErrorInvalidValue);
    const void* function = reinterpret_cast<const void*>(nothing);
    EXPECT(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024) == cudaSuccess);
    EXPECT(try_launch(1, 32, 227 * 1024) == cudaSuccess);
    EXPECT(try_launch(1, 1025) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(1, dim3(32, 33)) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(1, dim3(1, 1, 65)) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(1, 0) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(0, 1) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(dim3(1, 0), 1) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(dim3(1, 65536), 1) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(dim3(1, 1, 65536), 1) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(0x80000000u, 1) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(1, 32, 227 * 1024 + 1) == cudaErrorInvalidValue);
    simt::set_registers("nothing", 64);
    EXPECT(try_launch(1, 1024) == cudaSuccess);
    simt::set_registers("nothing", 65);
    EXPECT(try_launch(1, 1024) == cudaErrorLaunchOutOfResources);
    EXPECT(try_launch(1, 896) == cudaSuccess);
    simt::set_registers("nothing", 255);
    EXPECT(try_launch(1, 257) == cudaErrorLaunchOutOfResources);
    EXPECT(try_launch(1, 256) == cudaSuccess);

    std::string text;
    try {
        launch(TILEFUSE_KERNEL(nothing), 1, 2048, 0, nullptr);
    } catch (const std::runtime_error& error) {
        text = error.what();
    }
    EXPECT(text == "nothing on a grid of (1, 1, 1) blocks of (2048, 1, 1) threads with 0 bytes of shared memory: "
                   "cudaErrorInvalidConfiguration: invalid configuration argument");
}

}  // namespace

int main(int count, char** names) { run_cases(count, names); }
