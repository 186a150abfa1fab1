// Products on matrix units: their tiles, an operand's way to fragments, and the loop over k. Of float32 matrices, whose
// elements are split, or rounded on the way; or of matrices that lie in memory in 16 bits. Sums are float32.
//
// A block computes one tile of C, a warp a part of it in registers. The tile's parts of A and B for a step of k, 64 bytes
// of each row, are copied to shared memory asynchronously, several steps ahead. There they lie as in global memory, along
// k or across it, in packs of 16 bytes whose places are chosen so that no access has bank conflicts. In the end the sums
// go through shared memory too, so that C is written by whole rows of the tile.
#pragma once

#include "cuda/matmul.cuh"
#include "cuda/mma.cuh"

namespace tilefuse::cuda::products {

// ---- tiles ----------------------------------------------------------------------------------------------------------

// Elements that lines across have after them in shared memory.
constexpr int line_gap = 8;

template <class M, int Rows, int Columns, int WarpRows, int WarpColumns> struct MmaTile {
    using Multiplier = M;
    using Element = typename M::Element;
    static constexpr int rows = Rows, columns = Columns, depth = 64 / sizeof(Element);
    static constexpr int warp_rows = WarpRows, warp_columns = WarpColumns;
    static constexpr int threads = Rows / WarpRows * (Columns / WarpColumns) * warp_size;
    static constexpr int stages = 4;
    // Of a multiprocessor: a thread may have 128 registers, or 255 where many numbers become a fragment.
    static constexpr bool many = std::is_same_v<M, Split> || M::depth * sizeof(Element) > 32;
    static constexpr int blocks = (many ? 256 : 512) / threads;
    static constexpr int operand_bytes = 64 * (Rows + line_gap);  // of a stage
    static constexpr size_t shared_bytes = 2 * stages * operand_bytes;
    static_assert(Rows == Columns && threads == 2 * Rows, "panels spread their work so");
    static_assert(WarpRows % 16 == 0 && WarpColumns % 16 == 0);
    static_assert(shared_bytes >= Rows * Columns * sizeof(float), "the sums' way to C");
};
// The large one needs 68 KB of shared memory; of both, a thread has 64 or 32 sums.
template <class M> using LargeMma = MmaTile<M, 128, 128, 64, 32>;
template <class M> using SmallMma = MmaTile<M, 64, 64, 32, 32>;

// ---- one operand's way to shared memory and to registers ------------------------------------------------------------

// `Width` rows of A or columns of B, 64 bytes deep: lines along k, a row each, or lines across, a k each.
template <class Element, int Width> class MmaPanel {
public:
    // What this lane holds of 16 rows of A from row `at` on, or of 16 columns of B, at `k` and the next 32 bytes: four
    // 8 x 8 (or 8 x 4) matrices, numbered along the rows of A first, but along B's k first.
    template <bool IsA> __device__ __forceinline__ void load(const Element* buffer, int at, int k, uint32_t (&x)[4]) const {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        // Of the lines that a lane names, 8 of a matrix lie together; so do the two of a pair of packs.
        const int near = lane / 8 % 2, far = lane / 16, row = lane % 8;
        if (along_) {
            const int line = at + row + 8 * (IsA ? near : far);
            load_matrices(x, buffer + place(line, k + pack * (IsA ? far : near)));
        } else if constexpr (sizeof(Element) == 2) {
            const int line = k + row + 8 * (IsA ? far : near);
            load_matrices_transposed(x, buffer + place(line, at + 8 * (IsA ? near : far)));
        } else {
            const Element* from = buffer + (k + lane % 4) * line_across + at + lane / 4;
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < 4; ++i) {
                const int next = IsA ? i % 2 : i / 2, deeper = IsA ? i / 2 : i % 2;
                x[i] = __float_as_uint(from[4 * deeper * line_across + 8 * next]);
            }
        }
    }

protected:
    static constexpr int pack = pack_size<Element>, depth = 4 * pack, threads = 2 * Width;
    static constexpr int line_across = Width + line_gap;

    __device__ __forceinline__ explicit MmaPanel(bool along) : along_(along) {}

    // Where element `at` of a line lies. Two lines along k fill the 32 banks: four pairs of them have their packs in
    // different order. Across, the gap keeps lines that are read together apart: 8 of 16-bit elements, whose matrices have
    // rows of one pack, and 4 of float32, of which a warp reads 8 single elements each. (Packs in different order would do
    // that, too, but the addresses take up to 30 registers.)
    __device__ __forceinline__ int place(int line, int at) const {
        if (along_) return line * depth + (at / pack ^ line / 2 % 4) * pack + at % pack;
        return line * line_across + at;
    }

    const bool along_;
};

