"""Updates of all weights of a network in one call; `shape` is the sizes of its dense layers."""

from itertools import pairwise

import pytest
from _backends import Backend, shapes

SLOTS = {"sgd": 0, "momentum": 1, "adagrad": 1, "rmsprop": 1, "adam": 2, "adamw": 2}


@shapes((784, 128, 10), (784, 512, 256, 10))
@pytest.mark.parametrize("name", SLOTS)
def test_optimizer(backend: Backend, name: str, shape: tuple[int, ...]) -> None:
    sizes = [size for k, n in pairwise(shape) for size in ((k, n), (n,))]
    params, grads = ([backend.normal(*size) for size in sizes] for _ in range(2))
    slots = [[backend.zeros(*size) for size in sizes] for _ in range(SLOTS[name])]
    step = getattr(backend.ops, f"{name}_step")
    options = {"step": 1} if name.startswith("adam") else {}
    moved = sum(w.nbytes for w in params) * (3 + 2 * SLOTS[name])
    backend.time(lambda: step(params, grads, *slots, **options), bytes_moved=moved)
