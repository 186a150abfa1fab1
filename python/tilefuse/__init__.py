"""tilefuse: hand-written kernels that train neural networks, fused and compiled into one step.

>>> import numpy as np, tilefuse
>>> from tilefuse import layers
>>> model = tilefuse.Sequential([tilefuse.Input((2,)), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")])
>>> model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
>>> x = np.random.default_rng(0).normal(size=(256, 2))
>>> history = model.fit(x, x.sum(axis=1) > 0, epochs=2, verbose=0)
"""

from __future__ import annotations

import importlib
from typing import Any

from . import (
    callbacks,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    regularizers,
    schedules,
    utils,
)
from ._library import get_cmake_dir, get_include
from ._runtime import (
    DeviceError,
    get_device,
    get_num_threads,
    get_precision,
    seed,
    set_device,
    set_num_threads,
    set_precision,
    show_config,
)
from .layers import Input
from .models import Model, Sequential, load_model
from .tape import GradientTape
from .variables import Variable

__version__ = "0.1.0"

__all__ = [
    "DeviceError",
    "GradientTape",
    "Input",
    "Model",
    "Sequential",
    "Variable",
    "callbacks",
    "get_cmake_dir",
    "get_device",
    "get_include",
    "get_num_threads",
    "get_precision",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "regularizers",
    "schedules",
    "seed",
    "set_device",
    "set_num_threads",
    "set_precision",
    "show_config",
    "utils",
]

_ON_DEMAND = ("datasets", "reference")


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
