"""Results in more precision than the op has, and how far rounding may take the op from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def exact_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a @ b`` accumulated in float64, or in long double where the arguments are float64 already."""
    wide = np.longdouble if a.dtype == np.float64 else np.float64
    return np.asarray(np.matmul(a.astype(wide), b.astype(wide)), dtype=np.float64)


def product_magnitude(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum of the absolute values of what ``a @ b`` adds up."""
    return np.matmul(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))


def rounded(x: np.ndarray, precision: str) -> np.ndarray:
    """To what the operands keep: bfloat16 and float16 with ties to even, tf32 with ties away from zero."""
    if precision == "float16":
        return x.astype(np.float16).astype(np.float32)
    bits = x.view(np.uint32)
    half, mask = (0x7FFF + (bits >> 16 & 1), 0xFFFF0000) if precision == "bfloat16" else (0x1000, 0xFFFFE000)
    nearest = (bits + half) & mask
    return np.where(np.isnan(x), x, nearest.astype(np.uint32).view(np.float32))


def double(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``function`` of the arguments in float64, without warnings; keywords are left as they are."""
    with np.errstate(all="ignore"):
        return function(*(_wide(a) for a in args), **kwargs)


def elementwise_magnitude(function: Callable[..., np.ndarray], *args: Any) -> np.ndarray:
    """``|f| + sum |x_i df/dx_i|``: what rounding the result and each argument is worth, over eps."""
    wide = [_wide(a) for a in args]
    delta = 2.0**-20
    with np.errstate(all="ignore"):
        size = np.abs(function(*wide))
        for i, x in enumerate(wide):
            if isinstance(x, np.ndarray):
                above = function(*wide[:i], x * (1 + delta), *wide[i + 1 :])
                below = function(*wide[:i], x * (1 - delta), *wide[i + 1 :])
                size = size + np.nan_to_num(np.abs(above - below), nan=0.0, posinf=0.0) / (2 * delta)
    return size


def _wide(x: Any) -> Any:
    return x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
