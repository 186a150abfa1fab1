"""The networks whose training steps are timed, and the batches for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Conv:
    """A convolution of 3 x 3, with a bias and relu, without padding."""

    filters: int


@dataclass(frozen=True)
class Pool:
    """The maxima of 2 x 2."""


@dataclass(frozen=True)
class Flatten:
    """One axis of what were three."""


@dataclass(frozen=True)
class Drop:
    """Dropout."""

    rate: float


@dataclass(frozen=True)
class Dense:
    """A dense layer, with relu unless it is the last one."""

    units: int


Layer = Conv | Pool | Flatten | Drop | Dense


@dataclass(frozen=True)
class Network:
    """Layers, the last of which is a Dense with one output: a sigmoid, or more: a softmax. Adam with 1e-3.

    `inputs` is the shape of a sample, channels last; `epoch` the number of steps that a peer takes at a time
    where it trains by epochs.
    """

    inputs: tuple[int, ...]
    layers: tuple[Layer, ...]
    batch: int
    epoch: int = 256

    @property
    def outputs(self) -> int:
        last = self.layers[-1]
        assert isinstance(last, Dense)
        return last.units

    @property
    def binary(self) -> bool:
        return self.outputs == 1

    @property
    def is_hidden(self) -> list[bool]:
        """For each layer, whether another one follows."""
        return [True] * (len(self.layers) - 1) + [False]

    @property
    def chance_loss(self) -> float:
        """The loss of a network that knows nothing."""
        return math.log(max(self.outputs, 2))

    @property
    def title(self) -> str:
        """The shape of a sample and the sizes of the layers: "784-128-10", or "28x28x1-C32-P-10"."""
        parts = ["x".join(map(str, self.inputs))]
        for layer in self.layers:
            match layer:
                case Conv(filters):
                    parts.append(f"C{filters}")
                case Pool():
                    parts.append("P")
                case Dense(units):
                    parts.append(str(units))
        return "-".join(parts)

    def keras_layers(self, layers: Any) -> list[Any]:
        """The layers, of a module with Keras's names."""
        last = "sigmoid" if self.binary else "softmax"
        stack = [layers.Input(self.inputs)]
        for layer, hidden in zip(self.layers, self.is_hidden, strict=True):
            match layer:
                case Conv(filters):
                    stack.append(layers.Conv2D(filters, 3, activation="relu"))
                case Pool():
                    stack.append(layers.MaxPooling2D(2))
                case Flatten():
                    stack.append(layers.Flatten())
                case Drop(rate):
                    stack.append(layers.Dropout(rate))
                case Dense(units):
                    stack.append(layers.Dense(units, activation="relu" if hidden else last))
        return stack

    @property
    def keras_loss(self) -> str:
        return "binary_crossentropy" if self.binary else "sparse_categorical_crossentropy"

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of x, float32 [batch, *inputs], and of labels, int32 [batch]: at most 16, and an epoch's.

        Images have a bright band whose place says the label, since a few steps must teach something.
        """
        rng = np.random.default_rng(0)
        pairs, classes = [], max(self.outputs, 2)
        for _ in range(min(16, self.epoch)):
            x = rng.random((self.batch, *self.inputs), dtype=np.float32)
            labels = rng.integers(0, classes, self.batch).astype(np.int32)
            if len(self.inputs) == 3:
                band = np.arange(self.inputs[0]) * classes // self.inputs[0]
                x *= 1 - 0.8 * (band != labels[:, None])[..., None, None].astype(np.float32)
            pairs.append((x, labels))
        return pairs


def mlp(*sizes: int, batch: int, dropout: float = 0.0) -> Network:
    """Dense layers of these sizes, with dropout after the first."""
    layers: list[Layer] = [Dense(units) for units in sizes[1:]]
    if dropout:
        layers.insert(1, Drop(dropout))
    return Network((sizes[0],), tuple(layers), batch)


MODELS = {
    "mlp_binary": mlp(784, 64, 64, 1, batch=128),
    "mlp_softmax": mlp(784, 64, 64, 10, batch=32),
    "mlp_dropout": mlp(784, 128, 10, batch=32, dropout=0.2),
    "mlp_wide": mlp(784, 512, 256, 10, batch=128),
    "cnn28": Network(
        (28, 28, 1),
        (Conv(32), Pool(), Conv(64), Pool(), Conv(64), Flatten(), Dense(64), Dense(10)),
        batch=32,
        epoch=64,
    ),
    "cnn150": Network(
        (150, 150, 3),
        (
            *(layer for filters in (32, 64, 128, 128) for layer in (Conv(filters), Pool())),
            *(Flatten(), Drop(0.5), Dense(512), Dense(1)),
        ),
        batch=32,
        epoch=8,
    ),
}
