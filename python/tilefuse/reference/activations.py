"""Activations and their derivatives.

Each ``*_backward`` takes the gradient ``dy`` of the output and either the output ``y`` or, where the
derivative is not a function of the output (gelu, silu), the input ``x``. All arrays have one shape and dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ._namespace import Array, get_array_module

SELU_ALPHA = 1.6732632423543772  # Klambauer et al., "Self-Normalizing Neural Networks", 2017
SELU_SCALE = 1.0507009873554805
GELU_CUBIC = 0.044715  # Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def relu(x: Array) -> Array:
    """``max(x, 0)``."""
    return get_array_module(x).maximum(x, 0)


def relu_backward(dy: Array, y: Array) -> Array:
    xp = get_array_module(y)
    return xp.where(y > 0, dy, xp.zeros_like(y))


def leaky_relu(x: Array, negative_slope: float = 0.2) -> Array:
    """``x`` where positive, ``negative_slope * x`` elsewhere."""
    return get_array_module(x).where(x > 0, x, negative_slope * x)


def leaky_relu_backward(dy: Array, y: Array, negative_slope: float = 0.2) -> Array:
    return get_array_module(y).where(y > 0, dy, negative_slope * dy)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere."""
    xp = get_array_module(x)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


def elu_backward(dy: Array, y: Array, alpha: float = 1.0) -> Array:
    return get_array_module(y).where(y > 0, dy, dy * (y + alpha))


def selu(x: Array) -> Array:
    """``SELU_SCALE * elu(x, SELU_ALPHA)``."""
    return SELU_SCALE * elu(x, SELU_ALPHA)


def selu_backward(dy: Array, y: Array) -> Array:
    return get_array_module(y).where(y > 0, SELU_SCALE * dy, dy * (y + SELU_SCALE * SELU_ALPHA))


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``, without overflow."""
    xp = get_array_module(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, xp.ones_like(x)) / (1 + e)


def sigmoid_backward(dy: Array, y: Array) -> Array:
    return dy * y * (1 - y)


def tanh(x: Array) -> Array:
    return get_array_module(x).tanh(x)


def tanh_backward(dy: Array, y: Array) -> Array:
    return dy * (1 - y) * (1 + y)


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``, without overflow."""
    xp = get_array_module(x)
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


def softplus_backward(dy: Array, y: Array) -> Array:
    return -dy * get_array_module(y).expm1(-y)  # sigmoid(x) = 1 - exp(-y)


def silu(x: Array) -> Array:
    """``x * sigmoid(x)``."""
    return x * sigmoid(x)


def silu_backward(dy: Array, x: Array) -> Array:
    return dy * sigmoid(x) * (1 + x * sigmoid(-x))  # sigmoid(-x) = 1 - sigmoid(x), to the last digit


def gelu(x: Array, approximate: bool = False) -> Array:
    """``x * Phi(x)`` with the normal distribution's ``Phi``, or its approximation through tanh."""
    if approximate:
        return x * sigmoid(2 * _gelu_inner(x))  # (1 + tanh(u)) / 2 = sigmoid(2 u)
    return x * _normal_cdf(x)


def gelu_backward(dy: Array, x: Array, approximate: bool = False) -> Array:
    xp = get_array_module(x)
    if approximate:
        u = 2 * _gelu_inner(x)
        s, rest = sigmoid(u), sigmoid(-u)  # 1 - s would have lost its digits
        x = xp.clip(x, -100, 100)  # s * rest is zero there, and what it multiplies must not overflow
        du = 2 * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x)
        return dy * (s + x * s * rest * du)
    density = xp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return dy * (_normal_cdf(x) + x * density)


def _gelu_inner(x: Array) -> Array:
    return SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)


def _normal_cdf(x: Array) -> Array:
    return (_erfc(-x.astype("float64") / math.sqrt(2)) / 2).astype(x.dtype)


def _erfc(x: Array) -> Array:
    if get_array_module(x) is np:  # NumPy has none; the standard library's takes one number at a time
        return np.vectorize(math.erfc, otypes=[np.float64])(x)
    from cupyx.scipy import special  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return special.erfc(x)


# Activations by name, as layers and epilogues know them: f(x, alpha) and its backward(dy, y or x, alpha).
FORWARD: dict[str, Callable[[Array, float], Array]] = {
    "linear": lambda x, alpha: x,
    "relu": lambda x, alpha: relu(x),
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": lambda x, alpha: selu(x),
    "sigmoid": lambda x, alpha: sigmoid(x),
    "tanh": lambda x, alpha: tanh(x),
    "softplus": lambda x, alpha: softplus(x),
    "silu": lambda x, alpha: silu(x),
    "gelu": lambda x, alpha: gelu(x),
    "gelu_tanh": lambda x, alpha: gelu(x, approximate=True),
}
BACKWARD: dict[str, Callable[[Array, Array, float], Array]] = {
    "linear": lambda dy, y, alpha: dy,
    "relu": lambda dy, y, alpha: relu_backward(dy, y),
    "leaky_relu": leaky_relu_backward,
    "elu": elu_backward,
    "selu": lambda dy, y, alpha: selu_backward(dy, y),
    "sigmoid": lambda dy, y, alpha: sigmoid_backward(dy, y),
    "tanh": lambda dy, y, alpha: tanh_backward(dy, y),
    "softplus": lambda dy, y, alpha: softplus_backward(dy, y),
    "silu": lambda dy, x, alpha: silu_backward(dy, x),
    "gelu": lambda dy, x, alpha: gelu_backward(dy, x),
    "gelu_tanh": lambda dy, x, alpha: gelu_backward(dy, x, approximate=True),
}
NEEDS_INPUT = frozenset({"silu", "gelu", "gelu_tanh"})  # the derivative takes x, not y
DEFAULT_ALPHA = {"leaky_relu": 0.2, "elu": 1.0}


def activate(x: Array, activation: str | None, alpha: float | None = None) -> Array:
    """The activation of that name, applied to `x`; ``None`` is ``"linear"``.

    Raises
    ------
    ValueError
        If there is no activation of that name.
    """
    name = check_activation(activation)
    return FORWARD[name](x, DEFAULT_ALPHA.get(name, 0.0) if alpha is None else alpha)


def activate_backward(
    dy: Array, y: Array, activation: str | None, alpha: float | None = None, *, x: Array | None = None
) -> Array:
    """The gradient at the input of the activation of that name, from its output `y` or its input `x`.

    Raises
    ------
    ValueError
        If there is no activation of that name, or if its derivative needs `x` and that is ``None``.
    """
    name = check_activation(activation)
    if name in NEEDS_INPUT and x is None:
        raise ValueError(f"the derivative of {name!r} needs the input of the activation, which was not given")
    at = x if name in NEEDS_INPUT else y
    return BACKWARD[name](dy, at, DEFAULT_ALPHA.get(name, 0.0) if alpha is None else alpha)


def check_activation(activation: str | None) -> str:
    """The name itself, ``"linear"`` for ``None``; ValueError for an unknown one."""
    name = "linear" if activation is None else activation
    if name not in FORWARD:
        raise ValueError(f"unknown activation {activation!r}; known: {', '.join(sorted(FORWARD))}")
    return name
