"""JAX's training step on the CPU: one jitted function with Adam in it; parameters and moments are donated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .models import Mlp

BETA_1, BETA_2, EPSILON, RATE = 0.9, 0.999, 1e-7, 1e-3


def setup(threads: int, device: str) -> dict[str, object]:
    # XLA takes as many threads as the process may use; the pinning of `__main__` makes it one.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_default_prng_impl", "unsafe_rbg")  # the fastest generator for dropout
    return {"jax": jax.__version__}


def training(mlp: Mlp, device: str) -> Callable[[int], tuple[int, float]]:
    rng = np.random.default_rng(0)
    params = [
        (jnp.asarray(rng.normal(0, (2 / k) ** 0.5, (k, n)), jnp.float32), jnp.zeros(n))
        for k, n in pairwise(mlp.sizes)
    ]
    zeros = partial(jax.tree.map, jnp.zeros_like, params)
    state = (params, zeros(), zeros(), jnp.float32(0), jax.random.key(0))
    batches = [(jnp.asarray(x), jnp.asarray(y)) for x, y in mlp.batches()]

    def loss_function(params: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
        for i, (w, b) in enumerate(params):
            if i:
                x = jax.nn.relu(x)
            if i == 1 and mlp.dropout:
                x = x * jax.random.bernoulli(key, 1 - mlp.dropout, x.shape) / (1 - mlp.dropout)
            x = x @ w + b
        if mlp.binary:
            z = x[:, 0]
            return jnp.mean(jax.nn.softplus(z) - z * y)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1))

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        params, m, v, t, key = state
        key, use = jax.random.split(key) if mlp.dropout else (key, key)
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
