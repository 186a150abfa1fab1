"""Softmax and log-softmax along one axis."""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike

from tilefuse._device import native

from ._arrays import Array, empty, floats, packed, pair

__all__ = ["log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]


def softmax(x: ArrayLike, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along one axis, without overflow.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape with at least one axis
        Copied first if it is not contiguous or `axis` is not the last.
    axis : int
        The axis whose elements are to add up to 1.

    Returns
    -------
    y : ndarray, shape and dtype of `x`

    Raises
    ------
    TypeError
        `x` is not of float32 or float64.
    ValueError
        `x` has no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.softmax(np.log(np.array([[1.0, 1.0, 2.0]])))
    array([[0.25, 0.25, 0.5 ]])
    """
    return _forward(x, axis, log=False)


def softmax_backward(dy: ArrayLike, y: ArrayLike, axis: int = -1) -> Array:
    """The gradient of :func:`softmax`: ``y * (dy - sum(dy * y))``.

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape with at least one axis
        The gradient at the output. Copied first if it is not contiguous or `axis` is not the last.
    y : array_like, shape and dtype of `dy`
        The output of :func:`softmax`.
    axis : int
        The axis that was normalised.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient at the input.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the two dtypes differ.
    ValueError
        The shapes differ, or there is no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.softmax_backward(np.array([1.0, 0.0]), np.array([0.75, 0.25]))
    array([ 0.1875, -0.1875])
    """
    return _backward(dy, y, axis, log=False)


def log_softmax(x: ArrayLike, axis: int = -1) -> Array:
    """``log(softmax(x))`` along one axis, exact where softmax itself would be 0.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape with at least one axis
        Copied first if it is not contiguous or `axis` is not the last.
    axis : int
        The axis whose elements' exponentials are to add up to 1.

    Returns
    -------
    y : ndarray, shape and dtype of `x`

    Raises
    ------
    TypeError
        `x` is not of float32 or float64.
    ValueError
        `x` has no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.log_softmax(np.array([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    return _forward(x, axis, log=True)


def log_softmax_backward(dy: ArrayLike, y: ArrayLike, axis: int = -1) -> Array:
    """The gradient of :func:`log_softmax`: ``dy - exp(y) * sum(dy)``.

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape with at least one axis
        The gradient at the output. Copied first if it is not contiguous or `axis` is not the last.
    y : array_like, shape and dtype of `dy`
        The output of :func:`log_softmax`.
    axis : int
        The axis that was normalised.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient at the input.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the two dtypes differ.
    ValueError
        The shapes differ, or there is no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.log_softmax_backward(np.array([1.0, 0.0]), np.log(np.array([0.75, 0.25])))
    array([ 0.25, -0.25])
    """
    return _backward(dy, y, axis, log=True)


def _forward(x: ArrayLike, axis: int, *, log: bool) -> Array:
    a = floats(x, "x")
    axis = _axis(a, axis)
    rows = packed(np.moveaxis(a, axis, -1))
    y = empty(rows.shape, rows.dtype, rows)
    native().softmax(rows, y, log)
    return packed(np.moveaxis(y, -1, axis))


def _backward(dy: ArrayLike, y: ArrayLike, axis: int, *, log: bool) -> Array:
    gradient, output = pair(dy, y, "y")
    axis = _axis(gradient, axis)
    rows = packed(np.moveaxis(gradient, axis, -1))
    dx = empty(rows.shape, rows.dtype, rows)
    native().softmax_backward(rows, packed(np.moveaxis(output, axis, -1)), dx, log)
    return packed(np.moveaxis(dx, -1, axis))


def _axis(a: Array, axis: int) -> int:
    """The axis, counted from 0."""
    number = operator.index(axis)
    if not -a.ndim <= number < a.ndim:
        expected = f"from {-a.ndim} to {a.ndim - 1}" if a.ndim else "an array with at least one axis"
        raise ValueError(f"axis is {number}, and the array has shape {a.shape}; expected {expected}")
    return number % a.ndim
