// Batch, layer and RMS normalisation, and their gradients.
//
// Batch norm: sums over the rows of each column (columns.cuh); from these a few constants for each column, by which then
// each element is computed. Layer and RMS norm: rows are normalised in shared memory (row.cuh), and the gradients of gamma
// and beta are sums over rows again.
#include "tilefuse/norm.h"

#include "common/dtype.h"
#include "common/math.h"
#include "cuda/columns.cuh"
#include "cuda/kernels.h"
#include "cuda/matmul.cuh"
#include "cuda/row.cuh"

namespace tilefuse::cuda {
namespace norms {

using products::Finish;
using products::multiply_add;

// An array's element in double, or what stands for an array that is not there; and the way back.
template <class T> __device__ __forceinline__ double of(const void* p, int64_t i, double otherwise) {
    return p != nullptr ? static_cast<double>(static_cast<const T*>(p)[i]) : otherwise;
}
template <class T> __device__ __forceinline__ void put(void* p, int64_t i, double value) {
    if (p != nullptr) static_cast<T*>(p)[i] = static_cast<T>(value);
}

// Of each column. Forward: y = (x - centre) factor + offset; offset takes up what the mean loses when it is rounded.
// Backward: dx = factor dy + (slope (x - centre) + offset).
template <class T> struct Constants {
    T *factor, *offset, *centre, *slope;
};

// The workspace: the first stage's sums, and what is left to the next kernels, `size` elements each.
template <class T> struct Workspace {
    double* sums;
    T* numbers;
    int64_t size;
    T* array(int i) const { return numbers + i * size; }
    static Workspace at(void* memory, int64_t doubles, int64_t size) {
        double* const sums = static_cast<double*>(memory);
        return {sums, reinterpret_cast<T*>(sums + doubles), size};
    }
    static size_t bytes(int64_t doubles, int64_t size, int arrays) {
        return static_cast<size_t>(doubles) * sizeof(double) + static_cast<size_t>(arrays * size) * sizeof(T);
    }
};

// ---- batch norm: the second stage -----------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(threads_of_block)
    finish_statistics(Columns c, tilefuse_batch_norm_args args, const double* sums, Constants<T> constants) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
    const int64_t column = static_cast<int64_t>(blockIdx.x) * warp_size + lane;
    Spread spread;
    if (args.training) {
        for_parts(c, column, warp, [&](int64_t rows, int64_t place) {
            spread.add({static_cast<double>(rows), sums[place], sums[place + c.width]});
        });
        spread = sum_of_warps(spread, lane, warp);
    }
    if (warp > 0 || column >= c.cols) return;
    double mean = spread.mean, variance = 0;
    if (!args.training) {
        mean = of<T>(args.moving_mean, column, 0);
        variance = of<T>(args.moving_variance, column, 1);
    } else if (spread.count > 0) {
        variance = spread.squares / spread.count;
        if (variance < 0) variance = 0;
        const auto move = [&](void* moving, double batch) {
            put<T>(moving, column, of<T>(moving, column, 0) * args.momentum + batch * (1 - args.momentum));
        };
        move(args.moving_mean, mean);
        move(args.moving_variance, variance);
    }
    const double inv_std = 1 / tilefuse::sqrt(variance + args.epsilon), factor = of<T>(args.gamma, column, 1) * inv_std;
    put<T>(args.mean, column, mean);
    put<T>(args.inv_std, column, inv_std);
    const T centre = static_cast<T>(mean);
    constants.centre[column] = centre;
    constants.factor[column] = static_cast<T>(factor);
    constants.offset[column] = static_cast<T>(of<T>(args.beta, column, 0) - (mean - static_cast<double>(centre)) * factor);
}

// What becomes of the gradients of gamma and beta.
struct Parameters {
    void *dgamma, *dbeta;
    const tilefuse_optimizer_rule* rule;
    tilefuse_parameter gamma, beta;
    bool wanted() const { return rule != nullptr ? gamma.w != nullptr || beta.w != nullptr : dgamma != nullptr || dbeta != nullptr; }
};
template <class Args> Parameters parameters_of(const Args& args) {
    return {args.dgamma, args.dbeta, args.rule, args.gamma_parameter, args.beta_parameter};
}

template <class T>
__device__ __forceinline__ void give(const Parameters& p, const KerasStep<T>* step, int64_t column, double dgamma, double dbeta) {
    if (p.rule == nullptr) {
        put<T>(p.dgamma, column, dgamma);
        put<T>(p.dbeta, column, dbeta);
        return;
    }
    if (p.gamma.w != nullptr) update(*p.rule, *step, p.gamma, column, static_cast<T>(dgamma));
    if (p.beta.w != nullptr) update(*p.rule, *step, p.beta, column, static_cast<T>(dbeta));
}

// From the sums of dy and of dy n, of which dgamma is a multiple, if `inv_std` is given; without sums, they are 0. The
// constants for dx, if wanted, are made of gamma as it was.
template <class T>
__global__ void __launch_bounds__(threads_of_block)
    finish_gradients(Columns c, const double* sums, Parameters parameters, const T* gamma, const T* inv_stds, Constants<T> constants) {
    TILEFUSE_SHARED(StepMemory<T>, step_memory);
    const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
    const int64_t column = static_cast<int64_t>(blockIdx.x) * warp_size + lane;
    if (threadIdx.x == 0 && parameters.rule != nullptr) step_memory.make(*parameters.rule);
    TwoSums both;
    if (sums != nullptr) {
        for_parts(c, column, warp, [&](int64_t, int64_t place) { both.add({sums[place], sums[place + c.width]}); });
        both = sum_of_warps(both, lane, warp);
    }
    block_barrier();
    if (warp > 0 || column >= c.cols) return;
    const double inv_std = of<T>(inv_stds, column, 1), dbeta = both.first, dgamma = both.second * inv_std;
    if (constants.factor != nullptr) {
        const double factor = of<T>(gamma, column, 1) * inv_std, rows = static_cast<double>(c.rows);
        constants.factor[column] = static_cast<T>(factor);
        constants.slope[column] = static_cast<T>(-factor * inv_std * dgamma / rows);
        constants.offset[column] = static_cast<T>(-factor * dbeta / rows);
    }
    if (sums != nullptr) give(parameters, step_memory.step(), column, dgamma, dbeta);
}

// ---- batch norm: each element ---------------------------------------------------------------------------------------

// A warp takes packs side by side in one wide row after the other, so wide that each thread stays in its columns, whose
// constants it keeps.
struct Elements {
    int64_t cols, width, count;
    int64_t across, rows;  // blocks side by side; wide rows of a block
};

template <class T> Elements elements_of(int64_t rows, int64_t cols) {
    constexpr int64_t of_warp = warp_size * pack_size<T>, rows_of_block = 8 * warps_of_block;
    const int64_t width = cols * (of_warp / std::gcd(cols, of_warp));
    return {cols, width, rows * cols, width / of_warp, rows_of_block};
}
inline dim3 grid_of(const Elements& e) {
    return dim3(static_cast<unsigned>(e.across * quotient(quotient(e.count, e.width), e.rows)));
}

// The columns of a thread's packs.
template <class T> struct PackOfColumns {
    static constexpr int pack = pack_size<T>;
    __device__ __forceinline__ explicit PackOfColumns(const Elements& e) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
        const int64_t column = (blockIdx.x % e.across * warp_size + lane) * pack;
        at = (blockIdx.x / e.across * e.rows + warp) * e.width + column;
        past = min(e.count, (blockIdx.x / e.across + 1) * e.rows * e.width);
        first = column % e.cols;
    }
    __device__ __forceinline__ Pack<T, pack> load(const Elements& e, const T* of_columns) const {
        Pack<T, pack> x;
        int64_t column = first;
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) {
            x.of[i] = of_columns[column];
            if (++column == e.cols) column = 0;
        }
        return x;
    }
    int64_t at, past, first;
};

