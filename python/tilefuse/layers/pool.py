"""Pooling over images [batch, height, width, channels]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..ops._windows import Windows, pair, windows
from .base import Layer, Shape, Slots, image_shape
from .conv import channels_last
from .reshaping import reshaped


class _Pooling(Layer):
    """Windows over images; a subclass says what becomes of one."""

    #: The layer's kind in the compiled step, and the function of `tilefuse.ops`.
    kind: str

    def _place(self, shape: Shape) -> tuple[tuple[int, int], Windows]:
        """Return the size of the windows and where they lie."""
        raise NotImplementedError

    def lower(self, slots: Slots) -> dict[str, Any]:
        assert self.input_shape is not None
        size, place = self._place(self.input_shape)
        geometry = (*place.out, *place.strides, *place.dilation, *place.before, 1)
        return {"kind": self.kind, "name": self.name, "window": size, "geometry": geometry}


class _LocalPooling(_Pooling):
    def __init__(
        self,
        pool_size: int | Sequence[int] = (2, 2),
        strides: int | Sequence[int] | None = None,
        padding: Any = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size = pair(pool_size, f"pool_size of layer {self.name!r}")
        self.strides = self.pool_size if strides is None else pair(strides, f"strides of layer {self.name!r}")
        self.padding = padding
        self.data_format = channels_last(data_format, self.name)
        windows(self.pool_size, self.pool_size, self.strides, padding)  # says what is wrong with it

    def _place(self, shape: Shape) -> tuple[tuple[int, int], Windows]:
        height, width, _ = image_shape(shape, self.name)
        return self.pool_size, windows((height, width), self.pool_size, self.strides, self.padding)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, self.name)
        out = self._place(input_shape)[1].out
        if 0 in out:
            raise ValueError(
                f"Layer {self.name!r}: windows of {self.pool_size} do not fit into images of {height} x "
                f"{width}. Use larger images, smaller windows or padding='same'."
            )
        return input_shape[0], *out, channels

    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        return getattr(ops, self.kind)(x, self.pool_size, self.strides, self.padding)


class MaxPooling2D(_LocalPooling):
    """The largest value of each window.

    Parameters
    ----------
    pool_size : int or (int, int)
        Height and width of the windows.
    strides : int or (int, int), optional
        From window to window; `pool_size` by default.
    padding : {"valid", "same"}, int or ((top, bottom), (left, right))
        As for `Conv2D`; what is outside of the image never is the largest.
    data_format : None or "channels_last"
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Raises
    ------
    ValueError
        An argument is not as above; or, when it is built, the windows do not fit into the images.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> x = np.arange(16.0).reshape(1, 4, 4, 1)
    >>> tilefuse.layers.MaxPooling2D()(x)[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """

    kind = "max_pool2d"


class AveragePooling2D(_LocalPooling):
    """The mean of each window; of what lies in the image, where there is padding.

    Parameters
    ----------
    pool_size, strides, padding, data_format
        As for `MaxPooling2D`.
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Raises
    ------
    ValueError
        As for `MaxPooling2D`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> x = np.arange(16.0).reshape(1, 4, 4, 1)
    >>> tilefuse.layers.AveragePooling2D()(x)[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """

    kind = "avg_pool2d"


class _GlobalPooling(_Pooling):
    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format, self.keepdims = channels_last(data_format, self.name), keepdims

    def _place(self, shape: Shape) -> tuple[tuple[int, int], Windows]:
        size = image_shape(shape, self.name)[:2]
        return size, windows(size, size)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = image_shape(input_shape, self.name)[2]
        return (input_shape[0], 1, 1, channels) if self.keepdims else (input_shape[0], channels)

    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        y = getattr(ops, self.kind)(x, x.shape[1:3])
        return y if self.keepdims else reshaped(y, (None, y.shape[3]))

    def lower(self, slots: Slots) -> dict[str, Any]:
        assert self.output_shape is not None
        return super().lower(slots) | {"shape": self.output_shape[1:]}


class GlobalAveragePooling2D(_GlobalPooling):
    """The mean of each channel over the whole image: [n, h, w, c] to [n, c].

    Parameters
    ----------
    data_format : None or "channels_last"
    keepdims : bool
        Whether the result is [n, 1, 1, c] instead.
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> tilefuse.layers.GlobalAveragePooling2D()(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[3., 4.]], dtype=float32)
    """

    kind = "avg_pool2d"


class GlobalMaxPooling2D(_GlobalPooling):
    """The largest value of each channel over the whole image: [n, h, w, c] to [n, c].

    Parameters
    ----------
    data_format, keepdims
        As for `GlobalAveragePooling2D`.
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> tilefuse.layers.GlobalMaxPooling2D()(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[6., 7.]], dtype=float32)
    """

    kind = "max_pool2d"
