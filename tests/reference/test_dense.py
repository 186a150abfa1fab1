import numpy as np
import pytest
from helpers.gradients import assert_gradient, numerical_gradient
from tilefuse import reference as ref
from tilefuse.reference.activations import FORWARD


@pytest.mark.parametrize("activation", [None, *FORWARD])
@pytest.mark.parametrize("lead", [(3,), (2, 3), ()])
def test_backward_is_the_derivative(activation, lead):
    rng = np.random.default_rng(2)
    x, w, b = rng.standard_normal((*lead, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
    dy = rng.standard_normal((*lead, 5))
    y = ref.dense(x, w, b, activation)
    dx, dw, db = ref.dense_backward(dy, x, w, y, activation, z=x @ w + b)
    assert_gradient(dx, numerical_gradient(lambda x: ref.dense(x, w, b, activation), x, dy))
    assert_gradient(dw, numerical_gradient(lambda w: ref.dense(x, w, b, activation), w, dy))
    assert_gradient(db, numerical_gradient(lambda b: ref.dense(x, w, b, activation), b, dy))


def test_preactivation_is_needed():
    x = np.ones((2, 2))
    with pytest.raises(ValueError, match="gelu"):
        ref.dense_backward(x, x, x, x, "gelu")


def test_network_2_3_1():
    """Relu network, input [1, 2], loss (y - p)**2 / 2 with y = 0: by hand and by central differences."""
    x = np.array([[1.0, 2.0]])
    w1, b1 = np.array([[0.5, -1.0, 0.25], [0.25, 0.5, -1.0]]), np.array([0.1, 0.2, 0.3])
    w2, b2 = np.array([[2.0], [-1.0], [0.5]]), np.array([0.5])

    def loss(w1, b1, w2, b2):
        return ref.dense(ref.dense(x, w1, b1, "relu"), w2, b2) ** 2 / 2

    h = ref.dense(x, w1, b1, "relu")
    np.testing.assert_allclose(h, [[1.1, 0.2, 0.0]], atol=1e-15)
    p = ref.dense(h, w2, b2)
    np.testing.assert_allclose(p, [[2.5]], atol=1e-15)
    dh, dw2, db2 = ref.dense_backward(p, h, w2, p)
    _, dw1, db1 = ref.dense_backward(dh, x, w1, h, "relu")
    np.testing.assert_allclose(dw2, [[2.75], [0.5], [0]], atol=1e-15)
    np.testing.assert_allclose(db1, [5, -2.5, 0], atol=1e-15)
    assert_gradient(dw1, numerical_gradient(lambda w: loss(w, b1, w2, b2), w1))
    assert_gradient(db1, numerical_gradient(lambda b: loss(w1, b, w2, b2), b1))
    assert_gradient(dw2, numerical_gradient(lambda w: loss(w1, b1, w, b2), w2))
    assert_gradient(db2, numerical_gradient(lambda b: loss(w1, b1, w2, b), b2))


def test_network_3_4_2():
    """Softmax cross-entropy at the end: the gradient at the logits is p - y."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((1, 3)), np.array([[0.0, 1.0]])
    w1, w2 = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    h = ref.dense(x, w1, None, "relu")
    logits = ref.dense(h, w2)
    _, dlogits = ref.softmax_cross_entropy(logits, y)
    np.testing.assert_allclose(dlogits, ref.softmax(logits) - y, atol=1e-15)
    dh, dw2, _ = ref.dense_backward(dlogits, h, w2, logits)
    _, dw1, _ = ref.dense_backward(dh, x, w1, h, "relu")

    def loss(w1, w2):
        return ref.softmax_cross_entropy(ref.dense(ref.dense(x, w1, None, "relu"), w2), y)[0]

    assert_gradient(dw1, numerical_gradient(lambda w: loss(w, w2), w1))
    assert_gradient(dw2, numerical_gradient(lambda w: loss(w1, w), w2))
