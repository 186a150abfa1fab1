// What products on FMA units and on matrix units share: their arguments, how a product is cut up among blocks, and what
// becomes of the sums.
#pragma once

#include <algorithm>

#include "common/activation.h"
#include "cuda/kernels.h"
#include "cuda/optimizer.cuh"

namespace tilefuse::cuda::products {

// ---- arguments ------------------------------------------------------------------------------------------------------

// How a block reads an operand; `across` is along m or n. Packs where 16-byte accesses are aligned, else elements.
enum class Reading { packs_along_k, packs_across, elements_along_k, elements_across };

template <class Element> struct Matrix {
    const Element* data;
    int64_t stride, k_stride;  // from row to row of A, or column to column of B; from k to k + 1
    Reading reading;
};

template <class T> struct Finish {
    T beta;
    void* c;  // T, or as `stored` says
    tilefuse_storage stored;
    int64_t n, c_stride;
    bool packs;  // whether accesses to packs of all of these are aligned
    tilefuse_epilogue epilogue;
};

template <class T> struct Product {
    int64_t m, n, k, products;
    int64_t tiles_down, tiles_across;
    int64_t parts, depth;  // of k; depth is below 2^31
    int64_t first;         // block of this launch
    int batch_axes;
    int64_t batch_shape[TILEFUSE_MAX_BATCH_AXES];
    int64_t a_batch_strides[TILEFUSE_MAX_BATCH_AXES];
    int64_t b_batch_strides[TILEFUSE_MAX_BATCH_AXES];
    int64_t c_batch_strides[TILEFUSE_MAX_BATCH_AXES];
    T* sums;  // [product, part, m, columns_of_sums], if there are several parts
    Finish<T> finish;
};

// Whole packs, so that every row of the parts' sums is aligned.
template <class T> __host__ __device__ constexpr int64_t columns_of_sums(int64_t n) {
    return (n + pack_size<T> - 1) / pack_size<T> * pack_size<T>;
}

// ---- a block's share ------------------------------------------------------------------------------------------------

// Where a product's operands and results begin.
struct Offsets {
    int64_t a, b, c;
};

template <class T> __device__ Offsets offsets_of(const Product<T>& p, int64_t product) {
    Offsets at = {};
    for (int axis = p.batch_axes - 1; axis >= 0; --axis) {
        const int64_t i = product % p.batch_shape[axis];
        product /= p.batch_shape[axis];
        at.a += i * p.a_batch_strides[axis];
        at.b += i * p.b_batch_strides[axis];
        at.c += i * p.c_batch_strides[axis];
    }
    return at;
}

// Neighbouring blocks take tiles from the same 8 rows of tiles, so that they find each other's operands in L2.
struct Place {
    int64_t down, across;
};

__device__ __forceinline__ Place place_of(int64_t tile, int64_t tiles_down, int64_t tiles_across) {
    constexpr int64_t band = 8;
    const int64_t first = tile / (band * tiles_across) * band, in_band = tile % (band * tiles_across);
    const int64_t height = tiles_down - first < band ? tiles_down - first : band;
    return {first + in_band % height, in_band / height};
}

// A tile of C, and a part of k.
struct Work {
    int64_t product, part, row, column, k;
    int depth;
};

template <class Tile, class T> __device__ __forceinline__ Work work_of(const Product<T>& p) {
    const int64_t block = p.first + blockIdx.x, tiles = p.tiles_down * p.tiles_across;
    const int64_t part = block / tiles % p.parts, product = block / tiles / p.parts, k = part * p.depth;
    const Place tile = place_of(block % tiles, p.tiles_down, p.tiles_across);
    return {product, part, tile.down * Tile::rows, tile.across * Tile::columns, k,
            static_cast<int>(p.k - k < p.depth ? p.k - k : p.depth)};
}

// Where a part's sums of a pack are kept.
template <class T>
__device__ __forceinline__ T* place_of_sums(const Product<T>& p, const Work& work, int64_t row, int64_t column) {
    return p.sums + ((work.product * p.parts + work.part) * p.m + row) * columns_of_sums<T>(p.n) + column;
}

// ---- the epilogue ---------------------------------------------------------------------------------------------------

__device__ __forceinline__ float multiply_add(float x, float y, float z) { return fmaf(x, y, z); }
__device__ __forceinline__ double multiply_add(double x, double y, double z) { return fma(x, y, z); }

__device__ __forceinline__ float widened(uint16_t bits, tilefuse_storage stored) {
    return stored == TILEFUSE_STORED_BFLOAT16 ? __bfloat162float(__ushort_as_bfloat16(bits))
                                              : __half2float(__ushort_as_half(bits));
}
__device__ __forceinline__ uint16_t narrowed(float x, tilefuse_storage stored) {
    return stored == TILEFUSE_STORED_BFLOAT16 ? __bfloat16_as_ushort(__float2bfloat16_rn(x))
                                              : __half_as_ushort(__float2half_rn(x));
}

// A pack of C. Where `Narrow`, its numbers may lie there in 16 bits.
template <bool Narrow, class T>
__device__ __forceinline__ Pack<T, pack_size<T>> load_result(const Finish<T>& f, int64_t at, int count) {
    constexpr int pack = pack_size<T>;
    if constexpr (Narrow && sizeof(T) == 4) {
        if (f.stored != TILEFUSE_STORED_WHOLE) {
            const auto halves = load_upto<pack>(static_cast<const uint16_t*>(f.c) + at, count, f.packs);
            Pack<T, pack> x;
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < pack; ++i) x.of[i] = widened(halves.of[i], f.stored);
            return x;
        }
    }
    return load_upto<pack>(static_cast<const T*>(f.c) + at, count, f.packs);
}
template <bool Narrow, class T>
__device__ __forceinline__ void store_result(const Finish<T>& f, int64_t at, const Pack<T, pack_size<T>>& x, int count) {
    constexpr int pack = pack_size<T>;
    if constexpr (Narrow && sizeof(T) == 4) {
        if (f.stored != TILEFUSE_STORED_WHOLE) {
            Pack<uint16_t, pack> halves;
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < pack; ++i) halves.of[i] = narrowed(x.of[i], f.stored);
            return store_upto(static_cast<uint16_t*>(f.c) + at, halves, count, f.packs);
        }
    }
    store_upto(static_cast<T*>(f.c) + at, x, count, f.packs);
}

