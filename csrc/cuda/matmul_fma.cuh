// Products on FMA units: their tiles, an operand's way to shared memory, and the loop over k.
//
// A block computes one tile of C. It walks over k in steps: the tile's parts of A and B for one step lie in shared
// memory, both with k as the slow axis, and every thread multiplies a few of A's elements with a few of B's, kept in
// registers; meanwhile what the next step needs is on its way from global memory to registers. Every element of C is
// one chain of multiply-adds in the order of k, whatever the tile.
#pragma once

#include "cuda/matmul.cuh"

namespace tilefuse::cuda::products {

// ---- tiles ----------------------------------------------------------------------------------------------------------

// A tile of C, `Depth` elements of k at a time; a thread computes ThreadRows x ThreadColumns of it. A warp's lanes
// stand in 4 rows of 8. A thread's elements come in packs of 16 bytes, of which neighbouring lanes have neighbouring
// ones, so that a warp's access to shared memory or to C has no gaps.
template <class Element, int Rows, int Columns, int Depth, int ThreadRows, int ThreadColumns> struct Tile {
    using T = Element;
    static constexpr int pack = pack_size<T>;
    static constexpr int rows = Rows, columns = Columns, depth = Depth;
    static constexpr int thread_rows = ThreadRows, thread_columns = ThreadColumns;
    static constexpr int warp_rows = 4 * ThreadRows, warp_columns = 8 * ThreadColumns;
    static constexpr int threads = Rows * Columns / (ThreadRows * ThreadColumns);
    static constexpr int blocks = sizeof(T) == 4 ? 512 / threads : 1;  // of a multiprocessor: 128 registers a thread
    // For choice_of: large float32 products ran at 0.54 of the units' 128 a cycle on an H200, and a step of a medium tile that
    // had a multiprocessor for itself took 1800 cycles (512 x 512 with k = 512: 30.6 us).
    static constexpr double rate = (sizeof(T) == 4 ? 70 : 35) * (Rows == 128 ? 1 : Rows == 64 ? 0.85 : 0.6);
    static constexpr double latency = 1800.0 * Depth / 16;
    static constexpr int unrolled = ThreadRows * ThreadColumns == 64 ? 2 : 8;  // more, and 128 registers don't suffice
    static_assert(Rows % warp_rows == 0 && Columns % warp_columns == 0);
    static_assert(ThreadRows % pack == 0 && ThreadColumns % pack == 0 && Depth % (2 * pack) == 0);
    static_assert(threads == 2 * Rows && threads == 2 * Columns, "Panel spreads its work so");
};

using LargeFloat = Tile<float, 128, 128, 8, 8, 8>;
using MediumFloat = Tile<float, 64, 64, 16, 8, 4>;
using SmallFloat = Tile<float, 32, 32, 16, 4, 4>;
using MediumDouble = Tile<double, 64, 64, 8, 8, 4>;
using SmallDouble = Tile<double, 32, 32, 16, 4, 4>;

// ---- one operand's way to shared memory -----------------------------------------------------------------------------

// `Width` rows of A or columns of B: Width * Depth elements a step, half of Depth for every thread of the block. A thread
// holds its part of a step; what it holds comes from its place (at_, k_) on, and each next pack or element from
// `k_distance` further along k, or, of elements along k, first `pack` from `at_distance` further across.
template <class T, int Width, int Depth> class Panel {
public:
    // A row of a buffer in shared memory has 4 elements more than the tile. Lanes that write along k, 2 packs or 2
    // packs' elements of a few rows, then hit different banks.
    static constexpr int stride = Width + 4;

    // Writes what was fetched to buffer[Depth][stride].
    __device__ __forceinline__ void store(T* buffer) const {
        T* to = buffer + k_ * stride + at_;
        switch (reading_) {
            case Reading::packs_along_k:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) to[(i / pack * k_distance + i % pack) * stride] = held_[i];
                break;
            case Reading::packs_across:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < packs; ++i) {
                    Pack<T, pack> x;
                    TILEFUSE_UNROLL_ALL
                    for (int e = 0; e < pack; ++e) x.of[e] = held_[i * pack + e];
                    store_pack(to + i * k_distance * stride, x);
                }
                break;
            case Reading::elements_along_k:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) to[i / pack * k_distance * stride + i % pack * at_distance] = held_[i];
                break;
            default:  // elements_across
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) to[i * k_distance_of_elements * stride] = held_[i];
                break;
        }
    }