// A contiguous array as one row: packs anywhere in it are aligned if its beginning is.
template <class T>
Finish<T> finish_elements(void* to, int64_t count, const tilefuse_epilogue& epilogue, std::initializer_list<const void*> read) {
    const int64_t row = products::columns_of_sums<T>(count);
    Finish<T> f = products::finish_to<T>(to, TILEFUSE_STORED_WHOLE, row, row, true, 0, epilogue);
    f.packs = f.packs && packs_fit(read);
    return f;
}

template <class T>
__device__ __forceinline__ void finish_pack(const Finish<T>& f, const Pack<T, pack_size<T>>& x, int64_t at, int64_t count) {
    products::finish<false>(f, static_cast<const KerasStep<T>*>(nullptr), x, 0, 0, at, count - at);
}

template <class T>
__global__ void __launch_bounds__(threads_of_block, 2)
    normalise(Elements e, const T* x, Constants<T> constants, Finish<T> finish) {
    constexpr int pack = pack_size<T>;
    const PackOfColumns<T> mine(e);
    if (mine.at >= mine.past) return;
    const auto centre = mine.load(e, constants.centre), factor = mine.load(e, constants.factor), offset = mine.load(e, constants.offset);
    TILEFUSE_UNROLL(2)
    for (int64_t at = mine.at; at < mine.past; at += warps_of_block * e.width) {
        Pack<T, pack> v = load_upto<pack>(x + at, e.count - at, finish.packs);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) v.of[i] = multiply_add(v.of[i] - centre.of[i], factor.of[i], offset.of[i]);
        finish_pack(finish, v, at, e.count);
    }
}

