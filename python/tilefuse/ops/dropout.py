"""Dropout. The mask is a function of seed, step and each element's index, whatever the threads."""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike

from tilefuse._device import native

from ._arrays import Array, check_shape, empty, packed, packed_floats, view

__all__ = ["dropout", "dropout_backward"]


def dropout(x: ArrayLike, rate: float, *, seed: int = 0, step: int = 0) -> tuple[Array, Array]:
    """Zeroes each element with probability `rate` and scales the others by ``1 / (1 - rate)``.

    The mask comes from the counter-based generator Philox4x32-10.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape
        Copied first if it is not contiguous.
    rate : float
        In [0, 1).
    seed, step : int
        In [0, 2**64). Equal ones give equal masks; count `step` up for a new mask.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
    mask : ndarray of bool, shape of `x`
        True where the element was kept.

    Raises
    ------
    TypeError
        `x` is not of float32 or float64.
    ValueError
        `rate`, `seed` or `step` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> y, mask = ops.dropout(np.ones(8, np.float32), 0.5, seed=1)
    >>> bool((y == 2 * mask).all())
    True
    """
    a = packed_floats(x, "x")
    _check_rate(rate)
    mask = empty(a.shape, np.dtype(np.bool_), a)
    native().dropout_mask(mask, float(rate), _unsigned(seed, "seed"), _unsigned(step, "step"))
    y = empty(a.shape, a.dtype, a)
    native().dropout(a, mask, y, float(rate))
    return y, mask


def dropout_backward(dy: ArrayLike, mask: ArrayLike, rate: float) -> Array:
    """The gradient of :func:`dropout`: ``dy / (1 - rate)`` where `mask` is true, else 0.

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the output. Copied first if it is not contiguous.
    mask : array_like of bool, shape of `dy`
        As :func:`dropout` returned it.
    rate : float
        As given to :func:`dropout`.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient at the input.

    Raises
    ------
    TypeError
        `dy` is not of float32 or float64, or `mask` not of bool.
    ValueError
        The shapes differ, or `rate` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.dropout_backward(np.array([1.0, 1.0]), np.array([True, False]), 0.5)
    array([2., 0.])
    """
    gradient = packed_floats(dy, "dy")
    _check_rate(rate)
    kept = view(mask, "mask")
    if kept.dtype != np.bool_:
        raise TypeError(f"mask has dtype {kept.dtype}; expected bool")
    check_shape(kept, "mask", gradient.shape, "dy")
    dx = empty(gradient.shape, gradient.dtype, gradient)
    native().dropout(gradient, packed(kept), dx, float(rate))
    return dx


def _check_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}; expected a number in [0, 1)")


def _unsigned(number: int, name: str) -> int:
    value = operator.index(number)
    if not 0 <= value < 2**64:
        raise ValueError(f"{name} is {value}; expected an integer in [0, 2**64)")
    return value
