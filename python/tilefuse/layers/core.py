"""The layers of dense networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from .._runtime import next_seed
from .affine import Affine, activate, activation_name, lowered_activation
from .base import Layer, Shape, Slots


class Dense(Affine):
    """``activation(x @ kernel + bias)`` over the last axis.

    Parameters
    ----------
    units : int
        Length of the output's last axis.
    activation : str or function of tilefuse.ops, optional
        relu, leaky_relu, elu, selu, gelu, gelu_tanh, silu, sigmoid, tanh, softplus, softmax, log_softmax or
        linear.
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer : str or L1L2, optional
        Penalties, added to the loss.
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Raises
    ------
    ValueError
        `units` is not positive, or a name is not known.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> layer = tilefuse.layers.Dense(3, "relu")
    >>> layer(np.ones((2, 5))).shape, [w.shape for w in layer.weights]
    ((2, 3), [(5, 3), (3,)])
    """

    kind = "dense"

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            **kwargs,
        )
        if isinstance(units, bool) or not isinstance(units, (int, np.integer)) or units < 1:
            raise ValueError(f"Dense takes a positive integer as units, got {units!r}.")
        self.units = int(units)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                f"Layer {self.name!r} takes inputs [batch, ..., features], got the shape {input_shape}."
            )
        super().build(input_shape)
        self.add_weights((input_shape[-1], self.units), self.units)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return *input_shape[:-1], self.units

    def product(self, x: np.ndarray, bias: np.ndarray | None, activation: str) -> np.ndarray:
        return ops.dense(x, self.kernel.value, bias, activation=activation)


class Activation(Layer):
    """An activation as a layer of its own.

    Parameters
    ----------
    activation : str or function of tilefuse.ops
        As for `Dense`.
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> tilefuse.layers.Activation("relu")(np.array([[-1.0, 2.0]]))
    array([[0., 2.]], dtype=float32)
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation_name(activation)

    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        return activate(x, self.activation)

    def lower(self, slots: Slots) -> dict[str, Any]:
        return {"kind": "activation", "name": self.name} | lowered_activation(self.activation)


class Dropout(Layer):
    """Sets a fraction of its input to 0 while training, and scales the rest so that the mean stays.

    The mask follows from the seed, the step and the element's place: it is the same for any number of
    threads. In eager code a step is a call with ``training=True``, in a compiled one an update of the
    optimizer.

    Parameters
    ----------
    rate : float
        The fraction, at least 0 and less than 1.
    seed : int, optional
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> x = np.ones((1, 100), np.float32)
    >>> dropout = tilefuse.layers.Dropout(0.5, seed=1)
    >>> bool((dropout(x) == x).all()), np.unique(dropout(x, training=True))
    (True, array([0., 2.], dtype=float32))
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout takes a rate of at least 0 and less than 1, got {rate!r}.")
        self.rate, self.seed = float(rate), seed
        self._key = next_seed() if seed is None else int(seed)
        self._calls = 0

    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        if not training or self.rate == 0:
            return x
        y, _ = ops.dropout(x, self.rate, seed=self._key, step=self._calls)
        self._calls += 1
        return y

    def lower(self, slots: Slots) -> dict[str, Any]:
        return {"kind": "dropout", "name": self.name, "rate": self.rate, "seed": self._key}

    def random_state(self) -> dict[str, int]:
        return {"seed": self._key, "calls": self._calls}

    def set_random_state(self, state: dict[str, int]) -> None:
        self._key, self._calls = state["seed"], state["calls"]