template <class T>
__global__ void __launch_bounds__(threads_of_block, 2)
    differentiate(Elements e, bool training, const T* dy, const T* x, Constants<T> constants, Finish<T> finish) {
    constexpr int pack = pack_size<T>;
    const PackOfColumns<T> mine(e);
    if (mine.at >= mine.past) return;
    const auto factor = mine.load(e, constants.factor);
    Pack<T, pack> centre = {}, slope = {}, offset = {};
    if (training) {
        centre = mine.load(e, constants.centre);
        slope = mine.load(e, constants.slope);
        offset = mine.load(e, constants.offset);
    }
    TILEFUSE_UNROLL(2)
    for (int64_t at = mine.at; at < mine.past; at += warps_of_block * e.width) {
        Pack<T, pack> g = load_upto<pack>(dy + at, e.count - at, finish.packs), v = {};
        if (training) v = load_upto<pack>(x + at, e.count - at, finish.packs);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < pack; ++i) {
            const T rest = multiply_add(slope.of[i], v.of[i] - centre.of[i], offset.of[i]);
            g.of[i] = training ? multiply_add(factor.of[i], g.of[i], rest) : factor.of[i] * g.of[i];
        }
        finish_pack(finish, g, at, e.count);
    }
}

template <class T> void batch_norm_of(const Context& context, const tilefuse_batch_norm_args& args) {
    const Columns c = columns_of(args.rows, args.cols);
    const auto work = Workspace<T>::at(context.workspace, args.training ? c.doubles() : 0, args.cols);
    const Constants<T> constants = {work.array(0), work.array(1), work.array(2), nullptr};
    const T* const x = static_cast<const T*>(args.x);
    if (args.training && args.rows > 0)
        launch(TILEFUSE_KERNEL(add_spreads<T>), column_grid(c), threads_of_block, 0, context.stream, c, x, work.sums);
    launch(TILEFUSE_KERNEL(finish_statistics<T>), grid_of_parts(c), threads_of_block, 0, context.stream, c, args, work.sums, constants);
    if (args.rows == 0) return;
    const Elements e = elements_of<T>(args.rows, args.cols);
    launch(TILEFUSE_KERNEL(normalise<T>), grid_of(e), threads_of_block, 0, context.stream, e, x, constants,
           finish_elements<T>(args.y, e.count, args.epilogue, {x}));
}

// n without its factor 1 / std, which finish_gradients gives to the sum.
template <class T> struct ByColumns {
    const T* mean;
    T centre;
    __device__ __forceinline__ void begin(int64_t column) { centre = mean[column]; }
    __device__ __forceinline__ T operator()(T x, int64_t) const { return x - centre; }
};

bool sums_wanted(const tilefuse_batch_norm_backward_args& args) {
    return args.rows > 0 && (parameters_of(args).wanted() || (args.training && args.dx != nullptr));
}

