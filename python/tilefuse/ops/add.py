"""Sums of two arrays with an activation: where the branches of a network meet."""

from __future__ import annotations

from numpy.typing import ArrayLike

from tilefuse._device import native

from ._activation import named
from ._arrays import Array, check_shape, empty, packed_floats

__all__ = ["add"]


def add(a: ArrayLike, b: ArrayLike, activation: str | None = None) -> Array:
    """``activation(a + b)``, in one pass.

    Parameters
    ----------
    a : array_like of float32 or float64, any shape
        Copied first if it is not contiguous; so is `b`.
    b : array_like, shape and dtype of `a`
    activation : str, optional
        One of linear, relu, leaky_relu (slope 0.2), elu, selu, sigmoid, tanh, softplus, silu, gelu,
        gelu_tanh.

    Returns
    -------
    y : ndarray, shape and dtype of `a`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes differ, or the activation is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.add(np.array([1.0, -2.0]), np.array([3.0, 1.0]), "relu")
    array([4., 0.])
    """
    name, alpha = named(activation)
    one = packed_floats(a, "a")
    other = packed_floats(b, "b", one.dtype, "a")
    check_shape(other, "b", one.shape, "a")
    y = empty(one.shape, one.dtype, one)
    native().add(one, other, y, name, alpha)
    return y
