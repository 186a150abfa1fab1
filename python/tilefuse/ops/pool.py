"""2-D pooling: the maxima or means of windows, or of whole images, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tilefuse._device import native

from ._arrays import Array, check_shape, empty, packed_floats
from ._windows import check_images, pair, windows
from .conv import Padding

__all__ = [
    "avg_pool2d",
    "avg_pool2d_backward",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "max_pool2d",
    "max_pool2d_backward",
]


def max_pool2d(
    x: ArrayLike,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
) -> Array:
    """The largest element of each window, in each channel; NaN where a window has one.

    Parameters
    ----------
    x : array_like of float32 or float64, [n, h, w, c]
        Copied first if it is not contiguous or not aligned to its elements.
    pool_size : int or (int, int)
        A window's height and width.
    strides : int or (int, int), optional
        From window to window, down and to the right; by default `pool_size`.
    padding : {"valid", "same"}, int or ((top, bottom), (left, right))
        Around the images, and never the largest. "same" gives ``ceil(h / strides)`` rows, as TensorFlow does;
        an int is the same number on all sides.

    Returns
    -------
    y : ndarray, [n, out_h, out_w, c], dtype of `x`

    Raises
    ------
    TypeError
        `x` is not of float32 or float64.
    ValueError
        `x` has not four axes, or an argument makes no sense: a window with nothing but padding, for one.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x = np.arange(16.0).reshape(1, 4, 4, 1)
    >>> ops.max_pool2d(x)[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    >>> ops.max_pool2d(x, 3, strides=2, padding="same")[0, :, :, 0]
    array([[10., 11.],
           [14., 15.]])
    """
    images = _images(x)
    place = _pooling(images, pool_size, strides, padding)
    y = empty(place.shape, images.dtype, images)
    native().pool2d("max", images, y, place.kernel, place.geometry)
    return y


def max_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
) -> Array:
    """The gradient of :func:`max_pool2d`: each window's goes to its maximum.

    Of equal maxima it goes to the first, row by row; of NaNs likewise.

    Parameters
    ----------
    dy : array_like of float32 or float64, [n, out_h, out_w, c]
        The gradient at the output.
    x : array_like, dtype of `dy`, [n, h, w, c]
        The input.
    pool_size, strides, padding
        As given to :func:`max_pool2d`.

    Returns
    -------
    dx : ndarray, [n, h, w, c], dtype of `dy`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the two dtypes differ.
    ValueError
        The shapes do not fit, or an argument makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x = np.array([[1.0, 3.0, 2.0], [3.0, 0.0, 5.0]]).reshape(1, 2, 3, 1)
    >>> ops.max_pool2d_backward(np.ones((1, 1, 2, 1)), x, 2, strides=1)[0, :, :, 0]
    array([[0., 1., 0.],
           [0., 0., 1.]])
    """
    images = _images(x)
    place = _pooling(images, pool_size, strides, padding)
    gradient = _gradient(dy, place.shape, images, "max_pool2d")
    small = place.kernel[0] * place.kernel[1] <= 256
    argmax = empty(place.shape, np.dtype(np.uint8 if small else np.int32), images)
    dx = empty(images.shape, images.dtype, images)
    native().pool2d("max", images, None, place.kernel, place.geometry, argmax=argmax)
    native().pool2d_backward("max", gradient, dx, place.kernel, place.geometry, argmax=argmax)
    return dx


def avg_pool2d(
    x: ArrayLike,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    count_padding: bool = False,
) -> Array:
    """The mean of each window, in each channel.

    Parameters
    ----------
    x : array_like of float32 or float64, [n, h, w, c]
        Copied first if it is not contiguous or not aligned to its elements.
    pool_size : int or (int, int)
        A window's height and width.
    strides : int or (int, int), optional
        From window to window, down and to the right; by default `pool_size`.
    padding : {"valid", "same"}, int or ((top, bottom), (left, right))
        Zeros around the images. "same" gives ``ceil(h / strides)`` rows, as TensorFlow does; an int is the
        same number on all sides.
    count_padding : bool
        Divide by the size of the window, as PyTorch does, instead of by how many of its elements are not
        padding, as Keras does.

    Returns
    -------
    y : ndarray, [n, out_h, out_w, c], dtype of `x`

    Raises
    ------
    TypeError
        `x` is not of float32 or float64.
    ValueError
        `x` has not four axes, or an argument makes no sense: a window with nothing but padding, for one.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> ops.avg_pool2d(x, 2, padding="same")[0, :, :, 0]
    array([[2. , 3.5],
           [6.5, 8. ]])
    >>> ops.avg_pool2d(x, 2, padding="same", count_padding=True)[0, :, :, 0]
    array([[2.  , 1.75],
           [3.25, 2.  ]])
    """
    images = _images(x)
    place = _pooling(images, pool_size, strides, padding)
    return _mean(images, place, count_padding)


def avg_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    count_padding: bool = False,
) -> Array:
    """The gradient of :func:`avg_pool2d`: each window's in equal parts to its elements.

    Parameters
    ----------
    dy : array_like of float32 or float64, [n, out_h, out_w, c]
        The gradient at the output.
    x : array_like, dtype of `dy`, [n, h, w, c]
        The input, of which nothing but the shape matters.
    pool_size, strides, padding, count_padding
        As given to :func:`avg_pool2d`.

    Returns
    -------
    dx : ndarray, [n, h, w, c], dtype of `dy`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the two dtypes differ.
    ValueError
        The shapes do not fit, or an argument makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> x = np.zeros((1, 2, 3, 1))
    >>> ops.avg_pool2d_backward(np.ones((1, 1, 2, 1)), x, 2, strides=1)[0, :, :, 0]
    array([[0.25, 0.5 , 0.25],
           [0.25, 0.5 , 0.25]])
    """
    images = _images(x)
    place = _pooling(images, pool_size, strides, padding)
    return _mean_backward(_gradient(dy, place.shape, images, "avg_pool2d"), images, place, count_padding)


def global_avg_pool2d(x: ArrayLike) -> Array:
    """The mean of each channel over the whole image.

    Parameters
    ----------
    x : array_like of float32 or float64, [n, h, w, c]
        Copied first if it is not contiguous or not aligned to its elements.

    Returns
    -------
    y : ndarray, [n, c], dtype of `x`

    Raises
    ------
    TypeError
        `x` is not of float32 or float64.
    ValueError
        `x` has not four axes, or its images have no pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.global_avg_pool2d(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[3., 4.]])
    """
    images = _images(x)
    return _mean(images, _whole(images))[:, 0, 0]


def global_avg_pool2d_backward(dy: ArrayLike, x: ArrayLike) -> Array:
    """The gradient of :func:`global_avg_pool2d`: each channel's in equal parts to its pixels.

    Parameters
    ----------
    dy : array_like of float32 or float64, [n, c]
        The gradient at the output.
    x : array_like, dtype of `dy`, [n, h, w, c]
        The input, of which nothing but the shape matters.

    Returns
    -------
    dx : ndarray, [n, h, w, c], dtype of `dy`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the two dtypes differ.
    ValueError
        The shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> ops.global_avg_pool2d_backward(np.array([[1.0]]), np.zeros((1, 1, 4, 1))).ravel()
    array([0.25, 0.25, 0.25, 0.25])
    """
    images = _images(x)
    place = _whole(images)
    shape = (images.shape[0], images.shape[3])
    return _mean_backward(_gradient(dy, shape, images, "global_avg_pool2d"), images, place)


_LARGEST_WINDOW = 2**31 - 1  # where a maximum is in its window is an int32


class _Pooling(NamedTuple):
    kernel: tuple[int, int]
    geometry: tuple[int, ...]  # as the kernels of convolution take it
    shape: tuple[int, ...]  # of the output


def _images(x: ArrayLike) -> Array:
    images = packed_floats(x, "x")
    check_images(images.shape)
    return images


def _pooling(
    images: Array,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
) -> _Pooling:
    kernel = pair(pool_size, "pool_size")
    n, h, w, c = images.shape
    if kernel[0] * kernel[1] > _LARGEST_WINDOW:
        raise ValueError(
            f"pool_size is {pool_size!r}; expected windows of at most {_LARGEST_WINDOW} elements"
        )
    place = windows((h, w), kernel, kernel if strides is None else strides, padding)
    for size, reach, out, step, before in zip(
        (h, w), kernel, place.out, place.strides, place.before, strict=True
    ):
        if out > 0 and (size == 0 or before >= reach or (out - 1) * step - before >= size):
            raise ValueError(
                f"padding is {padding!r}, which leaves windows of pool_size {kernel} with no element of x, "
                f"of shape {images.shape}; expected less on each side than a window has"
            )
    return _Pooling(kernel, (*place.out, *place.strides, 1, 1, *place.before, 1), (n, *place.out, c))


def _whole(images: Array) -> _Pooling:
    """Return the window that is the whole image."""
    n, h, w, c = images.shape
    if h * w == 0:
        raise ValueError(f"x has shape {images.shape}: its images have no pixels to take the mean of")
    return _Pooling((h, w), (1, 1, 1, 1, 1, 1, 0, 0, 1), (n, 1, 1, c))


def _gradient(dy: ArrayLike, shape: tuple[int, ...], images: Array, name: str) -> Array:
    gradient = packed_floats(dy, "dy", images.dtype, "x")
    check_shape(gradient, "dy", shape, f"the output of {name}")
    return gradient


def _mean(images: Array, place: _Pooling, count_padding: bool = False) -> Array:
    y = empty(place.shape, images.dtype, images)
    native().pool2d("average", images, y, place.kernel, place.geometry, bool(count_padding))
    return y


def _mean_backward(gradient: Array, images: Array, place: _Pooling, count_padding: bool = False) -> Array:
    dx = empty(images.shape, images.dtype, images)
    native().pool2d_backward("average", gradient, dx, place.kernel, place.geometry, bool(count_padding))
    return dx
