"""Gradients by central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def numerical_gradient(
    function: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    dy: np.ndarray | float = 1.0,
    step: float = 1e-5,
) -> np.ndarray:
    """The gradient at `x` of ``sum(dy * function(x))``."""
    assert x.dtype == np.float64
    x = x.copy()
    dx = np.empty_like(x)
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + step
        above = function(x.copy())
        x[index] = value - step
        below = function(x.copy())
        x[index] = value
        dx[index] = np.sum(dy * (above - below)) / (2 * step)
    return dx


def assert_gradient(actual: np.ndarray, numerical: np.ndarray, tolerance: float = 2e-9) -> None:
    """`actual` within `tolerance` of the central differences, absolutely for values below one."""
    assert actual.shape == numerical.shape
    error = np.abs(actual - numerical) / np.maximum(np.abs(numerical), 1.0)
    worst = float(error.max(initial=0.0))
    assert worst <= tolerance, f"gradient off by {worst:.3g}\n{actual}\n{numerical}"
