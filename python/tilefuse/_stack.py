"""The layers of a model: how they are stacked, built and named, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _arrays
from ._runtime import default_dtype
from .layers import Input, Layer
from .layers.base import Shape
from .variables import Variable


class Stack:
    """Layers one after the other; the part of `Sequential` that knows nothing of training."""

    def __init__(self) -> None:
        self._layers: list[Layer] = []
        self._input_shape: Shape | None = None

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the `Input`."""
        return list(self._layers)

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return self._input_shape is not None and bool(self._layers)

    @property
    def input_shape(self) -> Shape | None:
        """The shape of the input, None for the batch axis; None before the model is built."""
        return self._input_shape

    @property
    def output_shape(self) -> Shape | None:
        """The shape of the output, None for the batch axis; None before the model is built."""
        return self._layers[-1].output_shape if self.built else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of weights, inputs and outputs."""
        return self._layers[0].dtype if self._layers else default_dtype()

    def add(self, layer: Layer | Input) -> None:
        """Append a layer.

        Raises
        ------
        TypeError
            It is not a layer.
        ValueError
            Its name is taken, its dtype is another than the model's, or its input does not fit.
        """
        if isinstance(layer, Input):
            if self._layers or self._input_shape is not None:
                raise ValueError(
                    "Input comes first in a Sequential, and once; this model has layers already."
                )
            self._input_shape = layer.shape
            return
        if not isinstance(layer, Layer):
            hint = " To use another model's layers, write *model.layers." if isinstance(layer, Stack) else ""
            raise TypeError(
                f"A Sequential is made of layers from tilefuse.layers; got {layer!r} of type "
                f"{type(layer).__name__}.{hint}"
            )
        if self._layers and layer.dtype != self.dtype:
            raise ValueError(
                f"Layer {layer.name!r} has dtype {layer.dtype}, but the model has {self.dtype}. Call "
                "set_precision before making the layers."
            )
        self._give_unique_name(layer)
        self._layers.append(layer)
        self._changed()
        if len(self._layers) == 1 and self._input_shape is None:
            given = layer.given_input_shape
            self._input_shape = layer.input_shape if given is None else (None, *given)
        if self._input_shape is not None:
            self.build(self._input_shape)

    def pop(self) -> Layer:
        """Remove the last layer and return it."""
        if not self._layers:
            raise ValueError("There is no layer to remove.")
        self._changed()
        return self._layers.pop()

    def build(self, input_shape: Shape) -> None:
        """Make the weights.

        Parameters
        ----------
        input_shape : tuple
            With the batch axis, as in Keras: ``(None, 784)``.

        Raises
        ------
        ValueError
            A layer was built for another shape, or cannot take the one that reaches it.
        """
        shape: Shape = (None, *input_shape[1:])
        self._input_shape = shape
        for layer in self._layers:
            if not layer.built:
                layer.build(shape)
            elif layer.input_shape != shape:
                raise ValueError(
                    f"Layer {layer.name!r} was built for inputs of shape {layer.input_shape}, but here it "
                    f"gets {shape}."
                )
            shape = layer.compute_output_shape(shape)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return the layer called `name`, or number `index`."""
        if (name is None) == (index is None):
            raise ValueError("get_layer takes a name or an index, and not both.")
        if index is not None:
            return self._layers[index]
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise ValueError(
            f"This model has no layer {name!r}; it has {[layer.name for layer in self._layers]}."
        )

    def __call__(self, x: Any, training: bool = False) -> np.ndarray:
        """Return the output for a batch `x`, computed layer by layer and recorded by an active tape.

        Parameters
        ----------
        x : array [n, ...]
        training : bool
            Whether dropout is at work.

        Returns
        -------
        array [n, ...]
        """
        if not self._layers:
            raise ValueError("This model has no layers; add some first.")
        if not self.built:
            self.build((None, *_arrays.as_array(x, "x").shape[1:]))
        for layer in self._layers:
            x = layer(x, training=training)
        return x

    # Weights

    @property
    def weights(self) -> list[Variable]:
        """All weights, in the layers' order."""
        return [w for layer in self._layers for w in layer.weights]

    @property
    def trainable_weights(self) -> list[Variable]:
        """Those that training changes."""
        return [w for layer in self._layers for w in layer.trainable_weights]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """Those of frozen layers."""
        return [w for layer in self._layers for w in layer.non_trainable_weights]

    variables = property(lambda self: self.weights, doc="The same as `weights`.")
    trainable_variables = property(
        lambda self: self.trainable_weights, doc="The same as `trainable_weights`."
    )
    non_trainable_variables = property(
        lambda self: self.non_trainable_weights, doc="The same as `non_trainable_weights`."
    )

    @property
    def losses(self) -> list[np.ndarray]:
        """The penalties on the weights, each a 0-d array, computed now and recorded by an active tape."""
        return [loss for layer in self._layers for loss in layer.losses()]

    @property
    def trainable(self) -> bool:
        """Whether any layer trains. Setting it sets all layers, at once, without another `compile`."""
        return any(layer.trainable for layer in self._layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self._layers:
            layer.trainable = bool(value)

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of all weights."""
        return [w.numpy() for w in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Copy `weights`, in the order of `get_weights`, into the model's.

        Raises
        ------
        ValueError
            Their number or a shape differs; then nothing is changed.
        """
        own = self.weights
        if len(weights) != len(own):
            hint = "" if self.built else " It is not built yet: give it an Input, or call build((None, ...))."
            raise ValueError(f"This model has {len(own)} weights, got {len(weights)}.{hint}")
        for variable, value in zip(own, weights, strict=True):
            if np.shape(value) != variable.shape:
                raise ValueError(
                    f"Weight {variable.path!r} has shape {variable.shape}, got {np.shape(value)}."
                )
        for variable, value in zip(own, weights, strict=True):
            variable.assign(value)

    def count_params(self) -> int:
        """Return the number of weights' elements."""
        return sum(w.size for w in self.weights)

    def _changed(self) -> None:
        """Be called when a layer comes or goes."""

    def _give_unique_name(self, layer: Layer) -> None:
        taken = {other.name for other in self._layers}
        if layer.name not in taken:
            return
        if layer.has_given_name or any(layer is other for other in self._layers):
            raise ValueError(
                f"This model has a layer {layer.name!r} already; the names of its layers must differ."
            )
        number = 1
        while f"{layer.name}_{number}" in taken:
            number += 1
        layer.rename(f"{layer.name}_{number}")
