// Multi-tensor optimizer updates, and the sums over gradients and weights that clipping and penalties need.
#include "cpu/optimizer.h"

#include "common/dtype.h"
#include "cpu/kernels.h"

namespace tilefuse::inline TILEFUSE_ISA {

namespace {

// Sums are cut into slices of this many elements, whatever the team, and the slices' sums added in order.
constexpr int64_t slice = 4096;

int64_t slices_of(const tilefuse_parameter& p) { return (p.n + slice - 1) / slice; }

double elements_of(const tilefuse_parameter* parameters, int64_t count) {
    double n = 0;
    for (int64_t i = 0; i < count; ++i) n += static_cast<double>(parameters[i].n);
    return n;
}

Cost sum_cost(const tilefuse_parameter* parameters, int64_t count) {
    Cost cost;
    cost.work = 4 * elements_of(parameters, count);
    for (int64_t i = 0; i < count; ++i)
        cost.shared += sizeof(double) * static_cast<size_t>(slices_of(parameters[i]));
    return cost;
}

template <class T> struct DoublesOf {
    typedef double type __attribute__((vector_size(lanes<T> * sizeof(double))));
};

// The lanes added in their order.
template <class D> double sum_of_doubles(const D& sums) {
    double total = 0;
    for (size_t lane = 0; lane < sizeof(D) / sizeof(double); ++lane) total += sums[lane];
    return total;
}

// partial[k] = the sum over slice k of term(parameter, element, lanes), slices numbered through all
// parameters. Afterwards every member may read all of them.
template <class T, class Term>
void sum_slices(Team& team, const tilefuse_parameter* parameters, int64_t count, double* partial, Term term) {
    using Doubles = typename DoublesOf<T>::type;
    int64_t slices = 0;
    for (int64_t i = 0; i < count; ++i) slices += slices_of(parameters[i]);
    const Range mine = team.range(slices);
    int64_t first_slice = 0;
    for (int64_t i = 0; i < count; ++i) {
        const tilefuse_parameter& p = parameters[i];
        for (int64_t s = 0; s < slices_of(p); ++s) {
            const int64_t k = first_slice + s;
            if (k < mine.begin || k >= mine.end) continue;
            const int64_t begin = s * slice, length = p.n - begin < slice ? p.n - begin : slice;
            Doubles sums{};
            for_vectors<T>(length, [&](int64_t j, int n) { sums += term(p, begin + j, n); });
            partial[k] = sum_of_doubles(sums);
        }
        first_slice += slices_of(p);
    }
    team.barrier();
}

// A parameter's sum from its slices', which `partial` moves past.
double sum_of_parameter(const tilefuse_parameter& p, const double*& partial) {
    double total = 0;
    for (int64_t s = slices_of(p); s > 0; --s) total += *partial++;
    return total;
}

// What a gradient of this norm is multiplied by; NaN stays NaN.
double clipping_scale(double norm, double limit) { return norm <= limit ? 1 : limit / norm; }

}  // namespace

void optimizer(Team& team, const tilefuse_optimizer_args& args) {
    int64_t total = 0;
    for (int64_t i = 0; i < args.count; ++i) total += args.parameters[i].n;
    const Range mine = team.range(total, 64);
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const Step<T> step(*args.rule);
        int64_t start = 0;
        for (int64_t i = 0; i < args.count; ++i) {
            const tilefuse_parameter& p = args.parameters[i];
            const int64_t begin = mine.begin > start ? mine.begin - start : 0;
            const int64_t end = mine.end - start < p.n ? mine.end - start : p.n;
            if (begin < end)
                Update<T>(step, *args.rule, p)(begin, static_cast<const T*>(p.dw) + begin, end - begin);
            start += p.n;
        }
    });
}

Cost optimizer_cost(const tilefuse_optimizer_args& args) {
    Cost cost;
    cost.work = 20 * elements_of(args.parameters, args.count);
    return cost;
}

void clip_norm(Team& team, const tilefuse_clip_norm_args& args) {
    double* partial = team.shared<double>();
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        sum_slices<T>(team, args.parameters, args.count, partial,
                      [](const tilefuse_parameter& p, int64_t j, int n) {
                          Vec<T> g = load_upto(static_cast<const T*>(p.dw) + j, n);
                          if (p.l1 != 0 || p.l2 != 0) {
                              const Vec<T> w = load_upto(static_cast<const T*>(p.w) + j, n);
                              g = penalised(g, w, static_cast<T>(p.l1), static_cast<T>(p.l2));
                          }
                          const auto wide = __builtin_convertvector(g, typename DoublesOf<T>::type);
                          return wide * wide;
                      });
    });
    if (team.rank != 0) return;
    const double* next = partial;
    double all_squares = 0;
    for (int64_t i = 0; i < args.count; ++i) {
        const double squares = sum_of_parameter(args.parameters[i], next);
        all_squares += squares;
        const double norm = __builtin_sqrt(squares);
        args.scales[i] = clipping_scale(norm, args.limit);
        if (args.norms != nullptr) args.norms[i] = norm;
    }
    if (!args.global) return;
    const double norm = __builtin_sqrt(all_squares);
    for (int64_t i = 0; i < args.count; ++i) {
        args.scales[i] = clipping_scale(norm, args.limit);
        if (args.norms != nullptr) args.norms[i] = norm;
    }
}

Cost clip_norm_cost(const tilefuse_clip_norm_args& args) { return sum_cost(args.parameters, args.count); }

void penalty(Team& team, const tilefuse_penalty_args& args) {
    double* partial = team.shared<double>();
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        sum_slices<T>(team, args.parameters, args.count, partial,
                      [](const tilefuse_parameter& p, int64_t j, int n) {
                          const Vec<T> w = load_upto(static_cast<const T*>(p.w) + j, n);
                          const auto wide = __builtin_convertvector(w, typename DoublesOf<T>::type);
                          return p.l1 * (wide < 0 ? -wide : wide) + p.l2 * (wide * wide);
                      });
    });
    if (team.rank != 0) return;
    const double* next = partial;
    double value = 0;
    for (int64_t i = 0; i < args.count; ++i) value += sum_of_parameter(args.parameters[i], next);
    *args.value = value;
}

Cost penalty_cost(const tilefuse_penalty_args& args) { return sum_cost(args.parameters, args.count); }

}  // namespace tilefuse::inline TILEFUSE_ISA
