"""Batch, layer and RMS normalisation over the last axis, and their gradients."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from tilefuse._device import native

from ._activation import NEEDS_INPUT, backward, named
from ._arrays import Array, check_shape, empty, packed_floats, writeable

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
]


def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    moving_mean: ArrayLike | None,
    moving_variance: ArrayLike | None,
    *,
    training: bool = False,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    activation: str | None = None,
    residual: ArrayLike | None = None,
) -> Any:
    """``activation(gamma * (x - mean) / sqrt(variance + epsilon) + beta + residual)``, channel by channel.

    In training, the mean and the (biased) variance are those of each channel in `x`, and the moving ones
    follow them: ``moving = moving * momentum + batch * (1 - momentum)``. Else they are the moving ones.

    Parameters
    ----------
    x : array_like of float32 or float64, [..., c]
        Images as [n, h, w, c], for one. Copied first if it is not contiguous or not aligned to its elements;
        so are all others but the moving ones in training.
    gamma, beta : array_like, dtype of `x`, [c], optional
        None is all ones, and all zeros.
    moving_mean, moving_variance : array_like, dtype of `x`, [c]
        In training they are arrays that are updated in place, or None; no rows in `x` change nothing.
    training : bool
    momentum : float
        What the moving ones keep of themselves, from 0 to 1.
    epsilon : float
        Added to the variance; not negative.
    activation : str, optional
        One of linear, relu, leaky_relu (slope 0.2), elu, selu, sigmoid, tanh, softplus, silu, gelu,
        gelu_tanh.
    residual : array_like, shape and dtype of `x`, optional
        Added before the activation.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        Without `training`, this alone.
    mean, inv_std : ndarray, [c]
        What `x` was normalised with, ``inv_std = 1 / sqrt(variance + epsilon)``, for
        :func:`batch_norm_backward`.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, the dtypes differ, or one to be updated in place is no array.
    ValueError
        The shapes do not fit, a number is out of its range, a name is unknown, an array to be updated is
        read-only or not contiguous, or the moving ones are needed and None.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x, moving_mean, moving_variance = np.array([[1.0], [3.0]]), np.zeros(1), np.ones(1)
    >>> y, mean, inv_std = ops.batch_norm(
    ...     x, None, None, moving_mean, moving_variance, training=True, momentum=0.5, epsilon=0.0
    ... )
    >>> y.ravel(), mean, inv_std, moving_mean
    (array([-1.,  1.]), array([2.]), array([1.]), array([1.]))
    >>> ops.batch_norm(x, None, None, mean, moving_variance, epsilon=0.0).ravel()
    array([-1.,  1.])
    """
    name, alpha = named(activation)
    a = _with_axes(x)
    dtype, channels = a.dtype, a.shape[-1:]
    scale, offset = _parameter(gamma, "gamma", a), _parameter(beta, "beta", a)
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum}; expected a number from 0 to 1")
    eps = _epsilon(epsilon)
    added = None
    if residual is not None:
        added = packed_floats(residual, "residual", dtype, "x")
        check_shape(added, "residual", a.shape, "x")
    moving: list[Array | None] = []
    for given, what in ((moving_mean, "moving_mean"), (moving_variance, "moving_variance")):
        if given is None and not training:
            raise ValueError(f"{what} is None; expected an array [{channels[0]}], or training=True")
        if given is not None and training:
            array = writeable(given, what, dtype)
            check_shape(array, what, channels, "the last axis of x")
            moving.append(array)
        else:
            moving.append(_parameter(given, what, a))
    y = empty(a.shape, dtype, a)
    mean, inv_std = (empty(channels, dtype, a) if training else None for _ in range(2))
    native().batch_norm(
        a, scale, offset, *moving, y, bool(training), float(momentum), eps, name, alpha, added, mean, inv_std
    )
    return (y, mean, inv_std) if training else y


def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None,
    mean: ArrayLike,
    inv_std: ArrayLike,
    y: ArrayLike | None = None,
    *,
    training: bool = True,
    activation: str | None = None,
    z: ArrayLike | None = None,
    residual: bool = False,
) -> tuple[Array, ...]:
    """The gradients of :func:`batch_norm` at `x`, `gamma` and `beta`.

    Parameters
    ----------
    dy : array_like of float32 or float64, [..., c]
        The gradient at the output.
    x : array_like, shape and dtype of `dy`
    gamma : array_like, dtype of `dy`, [c], optional
    mean, inv_std : array_like, dtype of `dy`, [c]
        What `x` was normalised with: as :func:`batch_norm` returned it in training; else `moving_mean` and
        ``1 / sqrt(moving_variance + epsilon)``.
    y : array_like, shape and dtype of `dy`, optional
        The output; not needed where there is no activation, or it needs `z`.
    training : bool
        Whether `mean` and `inv_std` are those of `x`, and change with it.
    activation : str, optional
        As given to :func:`batch_norm`.
    z : array_like, shape and dtype of `dy`, optional
        The output before the activation, which the derivatives of gelu, gelu_tanh and silu need.
    residual : bool
        Whether to return the gradient at the residual, too.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
    dgamma, dbeta : ndarray, [c]
    dresidual : ndarray, shape and dtype of `dy`
        With `residual` only.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, a name is unknown, or what the activation needs is None.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x, dy = np.array([[1.0], [3.0]]), np.array([[1.0], [0.0]])
    >>> dx, dgamma, dbeta = ops.batch_norm_backward(dy, x, None, np.array([2.0]), np.array([1.0]))
    >>> dx.ravel(), dgamma, dbeta
    (array([0., 0.]), array([-1.]), array([1.]))
    """
    name, alpha = named(activation)
    a = _with_axes(x)
    gradient = _like(dy, "dy", a)
    scale = _parameter(gamma, "gamma", a)
    statistics = [_parameter(mean, "mean", a), _parameter(inv_std, "inv_std", a)]
    dz = gradient
    if name != "linear":
        key, at = ("z", z) if name in NEEDS_INPUT else ("y", y)
        if at is None:
            what = "the output before the activation" if key == "z" else "the output of batch_norm"
            raise ValueError(f"the derivative of {name} needs {what}: pass it as {key}")
        dz = backward(name, gradient, _like(at, key, a), alpha)
    dx = empty(a.shape, a.dtype, a)
    dgamma, dbeta = (empty(a.shape[-1:], a.dtype, a) for _ in range(2))
    native().batch_norm_backward(dz, a, scale, *statistics, dx, dgamma, dbeta, bool(training))
    if residual:
        return dx, dgamma, dbeta, dz.copy() if dz is gradient else dz
    return dx, dgamma, dbeta


def layer_norm(
    x: ArrayLike, gamma: ArrayLike | None = None, beta: ArrayLike | None = None, *, epsilon: float = 1e-3
) -> Array:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, row by row.

    A row is along the last axis, and has its own mean and (biased) variance.

    Parameters
    ----------
    x : array_like of float32 or float64, [..., n]
        Copied first if it is not contiguous or not aligned to its elements; so are the others.
    gamma, beta : array_like, dtype of `x`, [n], optional
        None is all ones, and all zeros.
    epsilon : float
        Added to the variance; not negative.

    Returns
    -------
    y : ndarray, shape and dtype of `x`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or `epsilon` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.layer_norm(np.array([[1.0, 3.0], [5.0, 5.0]]), epsilon=0.001).round(2)
    array([[-1.,  1.],
           [ 0.,  0.]])
    """
    return _rows(x, gamma, beta, epsilon, rms=False)


