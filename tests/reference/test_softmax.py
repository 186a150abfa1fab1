import numpy as np
import pytest
from helpers.gradients import assert_gradient, numerical_gradient
from tilefuse import reference as ref

FUNCTIONS = [(ref.softmax, ref.softmax_backward), (ref.log_softmax, ref.log_softmax_backward)]


@pytest.mark.parametrize(("forward", "backward"), FUNCTIONS)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_backward_is_the_derivative(forward, backward, axis):
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((2, 3, 4, 5))
    dx = backward(dy, forward(x, axis), axis)
    assert_gradient(dx, numerical_gradient(lambda x: forward(x, axis), x, dy))


def test_values():
    x = np.log(np.array([[1.0, 2.0, 5.0]]))
    np.testing.assert_allclose(ref.softmax(x), [[0.125, 0.25, 0.625]], rtol=1e-15)
    np.testing.assert_allclose(ref.log_softmax(x), np.log([[0.125, 0.25, 0.625]]), rtol=1e-14)


def test_large_inputs():
    x = np.array([[1e4, 1e4, -1e4]])
    assert ref.softmax(x).tolist() == [[0.5, 0.5, 0]]
    np.testing.assert_allclose(ref.log_softmax(x), [[-np.log(2), -np.log(2), -2e4 - np.log(2)]], rtol=1e-15)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1)])
def test_edge_sizes(shape):
    for forward, backward in FUNCTIONS:
        with np.errstate(divide="ignore"):  # the logarithm of an empty sum
            y = forward(np.zeros(shape, dtype=np.float32))
        assert y.shape == shape
        assert y.dtype == np.float32
        assert backward(y, y).shape == shape
