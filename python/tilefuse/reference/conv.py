"""2-D convolution and its gradients, one tap of the filters at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tilefuse.ops._windows import Windows, windows

from ._namespace import Array, get_array_module
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
    padded = _padded(x, w, place)
    y = xp.zeros((len(x), *place.out, w.shape[3]), x.dtype)
    for tap, rows, cols in _taps(w, place):
        part = padded[:, rows, cols, :]
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
    padded = _padded(x, w, place)
    dpadded, dw = xp.zeros(padded.shape, x.dtype), xp.zeros(w.shape, x.dtype)
    for tap, rows, cols in _taps(w, place):
        for channels, filters in _groups(x, w, groups):
            part = padded[:, rows, cols, channels]
            dw[tap][:, filters] = xp.tensordot(part, dz[..., filters], axes=((0, 1, 2), (0, 1, 2)))
            dpadded[:, rows, cols, channels] += dz[..., filters] @ w[tap][:, filters].T
    top, left = place.before
    dx = dpadded[:, top : top + x.shape[1], left : left + x.shape[2], :]
    return dx, dw, dz.sum(axis=(0, 1, 2))


def _padded(x: Array, w: Array, place: Windows) -> Array:
    """Return the images with all that the windows reach, zero outside."""
    n, h, width, c = x.shape
    reach = [
        max(size + before, (out - 1) * s + (k - 1) * d + 1)
        for size, before, out, s, d, k in zip(
            (h, width), place.before, place.out, place.strides, place.dilation, w.shape[:2], strict=True
        )
    ]
    padded = get_array_module(x).zeros((n, *reach, c), x.dtype)
    top, left = place.before
    padded[:, top : top + h, left : left + width] = x
    return padded


def _taps(w: Array, place: Windows) -> Iterator[tuple[tuple[int, int], slice, slice]]:
    """Yield each tap, and the rows and columns of the padded images that it meets."""
    for p in range(w.shape[0]):
        for q in range(w.shape[1]):
            starts = p * place.dilation[0], q * place.dilation[1]
            rows, cols = (
                slice(start, start + (out - 1) * s + 1 if out else start, s)
                for start, out, s in zip(starts, place.out, place.strides, strict=True)
            )
            yield (p, q), rows, cols


def _groups(x: Array, w: Array, groups: int) -> Iterator[tuple[slice, slice]]:
    """Yield the channels and the filters of each group."""
    c, f = x.shape[3] // groups, w.shape[3] // groups
    for g in range(groups):
        yield slice(g * c, (g + 1) * c), slice(g * f, (g + 1) * f)
