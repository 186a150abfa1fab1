// Multi-tensor optimizer updates, and the sums over gradients and weights that clipping and penalties need.
//
// A launch takes as many tensors as its parameters have room for; a block takes a slice of one of them. Sums are made
// in two stages, each in a fixed order: the slices' sums, then the sum over all slices of a tensor, or of all tensors.
#include "cuda/optimizer.cuh"

#include "common/dtype.h"
#include "cuda/kernels.h"
#include "cuda/reduce.cuh"

namespace tilefuse::cuda {
namespace optimizers {

constexpr int most_tensors = 48;  // 4 KB of kernel parameters hold 50, and there are others

// Tensors, and the slices that blocks take: those of tensor i end before slice past[i].
struct Tensors {
    tilefuse_parameter parameters[most_tensors];
    int64_t past[most_tensors];
    int count;
};
static_assert(sizeof(Tensors) + 64 <= 4096);

struct Slice {
    int tensor;
    int64_t number, begin, end;  // which one of its tensor's, and its elements: those that are not below 0
};

// Slices are numbered through all tensors of a launch. phase_of(tensor): elements that its first one lacks.
template <class PhaseOf>
__device__ __forceinline__ Slice slice_of(const Tensors& tensors, int64_t number, int64_t length, PhaseOf phase_of) {
    int tensor = 0, last = tensors.count - 1;
    while (tensor < last) {
        const int middle = (tensor + last) / 2;
        if (number < tensors.past[middle]) {
            last = middle;
        } else {
            tensor = middle + 1;
        }
    }
    const tilefuse_parameter& p = tensors.parameters[tensor];
    const int64_t of_tensor = number - (tensor > 0 ? tensors.past[tensor - 1] : 0);
    const int64_t begin = of_tensor * length - phase_of(p);
    return {tensor, of_tensor, begin, p.n - begin < length ? p.n : begin + length};
}

// Calls body(tensors, slices, first tensor, first slice) for every launch's worth of tensors; slices_of(parameter) are
// those of one.
template <class SlicesOf, class Body>
void for_launches(const tilefuse_parameter* parameters, int64_t count, SlicesOf slices_of, Body body) {
    int64_t first_slice = 0;
    for (int64_t first = 0; first < count; first += most_tensors) {
        Tensors tensors = {};
        tensors.count = static_cast<int>(std::min<int64_t>(most_tensors, count - first));
        int64_t slices = 0;
        for (int i = 0; i < tensors.count; ++i) {
            tensors.parameters[i] = parameters[first + i];
            slices += slices_of(parameters[first + i]);
            tensors.past[i] = slices;
        }
        if (slices > 0) body(tensors, slices, first, first_slice);
        first_slice += slices;
    }
}

// ---- updates -------------------------------------------------------------------------------------------------------

template <class T> constexpr int64_t update_length = threads_of_block * pack_size<T>;  // a pack for each thread

// Where a tensor's slices are cut: at the beginnings of its weights' sectors.
template <class T> __host__ __device__ int phase_of_weights(const tilefuse_parameter& p) {
    return phase_of(static_cast<const T*>(p.w));
}

// A block updates `length` elements of a tensor, a multiple of update_length.
template <class T>
__global__ void __launch_bounds__(threads_of_block)
    update_all(Tensors tensors, const tilefuse_optimizer_rule* rule, int64_t length) {
    constexpr int pack = pack_size<T>;
    TILEFUSE_SHARED(tilefuse_optimizer_rule, rule_of_block);
    TILEFUSE_SHARED(StepMemory<T>, memory);
    TILEFUSE_SHARED(T, scale);
    const Slice slice =
        slice_of(tensors, blockIdx.x, length, [](const tilefuse_parameter& p) { return phase_of_weights<T>(p); });
    const tilefuse_parameter& p = tensors.parameters[slice.tensor];
    const auto aligned = [phase = phase_of_weights<T>(p)](const void* a) {
        return aligned_past(static_cast<const T*>(a), phase, 16);
    };
    const bool packs =
        aligned(p.w) && aligned(p.dw) && aligned(p.slots[0]) && aligned(p.slots[1]) && aligned(p.slots[2]);
    const T* const dw = static_cast<const T*>(p.dw);
    Share share = share_of<pack>(slice.begin, slice.end, packs);
    Pack<T, pack> gradient = load<pack>(dw, share);  // on its way while one thread makes the step's numbers
    if (threadIdx.x < warp_size) {
        using Word = uint32_t;
        static_assert(sizeof(tilefuse_optimizer_rule) <= warp_size * sizeof(Word));
        if (threadIdx.x < sizeof(tilefuse_optimizer_rule) / sizeof(Word)) {
            reinterpret_cast<Word*>(&rule_of_block)[threadIdx.x] = reinterpret_cast<const Word*>(rule)[threadIdx.x];
        }
        warp_barrier();
        if (threadIdx.x == 0) {
            memory.make(rule_of_block);
            scale = gradient_scale<T>(p);
        }
    }
    block_barrier();
    for (int64_t next = slice.begin + update_length<T>;; next += update_length<T>) {
        update(rule_of_block, *memory.step(), p, scale, share, gradient);
        if (next >= slice.end) break;
        share = share_of<pack>(next, slice.end, packs);
        gradient = load<pack>(dw, share);
    }
}

// How much a block updates. It makes the step's numbers, so it should have some work; but first there should be blocks
// for all multiprocessors of a large GPU, several each.
template <class T> int64_t length_of_block(const tilefuse_optimizer_args& args) {
    constexpr int64_t blocks = 1024, most = 16;
    int64_t elements = 0;
    for (int64_t i = 0; i < args.count; ++i) elements += args.parameters[i].n;
    return update_length<T> * std::clamp<int64_t>(elements / (blocks * update_length<T>), 1, most);
}

// ---- sums ----------------------------------------------------------------------------------------------------------

constexpr int64_t sum_length = 4096;

// At least one, which then is empty: so that every tensor has a sum.
int64_t sums_of(int64_t n) { return std::max<int64_t>(1, quotient(n, sum_length)); }

int64_t sums_of(const tilefuse_parameter* parameters, int64_t count) {
    int64_t sums = 0;
    for (int64_t i = 0; i < count; ++i) sums += sums_of(parameters[i].n);
    return sums;
}

// The square of a gradient with its penalties, for the norm; or what a weight's penalties cost.
enum class Term { square_of_gradient, penalty };

// sums[first_slice + i] = the sum over slice i; and past[first_tensor + i] = the number of the slice past tensor i's,
// unless null.
template <class T, Term term>
__global__ void __launch_bounds__(threads_of_block)
    sum_slices(Tensors tensors, int64_t first_tensor, int64_t first_slice, double* sums, int64_t* past) {
    const Slice slice = slice_of(tensors, blockIdx.x, sum_length, [](const tilefuse_parameter&) { return 0; });
    const tilefuse_parameter& p = tensors.parameters[slice.tensor];
    const T* const w = static_cast<const T*>(p.w);
    const T* const dw = static_cast<const T*>(p.dw);
    const bool penalties = p.l1 != 0 || p.l2 != 0;
    const double sum = sum_of_block(term == Term::penalty ? w : dw, slice.begin, slice.end, [&](int64_t i) {
        if constexpr (term == Term::square_of_gradient) {
            const T given = dw[i];
            const double g = penalties ? penalised(given, w[i], static_cast<T>(p.l1), static_cast<T>(p.l2)) : given;
            return g * g;
        } else {
            const double x = w[i];
            return p.l1 * (x < 0 ? -x : x) + p.l2 * (x * x);
        }
    });
    if (threadIdx.x != 0) return;
    sums[first_slice + blockIdx.x] = sum;
    if (past != nullptr && slice.number == 0) {
        past[first_tensor + slice.tensor] = first_slice + tensors.past[slice.tensor];
    }
}

template <Term term>
void queue_sums(const Context& context, tilefuse_dtype dtype, const tilefuse_parameter* parameters, int64_t count,
                double* sums, int64_t* past) {
    by_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        for_launches(
            parameters, count, [](const tilefuse_parameter& p) { return sums_of(p.n); },
            [&](const Tensors& tensors, int64_t slices, int64_t first_tensor, int64_t first_slice) {
                launch(TILEFUSE_KERNEL(sum_slices<T, term>), dim3(static_cast<unsigned>(slices)), threads_of_block, 0,
                       context.stream, tensors, first_tensor, first_slice, sums, past);
            });
    });
}

