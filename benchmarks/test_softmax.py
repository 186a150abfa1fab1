"""Softmax and log-softmax over the last axis."""

import pytest
from _backends import Backend, shapes

ROWS = shapes((32, 10), (128, 1000), (4096, 1000))


@ROWS
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(backend: Backend, name: str, shape: tuple[int, int]) -> None:
    x = backend.normal(*shape)
    function = getattr(backend.ops, name)
    backend.time(lambda: function(x), bytes_moved=2 * x.nbytes)


@ROWS
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_backward(backend: Backend, name: str, shape: tuple[int, int]) -> None:
    x, dy = backend.normal(*shape), backend.normal(*shape)
    y = getattr(backend.ops, name)(x)
    function = getattr(backend.ops, f"{name}_backward")
    backend.time(lambda: function(dy, y), bytes_moved=3 * x.nbytes)
