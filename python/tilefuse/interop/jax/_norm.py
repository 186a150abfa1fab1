"""Batch, layer and RMS normalisation over the last axis."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tilefuse.ops._activation import NEEDS_INPUT, named

from ._elementwise import Static, derivative
from ._launch import Array, Shape, activation_fields, by_rows, check_shape, floats, launch, like, over_rows

# --- by rows ---


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _layer_norm(x: Array, gamma: Array | None, beta: Array | None, rms: bool, epsilon: float) -> Array:
    has = (gamma is not None, beta is not None)

    def call(x: Array, *parameters: Array) -> Array:
        given = iter(parameters)
        inputs = {"x": x, "gamma": next(given) if has[0] else None, "beta": next(given) if has[1] else None}
        return launch("layer_norm", inputs, {"y": like(x)}, by_rows(x) | {"rms": rms, "epsilon": epsilon})[0]

    parameters = [p for p in (gamma, beta) if p is not None]
    return over_rows(call, (True, *(False for _ in parameters)))(x, *parameters)


def _layer_norm_forward(x: Array, gamma: Array | None, beta: Array | None, rms: bool, epsilon: float) -> Any:
    return _layer_norm(x, gamma, beta, rms, epsilon), (x, gamma, beta is not None)


def _layer_norm_backward(rms: bool, epsilon: float, saved: Any, dy: Array) -> Any:
    x, gamma, has_beta = saved
    row = Shape(x.shape[-1:], x.dtype)
    outputs = {"dx": like(x)}
    if gamma is not None:
        outputs["dgamma"] = row
    if has_beta:
        outputs["dbeta"] = row
    inputs = {"dy": dy, "x": x, "gamma": gamma}
    results = launch("layer_norm_backward", inputs, outputs, by_rows(x) | {"rms": rms, "epsilon": epsilon})
    return _named(outputs, results, "dx", "dgamma", "dbeta")


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def layer_norm(x: Any, gamma: Any = None, beta: Any = None, *, epsilon: float = 1e-3) -> Array:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, each row along the last axis by itself."""
    rows = _with_axes(x)
    return _layer_norm(
        rows, _parameter(gamma, "gamma", rows), _parameter(beta, "beta", rows), False, _epsilon(epsilon)
    )


def rms_norm(x: Any, gamma: Any = None, *, epsilon: float = 1e-6) -> Array:
    """``gamma * x / sqrt(mean(x**2) + epsilon)``, each row along the last axis by itself."""
    rows = _with_axes(x)
    return _layer_norm(rows, _parameter(gamma, "gamma", rows), None, True, _epsilon(epsilon))


# --- by columns ---

Settings = tuple[bool, float, float, Static]  # training, momentum, epsilon, activation


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm(settings: Settings, *arrays: Array | None) -> tuple[Array, ...]:
    return _batch_norm_forward(settings, *arrays, saved=False)[0]


def _batch_norm_forward(settings: Settings, *arrays: Array | None, saved: bool = True) -> Any:
    training, momentum, epsilon, activation = settings
    x, gamma, beta, mean, variance, residual = arrays
    assert x is not None
    moving = {"moving_mean": mean, "moving_variance": variance}
    row = Shape(x.shape[-1:], x.dtype)
    outputs = {"y": like(x)}
    aliases = {}
    if training:
        aliases = {f"new.{name}": name for name, array in moving.items() if array is not None}
        outputs |= dict.fromkeys(aliases, row)
    if saved:
        outputs |= {"mean": row, "inv_std": row}
    if saved and activation[0] in NEEDS_INPUT:
        outputs["epilogue.preactivation"] = like(x)
    inputs = {"x": x, "gamma": gamma, "beta": beta, "epilogue.addend": residual, **moving}
    fields = by_rows(x) | {"training": training, "momentum": momentum, "epsilon": epsilon}
    results = launch("batch_norm", inputs, outputs, fields | activation_fields(*activation), aliases)
    found = dict(zip(outputs, results, strict=True))
    primal = tuple(found[name] for name in outputs if name == "y" or name in aliases)
    if not saved:
        return primal, None
    at = found.get("epilogue.preactivation", found["y"])
    wanted = (gamma is not None, beta is not None, residual is not None)
    return primal, (x, gamma, found["mean"], found["inv_std"], at, wanted)


