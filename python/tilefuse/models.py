"""Sequential: layers one after the other, as one thing to train, evaluate, save and look into."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from . import layers as layers_module
from .layers import Input, Layer
from .training import Trainer

__all__ = ["Sequential", "load_model"]


class Sequential(Trainer):
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
        super().__init__()
        self.name = name or "sequential"
        for layer in layers or []:
            self.add(layer)
        if not trainable:
            self.trainable = False

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
        return {"name": self.name, "input_shape": shape, "precision": self.precision, "layers": layers}

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
