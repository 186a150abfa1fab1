"""Convolutions over images [batch, height, width, channels]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..ops._windows import Windows, pair, windows
from .affine import Affine
from .base import Shape, Slots, image_shape


class _Convolution(Affine):
    """Strides, padding, dilation and groups."""

    kind = "conv2d"

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int],
        padding: Any,
        data_format: str | None,
        dilation_rate: int | Sequence[int],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.kernel_size = pair(kernel_size, f"kernel_size of layer {self.name!r}")
        self.strides = pair(strides, f"strides of layer {self.name!r}")
        self.dilation_rate = pair(dilation_rate, f"dilation_rate of layer {self.name!r}")
        self.padding = padding
        self.data_format = channels_last(data_format, self.name)
        self._windows(
            (self.kernel_size[0] * self.dilation_rate[0], self.kernel_size[1] * self.dilation_rate[1])
        )

    @property
    def _groups(self) -> int:
        raise NotImplementedError

    @property
    def _filters(self) -> int:
        raise NotImplementedError

    def _windows(self, size: tuple[int, int]) -> Windows:
        return windows(size, self.kernel_size, self.strides, self.padding, self.dilation_rate)

    def _kernel(self) -> np.ndarray:
        """Return the kernel as [height, width, channels / groups, filters]."""
        return self.kernel.value.reshape(*self.kernel_size, -1, self._filters)

    def product(self, x: np.ndarray, bias: np.ndarray | None, activation: str) -> np.ndarray:
        return ops.conv2d(
            x,
            self._kernel(),
            bias,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=self._groups,
            activation=activation,
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        height, width, _ = image_shape(input_shape, self.name)
        out = self._windows((height, width)).out
        if 0 in out:
            raise ValueError(
                f"Layer {self.name!r}: a kernel of {self.kernel_size} (dilation {self.dilation_rate}) does "
                f"not fit into images of {height} x {width}. Use larger images, a smaller kernel or "
                "padding='same'."
            )
        return input_shape[0], *out, self._filters

    def lower(self, slots: Slots) -> dict[str, Any]:
        assert self.input_shape is not None
        height, width, _ = image_shape(self.input_shape, self.name)
        place = self._windows((height, width))
        geometry = (*place.out, *place.strides, *place.dilation, *place.before, self._groups)
        return super().lower(slots) | {"kernel": self._kernel(), "geometry": geometry}


class Conv2D(_Convolution):
    """``activation(convolution(x, kernel) + bias)``: `filters` filters at every place of the images.

    Parameters
    ----------
    filters : int
        Number of channels of the output.
    kernel_size : int or (int, int)
        Height and width of the filters.
    strides : int or (int, int)
    padding : {"valid", "same"}, int or ((top, bottom), (left, right))
        Zeros around the images: none; so many that the output is as large as the input (over `strides`); the
        same number on all sides; or as told.
    data_format : None or "channels_last"
        Images are [batch, height, width, channels].
    dilation_rate : int or (int, int)
        Steps between a filter's elements.
    groups : int
        The channels are cut into so many groups, each with filters of its own.
    activation : str or function of tilefuse.ops, optional
        As for `Dense`.
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer : str or L1L2, optional
        Penalties, added to the loss.
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Raises
    ------
    ValueError
        An argument is not as above; or, when it is built, `groups` does not divide the channels or the
        filters do not fit into the images.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> layer = tilefuse.layers.Conv2D(8, 3, padding="same", activation="relu")
    >>> layer(np.ones((2, 28, 28, 1))).shape, [w.shape for w in layer.weights]
    ((2, 28, 28, 8), [(3, 3, 1, 8), (8,)])
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = (1, 1),
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        self.filters, self.groups = filters, groups
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            **kwargs,
        )
        _positive(filters, "filters", self.name)
        _positive(groups, "groups", self.name)
        if filters % groups:
            raise ValueError(f"Layer {self.name!r}: {filters} filters cannot be cut into {groups} groups.")

    @property
    def _groups(self) -> int:
        return self.groups

    @property
    def _filters(self) -> int:
        return self.filters

    def build(self, input_shape: Shape) -> None:
        channels = image_shape(input_shape, self.name)[2]
        if channels % self.groups:
            raise ValueError(
                f"Layer {self.name!r}: the {channels} channels of its input cannot be cut into "
                f"{self.groups} groups."
            )
        super().build(input_shape)
        self.add_weights((*self.kernel_size, channels // self.groups, self.filters), self.filters)


class DepthwiseConv2D(_Convolution):
    """A convolution of each channel by itself, with `depth_multiplier` filters for each.

    Parameters
    ----------
    kernel_size : int or (int, int)
    strides, padding
        As for `Conv2D`.
    depth_multiplier : int
        The output has so many channels for each of the input's.
    data_format, dilation_rate
        As for `Conv2D`.
    activation, use_bias
        As for `Conv2D`.
    depthwise_initializer, bias_initializer : str or Initializer
    depthwise_regularizer, bias_regularizer : str or L1L2, optional
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Raises
    ------
    ValueError
        As for `Conv2D`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> layer = tilefuse.layers.DepthwiseConv2D(3, padding="same")
    >>> layer(np.ones((2, 28, 28, 16))).shape, layer.kernel.shape
    ((2, 28, 28, 16), (3, 3, 16, 1))
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = (1, 1),
        padding: Any = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        self.depth_multiplier = depth_multiplier
        self._channels = 1
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            depthwise_initializer,
            bias_initializer,
            depthwise_regularizer,
            bias_regularizer,
            **kwargs,
        )
        _positive(depth_multiplier, "depth_multiplier", self.name)

    # as Keras calls them
    depthwise_initializer = property(lambda self: self.kernel_initializer)
    depthwise_regularizer = property(lambda self: self.kernel_regularizer)

    @property
    def _groups(self) -> int:
        return self._channels

    @property
    def _filters(self) -> int:
        return self._channels * self.depth_multiplier

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = image_shape(input_shape, self.name)[2]
        return *super().compute_output_shape(input_shape)[:-1], channels * self.depth_multiplier

    def build(self, input_shape: Shape) -> None:
        self._channels = image_shape(input_shape, self.name)[2]
        super().build(input_shape)
        self.add_weights((*self.kernel_size, self._channels, self.depth_multiplier), self._filters)


def channels_last(data_format: str | None, name: str) -> str:
    """Return the one layout of images there is; ValueError for another."""
    if data_format not in (None, "channels_last"):
        raise ValueError(
            f"Layer {name!r}: data_format is {data_format!r}; expected 'channels_last', images of "
            "[batch, height, width, channels]. For channels first: np.moveaxis(images, 1, -1)."
        )
    return "channels_last"


def _positive(value: Any, name: str, layer: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"Layer {layer!r}: {name} is {value!r}; expected a positive integer.")