// Of a matrix.
template <class Element, int Width> class MmaOperand : public MmaPanel<Element, Width> {
public:
    __device__ __forceinline__ MmaOperand(const Matrix<Element>& matrix, const Element* from, int64_t width, int depth)
        : Base(matrix.reading == Reading::packs_along_k || matrix.reading == Reading::elements_along_k), matrix_(matrix),
          from_(from), width_(width < Width ? static_cast<int>(width) : Width), depth_(depth) {}

    // Asks for the next step's elements; zeros where the matrix ends.
    __device__ __forceinline__ void copy(Element* buffer) {
        const int thread = static_cast<int>(threadIdx.x);
        const int of_line = along_ ? depth : Width, lines = along_ ? width_ : depth_, within = along_ ? depth_ : width_;
        const int64_t line_stride = along_ ? matrix_.stride : matrix_.k_stride;
        if (matrix_.reading == Reading::packs_along_k || matrix_.reading == Reading::packs_across) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < 2; ++i) {
                const int index = (i * threads + thread) * pack, line = index / of_line, at = index % of_line;
                int count = line < lines ? within - at : 0;
                count = count < 0 ? 0 : count < pack ? count : pack;
                copy_async(buffer + place(line, at), from_ + line * line_stride + at,
                           count * static_cast<int>(sizeof(Element)));
            }
        } else {
            const int64_t stride = along_ ? matrix_.k_stride : matrix_.stride;
            TILEFUSE_UNROLL(4)
            for (int i = 0; i < 2 * pack; ++i) {
                const int index = i * threads + thread, line = index / of_line, at = index % of_line;
                buffer[place(line, at)] =
                    line < lines && at < within ? from_[line * line_stride + at * stride] : Element(0);
            }
        }
        from_ += depth * matrix_.k_stride;
        depth_ -= depth;
    }

private:
    using Base = MmaPanel<Element, Width>;
    using Base::pack, Base::depth, Base::threads, Base::along_, Base::place;

    const Matrix<Element>& matrix_;
    const Element* from_;
    const int width_;  // rows or columns that the matrix has here
    int depth_;        // of k that are left
};

// Fragments of 16 rows of A, and of 8 columns of B twice, at k.
template <class M, class Panel>
__device__ __forceinline__ typename M::FragmentA fragment_a(const Panel& a, const typename M::Element* buffer, int row, int k) {
    constexpr int words = M::depth * sizeof(typename M::Element) / 8;
    uint32_t x[words / 4][4];
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < words / 4; ++i) a.template load<true>(buffer, row, k + 8 * i, x[i]);
    if constexpr (sizeof(typename M::Element) == 2) {
        return typename M::FragmentA(x[0]);
    } else {
        float numbers[words];
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < words; ++i) numbers[i] = __uint_as_float(x[i / 4][i % 4]);
        return typename M::FragmentA(numbers);
    }
}

template <class M> struct FragmentsB {
    typename M::FragmentB of[2];
};
template <class M, class Panel>
__device__ __forceinline__ FragmentsB<M> fragments_b(const Panel& b, const typename M::Element* buffer, int column, int k) {
    constexpr int words = M::depth * sizeof(typename M::Element) / 16;  // of 8 columns
    uint32_t x[words / 2][4];
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < words / 2; ++i) b.template load<false>(buffer, column, k + 8 * i, x[i]);
    using Word = std::conditional_t<sizeof(typename M::Element) == 2, uint32_t, float>;
    Word numbers[2][words];
    TILEFUSE_UNROLL_ALL
    for (int side = 0; side < 2; ++side)
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < words; ++i) numbers[side][i] = bits_as<Word>(x[i / 2][2 * side + i % 2]);
    return {typename M::FragmentB(numbers[0]), typename M::FragmentB(numbers[1])};
}

// ---- the loop -------------------------------------------------------------------------------------------------------

// A thread's sums: of each 16 x 8 of its warp's part.
template <class Tile> using MmaSums = float[Tile::warp_rows / 16][Tile::warp_columns / 8][4];

// Where a warp's rows and columns begin in the tile.
template <class Tile> __device__ __forceinline__ int warp_row() {
    constexpr int warps_across = Tile::columns / Tile::warp_columns;
    return static_cast<int>(threadIdx.x) / warp_size / warps_across * Tile::warp_rows;
}
template <class Tile> __device__ __forceinline__ int warp_column() {
    constexpr int warps_across = Tile::columns / Tile::warp_columns;
    return static_cast<int>(threadIdx.x) / warp_size % warps_across * Tile::warp_columns;
}

