"""Optimizer updates and gradient clipping, in place over lists of arrays, with the numerics of Keras 3.

All arrays of a call have one dtype. Parameters and slots must be contiguous and writeable; gradients that are
not contiguous are copied first. `weight_decay` is decoupled from the gradient: ``w -= learning_rate *
weight_decay * w`` before the update.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tilefuse._device import native

from ._arrays import Array, Arrays, packed_list, writeable_list

__all__ = [
    "adagrad_step",
    "adam_step",
    "adamw_step",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "momentum_step",
    "rmsprop_step",
    "sgd_step",
]


def sgd_step(
    params: Arrays, grads: Arrays, *, learning_rate: float = 0.01, weight_decay: float = 0.0
) -> None:
    """Gradient descent: ``w -= learning_rate * g``, in place.

    Parameters
    ----------
    params : list of arrays of float32 or float64, any shapes
        Updated in place.
    grads : list of arrays, shapes and dtype of `params`
    learning_rate, weight_decay : float

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The lengths or shapes differ, or a parameter is read-only or not contiguous.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> w = np.array([1.0, -2.0])
    >>> ops.sgd_step([w], [np.array([-2.0, 2.0])], learning_rate=0.1)
    >>> w
    array([ 1.2, -2.2])
    """
    _step({"kind": "sgd", "learning_rate": learning_rate, "weight_decay": weight_decay}, params, grads, {})


def momentum_step(
    params: Arrays,
    grads: Arrays,
    velocities: Arrays,
    *,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:
    """Gradient descent with momentum: ``v = momentum * v - learning_rate * g``, ``w += v``, in place.

    Parameters
    ----------
    params : list of arrays of float32 or float64, any shapes
        Updated in place.
    grads : list of arrays, shapes and dtype of `params`
    velocities : list of arrays, shapes and dtype of `params`
        Zeros at first; updated in place (but not where `momentum` is 0).
    learning_rate, weight_decay : float
    momentum : float
        In [0, 1].
    nesterov : bool
        Whether to look ahead: ``w += momentum * v - learning_rate * g``.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The lengths or shapes differ, an array to be updated is read-only or not contiguous, or `momentum` is
        out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> w, v = np.array([1.0]), np.array([0.5])
    >>> ops.momentum_step([w], [np.array([1.0])], [v], learning_rate=0.25, momentum=0.5)
    >>> w, v
    (array([1.]), array([0.]))
    """
    _check_momentum(momentum)
    rule = {
        "kind": "sgd",
        "learning_rate": learning_rate,
        "momentum": momentum,
        "nesterov": bool(nesterov),
        "weight_decay": weight_decay,
    }
    _step(rule, params, grads, {"velocities": velocities} if momentum > 0 else {})


def adagrad_step(
    params: Arrays,
    grads: Arrays,
    accumulators: Arrays,
    *,
    learning_rate: float = 0.001,
    epsilon: float = 1e-7,
    weight_decay: float = 0.0,
) -> None:
    """AdaGrad: ``a += g * g``, ``w -= learning_rate * g / sqrt(a + epsilon)``, in place.

    Parameters
    ----------
    params : list of arrays of float32 or float64, any shapes
        Updated in place.
    grads : list of arrays, shapes and dtype of `params`
    accumulators : list of arrays, shapes and dtype of `params`
        Filled with 0.1 at first in Keras; updated in place.
    learning_rate, epsilon, weight_decay : float

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The lengths or shapes differ, or an array to be updated is read-only or not contiguous.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> w, a = np.array([1.0]), np.array([12.0])
    >>> ops.adagrad_step([w], [np.array([2.0])], [a], learning_rate=1.0, epsilon=0.0)
    >>> w, a
    (array([0.5]), array([16.]))
    """
    rule = {
        "kind": "adagrad",
        "learning_rate": learning_rate,
        "epsilon": epsilon,
        "weight_decay": weight_decay,
    }
    _step(rule, params, grads, {"accumulators": accumulators})


def rmsprop_step(
    params: Arrays,
    grads: Arrays,
    mean_squares: Arrays,
    velocities: Arrays | None = None,
    mean_gradients: Arrays | None = None,
    *,
    learning_rate: float = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    weight_decay: float = 0.0,
) -> None:
    """RMSProp: ``s = rho * s + (1 - rho) * g * g``, ``w -= learning_rate * g / sqrt(s + epsilon)``, in place.

    Parameters
    ----------
    params : list of arrays of float32 or float64, any shapes
        Updated in place.
    grads : list of arrays, shapes and dtype of `params`
    mean_squares : list of arrays, shapes and dtype of `params`
        ``s``: zeros at first; updated in place.
    velocities : list of arrays, shapes and dtype of `params`, optional
        Needed, and updated, only with `momentum`: ``v = momentum * v + increment``, ``w -= v``.
    mean_gradients : list of arrays, shapes and dtype of `params`, optional
        Makes the step centered: the gradient's moving average, squared, is taken from ``s``. Updated in
        place.
    learning_rate, rho, epsilon, weight_decay : float
    momentum : float
        In [0, 1].

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The lengths or shapes differ, an array to be updated is read-only or not contiguous, `momentum` is out
        of range, or it is not 0 and there are no `velocities`.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> w, s = np.array([1.0]), np.array([0.0])
    >>> ops.rmsprop_step([w], [np.array([2.0])], [s], learning_rate=0.5, rho=0.75, epsilon=0.0)
    >>> w, s
    (array([0.]), array([1.]))
    """
    _check_momentum(momentum)
    slots = {"mean_squares": mean_squares}
    if momentum > 0:
        if velocities is None:
            raise ValueError(
                f"momentum is {momentum} and velocities is None; pass one array for each parameter"
            )
        slots["velocities"] = velocities
    if mean_gradients is not None:
        slots["mean_gradients"] = mean_gradients
    rule = {
        "kind": "rmsprop",
        "learning_rate": learning_rate,
        "rho": rho,
        "momentum": momentum,
        "centered": mean_gradients is not None,
        "epsilon": epsilon,
        "weight_decay": weight_decay,
    }
    _step(rule, params, grads, slots)


def adam_step(
    params: Arrays,
    grads: Arrays,
    m: Arrays,
    v: Arrays,
    v_hat: Arrays | None = None,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    weight_decay: float = 0.0,
) -> None:
    """Adam, in place; with `v_hat`, AMSGrad.

    ``m += (g - m) * (1 - beta_1)``, ``v += (g * g - v) * (1 - beta_2)``, ``w -= alpha * m / (sqrt(v) +
    epsilon)`` with ``alpha = learning_rate * sqrt(1 - beta_2**step) / (1 - beta_1**step)``. Kingma and Ba,
    "Adam", 2015.

    Parameters
    ----------
    params : list of arrays of float32 or float64, any shapes
        Updated in place.
    grads : list of arrays, shapes and dtype of `params`
    m, v : lists of arrays, shapes and dtype of `params`
        Zeros at first; updated in place.
    v_hat : list of arrays, shapes and dtype of `params`, optional
        The largest `v` so far, used in its place: zeros at first; updated in place.
    step : int
        1 for the first update.
    learning_rate, beta_1, beta_2, epsilon, weight_decay : float

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The lengths or shapes differ, an array to be updated is read-only or not contiguous, or `step` is
        below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> w, m, v = np.array([1.0]), np.array([0.0]), np.array([0.0])
    >>> ops.adam_step([w], [np.array([3.0])], [m], [v], step=1, learning_rate=0.5)
    >>> w.round(4), m.round(4), v.round(4)
    (array([0.5]), array([0.3]), array([0.009]))
    """
    number = operator.index(step)
    if number < 1:
        raise ValueError(f"step is {number}; expected at least 1, which is the first update")
    slots = {"m": m, "v": v}
    if v_hat is not None:
        slots["v_hat"] = v_hat
    rule = {
        "kind": "adam",
        "step": number,
        "learning_rate": learning_rate,
        "beta_1": beta_1,
        "beta_2": beta_2,
        "epsilon": epsilon,
        "amsgrad": v_hat is not None,
        "weight_decay": weight_decay,
    }
    _step(rule, params, grads, slots)


def adamw_step(
    params: Arrays,
    grads: Arrays,
    m: Arrays,
    v: Arrays,
    v_hat: Arrays | None = None,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    weight_decay: float = 0.004,
) -> None:
    """:func:`adam_step` with weight decay, in place.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.

    Parameters
    ----------
    params, grads, m, v, v_hat, step, learning_rate, beta_1, beta_2, epsilon
        As for :func:`adam_step`.
    weight_decay : float
        ``w -= learning_rate * weight_decay * w`` before the update.

    Raises
    ------
    TypeError, ValueError
        As for :func:`adam_step`.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> w, m, v = np.array([1.0]), np.array([0.0]), np.array([0.0])
    >>> ops.adamw_step([w], [np.array([0.0])], [m], [v], step=1, learning_rate=0.5, weight_decay=0.5)
    >>> w
    array([0.75])
    """
    adam_step(
        params,
        grads,
        m,
        v,
        v_hat,
        step=step,
        learning_rate=learning_rate,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=epsilon,
        weight_decay=weight_decay,
    )


def clip_by_value(grads: Arrays, limit: float) -> None:
    """Limits each element to ``[-limit, limit]``, in place.

    Parameters
    ----------
    grads : list of arrays of float32 or float64, any shapes
    limit : float
        Above 0.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        `limit` is not above 0, or an array is read-only or not contiguous.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> g = np.array([3.0, -0.5])
    >>> ops.clip_by_value([g], 1.0)
    >>> g
    array([ 1. , -0.5])
    """
    for g in _clippable(grads, limit):
        np.clip(g, -limit, limit, out=g)


def clip_by_norm(grads: Arrays, limit: float) -> None:
    """Scales each array whose L2 norm is above `limit` down to it, in place.

    Parameters
    ----------
    grads : list of arrays of float32 or float64, any shapes
    limit : float
        Above 0.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        `limit` is not above 0, or an array is read-only or not contiguous.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> g = np.array([3.0, 4.0])
    >>> ops.clip_by_norm([g], 2.5)
    >>> g
    array([1.5, 2. ])
    """
    _clip_norm(grads, limit, global_norm=False)


def clip_by_global_norm(grads: Arrays, limit: float) -> float:
    """Scales all arrays alike if the L2 norm of all their elements is above `limit`, in place.

    Parameters
    ----------
    grads : list of arrays of float32 or float64, any shapes
    limit : float
        Above 0.

    Returns
    -------
    norm : float
        The norm before clipping.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        `limit` is not above 0, or an array is read-only or not contiguous.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> g, h = np.array([3.0]), np.array([4.0])
    >>> ops.clip_by_global_norm([g, h], 2.5)
    5.0
    >>> g, h
    (array([1.5]), array([2.]))
    """
    norms = _clip_norm(grads, limit, global_norm=True)
    return norms[0] if norms else 0.0


def _step(rule: dict[str, Any], params: Arrays, grads: Arrays, slots: dict[str, Arrays]) -> None:
    """One update; `slots` in the order in which the rule takes them."""
    weights = writeable_list(params, "params")
    gradients = packed_list(grads, "grads", weights)
    columns = [writeable_list(arrays, name, weights) for name, arrays in slots.items()]
    by_parameter = [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in weights]
    native().optimizer_step(rule, weights, gradients, by_parameter)


def _clippable(grads: Arrays, limit: float) -> list[Array]:
    if not limit > 0:
        raise ValueError(f"limit is {limit}; expected a number above 0")
    return writeable_list(grads, "grads")


def _clip_norm(grads: Arrays, limit: float, *, global_norm: bool) -> list[float]:
    """Scales in place; the norms before that."""
    arrays = _clippable(grads, limit)
    scales, norms = native().clip_norm(arrays, float(limit), global_norm)
    for g, scale in zip(arrays, scales, strict=True):
        if scale != 1:
            np.multiply(g, g.dtype.type(scale), out=g)
    return norms


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum}; expected a number in [0, 1]")
