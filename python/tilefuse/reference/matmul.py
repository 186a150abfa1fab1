"""Matrix products with an epilogue."""

from __future__ import annotations

from ._namespace import Array, get_array_module
from .activations import activate


def matmul(
    a: Array,
    b: Array,
    *,
    bias: Array | None = None,
    activation: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
    out: Array | None = None,
    precision: str | None = None,
    beta: float = 0.0,
) -> Array:
    """``activation(a @ b + beta * out + bias)`` over the last two axes; the leading ones broadcast.

    Parameters
    ----------
    a : array [..., m, k]
        ``[..., k, m]`` with `transpose_a`.
    b : array [..., k, n]
        ``[..., n, k]`` with `transpose_b`.
    bias : array [n], optional
    activation : str, optional
    out : array [..., m, n], optional
        Takes the result; its old values count only if `beta` is not zero.
    precision : str, optional
        Not used: the reference computes in the dtype of its arguments.

    Raises
    ------
    ValueError
        If `beta` is not zero and there is no `out`, or the activation is unknown.
    """
    xp = get_array_module(a, b)
    a = xp.swapaxes(a, -1, -2) if transpose_a else a
    b = xp.swapaxes(b, -1, -2) if transpose_b else b
    c = xp.matmul(a, b)
    if beta != 0:
        if out is None:
            raise ValueError(f"beta = {beta} needs out, the array that it multiplies")
        c = c + beta * out
    if bias is not None:
        c = c + bias
    c = activate(c, activation)
    if out is None:
        return c
    out[...] = c
    return out
