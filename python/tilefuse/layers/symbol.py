"""Arrays to come: what layers are called with while a model is put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .base import Layer

#: A shape with the batch axis first, None where its length is open.
Shape = tuple[int | None, ...]


class Symbol:
    """What a layer will give for a batch: its shape, and which layer makes it from which other symbols.

    Calling a layer, or a model, with a symbol gives a symbol; ``tilefuse.Model(inputs, outputs)`` is what
    lies between two of them.

    Attributes
    ----------
    shape : tuple
        With the batch axis, which is None.
    layer : Layer or None
        None for an `Input`.
    sources : tuple of Symbol

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.layers.Dense(3)(tilefuse.Input((5,))).shape
    (None, 3)
    """

    def __init__(self, shape: Shape, layer: Layer | None = None, sources: tuple[Symbol, ...] = ()) -> None:
        self.shape, self.layer, self.sources = shape, layer, sources

    def __add__(self, other: Any) -> Symbol:
        from .merging import Add

        return Add()([self, other])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(
            "This is a symbol, which has no numbers yet: it stands for what a layer will give. Make a model "
            "of it, tilefuse.Model(inputs, outputs), and call that with an array; between symbols use layers."
        )

    def __repr__(self) -> str:
        maker = "" if self.layer is None else f", layer={self.layer.name}"
        return f"<{type(self).__name__} shape={self.shape}{maker}>"


class Input(Symbol):
    """The input of a model: the shape of a sample.

    It is the first entry of a `Sequential`, or where the layers of a `Model` begin.

    Parameters
    ----------
    shape : tuple of int
        Without the batch axis.
    batch_size, dtype, name
        As in Keras; without effect.

    Raises
    ------
    ValueError
        `shape` is something else.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.Sequential([tilefuse.Input((784,)), tilefuse.layers.Dense(10)]).output_shape
    (None, 10)
    """

    def __init__(
        self, shape: Sequence[int], batch_size: int | None = None, dtype: Any = None, name: str | None = None
    ) -> None:
        if isinstance(shape, int) or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
            raise ValueError(
                f"Input takes the shape of a sample as a tuple of positive integers, such as (784,); "
                f"got {shape!r}."
            )
        super().__init__((None, *map(int, shape)))