protected:
    static constexpr int pack = pack_size<T>;
    static constexpr int elements = Depth / 2, packs = elements / pack;
    static constexpr int k_distance = 2 * pack, k_distance_of_elements = 2, at_distance = Width / pack;

    __device__ __forceinline__ explicit Panel(Reading reading) : reading_(reading) {
        const int thread = static_cast<int>(threadIdx.x);
        switch (reading_) {
            case Reading::packs_along_k: place(thread / 2, thread % 2 * pack); break;
            case Reading::packs_across: place(thread % (Width / pack) * pack, thread / (Width / pack)); break;
            case Reading::elements_along_k: place(thread / (2 * pack), thread % (2 * pack)); break;
            default: place(thread % Width, thread / Width); break;  // elements_across
        }
    }

    __device__ __forceinline__ void hold(int i, const Pack<T, pack>& x) {
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < pack; ++e) held_[i * pack + e] = x.of[e];
    }

    const Reading reading_;
    int at_, k_;
    T held_[elements] = {};

private:
    __device__ __forceinline__ void place(int at, int k) {
        at_ = at;
        k_ = k;
    }
};

// Of a matrix.
template <class T, int Width, int Depth> class Operand : public Panel<T, Width, Depth> {
public:
    __device__ __forceinline__ Operand(const Matrix<T>& matrix, const T* data, int64_t width, int depth)
        : Panel<T, Width, Depth>(matrix.reading), matrix_(matrix), width_(width < Width ? static_cast<int>(width) : Width),
          depth_(depth - k_), from_(data + at_ * matrix.stride + k_ * matrix.k_stride) {}

    // Reads the next step's elements: zeros where the matrix ends.
    __device__ __forceinline__ void fetch() {
        switch (matrix_.reading) {
            case Reading::packs_along_k:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < packs; ++i) {
                    const int k = i * k_distance;
                    hold(i, load_upto<pack>(from_ + k, at_ < width_ ? depth_ - k : 0, true));
                }
                break;
            case Reading::packs_across:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < packs; ++i) {
                    const int k = i * k_distance;
                    hold(i, load_upto<pack>(from_ + k * matrix_.k_stride, k < depth_ ? width_ - at_ : 0, true));
                }
                break;
            case Reading::elements_along_k:
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) {
                    const int along = i % pack * at_distance, k = i / pack * k_distance;
                    const bool valid = at_ + along < width_ && k < depth_;
                    held_[i] = valid ? from_[along * matrix_.stride + k * matrix_.k_stride] : T(0);
                }
                break;
            default:  // elements_across
                TILEFUSE_UNROLL_ALL
                for (int i = 0; i < elements; ++i) {
                    const int k = i * k_distance_of_elements;
                    held_[i] = at_ < width_ && k < depth_ ? from_[k * matrix_.k_stride] : T(0);
                }
                break;
        }
        from_ += Depth * matrix_.k_stride;
        depth_ -= Depth;
    }

private:
    using Base = Panel<T, Width, Depth>;
    using Base::pack, Base::packs, Base::elements, Base::k_distance, Base::k_distance_of_elements, Base::at_distance;
    using Base::at_, Base::k_, Base::held_, Base::hold;

    const Matrix<T>& matrix_;
    const int width_;  // rows or columns that the matrix has here
    int depth_;        // of k, from this thread's first element on
    const T* from_;
};

// ---- the loop -------------------------------------------------------------------------------------------------------

// A thread's sums: rows, and packs of columns.
template <class Tile> using Sums = typename Tile::T[Tile::thread_rows][Tile::thread_columns / Tile::pack][Tile::pack];

// Two buffers for each of the panels, to be in shared memory.
template <class Tile> constexpr int size_of_a = Tile::depth * (Tile::rows + 4);
template <class Tile> constexpr int size_of_b = Tile::depth * (Tile::columns + 4);
template <class Tile> using Buffers = typename Tile::T[2 * (size_of_a<Tile> + size_of_b<Tile>)];

// Where a thread's first row and column lie in the tile.
template <class Tile> __device__ __forceinline__ int thread_row() {
    constexpr int warps_across = Tile::columns / Tile::warp_columns;
    const int thread = static_cast<int>(threadIdx.x);
    return thread / warp_size / warps_across * Tile::warp_rows + thread % warp_size / 8 * Tile::pack;
}
template <class Tile> __device__ __forceinline__ int thread_column() {
    constexpr int warps_across = Tile::columns / Tile::warp_columns;
    const int thread = static_cast<int>(threadIdx.x);
    return thread / warp_size % warps_across * Tile::warp_columns + thread % 8 * Tile::pack;
}
// The others: row i is so far below the first, and pack j of columns so far beside it.
template <class Tile> __device__ constexpr int row_distance(int i) {
    return i / Tile::pack * (4 * Tile::pack) + i % Tile::pack;
}
template <class Tile> __device__ constexpr int column_distance(int j) { return j * 8 * Tile::pack; }

