// Products on matrix units: their tiles, an operand's way to fragments, and the loop over k. Of float32 matrices, whose
// elements are split, or rounded on the way; or of matrices that lie in memory in 16 bits. Sums are float32.
//
// A block computes one tile of C, a warp a part of it in registers. The tile's parts of A and B for a step of k, 64 bytes
// of each row, go to shared memory several steps ahead: packs are copied asynchronously, or, where float32 is rounded to
// 16 bits, through registers; single elements, and what a pooling leaves of gradients, are read at once. There they lie as
// in global memory, along k or across it, in packs of 16 bytes whose places are chosen so that no access has bank
// conflicts. While a warp multiplies the fragments of one half of a step, those of the next half are on their way to other
// registers. In the end the sums go through shared memory too, so that C is written by whole rows of the tile.
#pragma once

#include "cuda/matmul.cuh"
#include "cuda/mma.cuh"

namespace tilefuse::cuda::products {

// ---- tiles ----------------------------------------------------------------------------------------------------------

// Elements that lines across have after them in shared memory.
constexpr int line_gap = 8;

// `S`: elements as they lie in memory; the multiplier's are those in shared memory.
template <class M, class S, int Rows, int Columns, int WarpRows, int WarpColumns> struct MmaTile {
    using Multiplier = M;
    using Source = S;
    using Element = typename M::Element;
    static constexpr bool direct = std::is_same_v<Source, Element>;
    static constexpr int rows = Rows, columns = Columns, depth = 64 / sizeof(Element);
    static constexpr int warp_rows = WarpRows, warp_columns = WarpColumns;
    static constexpr int threads = Rows / WarpRows * (Columns / WarpColumns) * warp_size;
    static constexpr int stages = direct ? 4 : 3;
    // Fragments are loaded while others are multiplied. (Split, they take the registers that this needs.)
    static constexpr bool ahead = !std::is_same_v<M, Split>;
    // Of a multiprocessor: a thread may have 255 registers, or 168 where that suffices. (Those of compute capability 8.6, 8.9
    // and 12.0 have shared memory for fewer.)
    static constexpr int blocks = (direct && ahead && WarpRows * WarpColumns == 32 * 32 ? 384 : 256) / threads;
    // For choice_of, estimates: of the units' multiply-adds a cycle about half, and 0.7 of that by small tiles.
    static constexpr double rate = (sizeof(Element) == 2 ? 512 : ahead ? 256 : 40) * (Rows == 128 ? 1 : 0.7);
    static constexpr double latency = 600;
    static constexpr int stage_bytes = 64 * (Rows + Columns + 2 * line_gap);
    static constexpr size_t shared_bytes = std::max<size_t>(stages * stage_bytes, Rows * Columns * sizeof(float));
    static_assert(Rows == Columns && WarpRows % 16 == 0 && WarpColumns % 16 == 0);
};
// Of the large one, a warp of 64 x 64 reads least from shared memory for its products, and 16 bits need that; there it has
// the registers, if they aren't rounded on the way.
template <class M, class S> using LargeMma = MmaTile<M, S, 128, 128, 64, sizeof(S) == 2 ? 64 : 32>;
template <class M, class S> using SmallMma = MmaTile<M, S, 64, 64, 32, 32>;

// ---- one operand's way to shared memory and to registers ------------------------------------------------------------

// `Width` rows of A or columns of B, 64 bytes deep: lines along k, a row each, or lines across, a k each.
template <class Tile, int Width> class MmaPanel {
    using M = typename Tile::Multiplier;

public:
    using Source = typename Tile::Source;
    using Element = typename Tile::Element;

    // Where a lane reads its part of 16 rows of A, or columns of B, in both halves of a step; and how far it is from there
    // to the next 16.
    struct Places {
        int half[2], next;
    };
    template <bool IsA> __device__ __forceinline__ Places places(int first) const {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        // Of the lines that a lane names, 8 of a matrix lie together; so do the two of a pair of packs.
        const int near = lane / 8 % 2, far = lane / 16, row = lane % 8;
        if (along_) {
            const int line = first + row + 8 * (IsA ? near : far), at = pack * (IsA ? far : near);
            return {{place(line, at), place(line, at + depth / 2)}, 16 * depth};
        }
        const int line = sizeof(Element) == 2 ? row + 8 * (IsA ? far : near) : lane % 4;
        const int at = first + (sizeof(Element) == 2 ? 8 * (IsA ? near : far) : lane / 4);
        return {{place(line, at), place(line + depth / 2, at)}, 16};
    }

    // Count times 16 of them: of each four 8 x 8 (or 8 x 4) matrices, numbered along the rows of A first, but along B's k
    // first.
    template <bool IsA, int Count>
    __device__ __forceinline__ void load(const Element* buffer, const Places& places, int half, uint32_t (&x)[Count][4]) const {
        const Element* const from = buffer + (half == 0 ? places.half[0] : places.half[1]);
        if (sizeof(Element) == 2 || along_) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < Count; ++i) load_matrices(x[i], from + i * places.next, sizeof(Element) == 2 && !along_);
        } else if constexpr (sizeof(Element) == 4) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < Count; ++i)
                TILEFUSE_UNROLL_ALL
                for (int word = 0; word < 4; ++word) {
                    const int next = IsA ? word % 2 : word / 2, deeper = IsA ? word / 2 : word % 2;
                    x[i][word] = __float_as_uint(from[i * 16 + 4 * deeper * line_across + 8 * next]);
                }
        }
    }

    // Units that came through registers go to shared memory; the rest has been copied there.
    __device__ __forceinline__ void settle(Element* buffer) const {
        if constexpr (!Tile::direct) {
            if (!by_units_) return;
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < units; ++i) {
                const Pack<float, unit>& x = held_[i];
                const Pack<uint32_t, 2> pairs = {{M::pair(x.of[0], x.of[1]), M::pair(x.of[2], x.of[3])}};
                store_pack(reinterpret_cast<uint32_t*>(buffer + place_of(unit * index(i))), pairs);
            }
        }
    }

