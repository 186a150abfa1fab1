"""Activations, sums, softmax and dropout."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tilefuse.ops._activation import NEEDS_INPUT, named

from ._launch import (
    ACTIVATIONS,
    Array,
    Shape,
    activation_fields,
    by_elements,
    by_rows,
    check_shape,
    floats,
    launch,
    like,
    over_rows,
)

Static = tuple[str, float]  # an activation's name and parameter


def derivative(activation: Static, dy: Array, at: Array) -> Array:
    """`dy` times the activation's derivative, at its output or (NEEDS_INPUT) its input."""
    name, alpha = activation
    if name == "linear":
        return dy

    def call(dy: Array, at: Array) -> Array:
        fields = by_elements(dy) | {"activation": ACTIVATIONS[name], "alpha": float(alpha)}
        return launch("activation_backward", {"dy": dy, "at": at}, {"dx": like(dy)}, fields)[0]

    return over_rows(call, (True, True))(dy, at)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _activation(activation: Static, x: Array) -> Array:
    name, alpha = activation

    def call(x: Array) -> Array:
        fields = by_elements(x) | {"activation": ACTIVATIONS[name], "alpha": float(alpha)}
        return launch("activation", {"x": x}, {"y": like(x)}, fields)[0]

    return over_rows(call, (True,))(x)


def _activation_forward(activation: Static, x: Array) -> tuple[Array, Array]:
    y = _activation(activation, x)
    return y, x if activation[0] in NEEDS_INPUT else y


_activation.defvjp(_activation_forward, lambda activation, at, dy: (derivative(activation, dy, at),))


def relu(x: Any) -> Array:
    """``max(x, 0)``."""
    return _activation(("relu", 0.0), floats(x, "x"))


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Array:
    """``x`` where that is positive, ``negative_slope * x`` elsewhere."""
    return _activation(("leaky_relu", float(negative_slope)), floats(x, "x"))


def elu(x: Any, alpha: float = 1.0) -> Array:
    """``x`` where that is positive, ``alpha * (exp(x) - 1)`` elsewhere."""
    return _activation(("elu", float(alpha)), floats(x, "x"))


def selu(x: Any) -> Array:
    """``1.0507 * elu(x, 1.6733)``."""
    return _activation(("selu", 0.0), floats(x, "x"))


def sigmoid(x: Any) -> Array:
    """``1 / (1 + exp(-x))``."""
    return _activation(("sigmoid", 0.0), floats(x, "x"))


def tanh(x: Any) -> Array:
    """The hyperbolic tangent."""
    return _activation(("tanh", 0.0), floats(x, "x"))


def softplus(x: Any) -> Array:
    """``log(1 + exp(x))``, without overflow."""
    return _activation(("softplus", 0.0), floats(x, "x"))


def silu(x: Any) -> Array:
    """``x * sigmoid(x)``, also known as swish."""
    return _activation(("silu", 0.0), floats(x, "x"))


def gelu(x: Any, approximate: bool = False) -> Array:
    """``x * Phi(x)`` with the normal distribution's ``Phi``, or its approximation through tanh."""
    return _activation(("gelu_tanh" if approximate else "gelu", 0.0), floats(x, "x"))


# --- sums ---


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _add(activation: Static, a: Array, b: Array) -> Array:
    return _add_forward(activation, a, b, saved=False)[0]


def _add_forward(activation: Static, a: Array, b: Array, saved: bool = True) -> tuple[Array, Array]:
    with_input = saved and activation[0] in NEEDS_INPUT

    def call(a: Array, b: Array) -> tuple[Array, ...]:
        outputs = {"y": like(a), **({"epilogue.preactivation": like(a)} if with_input else {})}
        fields = by_elements(a) | activation_fields(*activation)
        return launch("add", {"x": a, "epilogue.addend": b}, outputs, fields)

    y, *z = over_rows(call, (True, True))(a, b)
    return y, z[0] if z else y


def _add_backward(activation: Static, at: Array, dy: Array) -> tuple[Array, Array]:
    dz = derivative(activation, dy, at)
    return dz, dz


