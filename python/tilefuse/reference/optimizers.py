"""Optimizer updates and gradient clipping, in place over lists of arrays, with the numerics of Keras 3.

`params`, `grads` and every list of slots have one array of the same shape for each parameter. `weight_decay`
is decoupled from the gradient: ``w -= learning_rate * weight_decay * w``, before the update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ._namespace import Array, get_array_module

Arrays = Sequence[Array]


def sgd_step(
    params: Arrays, grads: Arrays, *, learning_rate: float = 0.01, weight_decay: float = 0.0
) -> None:
    """``w -= learning_rate * g``."""
    for w, g in zip(params, grads, strict=True):
        _decay(w, learning_rate, weight_decay)
        w -= learning_rate * g


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
    """``v = momentum * v - learning_rate * g``; ``w += v``.

    With `nesterov`, ``w += momentum * v - learning_rate * g``.
    """
    for w, g, v in zip(params, grads, velocities, strict=True):
        _decay(w, learning_rate, weight_decay)
        v[...] = momentum * v - learning_rate * g
        w += momentum * v - learning_rate * g if nesterov else v


def adagrad_step(
    params: Arrays,
    grads: Arrays,
    accumulators: Arrays,
    *,
    learning_rate: float = 0.001,
    epsilon: float = 1e-7,
    weight_decay: float = 0.0,
) -> None:
    """``a += g * g``; ``w -= learning_rate * g / sqrt(a + epsilon)``."""
    for w, g, a in zip(params, grads, accumulators, strict=True):
        xp = get_array_module(w)
        _decay(w, learning_rate, weight_decay)
        a += g * g
        w -= learning_rate * g / xp.sqrt(a + epsilon)


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
    """``s = rho * s + (1 - rho) * g * g``; ``w -= learning_rate * g / sqrt(s + epsilon)``.

    With `mean_gradients` the step is centered: the gradient's moving average, squared, is taken from ``s``.
    With `momentum`, `velocities` collect the increments.
    """
    none = [None] * len(params)
    slots = zip(params, grads, mean_squares, velocities or none, mean_gradients or none, strict=True)
    for w, g, s, v, m in slots:
        xp = get_array_module(w)
        _decay(w, learning_rate, weight_decay)
        s[...] = rho * s + (1 - rho) * g * g
        variance = s
        if m is not None:
            m[...] = rho * m + (1 - rho) * g
            variance = s - m * m
        increment = learning_rate * g / xp.sqrt(variance + epsilon)
        if momentum > 0:
            if v is None:
                raise ValueError("momentum > 0 needs velocities: one array for each parameter")
            v[...] = momentum * v + increment
            increment = v
        w -= increment


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
    """Adam (Kingma and Ba, 2015); with `v_hat`, AMSGrad. `step` is 1 for the first update."""
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    alpha = learning_rate * math.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    for w, g, m_w, v_w, hat in zip(params, grads, m, v, v_hat or [None] * len(params), strict=True):
        xp = get_array_module(w)
        _decay(w, learning_rate, weight_decay)
        m_w += (g - m_w) * (1 - beta_1)
        v_w += (g * g - v_w) * (1 - beta_2)
        if hat is not None:
            hat[...] = xp.maximum(hat, v_w)
        w -= alpha * m_w / (xp.sqrt(v_w if hat is None else hat) + epsilon)


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
    """:func:`adam_step` with weight decay."""
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
    """Limits each element to ``[-limit, limit]``."""
    for g in grads:
        get_array_module(g).clip(g, -limit, limit, out=g)


def clip_by_norm(grads: Arrays, limit: float) -> None:
    """Scales each array whose L2 norm is above `limit` down to it."""
    for g in grads:
        g *= _scale(_norm([g]), limit)


def clip_by_global_norm(grads: Arrays, limit: float) -> float:
    """Scales all arrays alike if the L2 norm of all their elements is above `limit`; returns that norm."""
    norm = _norm(grads)
    for g in grads:
        g *= _scale(norm, limit)
    return norm


def _decay(w: Array, learning_rate: float, weight_decay: float) -> None:
    if weight_decay:
        w -= learning_rate * weight_decay * w


def _norm(grads: Arrays) -> float:
    return math.sqrt(sum(float((g.astype("float64") ** 2).sum()) for g in grads))


def _scale(norm: float, limit: float) -> float:
    return 1.0 if norm <= limit else limit / norm
