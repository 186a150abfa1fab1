"""Layers that take several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from .. import ops
from .._arrays import as_floats
from .base import Layer, Slots
from .symbol import Symbol


class Add(Layer):
    """The sum of several inputs of one shape, as where the branches of a residual network meet.

    In a compiled step it is part of the layer before it, where that can be.

    Parameters
    ----------
    name, trainable, dtype
        As for every `Layer`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> tilefuse.layers.Add()([np.ones((1, 2)), np.full((1, 2), 2.0)])
    array([[3., 3.]], dtype=float32)
    >>> x = tilefuse.Input((8,))
    >>> tilefuse.Model(x, x + tilefuse.layers.Dense(8, "relu")(x)).output_shape
    (None, 8)
    """

    def __call__(self, x: Any, training: bool = False) -> Any:
        """Return the sum of a list of arrays [n, ...], or of symbols.

        Raises
        ------
        ValueError
            It is no list, or the shapes differ.
        """
        if not isinstance(x, Sequence) or not x:
            raise ValueError(f"Layer {self.name!r} takes a list of inputs, got {type(x).__name__}.")
        symbols = [isinstance(each, Symbol) for each in x]
        if any(symbols) and not all(symbols):
            raise ValueError(
                f"Layer {self.name!r} got symbols and arrays together; a constant needs a layer of its own."
            )
        inputs = (
            x
            if all(symbols)
            else [as_floats(each, self.dtype, f"an input of layer {self.name!r}") for each in x]
        )
        shapes = [tuple(each.shape[1:]) for each in inputs]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"Layer {self.name!r} adds inputs of one shape, got {', '.join(map(str, shapes))} (without "
                "the batch axis). A convolution of 1 x 1, or a Dense, gives one of them the other's channels."
            )
        return self.symbol_of(*inputs) if all(symbols) else self.call(inputs, training)

    def call(self, x: Any, training: bool) -> np.ndarray:
        return reduce(ops.add, x)

    def lower(self, slots: Slots) -> dict[str, Any]:
        return {"kind": "add", "name": self.name}
