"""The networks that `tilefuse train` and the benchmark of accuracy train on MNIST."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .callbacks import Callback, History
from .datasets.mnist import Split
from .layers import Conv2D, Dense, Dropout, Flatten, Input, Layer, MaxPooling2D
from .models import Sequential
from .utils import to_categorical


@dataclass(frozen=True)
class MnistProgram:
    """A network and how it is trained.

    `epochs` is for all of MNIST, `sample_epochs` for the built-in sample. Validation is on the last part of
    the training data where there is a `validation_split`, else on the test data.
    """

    title: str
    input_shape: tuple[int, ...]
    layers: Callable[[], list[Layer]]
    labels: Callable[[np.ndarray], np.ndarray]
    loss: str
    batch_size: int
    epochs: int
    sample_epochs: int
    validation_split: float = 0.0

    def model(self) -> Sequential:
        """Return a new model, compiled."""
        model = Sequential([Input(self.input_shape), *self.layers()])
        model.compile(optimizer="adam", loss=self.loss, metrics=["accuracy"])
        return model

    def prepare(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the images as the network takes them, in [0, 1], and the labels as its loss takes them."""
        x = images.astype(np.float32) / 255
        return x.reshape(len(x), *self.input_shape), self.labels(labels)

    def train(
        self, model: Sequential, train: Split, test: Split, epochs: int, callbacks: list[Callback]
    ) -> tuple[History, float, float]:
        """Train `model` on prepared data, and return the curves, the test loss and the test accuracy."""
        split = self.validation_split
        history = model.fit(
            *train,
            batch_size=self.batch_size,
            epochs=epochs,
            verbose=0,
            callbacks=callbacks,
            validation_split=split,
            validation_data=None if split else test,
        )
        loss, accuracy = model.evaluate(*test, verbose=0)
        return history, loss, accuracy


class EpochTimes(Callback):
    """Seconds that each epoch took, validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def _mlp_64_64(outputs: int, activation: str) -> Callable[[], list[Layer]]:
    return lambda: [
        Dense(64, activation="relu"),
        Dense(64, activation="relu"),
        Dense(outputs, activation=activation),
    ]


def _dropout_mlp() -> list[Layer]:
    return [Flatten(), Dense(128, activation="relu"), Dropout(0.2), Dense(10, activation="softmax")]


def _cnn() -> list[Layer]:
    return [
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(2),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(2),
        Conv2D(64, 3, activation="relu"),
        Flatten(),
        Dense(64, activation="relu"),
        Dense(10, activation="softmax"),
    ]


PROGRAMS: Mapping[str, MnistProgram] = {
    "mnist_binary_mlp": MnistProgram(
        title="784-64-64-1, sigmoid: is the digit odd?",
        input_shape=(784,),
        layers=_mlp_64_64(1, "sigmoid"),
        labels=lambda labels: (labels % 2).astype(np.float32),
        loss="binary_crossentropy",
        batch_size=128,
        epochs=10,
        sample_epochs=30,
        validation_split=0.2,
    ),
    "mnist_softmax_mlp": MnistProgram(
        title="784-64-64-10, softmax",
        input_shape=(784,),
        layers=_mlp_64_64(10, "softmax"),
        labels=lambda labels: to_categorical(labels, 10),
        loss="categorical_crossentropy",
        batch_size=32,
        epochs=10,
        sample_epochs=20,
    ),
    "mnist_dropout_mlp": MnistProgram(
        title="784-128-10, dropout 0.2, softmax",
        input_shape=(28, 28),
        layers=_dropout_mlp,
        labels=lambda labels: labels.astype(np.int32),
        loss="sparse_categorical_crossentropy",
        batch_size=32,
        epochs=5,
        sample_epochs=20,
    ),
    "mnist_cnn": MnistProgram(
        title="three 3x3 convolutions with max-pooling, two dense layers",
        input_shape=(28, 28, 1),
        layers=_cnn,
        labels=lambda labels: to_categorical(labels, 10),
        loss="categorical_crossentropy",
        batch_size=32,
        epochs=10,
        sample_epochs=10,
    ),
}
