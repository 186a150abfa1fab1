"""Activations by name: which there are, their parameters, and running them."""

from __future__ import annotations

from numpy.typing import ArrayLike

from tilefuse import _core
from tilefuse._device import native

from ._arrays import Array, empty, packed_floats, pair

DEFAULT_ALPHA = _core.activations()
NEEDS_INPUT = frozenset({"silu", "gelu", "gelu_tanh"})  # the derivative is a function of x, not of y


def named(activation: str | None) -> tuple[str, float]:
    """The name and parameter of an activation; ``None`` is ``"linear"``. ValueError for an unknown name."""
    name = "linear" if activation is None else activation
    if name not in DEFAULT_ALPHA:
        known = ", ".join(DEFAULT_ALPHA)
        raise ValueError(f"unknown activation {activation!r}; expected None or one of: {known}")
    return name, DEFAULT_ALPHA[name]


def forward(name: str, x: ArrayLike, alpha: float = 0.0) -> Array:
    """The activation of that name, applied to `x`."""
    a = packed_floats(x, "x")
    y = empty(a.shape, a.dtype, a)
    native().activation(a, y, name, float(alpha))
    return y


def backward(name: str, dy: ArrayLike, at: ArrayLike, alpha: float = 0.0) -> Array:
    """``dy`` times the derivative, at the output of the activation or (NEEDS_INPUT) its input."""
    gradient, array = pair(dy, at, "x" if name in NEEDS_INPUT else "y")
    dx = empty(gradient.shape, gradient.dtype, gradient)
    native().activation_backward(gradient, array, dx, name, float(alpha))
    return dx
