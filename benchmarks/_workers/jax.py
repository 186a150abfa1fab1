"""JAX's training step on the CPU: one jitted function with Adam in it; parameters and moments are donated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .models import Conv, Dense, Drop, Flatten, Network, Pool

BETA_1, BETA_2, EPSILON, RATE = 0.9, 0.999, 1e-7, 1e-3


def setup(threads: int, device: str, precision: str) -> dict[str, object]:
    # XLA takes as many threads as the process may use; the pinning of `__main__` makes it one.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_default_prng_impl", "unsafe_rbg")  # the fastest generator for dropout
    return {"jax": jax.__version__}


def training(network: Network, device: str, precision: str) -> Callable[[int], tuple[int, float]]:
    params = initial(network)
    zeros = partial(jax.tree.map, jnp.zeros_like, params)
    state = (params, zeros(), zeros(), jnp.float32(0), jax.random.key(0))
    batches = [(jnp.asarray(x), jnp.asarray(y)) for x, y in network.batches()]

    def loss_function(params: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
        params, x = jax.tree.map(lambda array: array.astype(precision), (params, x))
        x = outputs(network, params, x, key).astype("float32")
        if network.binary:
            z = x[:, 0]
            return jnp.mean(jax.nn.softplus(z) - z * y)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1))

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        params, m, v, t, key = state
        key, use = (
            jax.random.split(key) if any(isinstance(each, Drop) for each in network.layers) else (key, key)
        )
        loss, grads = jax.value_and_grad(loss_function)(params, x, y, use)
        t = t + 1
        m = jax.tree.map(lambda m, g: m + (g - m) * (1 - BETA_1), m, grads)
        v = jax.tree.map(lambda v, g: v + (g * g - v) * (1 - BETA_2), v, grads)
        rate = RATE * jnp.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        params = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), params, m, v)
        return (params, m, v, t, key), loss

    def run(steps: int) -> tuple[int, float]:
        nonlocal state
        for i in range(steps):
            state, loss = train_step(state, *batches[i % len(batches)])
        return steps, loss.block_until_ready().item()

    return run


def initial(network: Network) -> list[tuple[jax.Array, jax.Array]]:
    """The weights and the bias of each layer that has them, for relu."""
    rng = np.random.default_rng(0)
    params = []
    shape = network.inputs
    for layer in network.layers:
        match layer:
            case Conv(units) | Dense(units):
                window = (layer.kernel, layer.kernel) if isinstance(layer, Conv) else ()
                weights = rng.normal(0, 1, (*window, shape[-1], units))
                weights *= (2 / weights[..., 0].size) ** 0.5
                params.append((jnp.asarray(weights, jnp.float32), jnp.zeros(units)))
                image = map(layer.size, shape[:2]) if isinstance(layer, Conv) else ()
                shape = (*image, units)
            case Pool():
                shape = (shape[0] // 2, shape[1] // 2, shape[2])
            case Flatten():
                shape = (shape[0] * shape[1] * shape[2],)
    return params


def outputs(network: Network, params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    """What the network makes of a batch, before the sigmoid or softmax."""
    weights = iter(params)
    for layer, hidden in zip(network.layers, network.is_hidden, strict=True):
        match layer:
            case Conv():
                w, b = next(weights)
                convolve = partial(jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))
                strides, padding = (layer.strides,) * 2, layer.keras_padding.upper()
                x = jax.nn.relu(convolve(x, w, strides, padding) + b)
            case Pool():
                x = pooled(x)
            case Flatten():
                x = x.reshape(len(x), -1)
            case Drop(rate):
                x = x * jax.random.bernoulli(key, 1 - rate, x.shape) / (1 - rate)
            case Dense():
                w, b = next(weights)
                x = x @ w + b
                x = jax.nn.relu(x) if hidden else x
    return x


def pooled(x: jax.Array) -> jax.Array:
    """The maxima of 2 x 2."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
