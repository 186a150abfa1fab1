// Updating a parameter in place: for the optimizer kernel, and for the kernels that compute a gradient.
#pragma once

#include "common/optimizer.h"
#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

// One step of `rule` on one parameter: u(offset, dw, count) updates its elements [offset, offset + count)
// with the gradient dw[0..count). Order: penalties, scale, clipping, weight decay, the rule.
template <class T> class Update {
public:
    Update(const tilefuse_optimizer_rule& rule, const tilefuse_parameter& p) : Update(Step<T>(rule), rule, p) {}

    // With the step's numbers, where they are worth computing once for several parameters.
    Update(const Step<T>& step, const tilefuse_optimizer_rule& rule, const tilefuse_parameter& p)
        : step_(step),
          w_(static_cast<T*>(p.w)),
          l1_(static_cast<T>(p.l1)),
          l2_(static_cast<T>(p.l2)),
          scale_(static_cast<T>(p.grad_scale != nullptr ? *p.grad_scale : 1.0)) {
        for (int i = 0; i < TILEFUSE_MAX_SLOTS; ++i) slots_[i] = static_cast<T*>(p.slots[i]);
        const bool plain = p.l1 == 0 && p.l2 == 0 && p.grad_scale == nullptr && rule.clip_value == 0 &&
                           rule.weight_decay == 0;
        with_rule(rule, [&](auto r) {
            using Rule = decltype(r);
            apply_ = plain ? &Update::apply<Rule, true> : &Update::apply<Rule, false>;
        });
    }

    void operator()(int64_t offset, const T* dw, int64_t count) const {
        apply_(*this, offset, 0, dw, 0, 1, count);
    }

    // The same for a block of `rows` rows; strides in elements.
    void block(int64_t offset, int64_t stride, const T* dw, int64_t dw_stride, int64_t rows,
               int64_t cols) const {
        apply_(*this, offset, stride, dw, dw_stride, rows, cols);
    }

private:
    template <class Rule, bool plain>
    static void apply(const Update& u, int64_t offset, int64_t stride, const T* dw, int64_t dw_stride,
                      int64_t rows, int64_t cols) {
        const Update c = u;  // local: stores to T can't change it
        for (int64_t row = 0; row < rows; ++row) {
            T* w = c.w_ + offset + row * stride;
            T* slot[TILEFUSE_MAX_SLOTS];
            for (int s = 0; s < Rule::slots; ++s) slot[s] = c.slots_[s] + offset + row * stride;
            const T* g = dw + row * dw_stride;
            for_vectors<T>(cols, [&](int64_t i, int n) {
                Vec<T> weight = load_upto(w + i, n), gradient = load_upto(g + i, n);
                Vec<T> state[TILEFUSE_MAX_SLOTS];
                for (int s = 0; s < Rule::slots; ++s) state[s] = load_upto(slot[s] + i, n);
                if constexpr (!plain) {
                    gradient = penalised(gradient, weight, c.l1_, c.l2_) * c.scale_;
                    if (c.step_.clip_value > 0)
                        gradient = clamp(gradient, -c.step_.clip_value, c.step_.clip_value);
                    weight -= c.step_.decay * weight;
                }
                Rule::update(c.step_, weight, gradient, state);
                store_upto(w + i, weight, n);
                for (int s = 0; s < Rule::slots; ++s) store_upto(slot[s] + i, state[s], n);
            });
        }
    }

    using Apply = void (*)(const Update&, int64_t, int64_t, const T*, int64_t, int64_t, int64_t);

    Step<T> step_;
    T* w_;
    T* slots_[TILEFUSE_MAX_SLOTS];
    T l1_, l2_, scale_;
    Apply apply_ = nullptr;
};

}  // namespace tilefuse::inline TILEFUSE_ISA