// The bias of a pack's columns.
template <class T>
__device__ __forceinline__ Pack<T, pack_size<T>> bias_of(const Finish<T>& f, int64_t column, int64_t columns_left) {
    if (f.epilogue.bias == nullptr) return {};
    return load_upto<pack_size<T>>(static_cast<const T*>(f.epilogue.bias) + column, columns_left, f.packs);
}

// What becomes of the sums of a pack of C at (row, column); `offset` is where this product's C begins, and `known` the
// pack's bias where the caller has it at hand.
template <bool Narrow, class T>
__device__ __forceinline__ void finish(const Finish<T>& f, const KerasStep<T>* step, Pack<T, pack_size<T>> x,
                                       int64_t offset, int64_t row, int64_t column, int64_t columns_left,
                                       const Pack<T, pack_size<T>>* known = nullptr) {
    constexpr int pack = pack_size<T>;
    const int count = columns_left < pack ? static_cast<int>(columns_left) : pack;
    const tilefuse_epilogue& e = f.epilogue;
    const int64_t at = offset + row * f.c_stride + column, dense_at = row * f.n + column;
    if (f.beta != 0) {
        const Pack<T, pack> c = load_result<Narrow>(f, at, count);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) x.of[i] = multiply_add(f.beta, c.of[i], x.of[i]);
    }
    if (e.scale != nullptr) {
        const Pack<T, pack> scale = load_upto<pack>(static_cast<const T*>(e.scale) + column, count, f.packs);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) x.of[i] *= scale.of[i];
    }
    if (e.bias != nullptr) {
        const Pack<T, pack> bias = known != nullptr ? *known : bias_of(f, column, columns_left);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) x.of[i] += bias.of[i];
    }
    if (e.addend != nullptr) {
        const Pack<T, pack> addend = load_upto<pack>(static_cast<const T*>(e.addend) + at, count, f.packs);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) x.of[i] += addend.of[i];
    }
    if (e.preactivation != nullptr) store_upto(static_cast<T*>(e.preactivation) + at, x, count, f.packs);
    if (e.activation != TILEFUSE_LINEAR) {
        with_activation<T>(e.activation, e.activation_alpha, [&](auto g) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < pack; ++i) x.of[i] = g.forward(x.of[i]);
        });
    }
    if (e.mask != nullptr) {
        const Pack<uint8_t, pack> kept = load_upto<pack>(e.mask + dense_at, count, f.packs);
        const T scale = static_cast<T>(e.mask_scale);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) x.of[i] = kept.of[i] != 0 ? x.of[i] * scale : T(0);
    }
    if (e.derivative_at != nullptr) {
        const Pack<T, pack> y = load_upto<pack>(static_cast<const T*>(e.derivative_at) + at, count, f.packs);
        with_activation<T>(e.derivative, e.derivative_alpha, [&](auto g) {
            TILEFUSE_UNROLL_ALL
            for (int i = 0; i < pack; ++i) x.of[i] *= g.derivative(y.of[i]);
        });
    }
    if (e.rule != nullptr) {
        update(*e.rule, *step, e.parameter, dense_at, x, count, f.packs);
    } else {
        store_result<Narrow>(f, at, x, count);
    }
}