protected:
    static constexpr int pack = pack_size<Element>, depth = Tile::depth, threads = Tile::threads;
    static constexpr int unit = pack_size<Source>;                  // elements that a thread moves at once, 16 bytes
    static constexpr int units = Width * depth / (unit * threads);  // that it moves in a step
    static constexpr int elements = units * unit;                   // the same, one by one
    static constexpr int line_across = Width + line_gap;

    __device__ __forceinline__ MmaPanel(bool along, bool by_units) : along_(along), by_units_(by_units) {}

    // Of this thread's units or elements, one after the other as they lie in memory, the i-th.
    __device__ __forceinline__ static int index(int i) { return i * threads + static_cast<int>(threadIdx.x); }

    // Where element `at` of a line lies. Two lines along k fill the 32 banks: four pairs of them have their packs in
    // different order. Across, the gap keeps lines that are read together apart: 8 of 16-bit elements, whose matrices have
    // rows of one pack, and 4 of float32, of which a warp reads 8 single elements each. (Packs in different order would do
    // that, too, but the addresses take up to 30 registers.)
    __device__ __forceinline__ int place(int line, int at) const {
        if (along_) return line * depth + (at / pack ^ line / 2 % 4) * pack + at % pack;
        return line * line_across + at;
    }
    __device__ __forceinline__ int place_of(int index) const {
        const int of_line = along_ ? depth : Width;
        return place(index / of_line, index % of_line);
    }

    // The i-th unit, of which `count` elements are there, on its way to `to`; zeros in place of the others.
    __device__ __forceinline__ void move(int i, Element* to, const Source* from, int count) {
        if constexpr (Tile::direct) {
            copy_async(to, from, count * static_cast<int>(sizeof(Source)));
        } else {
            held_[i] = load_upto<unit>(from, count, true);
        }
    }
    // Likewise a unit at hand; and a single element, which is there at once.
    __device__ __forceinline__ void move(int i, Element* to, const Pack<Source, unit>& x) {
        if constexpr (Tile::direct) {
            store_pack(to, x);
        } else {
            held_[i] = x;
        }
    }
    __device__ __forceinline__ static void move_element(Element* to, Source x) {
        if constexpr (Tile::direct) {
            *to = x;
        } else {
            *to = static_cast<Element>(M::pair(x, 0));
        }
    }

    const bool along_, by_units_;

private:
    struct Nothing {};
    std::conditional_t<Tile::direct, Nothing, Pack<Source, unit>> held_[units];
};

// Of a matrix.
template <class Tile, int Width> class MmaOperand : public MmaPanel<Tile, Width> {
    using Base = MmaPanel<Tile, Width>;

public:
    using typename Base::Source, typename Base::Element;

    __device__ __forceinline__ MmaOperand(const Matrix<Source>& matrix, const Source* from, int64_t width, int depth)
        : Base(matrix.reading == Reading::packs_along_k || matrix.reading == Reading::elements_along_k,
               matrix.reading == Reading::packs_along_k || matrix.reading == Reading::packs_across),
          matrix_(matrix), width_(width < Width ? static_cast<int>(width) : Width), depth_(depth),
          from_(from + line() * line_stride() + at() * (along_ ? matrix.k_stride : matrix.stride)) {}

    // Asks for the next step's elements; zeros where the matrix ends.
    __device__ __forceinline__ void copy(Element* buffer) {
        const int lines = along_ ? width_ : depth_, left = (along_ ? depth_ : width_) - at();
        const int apart = threads * wide() / of_line();  // lines from one unit, or element, to this thread's next
        const int64_t further = apart * line_stride();
        const Source* from = from_;
        int to = line();
        if (by_units_) {
            const int most = left < 0 ? 0 : left < unit ? left : unit;
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < units; ++i, from += further, to += apart)
                move(i, buffer + place(to, at()), from, to < lines ? most : 0);
        } else {
            TILEFUSE_UNROLL(2)
            for (int i = 0; i < elements; ++i, from += further, to += apart)
                move_element(buffer + place(to, at()), to < lines && left > 0 ? *from : Source(0));
        }
        from_ += depth * matrix_.k_stride;
        depth_ -= depth;
    }

