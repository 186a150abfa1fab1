"""2-D pooling and its gradients, one element of the windows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilefuse.ops._windows import Windows, pair, windows

from ._namespace import Array, get_array_module
from ._windows import inner, padded, taps

Pair = tuple[int, int]


def max_pool2d(
    x: Array,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Any = "valid",
) -> Array:
    """The largest element of each window, in each channel; NaN where a window has one.

    Parameters
    ----------
    x : array [n, h, w, c]
    pool_size, strides, padding
        As for :func:`tilefuse.ops.max_pool2d`.

    Returns
    -------
    y : array [n, out_h, out_w, c]
    """
    return _maxima(x, *_place(x, pool_size, strides, padding))[0]


def max_pool2d_backward(
    dy: Array,
    x: Array,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Any = "valid",
) -> Array:
    """The gradient of :func:`max_pool2d`: each window's goes to its maximum, the first of equal ones.

    Parameters
    ----------
    dy : array [n, out_h, out_w, c]
    x : array [n, h, w, c]

    Returns
    -------
    dx : array [n, h, w, c]
    """
    xp = get_array_module(dy, x)
    kernel, place = _place(x, pool_size, strides, padding)
    _, argmax = _maxima(x, kernel, place)
    dpadded = xp.zeros_like(padded(x, kernel, place))
    for (p, q), rows, cols in taps(kernel, place):
        dpadded[:, rows, cols] += xp.where(argmax == p * kernel[1] + q, dy, 0)
    return inner(dpadded, x.shape, place)


def avg_pool2d(
    x: Array,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Any = "valid",
    count_padding: bool = False,
) -> Array:
    """The mean of each window, in each channel.

    Parameters
    ----------
    x : array [n, h, w, c]
    pool_size, strides, padding, count_padding
        As for :func:`tilefuse.ops.avg_pool2d`.

    Returns
    -------
    y : array [n, out_h, out_w, c]
    """
    kernel, place = _place(x, pool_size, strides, padding)
    return _sums(x, kernel, place) / _counts(x, kernel, place, count_padding)


def avg_pool2d_backward(
    dy: Array,
    x: Array,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Any = "valid",
    count_padding: bool = False,
) -> Array:
    """The gradient of :func:`avg_pool2d`: each window's in equal parts to its elements.

    Parameters
    ----------
    dy : array [n, out_h, out_w, c]
    x : array [n, h, w, c]

    Returns
    -------
    dx : array [n, h, w, c]
    """
    kernel, place = _place(x, pool_size, strides, padding)
    parts = dy / _counts(x, kernel, place, count_padding)
    dpadded = get_array_module(dy, x).zeros_like(padded(x, kernel, place))
    for _, rows, cols in taps(kernel, place):
        dpadded[:, rows, cols] += parts
    return inner(dpadded, x.shape, place)


def global_avg_pool2d(x: Array) -> Array:
    """The mean of each channel over the whole image.

    Parameters
    ----------
    x : array [n, h, w, c]

    Returns
    -------
    y : array [n, c]
    """
    return x.mean(axis=(1, 2))


def global_avg_pool2d_backward(dy: Array, x: Array) -> Array:
    """The gradient of :func:`global_avg_pool2d`: each channel's in equal parts to its pixels.

    Parameters
    ----------
    dy : array [n, c]
    x : array [n, h, w, c]

    Returns
    -------
    dx : array [n, h, w, c]
    """
    xp = get_array_module(dy, x)
    return xp.zeros_like(x) + dy[:, None, None, :] / (x.shape[1] * x.shape[2])


def _place(
    x: Array, pool_size: int | Sequence[int], strides: int | Sequence[int] | None, padding: Any
) -> tuple[Pair, Windows]:
    kernel = pair(pool_size, "pool_size")
    return kernel, windows(x.shape[1:3], kernel, kernel if strides is None else strides, padding)


def _maxima(x: Array, kernel: Pair, place: Windows) -> tuple[Array, Array]:
    """Return the maxima, and where in its window each is; padding is where nothing ever is."""
    xp = get_array_module(x)
    images, inside = padded(x, kernel, place), padded(xp.ones_like(x), kernel, place)
    y = xp.full((len(x), *place.out, x.shape[3]), -xp.inf, x.dtype)
    argmax = xp.full(y.shape, -1)
    for (p, q), rows, cols in taps(kernel, place):
        part = images[:, rows, cols]
        larger = (argmax < 0) | (part > y) | (xp.isnan(part) & ~xp.isnan(y))
        larger &= inside[:, rows, cols] > 0
        y, argmax = xp.where(larger, part, y), xp.where(larger, p * kernel[1] + q, argmax)
    return y, argmax


def _sums(x: Array, kernel: Pair, place: Windows) -> Array:
    images = padded(x, kernel, place)
    return sum(images[:, rows, cols] for _, rows, cols in taps(kernel, place))


def _counts(x: Array, kernel: Pair, place: Windows, count_padding: bool) -> Array:
    """Return what the means divide by."""
    if count_padding:
        return x.dtype.type(kernel[0] * kernel[1])
    return _sums(get_array_module(x).ones_like(x[:, :, :, :1]), kernel, place)
