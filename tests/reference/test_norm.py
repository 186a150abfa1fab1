import numpy as np
import pytest
from helpers.gradients import assert_gradient, numerical_gradient
from tilefuse import reference as ref
from tilefuse.reference.activations import FORWARD

RNG = np.random.default_rng(1)
X, DY, RESIDUAL = RNG.standard_normal((3, 6, 5))
GAMMA, BETA, MEAN = RNG.standard_normal((3, 5))
VARIANCE = RNG.uniform(0.5, 2, 5)


@pytest.mark.parametrize("activation", [None, *FORWARD])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_batch_norm(training, activation):
    how = {"training": training, "epsilon": 0.1}

    def forward(activation, x=X, gamma=GAMMA, beta=BETA, residual=RESIDUAL):
        moving = (None, None) if training else (MEAN, VARIANCE)
        y = ref.batch_norm(x, gamma, beta, *moving, activation=activation, residual=residual, **how)
        return y if training else (y, MEAN, 1 / np.sqrt(VARIANCE + 0.1))

    y, mean, inv_std = forward(activation)
    given = {"training": training, "activation": activation, "z": forward(None)[0], "residual": True}
    gradients = ref.batch_norm_backward(DY, X, GAMMA, mean, inv_std, y, **given)
    inputs = {"x": X, "gamma": GAMMA, "beta": BETA, "residual": RESIDUAL}
    for actual, (name, value) in zip(gradients, inputs.items(), strict=True):
        numerical = numerical_gradient(lambda v, name=name: forward(activation, **{name: v})[0], value, DY)
        assert_gradient(actual, numerical, 1e-8)


def test_gradients_of_row_norms():
    for gradient, (name, value) in zip(
        ref.layer_norm_backward(DY, X, GAMMA),
        {"x": X, "gamma": GAMMA, "beta": BETA}.items(),
        strict=True,
    ):
        given = {"x": X, "gamma": GAMMA, "beta": BETA}
        numerical = numerical_gradient(lambda v, n=name, g=given: ref.layer_norm(**g | {n: v}), value, DY)
        assert_gradient(gradient, numerical, 1e-8)
    dx, dgamma = ref.rms_norm_backward(DY, X, GAMMA)
    assert_gradient(dx, numerical_gradient(lambda x: ref.rms_norm(x, GAMMA), X, DY), 1e-8)
    assert_gradient(dgamma, numerical_gradient(lambda gamma: ref.rms_norm(X, gamma), GAMMA, DY), 1e-8)


def test_values():
    x = np.array([[1.0, 7.0], [3.0, 7.0]])
    moving_mean, moving_variance = np.zeros(2), np.ones(2)
    moving = moving_mean, moving_variance
    y, mean, inv_std = ref.batch_norm(
        x, np.array([2.0, 1.0]), np.ones(2), *moving, training=True, momentum=0.75, epsilon=0.25
    )
    assert mean.tolist() == [2, 7]
    np.testing.assert_allclose(inv_std, [1.25**-0.5, 2], rtol=1e-15)
    np.testing.assert_allclose(y, [[1 - 2 * 1.25**-0.5, 1], [1 + 2 * 1.25**-0.5, 1]], rtol=1e-15)
    assert moving_mean.tolist() == [0.5, 1.75]
    assert moving_variance.tolist() == [1, 0.75]
    np.testing.assert_allclose(ref.layer_norm(x, epsilon=0.0), [[-1, 1], [-1, 1]], rtol=1e-15)
    np.testing.assert_allclose(ref.rms_norm(x, epsilon=0.0), [[0.2, 1.4], x[1] / np.sqrt(29)], rtol=1e-15)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (3,)])
def test_edge_sizes(shape):
    x = np.zeros(shape, np.float32)
    y, mean, inv_std = ref.batch_norm(x, None, None, None, None, training=True)
    assert mean.shape == inv_std.shape == shape[-1:]
    gradients = ref.batch_norm_backward(x, x, None, mean, inv_std)
    assert [g.shape for g in gradients] == [shape, shape[-1:], shape[-1:]]
    assert ref.layer_norm(x).shape == ref.rms_norm(x).shape == y.shape == shape
    assert [g.shape for g in ref.layer_norm_backward(x, x)] == [shape, shape[-1:], shape[-1:]]
    results = (y, mean, inv_std, *gradients, ref.layer_norm(x), ref.rms_norm(x))
    assert all(a.dtype == np.float32 for a in results)