// What gradients are multiplied by to have a norm of at most `limit`, and their norms: block i's are tensor i's; or one
// block's those of all tensors together. NaN stays NaN.
__global__ void __launch_bounds__(threads_of_block)
    scale_to_norm(int64_t count, const double* sums, const int64_t* past, double limit, bool global, double* scales,
                  double* norms) {
    const int64_t tensor = blockIdx.x, begin = global || tensor == 0 ? 0 : past[tensor - 1];
    const int64_t end = past[global ? count - 1 : tensor];
    const double squares = sum_of_block(sums, begin, end, [&](int64_t i) { return sums[i]; });
    const double norm = tilefuse::sqrt(squares), scale = norm <= limit ? 1 : limit / norm;
    const int64_t first = global ? 0 : tensor, last = global ? count : tensor + 1;
    for (int64_t i = first + threadIdx.x; i < last; i += threads_of_block) {
        scales[i] = scale;
        if (norms != nullptr) norms[i] = norm;
    }
}

tilefuse_total_args total_of(int64_t n, const double* x, double* sum) { return {n, x, sum}; }

}  // namespace optimizers

void optimizer(const Context& context, const tilefuse_optimizer_args& args) {
    using namespace optimizers;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const int64_t length = length_of_block<T>(args);
        for_launches(
            args.parameters, args.count,
            [&](const tilefuse_parameter& p) { return p.n > 0 ? quotient(p.n + phase_of_weights<T>(p), length) : 0; },
            [&](const Tensors& tensors, int64_t slices, int64_t, int64_t) {
                launch(TILEFUSE_KERNEL(update_all<T>), dim3(static_cast<unsigned>(slices)), threads_of_block, 0,
                       context.stream, tensors, args.rule, length);
            });
    });
}
size_t optimizer_workspace(const tilefuse_optimizer_args&) { return 0; }