template <class T> void batch_norm_backward_of(const Context& context, const tilefuse_batch_norm_backward_args& args) {
    const Columns c = columns_of(args.rows, args.cols);
    const bool sums = sums_wanted(args);
    const auto work = Workspace<T>::at(context.workspace, sums ? c.doubles() : 0, args.cols);
    T* const mean = static_cast<T*>(const_cast<void*>(args.mean));
    const Constants<T> constants = {work.array(0), work.array(1), mean, work.array(2)};
    const T *const dy = static_cast<const T*>(args.dy), *const x = static_cast<const T*>(args.x);
    if (sums) {
        launch(TILEFUSE_KERNEL(add_gradients<T, ByColumns<T>>), column_grid(c), threads_of_block, 0, context.stream, c, dy, x,
               ByColumns<T>{mean, T(0)}, work.sums);
    }
    // (Of no rows the sums are there, too: 0.)
    const bool given = sums || args.rows == 0;
    launch(TILEFUSE_KERNEL(finish_gradients<T>), grid_of_parts(c), threads_of_block, 0, context.stream, c, given ? work.sums : nullptr,
           parameters_of(args), static_cast<const T*>(args.gamma), static_cast<const T*>(args.inv_std), constants);
    if (args.dx == nullptr || args.rows == 0) return;
    const Elements e = elements_of<T>(args.rows, args.cols);
    launch(TILEFUSE_KERNEL(differentiate<T>), grid_of(e), threads_of_block, 0, context.stream, e, args.training != 0, dy, x, constants,
           finish_elements<T>(args.dx, e.count, args.epilogue, {dy, x}));
}

template <class T>
__global__ void __launch_bounds__(threads_of_block) fold(tilefuse_batch_norm_fold_args args) {
    const int64_t c = static_cast<int64_t>(blockIdx.x) * threads_of_block + threadIdx.x;
    if (c >= args.cols) return;
    const double scale = of<T>(args.gamma, c, 1) / tilefuse::sqrt(of<T>(args.variance, c, 1) + args.epsilon);
    put<T>(args.scale, c, scale);
    put<T>(args.shift, c, of<T>(args.beta, c, 0) + (of<T>(args.bias, c, 0) - of<T>(args.mean, c, 0)) * scale);
}

// ---- layer norm -----------------------------------------------------------------------------------------------------

// n = ((x - centre) - rest) inv_std: the mean in two parts, as one may not be precise enough.
template <class T> struct Moments {
    T centre, rest, inv_std;
    __device__ __forceinline__ T operator()(T x) const { return ((x - centre) - rest) * inv_std; }
};

// Of all rows: arrays of `rows` elements, or null; no `centre` is a mean of 0, no `rest` one that is precise enough.
template <class T> struct MomentsOfRows {
    T *centre, *rest, *inv_std;
    __device__ __forceinline__ Moments<T> load(int64_t row) const {
        return {centre != nullptr ? centre[row] : T(0), rest != nullptr ? rest[row] : T(0), inv_std[row]};
    }
    __device__ __forceinline__ void store(int64_t row, const Moments<T>& m) const {
        if (centre != nullptr) centre[row] = rest != nullptr ? m.centre : m.centre + m.rest;
        if (rest != nullptr) rest[row] = m.rest;
        if (inv_std != nullptr) inv_std[row] = m.inv_std;
    }
    __device__ __forceinline__ void begin(int64_t) const {}
    __device__ __forceinline__ T operator()(T x, int64_t row) const { return load(row)(x); }
};

template <class T> struct Forward {
    bool rms;
    int64_t rows, cols;
    double epsilon;
    const T *x, *gamma, *beta;
    T* y;  // null: only the moments are wanted
    MomentsOfRows<T> moments;
};

