"""Layers that change the shape only."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..tape import record
from .base import Layer, Shape, Slots


def reshaped(x: np.ndarray, shape: Shape) -> np.ndarray:
    """Return `x` with the shape of a batch; recorded by an active tape."""
    y = x.reshape(len(x), *shape[1:])
    record([x], y, lambda dy: [dy.reshape(x.shape)])
    return y


class _Reshaping(Layer):
    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        return reshaped(x, self.compute_output_shape(x.shape))

    def lower(self, slots: Slots) -> dict[str, Any]:
        assert self.output_shape is not None
        return {"kind": "reshape", "name": self.name, "shape": self.output_shape[1:]}


class Flatten(_Reshaping):
    """Makes each sample a vector: [n, a, b, ...] to [n, a * b * ...].

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> tilefuse.layers.Flatten()(np.zeros((2, 28, 28))).shape
    (2, 784)
    """

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], _size(input_shape)


class Reshape(_Reshaping):
    """Gives each sample another shape.

    Parameters
    ----------
    target_shape : tuple of int
        Without the batch axis; one -1 stands for what is left.
    name, trainable, dtype, input_shape
        As for every `Layer`.

    Raises
    ------
    ValueError
        The number of elements would change.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> tilefuse.layers.Reshape((7, -1))(np.zeros((2, 28))).shape
    (2, 7, 4)
    """

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        size, known = _size(input_shape), prod(n for n in self.target_shape if n != -1)
        shape = tuple(size // known if n == -1 and known else n for n in self.target_shape)
        if self.target_shape.count(-1) > 1 or prod(shape) != size:
            raise ValueError(
                f"Layer {self.name!r} cannot reshape samples of shape {tuple(input_shape[1:])} "
                f"({size} elements) to {self.target_shape}."
            )
        return input_shape[0], *shape


def _size(shape: Shape) -> int:
    return prod(n for n in shape[1:] if n is not None)