void clip_norm(const Context& context, const tilefuse_clip_norm_args& args) {
    using namespace optimizers;
    if (args.count == 0) return;
    double* const sums = static_cast<double*>(context.workspace);
    int64_t* const past = static_cast<int64_t*>(context.workspace) + sums_of(args.parameters, args.count);
    queue_sums<Term::square_of_gradient>(context, args.dtype, args.parameters, args.count, sums, past);
    const dim3 grid(args.global ? 1u : static_cast<unsigned>(args.count));
    launch(TILEFUSE_KERNEL(scale_to_norm), grid, threads_of_block, 0, context.stream, args.count, sums, past,
           args.limit, args.global != 0, args.scales, args.norms);
}
size_t clip_norm_workspace(const tilefuse_clip_norm_args& args) {
    return static_cast<size_t>(optimizers::sums_of(args.parameters, args.count) + args.count) * sizeof(double);
}

void penalty(const Context& context, const tilefuse_penalty_args& args) {
    using namespace optimizers;
    double* const sums = static_cast<double*>(context.workspace);
    queue_sums<Term::penalty>(context, args.dtype, args.parameters, args.count, sums, nullptr);
    const int64_t count = sums_of(args.parameters, args.count);
    total({context.stream, sums + count}, total_of(count, sums, args.value));
}
size_t penalty_workspace(const tilefuse_penalty_args& args) {
    const int64_t count = optimizers::sums_of(args.parameters, args.count);
    return static_cast<size_t>(count) * sizeof(double) + total_workspace(optimizers::total_of(count, nullptr, nullptr));
}

}  // namespace tilefuse::cuda
