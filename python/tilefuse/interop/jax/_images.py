"""Convolution and pooling of images [n, h, w, c]."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from tilefuse.ops._activation import NEEDS_INPUT, named
from tilefuse.ops._windows import Windows, check_filters, check_images, pair, windows
from tilefuse.ops.conv import Padding

from ._elementwise import Static, derivative
from ._launch import Array, Shape, activation_fields, dtype_of, floats, launch, like, over_rows
from ._products import column_sums


class Geometry(NamedTuple):
    """What a kernel must know besides the sizes of images and filters."""

    kernel: tuple[int, int]
    place: Windows
    groups: int = 1


def _shape(x: tuple[int, ...], f: int, geometry: Geometry, dtype: int) -> dict[str, float]:
    """The fields of a convolution or pooling of images [..., h, w, c] to f channels."""
    place = geometry.place
    sizes = {"n": int(np.prod(x[:-3])), "h": x[-3], "w": x[-2], "c": x[-1], "f": f, "groups": geometry.groups}
    pairs = {
        ("kernel_h", "kernel_w"): geometry.kernel,
        ("out_h", "out_w"): place.out,
        ("stride_h", "stride_w"): place.strides,
        ("dilation_h", "dilation_w"): place.dilation,
        ("pad_top", "pad_left"): place.before,
    }
    for names, values in pairs.items():
        sizes |= dict(zip(names, values, strict=True))
    return {"dtype": dtype, **{f"shape.{name}": size for name, size in sizes.items()}}


def _images(x: Any) -> Array:
    images = floats(x, "x")
    check_images(images.shape)
    return images


# --- convolution ---


def _convolve(
    x: Array, w: Array, b: Array | None, geometry: Geometry, activation: Static, saved: bool = False
) -> tuple[Array, ...]:
    def call(x: Array, w: Array, *b: Array) -> tuple[Array, ...]:
        y = Shape((*x.shape[:-3], *geometry.place.out, w.shape[3]), x.dtype)
        outputs = {"y": y, **({"epilogue.preactivation": y} if saved else {})}
        fields = _shape(x.shape, w.shape[3], geometry, dtype_of(x)) | activation_fields(*activation)
        return launch("conv2d", {"x": x, "w": w, "epilogue.bias": b[0] if b else None}, outputs, fields)

    bias = () if b is None else (b,)
    return over_rows(call, (True, False, *(False for _ in bias)))(x, w, *bias)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _conv2d(x: Array, w: Array, b: Array | None, geometry: Geometry, activation: Static) -> Array:
    return _convolve(x, w, b, geometry, activation)[0]


def _conv2d_forward(x: Array, w: Array, b: Array | None, geometry: Geometry, activation: Static) -> Any:
    y, *z = _convolve(x, w, b, geometry, activation, activation[0] in NEEDS_INPUT)
    return y, (x, w, b is not None, z[0] if z else y)


def _conv2d_backward(geometry: Geometry, activation: Static, saved: Any, dy: Array) -> Any:
    x, w, has_bias, at = saved
    dz = derivative(activation, dy, at)
    inputs = x.shape[-3:]

    def data(dz: Array, w: Array) -> Array:
        dx = Shape((*dz.shape[:-3], *inputs), dz.dtype)
        fields = _shape(dx.shape, w.shape[3], geometry, dtype_of(dz))
        return launch("conv2d_backward_data", {"dy": dz, "w": w}, {"dx": dx}, fields)[0]

    dx = over_rows(data, (True, False))(dz, w)
    fields = _shape(x.shape, w.shape[3], geometry, dtype_of(x))
    (dw,) = launch("conv2d_backward_weights", {"x": x, "dy": dz}, {"dw": like(w)}, fields)
    return dx, dw, column_sums(dz) if has_bias else None


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def conv2d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """``activation(conv(x, w) + b)``, the filters not turned round, in one pass.

    `vmap` over `x` alone makes one call with more images.

    Parameters
    ----------
    x : array of float32 or float64, [n, h, w, c]
    w : array, dtype of `x`, [kernel_h, kernel_w, c / groups, f]
    b : array, dtype of `x`, [f], optional
    strides, dilation : int or (int, int)
    padding : {"valid", "same"}, int or ((top, bottom), (left, right))
    groups : int
        A divisor of c and f.
    activation : str, optional
        As for `matmul`.

    Returns
    -------
    y : array, [n, out_h, out_w, f], dtype of `x`

    Raises
    ------
    TypeError
        An array is not of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or a name is unknown.
    """
    images = _images(x)
    filters = floats(w, "w", images)
    check_filters(filters.shape, images.shape, groups)
    bias = None if b is None else floats(b, "b", images)
    if bias is not None and bias.shape != filters.shape[3:]:
        raise ValueError(
            f"b has shape {bias.shape}; expected {filters.shape[3:]}, as w has shape {filters.shape}"
        )
    kernel = (filters.shape[0], filters.shape[1])
    place = windows((images.shape[1], images.shape[2]), kernel, strides, padding, dilation)
    return _conv2d(images, filters, bias, Geometry(kernel, place, groups), named(activation))


# --- pooling ---

MAX, AVERAGE = 0, 1  # as the kernels count them


def _pool(
    x: Array, kind: int, geometry: Geometry, count_padding: bool, saved: bool = False
) -> tuple[Array, ...]:
    def call(x: Array) -> tuple[Array, ...]:
        shape = (*x.shape[:-3], *geometry.place.out, x.shape[-1])
        small = geometry.kernel[0] * geometry.kernel[1] <= 256
        outputs = {"y": Shape(shape, x.dtype)}
        if saved:
            outputs["argmax"] = Shape(shape, np.uint8 if small else np.int32)
        fields = _shape(x.shape, x.shape[-1], geometry, dtype_of(x))
        return launch("pool2d", {"x": x}, outputs, fields | {"kind": kind, "count_padding": count_padding})

    return over_rows(call, (True,))(x)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool2d(x: Array, kind: int, geometry: Geometry, count_padding: bool) -> Array:
    return _pool(x, kind, geometry, count_padding)[0]


def _pool2d_forward(x: Array, kind: int, geometry: Geometry, count_padding: bool) -> Any:
    y, *argmax = _pool(x, kind, geometry, count_padding, kind == MAX)
    return y, (argmax, x.shape[-3:])


def _pool2d_backward(
    kind: int, geometry: Geometry, count_padding: bool, saved: Any, dy: Array
) -> tuple[Array]:
    argmax, inputs = saved

    def call(dy: Array, *argmax: Array) -> Array:
        dx = Shape((*dy.shape[:-3], *inputs), dy.dtype)
        fields = _shape(dx.shape, dx.shape[-1], geometry, dtype_of(dy))
        arrays = {"dy": dy, "argmax": argmax[0] if argmax else None}
        return launch(
            "pool2d_backward", arrays, {"dx": dx}, fields | {"kind": kind, "count_padding": count_padding}
        )[0]

    return (over_rows(call, (True,) * (1 + len(argmax)))(dy, *argmax),)


_pool2d.defvjp(_pool2d_forward, _pool2d_backward)


def max_pool2d(
    x: Any,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
) -> Array:
    """The largest element of each window, in each channel; of equal ones the first has the gradient."""
    images = _images(x)
    return _pool2d(images, MAX, _windows(images, pool_size, strides, padding), False)


def avg_pool2d(
    x: Any,
    pool_size: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    count_padding: bool = False,
) -> Array:
    """The mean of each window, in each channel; `count_padding` divides by the window's size."""
    images = _images(x)
    return _pool2d(images, AVERAGE, _windows(images, pool_size, strides, padding), bool(count_padding))


def global_avg_pool2d(x: Any) -> Array:
    """The mean of each channel over the whole image: [n, h, w, c] to [n, c]."""
    images = _images(x)
    if 0 in images.shape[1:3]:
        raise ValueError(f"x has shape {images.shape}: its images have no pixels to take the mean of")
    return avg_pool2d(images, images.shape[1:3])[:, 0, 0]


def _windows(
    images: Array, pool_size: int | Sequence[int], strides: int | Sequence[int] | None, padding: Padding
) -> Geometry:
    kernel = pair(pool_size, "pool_size")
    place = windows(
        (images.shape[1], images.shape[2]), kernel, kernel if strides is None else strides, padding
    )
    for size, reach, out, step, before in zip(
        images.shape[1:3], kernel, place.out, place.strides, place.before, strict=True
    ):
        if out > 0 and (before >= reach or (out - 1) * step - before >= size):
            raise ValueError(
                f"padding is {padding!r}, which leaves windows of pool_size {kernel} with no element of x, "
                f"of shape {images.shape}; expected less on each side than a window has"
            )
    return Geometry(kernel, place)
