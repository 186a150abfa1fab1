// Gathering a shuffled batch, and adding up what its rows gave.
#include <type_traits>

#include "cuda/kernels.h"
#include "cuda/packs.cuh"
#include "cuda/reduce.cuh"

namespace tilefuse::cuda {
namespace batches {

constexpr int pieces_of_thread = 4;

// Rows move in pieces of `Bytes` bytes. A thread asks for all of its pieces before it writes the first. Index: 32 bits
// where that is enough, since a GPU divides them several times as fast.
template <int Bytes, class Index>
__global__ void __launch_bounds__(threads_of_block)
    gather(const int64_t* order, Index pieces, Index pieces_of_row, const uint8_t* src, uint8_t* dst) {
    const Index first = static_cast<Index>(blockIdx.x) * (pieces_of_thread * threads_of_block) + threadIdx.x;
    Pack<uint8_t, Bytes> held[pieces_of_thread];
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < pieces_of_thread; ++i) {
        const Index piece = first + i * threads_of_block;
        if (piece >= pieces) continue;
        const Index row = piece / pieces_of_row, within = piece % pieces_of_row;
        const int64_t from = order != nullptr ? order[row] : static_cast<int64_t>(row);
        held[i] = load_pack<Bytes>(src + (from * pieces_of_row + within) * Bytes);
    }
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < pieces_of_thread; ++i) {
        const Index piece = first + i * threads_of_block;
        if (piece < pieces) store_pack(dst + static_cast<int64_t>(piece) * Bytes, held[i]);
    }
}

// Sums are made of slices of so many elements.
constexpr int64_t slice = 4096;

int64_t slices_of(int64_t n) { return quotient(n, slice); }

// sums[i] = the sum over the i-th `length` elements.
__global__ void __launch_bounds__(threads_of_block) total(int64_t n, int64_t length, const double* x, double* sums) {
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * length, end = n - begin < length ? n : begin + length;
    const double sum = sum_of_block(x, begin, end, [&](int64_t i) { return x[i]; });
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

}  // namespace batches

void gather(const Context& context, const tilefuse_gather_args& args) {
    if (args.rows == 0 || args.row_bytes == 0) return;
    const auto fits = [&](unsigned bytes) {
        return args.row_bytes % bytes == 0 && packs_fit({args.src, args.dst}, bytes);
    };
    const auto by = [&](auto bytes, auto index) {
        using Index = decltype(index);
        const int64_t pieces_of_row = args.row_bytes / bytes(), pieces = args.rows * pieces_of_row;
        const dim3 grid(static_cast<unsigned>(quotient(pieces, batches::pieces_of_thread * threads_of_block)));
        launch(TILEFUSE_KERNEL(batches::gather<bytes(), Index>), grid, threads_of_block, 0, context.stream, args.order,
               static_cast<Index>(pieces), static_cast<Index>(pieces_of_row), static_cast<const uint8_t*>(args.src),
               static_cast<uint8_t*>(args.dst));
    };
    const auto by_bytes = [&](auto bytes) {
        const bool small = args.rows * (args.row_bytes / bytes()) < INT32_MAX;
        small ? by(bytes, uint32_t()) : by(bytes, int64_t());
    };
    if (fits(16)) return by_bytes(std::integral_constant<int, 16>());
    if (fits(4)) return by_bytes(std::integral_constant<int, 4>());
    by_bytes(std::integral_constant<int, 1>());
}
size_t gather_workspace(const tilefuse_gather_args&) { return 0; }

// In two stages, unless there is but one slice: the slices' sums, and their sum.
void total(const Context& context, const tilefuse_total_args& args) {
    using namespace batches;
    const auto add = [&](int64_t n, int64_t length, int64_t blocks, const double* x, double* sums) {
        launch(TILEFUSE_KERNEL(batches::total), dim3(static_cast<unsigned>(blocks)), threads_of_block, 0,
               context.stream, n, length, x, sums);
    };
    const int64_t slices = slices_of(args.n);
    if (slices <= 1) return add(args.n, slice, 1, args.x, args.sum);
    double* const sums = static_cast<double*>(context.workspace);
    add(args.n, slice, slices, args.x, sums);
    add(slices, slices, 1, sums, args.sum);
}
size_t total_workspace(const tilefuse_total_args& args) {
    const int64_t slices = batches::slices_of(args.n);
    return slices <= 1 ? 0 : static_cast<size_t>(slices) * sizeof(double);
}

}  // namespace tilefuse::cuda
