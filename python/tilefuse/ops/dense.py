"""Dense layers: a matrix product over the last axis, a bias, an activation, and the gradients of it all."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import ArrayLike

from tilefuse._device import native

from ._activation import NEEDS_INPUT, backward, named
from ._arrays import Array, check_shape, empty, floats, packed, whole
from ._precision import checked

__all__ = ["dense", "dense_backward"]


def dense(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    activation: str | None = None,
    *,
    precision: str | None = None,
) -> Array:
    """``activation(x @ w + b)`` in one pass.

    Parameters
    ----------
    x : array_like of float32 or float64, [..., k]
        Copied first if its leading axes can't be seen as one, or if it is not aligned to its elements.
    w : array_like, dtype of `x`, [k, n]
    b : array_like, dtype of `x`, [n], optional
    activation : str, optional
        One of linear, relu, leaky_relu (slope 0.2), elu, selu, sigmoid, tanh, softplus, silu, gelu,
        gelu_tanh.
    precision : str, optional
        As for :func:`matmul`.

    Returns
    -------
    y : ndarray, [..., n], dtype of `x`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or a name is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x, w, b = np.array([[1.0, 2.0]]), np.array([[1.0, -1.0], [1.0, -1.0]]), np.array([0.5, 0.5])
    >>> ops.dense(x, w, b, "relu")
    array([[3.5, 0. ]])
    """
    name, alpha = named(activation)
    inputs, weights = _operands(x, w)
    bias = None
    if b is not None:
        bias = packed(floats(b, "b", inputs.dtype, "x"))
        if bias.shape != weights.shape[1:]:
            raise ValueError(
                f"b has shape {bias.shape}; expected {weights.shape[1:]}, as w has shape {weights.shape}"
            )
    y = empty((*inputs.shape[:-1], weights.shape[1]), inputs.dtype, inputs)
    exactly = checked(precision, inputs.dtype)
    native().matmul(_rows(inputs), weights, _rows(y), bias, name, alpha, 0.0, None, False, False, exactly)
    return y


def dense_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    y: ArrayLike | None,
    activation: str | None = None,
    *,
    z: ArrayLike | None = None,
    precision: str | None = None,
    needs_dx: bool = True,
) -> tuple[Array, Array, Array]:
    """The gradients of :func:`dense` at `x`, `w` and `b`.

    Parameters
    ----------
    dy : array_like of float32 or float64, [..., n]
        The gradient at the output.
    x : array_like, dtype of `dy`, [..., k]
    w : array_like, dtype of `dy`, [k, n]
    y : array_like, dtype of `dy`, [..., n], optional
        The output; not needed where there is no activation, or it needs `z`.
    activation, precision : str, optional
        As given to :func:`dense`.
    z : array_like, dtype of `dy`, [..., n], optional
        ``x @ w + b``, which the derivatives of gelu, gelu_tanh and silu need; the others don't use it.
    needs_dx : bool
        Whether to compute `dx`; it is None else.

    Returns
    -------
    dx : ndarray, [..., k]
    dw : ndarray, [k, n]
        Lies in memory as `w` does: where that is the transpose of a contiguous array, so is this.
    db : ndarray, [n]

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, the activation is unknown, or it needs `z` and that is None.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x, w = np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])
    >>> y = ops.dense(x, w)
    >>> dx, dw, db = ops.dense_backward(np.ones_like(y), x, w, y)
    >>> dx, dw.ravel(), db
    (array([[3., 4.]]), array([1., 2.]), array([1.]))
    """
    name, alpha = named(activation)
    inputs, weights = _operands(x, w)
    dtype, shape = inputs.dtype, (*inputs.shape[:-1], weights.shape[1])
    given = {"dy": floats(dy, "dy", dtype, "x")}
    if y is not None:
        given["y"] = floats(y, "y", dtype, "x")
    elif name != "linear" and name not in NEEDS_INPUT:
        raise ValueError(f"the derivative of {name} is a function of the output: pass it as y")
    if name in NEEDS_INPUT:
        if z is None:
            raise ValueError(f"the derivative of {name} is not a function of the output: pass z = x @ w + b")
        given["z"] = floats(z, "z", dtype, "x")
    for key, array in given.items():
        check_shape(array, key, shape, "the output of dense")
    gradient = packed(given["dy"])
    if name != "linear":
        gradient = backward(name, gradient, given["z" if name in NEEDS_INPUT else "y"], alpha)
    dz, exactly = _rows(gradient), checked(precision, dtype)

    def product(a: Array, b: Array, out: Array) -> Array:
        native().matmul(a, b, out, None, "linear", 0.0, 0.0, None, False, False, exactly)
        return out

    dx: Any = empty(inputs.shape, dtype, inputs) if needs_dx else None
    if needs_dx:
        product(dz, weights.T, _rows(dx))
    if weights.flags.f_contiguous and not weights.flags.c_contiguous:
        dw = product(dz.T, _rows(inputs), empty(weights.shape[::-1], dtype, inputs)).T
    else:
        dw = product(_rows(inputs).T, dz, empty(weights.shape, dtype, inputs))
    db = empty(weights.shape[1:], dtype, inputs)
    native().column_sum(dz, db)
    return dx, dw, db


def _operands(x: ArrayLike, w: ArrayLike) -> tuple[Array, Array]:
    inputs = whole(floats(x, "x"))
    weights = whole(floats(w, "w", inputs.dtype, "x"))
    if weights.ndim != 2:
        raise ValueError(f"w has shape {weights.shape}; expected two axes, [k, n]")
    if inputs.ndim == 0 or inputs.shape[-1] != weights.shape[0]:
        raise ValueError(
            f"x has shape {inputs.shape} and w {weights.shape}; expected x [..., k] and w [k, n]"
        )
    return inputs, weights


def _rows(a: Array) -> Array:
    """All axes but the last as one: a view for contiguous arrays, so that it may be written to."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
