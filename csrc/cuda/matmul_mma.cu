// Products on matrix units (matmul_mma.cuh).
#include "cuda/matmul_mma.cuh"

namespace tilefuse::cuda::products {

// ---- the kernel -----------------------------------------------------------------------------------------------------

template <class Tile> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    multiply_mma(Product<float> p, Matrix<typename Tile::Source> left, Matrix<typename Tile::Source> right) {
    TILEFUSE_SHARED(StepMemory<float>, step_memory);
    TILEFUSE_SHARED(Work, work);  // and not in registers, which the loop needs
    if (threadIdx.x == 0) work = work_of<Tile>(p);
    block_barrier();
    const Offsets at = offsets_of(p, work.product);
    MmaOperand<Tile, Tile::rows> a(left, left.data + at.a + work.row * left.stride + work.k * left.k_stride,
                                   p.m - work.row, work.depth);
    MmaOperand<Tile, Tile::columns> b(right, right.data + at.b + work.column * right.stride + work.k * right.k_stride,
                                      p.n - work.column, work.depth);
    MmaSums<Tile> sums = {};
    multiply_panels<Tile>(a, b, work.depth, dynamic_shared<typename Tile::Element>(), sums, [&] {
        if (threadIdx.x == 0 && p.parts == 1 && p.finish.epilogue.rule != nullptr) step_memory.make(*p.finish.epilogue.rule);
    });
    stage_sums<Tile>(sums, dynamic_shared<float>());
    const int64_t first = offsets_of(p, work.product).c, c = work.column + column_of_thread<Tile>();
    if (c >= p.n) return;
    const Pack<float, pack_size<float>> bias = bias_of(p.finish, c, p.n - c);
    for_staged_packs<Tile>(dynamic_shared<float>(), p.m - work.row, [&](int r, const auto& x) {
        if (p.parts > 1) {
            store_pack(place_of_sums(p, work, work.row + r, c), x);
        } else {
            finish<true>(p.finish, step_memory.step(), x, first, work.row + r, c, p.n - c, &bias);
        }
    });
}

// ---- what to launch -------------------------------------------------------------------------------------------------

template <class Tile> void multiply_mma_by(const Context& context, const tilefuse_matmul_args& args) {
    using Source = typename Tile::Source;
    const auto p = product_of<float>(context, args, cut_of<Tile>(extents_of(args)));
    const int64_t blocks = p.tiles_down * p.tiles_across * p.parts * p.products;
    launch_all(TILEFUSE_KERNEL(multiply_mma<Tile>), p, blocks, Tile::threads, Tile::shared_bytes, context.stream,
               matrix_a<Source>(args), matrix_b<Source>(args));
    if (p.parts > 1) queue_add_parts(context, p);
}

namespace {

// body(Tile{}) with the tile for this shape.
template <class Body> void with_tile_of(const tilefuse_matmul_args& args, Body&& body) {
    const auto with = [&](auto multiplier, auto source) {
        with_mma_tile<decltype(multiplier), decltype(source)>(extents_of(args), body);
    };
    switch (args.operands) {
        case TILEFUSE_STORED_BFLOAT16: return with(Stored<Bfloat16>{}, uint16_t{});
        case TILEFUSE_STORED_FLOAT16: return with(Stored<Float16>{}, uint16_t{});
        default: return with_multiplier(args.precision, with);
    }
}

// Whether six products of tf32 are faster than one of float32 on this GPU. By the data sheets tensor cores make 8 tf32
// products in the time of one float32 multiply-add on compute capability 8.0, but 1 on 8.6, 8.9 and 12.0; on 9.0 it is 7.4
// by wgmma, of which the instruction used here reaches 0.63 (Luo et al.: Benchmarking and Dissecting the Nvidia Hopper GPU
// Architecture, 2024). Measured on 9.0 alone, an H200: 15.8 TFLOP/s, and 36.2 by multiply-adds (4096 x 4096 with k = 4096).
bool split_is_fast() {
    int device = 0, major = 0, minor = 0;
    check(cudaGetDevice(&device), "matmul");
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "matmul");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "matmul");
    return major == 8 && minor == 0;
}

bool any_matrix_units() { return has_matrix_units(TILEFUSE_KERNEL(multiply_mma<LargeMma<Split, float>>)); }

}  // namespace

bool for_matrix_units(tilefuse_dtype dtype, tilefuse_precision precision, const Extents& e) {
    if (dtype != TILEFUSE_FLOAT32 || precision == TILEFUSE_PRECISION_IEEE) return false;
    if (precision != TILEFUSE_PRECISION_FLOAT32) return true;
    return std::min({e.m, e.n, e.k}) >= 64 && split_is_fast() && any_matrix_units();
}
bool for_matrix_units(const tilefuse_matmul_args& args) {
    return args.operands != TILEFUSE_STORED_WHOLE || for_matrix_units(args.dtype, args.precision, extents_of(args));
}

void check_matrix_units(const char* op) {
    if (any_matrix_units()) return;
    throw std::runtime_error(std::string(op) + " in this precision or dtype needs a GPU of compute capability 8.0 or later, "
                             "and kernels compiled for it: pass arrays of float32, and precision=\"float32\"");
}

void matmul_on_matrix_units(const Context& context, const tilefuse_matmul_args& args) {
    check_matrix_units("matmul");
    with_tile_of(args, [&](auto tile) { multiply_mma_by<decltype(tile)>(context, args); });
}

size_t workspace_on_matrix_units(const tilefuse_matmul_args& args) {
    size_t bytes = 0;
    const Extents extents = extents_of(args);
    with_tile_of(args, [&](auto tile) { bytes = bytes_of_sums<float>(extents, cut_of<decltype(tile)>(extents)); });
    return bytes;
}

}  // namespace tilefuse::cuda::products
