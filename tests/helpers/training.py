"""Small networks and data for the tests of the Python layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import tilefuse
from tilefuse import layers

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"class_name": "sgd", "config": {"learning_rate": 0.1}},
    "momentum": {"class_name": "sgd", "config": {"learning_rate": 0.05, "momentum": 0.9}},
    "nesterov": {"class_name": "sgd", "config": {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}},
    "adagrad": {"class_name": "adagrad", "config": {"learning_rate": 0.05}},
    "rmsprop": {"class_name": "rmsprop", "config": {}},
    "rmsprop_centered": {"class_name": "rmsprop", "config": {"centered": True, "momentum": 0.5}},
    "adam": {"class_name": "adam", "config": {}},
    "amsgrad": {"class_name": "adam", "config": {"amsgrad": True}},
    "adamw": {"class_name": "adamw", "config": {"weight_decay": 0.01}},
    "clipnorm": {"class_name": "sgd", "config": {"learning_rate": 0.5, "clipnorm": 0.1}},
    "clipvalue": {"class_name": "sgd", "config": {"learning_rate": 0.5, "clipvalue": 0.01}},
    "global_clipnorm": {"class_name": "adam", "config": {"global_clipnorm": 0.1}},
}


def blobs(n: int = 200, features: int = 8, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of `classes` overlapping clouds: float32 [n, features], int64 [n]."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, features)) + 2 * rng.normal(size=(classes, features))[y]
    return x.astype(np.float32), y


def classifier(
    optimizer: Any = "adam",
    dropout: float = 0.0,
    features: int = 8,
    classes: int = 3,
    metrics: Any = ("accuracy",),
    seed: int = 1,
) -> tilefuse.Sequential:
    """A compiled network for `blobs`; the same weights for a seed."""
    tilefuse.seed(seed)
    model = tilefuse.Sequential(
        [
            tilefuse.Input((features,)),
            layers.Dense(16, "relu"),
            *([layers.Dropout(dropout)] if dropout else []),
            layers.Dense(classes, "softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=list(metrics))
    return model


def same_weights(a: tilefuse.Sequential, b: tilefuse.Sequential) -> bool:
    """Whether all weights have the same bits."""
    pairs = zip(a.get_weights(), b.get_weights(), strict=True)
    return all(x.tobytes() == y.tobytes() for x, y in pairs)
