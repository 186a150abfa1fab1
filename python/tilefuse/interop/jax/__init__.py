"""tilefuse's kernels as JAX functions, on CPUs: under `jit`, `grad` and `vmap`.

The names and arguments are those of :mod:`tilefuse.ops`, without `precision` (it is "float32") and `matmul`'s
`out` and `beta`; seeds, rates, slopes and names are constants in a compiled function. The kernels work on
JAX's own arrays, without a copy; gradients come from tilefuse's backward kernels. Arrays are of float32, or
of float64 where JAX has it (``jax_enable_x64``).

>>> import jax, jax.numpy as jnp
>>> import tilefuse.jax as tf
>>> def loss(w, x, labels):
...     return tf.softmax_cross_entropy(tf.dense(x, w, activation="relu"), labels)
>>> step = jax.jit(jax.value_and_grad(loss))
>>> value, dw = step(jnp.zeros((2, 3)), jnp.ones((4, 2)), jnp.array([0, 1, 2, 0]))
>>> round(float(value), 4), dw.shape
(1.0986, (2, 3))

`vmap` over what has a batch already (the `x` of all functions, both operands of `matmul`, scores and labels
of losses) makes one call with a larger batch. Where it maps weights, or gradients at weights, the kernel is
called once for each. There are no derivatives of derivatives and no forward-mode ones (`jvp`). The kernels'
threads are tilefuse's own, of `tilefuse.set_num_threads`. Arrays on GPUs are not taken.
"""

from ._elementwise import (
    add,
    dropout,
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from ._images import avg_pool2d, conv2d, global_avg_pool2d, max_pool2d
from ._losses import (
    binary_cross_entropy,
    categorical_cross_entropy,
    mean_squared_error,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
)
from ._norm import batch_norm, layer_norm, rms_norm
from ._products import dense, matmul

__all__ = [
    "add",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "conv2d",
    "dense",
    "dropout",
    "elu",
    "gelu",
    "global_avg_pool2d",
    "layer_norm",
    "leaky_relu",
    "log_softmax",
    "matmul",
    "max_pool2d",
    "mean_squared_error",
    "relu",
    "rms_norm",
    "selu",
    "sigmoid",
    "sigmoid_binary_cross_entropy",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "tanh",
]
