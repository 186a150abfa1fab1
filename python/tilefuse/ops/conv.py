"""2-D convolution with bias and activation, and the gradients of it all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tilefuse._device import native

from ._activation import NEEDS_INPUT, backward, named
from ._arrays import Array, check_shape, empty, packed_floats, view
from ._precision import checked
from ._windows import Windows, check_filters, check_images, pair, windows

__all__ = ["conv2d", "conv2d_backward"]

Padding = str | int | Sequence[Sequence[int]]


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str | None = None,
    precision: str | None = None,
) -> Array:
    """``activation(conv(x, w) + b)``: the filters `w` at every place of the images `x`, in one pass.

    As everywhere in neural networks the filters are not turned round (cross-correlation).

    Parameters
    ----------
    x : array_like of float32 or float64, [n, h, w, c]
        Copied first if it is not contiguous or not aligned to its elements; so are the others.
    w : array_like, dtype of `x`, [kernel_h, kernel_w, c / groups, f]
    b : array_like, dtype of `x`, [f], optional
    strides : int or (int, int)
        From window to window, down and to the right.
    padding : {"valid", "same"}, int or ((top, bottom), (left, right))
        Zeros around the images. "same" gives ``ceil(h / strides)`` rows, as TensorFlow does; an int is the
        same number on all sides.
    dilation : int or (int, int)
        Steps between a filter's elements.
    groups : int
        The channels are cut into so many groups, each with filters of its own: c and f are multiples of it.
        With ``groups = c = f`` each channel has its own filter (a depthwise convolution).
    activation : str, optional
        One of linear, relu, leaky_relu (slope 0.2), elu, selu, sigmoid, tanh, softplus, silu, gelu,
        gelu_tanh.
    precision : str, optional
        As for :func:`matmul`. On CPUs "float32" computes filters of 3 x 3 by Winograd's transforms [1]_ where
        that is faster, "ieee" does not: 16 multiply-adds in place of 36, with 0.8 to 2.1 times their error by
        norm.

    Returns
    -------
    y : ndarray, [n, out_h, out_w, f], dtype of `x`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or a name is unknown.

    References
    ----------
    .. [1] Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x, w = np.arange(9.0).reshape(1, 3, 3, 1), np.ones((2, 2, 1, 1))
    >>> ops.conv2d(x, w)[0, :, :, 0]
    array([[ 8., 12.],
           [20., 24.]])
    >>> ops.conv2d(x, w, padding="same", strides=2).shape
    (1, 2, 2, 1)
    """
    name, alpha = named(activation)
    images, filters, place = _operands(x, w, strides, padding, dilation, groups)
    bias = _bias(b, filters)
    y = empty((images.shape[0], *place.out, filters.shape[3]), images.dtype, images)
    exactly = checked(precision, images.dtype)
    native().conv2d(images, filters, y, bias, name, alpha, None, _geometry(place, groups), exactly)
    return y


def conv2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    y: ArrayLike | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str | None = None,
    z: ArrayLike | None = None,
    precision: str | None = None,
    needs_dx: bool = True,
) -> tuple[Array, Array, Array]:
    """The gradients of :func:`conv2d` at `x`, `w` and `b`.

    Parameters
    ----------
    dy : array_like of float32 or float64, [n, out_h, out_w, f]
        The gradient at the output.
    x : array_like, dtype of `dy`, [n, h, w, c]
    w : array_like, dtype of `dy`, [kernel_h, kernel_w, c / groups, f]
    y : array_like, dtype of `dy`, [n, out_h, out_w, f], optional
        The output; not needed where there is no activation, or it needs `z`.
    strides, padding, dilation, groups, activation, precision
        As given to :func:`conv2d`.
    z : array_like, dtype of `dy`, [n, out_h, out_w, f], optional
        The output before the activation, which the derivatives of gelu, gelu_tanh and silu need.
    needs_dx : bool
        Whether to compute `dx`; it is None else.

    Returns
    -------
    dx : ndarray, [n, h, w, c]
    dw : ndarray, [kernel_h, kernel_w, c / groups, f]
    db : ndarray, [f]

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, a name is unknown, or what the activation needs is None.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x, w = np.arange(9.0).reshape(1, 3, 3, 1), np.ones((2, 2, 1, 1))
    >>> dx, dw, db = ops.conv2d_backward(np.ones((1, 2, 2, 1)), x, w)
    >>> dx[0, :, :, 0], dw.ravel(), db
    (array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]]), array([ 8., 12., 20., 24.]), array([4.]))
    """
    name, alpha = named(activation)
    images, filters, place = _operands(x, w, strides, padding, dilation, groups)
    dtype, shape = images.dtype, (images.shape[0], *place.out, filters.shape[3])
    gradient = packed_floats(dy, "dy", dtype, "x")
    check_shape(gradient, "dy", shape, "the output of conv2d")
    if name != "linear":
        key, at = ("z", z) if name in NEEDS_INPUT else ("y", y)
        if at is None:
            what = "the output before the activation" if key == "z" else "the output of conv2d"
            raise ValueError(f"the derivative of {name} needs {what}: pass it as {key}")
        array = packed_floats(at, key, dtype, "x")
        check_shape(array, key, shape, "the output of conv2d")
        gradient = backward(name, gradient, array, alpha)
    geometry, exactly = _geometry(place, groups), checked(precision, dtype)
    dx: Any = empty(images.shape, dtype, images) if needs_dx else None
    dw = empty(filters.shape, dtype, images)
    db = empty(filters.shape[3:], dtype, images)
    if needs_dx:
        native().conv2d_backward_data(gradient, filters, dx, geometry, exactly)
    native().conv2d_backward_weights(images, gradient, dw, db, geometry, exactly)
    return dx, dw, db


def conv2d_pooled(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None,
    pool_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str | None = None,
    precision: str | None = None,
) -> tuple[Array, Array]:
    """:func:`conv2d` and the max-pooling that follows, of windows side by side, in one pass.

    The activation must never fall.

    Returns the maxima [n, out_h / pool_h, out_w / pool_w, f], and which of its window each is, in uint8.
    """
    name, alpha = named(activation)
    images, filters, place = _operands(x, w, strides, padding, dilation, groups)
    bias = _bias(b, filters)
    window = pair(pool_size, "pool_size")
    shape = _pooled_shape(images, filters, place, window)
    y, argmax = empty(shape, images.dtype, images), empty(shape, np.dtype(np.uint8), images)
    exactly = checked(precision, images.dtype)
    native().conv2d(
        images, filters, y, bias, name, alpha, None, _geometry(place, groups), exactly, window, argmax
    )
    return y, argmax


def conv2d_pooled_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    y: ArrayLike | None,
    argmax: ArrayLike,
    pool_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str | None = None,
    precision: str | None = None,
    needs_dx: bool = True,
) -> tuple[Array, Array, Array]:
    """The gradients of :func:`conv2d_pooled` at `x`, `w` and `b`, from that at the maxima `y`."""
    name, alpha = named(activation)
    images, filters, place = _operands(x, w, strides, padding, dilation, groups)
    window = pair(pool_size, "pool_size")
    gradient = packed_floats(dy, "dy", images.dtype, "x")
    check_shape(gradient, "dy", _pooled_shape(images, filters, place, window), "the output of conv2d_pooled")
    if name != "linear":
        assert y is not None
        gradient = backward(name, gradient, y, alpha)
    how = (_geometry(place, groups), checked(precision, images.dtype), window, view(argmax, "argmax"))
    dx: Any = empty(images.shape, images.dtype, images) if needs_dx else None
    dw = empty(filters.shape, images.dtype, images)
    db = empty(filters.shape[3:], images.dtype, images)
    if needs_dx:
        native().conv2d_backward_data(gradient, filters, dx, *how)
    native().conv2d_backward_weights(images, gradient, dw, db, *how)
    return dx, dw, db


def _pooled_shape(images: Array, filters: Array, place: Windows, window: tuple[int, int]) -> tuple[int, ...]:
    height, width = (n // size for n, size in zip(place.out, window, strict=True))
    return images.shape[0], height, width, filters.shape[3]


def _operands(
    x: ArrayLike,
    w: ArrayLike,
    strides: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    groups: int,
) -> tuple[Array, Array, Windows]:
    images = packed_floats(x, "x")
    filters = packed_floats(w, "w", images.dtype, "x")
    check_images(images.shape)
    check_filters(filters.shape, images.shape, groups)
    place = windows(images.shape[1:3], filters.shape[:2], strides, padding, dilation)
    return images, filters, place


def _bias(b: ArrayLike | None, filters: Array) -> Array | None:
    if b is None:
        return None
    bias = packed_floats(b, "b", filters.dtype, "x")
    check_shape(bias, "b", filters.shape[3:], "the last axis of w")
    return bias


def _geometry(place: Windows, groups: int) -> tuple[int, ...]:
    return (*place.out, *place.strides, *place.dilation, *place.before, groups)
