// Products on matrix units: of float32 matrices, whose elements are split, or rounded on the way; or of matrices that lie
// in memory in 16 bits. Sums are float32.
//
// A block computes one tile of C, a warp a part of it in registers. The tile's parts of A and B for a step of k, 64 bytes
// of each row, are copied to shared memory asynchronously, several steps ahead. There they lie as in global memory, along
// k or across it, in packs of 16 bytes whose places are chosen so that no access has bank conflicts. In the end the sums
// go through shared memory too, so that C is written by whole rows of the tile.
#include "cuda/matmul.cuh"
#include "cuda/mma.cuh"

namespace tilefuse::cuda::products {

// ---- tiles ----------------------------------------------------------------------------------------------------------

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
    static constexpr int operand_bytes = 64 * Rows;  // of a stage
    static constexpr size_t shared_bytes = 2 * stages * operand_bytes;
    static_assert(Rows == Columns && threads == 2 * Rows, "MmaOperand spreads its work so");
    static_assert(WarpRows % 16 == 0 && WarpColumns % 16 == 0);
    static_assert(shared_bytes >= Rows * Columns * sizeof(float), "the sums' way to C");
};
// The large one needs 64 KB of shared memory; of both, a thread has 64 or 32 sums.
template <class M> using LargeMma = MmaTile<M, 128, 128, 64, 32>;
template <class M> using SmallMma = MmaTile<M, 64, 64, 32, 32>;

// ---- one operand's way to shared memory and to registers ------------------------------------------------------------

// `Width` rows of A or columns of B, 64 bytes deep: lines along k, a row each, or lines across, a k each.
template <class Element, int Width> class MmaOperand {
public:
    __device__ __forceinline__ MmaOperand(const Matrix<Element>& matrix, const Element* from, int64_t width, int depth)
        : matrix_(matrix), from_(from), width_(width < Width ? static_cast<int>(width) : Width), depth_(depth),
          along_(matrix.reading == Reading::packs_along_k || matrix.reading == Reading::elements_along_k) {}

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
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < 4; ++i) {
                const int next = IsA ? i % 2 : i / 2, deeper = IsA ? i / 2 : i % 2;
                x[i] = __float_as_uint(buffer[place(k + lane % 4 + 4 * deeper, at + lane / 4 + 8 * next)]);
            }
        }
    }

private:
    static constexpr int pack = pack_size<Element>, depth = 4 * pack, threads = 2 * Width;

    // Where element `at` of a line lies. Two lines along k fill the 32 banks: four pairs of them have their packs in
    // different order. Across, 8 packs do: 8 lines of 16-bit elements, whose matrices have rows of one pack, and 4 lines of
    // float32, of which a warp reads 8 single elements each, have them in different order.
    __device__ __forceinline__ int place(int line, int at) const {
        const int number = at / pack, within = at % pack;
        if (along_) return line * depth + (number ^ (line / 2 % 4)) * pack + within;
        return line * Width + (number ^ (sizeof(Element) == 2 ? line % 8 : line % 4 * 2)) * pack + within;
    }

    const Matrix<Element>& matrix_;
    const Element* from_;
    const int width_;  // rows or columns that the matrix has here
    int depth_;        // of k that are left
    const bool along_;
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

// ---- the kernel -----------------------------------------------------------------------------------------------------

template <class Tile> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    multiply_mma(Product<float> p, Matrix<typename Tile::Element> left, Matrix<typename Tile::Element> right) {
    using M = typename Tile::Multiplier;
    using Element = typename Tile::Element;
    constexpr int stages = Tile::stages, size = Tile::operand_bytes / sizeof(Element);
    constexpr int tiles_down = Tile::warp_rows / 16, pairs_across = Tile::warp_columns / 16;
    TILEFUSE_SHARED(StepMemory<float>, step_memory);
    Element* const buffers = dynamic_shared<Element>();
    const auto buffer_a = [&](int step) { return buffers + step % stages * 2 * size; };
    const auto buffer_b = [&](int step) { return buffer_a(step) + size; };

    const Work work = work_of<Tile>(p);
    const Offsets at = offsets_of(p, work.product);
    MmaOperand<Element, Tile::rows> a(left, left.data + at.a + work.row * left.stride + work.k * left.k_stride,
                                   p.m - work.row, work.depth);
    MmaOperand<Element, Tile::columns> b(right, right.data + at.b + work.column * right.stride + work.k * right.k_stride,
                                      p.n - work.column, work.depth);
    const int thread = static_cast<int>(threadIdx.x), warp = thread / warp_size, lane = thread % warp_size;
    constexpr int warps_across = Tile::columns / Tile::warp_columns;
    const int row = warp / warps_across * Tile::warp_rows, column = warp % warps_across * Tile::warp_columns;

    float sums[tiles_down][2 * pairs_across][4] = {};
    const int steps = (work.depth + Tile::depth - 1) / Tile::depth;
    const auto fetch = [&](int step) {
        if (step < steps) {
            a.copy(buffer_a(step));
            b.copy(buffer_b(step));
        }
        copy_async_commit();
    };
    for (int step = 0; step < stages - 1; ++step) fetch(step);
    if (thread == 0 && p.parts == 1 && p.finish.epilogue.rule != nullptr) step_memory.make(*p.finish.epilogue.rule);
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

    // In shared memory, packs of 4 lines are in different order, as above.
    float* const tile = dynamic_shared<float>();
    const auto place = [](int r, int c) { return r * Tile::columns + (c ^ (r % 4 * 8)); };
    copy_async_wait<0>();
    block_barrier();
    TILEFUSE_UNROLL_ALL
    for (int i = 0; i < tiles_down; ++i)
        TILEFUSE_UNROLL_ALL
        for (int j = 0; j < 2 * pairs_across; ++j)
            TILEFUSE_UNROLL_ALL
            for (int half = 0; half < 2; ++half) {
                const Pack<float, 2> x = {{sums[i][j][2 * half], sums[i][j][2 * half + 1]}};
                store_pack(tile + place(row + 16 * i + lane / 4 + 8 * half, column + 8 * j + lane % 4 * 2), x);
            }
    block_barrier();
    constexpr int pack = pack_size<float>, packs_of_row = Tile::columns / pack;
    static_assert(Tile::threads % packs_of_row == 0);
    const int in_column = thread % packs_of_row * pack;
    const int64_t c = work.column + in_column;
    if (c >= p.n) return;
    const Pack<float, pack> bias = bias_of(p.finish, c, p.n - c);
    TILEFUSE_UNROLL(1)
    for (int in_row = thread / packs_of_row; in_row < Tile::rows; in_row += Tile::threads / packs_of_row) {
        const int64_t r = work.row + in_row;
        if (r >= p.m) return;
        const Pack<float, pack> x = load_pack<pack>(tile + place(in_row, in_column));
        if (p.parts > 1) {
            store_pack(place_of_sums(p, work, r, c), x);
        } else {
            finish<true>(p.finish, step_memory.step(), x, at.c, r, c, p.n - c, &bias);
        }
    }
}

