"""2-D convolution and its gradients, one tap of the filters at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tilefuse.ops._windows import windows

from ._namespace import Array, get_array_module
from ._windows import inner, padded, taps
from .activations import activate, activate_backward


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Any = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """``activation(conv(x, w) + b)``; a tap of the filters meets a strided slice of the padded images.

    Parameters
    ----------
    x : array [n, h, w, c]
    w : array [kernel_h, kernel_w, c / groups, f]
    b : array [f], optional
    strides, padding, dilation, groups, activation
        As for :func:`tilefuse.ops.conv2d`.

    Returns
    -------
    y : array [n, out_h, out_w, f]
    """
    xp = get_array_module(x, w)
    place = windows(x.shape[1:3], w.shape[:2], strides, padding, dilation)
    images = padded(x, w.shape[:2], place)
    y = xp.zeros((len(x), *place.out, w.shape[3]), x.dtype)
    for tap, rows, cols in taps(w.shape[:2], place):
        part = images[:, rows, cols, :]
        for channels, filters in _groups(x, w, groups):
            y[..., filters] += part[..., channels] @ w[tap][:, filters]
    return activate(y if b is None else y + b, activation)


def conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    y: Array | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Any = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str | None = None,
    z: Array | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of :func:`conv2d` at `x`, `w` and `b`.

    Parameters
    ----------
    dy, y : array [n, out_h, out_w, f]
        The gradient at the output, and the output.
    z : array [n, out_h, out_w, f], optional
        The output before the activation, for gelu, gelu_tanh and silu.

    Returns
    -------
    dx : array [n, h, w, c]
    dw : array [kernel_h, kernel_w, c / groups, f]
    db : array [f]
    """
    xp = get_array_module(dy, x, w)
    dz = dy if y is None and z is None else activate_backward(dy, y, activation, x=z)
    place = windows(x.shape[1:3], w.shape[:2], strides, padding, dilation)
    images = padded(x, w.shape[:2], place)
    dpadded, dw = xp.zeros_like(images), xp.zeros(w.shape, x.dtype)
    for tap, rows, cols in taps(w.shape[:2], place):
        for channels, filters in _groups(x, w, groups):
            part = images[:, rows, cols, channels]
            dw[tap][:, filters] = xp.tensordot(part, dz[..., filters], axes=((0, 1, 2), (0, 1, 2)))
            dpadded[:, rows, cols, channels] += dz[..., filters] @ w[tap][:, filters].T
    return inner(dpadded, x.shape, place), dw, dz.sum(axis=(0, 1, 2))


def _groups(x: Array, w: Array, groups: int) -> Iterator[tuple[slice, slice]]:
    """Yield the channels and the filters of each group."""
    c, f = x.shape[3] // groups, w.shape[3] // groups
    for g in range(groups):
        yield slice(g * c, (g + 1) * c), slice(g * f, (g + 1) * f)
