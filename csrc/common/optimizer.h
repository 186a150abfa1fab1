// The optimizers' update rules for V = float, double or a GCC vector of them, with the numerics of Keras 3 or of PyTorch.
#pragma once

#include <cmath>

#include "common/math.h"
#include "tilefuse/optimizer.h"

namespace tilefuse::inline TILEFUSE_ISA {

// The numbers that one step of an optimizer needs, rounded to T once; of PyTorch's conventions too, or of Keras's alone,
// which need fewer of them at hand.
template <class T, bool any_convention = true> struct Step {
    TILEFUSE_EVERYWHERE explicit Step(const tilefuse_optimizer_rule& rule)
        : learning_rate(static_cast<T>(rule.learning_rate)),
          momentum(static_cast<T>(rule.momentum)),
          rho(static_cast<T>(rule.rho)),
          one_minus_rho(static_cast<T>(1 - rule.rho)),
          one_minus_beta_1(static_cast<T>(1 - rule.beta_1)),
          one_minus_beta_2(static_cast<T>(1 - rule.beta_2)),
          epsilon(static_cast<T>(rule.epsilon)),
          epsilon_under_(static_cast<T>(is_torch(rule) ? 0 : rule.epsilon)),
          epsilon_beside_(static_cast<T>(is_torch(rule) ? rule.epsilon : 0)),
          into_(static_cast<T>(!is_torch(rule) ? rule.learning_rate : rule.kind == TILEFUSE_SGD ? rule.dampening - 1 : 1)),
          out_(static_cast<T>(!is_torch(rule) ? 1 : rule.kind == TILEFUSE_SGD ? -rule.learning_rate : rule.learning_rate)),
          decay(static_cast<T>(rule.learning_rate * rule.weight_decay)),
          clip_value(static_cast<T>(rule.clip_value)) {
        if (rule.kind == TILEFUSE_ADAM) {
            const double t = static_cast<double>(rule.step);
            const double root = __builtin_sqrt(1 - ::pow(rule.beta_2, t));
            alpha = static_cast<T>(rule.learning_rate * root / (1 - ::pow(rule.beta_1, t)));
            if (is_torch(rule)) epsilon = static_cast<T>(rule.epsilon * root);
        }
    }

    static TILEFUSE_EVERYWHERE bool is_torch(const tilefuse_optimizer_rule& rule) {
        return any_convention && rule.convention == TILEFUSE_TORCH_OPTIMIZER;
    }

    // Epsilon under the root and beside it, but for Adam's.
    TILEFUSE_EVERYWHERE T epsilon_under() const { return any_convention ? epsilon_under_ : epsilon; }
    TILEFUSE_EVERYWHERE T epsilon_beside() const { return any_convention ? epsilon_beside_ : T(0); }
    // What multiplies a gradient that goes into a velocity, and the velocity.
    TILEFUSE_EVERYWHERE T into() const { return any_convention ? into_ : learning_rate; }
    TILEFUSE_EVERYWHERE T out() const { return any_convention ? out_ : T(1); }

    T learning_rate, momentum, rho, one_minus_rho, one_minus_beta_1, one_minus_beta_2;
    T epsilon, epsilon_under_, epsilon_beside_, into_, out_;
    T decay, clip_value;
    T alpha{};  // Adam's learning rate with both bias corrections
};

// A rule updates the weight w and its slots with the gradient g.
struct Sgd {
    static constexpr int slots = 0;
    template <class S, class V> static TILEFUSE_INLINE void update(const S& s, V& w, V g, V*) {
        w -= s.learning_rate * g;
    }
};

template <bool nesterov> struct Momentum {
    static constexpr int slots = 1;  // velocity
    template <class S, class V> static TILEFUSE_INLINE void update(const S& s, V& w, V g, V* slot) {
        slot[0] = s.momentum * slot[0] - s.into() * g;
        if constexpr (nesterov) {
            w += s.out() * (s.momentum * slot[0] - s.into() * g);
        } else {
            w += s.out() * slot[0];
        }
    }
};

struct Adagrad {
    static constexpr int slots = 1;  // accumulator
    template <class S, class V> static TILEFUSE_INLINE void update(const S& s, V& w, V g, V* slot) {
        slot[0] += g * g;
        w -= over_root<V>(s.learning_rate * g, slot[0] + s.epsilon_under(), s.epsilon_beside());
    }
};

template <bool momentum, bool centered> struct Rmsprop {
    static constexpr int slots = 1 + momentum + centered;  // mean square, velocity, mean gradient
    template <class S, class V> static TILEFUSE_INLINE void update(const S& s, V& w, V g, V* slot) {
        slot[0] = s.rho * slot[0] + s.one_minus_rho * (g * g);
        V variance = slot[0];
        if constexpr (centered) {
            V& mean = slot[1 + momentum];
            mean = s.rho * mean + s.one_minus_rho * g;
            variance -= mean * mean;
        }
        const auto rate = momentum ? s.into() : s.learning_rate;
        const V increment = over_root<V>(rate * g, variance + s.epsilon_under(), s.epsilon_beside());
        if constexpr (momentum) {
            slot[1] = s.momentum * slot[1] + increment;
            w -= s.out() * slot[1];
        } else {
            w -= increment;
        }
    }
};

template <bool amsgrad> struct Adam {
    static constexpr int slots = 2 + amsgrad;  // m, v, the largest v
    template <class S, class V> static TILEFUSE_INLINE void update(const S& s, V& w, V g, V* slot) {
        slot[0] += (g - slot[0]) * s.one_minus_beta_1;
        slot[1] += (g * g - slot[1]) * s.one_minus_beta_2;
        if constexpr (amsgrad) slot[2] = max(slot[2], slot[1]);
        w -= over_root<V>(slot[0] * s.alpha, slot[1 + amsgrad], s.epsilon);
    }
};

// body(Rule{}) for the rule that the optimizer describes.
template <class Body> TILEFUSE_EVERYWHERE inline void with_rule(const tilefuse_optimizer_rule& rule, Body&& body) {
    switch (rule.kind) {
        case TILEFUSE_SGD:
            if (!(rule.momentum > 0)) return body(Sgd{});
            return rule.nesterov ? body(Momentum<true>{}) : body(Momentum<false>{});
        case TILEFUSE_ADAGRAD: return body(Adagrad{});
        case TILEFUSE_RMSPROP:
            if (rule.momentum > 0)
                return rule.centered ? body(Rmsprop<true, true>{}) : body(Rmsprop<true, false>{});
            return rule.centered ? body(Rmsprop<false, true>{}) : body(Rmsprop<false, false>{});
        case TILEFUSE_ADAM: return rule.amsgrad ? body(Adam<true>{}) : body(Adam<false>{});
    }
}

// The gradient with its penalties: dw + l1 sign(w) + 2 l2 w.
template <class T, class V> TILEFUSE_INLINE V penalised(V dw, V w, T l1, T l2) {
    const V sign = w > 0 ? all<V>(1) : (w < 0 ? all<V>(-1) : V{});
    return dw + l1 * sign + 2 * l2 * w;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
