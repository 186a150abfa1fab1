import math

import numpy as np
import pytest
from helpers.gradients import assert_gradient, numerical_gradient
from tilefuse.reference import activations as ref

NAMES = sorted(ref.FORWARD)
POINTS = np.array([-7.5, -3.0, -1.25, -0.4, -0.01, 0.02, 0.3, 1.0, 2.75, 6.0])


@pytest.mark.parametrize("name", NAMES)
def test_backward_is_the_derivative(name):
    alpha = 0.7
    dy = np.linspace(-1, 2, POINTS.size)
    y = ref.activate(POINTS, name, alpha)
    dx = ref.activate_backward(dy, y, name, alpha, x=POINTS)
    assert_gradient(dx, numerical_gradient(lambda x: ref.activate(x, name, alpha), POINTS, dy))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(name, dtype):
    x = POINTS.astype(dtype)
    y = ref.activate(x, name)
    assert y.dtype == dtype
    assert ref.activate_backward(x, y, name, x=x).dtype == dtype


def test_values():
    log = math.log
    assert ref.relu(np.array([-1.0, 0.0, 2.0])).tolist() == [0, 0, 2]
    assert ref.leaky_relu(np.array([-10.0, 3.0])).tolist() == [-2, 3]
    assert ref.leaky_relu(np.array([-10.0, 3.0]), 0.5).tolist() == [-5, 3]
    x = np.array([-log(4), 0.0, log(4)])
    np.testing.assert_allclose(ref.elu(x), [-0.75, 0, log(4)], rtol=1e-15)
    np.testing.assert_allclose(ref.elu(x, 2.0), [-1.5, 0, log(4)], rtol=1e-15)
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    np.testing.assert_allclose(ref.selu(x), [-0.75 * scale * alpha, 0, scale * log(4)], rtol=1e-15)
    np.testing.assert_allclose(ref.sigmoid(x), [0.2, 0.5, 0.8], rtol=1e-15)
    np.testing.assert_allclose(ref.silu(x), [-0.2 * log(4), 0, 0.8 * log(4)], rtol=1e-15)
    np.testing.assert_allclose(ref.tanh(x), [-15 / 17, 0, 15 / 17], rtol=1e-15)
    np.testing.assert_allclose(ref.softplus(x), [log(1.25), log(2), log(5)], rtol=1e-15)


def test_gelu_values():
    # Phi(1) = 0.841344746068543 and Phi(-3) = 0.00134989803163009 from tables of the normal distribution
    x = np.array([-3.0, 0.0, 1.0])
    np.testing.assert_allclose(ref.gelu(x), [-3 * 0.00134989803163009, 0, 0.841344746068543], rtol=1e-13)
    u = math.sqrt(2 / math.pi) * 1.044715
    np.testing.assert_allclose(ref.gelu(x, approximate=True)[2], (1 + math.tanh(u)) / 2, rtol=1e-15)
    np.testing.assert_allclose(ref.gelu(x, approximate=True), ref.gelu(x), atol=5e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_inputs_do_not_overflow(name, dtype):
    x = np.array([-1000.0, 1000.0], dtype=dtype)
    with np.errstate(over="raise", invalid="raise"):
        y = ref.activate(x, name)
        dx = ref.activate_backward(np.ones_like(x), y, name, x=x)
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan(name):
    x = np.array([np.nan, 1.0])
    assert np.isnan(ref.activate(x, name)).tolist() == [True, False]


def test_small_inputs_keep_their_relative_accuracy():
    x = np.array([1e-12, -1e-12])
    np.testing.assert_allclose(ref.elu(x), x, rtol=1e-11)
    np.testing.assert_allclose(ref.tanh(x), x, rtol=1e-11)
    np.testing.assert_allclose(ref.softplus(np.array([-50.0])), math.exp(-50), rtol=1e-14)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"unknown activation 'rleu'.*relu"):
        ref.activate(POINTS, "rleu")


@pytest.mark.parametrize("name", sorted(ref.NEEDS_INPUT))
def test_input_is_needed(name):
    with pytest.raises(ValueError, match="needs the input"):
        ref.activate_backward(POINTS, POINTS, name)
