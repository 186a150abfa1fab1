"""Keras's training step on TensorFlow and the CPU, through `fit`, as its users train."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow
from keras import layers

from .models import Conv, Dense, Drop, Flatten, Network, Pool

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def setup(threads: int, device: str, precision: str) -> dict[str, object]:
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    keras.mixed_precision.set_global_policy(POLICIES[precision])
    return {"keras": keras.__version__, "tensorflow": tensorflow.__version__}


def training(network: Network, device: str, precision: str) -> Callable[[int], tuple[int, float]]:
    keras.utils.set_random_seed(0)
    last = "sigmoid" if network.binary else "softmax"
    stack = [layers.Input(network.inputs)]
    for layer, hidden in zip(network.layers, network.is_hidden, strict=True):
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
    model = keras.Sequential(stack)
    model.compile("adam", "binary_crossentropy" if network.binary else "sparse_categorical_crossentropy")
    batches = network.batches()
    # An epoch has many steps, so that the beginning of `fit` counts little.
    repeats = network.epoch // len(batches)
    x = np.concatenate([x for x, _ in batches] * repeats)
    y = np.concatenate([y for _, y in batches] * repeats)

    def run(steps: int) -> tuple[int, float]:
        epochs = -(-steps // network.epoch)
        history = model.fit(x, y, batch_size=network.batch, epochs=epochs, shuffle=False, verbose=0)
        return epochs * network.epoch, history.history["loss"][-1]

    return run
