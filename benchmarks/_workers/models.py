"""The networks whose training steps are timed, and the batches for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Conv:
    """A convolution, with a bias and relu. Padded, it gives a pixel for each that its strides begin at."""

    filters: int
    kernel: int = 3
    strides: int = 1
    padded: bool = False

    @property
    def keras_padding(self) -> str:
        return "same" if self.padded else "valid"

    @property
    def title(self) -> str:
        """As "C32", "C32k5", "C32/2", "C32p"."""
        kernel = f"k{self.kernel}" if self.kernel != 3 else ""
        strides = f"/{self.strides}" if self.strides > 1 else ""
        return f"C{self.filters}{kernel}{strides}{'p' if self.padded else ''}"

    def size(self, image: int) -> int:
        """The height or width of what it makes of an image."""
        return -(-(image if self.padded else image - self.kernel + 1) // self.strides)


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
                case Conv():
                    parts.append(layer.title)
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
                case Conv(filters, kernel, strides):
                    padding = layer.keras_padding
                    stack.append(layers.Conv2D(filters, kernel, strides, padding, activation="relu"))
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


def cnn(height: int, channels: int, *layers: Layer | int, batch: int, epoch: int = 32) -> Network:
    """An image network; numbers are dense layers, which come last."""
    convolutions = [layer for layer in layers if not isinstance(layer, int)]
    units = [Dense(layer) for layer in layers if isinstance(layer, int)]
    return Network((height, height, channels), (*convolutions, Flatten(), *units), batch, epoch)


PROGRAMS = {
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

# Image networks with other channels, windows, strides, padding and batches: "others" on the command line.
_DIGITS = (Conv(32), Pool(), Conv(64), Pool(), Conv(64), 64, 10)
OTHERS = {
    "digits_1": cnn(28, 1, *_DIGITS, batch=1, epoch=512),
    "digits_8": cnn(28, 1, *_DIGITS, batch=8, epoch=128),
    "digits_128": cnn(28, 1, *_DIGITS, batch=128, epoch=16),
    "lenet": cnn(28, 1, Conv(6, 5, padded=True), Pool(), Conv(16, 5), Pool(), 120, 84, 10, batch=64),
    "vgg_like": cnn(
        32,
        3,
        *(layer for filters in (32, 64) for layer in (*[Conv(filters, padded=True)] * 2, Pool())),
        *(128, 10),
        batch=32,
        epoch=16,
    ),
    "strided": cnn(
        *(32, 3),
        *(Conv(filters, 3, strides, padded=True) for filters, strides in ((32, 1), (64, 2), (128, 2))),
        10,
        batch=64,
        epoch=16,
    ),
    "narrow": cnn(
        *(64, 3),
        *(layer for filters in (8, 16, 24) for layer in (Conv(filters, padded=True), Pool())),
        10,
        batch=16,
    ),
    "wide": cnn(16, 64, Conv(128, padded=True), Conv(256, 3, 2, padded=True), 10, batch=8, epoch=16),
    "pointwise": cnn(
        32,
        3,
        *(Conv(64, 3, 2, padded=True), Conv(128, 1), Conv(64, padded=True), Conv(256, 1), Pool(), 10),
        batch=32,
        epoch=16,
    ),
}

MODELS = PROGRAMS | OTHERS
