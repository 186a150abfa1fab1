"""Image networks that several tests share, and weights that nothing is hidden by."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import tilefuse

M = TypeVar("M", bound=tilefuse.Model)


def randomized(model: M, seed: int = 0) -> M:
    """`model` with other weights: no bias is 0, no gamma 1, no moving average as it began."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(rng.uniform(0.5, 2, weight.shape))
        elif weight.name == "gamma":
            weight.assign(rng.normal(1, 0.3, weight.shape))
        else:
            scale = np.sqrt(2 / np.prod(weight.shape[:-1])) if weight.ndim > 1 else 0.3
            weight.assign(rng.normal(0, scale, weight.shape))
    return model


def folder_network(k: ModuleType = tilefuse, size: int = 150, dropout: float = 0.5) -> Any:
    """Program 5's; `k` is tilefuse or keras."""
    layers = [k.Input((size, size, 3))]
    for filters in (32, 64, 128, 128):
        layers += [k.layers.Conv2D(filters, 3, activation="relu"), k.layers.MaxPooling2D(2)]
    layers += [k.layers.Flatten(), k.layers.Dropout(dropout), k.layers.Dense(512, activation="relu")]
    return k.Sequential([*layers, k.layers.Dense(1, activation="sigmoid")])


def digits_network(k: ModuleType = tilefuse) -> Any:
    """Program 4's; `k` is tilefuse or keras."""
    lay = k.layers
    blocks = [lay.Conv2D(32, 3, activation="relu"), lay.MaxPooling2D(2)]
    blocks += [lay.Conv2D(64, 3, activation="relu"), lay.MaxPooling2D(2)]
    blocks += [lay.Conv2D(64, 3, activation="relu")]
    head = [lay.Flatten(), lay.Dense(64, activation="relu"), lay.Dense(10, activation="softmax")]
    return k.Sequential([k.Input((28, 28, 1)), *blocks, *head])


def residual_network(k: ModuleType = tilefuse) -> Any:
    """Branches, and every kind of layer that image networks have; `k` is tilefuse or keras."""
    lay = k.layers
    inputs = k.Input((16, 16, 3))
    x = lay.Activation("relu")(lay.BatchNormalization()(lay.Conv2D(8, 3, padding="same")(inputs)))
    y = lay.Activation("relu")(
        lay.BatchNormalization()(lay.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x))
    )
    y = lay.BatchNormalization()(lay.Conv2D(16, 3, padding="same")(y))
    x = lay.Activation("relu")(lay.Add()([y, lay.Conv2D(16, 1, strides=2)(x)]))
    x = lay.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = lay.AveragePooling2D(3, strides=2, padding="same")(x)
    x = lay.LayerNormalization()(x)
    return k.Model(inputs, lay.Dense(4, activation="softmax")(lay.GlobalAveragePooling2D()(x)))