// Of `length` elements: all of the row's, or none where a warp has more room than rows.
template <class T, class Team>
__device__ __forceinline__ Moments<T> normalise_row(const Forward<T>& f, const Team& team, const T* x, T* y, typename Team::Index length) {
    const double count = static_cast<double>(f.cols);
    Moments<T> m = {};
    T sum = 0, distances = 0, squares = 0;
    if (!f.rms) {
        each(team, length, [&](auto j) { sum += x[j]; });
        m.centre = static_cast<T>(static_cast<double>(row_sum(team, sum)) / count);
    }
    each(team, length, [&](auto j) {
        const T distance = x[j] - m.centre;
        distances += distance;
        squares += distance * distance;
    });
    const double rest = f.rms ? 0 : static_cast<double>(row_sum(team, distances)) / count;
    const double variance = static_cast<double>(row_sum(team, squares)) / count - rest * rest;
    m.rest = static_cast<T>(rest);
    m.inv_std = static_cast<T>(1 / tilefuse::sqrt((variance < 0 ? 0 : variance) + f.epsilon));
    if (f.y == nullptr) return m;
    each(team, length, [&](auto j) {
        const T factor = f.gamma != nullptr ? f.gamma[j] : T(1), offset = f.beta != nullptr ? f.beta[j] : T(0);
        y[j] = multiply_add(m(x[j]), factor, offset);
    });
    return m;
}

template <class T> __global__ void __launch_bounds__(row_warps * warp_size, 6) forward_by_warps(RowPlan plan, Forward<T> f) {
    const WarpRows warp(plan, f.rows);
    if (warp.count <= 0) return;
    const int length = static_cast<int>(f.cols), elements = warp.count * length;
    const int64_t begin = warp.first * f.cols;
    T* const staged = stage(f.x + begin, elements, warp.tile<T>(plan, 0), warp.lane, warp_size);
    warp_barrier();
    Moments<T> kept = {};
    for (int pass = 0; pass < warp.passes; ++pass) {
        T* const row = staged + warp.row(pass) * length;
        const Moments<T> m = normalise_row(f, warp.team, row, row, warp.row(pass) < warp.count ? length : 0);
        if (warp.team.member == pass) kept = m;
    }
    if (warp.keeps()) f.moments.store(warp.first + warp.kept_row(), kept);
    if (f.y == nullptr) return;
    warp_barrier();
    unstage(staged, phase_of(f.x + begin), elements, f.y + begin, warp.lane, warp_size);
}

template <class T> __global__ void __launch_bounds__(threads_of_block, 3) forward_by_blocks(bool staged, Forward<T> f) {
    const BlockOfRow block;
    const int64_t begin = blockIdx.x * f.cols;
    const T* const x = f.x + begin;
    T* const y = f.y + begin;
    if (!staged) {
        const Moments<T> m = normalise_row(f, block, x, y, f.cols);
        if (block.member == 0) f.moments.store(blockIdx.x, m);
        return;
    }
    const int length = static_cast<int>(f.cols);
    T* const row = stage(x, length, dynamic_shared<T>(), block.member, block.members);
    block_barrier();
    const Moments<T> m = normalise_row(f, block, row, row, f.cols);
    if (block.member == 0) f.moments.store(blockIdx.x, m);
    if (f.y == nullptr) return;
    block_barrier();
    unstage(row, phase_of(x), length, y, block.member, block.members);
}

template <class T> struct Backward {
    bool rms;
    int64_t rows, cols;
    const T *dy, *x, *gamma;
    T* dx;
    MomentsOfRows<T> moments;
};

// dx may be dy.
template <class T, class Team>
__device__ __forceinline__ void gradient_row(const Backward<T>& b, const Team& team, const Moments<T>& m, const T* dy, const T* x, T* dx,
                                             typename Team::Index length) {
    T sum = 0, products = 0;
    const auto scaled = [&](auto j) { return b.gamma != nullptr ? dy[j] * b.gamma[j] : dy[j]; };
    each(team, length, [&](auto j) {
        const T g = scaled(j);
        sum += g;
        products += g * m(x[j]);
    });
    const T count = static_cast<T>(b.cols), shift = b.rms ? T(0) : row_sum(team, sum) / count, slope = row_sum(team, products) / count;
    each(team, length, [&](auto j) { dx[j] = (scaled(j) - shift - m(x[j]) * slope) * m.inv_std; });
}

