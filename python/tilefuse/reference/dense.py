"""Dense layers: a matrix product over the last axis, a bias, an activation."""

from __future__ import annotations

from ._namespace import Array, get_array_module
from .activations import activate, activate_backward


def dense(x: Array, w: Array, b: Array | None = None, activation: str | None = None) -> Array:
    """``activation(x @ w + b)``.

    Parameters
    ----------
    x : array [..., k]
    w : array [k, n]
    b : array [n], optional
    activation : str, optional

    Returns
    -------
    y : array [..., n]
    """
    z = get_array_module(x, w).matmul(x, w)
    return activate(z if b is None else z + b, activation)


def dense_backward(
    dy: Array, x: Array, w: Array, y: Array, activation: str | None = None, *, z: Array | None = None
) -> tuple[Array, Array, Array]:
    """The gradients of :func:`dense` at `x`, `w` and `b`.

    Parameters
    ----------
    dy, y : array [..., n]
        The gradient at the output, and the output.
    z : array [..., n], optional
        ``x @ w + b``, for the activations whose derivative needs it: gelu, gelu_tanh, silu.

    Returns
    -------
    dx : array [..., k]
    dw : array [k, n]
    db : array [n]

    Raises
    ------
    ValueError
        If `z` is needed and missing, or the activation unknown.
    """
    xp = get_array_module(dy, x, w)
    dz = activate_backward(dy, y, activation, x=z)
    rows = tuple(range(dz.ndim - 1))
    dx = xp.matmul(dz, w.T)
    dw = xp.tensordot(x, dz, axes=(rows, rows))
    db = dz.sum(axis=rows)
    return dx, dw, db