// The products of `depth` elements of k. meanwhile() runs before the first barrier; in the end there is one, too.
template <class Tile, class PanelA, class PanelB, class Meanwhile>
__device__ __forceinline__ void multiply_panels(PanelA& a, PanelB& b, int depth, typename Tile::T* buffers, Sums<Tile>& sums,
                                                Meanwhile meanwhile) {
    using T = typename Tile::T;
    constexpr int pack = Tile::pack;
    constexpr int row_packs = Tile::thread_rows / pack, column_packs = Tile::thread_columns / pack;
    static_assert(size_of_a<Tile> == Tile::depth * PanelA::stride && size_of_b<Tile> == Tile::depth * PanelB::stride);
    const auto buffer_a = [&](int step) { return buffers + step % 2 * size_of_a<Tile>; };
    const auto buffer_b = [&](int step) { return buffers + 2 * size_of_a<Tile> + step % 2 * size_of_b<Tile>; };

    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < Tile::thread_rows; ++i)
        TILEFUSE_UNROLL_ALL
        for (int j = 0; j < Tile::thread_columns; ++j) sums[i][j / pack][j % pack] = 0;

    const int steps = (depth + Tile::depth - 1) / Tile::depth;
    if (steps > 0) {
        a.fetch();
        b.fetch();
        a.store(buffer_a(0));
        b.store(buffer_b(0));
    }
    meanwhile();
    block_barrier();
    for (int step = 0; step < steps; ++step) {
        const bool more = step + 1 < steps;
        if (more) {
            a.fetch();
            b.fetch();
        }
        const T* from_a = buffer_a(step) + thread_row<Tile>();
        const T* from_b = buffer_b(step) + thread_column<Tile>();
        TILEFUSE_UNROLL(1)
        for (int first = 0; first < Tile::depth; first += Tile::unrolled)
            TILEFUSE_UNROLL_ALL
            for (int i = first; i < first + Tile::unrolled; ++i) {
                Pack<T, pack> x[row_packs], y[column_packs];
                TILEFUSE_UNROLL_ALL
                for (int r = 0; r < row_packs; ++r)
                    x[r] = load_pack<pack>(from_a + i * PanelA::stride + row_distance<Tile>(r * pack));
                TILEFUSE_UNROLL_ALL
                for (int c = 0; c < column_packs; ++c)
                    y[c] = load_pack<pack>(from_b + i * PanelB::stride + column_distance<Tile>(c));
                TILEFUSE_UNROLL_ALL
                for (int r = 0; r < Tile::thread_rows; ++r)
                    TILEFUSE_UNROLL_ALL
                    for (int c = 0; c < Tile::thread_columns; ++c) {
                        T& sum = sums[r][c / pack][c % pack];
                        sum = multiply_add(x[r / pack].of[r % pack], y[c / pack].of[c % pack], sum);
                    }
            }
        if (more) {
            a.store(buffer_a(step + 1));
            b.store(buffer_b(step + 1));
        }
        block_barrier();
    }
}

// body(row, column, x) for each of a thread's packs of sums of the tile that are inside of C. Row
// after row, each time from sums[0], since registers have no index; and so there is one copy of the body.
template <class Tile, class Body>
__device__ __forceinline__ void for_packs(Sums<Tile>& sums, int64_t rows_left, int64_t columns_left, Body body) {
    // (as 64-bit numbers they would be in registers that the epilogue needs: 8 bytes were spilled)
    const int rows = static_cast<int>(rows_left < Tile::rows ? rows_left : Tile::rows);
    const int columns = static_cast<int>(columns_left < Tile::columns ? columns_left : Tile::columns);
    constexpr int pack = Tile::pack, column_packs = Tile::thread_columns / pack;
    TILEFUSE_UNROLL(1)
    for (int i = 0; i < Tile::thread_rows; ++i) {
        const int row = thread_row<Tile>() + row_distance<Tile>(i);
        if (row >= rows) break;
        TILEFUSE_UNROLL_ALL
        for (int j = 0; j < column_packs; ++j) {
            const int column = thread_column<Tile>() + column_distance<Tile>(j);
            Pack<typename Tile::T, pack> x;
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < pack; ++e) x.of[e] = sums[0][j][e];
            if (column < columns) body(row, column, x);
        }
        TILEFUSE_UNROLL_ALL
        for (int next = 1; next < Tile::thread_rows; ++next)
            TILEFUSE_UNROLL_ALL
            for (int j = 0; j < Tile::thread_columns; ++j)
                sums[next - 1][j / pack][j % pack] = sums[next][j / pack][j % pack];
    }
}

// ---- what to launch -------------------------------------------------------------------------------------------------

// body(Tile{}) with the tile for these extents, of float32 the large one only where it may be.
template <class T, class Body> void with_tile(const Extents& e, bool may_be_large, Body&& body) {
    if constexpr (sizeof(T) == 4) {
        if (may_be_large) return with_fastest<LargeFloat, MediumFloat, SmallFloat>(e, body);
        with_fastest<MediumFloat, SmallFloat>(e, body);
    } else {
        with_fastest<MediumDouble, SmallDouble>(e, body);
    }
}

}  // namespace tilefuse::cuda::products
