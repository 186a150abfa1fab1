"""JAX's arrays on the CPU: in without a copy, out as JAX's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.arrays import integers
from helpers.compare import assert_same
from helpers.memory import growth
from tilefuse import _core, ops
from tilefuse import reference as ref

jax = pytest.importorskip("jax", reason="these arrays are JAX's")

RNG = np.random.default_rng(0)
X, W, B = (integers(RNG, shape, "f") for shape in ((7, 5), (5, 3), (3,)))
IDS = RNG.integers(0, 5, 7).astype("i")


def check(results: Any, expected: Any) -> None:
    results = results if isinstance(results, tuple) else (results,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for result, right in zip(results, expected, strict=True):
        assert isinstance(result, jax.Array)
        assert_same(np.asarray(result), right)


def test_results_are_arrays_of_jax() -> None:
    x, w, b, ids = (jax.numpy.asarray(a) for a in (X, W, B, IDS))
    check(ops.relu(x), ref.relu(X))
    check(ops.matmul(x, w, bias=b), X @ W + B)
    check(ops.dense(X, w), X @ W)
    dy = X @ W
    check(ops.dense_backward(jax.numpy.asarray(dy), x, w, dy), ref.dense_backward(dy, X, W, dy))
    check(ops.softmax_cross_entropy(x, ids), ops.softmax_cross_entropy(X, IDS))
    check(ops.dropout(x, 0.5), ops.dropout(X, 0.5))


def test_no_copies() -> None:
    x = jax.numpy.asarray(X)
    assert _core.from_dlpack(x).ctypes.data == x.unsafe_buffer_pointer()
    taken = []

    class Noting(_core.HandedOver):  # type: ignore[misc]
        def __dlpack__(self, **how: Any) -> Any:
            capsule = super().__dlpack__(**how)
            taken.append(how)
            return capsule

    memory = _core.empty((7, 5), np.dtype("f"))
    memory[...] = X
    y = jax.numpy.from_dlpack(Noting(memory))
    assert taken
    assert y.unsafe_buffer_pointer() == memory.ctypes.data


def test_bfloat16() -> None:
    a, b = jax.numpy.asarray(X, "bfloat16"), jax.numpy.asarray(W, "bfloat16")
    y = ops.matmul(a, b)
    assert isinstance(y, jax.Array)
    assert y.dtype == "bfloat16"
    assert_same(
        np.asarray(y.astype("f")), np.asarray((a.astype("f") @ b.astype("f")).astype("bfloat16").astype("f"))
    )


def test_arrays_that_cannot_change() -> None:
    x = jax.numpy.asarray(X)
    with pytest.raises(ValueError, match=r"params\[0\] is read-only"):
        ops.sgd_step([x], [x])
    with pytest.raises(ValueError, match="out is read-only"):
        ops.matmul(X, W, out=jax.numpy.zeros((7, 3)))


def test_inside_of_transforms() -> None:
    with pytest.raises(TypeError, match=r"x is a .*Tracer whose memory can't be used"):
        jax.jit(ops.relu)(X)


def test_no_memory_but_the_result_s() -> None:
    x = jax.numpy.ones((4096, 4096)).block_until_ready()
    kept = ops.relu(x)  # JAX gives memory back when it likes: it would be missing from the growth
    assert 0.9 < growth(lambda: ops.relu(x)) / x.nbytes < 1.1
    del kept
