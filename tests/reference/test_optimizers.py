import math

import numpy as np
import pytest
from tilefuse import reference as ref


def lists(*values):
    return [[np.array([v])] for v in values]


def test_gradient_descent_example():
    """(w1 - 2)**2 + (w2 + 3)**2 from [1, -2] at rate 0.1: gradient [-2, 2], next point [1.2, -2.2]."""
    w = np.array([1.0, -2.0])
    g = 2 * (w - [2, -3])
    assert g.tolist() == [-2, 2]
    ref.sgd_step([w], [g], learning_rate=0.1)
    np.testing.assert_allclose(w, [1.2, -2.2], rtol=1e-15)


def test_momentum_by_hand():
    w, g, v = lists(1.0, 2.0, 0.5)
    ref.momentum_step(w, g, v, learning_rate=0.1, momentum=0.8)
    assert v[0][0] == pytest.approx(0.8 * 0.5 - 0.2)
    assert w[0][0] == pytest.approx(1.2)
    w, g, v = lists(1.0, 2.0, 0.5)
    ref.momentum_step(w, g, v, learning_rate=0.1, momentum=0.8, nesterov=True)
    assert v[0][0] == pytest.approx(0.2)
    assert w[0][0] == pytest.approx(1 + 0.8 * 0.2 - 0.2)


def test_adagrad_by_hand():
    w, g, a = lists(1.0, 2.0, 5.0)
    ref.adagrad_step(w, g, a, learning_rate=0.3, epsilon=0.0)
    assert a[0][0] == 9
    assert w[0][0] == pytest.approx(1 - 0.3 * 2 / 3)


def test_rmsprop_by_hand():
    w, g, s, v, m = lists(1.0, 2.0, 8.0, 0.25, 1.0)
    ref.rmsprop_step(w, g, s, learning_rate=0.1, rho=0.75, epsilon=2.0)
    assert s[0][0] == 7
    assert w[0][0] == pytest.approx(1 - 0.1 * 2 / 3)
    w, g, s, v, m = lists(1.0, 2.0, 8.0, 0.25, 1.0)
    ref.rmsprop_step(w, g, s, v, m, learning_rate=0.1, rho=0.75, momentum=0.5, epsilon=0.0)
    increment = 0.1 * 2 / math.sqrt(7 - 1.25**2)
    assert m[0][0] == 1.25
    assert v[0][0] == pytest.approx(0.125 + increment)
    assert w[0][0] == pytest.approx(1 - 0.125 - increment)
    with pytest.raises(ValueError, match="velocities"):
        ref.rmsprop_step(w, g, s, momentum=0.5)


def test_adam_by_hand():
    w, g, m, v = lists(1.0, 2.0, 0.0, 0.0)
    for step in (1, 2):  # with a constant gradient the corrected moments are g and g**2
        ref.adam_step(w, g, m, v, step=step, learning_rate=0.1, epsilon=0.0)
        assert w[0][0] == pytest.approx(1 - 0.1 * step, rel=1e-12)
    assert m[0][0] == pytest.approx(2 * (1 - 0.9**2))
    assert v[0][0] == pytest.approx(4 * (1 - 0.999**2))


def test_amsgrad_keeps_the_largest():
    w, g, m, v, hat = lists(1.0, 1.0, 0.0, 1.0, 4.0)
    ref.adam_step(w, g, m, v, hat, step=1, learning_rate=1.0, beta_1=0.0, beta_2=0.75, epsilon=0.0)
    assert hat[0][0] == 4
    assert w[0][0] == pytest.approx(1 - 0.5 / 2)


def test_weight_decay_comes_first():
    for step, slots, options in [
        (ref.sgd_step, 0, {}),
        (ref.momentum_step, 1, {}),
        (ref.adagrad_step, 1, {}),
        (ref.rmsprop_step, 1, {}),
        (ref.adam_step, 2, {"step": 1}),
    ]:
        w, g, *state = lists(2.0, 0.0, *[0.0] * slots)
        step(w, g, *state, learning_rate=0.1, weight_decay=0.5, **options)
        assert w[0][0] == pytest.approx(1.9)
    w, g, m, v = lists(2.0, 0.0, 0.0, 0.0)
    ref.adamw_step(w, g, m, v, step=1, learning_rate=1.0)
    assert w[0][0] == pytest.approx(2 * (1 - 0.004))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_changed_in_place(dtype):
    w, g, m, v = ([np.full((2, 3), value, dtype)] for value in (1, 2, 0, 0))
    before = w[0]
    ref.adam_step(w, g, m, v, step=1)
    assert w[0] is before
    assert w[0].dtype == dtype
    assert (w[0] < 1).all()
    with pytest.raises(ValueError, match="step"):
        ref.adam_step(w, g, m, v, step=0)
    with pytest.raises(ValueError, match="shorter"):
        ref.sgd_step(w, [])


def test_clipping():
    def grads():
        return [np.array([3.0, 4.0]), np.array([0.0, -12.0])]

    g = grads()
    ref.clip_by_value(g, 3.5)
    assert [x.tolist() for x in g] == [[3, 3.5], [0, -3.5]]
    g = grads()
    ref.clip_by_norm(g, 6.0)
    assert [x.tolist() for x in g] == [[3, 4], [0, -6]]
    g = grads()
    assert ref.clip_by_global_norm(g, 6.5) == 13
    assert [x.tolist() for x in g] == [[1.5, 2], [0, -6]]
    g = grads()
    assert ref.clip_by_global_norm(g, 14.0) == 13
    assert g[1][1] == -12
