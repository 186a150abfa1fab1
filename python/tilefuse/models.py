"""Sequential: layers one after the other, as one thing to train, evaluate, save and look into."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from . import _arrays
from . import layers as layers_module
from ._runtime import default_dtype, next_seed
from .layers import Input, Layer
from .layers.base import Shape
from .training import Trainer
from .variables import Variable

__all__ = ["Sequential", "load_model"]


class Sequential(Trainer):
    """A stack of layers.

    It is built, that is, its weights exist, as soon as the shape of a sample is known: from an `Input` at the start,
    from the first layer's ``input_shape``, or from the first data that it sees.

    Parameters
    ----------
    layers : sequence of Layer, optional
        The first may be an `Input`.
    trainable : bool
        False freezes all layers.
    name : str, optional

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> from tilefuse import layers
    >>> model = tilefuse.Sequential([tilefuse.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")])
    >>> model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    >>> x = np.random.default_rng(0).normal(size=(64, 4))
    >>> history = model.fit(x, x[:, 0] > 0, epochs=2, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'loss']
    >>> model.predict(x).shape
    (64, 1)
    """

    def __init__(
        self, layers: Sequence[Layer | Input] | None = None, trainable: bool = True, name: str | None = None
    ) -> None:
        super().__init__()
        self.name = name or "sequential"
        self._layers: list[Layer] = []
        self._input_shape: Shape | None = None
        # Shuffling follows from this seed and the number of epochs trained.
        self.seed = next_seed()
        for layer in layers or []:
            self.add(layer)
        if not trainable:
            self.trainable = False

    # Structure

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
            hint = (
                " To use another model's layers, write *model.layers."
                if isinstance(layer, Sequential)
                else ""
            )
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
        self._forget_programs()
        if len(self._layers) == 1 and self._input_shape is None:
            given = layer.given_input_shape
            self._input_shape = layer.input_shape if given is None else (None, *given)
        if self._input_shape is not None:
            self.build(self._input_shape)

    def pop(self) -> Layer:
        """Remove the last layer and return it."""
        if not self._layers:
            raise ValueError("There is no layer to remove.")
        self._forget_programs()
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
        """The penalties on the weights, each a 0-d array; computed when asked for, and recorded by an active tape."""
        return [loss for layer in self._layers for loss in layer.losses()]

    @property
    def trainable(self) -> bool:
        """Whether any layer trains; setting it sets it for all layers. Takes effect at once, without `compile`."""
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

    # Words and files

    def summary(self, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print a table of the layers: name and type, shape of the output, number of parameters.

        Parameters
        ----------
        line_length : int, optional
            Width of the rules; that of the table by default.
        print_fn : callable, optional
            Called with the text instead of `print`.
        """
        rows = [("Layer (type)", "Output shape", "Parameters")]
        for layer in self._layers:
            count = f"{layer.count_params():,}" if layer.built else "?"
            frozen = "" if layer.trainable or not layer.weights else " (frozen)"
            rows.append(
                (f"{layer.name} ({type(layer).__name__})", str(layer.output_shape or "?"), count + frozen)
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        rule = "-" * (line_length or sum(widths) + 4)
        trainable = sum(w.size for w in self.trainable_weights)
        size = sum(w.value.nbytes for w in self.weights)
        total = (
            f"Parameters: {self.count_params():,} ({size / 1024:,.1f} KiB), trainable: {trainable:,}"
            if self.built
            else "Not built yet: the shape of the input is not known."
        )
        text = "\n".join([f"Model: {self.name}", rule, lines[0], rule, *lines[1:], rule, total])
        (print_fn or print)(text)

    def get_config(self) -> dict[str, Any]:
        """Return the architecture as a dict that JSON can hold."""
        layers = [
            {"class_name": type(layer).__name__, "config": layer.get_config()} for layer in self._layers
        ]
        shape = None if self._input_shape is None else list(self._input_shape[1:])
        return {"name": self.name, "input_shape": shape, "layers": layers}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return a new model, with new weights, made from `get_config`'s dict."""
        model = cls(name=config["name"])
        if config["input_shape"] is not None:
            model.add(Input(config["input_shape"]))
        for layer in config["layers"]:
            model.add(layers_module.from_config(layer))
        return model

    def save(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the model to one safetensors file: architecture, weights, and the state of the training.

        Training that goes on from the file gives the same bits as training that never stopped. The file appears
        complete or not at all.

        Parameters
        ----------
        filepath : str or path
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        OSError
            The file cannot be written; an older one is left as it was.
        FileExistsError
            It exists, and `overwrite` is False.
        """
        from . import saving

        saving.save_model(self, filepath, overwrite)

    @classmethod
    def load(cls, filepath: str | os.PathLike[str]) -> Sequential:
        """Return the model of a file that `save` wrote; the same as `tilefuse.load_model`."""
        return load_model(filepath)

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the weights alone; arguments and errors as for `save`."""
        from . import saving

        saving.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Read the weights of a file that `save` or `save_weights` wrote into this model.

        Raises
        ------
        ValueError
            The file is no model, is damaged, or has other weights.
        """
        from . import saving

        saving.load_weights(self, filepath)

    def __repr__(self) -> str:
        return f"<Sequential name={self.name}, layers={len(self._layers)}, built={self.built}>"

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


def load_model(
    filepath: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> Sequential:
    """Return the model of a file that `Sequential.save` wrote.

    Parameters
    ----------
    filepath : str or path
    custom_objects : mapping of str to class or function, optional
        Metrics, initializers and schedules of your own that the model uses, by name.
    compile : bool
        Whether to restore optimizer, loss and metrics too.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no model of tilefuse, or is damaged.

    Examples
    --------
    >>> import tempfile, os, tilefuse
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> tilefuse.Sequential([tilefuse.Input((4,)), tilefuse.layers.Dense(2)]).save(path)
    >>> tilefuse.load_model(path).output_shape
    (None, 2)
    """
    from . import saving

    return saving.load_model(filepath, custom_objects, compile)