def layer_norm_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike | None = None, *, epsilon: float = 1e-3
) -> tuple[Array, Array, Array]:
    """The gradients of :func:`layer_norm` at `x`, `gamma` and `beta`.

    Parameters
    ----------
    dy : array_like of float32 or float64, [..., n]
        The gradient at the output.
    x : array_like, shape and dtype of `dy`
    gamma : array_like, dtype of `dy`, [n], optional
    epsilon : float
        As given to :func:`layer_norm`.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
    dgamma, dbeta : ndarray, [n]

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or `epsilon` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> dx, dgamma, dbeta = ops.layer_norm_backward([[1.0, 1.0]], [[1.0, 3.0]], epsilon=0.0)
    >>> dx, dgamma, dbeta
    (array([[0., 0.]]), array([-1.,  1.]), array([1., 1.]))
    """
    return _rows_backward(dy, x, gamma, epsilon, rms=False)


def rms_norm(x: ArrayLike, gamma: ArrayLike | None = None, *, epsilon: float = 1e-6) -> Array:
    """``gamma * x / sqrt(mean(x**2) + epsilon)``, row by row (Zhang and Sennrich, 2019).

    Parameters
    ----------
    x : array_like of float32 or float64, [..., n]
        Copied first if it is not contiguous or not aligned to its elements; so is `gamma`.
    gamma : array_like, dtype of `x`, [n], optional
        None is all ones.
    epsilon : float
        Added to the mean square; not negative.

    Returns
    -------
    y : ndarray, shape and dtype of `x`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or `epsilon` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.rms_norm(np.array([[1.0, 7.0]]), epsilon=0.0)
    array([[0.2, 1.4]])
    """
    return _rows(x, gamma, None, epsilon, rms=True)


