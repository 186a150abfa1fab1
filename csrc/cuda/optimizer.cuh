// Updating a parameter in place: for the optimizer kernel, and for the kernels that compute a gradient.
#pragma once

#include <new>

#include "common/optimizer.h"
#include "cuda/packs.cuh"

namespace tilefuse::cuda {

// Room in shared memory for the numbers of an optimizer's step. One thread makes them, since they take powers; the
// others read them after a barrier.
template <class T> struct StepMemory {
    alignas(Step<T>) unsigned char bytes[sizeof(Step<T>)];
    __device__ __forceinline__ void make(const tilefuse_optimizer& rule) { new (bytes) Step<T>(rule); }
    __device__ __forceinline__ const Step<T>* step() const { return reinterpret_cast<const Step<T>*>(bytes); }
};

// Whether 16-byte accesses to the parameter and its slots are aligned.
template <class T> bool parameter_aligned(const tilefuse_parameter& p) {
    return packs_fit({p.w, p.slots[0], p.slots[1], p.slots[2]});
}

// One step of `rule` on `count` elements from `at` on, with the gradient g. Order: penalties, scale, clipping, weight
// decay, the rule. `packs`: whole packs at once, where `at` is a multiple of them and the parameter is aligned.
template <class T, int N>
__device__ __forceinline__ void update(const tilefuse_optimizer& rule, const Step<T>& step, const tilefuse_parameter& p,
                                       int64_t at, Pack<T, N> g, int count, bool packs) {
    T* const w = static_cast<T*>(p.w) + at;
    Pack<T, N> weight = load_upto<N>(w, count, packs);
    const T l1 = static_cast<T>(p.l1), l2 = static_cast<T>(p.l2);
    const T scale = p.grad_scale != nullptr ? static_cast<T>(*p.grad_scale) : T(1);
    TILEFUSE_UNROLL(4)
    for (int i = 0; i < N; ++i) {
        g.of[i] = penalised(g.of[i], weight.of[i], l1, l2) * scale;
        if (step.clip_value > 0) g.of[i] = clamp(g.of[i], -step.clip_value, step.clip_value);
        weight.of[i] -= step.decay * weight.of[i];
    }
    with_rule(rule, [&](auto r) {
        using Rule = decltype(r);
        Pack<T, N> slots[TILEFUSE_MAX_SLOTS];
        TILEFUSE_UNROLL(4)
        for (int s = 0; s < Rule::slots; ++s) slots[s] = load_upto<N>(static_cast<const T*>(p.slots[s]) + at, count, packs);
        TILEFUSE_UNROLL(4)
        for (int i = 0; i < N; ++i) {
            T state[TILEFUSE_MAX_SLOTS];
            TILEFUSE_UNROLL(4)
            for (int s = 0; s < Rule::slots; ++s) state[s] = slots[s].of[i];
            Rule::update(step, weight.of[i], g.of[i], state);
            TILEFUSE_UNROLL(4)
            for (int s = 0; s < Rule::slots; ++s) slots[s].of[i] = state[s];
        }
        TILEFUSE_UNROLL(4)
        for (int s = 0; s < Rule::slots; ++s) store_upto(static_cast<T*>(p.slots[s]) + at, slots[s], count, packs);
    });
    store_upto(w, weight, count, packs);
}

template <class T>
__device__ __forceinline__ void update(const tilefuse_optimizer& rule, const Step<T>& step, const tilefuse_parameter& p,
                                       int64_t at, T g) {
    update(rule, step, p, at, Pack<T, 1>{{g}}, 1, false);
}

}  // namespace tilefuse::cuda