template <class T> __global__ void __launch_bounds__(row_warps * warp_size, 6) backward_by_warps(RowPlan plan, Backward<T> b) {
    const WarpRows warp(plan, b.rows);
    if (warp.count <= 0) return;
    const int length = static_cast<int>(b.cols), elements = warp.count * length;
    const int64_t begin = warp.first * b.cols;
    T* const gradients = stage(b.dy + begin, elements, warp.tile<T>(plan, 0), warp.lane, warp_size);
    const T* const inputs = stage(b.x + begin, elements, warp.tile<T>(plan, 1), warp.lane, warp_size);
    const Moments<T> kept = warp.keeps() ? b.moments.load(warp.first + warp.kept_row()) : Moments<T>{};
    warp_barrier();
    for (int pass = 0; pass < warp.passes; ++pass) {
        const int keeper = warp.keeper(pass), at = warp.row(pass) * length;
        const Moments<T> m = {shuffle(kept.centre, keeper), shuffle(kept.rest, keeper), shuffle(kept.inv_std, keeper)};
        gradient_row(b, warp.team, m, gradients + at, inputs + at, gradients + at, warp.row(pass) < warp.count ? length : 0);
    }
    warp_barrier();
    unstage(gradients, phase_of(b.dy + begin), elements, b.dx + begin, warp.lane, warp_size);
}

template <class T> __global__ void __launch_bounds__(threads_of_block, 3) backward_by_blocks(RowPlan plan, Backward<T> b) {
    const BlockOfRow block;
    const int64_t begin = blockIdx.x * b.cols;
    const T *const dy = b.dy + begin, *const x = b.x + begin;
    T* const dx = b.dx + begin;
    const Moments<T> m = b.moments.load(blockIdx.x);
    if (!plan.staged) return gradient_row(b, block, m, dy, x, dx, b.cols);
    const int length = static_cast<int>(b.cols);
    T* const gradients = stage(dy, length, dynamic_shared<T>(), block.member, block.members);
    const T* const inputs = stage(x, length, dynamic_shared<T>() + plan.tile, block.member, block.members);
    block_barrier();
    gradient_row(b, block, m, gradients, inputs, gradients, b.cols);
    block_barrier();
    unstage(gradients, phase_of(dy), length, dx, block.member, block.members);
}

template <class T> void queue_forward(const Context& context, const Forward<T>& f) {
    const RowPlan plan = plan_rows<T>(f.cols, 1);
    if (plan.lanes > 0) {
        launch(TILEFUSE_KERNEL(forward_by_warps<T>), row_grid(plan, f.rows), row_warps * warp_size, shared_bytes<T>(plan),
               context.stream, plan, f);
    } else {
        launch(TILEFUSE_KERNEL(forward_by_blocks<T>), row_grid(plan, f.rows), threads_of_block, shared_bytes<T>(plan),
               context.stream, plan.staged, f);
    }
}

template <class T> void queue_backward(const Context& context, const Backward<T>& b) {
    const RowPlan plan = plan_rows<T>(b.cols, 2);
    if (plan.lanes > 0) {
        launch(TILEFUSE_KERNEL(backward_by_warps<T>), row_grid(plan, b.rows), row_warps * warp_size, shared_bytes<T>(plan),
               context.stream, plan, b);
    } else {
        launch(TILEFUSE_KERNEL(backward_by_blocks<T>), row_grid(plan, b.rows), threads_of_block, shared_bytes<T>(plan),
               context.stream, plan, b);
    }
}

