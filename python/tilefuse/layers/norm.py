"""Normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import initializers, ops, regularizers
from ..variables import Variable
from .affine import lowered_weight
from .base import Layer, Shape, Slots


class _Normalization(Layer):
    """A factor gamma and a shift beta for each number of the last axis, and where they come from."""

    #: The layer's kind in the compiled step.
    kind: str

    def __init__(
        self,
        axis: int | Sequence[int],
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not epsilon > 0:
            raise ValueError(f"Layer {self.name!r}: epsilon is {epsilon!r}; expected a positive number.")
        self.axis, self.epsilon, self.center, self.scale = axis, float(epsilon), center, scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)

    def build(self, input_shape: Shape) -> None:
        axis = self.axis[0] if isinstance(self.axis, Sequence) and len(self.axis) == 1 else self.axis
        if len(input_shape) < 2 or axis not in (-1, len(input_shape) - 1) or input_shape[-1] is None:
            raise ValueError(
                f"Layer {self.name!r} normalises over the last axis: axis is {self.axis!r}, and the input "
                f"has the shape {input_shape}."
            )
        super().build(input_shape)
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape, self.gamma_initializer, "gamma") if self.scale else None
        self.beta = self.add_weight(shape, self.beta_initializer, "beta") if self.center else None

    def lower(self, slots: Slots) -> dict[str, Any]:
        lowered: dict[str, Any] = {
            "kind": self.kind,
            "name": self.name,
            "trainable": self.trainable,
            "epsilon": self.epsilon,
        }
        for name, variable, penalty in self._parts():
            lowered |= lowered_weight(self, name, variable, penalty, slots)
        return lowered

    def losses(self) -> list[np.ndarray]:
        if not self.built:
            return []
        return [
            penalty(variable) for _, variable, penalty in self._parts() if penalty and variable is not None
        ]

    def _parts(self) -> list[tuple[str, Variable | None, regularizers.L1L2 | None]]:
        return [("gamma", self.gamma, self.gamma_regularizer), ("beta", self.beta, self.beta_regularizer)]


class BatchNormalization(_Normalization):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, with mean and variance of each channel.

    While training these are the batch's own, and moving averages follow them:
    ``moving = momentum * moving + (1 - momentum) * batch``. Otherwise, and where the layer is frozen
    (``trainable = False``), they are the moving averages. Ioffe and Szegedy, ICML 2015.

    In a compiled step the activation after it, and a sum with another branch, are part of it; without
    training it is part of the convolution before it.

    Parameters
    ----------
    axis : int
        The channels' axis: the last one.
    momentum : float
        Of the moving averages, from 0 to 1.
    epsilon : float
    center, scale : bool
        Whether there is beta, and gamma.
    beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer
        str or Initializer
    beta_regularizer, gamma_regularizer : str or L1L2, optional
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Raises
    ------
    ValueError
        An argument is not as above.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> layer = tilefuse.layers.BatchNormalization()
    >>> layer(np.array([[1.0], [3.0]]), training=True).round(2)
    array([[-1.],
           [ 1.]], dtype=float32)
    >>> [w.name for w in layer.non_trainable_weights]
    ['moving_mean', 'moving_variance']
    """

    kind = "batch_norm"

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis,
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            **kwargs,
        )
        if not 0 <= momentum <= 1:
            raise ValueError(f"Layer {self.name!r}: momentum is {momentum!r}; expected a number from 0 to 1.")
        self.momentum = float(momentum)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        shape = (int(input_shape[-1] or 0),)
        self.moving_mean = self.add_weight(
            shape, self.moving_mean_initializer, "moving_mean", trainable=False
        )
        self.moving_variance = self.add_weight(
            shape, self.moving_variance_initializer, "moving_variance", trainable=False
        )

    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        result = ops.batch_norm(
            x,
            _value(self.gamma),
            _value(self.beta),
            self.moving_mean.value,
            self.moving_variance.value,
            training=training and self.trainable,
            momentum=self.momentum,
            epsilon=self.epsilon,
        )
        return result[0] if isinstance(result, tuple) else result

    def lower(self, slots: Slots) -> dict[str, Any]:
        return super().lower(slots) | {
            "momentum": self.momentum,
            "moving_mean": self.moving_mean.value,
            "moving_variance": self.moving_variance.value,
        }


class LayerNormalization(_Normalization):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, with mean and variance of each last axis.

    Ba, Kiros and Hinton, 2016.

    Parameters
    ----------
    axis : int
        The last one.
    epsilon : float
    center, scale : bool
        Whether there is beta, and gamma.
    beta_initializer, gamma_initializer : str or Initializer
    beta_regularizer, gamma_regularizer : str or L1L2, optional
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Raises
    ------
    ValueError
        An argument is not as above.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> tilefuse.layers.LayerNormalization()(np.array([[1.0, 3.0]])).round(2)
    array([[-1.,  1.]], dtype=float32)
    """

    kind = "layer_norm"

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis,
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            **kwargs,
        )

    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        return ops.layer_norm(x, _value(self.gamma), _value(self.beta), epsilon=self.epsilon)


class RMSNormalization(_Normalization):
    """``scale * x / sqrt(mean(x**2) + epsilon)`` over the last axis. Zhang and Sennrich, NeurIPS 2019.

    Parameters
    ----------
    axis : int
        The last one.
    epsilon : float
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Raises
    ------
    ValueError
        An argument is not as above.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> tilefuse.layers.RMSNormalization()(np.array([[1.0, -1.0]])).round(2)
    array([[ 1., -1.]], dtype=float32)
    """

    kind = "rms_norm"

    def __init__(self, axis: int = -1, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(axis, epsilon, False, True, "zeros", "ones", None, None, **kwargs)

    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        return ops.rms_norm(x, _value(self.gamma), epsilon=self.epsilon)


def _value(variable: Variable | None) -> np.ndarray | None:
    return None if variable is None else variable.value
