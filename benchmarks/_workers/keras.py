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

from .models import Mlp

STEPS = 256  # of one call of `fit`: many, so that its beginning counts little


def setup(threads: int, device: str) -> dict[str, object]:
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return {"keras": keras.__version__, "tensorflow": tensorflow.__version__}


def training(mlp: Mlp, device: str) -> Callable[[int], tuple[int, float]]:
    keras.utils.set_random_seed(0)
    stack = [layers.Input((mlp.sizes[0],))]
    for i, units in enumerate(mlp.sizes[1:-1]):
        stack.append(layers.Dense(units, activation="relu"))
        if i == 0 and mlp.dropout:
            stack.append(layers.Dropout(mlp.dropout))
    stack.append(layers.Dense(mlp.sizes[-1], activation="sigmoid" if mlp.binary else "softmax"))
    model = keras.Sequential(stack)
    model.compile("adam", "binary_crossentropy" if mlp.binary else "sparse_categorical_crossentropy")
    batches = mlp.batches()
    repeats = STEPS // len(batches)
    x = np.concatenate([x for x, _ in batches] * repeats)
    y = np.concatenate([y for _, y in batches] * repeats)

    def run(steps: int) -> tuple[int, float]:
        epochs = -(-steps // STEPS)
        history = model.fit(x, y, batch_size=mlp.batch, epochs=epochs, shuffle=False, verbose=0)
        return epochs * STEPS, history.history["loss"][-1]

    return run
