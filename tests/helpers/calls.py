"""Plain calls of the ops: by name, their arrays and options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import integers

_RNG = np.random.default_rng(0)
X, Y, W, B = (integers(_RNG, shape, "f") for shape in ((7, 5), (7, 5), (5, 3), (3,)))
GAMMA, BETA = integers(_RNG, (5,), "f"), integers(_RNG, (5,), "f")
DY = integers(_RNG, (7, 3), "f")
IDS = _RNG.integers(0, 5, 7)
ONE_HOT = np.eye(5, dtype="f")[IDS]
P = _RNG.uniform(0.1, 0.9, (7, 5)).astype("f")
IMAGE = X.reshape(1, 7, 5, 1)

_Call = tuple[tuple[Any, ...], dict[str, Any]]
ACTIVATIONS = ["relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus", "silu", "gelu"]
BY_ROWS = ["softmax", "log_softmax", "layer_norm", "rms_norm"]

# Those that go to their kernels with no Python in between, with all the options that do.
DIRECT: dict[str, _Call] = {
    **{name: ((X,), {}) for name in ACTIVATIONS},
    **{f"{name}_backward": ((Y, X), {}) for name in ACTIVATIONS},
    "leaky_relu": ((X,), {"negative_slope": 0.5}),
    "leaky_relu_backward": ((Y, X), {"negative_slope": 0.5}),
    "elu": ((X,), {"alpha": 0.5}),
    "elu_backward": ((Y, X), {"alpha": 0.5}),
    "gelu": ((X,), {"approximate": True}),
    "gelu_backward": ((Y, X), {"approximate": True}),
    "softmax": ((X,), {"axis": 1}),
    "softmax_backward": ((Y, P), {"axis": -1}),
    "log_softmax": ((X,), {"axis": -1}),
    "log_softmax_backward": ((Y, X), {"axis": 1}),
    "layer_norm": ((X, GAMMA, BETA), {"epsilon": 0.25}),
    "layer_norm_backward": ((Y, X, GAMMA), {"epsilon": 0.25}),
    "rms_norm": ((X, GAMMA), {"epsilon": 0.25}),
    "rms_norm_backward": ((Y, X, GAMMA), {"epsilon": 0.25}),
    "add": ((X, Y), {"activation": "relu"}),
    "matmul": ((X, W), {"bias": B, "activation": "gelu"}),
    "dense": ((X, W, B), {"activation": "tanh"}),
    "dense_backward": ((DY, X, W, Y[:, :3].copy()), {"activation": "silu", "z": X[:, :3].copy()}),
    "softmax_cross_entropy": ((X, IDS), {"label_smoothing": 0.25}),
    "categorical_cross_entropy": ((P, ONE_HOT), {"sample_weight": P[:, 0].copy()}),
    "sigmoid_binary_cross_entropy": (
        (X, ONE_HOT),
        {"sample_weight": P[:, 0].copy(), "label_smoothing": 0.25},
    ),
    "binary_cross_entropy": ((P, ONE_HOT), {}),
    "mean_squared_error": ((X, Y), {"sample_weight": P[:, 0].copy()}),
}

OTHERS: dict[str, _Call] = {
    "dropout": ((X, 0.5), {"seed": 1}),
    "dropout_backward": ((X, X > 0, 0.5), {}),
    "conv2d": ((IMAGE, W.reshape(5, 3, 1, 1)), {}),
    "max_pool2d": ((IMAGE,), {}),
    "global_avg_pool2d": ((IMAGE,), {}),
    "batch_norm": ((X, GAMMA, None, None, None), {"training": True}),
}


def each(values: Any, convert: Callable[[np.ndarray], Any]) -> Any:
    """The arguments of a call, each array converted."""
    if isinstance(values, dict):
        return {key: each(value, convert) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(each(value, convert) for value in values)
    return convert(values) if isinstance(values, np.ndarray) else values


def of_dtype(values: Any, dtype: str) -> Any:
    return each(values, lambda a: a.astype(dtype) if a.dtype.kind == "f" else a)


def as_tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)