// Adds the products of `depth` elements of k, through Tile::shared_bytes of `buffers`. meanwhile() runs while the first
// elements are on their way; if there are none, a barrier has to follow.
template <class Tile, class PanelA, class PanelB, class Meanwhile>
__device__ __forceinline__ void multiply_panels(PanelA& a, PanelB& b, int depth, typename Tile::Element* buffers,
                                                MmaSums<Tile>& sums, Meanwhile meanwhile) {
    using M = typename Tile::Multiplier;
    using Element = typename Tile::Element;
    constexpr int stages = Tile::stages, size = Tile::operand_bytes / sizeof(Element);
    constexpr int tiles_down = Tile::warp_rows / 16, pairs_across = Tile::warp_columns / 16;
    const auto buffer_a = [&](int step) { return buffers + step % stages * 2 * size; };
    const auto buffer_b = [&](int step) { return buffer_a(step) + size; };
    const int steps = (depth + Tile::depth - 1) / Tile::depth, row = warp_row<Tile>(), column = warp_column<Tile>();
    const auto fetch = [&](int step) {
        if (step < steps) {
            a.copy(buffer_a(step));
            b.copy(buffer_b(step));
        }
        copy_async_commit();
    };
    for (int step = 0; step < stages - 1; ++step) fetch(step);
    meanwhile();
    for (int step = 0; step < steps; ++step) {
        copy_async_wait<stages - 2>();
        block_barrier();  // this step's elements are here, and nobody reads the last one's any more
        fetch(step + stages - 1);
        TILEFUSE_UNROLL(1)
        for (int k = 0; k < Tile::depth; k += M::depth) {
            FragmentsB<M> y[pairs_across] = {fragments_b<M>(b, buffer_b(step), column, k),
                                             fragments_b<M>(b, buffer_b(step), column + 16, k)};
            static_assert(pairs_across == 2);
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < tiles_down; ++i) {
                const auto x = fragment_a<M>(a, buffer_a(step), row + 16 * i, k);
                TILEFUSE_UNROLL_ALL
                for (int j = 0; j < 2 * pairs_across; ++j) M::add(sums[i][j], x, y[j / 2].of[j % 2]);
            }
        }
    }
}

// Where a sum lies in shared memory in the end: packs of 4 lines are in different order, as above.
template <class Tile> __device__ __forceinline__ int place_in_tile(int row, int column) {
    return row * Tile::columns + (column ^ (row % 4 * 8));
}

// Puts the sums there, where the buffers have been.
template <class Tile> __device__ __forceinline__ void stage_sums(const MmaSums<Tile>& sums, float* tile) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    copy_async_wait<0>();
    block_barrier();
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < Tile::warp_rows / 16; ++i)
        TILEFUSE_UNROLL_ALL
        for (int j = 0; j < Tile::warp_columns / 8; ++j)
            TILEFUSE_UNROLL_ALL
            for (int half = 0; half < 2; ++half) {
                const int row = warp_row<Tile>() + 16 * i + lane / 4 + 8 * half;
                const Pack<float, 2> x = {{sums[i][j][2 * half], sums[i][j][2 * half + 1]}};
                store_pack(tile + place_in_tile<Tile>(row, warp_column<Tile>() + 8 * j + lane % 4 * 2), x);
            }
    block_barrier();
}

// body(row, x) for the tile's first `rows` rows of the packs in this thread's column, which is column_of_thread.
template <class Tile> __device__ __forceinline__ int column_of_thread() {
    return static_cast<int>(threadIdx.x) % (Tile::columns / pack_size<float>) * pack_size<float>;
}
template <class Tile, class Body> __device__ __forceinline__ void for_staged_packs(const float* tile, int64_t rows, Body body) {
    constexpr int pack = pack_size<float>, packs_of_row = Tile::columns / pack;
    static_assert(Tile::threads % packs_of_row == 0);
    TILEFUSE_UNROLL(1)
    for (int row = static_cast<int>(threadIdx.x) / packs_of_row; row < Tile::rows; row += Tile::threads / packs_of_row) {
        if (row >= rows) return;
        body(row, load_pack<pack>(tile + place_in_tile<Tile>(row, column_of_thread<Tile>())));
    }
}

// ---- what to launch -------------------------------------------------------------------------------------------------

// body(Multiplier{}) with how float32 operands are multiplied.
template <class Body> void with_multiplier(tilefuse_precision precision, Body&& body) {
    switch (precision) {
        case TILEFUSE_PRECISION_BFLOAT16: return body(Rounded<Bfloat16>{});
        case TILEFUSE_PRECISION_FLOAT16: return body(Rounded<Float16>{});
        case TILEFUSE_PRECISION_TF32: return body(Tf32{});
        default: return body(Split{});
    }
}

// body(Tile{}) with the tile for these extents.
template <class M, class Body> void with_mma_tile(const Extents& e, Body&& body) {
    if (cost_of<LargeMma<M>>(e, 1) < cost_of<SmallMma<M>>(e, 0.7)) return body(LargeMma<M>{});
    body(SmallMma<M>{});
}

}  // namespace tilefuse::cuda::products