// ---- what to launch -------------------------------------------------------------------------------------------------

template <class Tile> void multiply_mma_by(const Context& context, const tilefuse_matmul_args& args) {
    using Element = typename Tile::Element;
    const auto p = product_of<float>(context, args, cut_of<Tile>(extents_of(args)));
    const int64_t blocks = p.tiles_down * p.tiles_across * p.parts * p.products;
    launch_all(TILEFUSE_KERNEL(multiply_mma<Tile>), p, blocks, Tile::threads, Tile::shared_bytes, context.stream,
               matrix_a<Element>(args), matrix_b<Element>(args));
    if (p.parts > 1) queue_add_parts(context, p);
}

namespace {

// body(Multiplier{}) with how these operands are multiplied.
template <class Body> void with_multiplier(const tilefuse_matmul_args& args, Body&& body) {
    switch (args.operands) {
        case TILEFUSE_STORED_BFLOAT16: return body(Stored<Bfloat16>{});
        case TILEFUSE_STORED_FLOAT16: return body(Stored<Float16>{});
        default: break;
    }
    switch (args.precision) {
        case TILEFUSE_PRECISION_BFLOAT16: return body(Rounded<Bfloat16>{});
        case TILEFUSE_PRECISION_FLOAT16: return body(Rounded<Float16>{});
        case TILEFUSE_PRECISION_TF32: return body(Tf32{});
        default: return body(Split{});
    }
}

// body(Tile{}) with the tile for this shape.
template <class Body> void with_mma_tile(const tilefuse_matmul_args& args, Body&& body) {
    with_multiplier(args, [&](auto multiplier) {
        using M = decltype(multiplier);
        if (cost_of<LargeMma<M>>(extents_of(args), 1) < cost_of<SmallMma<M>>(extents_of(args), 0.7)) return body(LargeMma<M>{});
        body(SmallMma<M>{});
    });
}

// Whether six products of tf32 are faster than one of float32 on this GPU. By the data sheets tensor cores make 8 tf32
// products in the time of one float32 multiply-add on compute capability 8.0, but 1 on 8.6, 8.9 and 12.0; on 9.0 it is 7.4
// by wgmma, of which the instruction used here reaches 0.63 (Luo et al.: Benchmarking and Dissecting the Nvidia Hopper GPU
// Architecture, 2024). Not measured.
bool split_is_fast() {
    int device = 0, major = 0, minor = 0;
    check(cudaGetDevice(&device), "matmul");
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "matmul");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "matmul");
    return major == 8 && minor == 0;
}

bool any_matrix_units() { return has_matrix_units(TILEFUSE_KERNEL(multiply_mma<LargeMma<Split>>)); }

}  // namespace

bool for_matrix_units(const tilefuse_matmul_args& args) {
    if (args.dtype != TILEFUSE_FLOAT32 || args.precision == TILEFUSE_PRECISION_IEEE) return false;
    if (args.operands == TILEFUSE_STORED_WHOLE && args.precision == TILEFUSE_PRECISION_FLOAT32) {
        return std::min({args.m, args.n, args.k}) >= 64 && split_is_fast() && any_matrix_units();
    }
    return true;
}

void matmul_on_matrix_units(const Context& context, const tilefuse_matmul_args& args) {
    if (!any_matrix_units()) {
        throw std::runtime_error("matmul in this precision or dtype needs a GPU of compute capability 8.0 or later, and "
                                 "kernels compiled for it: pass arrays of float32, and precision=\"float32\"");
    }
    with_mma_tile(args, [&](auto tile) { multiply_mma_by<decltype(tile)>(context, args); });
}

size_t workspace_on_matrix_units(const tilefuse_matmul_args& args) {
    size_t bytes = 0;
    const Extents extents = extents_of(args);
    with_mma_tile(args, [&](auto tile) { bytes = bytes_of_sums<float>(extents, cut_of<decltype(tile)>(extents)); });
    return bytes;
}

}  // namespace tilefuse::cuda::products