// ---- what to launch -------------------------------------------------------------------------------------------------

// Of a large GPU. Results must not depend on the machine's number, and a smaller one has enough to do all the same.
constexpr int64_t multiprocessors = 108;
constexpr int64_t most_blocks = 0x7fffffff;  // of a launch

inline int64_t products_of(const tilefuse_matmul_args& args) {
    int64_t products = 1;
    for (int axis = 0; axis < args.batch_axes; ++axis) products *= args.batch_shape[axis];
    return products;
}

// The products' sizes, and their number.
struct Extents {
    int64_t m, n, k, products;
};
inline Extents extents_of(const tilefuse_matmul_args& args) { return {args.m, args.n, args.k, products_of(args)}; }

inline bool whole_packs(int64_t stride, int axes, const int64_t* batch_strides, int pack) {
    bool whole = stride % pack == 0;
    for (int axis = 0; axis < axes; ++axis) whole = whole && batch_strides[axis] % pack == 0;
    return whole;
}

template <class Element>
Matrix<Element> matrix_of(const void* data, int64_t stride, int64_t k_stride, int axes, const int64_t* batch_strides) {
    const bool along_k = k_stride == 1 || (stride != 1 && std::abs(k_stride) < std::abs(stride));
    const bool packs = packs_fit({data}) && (along_k ? k_stride : stride) == 1 &&
                       whole_packs(along_k ? stride : k_stride, axes, batch_strides, pack_size<Element>);
    const Reading reading = along_k ? (packs ? Reading::packs_along_k : Reading::elements_along_k)
                                    : (packs ? Reading::packs_across : Reading::elements_across);
    return {static_cast<const Element*>(data), stride, k_stride, reading};
}
template <class Element> Matrix<Element> matrix_a(const tilefuse_matmul_args& args) {
    return matrix_of<Element>(args.a, args.a_row_stride, args.a_col_stride, args.batch_axes, args.a_batch_strides);
}
template <class Element> Matrix<Element> matrix_b(const tilefuse_matmul_args& args) {
    return matrix_of<Element>(args.b, args.b_col_stride, args.b_row_stride, args.batch_axes, args.b_batch_strides);
}

// `whole`: rows of C, and its columns that are written together, begin and end with packs.
template <class T>
Finish<T> finish_to(void* c, tilefuse_storage stored, int64_t n, int64_t stride, bool whole, double beta,
                    const tilefuse_epilogue& e) {
    constexpr int pack = pack_size<T>;
    bool packs = whole && packs_fit({c}, stored == TILEFUSE_STORED_WHOLE ? 16 : 8) &&
                 packs_fit({e.scale, e.bias, e.addend, e.preactivation, e.derivative_at});
    const auto dense = [&](bool aligned) { return aligned && n % pack == 0; };  // of contiguous [m, n]
    if (e.rule != nullptr) packs = packs && dense(parameter_aligned<T>(e.parameter));
    if (e.mask != nullptr) packs = packs && dense(packs_fit({e.mask}, pack));
    return {static_cast<T>(beta), c, stored, n, stride, packs, e};
}
template <class T> Finish<T> finish_of(const tilefuse_matmul_args& args) {
    const bool whole = whole_packs(args.c_row_stride, args.batch_axes, args.c_batch_strides, pack_size<T>);
    return finish_to<T>(args.c, args.result, args.n, args.c_row_stride, whole, args.beta, args.epilogue);
}

// How a product is cut up.
struct Cut {
    int64_t tiles_down, tiles_across, parts, depth;
};

// About how many cycles the product takes with k in so many parts. A multiprocessor's blocks share its units, which do
// Tile::rate multiply-adds a cycle, but a step of one takes Tile::latency at least. Parts cost the launch that adds them,
// what it moves, and the time until their sums have come one after the other (estimates).
template <class Tile> double cycles_of(const Extents& e, int64_t tiles, int64_t parts) {
    constexpr double launch = 4000, bytes_a_cycle = 1000, cycles_of_a_part = 100;
    const int64_t blocks = tiles * parts, steps = quotient(quotient(e.k, parts), Tile::depth);
    const int64_t together = std::clamp<int64_t>(quotient(blocks, multiprocessors), 1, Tile::blocks);
    const double step = static_cast<double>(together * Tile::rows * Tile::columns * Tile::depth) / Tile::rate;
    const double products =
        static_cast<double>(quotient(blocks, multiprocessors * together) * steps) * std::max<double>(Tile::latency, step);
    if (parts == 1) return products;
    const double bytes = 8.0 * static_cast<double>(parts * e.m * e.n * e.products);
    return products + launch + bytes / bytes_a_cycle + cycles_of_a_part * static_cast<double>(parts);
}

