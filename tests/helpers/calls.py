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
MOVING = [integers(_RNG, (5,), "f"), integers(_RNG, (5,), "f") ** 2 + 1]
IMAGES, FILTERS = integers(_RNG, (7, 6, 5, 4), "f"), integers(_RNG, (3, 2, 4, 6), "f")
CONVOLVED, POOLED = integers(_RNG, (7, 4, 4, 6), "f"), integers(_RNG, (7, 3, 2, 4), "f")
BIAS = integers(_RNG, (6,), "f")

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
    "dropout": ((X, 0.5), {"seed": 1, "step": 2}),
    "dropout_backward": ((X, X > 0, 0.5), {}),
    "conv2d": (
        (IMAGES, FILTERS, BIAS),
        {
            "strides": (2, 1),
            "padding": ((1, 0), (0, 1)),
            "dilation": 1,
            "groups": 1,
            "activation": "gelu",
        },
    ),
    "conv2d_backward": (
        (CONVOLVED, IMAGES, FILTERS),
        {"strides": (1, 1), "padding": 0, "activation": "silu", "z": CONVOLVED + 1, "needs_dx": True},
    ),
    "max_pool2d": ((IMAGES,), {"pool_size": 3, "strides": (2, 3), "padding": "same"}),
    "max_pool2d_backward": ((POOLED, IMAGES), {"pool_size": (2, 2), "strides": None}),
    "avg_pool2d": ((IMAGES,), {"pool_size": (3, 2), "padding": 1, "count_padding": True}),
    "avg_pool2d_backward": ((POOLED, IMAGES), {"pool_size": 2, "strides": 2, "count_padding": False}),
    "global_avg_pool2d": ((IMAGES,), {}),
    "global_avg_pool2d_backward": ((IMAGES[:, 0, 0].copy(), IMAGES), {}),
    "batch_norm": (
        (X, GAMMA, BETA, *MOVING),
        {"training": True, "momentum": 0.5, "epsilon": 0.25, "activation": "elu", "residual": Y},
    ),
    "batch_norm_backward": ((Y, X, GAMMA, *MOVING), {"training": False, "activation": "gelu", "z": X}),
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
