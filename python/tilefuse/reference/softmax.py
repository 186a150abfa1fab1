"""Softmax and log-softmax along one axis."""

from __future__ import annotations

from ._namespace import Array, get_array_module


def softmax(x: Array, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along `axis`, without overflow."""
    xp = get_array_module(x)
    e = xp.exp(_below_maximum(x, axis))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """``log(softmax(x))``, exact where softmax itself underflows."""
    xp = get_array_module(x)
    shifted = _below_maximum(x, axis)
    return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))


def softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """The gradient at the input, from that at the output `y` of softmax."""
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


def log_softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """The gradient at the input, from that at the output `y` of log-softmax."""
    return dy - get_array_module(y).exp(y) * dy.sum(axis=axis, keepdims=True)


def _below_maximum(x: Array, axis: int) -> Array:
    return x - x.max(axis=axis, keepdims=True, initial=-float("inf"))