// The number of parts that takes the least time, and that.
struct Choice {
    int64_t parts;
    double cycles;
};
template <class Tile> Choice choice_of(const Extents& e) {
    constexpr int64_t least_k = 256, least_depth = 64, most_depth = int64_t{1} << 30;
    const int64_t tiles = quotient(e.m, Tile::rows) * quotient(e.n, Tile::columns) * e.products;
    const int64_t least = std::max<int64_t>(1, quotient(e.k, most_depth));
    Choice best = {least, cycles_of<Tile>(e, tiles, least)};
    if (e.k < least_k || tiles == 0) return best;
    const int64_t most = std::min(multiprocessors * Tile::blocks / tiles, e.k / least_depth);
    for (int64_t parts = least + 1; parts <= most; parts += (parts + 1) / 2) {
        const double cycles = cycles_of<Tile>(e, tiles, parts);
        if (cycles > 1.5 * best.cycles) break;
        if (cycles < best.cycles) best = {parts, cycles};
    }
    return best;
}

template <class Tile> Cut cut_of(const Extents& e) {
    const int64_t down = quotient(e.m, Tile::rows), across = quotient(e.n, Tile::columns), parts = choice_of<Tile>(e).parts;
    if (parts == 1) return {down, across, 1, e.k};
    const int64_t depth = quotient(quotient(e.k, parts), Tile::depth) * Tile::depth;
    return {down, across, quotient(e.k, depth), depth};
}

// body(Tile{}) with the fastest of some tiles.
template <class... Tiles, class Body> void with_fastest(const Extents& e, Body&& body) {
    const double cycles[] = {choice_of<Tiles>(e).cycles...};
    const auto fastest = std::min_element(std::begin(cycles), std::end(cycles)) - std::begin(cycles);
    std::ptrdiff_t tile = 0;
    ((tile++ == fastest ? body(Tiles{}) : void()), ...);
}

template <class T> Product<T> product_of(const Context& context, const Extents& e, const Cut& cut, const Finish<T>& finish) {
    Product<T> p = {};
    p.m = e.m;
    p.n = e.n;
    p.k = e.k;
    p.products = e.products;
    p.tiles_down = cut.tiles_down;
    p.tiles_across = cut.tiles_across;
    p.parts = cut.parts;
    p.depth = cut.depth;
    p.sums = static_cast<T*>(context.workspace);
    p.finish = finish;
    return p;
}
template <class T> Product<T> product_of(const Context& context, const tilefuse_matmul_args& args, const Cut& cut) {
    Product<T> p = product_of<T>(context, extents_of(args), cut, finish_of<T>(args));
    p.batch_axes = args.batch_axes;
    for (int axis = 0; axis < args.batch_axes; ++axis) {
        p.batch_shape[axis] = args.batch_shape[axis];
        p.a_batch_strides[axis] = args.a_batch_strides[axis];
        p.b_batch_strides[axis] = args.b_batch_strides[axis];
        p.c_batch_strides[axis] = args.c_batch_strides[axis];
    }
    return p;
}

// launch, for any number of blocks; the kernel adds `first` to its block's number.
template <class T, class... Matrices>
void launch_all(const Kernel<Product<T>, Matrices...>& kernel, Product<T> p, int64_t blocks, int threads,
                size_t shared_bytes, cudaStream_t stream, const Matrices&... matrices) {
    for (p.first = 0; p.first < blocks; p.first += most_blocks) {
        const unsigned count = static_cast<unsigned>(std::min(blocks - p.first, most_blocks));
        launch(kernel, dim3(count), dim3(static_cast<unsigned>(threads)), shared_bytes, stream, p, matrices...);
    }
}

template <class T> size_t size_of_sums(const Extents& e, const Cut& cut) {
    return static_cast<size_t>(e.products * cut.parts * e.m * columns_of_sums<T>(e.n)) * sizeof(T);
}
template <class T> size_t bytes_of_sums(const Extents& e, const Cut& cut) {
    return cut.parts == 1 ? 0 : size_of_sums<T>(e, cut);
}

// ---- elsewhere ------------------------------------------------------------------------------------------------------

// Adds up the parts' sums, in the order of k (matmul.cu).
void queue_add_parts(const Context& context, const Product<float>& p);
void queue_add_parts(const Context& context, const Product<double>& p);

// Products on matrix units (matmul_mma.cu). Whether a GPU has them, or an error that names the op.
bool for_matrix_units(tilefuse_dtype dtype, tilefuse_precision precision, const Extents& e);
void check_matrix_units(const char* op);
bool for_matrix_units(const tilefuse_matmul_args& args);
void matmul_on_matrix_units(const Context& context, const tilefuse_matmul_args& args);
size_t workspace_on_matrix_units(const tilefuse_matmul_args& args);

}  // namespace tilefuse::cuda::products
