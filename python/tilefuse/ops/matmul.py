"""Matrix products with an epilogue."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tilefuse._device import current, native

from ._activation import named
from ._arrays import Array, empty, floats, packed, view, whole, writeable_view
from ._precision import checked

__all__ = ["matmul"]

_STORED = ("bfloat16", "float16")  # dtypes in which float32 numbers may lie in memory


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
    a : array_like of float32 or float64, or array of bfloat16 or float16, [..., m, k]
        ``[..., k, m]`` with `transpose_a`. Any strides; copied only if it is not aligned to its elements.
        Arrays of bfloat16 (``ml_dtypes.bfloat16``, ``torch.bfloat16``, ...) or, on CUDA devices, float16 are
        multiplied as they are; sums, and what is done with them, are float32.
    b : array_like, dtype of `a`, [..., k, n]
        ``[..., n, k]`` with `transpose_b`. Likewise.
    bias : array_like, dtype of `a`, [n], optional
        Or of float32, where `a` has 16 bits.
    activation : str, optional
        One of linear, relu, leaky_relu (slope 0.2), elu, selu, sigmoid, tanh, softplus, silu, gelu,
        gelu_tanh.
    transpose_a, transpose_b : bool
        Whether to swap the last two axes first. Costs no copy.
    out : array of the dtype of `a`, [..., m, n], optional
        Takes the result; may be of float32, where `a` has 16 bits. If its last axis is not contiguous, or if
        it overlaps an input, the product is computed in memory of its own and copied.
    precision : str, optional
        How arrays of float32 are multiplied. "float32", the default, is as exact as multiply-adds in float32,
        by which "ieee" goes; it may use matrix units (AMX of the CPU, tensor cores), with operands split into
        three parts. "bfloat16" rounds the operands to 8 bits and adds up in float32. On CUDA devices (of
        compute capability 8.0 on) so does "tf32", to 11 bits, and "float16", to 11 bits and numbers below
        65520; "split" splits operands even where multiply-adds are thought to be faster. Arrays of other
        dtypes are multiplied in their own alone.
    beta : float
        What the old values of `out` are multiplied by; 0 never reads them.

    Returns
    -------
    c : ndarray, [..., m, n], dtype of `a`
        `out` itself where given.

    Raises
    ------
    TypeError
        An array has another dtype, or the dtypes differ.
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
    left = _operand(a, "a")
    right = _operand(b, "b", left.dtype)
    dtype = left.dtype
    precision = checked(precision, dtype)
    name, alpha = named(activation)
    shape = _result_shape(left, right, transpose_a, transpose_b)
    bias_row = None
    if bias is not None:
        bias_row = packed(_bias(bias, dtype))
        if bias_row.shape != shape[-1:]:
            raise ValueError(f"bias has shape {bias_row.shape}; expected {shape[-1:]}, one for each column")
    if out is None:
        if beta != 0:
            raise ValueError(f"beta is {beta} and out is None; pass the array that beta multiplies as out")
        result = empty(shape, dtype, left)
    else:
        widens = dtype.name in _STORED and view(out, "out").dtype == np.float32
        target = writeable_view(out, "out", np.dtype(np.float32) if widens else dtype, "a")
        if target.shape != shape:
            raise ValueError(f"out has shape {target.shape}; expected {shape}, the shape of the product")
        in_place = (
            (shape[-1] <= 1 or target.strides[-1] == target.itemsize)
            and whole(target) is target
            and not any(np.may_share_memory(target, x) for x in (left, right, bias_row) if x is not None)
        )
        result = target if in_place else (target.copy() if beta != 0 else empty(shape, target.dtype, left))
    native().matmul(
        _bits(left),
        _bits(right),
        _bits(result),
        bias_row,
        name,
        alpha,
        float(beta),
        None,
        bool(transpose_a),
        bool(transpose_b),
        precision,
        dtype.name,
        result.dtype.name,
    )
    if out is None:
        return result
    if result is not target:
        target[...] = result
    return out


def _operand(x: ArrayLike, name: str, dtype: np.dtype[Any] | None = None) -> Array:
    array = view(x, name)
    if dtype is None and array.dtype.name in _STORED:
        if array.dtype.name == "float16" and current() == "cpu":
            raise TypeError(
                f"{name} has dtype float16, which CUDA devices alone multiply: "
                "convert it with .astype(numpy.float32)"
            )
        dtype = array.dtype
    return whole(floats(array, name, dtype, "a"))


def _bias(x: ArrayLike, dtype: np.dtype[Any]) -> Array:
    array = view(x, "bias")
    if dtype.name in _STORED and array.dtype in (dtype, np.float32):
        return array.astype(np.float32, copy=False)
    return floats(array, "bias", dtype, "a")


def _bits(x: Array) -> Array:
    """`x` as the kernels take it, which know no dtypes of 16 bits."""
    return x.view(np.uint16) if x.dtype.name in _STORED else x


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
