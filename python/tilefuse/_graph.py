"""The layers of a model: which takes whose output, how they are built and named, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _arrays
from ._runtime import default_dtype
from .layers import Layer, Symbol
from .layers.symbol import Shape
from .variables import Variable

#: In place of a layer's number: the input of the model.
INPUT = -1


class Graph:
    """Layers, each after those whose outputs it takes; the part of a model that knows nothing of training."""

    def __init__(self) -> None:
        self._layers: list[Layer] = []
        self._feeds: list[tuple[int, ...]] = []  # of each layer: numbers of layers, or INPUT
        self._input: Symbol | None = None
        self._output: Symbol | None = None

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the `Input`."""
        return list(self._layers)

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return self._output is not None and bool(self._layers)

    @property
    def input_shape(self) -> Shape | None:
        """The shape of the input, None for the batch axis; None before the model is built."""
        return None if self._input is None else self._input.shape

    @property
    def output_shape(self) -> Shape | None:
        """The shape of the output, None for the batch axis; None before the model is built."""
        return self._output.shape if self._output is not None and self._layers else None

    @property
    def input(self) -> Symbol:
        """The symbol where the model begins; ValueError before the shape of its input is known."""
        return self._known(self._input)

    @property
    def output(self) -> Symbol:
        """The symbol where the model ends, and another may go on; ValueError before it is built."""
        return self._known(self._output)

    @staticmethod
    def _known(symbol: Symbol | None) -> Symbol:
        if symbol is None:
            raise ValueError("This model is not built: give it an Input, or call build((None, ...)).")
        return symbol

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of weights, inputs and outputs."""
        return self._layers[0].dtype if self._layers else default_dtype()

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

    def build(self, input_shape: Shape) -> None:
        """Make the weights: of a model that has an Input they exist already.

        Parameters
        ----------
        input_shape : tuple
            With the batch axis, as in Keras: ``(None, 784)``.

        Raises
        ------
        ValueError
            A layer was built for another shape, or cannot take the one that reaches it.
        """
        shape = (None, *input_shape[1:])
        if self._input is None or self._input.shape != shape:
            self._input = Symbol(shape)
        self._output = self._applied_to(self._input)

    def __call__(self, x: Any, training: bool = False) -> Any:
        """Return the output for a batch `x`, computed layer by layer and recorded by an active tape.

        Parameters
        ----------
        x : array [n, ...] or Symbol
            For a symbol the result is one, too: the model's layers become layers of another model.
        training : bool
            Whether dropout is at work, and batch normalisation takes the batch's own mean and variance.

        Returns
        -------
        array [n, ...], or Symbol
        """
        if not self._layers:
            raise ValueError("This model has no layers; add some first.")
        if isinstance(x, Symbol):
            return self._applied_to(x)
        if not self.built:
            self.build((None, *_arrays.as_array(x, "x").shape[1:]))
        outputs: list[Any] = []
        for layer, sources in zip(self._layers, self._feeds, strict=True):
            inputs = [x if source == INPUT else outputs[source] for source in sources]
            outputs.append(layer(inputs[0] if len(inputs) == 1 else inputs, training=training))
        return outputs[-1]

    def _applied_to(self, x: Symbol) -> Symbol:
        symbols: list[Symbol] = []
        for layer, sources in zip(self._layers, self._feeds, strict=True):
            symbols.append(
                layer.symbol_of(*(x if source == INPUT else symbols[source] for source in sources))
            )
        return symbols[-1] if symbols else x

    def _append(self, layer: Layer, sources: tuple[int, ...]) -> None:
        if not isinstance(layer, Layer):
            hint = " To use another model's layers, write *model.layers." if isinstance(layer, Graph) else ""
            raise TypeError(
                f"A model is made of layers from tilefuse.layers; got {layer!r} of type "
                f"{type(layer).__name__}.{hint}"
            )
        if self._layers and layer.dtype != self.dtype:
            raise ValueError(
                f"Layer {layer.name!r} has dtype {layer.dtype}, but the model has {self.dtype}. Call "
                "set_precision before making the layers."
            )
        self._give_unique_name(layer)
        self._layers.append(layer)
        self._feeds.append(sources)
        self._changed()

    def _take(self, start: Symbol, end: Symbol) -> None:
        """Take the layers that lie between two symbols, each after those whose outputs it takes."""
        numbers: dict[int, int] = {id(start): INPUT}
        waiting = [end]
        while waiting:
            symbol = waiting[-1]
            before = [source for source in symbol.sources if id(source) not in numbers]
            if id(symbol) in numbers or before == []:
                waiting.pop()
            if id(symbol) in numbers:
                continue
            if symbol.layer is None:
                raise ValueError(
                    f"The output depends on {symbol}, which is not the input of this model: {start}. A model "
                    "has one input and one output, and all between them."
                )
            if before:
                waiting += reversed(before)
                continue
            self._append(symbol.layer, tuple(numbers[id(source)] for source in symbol.sources))
            numbers[id(symbol)] = len(self._layers) - 1
        self._input, self._output = start, end

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
        if any(layer is other for other in self._layers):
            raise ValueError(
                f"Layer {layer.name!r} is in this model already. Layers that share weights are not "
                "supported: make another one."
            )
        taken = {other.name for other in self._layers}
        if layer.name not in taken:
            return
        if layer.has_given_name:
            raise ValueError(
                f"This model has a layer {layer.name!r} already; the names of its layers must differ."
            )
        number = 1
        while f"{layer.name}_{number}" in taken:
            number += 1
        layer.rename(f"{layer.name}_{number}")
