"""Functions on arrays, forward and backward: what layers and training steps are made of.

Inputs are arrays of float32 or float64, of NumPy or of any library that speaks DLPack or one of NumPy's
protocols: PyTorch, JAX, CuPy on device "cuda", ... Outputs are new arrays of the same dtype and library (that
of the first array which is not NumPy's). Nothing is copied on the way in or out but where an op's
documentation says so. The optimizer steps and clipping work in place. Tensors that PyTorch's autograd records
are refused: they go in under ``torch.no_grad()``, and :mod:`tilefuse.interop.torch` has functions that it
differentiates.

Each op takes as many threads as its work is worth, and its result has the same bits for any number of them.
:mod:`tilefuse.reference` says in NumPy what each op computes. An active :class:`tilefuse.GradientTape`
records the forward functions.

On the CPU, calls with plain arrays of NumPy or PyTorch go from most names here to their kernels with no
Python in between (csrc/bindings/direct.h); the functions in this folder see all the others.
"""

from .. import _core
from .._gradients import differentiable
from ._arrays import as_given
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
from .softmax import (
    log_softmax,
    log_softmax_backward,
    softmax,
    softmax_backward,
)

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

globals().update({name: as_given(globals()[name]) for name in __all__})
globals().update(differentiable(globals()))
globals().update({name: _core.direct(name, globals()[name]) for name in __all__})
for _name in __all__:
    globals()[_name].__module__ = __name__  # where it can be found by its name: by pickle, for one
