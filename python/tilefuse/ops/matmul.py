"""Matrix products with an epilogue."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tilefuse._device import current, native

from ._activation import named
from ._arrays import Array, empty, floats, packed, whole, writeable_view

__all__ = ["matmul"]

_OF_FLOAT32 = ("float32", "ieee", "bfloat16")
_ELSEWHERE = ("tf32", "float16")


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
    out: Array | None = None,
    precision: str | None = None,
    beta: float = 0.0,
) -> Array:
    """``activation(a @ b + beta * out + bias)`` over the last two axes; leading axes broadcast.

    Parameters
    ----------
    a : array_like of float32 or float64, [..., m, k]
        ``[..., k, m]`` with `transpose_a`. Any strides; copied only if it is not aligned to its elements.
    b : array_like, dtype of `a`, [..., k, n]
        ``[..., n, k]`` with `transpose_b`. Likewise.
    bias : array_like, dtype of `a`, [n], optional
    activation : str, optional
        One of linear, relu, leaky_relu (slope 0.2), elu, selu, sigmoid, tanh, softplus, silu, gelu,
        gelu_tanh.
    transpose_a, transpose_b : bool
        Whether to swap the last two axes first. Costs no copy.
    out : array of the dtype of `a`, [..., m, n], optional
        Takes the result. If its last axis is not contiguous, or if it overlaps an input, the product is
        computed in memory of its own and copied.
    precision : str, optional
        How arrays of float32 are multiplied. "float32", the default, is as exact as multiply-adds in float32,
        by which "ieee" goes; it may use the processor's matrix unit (AMX), with operands split into three
        parts of bfloat16. "bfloat16" rounds the operands to 8 bits and adds up in float32. Arrays of float64
        are multiplied in "float64" alone.
    beta : float
        What the old values of `out` are multiplied by; 0 never reads them.

    Returns
    -------
    c : ndarray, [..., m, n], dtype of `a`
        `out` itself where given.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, an operand has fewer than two axes, a name is unknown, `out` is read-only, or
        `beta` is not 0 without `out`.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    >>> ops.matmul(np.array([[1.0, 2.0]]), np.array([[3.0, -4.0]]), transpose_b=True, activation="relu")
    array([[0.]])
    """
    left = whole(floats(a, "a"))
    right = whole(floats(b, "b", left.dtype, "a"))
    precision = _precision(precision, left.dtype)
    name, alpha = named(activation)
    shape = _result_shape(left, right, transpose_a, transpose_b)
    bias_row = None
    if bias is not None:
        bias_row = packed(floats(bias, "bias", left.dtype, "a"))
        if bias_row.shape != shape[-1:]:
            raise ValueError(f"bias has shape {bias_row.shape}; expected {shape[-1:]}, one for each column")
    if out is None:
        if beta != 0:
            raise ValueError(f"beta is {beta} and out is None; pass the array that beta multiplies as out")
        result = empty(shape, left.dtype, left)
    else:
        target = writeable_view(out, "out", left.dtype, "a")
        if target.shape != shape:
            raise ValueError(f"out has shape {target.shape}; expected {shape}, the shape of the product")
        in_place = (
            (shape[-1] <= 1 or target.strides[-1] == target.itemsize)
            and whole(target) is target
            and not any(np.may_share_memory(target, x) for x in (left, right, bias_row) if x is not None)
        )
        result = target if in_place else (target.copy() if beta != 0 else empty(shape, left.dtype, left))
    native().matmul(
        left,
        right,
        result,
        bias_row,
        name,
        alpha,
        float(beta),
        None,
        bool(transpose_a),
        bool(transpose_b),
        precision,
    )
    if out is None:
        return result
    if result is not target:
        target[...] = result
    return out


def _result_shape(a: Array, b: Array, transpose_a: bool, transpose_b: bool) -> tuple[int, ...]:
    for x, name in ((a, "a"), (b, "b")):
        if x.ndim < 2:
            raise ValueError(
                f"{name} has shape {x.shape}; expected at least two axes: reshape a vector to one row, "
                f"{name}.reshape(1, -1), or one column, {name}.reshape(-1, 1)"
            )
    m, k = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    depth, n = b.shape[:-3:-1] if transpose_b else b.shape[-2:]
    flags = f"transpose_a={transpose_a}, transpose_b={transpose_b}"
    if k != depth:
        raise ValueError(
            f"a has shape {a.shape} and b {b.shape} with {flags}; expected a [..., m, k] and b [..., k, n] "
            f"after transposing, but k is {k} in a and {depth} in b"
        )
    if a.ndim == b.ndim == 2:
        return m, n
    try:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(
            f"a has shape {a.shape} and b {b.shape}; expected leading axes that broadcast: "
            "equal, or 1 in one of them"
        ) from None
    return (*lead, m, n)


def _precision(name: str | None, dtype: np.dtype[np.floating]) -> str:
    """What the kernel is to be told; float64 has but one precision."""
    if name is None or name == dtype.name:
        return "float32"
    if name == "bfloat16" and current() != "cpu":
        raise ValueError(
            f"precision 'bfloat16' is not available on {current()!r}; expected None or 'float32'"
        )
    if name in _OF_FLOAT32 and dtype == np.float32:
        return name
    if name in _ELSEWHERE:
        raise ValueError(f"precision {name!r} is not available on {current()!r}; expected None or 'float32'")
    known = (*_OF_FLOAT32, "float64")
    if name in known:
        raise ValueError(f"precision is {name!r} and the arrays are of {dtype}; convert the arrays")
    raise ValueError(f"unknown precision {name!r}; expected None, {', '.join(map(repr, known))}")
