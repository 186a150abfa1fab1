// Multi-tensor optimizer updates, and the sums over gradients and weights that clipping and penalties need.
//
// A launch takes as many tensors as its parameters have room for; a block takes a slice of one of them. Sums are made in
// two stages of a fixed order: within slices, then over the slices of a tensor.
#include "cuda/optimizer.cuh"

#include "common/dtype.h"
#include "cuda/kernels.h"
#include "cuda/reduce.cuh"

namespace tilefuse::cuda {
namespace optimizers {

constexpr int most_tensors = 48;  // 4 KB of kernel parameters hold 49

// Tensors, and the slices that blocks take: those of tensor i end before slice past[i].
struct Tensors {
    tilefuse_parameter parameters[most_tensors];
    int64_t past[most_tensors];
    int count;
};
static_assert(sizeof(Tensors) + 64 <= 4096);

struct Slice {
    int tensor;
    int64_t begin, end;  // elements
};

// Slices are numbered through all tensors.
__device__ __forceinline__ Slice slice_of(const Tensors& tensors, int64_t number, int64_t length) {
    int tensor = 0;
    while (number >= tensors.past[tensor]) ++tensor;
    const int64_t begin = (number - (tensor > 0 ? tensors.past[tensor - 1] : 0)) * length, n = tensors.parameters[tensor].n;
    return {tensor, begin, begin + length < n ? begin + length : n};
}

// Calls body(tensors, slices, first tensor, first slice) for every launch's worth of tensors.
template <class Body> void for_launches(const tilefuse_parameter* parameters, int64_t count, int64_t length, Body body) {
    int64_t first_slice = 0;
    for (int64_t first = 0; first < count; first += most_tensors) {
        Tensors tensors;
        tensors.count = static_cast<int>(std::min<int64_t>(most_tensors, count - first));
        int64_t slices = 0;
        for (int i = 0; i < tensors.count; ++i) {
            tensors.parameters[i] = parameters[first + i];
            slices += (parameters[first + i].n + length - 1) / length;
            tensors.past[i] = slices;
        }
        if (slices > 0) body(tensors, slices, first, first_slice);
        first_slice += slices;
    }
}

int64_t slices_of(const tilefuse_parameter* parameters, int64_t count, int64_t length) {
    int64_t slices = 0;
    for (int64_t i = 0; i < count; ++i) slices += (parameters[i].n + length - 1) / length;
    return slices;
}

template <class T> constexpr int64_t update_length = threads_of_block * pack_size<T>;  // a pack for each thread

template <class T>
__global__ void __launch_bounds__(threads_of_block) update_all(Tensors tensors, const tilefuse_optimizer* rule) {
    constexpr int pack = pack_size<T>;
    TILEFUSE_SHARED(StepMemory<T>, memory);
    if (threadIdx.x == 0) memory.make(*rule);
    block_barrier();
    const Slice slice = slice_of(tensors, blockIdx.x, update_length<T>);
    const tilefuse_parameter& p = tensors.parameters[slice.tensor];
    const auto aligned = [](const void* a) { return reinterpret_cast<uintptr_t>(a) % 16 == 0; };
    const bool packs = aligned(p.w) && aligned(p.dw) && aligned(p.slots[0]) && aligned(p.slots[1]) && aligned(p.slots[2]);
    const T* const dw = static_cast<const T*>(p.dw);
    if (packs) {
        const int64_t i = slice.begin + static_cast<int64_t>(threadIdx.x) * pack;
        const int count = slice.end - i < pack ? static_cast<int>(slice.end - i) : pack;
        if (count > 0) update(*rule, *memory.step(), p, i, load_upto<pack>(dw + i, count, true), count, true);
    } else {
        for (int64_t i = slice.begin + threadIdx.x; i < slice.end; i += threads_of_block) {
            update(*rule, *memory.step(), p, i, dw[i]);
        }
    }
}

// ---- sums -----------------------------------------------------------------------------------------------------------

constexpr int64_t sum_length = 4096;

// The square of a gradient with its penalties, for the norm; or what a weight's penalties cost.
enum class Term { square_of_gradient, penalty };

template <class T, Term term>
__global__ void __launch_bounds__(threads_of_block) sum_slices(Tensors tensors, int64_t first_slice, double* sums) {
    const Slice slice = slice_of(tensors, blockIdx.x, sum_length);
    const tilefuse_parameter& p = tensors.parameters[slice.tensor];
    const T* const w = static_cast<const T*>(p.w);
    const T* const dw = static_cast<const T*>(p.dw);
    const bool penalties = p.l1 != 0 || p.l2 != 0;
    double sum = 0;
    for (int64_t i = slice.begin + threadIdx.x; i < slice.end; i += threads_of_block) {
        if constexpr (term == Term::square_of_gradient) {
            const T given = dw[i];
            const double g = penalties ? penalised(given, w[i], static_cast<T>(p.l1), static_cast<T>(p.l2)) : given;
            sum += g * g;
        } else {
            const double x = w[i];
            sum += p.l1 * (x < 0 ? -x : x) + p.l2 * (x * x);
        }
    }
    sum = reduce_block(sum, 0.0, Add{});
    if (threadIdx.x == 0) sums[first_slice + blockIdx.x] = sum;
}

// of_tensors[i] = the sum of tensor i's slices, in order: a thread for each tensor.
__global__ void __launch_bounds__(64)
    sum_tensors(Tensors tensors, int64_t first_slice, const double* of_slices, double* of_tensors) {
    const int i = static_cast<int>(threadIdx.x);
    if (i >= tensors.count) return;
    double sum = 0;
    for (int64_t s = i > 0 ? tensors.past[i - 1] : 0; s < tensors.past[i]; ++s) sum += of_slices[first_slice + s];
    of_tensors[i] = sum;
}

// NaN stays NaN.
__global__ void __launch_bounds__(threads_of_block)
    scale_to_norm(int64_t count, const double* squares, double limit, bool global, double* scales, double* norms) {
    double all = 0;
    if (global)
        for (int64_t i = 0; i < count; ++i) all += squares[i];
    for (int64_t i = threadIdx.x; i < count; i += threads_of_block) {
        const double norm = tilefuse::sqrt(global ? all : squares[i]);
        scales[i] = norm <= limit ? 1 : limit / norm;
        if (norms != nullptr) norms[i] = norm;
    }
}

template <Term term>
void queue_sums(const Context& context, tilefuse_dtype dtype, const tilefuse_parameter* parameters, int64_t count,
                double* of_slices) {
    by_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        for_launches(parameters, count, sum_length, [&](const Tensors& tensors, int64_t slices, int64_t, int64_t first_slice) {
            launch(TILEFUSE_KERNEL(sum_slices<T, term>), dim3(static_cast<unsigned>(slices)), threads_of_block, 0,
                   context.stream, tensors, first_slice, of_slices);
        });
    });
}

