"""What all layers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays import as_floats
from .._config import Configurable, parameters, snake_case, to_config
from .._runtime import default_dtype
from ..initializers import Initializer
from ..variables import Variable
from .symbol import Shape, Symbol

Slots = Callable[[Variable], list[np.ndarray]]


class Layer(Configurable):
    """Base of the layers.

    Parameters
    ----------
    name : str, optional
        The class's name by default; a model that has two of them numbers them.
    trainable : bool
        False freezes the weights.
    dtype : dtype, optional
        float32 or float64; follows `tilefuse.set_precision` by default.
    input_shape : tuple of int, optional
        In a model's first layer: the shape of a sample, as from `Input`.
    input_dim : int, optional
        Short for ``input_shape=(input_dim,)``.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        input_shape: Sequence[int] | None = None,
        input_dim: int | None = None,
    ) -> None:
        self.has_given_name = name is not None
        self.name = name or snake_case(type(self).__name__)
        self.trainable = trainable
        self.dtype = default_dtype() if dtype is None else np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"Layer {self.name!r}: dtype must be float32 or float64, got {self.dtype}.")
        if input_dim is not None:
            input_shape = (input_dim,)
        self.given_input_shape = None if input_shape is None else tuple(input_shape)
        self.input_shape: Shape | None = None
        self._symbol: Symbol | None = None
        self.weights: list[Variable] = []

    @property
    def built(self) -> bool:
        """Whether the shape of the input is known and the weights exist."""
        return self.input_shape is not None

    @property
    def output_shape(self) -> Shape | None:
        """The shape of the output with the batch axis as None; None before the layer is built."""
        return None if self.input_shape is None else self.compute_output_shape(self.input_shape)

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that training changes: none of a frozen layer's."""
        return [w for w in self.weights if w.trainable] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The other weights."""
        trainable = set(map(id, self.trainable_weights))
        return [w for w in self.weights if id(w) not in trainable]

    variables = property(lambda self: self.weights, doc="The same as `weights`.")
    trainable_variables = property(
        lambda self: self.trainable_weights, doc="The same as `trainable_weights`."
    )
    non_trainable_variables = property(
        lambda self: self.non_trainable_weights, doc="The same as `non_trainable_weights`."
    )

    def build(self, input_shape: Shape) -> None:
        """Make the weights for inputs of `input_shape`, batch axis included."""
        self.compute_output_shape(input_shape)
        self.input_shape = (None, *input_shape[1:])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output for an input of `input_shape`, batch axis included."""
        return input_shape

    def call(self, x: np.ndarray, training: bool) -> np.ndarray:
        """Return the output; under a tape, everything in here is recorded."""
        raise NotImplementedError

    def lower(self, slots: Slots) -> dict[str, Any]:
        """Return what the compiled step needs to know; `slots` gives the optimizer's arrays of a variable."""
        raise NotImplementedError

    def __call__(self, x: Any, training: bool = False) -> Any:
        """Return the output for a batch [n, ...], computed at once and recorded by an active tape.

        For a `Symbol` it is a symbol: nothing is computed, but the layer is built.

        Raises
        ------
        ValueError
            `x` has not the shape that the layer was built for.
        """
        if isinstance(x, Symbol):
            return self.symbol_of(x)
        x = as_floats(x, self.dtype, f"the input of layer {self.name!r}")
        if not self.built:
            self.build((None, *x.shape[1:]))
        assert self.input_shape is not None
        if x.shape[1:] != self.input_shape[1:]:
            raise ValueError(
                f"Layer {self.name!r} was built for inputs of shape {self.input_shape}, got {x.shape}."
            )
        return self.call(x, training)

    def symbol_of(self, *sources: Symbol) -> Symbol:
        """Build the layer for inputs of the sources' shape, and return the symbol of its output."""
        shape = sources[0].shape
        if not self.built:
            self.build(shape)
        elif self.input_shape != shape:
            raise ValueError(
                f"Layer {self.name!r} was built for inputs of shape {self.input_shape}, but here it gets "
                f"{shape}."
            )
        self._symbol = Symbol(self.compute_output_shape(shape), self, sources)
        return self._symbol

    @property
    def output(self) -> Symbol:
        """The symbol that the layer gave when it was called last: where a new head of a network may begin.

        Raises
        ------
        ValueError
            It is in no model yet whose input's shape is known.
        """
        if self._symbol is None:
            raise ValueError(f"Layer {self.name!r} was not called with a symbol, and is in no built model.")
        return self._symbol

    @property
    def input(self) -> Symbol | list[Symbol]:
        """The symbol, or the symbols, that the layer was called with last; errors as for `output`."""
        sources = self.output.sources
        return sources[0] if len(sources) == 1 else list(sources)

    def add_weight(
        self, shape: tuple[int, ...], initializer: Initializer, name: str, trainable: bool = True
    ) -> Variable:
        """Make a variable and append it to `weights`."""
        variable = Variable(initializer(shape, self.dtype), name, trainable, self.dtype)
        variable.path = f"{self.name}/{name}"
        self.weights.append(variable)
        return variable

    def rename(self, name: str) -> None:
        """Change the name, also in the variables' paths."""
        self.name = name
        for variable in self.weights:
            variable.path = f"{name}/{variable.name}"

    def losses(self) -> list[np.ndarray]:
        """Return the penalties on the weights, each a 0-d array."""
        return []

    def random_state(self) -> dict[str, int]:
        """Return the seeds and counters that the layer draws from, for a saved model."""
        return {}

    def set_random_state(self, state: dict[str, int]) -> None:
        """Take what `random_state` returned."""

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of the weights."""
        return [w.numpy() for w in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Copy `weights`, in the order of `get_weights`, into the layer's.

        Raises
        ------
        ValueError
            Their number or a shape differs.
        """
        if len(weights) != len(self.weights):
            raise ValueError(
                f"Layer {self.name!r} has {len(self.weights)} weights, got {len(weights)}"
                f"{'' if self.built else '; it has none before it is built'}."
            )
        for variable, value in zip(self.weights, weights, strict=True):
            variable.assign(value)

    def count_params(self) -> int:
        """Return the number of weights' elements."""
        return sum(w.size for w in self.weights)

    def get_config(self) -> dict[str, Any]:
        shared = parameters(Layer)  # a layer without a constructor of its own has no others
        own = {name: to_config(getattr(self, name)) for name in parameters(type(self)) if name not in shared}
        return own | {"name": self.name, "trainable": self.trainable, "dtype": str(self.dtype)}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


def image_shape(shape: Shape, name: str) -> tuple[int, int, int]:
    """Return height, width and channels of images [batch, height, width, channels], for layer `name`.

    Raises
    ------
    ValueError
        `shape` is of something else.
    """
    if len(shape) != 4:
        hint = " Add the axis of the channels: images[..., None]." if len(shape) == 3 else ""
        raise ValueError(
            f"Layer {name!r} takes images [batch, height, width, channels], got the shape {shape}.{hint}"
        )
    _, height, width, channels = shape
    if height is None or width is None or channels is None:
        raise ValueError(
            f"Layer {name!r} needs to know height, width and channels of its images, got the shape {shape}."
        )
    return height, width, channels