def rms_norm_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike | None = None, *, epsilon: float = 1e-6
) -> tuple[Array, Array]:
    """The gradients of :func:`rms_norm` at `x` and `gamma`.

    Parameters
    ----------
    dy : array_like of float32 or float64, [..., n]
        The gradient at the output.
    x : array_like, shape and dtype of `dy`
    gamma : array_like, dtype of `dy`, [n], optional
    epsilon : float
        As given to :func:`rms_norm`.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
    dgamma : ndarray, [n]

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or `epsilon` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> dx, dgamma = ops.rms_norm_backward(np.ones((1, 2)), np.ones((1, 2)), epsilon=0.0)
    >>> dx, dgamma
    (array([[0., 0.]]), array([1., 1.]))
    """
    return _rows_backward(dy, x, gamma, epsilon, rms=True)[:2]


def _rows(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, epsilon: float, *, rms: bool
) -> Array:
    a = _with_axes(x)
    y = empty(a.shape, a.dtype, a)
    scale, offset = _parameter(gamma, "gamma", a), _parameter(beta, "beta", a)
    native().layer_norm(a, scale, offset, y, rms, _epsilon(epsilon))
    return y


def _rows_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike | None, epsilon: float, *, rms: bool
) -> tuple[Array, Array, Array]:
    a = _with_axes(x)
    gradient, scale = _like(dy, "dy", a), _parameter(gamma, "gamma", a)
    dx = empty(a.shape, a.dtype, a)
    dgamma, dbeta = (empty(a.shape[-1:], a.dtype, a) for _ in range(2))
    eps = _epsilon(epsilon)
    native().layer_norm_backward(gradient, a, scale, dx, dgamma, None if rms else dbeta, rms, eps)
    return dx, dgamma, dbeta


def _with_axes(x: ArrayLike) -> Array:
    a = packed_floats(x, "x")
    if a.ndim == 0:
        raise ValueError("x has no axes; expected at least one, the last one to normalise: pass x[None]")
    return a


def _like(other: ArrayLike, name: str, x: Array) -> Array:
    a = packed_floats(other, name, x.dtype, "x")
    check_shape(a, name, x.shape, "x")
    return a


def _parameter(p: ArrayLike | None, name: str, x: Array) -> Array | None:
    if p is None:
        return None
    a = packed_floats(p, name, x.dtype, "x")
    check_shape(a, name, x.shape[-1:], "the last axis of x")
    return a


def _epsilon(epsilon: float) -> float:
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon}; expected a number that is not negative")
    return float(epsilon)
