"""Activations and their derivatives on a layer's worth of values and on more than the caches hold."""

import pytest
from _backends import Backend, shapes

OF_OUTPUT = ["relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus"]
OF_INPUT = ["gelu", "silu"]  # whose derivative takes the input
SIZES = shapes((32, 128), (1024, 4096))


@SIZES
@pytest.mark.parametrize("name", OF_OUTPUT + OF_INPUT)
def test_activation(backend: Backend, name: str, shape: tuple[int, int]) -> None:
    x = backend.normal(*shape)
    function = getattr(backend.ops, name)
    backend.time(lambda: function(x), bytes_moved=2 * x.nbytes)


@SIZES
@pytest.mark.parametrize("name", OF_OUTPUT + OF_INPUT)
def test_activation_backward(backend: Backend, name: str, shape: tuple[int, int]) -> None:
    x, dy = backend.normal(*shape), backend.normal(*shape)
    other = x if name in OF_INPUT else getattr(backend.ops, name)(x)
    function = getattr(backend.ops, f"{name}_backward")
    backend.time(lambda: function(dy, other), bytes_moved=3 * x.nbytes)
