"""Matrix products and dense layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from tilefuse.ops._activation import NEEDS_INPUT, named

from ._elementwise import Static, derivative
from ._launch import Array, Shape, activation_fields, dtype_of, floats, launch, one_by_one

MOST_AXES = 6  # that lead, in one call
LINEAR: Static = ("linear", 0.0)
Transposed = tuple[bool, bool]


def product(
    a: Array,
    b: Array,
    bias: Array | None = None,
    activation: Static = LINEAR,
    transposed: Transposed = (False, False),
    saved: bool = False,
) -> tuple[Array, ...]:
    """``activation(a @ b + bias)`` over the last two axes; if `saved`, then also without activation."""
    arrays = (a, b) if bias is None else (a, b, bias)

    @custom_vmap
    def call(*arrays: Array) -> tuple[Array, ...]:
        return _launch(*arrays, activation=activation, transposed=transposed, saved=saved)

    @call.def_vmap
    def batched(size: int, mapped: list[bool], *arrays: Array) -> tuple[Any, Any]:
        lead = [x.ndim - 2 - m for x, m in zip(arrays[:2], mapped[:2], strict=True)]
        if any(mapped[2:]) or max(lead) == MOST_AXES:
            result = one_by_one(call, mapped, arrays)
        else:  # one more axis that leads, before the longer one's
            operands = [
                x.reshape(size, *(1,) * (max(lead) - n), *x.shape[1:]) if m else x
                for x, m, n in zip(arrays[:2], mapped[:2], lead, strict=True)
            ]
            result = call(*operands, *arrays[2:])
        return result, tuple(True for _ in result)

    return call(*arrays)


def _launch(
    a: Array, b: Array, bias: Array | None = None, *, activation: Static, transposed: Transposed, saved: bool
) -> tuple[Array, ...]:
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    m, k = a.shape[-2:][:: -1 if transposed[0] else 1]
    n = b.shape[-2:][:: -1 if transposed[1] else 1][1]
    c = Shape((*lead, m, n), a.dtype)
    if b.ndim == 2 and not transposed[0]:  # one product with more rows
        m, lead = math.prod(lead) * m, ()
    fields: dict[str, float] = {
        "dtype": dtype_of(a),
        "m": m,
        "n": n,
        "k": k,
        "batch_axes": len(lead),
        "c_row_stride": n,
    }
    for name, x, swapped in (("a", a, transposed[0]), ("b", b, transposed[1])):
        row, column = (1, x.shape[-1]) if swapped else (x.shape[-1], 1)
        fields |= {f"{name}_row_stride": row, f"{name}_col_stride": column}
    for axis, size in enumerate(lead):
        fields[f"batch_shape[{axis}]"] = size
        for name, shape in (("a", a.shape), ("b", b.shape), ("c", c.shape)):
            at = axis - len(lead) + len(shape) - 2
            if at >= 0 and shape[at] != 1:
                fields[f"{name}_batch_strides[{axis}]"] = math.prod(shape[at + 1 :])
    outputs = {"c": c, **({"epilogue.preactivation": c} if saved else {})}
    fields |= activation_fields(*activation)
    return launch("matmul", {"a": a, "b": b, "epilogue.bias": bias}, outputs, fields)


def column_sums(x: Array) -> Array:
    """The sums over all axes but the last."""
    rows = x.reshape(-1, x.shape[-1])
    fields = {"dtype": dtype_of(x), "m": rows.shape[0], "n": rows.shape[1]}
    return launch("column_sum", {"x": rows}, {"y": Shape(x.shape[-1:], x.dtype)}, fields)[0]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _matmul(a: Array, b: Array, bias: Array | None, activation: Static, transposed: Transposed) -> Array:
    return product(a, b, bias, activation, transposed)[0]


def _matmul_forward(
    a: Array, b: Array, bias: Array | None, activation: Static, transposed: Transposed
) -> Any:
    y, *z = product(a, b, bias, activation, transposed, activation[0] in NEEDS_INPUT)
    return y, (a, b, bias is not None, z[0] if z else y)


def _matmul_backward(activation: Static, transposed: Transposed, saved: Any, dy: Array) -> Any:
    a, b, has_bias, at = saved
    dz = derivative(activation, dy, at)
    left, right = transposed
    # dA = dC B^T and dB = A^T dC of what they are after transposing, and transposed where they were.
    (da,) = (
        product(b, dz, transposed=(right, True)) if left else product(dz, b, transposed=(False, not right))
    )
    (db,) = product(dz, a, transposed=(True, left)) if right else product(a, dz, transposed=(not left, False))
    return _unbroadcast(da, a.shape), _unbroadcast(db, b.shape), column_sums(dz) if has_bias else None


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _unbroadcast(x: Array, shape: Sequence[int]) -> Array:
    """The sum over the axes along which an array of that shape was repeated."""
    extra = x.ndim - len(shape)
    axes = [i for i in range(x.ndim) if i < extra or (shape[i - extra] == 1 and x.shape[i] != 1)]
    return jnp.sum(x, axis=axes).reshape(shape) if axes else x


def matmul(
    a: Any,
    b: Any,
    *,
    bias: Any = None,
    activation: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> Array:
    """``activation(a @ b + bias)`` over the last two axes; leading axes broadcast.

    `vmap` over `a` or `b` makes one call with one more leading axis.

    Parameters
    ----------
    a : array of float32 or float64, [..., m, k]
        ``[..., k, m]`` with `transpose_a`, which copies nothing.
    b : array, dtype of `a`, [..., k, n]
        ``[..., n, k]`` with `transpose_b`.
    bias : array, dtype of `a`, [n], optional
    activation : str, optional
        One of linear, relu, leaky_relu (slope 0.2), elu, selu, sigmoid, tanh, softplus, silu, gelu,
        gelu_tanh.

    Returns
    -------
    c : array, [..., m, n], dtype of `a`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or the activation is unknown.
    """
    left = floats(a, "a")
    right = floats(b, "b", left)
    static = named(activation)
    shapes = f"a has shape {left.shape} and b {right.shape}"
    if left.ndim < 2 or right.ndim < 2 or max(left.ndim, right.ndim) > MOST_AXES + 2:
        raise ValueError(f"{shapes}; expected 2 to {MOST_AXES + 2} axes each")
    k, depth = left.shape[-2 if transpose_a else -1], right.shape[-1 if transpose_b else -2]
    if k != depth:
        raise ValueError(
            f"{shapes} with transpose_a={transpose_a}, transpose_b={transpose_b}; expected a [..., m, k] and "
            f"b [..., k, n] after transposing, but k is {k} in a and {depth} in b"
        )
    try:
        np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise ValueError(
            f"{shapes}; expected leading axes that broadcast: equal, or 1 in one of them"
        ) from None
    n = right.shape[-2 if transpose_b else -1]
    row = None if bias is None else _bias(bias, left, n, "bias")
    transposed = (bool(transpose_a), bool(transpose_b))
    if right.ndim == 2 and not transpose_a:  # so that the gradient at b is one product, too
        c = _matmul(left.reshape(math.prod(left.shape[:-1]), k), right, row, static, transposed)
        return c.reshape(*left.shape[:-1], n)
    return _matmul(left, right, row, static, transposed)


def dense(x: Any, w: Any, b: Any = None, activation: str | None = None) -> Array:
    """``activation(x @ w + b)`` in one pass.

    `vmap` over `x` alone makes one product with more rows.

    Parameters
    ----------
    x : array of float32 or float64, [..., k]
    w : array, dtype of `x`, [k, n]
    b : array, dtype of `x`, [n], optional
    activation : str, optional
        As for `matmul`.

    Returns
    -------
    y : array, [..., n], dtype of `x`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or the activation is unknown.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> import tilefuse.jax as tf
    >>> loss = lambda w: tf.dense(jnp.array([[1.0, 2.0]]), w, activation="relu").sum()
    >>> jax.jit(jax.grad(loss))(jnp.array([[3.0], [4.0]])).ravel().tolist()
    [1.0, 2.0]
    """
    inputs = floats(x, "x")
    weights = floats(w, "w", inputs)
    if weights.ndim != 2 or inputs.ndim == 0 or inputs.shape[-1] != weights.shape[0]:
        raise ValueError(
            f"x has shape {inputs.shape} and w {weights.shape}; expected x [..., k] and w [k, n]"
        )
    row = None if b is None else _bias(b, inputs, weights.shape[1], "b")
    y = matmul(inputs[None] if inputs.ndim == 1 else inputs, weights, bias=row, activation=activation)
    return y[0] if inputs.ndim == 1 else y


def _bias(bias: Any, x: Array, n: int, name: str) -> Array:
    row = floats(bias, name, x)
    if row.shape != (n,):
        raise ValueError(f"{name} has shape {row.shape}; expected {(n,)}, one for each column")
    return row
