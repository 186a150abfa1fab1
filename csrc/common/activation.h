// Activations, each with its derivative, for V = float, double or a GCC vector of them.
// `derivative` takes the output y = f(x); where that does not determine it (silu, gelu), the input x.
#pragma once

#include "common/math.h"
#include "tilefuse/activation.h"

namespace tilefuse::inline TILEFUSE_ISA {

template <class T> struct Linear {
    template <class V> TILEFUSE_INLINE V forward(V x) const { return x; }
    template <class V> TILEFUSE_INLINE V derivative(V) const { return all<V>(1); }
};

template <class T> struct Relu {
    template <class V> TILEFUSE_INLINE V forward(V x) const { return x < 0 ? V{} : x; }  // NaN stays NaN
    template <class V> TILEFUSE_INLINE V derivative(V y) const { return y > 0 ? all<V>(1) : V{}; }
};

template <class T> struct LeakyRelu {
    T alpha;
    template <class V> TILEFUSE_INLINE V forward(V x) const { return x > 0 ? x : alpha * x; }
    template <class V> TILEFUSE_INLINE V derivative(V y) const { return y > 0 ? all<V>(1) : all<V>(alpha); }
};

template <class T> struct Elu {
    T alpha;
    template <class V> TILEFUSE_INLINE V forward(V x) const { return x > 0 ? x : alpha * expm1(x); }
    template <class V> TILEFUSE_INLINE V derivative(V y) const { return y > 0 ? all<V>(1) : y + alpha; }
};

// Klambauer et al., "Self-Normalizing Neural Networks", 2017.
template <class T> struct Selu {
    static constexpr T scale = static_cast<T>(1.0507009873554805);
    static constexpr T limit = static_cast<T>(1.0507009873554805 * 1.6732632423543772);  // scale * alpha
    template <class V> TILEFUSE_INLINE V forward(V x) const { return x > 0 ? scale * x : limit * expm1(x); }
    template <class V> TILEFUSE_INLINE V derivative(V y) const { return y > 0 ? all<V>(scale) : y + limit; }
};

template <class T> struct Sigmoid {
    template <class V> TILEFUSE_INLINE V forward(V x) const { return sigmoid(x); }
    template <class V> TILEFUSE_INLINE V derivative(V y) const { return y * (1 - y); }
};

template <class T> struct Tanh {
    template <class V> TILEFUSE_INLINE V forward(V x) const { return tanh(x); }
    template <class V> TILEFUSE_INLINE V derivative(V y) const { return (1 - y) * (1 + y); }
};

template <class T> struct Softplus {
    template <class V> TILEFUSE_INLINE V forward(V x) const { return softplus(x); }
    // sigmoid(x) = 1 - exp(-y)
    template <class V> TILEFUSE_INLINE V derivative(V y) const { return -expm1(-y); }
};

template <class T> struct Silu {
    template <class V> TILEFUSE_INLINE V forward(V x) const { return x * sigmoid(x); }
    template <class V> TILEFUSE_INLINE V derivative(V x) const {
        const Sigmoids<V> s = sigmoids(x);
        return s.of * (1 + x * s.of_minus);
    }
};

template <class T> struct Gelu {
    template <class V> TILEFUSE_INLINE V forward(V x) const { return x * normal_cdf(x); }
    template <class V> TILEFUSE_INLINE V derivative(V x) const {
        constexpr T peak = static_cast<T>(0.39894228040143267794);  // 1 / sqrt(2 pi), the density at 0
        return normal_cdf(x) + x * (peak * exp(x * x * static_cast<T>(-0.5)));
    }
};

// x (1 + tanh(u)) / 2 = x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3); Hendrycks and Gimpel, 2016.
template <class T> struct GeluTanh {
    static constexpr T slope = static_cast<T>(2 * 0.79788456080286535588);  // of 2 u at 0
    static constexpr T cubic = static_cast<T>(0.044715);
    template <class V> TILEFUSE_INLINE V inner(V x) const { return slope * (x + cubic * x * x * x); }
    template <class V> TILEFUSE_INLINE V forward(V x) const { return x * sigmoid(inner(x)); }
    template <class V> TILEFUSE_INLINE V derivative(V x) const {
        x = clamp(x, -100, 100);  // where the sigmoid is 0 or 1 already, and x * x can't overflow
        const Sigmoids<V> s = sigmoids(inner(x));
        return s.of + x * s.of * s.of_minus * (slope * (1 + 3 * cubic * x * x));
    }
};

// body(Functor<T>{}) for the activation of that number.
template <class T, class Body>
TILEFUSE_EVERYWHERE inline void with_activation(tilefuse_activation_kind activation, double alpha, Body&& body) {
    switch (activation) {
        case TILEFUSE_RELU: return body(Relu<T>{});
        case TILEFUSE_LEAKY_RELU: return body(LeakyRelu<T>{static_cast<T>(alpha)});
        case TILEFUSE_ELU: return body(Elu<T>{static_cast<T>(alpha)});
        case TILEFUSE_SELU: return body(Selu<T>{});
        case TILEFUSE_SIGMOID: return body(Sigmoid<T>{});
        case TILEFUSE_TANH: return body(Tanh<T>{});
        case TILEFUSE_SOFTPLUS: return body(Softplus<T>{});
        case TILEFUSE_SILU: return body(Silu<T>{});
        case TILEFUSE_GELU: return body(Gelu<T>{});
        case TILEFUSE_GELU_TANH: return body(GeluTanh<T>{});
        case TILEFUSE_LINEAR:
        case TILEFUSE_ACTIVATION_COUNT: break;
    }
    body(Linear<T>{});
}

}  // namespace tilefuse::inline TILEFUSE_ISA