private:
    using Base::unit, Base::units, Base::elements, Base::depth, Base::threads, Base::along_, Base::by_units_;
    using Base::place, Base::index, Base::move, Base::move_element;

    // Of a thread's first unit, or element: its line, and its place there.
    __device__ __forceinline__ int wide() const { return by_units_ ? unit : 1; }
    __device__ __forceinline__ int of_line() const { return along_ ? depth : Width; }
    __device__ __forceinline__ int line() const { return index(0) * wide() / of_line(); }
    __device__ __forceinline__ int at() const { return index(0) * wide() % of_line(); }
    __device__ __forceinline__ int64_t line_stride() const { return along_ ? matrix_.stride : matrix_.k_stride; }

    const Matrix<Source>& matrix_;
    const int width_;  // rows or columns that the matrix has here
    int depth_;        // of k that are left
    const Source* from_;
};

// What an instruction takes, from the words of its matrices.
template <class Fragment, class Element, int Count>
__device__ __forceinline__ Fragment fragment_of(const uint32_t* words) {
    using Word = std::conditional_t<sizeof(Element) == 2, uint32_t, float>;
    Word numbers[Count];
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < Count; ++i) numbers[i] = bits_as<Word>(words[i]);
    return Fragment(numbers);
}

// ---- the loop -------------------------------------------------------------------------------------------------------

// A thread's sums: of each 16 x 8 of its warp's part.
template <class Tile> using MmaSums = float[Tile::warp_rows / 16][Tile::warp_columns / 8][4];

// Where a warp's rows and columns begin in the tile.
template <class Tile> __device__ __forceinline__ int warp_row(int thread) {
    constexpr int warps_across = Tile::columns / Tile::warp_columns;
    return thread / warp_size / warps_across * Tile::warp_rows;
}
template <class Tile> __device__ __forceinline__ int warp_column(int thread) {
    constexpr int warps_across = Tile::columns / Tile::warp_columns;
    return thread / warp_size % warps_across * Tile::warp_columns;
}

// Adds the products of `depth` elements of k, through Tile::shared_bytes of `buffers`. meanwhile() runs while the first
// elements are on their way; a barrier follows it.
template <class Tile, class PanelA, class PanelB, class Meanwhile>
__device__ __forceinline__ void multiply_panels(PanelA& a, PanelB& b, int depth, typename Tile::Element* buffers,
                                                MmaSums<Tile>& sums, Meanwhile meanwhile) {
    using M = typename Tile::Multiplier;
    using Element = typename Tile::Element;
    constexpr int stages = Tile::stages, size = Tile::stage_bytes / sizeof(Element);
    constexpr int size_a = 64 * (Tile::rows + line_gap) / sizeof(Element);
    constexpr int tiles_down = Tile::warp_rows / 16, pairs_across = Tile::warp_columns / 16;
    const int steps = (depth + Tile::depth - 1) / Tile::depth;
    const int thread = static_cast<int>(threadIdx.x);
    const auto places_a = a.template places<true>(warp_row<Tile>(thread));
    const auto places_b = b.template places<false>(warp_column<Tile>(thread));
    constexpr int sets = Tile::ahead ? 2 : 1;  // of fragments
    uint32_t x[sets][tiles_down][4], y[sets][pairs_across][4];

    const auto copy = [&](int step, int stage) {
        if (step < steps) {
            a.copy(buffers + stage * size);
            b.copy(buffers + stage * size + size_a);
        }
        copy_async_commit();
    };
    const auto settle = [&](int step, int stage) {
        if (Tile::direct || step >= steps) return;
        a.settle(buffers + stage * size);
        b.settle(buffers + stage * size + size_a);
    };
    const auto load = [&](int stage, int half) {
        const Element *from_a = buffers + stage * size, *from_b = from_a + size_a;
        const int set = sets == 1 ? 0 : half;
        b.template load<false>(from_b, places_b, half, y[set]);
        a.template load<true>(from_a, places_a, half, x[set]);
    };
    const auto multiply = [&](int half) {
        const int set = sets == 1 ? 0 : half;
        typename M::FragmentB of_b[2 * pairs_across];
        TILEFUSE_UNROLL_ALL
        for (int j = 0; j < 2 * pairs_across; ++j)
            of_b[j] = fragment_of<typename M::FragmentB, Element, 2>(y[set][j / 2] + j % 2 * 2);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < tiles_down; ++i) {
            const auto of_a = fragment_of<typename M::FragmentA, Element, 4>(x[set][i]);
            TILEFUSE_UNROLL_ALL
            for (int j = 0; j < 2 * pairs_across; ++j) M::add(sums[i][j], of_a, of_b[j]);
        }
    };
    const auto arrive = [] {
        copy_async_wait<stages - 2>();
        block_barrier();  // the next step's elements are here, and nobody reads the last one's any more
    };

    TILEFUSE_UNROLL(1)
    for (int step = 0; step < stages - 1; ++step) {
        copy(step, step);
        settle(step, step);
    }
    meanwhile();
    arrive();
    if (Tile::ahead && steps > 0) load(0, 0);
    int stage = 0, before = stages - 1;  // of this step, and of the last one, which makes room for a later one
    TILEFUSE_UNROLL(1)
    for (int step = 0; step < steps; ++step) {
        const int next = stage + 1 < stages ? stage + 1 : 0;
        if constexpr (Tile::ahead) {
            load(stage, 1);
            if (!Tile::direct) copy(step + stages - 1, before);
            multiply(0);
            if (Tile::direct) copy(step + stages - 1, before);  // when fewer registers are taken
            arrive();
            if (step + 1 < steps) load(next, 0);
            multiply(1);
        } else {
            copy(step + stages - 1, before);
            TILEFUSE_UNROLL(1)
            for (int half = 0; half < 2; ++half) {
                load(stage, half);
                multiply(half);
            }
            arrive();
        }
        settle(step + stages - 1, before);
        before = stage;
        stage = next;
    }
}

