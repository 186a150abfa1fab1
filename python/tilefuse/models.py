"""Models: layers as one thing to train, evaluate, save and look into."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from . import layers as layers_module
from ._graph import INPUT
from .layers import Input, Layer, Symbol
from .training import Trainer

__all__ = ["Model", "Sequential", "load_model"]


class Model(Trainer):
    """What lies between an input and an output: a network with branches.

    Parameters
    ----------
    inputs : Input or Symbol
        Where it begins; with the ``output`` of another model's layer, it begins there.
    outputs : Symbol
        What its last layer gave.
    name : str, optional

    Raises
    ------
    TypeError
        They are not symbols.
    ValueError
        The output depends on another `Input`, or a layer occurs twice.

    Examples
    --------
    A residual block:

    >>> import tilefuse
    >>> from tilefuse.layers import Activation, BatchNormalization, Conv2D, Flatten, Dense
    >>> inputs = tilefuse.Input((8, 8, 16))
    >>> x = Activation("relu")(BatchNormalization()(Conv2D(16, 3, padding="same")(inputs)))
    >>> x = BatchNormalization()(Conv2D(16, 3, padding="same")(x))
    >>> x = Activation("relu")(x + inputs)
    >>> model = tilefuse.Model(inputs, Dense(10)(Flatten()(x)))
    >>> model.output_shape
    (None, 10)

    Transfer learning: a trained network's layers, frozen, and a new head:

    >>> for layer in model.layers:
    ...     layer.trainable = False
    >>> head = Dense(3, "softmax", name="head")(model.layers[-2].output)
    >>> [w.path for w in tilefuse.Model(model.input, head).trainable_weights]
    ['head/kernel', 'head/bias']
    """

    def __init__(self, inputs: Symbol, outputs: Symbol, name: str | None = None) -> None:
        super().__init__()
        self.name = name or "model"
        for what, given in (("inputs", inputs), ("outputs", outputs)):
            if isinstance(given, (list, tuple)) and len(given) == 1:
                given = given[0]
            if not isinstance(given, Symbol):
                raise TypeError(
                    f"{what} is {given!r}; expected one symbol: an Input, or what a layer gave for one. (A "
                    "model has one input and one output.)"
                )
        start, end = (each[0] if isinstance(each, (list, tuple)) else each for each in (inputs, outputs))
        self._take(start, end)

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
            {"class_name": type(layer).__name__, "config": layer.get_config(), "sources": list(sources)}
            for layer, sources in zip(self._layers, self._feeds, strict=True)
        ]
        shape = None if self.input_shape is None else list(self.input_shape[1:])
        return {"name": self.name, "input_shape": shape, "precision": self.precision, "layers": layers}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return a new model, with new weights, made from `get_config`'s dict."""
        inputs = Input(config["input_shape"])
        symbols: list[Symbol] = []
        for entry in config["layers"]:
            sources = [inputs if source == INPUT else symbols[source] for source in entry["sources"]]
            symbols.append(layers_module.from_config(entry).symbol_of(*sources))
        model = cls(inputs, symbols[-1], config["name"])
        model.precision = config.get("precision", model.precision)
        return model

    def save(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the model to one safetensors file: architecture, weights, and the state of the training.

        Training that goes on from the file gives the same bits as training that never stopped. The file
        appears complete or not at all.

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

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "onnx",
        overwrite: bool = True,
        verbose: Any = None,
    ) -> None:
        """Write what the model computes without training, for other runtimes; see `interop.onnx.export`.

        Parameters
        ----------
        filepath : str or path
        format : "onnx"
            Keras's other formats are not there.
        overwrite : bool
            Whether an existing file may be replaced.
        verbose : object
            As in Keras; without effect.

        Raises
        ------
        ValueError
            `format` is another, or the model is not built.
        ImportError
            onnx is not installed.
        OSError
            The file cannot be written; an older one is left as it was.
        FileExistsError
            It exists, and `overwrite` is False.
        """
        from .interop import onnx

        if format != "onnx":
            raise ValueError(f"format is {format!r}; expected 'onnx', the one that there is.")
        onnx.export(self, filepath, overwrite)

    @classmethod
    def load(cls, filepath: str | os.PathLike[str]) -> Model:
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
        return f"<{type(self).__name__} name={self.name}, layers={len(self._layers)}, built={self.built}>"


class Sequential(Model):
    """A stack of layers.

    It is built, that is, its weights exist, as soon as the shape of a sample is known: from an `Input` at the
    start, from the first layer's ``input_shape``, or from the first data that it sees.

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
    >>> model = tilefuse.Sequential([layers.Dense(8, "relu", input_shape=(4,)), layers.Dense(1, "sigmoid")])
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
        Trainer.__init__(self)
        self.name = name or "sequential"
        for layer in layers or []:
            self.add(layer)
        if not trainable:
            self.trainable = False

    def add(self, layer: Layer | Input) -> None:
        """Append a layer.

        Raises
        ------
        TypeError
            It is not a layer.
        ValueError
            Its name is taken, its dtype is another than the model's, or its input does not fit.
        """
        if isinstance(layer, Symbol):
            if not isinstance(layer, Input) or self._layers or self._input is not None:
                raise ValueError(
                    "Input comes first in a Sequential, and once; this model has layers already."
                )
            self._input = layer
            return
        self._append(layer, (len(self._layers) - 1,))
        if len(self._layers) == 1 and self._input is None:
            given = layer.given_input_shape
            shape = layer.input_shape if given is None else (None, *given)
            self._input = None if shape is None else Symbol(shape)
        if self._input is not None:
            self._output = layer.symbol_of(self._output or self._input)

    def pop(self) -> Layer:
        """Remove the last layer and return it."""
        if not self._layers:
            raise ValueError("There is no layer to remove.")
        self._changed()
        self._feeds.pop()
        layer = self._layers.pop()
        if self._output is not None:
            self._output = self._applied_to(self.input) if self._layers else None
        return layer

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return a new model, with new weights, made from `get_config`'s dict."""
        model = cls(name=config["name"])
        model.precision = config.get("precision", model.precision)
        if config["input_shape"] is not None:
            model.add(Input(config["input_shape"]))
        for layer in config["layers"]:
            model.add(layers_module.from_config(layer))
        return model


def load_model(
    filepath: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> Model:
    """Return the model of a file that `Model.save` wrote.

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