size_t sums_workspace(const tilefuse_parameter* parameters, int64_t count) {
    return static_cast<size_t>(slices_of(parameters, count, sum_length) + count) * sizeof(double);
}

}  // namespace optimizers

void optimizer(const Context& context, const tilefuse_optimizer_args& args) {
    using namespace optimizers;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        for_launches(args.parameters, args.count, update_length<T>, [&](const Tensors& tensors, int64_t slices, int64_t, int64_t) {
            launch(TILEFUSE_KERNEL(update_all<T>), dim3(static_cast<unsigned>(slices)), threads_of_block, 0, context.stream,
                   tensors, args.rule);
        });
    });
}
size_t optimizer_workspace(const tilefuse_optimizer_args&) { return 0; }

void clip_norm(const Context& context, const tilefuse_clip_norm_args& args) {
    using namespace optimizers;
    if (args.count == 0) return;
    double* const of_slices = static_cast<double*>(context.workspace);
    double* const of_tensors = of_slices + slices_of(args.parameters, args.count, sum_length);
    queue_sums<Term::square_of_gradient>(context, args.dtype, args.parameters, args.count, of_slices);
    int64_t first_slice = 0;
    for (int64_t first = 0; first < args.count; first += most_tensors) {
        Tensors tensors = {};
        tensors.count = static_cast<int>(std::min<int64_t>(most_tensors, args.count - first));
        for (int i = 0; i < tensors.count; ++i) tensors.past[i] = slices_of(args.parameters + first, i + 1, sum_length);
        launch(TILEFUSE_KERNEL(sum_tensors), 1, 64, 0, context.stream, tensors, first_slice, of_slices, of_tensors + first);
        first_slice += tensors.past[tensors.count - 1];
    }
    launch(TILEFUSE_KERNEL(scale_to_norm), 1, threads_of_block, 0, context.stream, args.count, of_tensors, args.limit,
           args.global != 0, args.scales, args.norms);
}
size_t clip_norm_workspace(const tilefuse_clip_norm_args& args) {
    return optimizers::sums_workspace(args.parameters, args.count);
}

void penalty(const Context& context, const tilefuse_penalty_args& args) {
    using namespace optimizers;
    double* const of_slices = static_cast<double*>(context.workspace);
    queue_sums<Term::penalty>(context, args.dtype, args.parameters, args.count, of_slices);
    tilefuse_total_args sum = {};
    sum.n = slices_of(args.parameters, args.count, sum_length);
    sum.x = of_slices;
    sum.sum = args.value;
    total(context, sum);
}
size_t penalty_workspace(const tilefuse_penalty_args& args) {
    return optimizers::sums_workspace(args.parameters, args.count);
}

}  // namespace tilefuse::cuda
