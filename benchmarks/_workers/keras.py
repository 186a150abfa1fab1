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

from .models import Network

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def setup(threads: int, device: str, precision: str) -> dict[str, object]:
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    keras.mixed_precision.set_global_policy(POLICIES[precision])
    return {"keras": keras.__version__, "tensorflow": tensorflow.__version__}


def training(network: Network, device: str, precision: str) -> Callable[[int], tuple[int, float]]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(network.keras_layers(layers))
    model.compile("adam", network.keras_loss)
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