def _batch_norm_backward(settings: Settings, saved: Any, gradients: tuple[Array, ...]) -> Any:
    training, _, _, activation = settings
    x, gamma, mean, inv_std, at, (has_gamma, has_beta, has_residual) = saved
    dz = derivative(activation, gradients[0], at)
    row = Shape(x.shape[-1:], x.dtype)
    outputs = {"dx": like(x)}
    if has_gamma:
        outputs["dgamma"] = row
    if has_beta:
        outputs["dbeta"] = row
    inputs = {"dy": dz, "x": x, "gamma": gamma, "mean": mean, "inv_std": inv_std}
    results = launch("batch_norm_backward", inputs, outputs, by_rows(x) | {"training": training})
    return *_named(outputs, results, "dx", "dgamma", "dbeta"), None, None, dz if has_residual else None


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def batch_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    moving_mean: Any,
    moving_variance: Any,
    *,
    training: bool = False,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    activation: str | None = None,
    residual: Any = None,
) -> Any:
    """``activation(gamma * (x - mean) / sqrt(variance + epsilon) + beta + residual)``, channel by channel.

    Unlike `tilefuse.ops.batch_norm` it changes no array: in training it returns the new moving ones.

    Parameters
    ----------
    x : array of float32 or float64, [..., c]
    gamma, beta : array, dtype of `x`, [c], optional
        None is all ones, and all zeros.
    moving_mean, moving_variance : array, dtype of `x`, [c]
        Constants for gradients. In training both may be None.
    training : bool
        Whether to normalise by the mean and variance of `x` itself; must be known when JAX traces.
    momentum, epsilon : float
    activation : str, optional
        As for `matmul`.
    residual : array, shape and dtype of `x`, optional
        Added before the activation.

    Returns
    -------
    y : array, shape and dtype of `x`
        Alone, without `training`.
    moving_mean, moving_variance : array, [c]
        ``moving * momentum + batch * (1 - momentum)``; None where they were.

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, a number is out of its range, a name is unknown, or the moving ones are needed.
    """
    rows = _with_axes(x)
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum}; expected a number from 0 to 1")
    scale, offset = _parameter(gamma, "gamma", rows), _parameter(beta, "beta", rows)
    mean = _parameter(moving_mean, "moving_mean", rows)
    variance = _parameter(moving_variance, "moving_variance", rows)
    if (mean is None) != (variance is None) or (mean is None and not training):
        raise ValueError(
            f"moving_mean or moving_variance is None; expected arrays [{rows.shape[-1]}], or, in training, "
            "None for both"
        )
    added = None
    if residual is not None:
        added = floats(residual, "residual", rows)
        check_shape(added, "residual", rows.shape, "x")
    settings = (bool(training), float(momentum), _epsilon(epsilon), named(activation))
    y, *moving = _batch_norm(settings, rows, scale, offset, mean, variance, added)
    if not training:
        return y
    return y, *(jax.lax.stop_gradient(moving) if moving else (None, None))


# --- what they share ---


def _named(outputs: dict[str, Shape], results: tuple[Array, ...], *names: str) -> tuple[Array | None, ...]:
    found = dict(zip(outputs, results, strict=True))
    return tuple(found.get(name) for name in names)


def _with_axes(x: Any) -> Array:
    rows = floats(x, "x")
    if rows.ndim == 0:
        raise ValueError("x has no axes; expected at least one, the last one to normalise: pass x[None]")
    return rows


def _parameter(p: Any, name: str, x: Array) -> Array | None:
    if p is None:
        return None
    array = floats(jnp.asarray(p), name, x)
    check_shape(array, name, x.shape[-1:], "the last axis of x")
    return array


def _epsilon(epsilon: float) -> float:
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon}; expected a number that is not negative")
    return float(epsilon)
