"""Pooling: windows side by side, overlapping windows, and whole images."""

from typing import Any

import pytest
from _backends import Backend, shapes

IMAGES = shapes((32, 148, 148, 32), (32, 56, 56, 64), (128, 28, 28, 3))
HOW = pytest.mark.parametrize(
    "how",
    [{"pool_size": 2}, {"pool_size": 3, "strides": 2, "padding": "same"}],
    ids=["2x2", "3x3, strides 2"],
)
NAMES = pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])


@IMAGES
@HOW
@NAMES
def test_pool(backend: Backend, name: str, how: dict[str, Any], shape: tuple[int, ...]) -> None:
    x = backend.normal(*shape)
    function = getattr(backend.ops, name)
    backend.time(lambda: function(x, **how), bytes_moved=x.nbytes + function(x, **how).nbytes)


@IMAGES
@HOW
@NAMES
def test_pool_backward(backend: Backend, name: str, how: dict[str, Any], shape: tuple[int, ...]) -> None:
    """That of maxima reads x too, as it must find them again."""
    x = backend.normal(*shape)
    dy = getattr(backend.ops, name)(x, **how)
    function = getattr(backend.ops, f"{name}_backward")
    moved = dy.nbytes + (2 if name == "max_pool2d" else 1) * x.nbytes
    backend.time(lambda: function(dy, x, **how), bytes_moved=moved)


@IMAGES
def test_global_mean(backend: Backend, shape: tuple[int, ...]) -> None:
    x = backend.normal(*shape)
    backend.time(lambda: backend.ops.global_avg_pool2d(x), bytes_moved=x.nbytes)


@IMAGES
def test_global_mean_backward(backend: Backend, shape: tuple[int, ...]) -> None:
    x, dy = backend.normal(*shape), backend.normal(shape[0], shape[3])
    backend.time(lambda: backend.ops.global_avg_pool2d_backward(dy, x), bytes_moved=x.nbytes)
