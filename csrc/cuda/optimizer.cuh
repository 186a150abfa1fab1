// Updating a parameter in place: for the optimizer kernel, and for the kernels that compute a gradient.
#pragma once

#include <new>

#include "common/optimizer.h"
#include "cuda/packs.cuh"

namespace tilefuse::cuda {

// (PyTorch's conventions would take registers that products need.)
template <class T> using KerasStep = Step<T, false>;

// Room in shared memory for the numbers of an optimizer's step. One thread makes them, since they take powers; the
// others read them after a barrier.
template <class T> struct StepMemory {
    alignas(KerasStep<T>) unsigned char bytes[sizeof(KerasStep<T>)];
    __device__ __forceinline__ void make(const tilefuse_optimizer_rule& rule) { new (bytes) KerasStep<T>(rule); }
    __device__ __forceinline__ const KerasStep<T>* step() const { return reinterpret_cast<const KerasStep<T>*>(bytes); }
};

// Whether 16-byte accesses to the parameter and its slots are aligned.
template <class T> bool parameter_aligned(const tilefuse_parameter& p) {
    return packs_fit({p.w, p.slots[0], p.slots[1], p.slots[2]});
}

template <class T> __device__ __forceinline__ T gradient_scale(const tilefuse_parameter& p) {
    return p.grad_scale != nullptr ? static_cast<T>(*p.grad_scale) : T(1);
}

// One step of `rule` on the elements of a share, with the gradient g, of which `scale` is the gradient_scale. Order:
// penalties, scale, clipping, weight decay, the rule. Where there is none of the first four, infinite and NaN weights
// must not come into g: 0 times them is NaN.
template <class T, int N>
__device__ __forceinline__ void update(const tilefuse_optimizer_rule& rule, const KerasStep<T>& step, const tilefuse_parameter& p,
                                       T scale, const Share& share, Pack<T, N> g) {
    T* const w = static_cast<T*>(p.w);
    Pack<T, N> weight = load<N>(w, share);
    const bool plain =
        p.l1 == 0 && p.l2 == 0 && p.grad_scale == nullptr && rule.clip_value == 0 && rule.weight_decay == 0;
    if (!plain) {
        const T l1 = static_cast<T>(p.l1), l2 = static_cast<T>(p.l2);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < N; ++i) {
            g.of[i] = penalised(g.of[i], weight.of[i], l1, l2) * scale;
            if (step.clip_value > 0) g.of[i] = clamp(g.of[i], -step.clip_value, step.clip_value);
            weight.of[i] -= step.decay * weight.of[i];
        }
    }
    with_rule(rule, [&](auto r) {
        using Rule = decltype(r);
        Pack<T, N> slots[TILEFUSE_MAX_SLOTS];
        TILEFUSE_UNROLL_ALL
        for (int s = 0; s < Rule::slots; ++s) slots[s] = load<N>(static_cast<const T*>(p.slots[s]), share);
        TILEFUSE_UNROLL_ALL
        for (int i = 0; i < N; ++i) {
            T state[TILEFUSE_MAX_SLOTS];
            TILEFUSE_UNROLL_ALL
            for (int s = 0; s < Rule::slots; ++s) state[s] = slots[s].of[i];
            Rule::update(step, weight.of[i], g.of[i], state);
            TILEFUSE_UNROLL_ALL
            for (int s = 0; s < Rule::slots; ++s) slots[s].of[i] = state[s];
        }
        TILEFUSE_UNROLL_ALL
        for (int s = 0; s < Rule::slots; ++s) store(static_cast<T*>(p.slots[s]), share, slots[s]);
    });
    store(w, share, weight);
}

// On `count` elements from `at` on. `packs`: whole packs at once, where `at` is a multiple of them and the parameter is
// aligned.
template <class T, int N>
__device__ __forceinline__ void update(const tilefuse_optimizer_rule& rule, const KerasStep<T>& step, const tilefuse_parameter& p,
                                       int64_t at, Pack<T, N> g, int count, bool packs) {
    update(rule, step, p, gradient_scale<T>(p), Share{at, 1, count, packs && count >= N}, g);
}

// On one element.
template <class T>
__device__ __forceinline__ void update(const tilefuse_optimizer_rule& rule, const KerasStep<T>& step, const tilefuse_parameter& p,
                                       int64_t at, T g) {
    update(rule, step, p, at, Pack<T, 1>{{g}}, 1, false);
}

}  // namespace tilefuse::cuda
