"""Sums of two arrays, as where a residual network's branches meet."""

import pytest
from _backends import Backend, shapes


@shapes((32, 56 * 56, 64), (32, 14 * 14, 256))
@pytest.mark.parametrize("activation", [None, "relu"])
def test_add(backend: Backend, shape: tuple[int, ...], activation: str | None) -> None:
    a, b = backend.normal(*shape), backend.normal(*shape)
    backend.time(lambda: backend.ops.add(a, b, activation), bytes_moved=3 * a.nbytes)
