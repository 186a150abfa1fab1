"""Batch, layer and RMS normalisation over the last axis, and their gradients."""

from __future__ import annotations

from ._namespace import Array, get_array_module
from .activations import activate, activate_backward


def batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    moving_mean: Array | None,
    moving_variance: Array | None,
    *,
    training: bool = False,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    activation: str | None = None,
    residual: Array | None = None,
) -> Array | tuple[Array, Array, Array]:
    """``activation(gamma * (x - mean) / sqrt(variance + epsilon) + beta + residual)``, channel by channel.

    Parameters
    ----------
    x, residual : array [..., c]
    gamma, beta : array [c], optional
    moving_mean, moving_variance : array [c]
        Used, or with `training` updated in place; those may be None.
    training, momentum, epsilon, activation
        As for :func:`tilefuse.ops.batch_norm`.

    Returns
    -------
    y : array [..., c]
    mean, inv_std : array [c]
        With `training` only.
    """
    xp = get_array_module(x)
    axes = tuple(range(x.ndim - 1))
    mean: Array = moving_mean
    variance: Array = moving_variance
    if training:
        some = x.size > 0
        mean = x.mean(axis=axes) if some else xp.zeros(x.shape[-1:], x.dtype)
        variance = ((x - mean) ** 2).mean(axis=axes) if some else xp.zeros(x.shape[-1:], x.dtype)
        for moving, batch in ((moving_mean, mean), (moving_variance, variance)):
            if moving is not None and some:
                moving[...] = moving * momentum + batch * (1 - momentum)
    inv_std = 1 / xp.sqrt(variance + epsilon)
    y = _scaled((x - mean) * inv_std, gamma, beta)
    y = activate(y if residual is None else y + residual, activation)
    return (y, mean, inv_std) if training else y


def batch_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    inv_std: Array,
    y: Array | None = None,
    *,
    training: bool = True,
    activation: str | None = None,
    z: Array | None = None,
    residual: bool = False,
) -> tuple[Array, ...]:
    """The gradients of :func:`batch_norm` at `x`, `gamma` and `beta`.

    Parameters
    ----------
    dy, y : array [..., c]
        The gradient at the output, and the output.
    mean, inv_std : array [c]
        What `x` was normalised with; with `training` it depends on `x`.
    z : array [..., c], optional
        The output before the activation, for gelu, gelu_tanh and silu.
    residual : bool
        Whether the gradient at the residual is wanted too.

    Returns
    -------
    dx : array [..., c]
    dgamma, dbeta : array [c]
    dresidual : array [..., c]
    """
    axes = tuple(range(x.ndim - 1))
    dz = dy if y is None and z is None else activate_backward(dy, y, activation, x=z)
    normalised = (x - mean) * inv_std
    dgamma, dbeta = (dz * normalised).sum(axis=axes), dz.sum(axis=axes)
    dx = _scaled(dz * inv_std, gamma)
    if training and x.size > 0:
        rows = x.size // x.shape[-1]
        dx = dx - _scaled((dbeta + normalised * dgamma) * inv_std / rows, gamma)
    return (dx, dgamma, dbeta, dz) if residual else (dx, dgamma, dbeta)


def layer_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, *, epsilon: float = 1e-3
) -> Array:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, each row with its own mean and variance.

    Parameters
    ----------
    x : array [..., n]
    gamma, beta : array [n], optional
    epsilon : float
    """
    normalised, _ = _normalised(x, epsilon, centred=True)
    return _scaled(normalised, gamma, beta)


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array | None = None, *, epsilon: float = 1e-3
) -> tuple[Array, Array, Array]:
    """The gradients of :func:`layer_norm` at `x`, `gamma` and `beta`."""
    return _backward(dy, x, gamma, epsilon, centred=True)


def rms_norm(x: Array, gamma: Array | None = None, *, epsilon: float = 1e-6) -> Array:
    """``gamma * x / sqrt(mean(x**2) + epsilon)``, each row with its own mean (Zhang and Sennrich, 2019)."""
    normalised, _ = _normalised(x, epsilon, centred=False)
    return _scaled(normalised, gamma)


def rms_norm_backward(
    dy: Array, x: Array, gamma: Array | None = None, *, epsilon: float = 1e-6
) -> tuple[Array, Array]:
    """The gradients of :func:`rms_norm` at `x` and `gamma`."""
    return _backward(dy, x, gamma, epsilon, centred=False)[:2]


def _scaled(x: Array, gamma: Array | None, beta: Array | None = None) -> Array:
    x = x if gamma is None else x * gamma
    return x if beta is None else x + beta


def _normalised(x: Array, epsilon: float, *, centred: bool) -> tuple[Array, Array]:
    """Return the rows with mean 0 (if `centred`) and mean square 1, and what they were multiplied by."""
    xp = get_array_module(x)
    n = max(x.shape[-1], 1)
    distance = x - x.sum(axis=-1, keepdims=True) / n if centred else x
    inv_std = 1 / xp.sqrt((distance**2).sum(axis=-1, keepdims=True) / n + epsilon)
    return distance * inv_std, inv_std


def _backward(
    dy: Array, x: Array, gamma: Array | None, epsilon: float, *, centred: bool
) -> tuple[Array, Array, Array]:
    normalised, inv_std = _normalised(x, epsilon, centred=centred)
    axes, n = tuple(range(x.ndim - 1)), max(x.shape[-1], 1)
    g = _scaled(dy, gamma)
    dx = g - normalised * (g * normalised).sum(axis=-1, keepdims=True) / n
    if centred:
        dx = dx - g.sum(axis=-1, keepdims=True) / n
    return dx * inv_std, (dy * normalised).sum(axis=axes), dy.sum(axis=axes)