// Where a sum lies in shared memory in the end: packs of 4 lines are in different order, as above.
template <class Tile> __device__ __forceinline__ int place_in_tile(int row, int column) {
    return row * Tile::columns + (column ^ (row % 4 * 8));
}

// Puts the sums there, where the buffers have been.
template <class Tile> __device__ __forceinline__ void stage_sums(const MmaSums<Tile>& sums, float* tile) {
    const int thread = made_here(static_cast<int>(threadIdx.x)), lane = thread % warp_size;
    copy_async_wait<0>();
    block_barrier();
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < Tile::warp_rows / 16; ++i)
        TILEFUSE_UNROLL_ALL
        for (int j = 0; j < Tile::warp_columns / 8; ++j)
            TILEFUSE_UNROLL_ALL
            for (int half = 0; half < 2; ++half) {
                const int row = warp_row<Tile>(thread) + 16 * i + lane / 4 + 8 * half;
                const Pack<float, 2> x = {{sums[i][j][2 * half], sums[i][j][2 * half + 1]}};
                store_pack(tile + place_in_tile<Tile>(row, warp_column<Tile>(thread) + 8 * j + lane % 4 * 2), x);
            }
    block_barrier();
}

// body(row, x) for the tile's first `rows` rows of the packs in this thread's column, which is column_of_thread.
template <class Tile> __device__ __forceinline__ int column_of_thread() {
    return static_cast<int>(threadIdx.x) % (Tile::columns / pack_size<float>) * pack_size<float>;
}
template <class Tile, class Body>
__device__ __forceinline__ void for_staged_packs(const float* tile, int64_t rows, Body body) {
    constexpr int pack = pack_size<float>, packs_of_row = Tile::columns / pack;
    static_assert(Tile::threads % packs_of_row == 0);
    TILEFUSE_UNROLL(1)
    for (int row = static_cast<int>(threadIdx.x) / packs_of_row; row < Tile::rows; row += Tile::threads / packs_of_row) {
        if (row >= rows) return;
        body(row, load_pack<pack>(tile + place_in_tile<Tile>(row, column_of_thread<Tile>())));
    }
}

// ---- what to launch -------------------------------------------------------------------------------------------------

// body(Multiplier{}, Source{}) with how float32 operands are multiplied.
template <class Body> void with_multiplier(tilefuse_precision precision, Body&& body) {
    switch (precision) {
        case TILEFUSE_PRECISION_BFLOAT16: return body(Stored<Bfloat16>{}, float{});
        case TILEFUSE_PRECISION_FLOAT16: return body(Stored<Float16>{}, float{});
        case TILEFUSE_PRECISION_TF32: return body(Tf32{}, float{});
        default: return body(Split{}, float{});
    }
}

// body(Tile{}) with the tile for these extents.
template <class M, class S, class Body> void with_mma_tile(const Extents& e, Body&& body) {
    with_fastest<LargeMma<M, S>, SmallMma<M, S>>(e, body);
}

}  // namespace tilefuse::cuda::products
