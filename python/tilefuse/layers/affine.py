"""What `Dense` and the convolutions share: a kernel, a bias and an activation."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import initializers, ops, regularizers
from .._config import find
from ..variables import Variable
from .base import Layer, Slots

# Activations that the product can undo from its output alone; the others are an operation of their own.
_IN_PRODUCT = ("linear", "relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus")
_ALPHA = {"leaky_relu": 0.2, "elu": 1.0}
_ACTIVATIONS = {
    name: name for name in (*_IN_PRODUCT, "silu", "gelu", "gelu_tanh", "softmax", "log_softmax")
} | {"swish": "silu"}


class Affine(Layer):
    """``activation(product(x, kernel) + bias)``; a subclass says which product.

    Parameters
    ----------
    activation : str or function of tilefuse.ops, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer : str or L1L2, optional
    **kwargs
        As for every `Layer`.
    """

    kernel: Variable
    bias: Variable | None

    #: The layer's kind in the compiled step.
    kind: str

    def __init__(
        self,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.activation, self.use_bias = activation_name(activation), use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)

    def product(self, x: np.ndarray, bias: np.ndarray | None, activation: str) -> np.ndarray:
        """Return ``activation(product(x, kernel) + bias)``."""
        raise NotImplementedError

    def add_weights(self, kernel: tuple[int, ...], units: int) -> None:
        """Make a kernel of this shape, and a bias for each of `units`."""
        self.kernel = self.add_weight(kernel, self.kernel_initializer, "kernel")
        self.bias = self.add_weight((units,), self.bias_initializer, "bias") if self.use_bias else None

    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        bias = None if self.bias is None else self.bias.value
        if self.activation in _IN_PRODUCT:
            return self.product(x, bias, self.activation)
        return activate(self.product(x, bias, "linear"), self.activation)

    def lower(self, slots: Slots) -> dict[str, Any]:
        lowered = {"kind": self.kind, "name": self.name, "trainable": self.trainable}
        lowered |= lowered_activation(self.activation)
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
        return [
            ("kernel", self.kernel, self.kernel_regularizer),
            ("bias", self.bias, self.bias_regularizer),
        ]


def activation_name(activation: Any) -> str:
    """Return the name of an activation given as None, a name or a function of `tilefuse.ops`.

    Raises
    ------
    ValueError
        There is none of that name.
    TypeError
        It is something else.
    """
    if activation is None:
        return "linear"
    name = getattr(activation, "__name__", activation)
    if not isinstance(name, str):
        raise TypeError(f"An activation is a name or a function of tilefuse.ops, got {activation!r}.")
    return str(find("activation", name, _ACTIVATIONS))


def lowered_weight(
    layer: Layer, name: str, variable: Variable | None, penalty: regularizers.L1L2 | None, slots: Slots
) -> dict[str, Any]:
    """Return a layer's weight as the compiled step takes it."""
    return {
        name: None if variable is None else variable.value,
        f"{name}_slots": slots(variable) if variable is not None and layer.trainable else [],
        f"{name}_l1": penalty.l1 if penalty else 0.0,
        f"{name}_l2": penalty.l2 if penalty else 0.0,
    }


def lowered_activation(name: str) -> dict[str, Any]:
    """Return an activation as the compiled step takes it."""
    return {"activation": name, "alpha": _ALPHA.get(name, 0.0)}


def activate(x: np.ndarray, name: str) -> np.ndarray:
    """Return the activation called `name` of `x`."""
    if name == "linear":
        return x
    if name == "gelu_tanh":
        return ops.gelu(x, approximate=True)
    return getattr(ops, name)(x)