// dx last but for the update of gamma, since it may take dy's place.
template <class T> void layer_norm_backward_of(const Context& context, const tilefuse_layer_norm_backward_args& args) {
    const Columns c = columns_of(args.rows, args.cols);
    const Parameters parameters = parameters_of(args);
    const auto work = Workspace<T>::at(context.workspace, parameters.wanted() ? c.doubles() : 0, args.rows);
    const T *const dy = static_cast<const T*>(args.dy), *const x = static_cast<const T*>(args.x);
    const T* const gamma = static_cast<const T*>(args.gamma);
    const auto given = [](const void* p) { return static_cast<T*>(const_cast<void*>(p)); };
    MomentsOfRows<T> moments = {args.rms ? nullptr : given(args.mean), nullptr, given(args.inv_std)};
    if (args.rows > 0) {
        if (args.inv_std == nullptr) {
            moments = {work.array(0), work.array(1), work.array(2)};
            queue_forward<T>(context, {args.rms != 0, args.rows, args.cols, args.epsilon, x, nullptr, nullptr, nullptr, moments});
        }
        if (parameters.wanted()) {
            launch(TILEFUSE_KERNEL(add_gradients<T, MomentsOfRows<T>>), column_grid(c), threads_of_block, 0, context.stream, c, dy, x,
                   moments, work.sums);
        }
        if (args.dx != nullptr) {
            queue_backward<T>(context, {args.rms != 0, args.rows, args.cols, dy, x, gamma, static_cast<T*>(args.dx), moments});
        }
    }
    if (!parameters.wanted()) return;
    launch(TILEFUSE_KERNEL(finish_gradients<T>), grid_of_parts(c), threads_of_block, 0, context.stream, c, work.sums, parameters,
           nullptr, nullptr, Constants<T>{});
}

}  // namespace norms

void batch_norm(const Context& context, const tilefuse_batch_norm_args& args) {
    if (args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) { norms::batch_norm_of<decltype(zero)>(context, args); });
}
size_t batch_norm_workspace(const tilefuse_batch_norm_args& args) {
    if (args.cols == 0) return 0;
    size_t bytes = 0;
    by_dtype(args.dtype, [&](auto zero) {
        const int64_t doubles = args.training ? columns_of(args.rows, args.cols).doubles() : 0;
        bytes = norms::Workspace<decltype(zero)>::bytes(doubles, args.cols, 3);
    });
    return bytes;
}

void batch_norm_backward(const Context& context, const tilefuse_batch_norm_backward_args& args) {
    if (args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) { norms::batch_norm_backward_of<decltype(zero)>(context, args); });
}
size_t batch_norm_backward_workspace(const tilefuse_batch_norm_backward_args& args) {
    if (args.cols == 0) return 0;
    size_t bytes = 0;
    by_dtype(args.dtype, [&](auto zero) {
        const int64_t doubles = norms::sums_wanted(args) ? columns_of(args.rows, args.cols).doubles() : 0;
        bytes = norms::Workspace<decltype(zero)>::bytes(doubles, args.cols, 3);
    });
    return bytes;
}

void batch_norm_fold(const Context& context, const tilefuse_batch_norm_fold_args& args) {
    if (args.cols == 0) return;
    const dim3 grid(static_cast<unsigned>(quotient(args.cols, threads_of_block)));
    by_dtype(args.dtype, [&](auto zero) {
        launch(TILEFUSE_KERNEL(norms::fold<decltype(zero)>), grid, threads_of_block, 0, context.stream, args);
    });
}
size_t batch_norm_fold_workspace(const tilefuse_batch_norm_fold_args&) { return 0; }

void layer_norm(const Context& context, const tilefuse_layer_norm_args& args) {
    if (args.rows == 0 || args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        norms::queue_forward<T>(context, {args.rms != 0, args.rows, args.cols, args.epsilon, static_cast<const T*>(args.x),
                                          static_cast<const T*>(args.gamma), static_cast<const T*>(args.beta), static_cast<T*>(args.y),
                                          {static_cast<T*>(args.mean), nullptr, static_cast<T*>(args.inv_std)}});
    });
}
size_t layer_norm_workspace(const tilefuse_layer_norm_args&) { return 0; }

void layer_norm_backward(const Context& context, const tilefuse_layer_norm_backward_args& args) {
    if (args.cols == 0) return;
    by_dtype(args.dtype, [&](auto zero) { norms::layer_norm_backward_of<decltype(zero)>(context, args); });
}
size_t layer_norm_backward_workspace(const tilefuse_layer_norm_backward_args& args) {
    if (args.cols == 0) return 0;
    size_t bytes = 0;
    by_dtype(args.dtype, [&](auto zero) {
        const int64_t doubles = norms::parameters_of(args).wanted() ? columns_of(args.rows, args.cols).doubles() : 0;
        bytes = norms::Workspace<decltype(zero)>::bytes(doubles, args.rows, args.inv_std == nullptr ? 3 : 0);
    });
    return bytes;
}

}  // namespace tilefuse::cuda