_add.defvjp(_add_forward, _add_backward)


def add(a: Any, b: Any, activation: str | None = None) -> Array:
    """``activation(a + b)`` of two arrays of one shape, in one pass."""
    one = floats(a, "a")
    other = floats(b, "b", one)
    check_shape(other, "b", one.shape, "a")
    return _add(named(activation), one, other)


# --- softmax ---


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _softmax(log: bool, x: Array) -> Array:
    def call(x: Array) -> Array:
        return launch("softmax", {"x": x}, {"y": like(x)}, by_rows(x) | {"log": log})[0]

    return over_rows(call, (True,))(x)


def _softmax_forward(log: bool, x: Array) -> tuple[Array, Array]:
    y = _softmax(log, x)
    return y, y


def _softmax_backward(log: bool, y: Array, dy: Array) -> tuple[Array]:
    def call(dy: Array, y: Array) -> Array:
        return launch("softmax_backward", {"dy": dy, "y": y}, {"dx": like(dy)}, by_rows(dy) | {"log": log})[0]

    return (over_rows(call, (True, True))(dy, y),)


_softmax.defvjp(_softmax_forward, _softmax_backward)


def softmax(x: Any, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along one axis, without overflow."""
    return _along(axis, floats(x, "x"), log=False)


def log_softmax(x: Any, axis: int = -1) -> Array:
    """``log(softmax(x))`` along one axis, exact where softmax itself would be 0."""
    return _along(axis, floats(x, "x"), log=True)


def _along(axis: int, x: Array, *, log: bool) -> Array:
    number = operator.index(axis)
    if not -x.ndim <= number < x.ndim:
        expected = f"from {-x.ndim} to {x.ndim - 1}" if x.ndim else "an array with at least one axis"
        raise ValueError(f"axis is {number}, and x has shape {x.shape}; expected {expected}")
    return jnp.moveaxis(_softmax(log, jnp.moveaxis(x, number, -1)), -1, number)


# --- dropout ---


def _kept(x: Array, mask: Array, rate: float) -> Array:
    def call(x: Array, mask: Array) -> Array:
        fields = by_elements(x) | {"scale": 1 / (1 - rate)}
        return launch("dropout", {"x": x, "mask": mask}, {"y": like(x)}, fields)[0]

    return over_rows(call, (True, True))(x, mask)


_dropped = jax.custom_vjp(_kept, nondiff_argnums=(2,))
_dropped.defvjp(
    lambda x, mask, rate: (_kept(x, mask, rate), mask), lambda rate, mask, dy: (_kept(dy, mask, rate), None)
)


def dropout(x: Any, rate: float, *, seed: int = 0, step: Any = 0) -> Array:
    """Zero each element with probability `rate` and scale the others by ``1 / (1 - rate)``.

    Unlike `tilefuse.ops.dropout` it returns the result alone, as JAX keeps the mask for the gradient.

    Parameters
    ----------
    x : array of float32 or float64, any shape
    rate : float
        In [0, 1).
    seed : int
        In [0, 2**63).
    step : int or integer array of no axes
        In [0, 2**32); may be traced. Equal seeds and steps give equal masks, which are those of
        `tilefuse.ops.dropout`: count `step` up for a new one.

    Returns
    -------
    y : array, shape and dtype of `x`
    """
    array = floats(x, "x")
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}; expected a number in [0, 1)")
    if not 0 <= operator.index(seed) < 2**63:
        raise ValueError(f"seed is {seed}; expected an integer in [0, 2**63)")
    words = jnp.stack(
        [jnp.asarray(step, np.uint32), jnp.zeros((), np.uint32)]
    )  # of 64 bits, the low one first
    fields = {"rows": array.size, "cols": 1, "seed": operator.index(seed), "rate": float(rate)}
    (mask,) = launch("dropout_mask", {"step": words}, {"mask": Shape(array.shape, np.uint8)}, fields)
    return _dropped(array, mask, float(rate))
