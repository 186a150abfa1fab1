"""What each op must compute, in plain array code: NumPy for NumPy arrays, CuPy for CuPy arrays.

The functions have the names and arguments of those in ``tilefuse.ops``. They keep the dtype of what they
are given, work in float64, and are written to be read; the test suite holds the kernels against them, and
checks their gradients by central differences.

>>> import numpy as np
>>> from tilefuse import reference
>>> x, w = np.array([[1.0, 2.0]]), np.array([[3.0, -1.0], [4.0, -1.0]])
>>> y = reference.dense(x, w, activation="relu")
>>> y
array([[11.,  0.]])
>>> dx, dw, db = reference.dense_backward(np.ones_like(y), x, w, y, "relu")
>>> dx
array([[3., 4.]])
"""

from __future__ import annotations

from ._namespace import get_array_module
from .activations import (
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu_backward,
    selu,
    selu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    softplus,
    softplus_backward,
    tanh,
    tanh_backward,
)
from .add import add
from .conv import conv2d, conv2d_backward
from .dense import dense, dense_backward
from .dropout import dropout, dropout_backward
from .losses import (
    binary_cross_entropy,
    categorical_cross_entropy,
    mean_squared_error,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
)
from .matmul import matmul
from .norm import (
    batch_norm,
    batch_norm_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from .optimizers import (
    adagrad_step,
    adam_step,
    adamw_step,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    momentum_step,
    rmsprop_step,
    sgd_step,
)
from .pool import (
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from .softmax import log_softmax, log_softmax_backward, softmax, softmax_backward

__all__ = [
    "adagrad_step",
    "adam_step",
    "adamw_step",
    "add",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "conv2d",
    "conv2d_backward",
    "dense",
    "dense_backward",
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "get_array_module",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "layer_norm",
    "layer_norm_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "max_pool2d",
    "max_pool2d_backward",
    "mean_squared_error",
    "momentum_step",
    "relu",
    "relu_backward",
    "rms_norm",
    "rms_norm_backward",
    "rmsprop_step",
    "selu",
    "selu_backward",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_binary_cross_entropy",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
]
