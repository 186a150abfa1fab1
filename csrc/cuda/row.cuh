// Rows of an array, for kernels that reduce them: a row belongs to some neighbouring threads of a warp or, where it is
// wide, to a block. They keep it in registers, so that it is read once.
#pragma once

#include "cuda/launch.h"
#include "cuda/reduce.cuh"

namespace tilefuse::cuda {

constexpr int row_block = 256;  // threads of a block

// A thread holds elements first, first + stride, ... of its row, up to Held of them; what is beyond is read again at each
// pass (only blocks have rows so wide).
template <class T, int Held, bool WholeBlock> class Row {
public:
    // `lanes`: threads of a row within a warp. Threads without a row take part in the reductions with nothing.
    __device__ __forceinline__ Row(const T* array, int64_t rows, int64_t cols, int lanes)
        : lanes_(WholeBlock ? row_block : lanes), first_(static_cast<int>(threadIdx.x) % lanes_),
          row_(static_cast<int64_t>(blockIdx.x) * (row_block / lanes_) + static_cast<int>(threadIdx.x) / lanes_),
          cols_(row_ < rows ? cols : 0), exists_(row_ < rows), x_(array + row_ * cols) {
        TILEFUSE_UNROLL(16)
        for (int i = 0; i < Held; ++i) {
            const int64_t j = first_ + static_cast<int64_t>(i) * lanes_;
            held_[i] = j < cols_ ? x_[j] : T(0);
        }
    }

    // body(j, x) for each element of this thread's.
    template <class Body> __device__ __forceinline__ void each(Body body) const {
        TILEFUSE_UNROLL(16)
        for (int i = 0; i < Held; ++i) {
            const int64_t j = first_ + static_cast<int64_t>(i) * lanes_;
            if (j < cols_) body(j, held_[i]);
        }
        for (int64_t j = first_ + static_cast<int64_t>(Held) * lanes_; j < cols_; j += lanes_) body(j, x_[j]);
    }

    // body(j, x, y) with the elements of another row, shared out alike.
    template <class Body> __device__ __forceinline__ void each_with(const Row& other, Body body) const {
        TILEFUSE_UNROLL(16)
        for (int i = 0; i < Held; ++i) {
            const int64_t j = first_ + static_cast<int64_t>(i) * lanes_;
            if (j < cols_) body(j, held_[i], other.held_[i]);
        }
        for (int64_t j = first_ + static_cast<int64_t>(Held) * lanes_; j < cols_; j += lanes_) body(j, x_[j], other.x_[j]);
    }

    template <class V, class Combine> __device__ __forceinline__ V reduce(V x, V nothing, Combine combine) const {
        if constexpr (WholeBlock) return reduce_block(x, nothing, combine);
        return reduce_lanes(x, lanes_, combine);
    }
    // The sum of term(j, x) over the row.
    template <class Term> __device__ __forceinline__ T sum(Term term) const {
        T total = 0;
        each([&](int64_t j, T x) { total += term(j, x); });
        return reduce(total, T(0), Add{});
    }
    __device__ __forceinline__ T largest() const {
        T m = lowest();
        each([&](int64_t, T x) { m = x > m ? x : m; });
        return reduce(m, lowest(), Largest{});
    }
    // The first j for which holds(j, x); the row's length if there is none.
    template <class Holds> __device__ __forceinline__ int64_t find(Holds holds) const {
        long long found = cols_;
        each([&](int64_t j, T x) {
            if (j < found && holds(j, x)) found = j;
        });
        return reduce(found, static_cast<long long>(cols_), Smallest{});
    }

    static __device__ __forceinline__ T lowest() { return -static_cast<T>(__builtin_huge_val()); }

    __device__ __forceinline__ int64_t index() const { return row_; }
    __device__ __forceinline__ bool exists() const { return exists_; }
    __device__ __forceinline__ bool first_thread() const { return exists_ && first_ == 0; }

private:
    const int lanes_, first_;
    const int64_t row_, cols_;
    const bool exists_;
    const T* const x_;
    T held_[Held];
};

// Calls launch_on(held, whole_block, grid, lanes) with the first two as constants: how rows of this width are shared out.
template <class Launch> void share_rows(int64_t rows, int64_t cols, Launch launch_on) {
    int lanes = 1;
    while (lanes < warp_size && lanes < cols) lanes *= 2;
    const auto grid = [&](int64_t rows_of_block) { return dim3(static_cast<unsigned>((rows + rows_of_block - 1) / rows_of_block)); };
    if (cols <= warp_size) {
        launch_on(std::integral_constant<int, 1>(), std::false_type(), grid(row_block / lanes), lanes);
    } else if (cols <= 4 * warp_size) {
        launch_on(std::integral_constant<int, 4>(), std::false_type(), grid(row_block / lanes), lanes);
    } else if (cols <= 16 * warp_size) {
        launch_on(std::integral_constant<int, 16>(), std::false_type(), grid(row_block / lanes), lanes);
    } else {
        launch_on(std::integral_constant<int, 16>(), std::true_type(), grid(1), row_block);
    }
}

}  // namespace tilefuse::cuda
