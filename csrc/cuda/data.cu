// Gathering a shuffled batch, and adding up what its rows gave.
#include <type_traits>

#include "cuda/kernels.h"
#include "cuda/packs.cuh"
#include "cuda/reduce.cuh"

namespace tilefuse::cuda {
namespace batches {

// A thread moves one piece of `Bytes` bytes.
template <int Bytes>
__global__ void __launch_bounds__(threads_of_block)
    gather(const int64_t* order, int64_t rows, int64_t pieces_of_row, const uint8_t* src, uint8_t* dst) {
    const int64_t piece = static_cast<int64_t>(blockIdx.x) * threads_of_block + threadIdx.x;
    if (piece >= rows * pieces_of_row) return;
    const int64_t row = piece / pieces_of_row, within = piece % pieces_of_row;
    const int64_t from = order != nullptr ? order[row] : row;
    store_pack(dst + piece * Bytes, load_pack<Bytes>(src + (from * pieces_of_row + within) * Bytes));
}

constexpr int threads_of_total = 1024;

// One block: thread t adds up elements t, t + 1024, ... in order, and the threads' sums are added in a fixed tree.
__global__ void __launch_bounds__(threads_of_total) total(int64_t n, const double* x, double* sum) {
    double mine = 0;
    for (int64_t i = threadIdx.x; i < n; i += threads_of_total) mine += x[i];
    const double all = reduce_block(mine, 0.0, Add{});
    if (threadIdx.x == 0) *sum = all;
}

}  // namespace batches

void gather(const Context& context, const tilefuse_gather_args& args) {
    if (args.rows == 0 || args.row_bytes == 0) return;
    const auto fits = [&](int64_t bytes) {
        return args.row_bytes % bytes == 0 && reinterpret_cast<uintptr_t>(args.src) % static_cast<uint64_t>(bytes) == 0 &&
               reinterpret_cast<uintptr_t>(args.dst) % static_cast<uint64_t>(bytes) == 0;
    };
    const auto by = [&](auto bytes) {
        const int64_t pieces = args.row_bytes / bytes();
        const int64_t blocks = (args.rows * pieces + threads_of_block - 1) / threads_of_block;
        launch(TILEFUSE_KERNEL(batches::gather<bytes()>), dim3(static_cast<unsigned>(blocks)), threads_of_block, 0,
               context.stream, args.order, args.rows, pieces, static_cast<const uint8_t*>(args.src),
               static_cast<uint8_t*>(args.dst));
    };
    if (fits(16)) return by(std::integral_constant<int, 16>());
    if (fits(4)) return by(std::integral_constant<int, 4>());
    by(std::integral_constant<int, 1>());
}
size_t gather_workspace(const tilefuse_gather_args&) { return 0; }

void total(const Context& context, const tilefuse_total_args& args) {
    launch(TILEFUSE_KERNEL(batches::total), 1, batches::threads_of_total, 0, context.stream, args.n, args.x, args.sum);
}
size_t total_workspace(const tilefuse_total_args&) { return 0; }

}  // namespace tilefuse::cuda
