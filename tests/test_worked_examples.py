"""Small examples with their right answers."""

from __future__ import annotations

import numpy as np
import pytest
import tilefuse
from helpers.gradients import assert_gradient, numerical_gradient
from tilefuse import losses, metrics, ops, optimizers

pytestmark = pytest.mark.usefixtures("device")


def test_cross_entropy_of_two_outputs() -> None:
    y, p = np.array([1.0, 0.0]), np.array([0.6, 0.4])
    assert np.mean(-y * np.log(p)) == pytest.approx(0.255413, abs=1e-6)
    total = losses.CategoricalCrossentropy()(y[None], p[None])
    assert float(total) / 2 == pytest.approx(0.255413, abs=1e-6)


def test_gradient_descent_on_a_paraboloid() -> None:
    # (w1 - 2)^2 + (w2 + 3)^2 is twice the mean squared error between w and [2, -3].
    w, target = tilefuse.Variable([[1.0, -2.0]], dtype=np.float64), np.array([[2.0, -3.0]])
    with tilefuse.GradientTape() as tape:
        loss = losses.MeanSquaredError()(target, w.value)
    gradient = 2 * tape.gradient(loss, w)
    np.testing.assert_allclose(gradient, [[-2.0, 2.0]])
    optimizers.SGD(0.1).apply_gradients([(gradient, w)])
    np.testing.assert_allclose(w.value, [[1.2, -2.2]])


def test_scores_from_counts() -> None:
    # TP 40, TN 35, FP 10, FN 5
    y_true = np.repeat([1, 0, 0, 1], [40, 35, 10, 5])
    y_pred = np.repeat([1, 0, 1, 0], [40, 35, 10, 5])
    assert metrics.BinaryAccuracy()(y_true, y_pred) == pytest.approx(0.83333, abs=1e-5)
    assert metrics.Precision()(y_true, y_pred) == pytest.approx(0.8, abs=1e-5)
    assert metrics.Recall()(y_true, y_pred) == pytest.approx(0.88889, abs=1e-5)
    assert metrics.F1Score()(y_true, y_pred) == pytest.approx(0.84211, abs=1e-5)
    np.testing.assert_array_equal(metrics.confusion_matrix(y_true, y_pred), [[35, 10], [5, 40]])


def test_network_2_3_1() -> None:
    x, target = np.array([[1.0, 2.0]]), np.zeros((1, 1))
    w1 = np.array([[0.1, -0.2, 0.3], [0.4, 0.5, -0.6]])
    w2 = np.array([[0.7], [-0.8], [0.9]])
    b1, b2 = np.array([0.01, 0.02, 0.03]), np.array([0.04])

    def forward(w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray) -> np.ndarray:
        hidden = ops.dense(x, w1, b1, activation="relu")
        return losses.MeanSquaredError()(target, ops.dense(hidden, w2, b2))

    hidden = np.maximum(x @ w1 + b1, 0)
    np.testing.assert_allclose(forward(w1, b1, w2, b2), ((hidden @ w2 + b2) ** 2).item())
    weights = [w1, b1, w2, b2]
    with tilefuse.GradientTape() as tape:
        loss = forward(*weights)
    gradients = [g / 2 for g in tape.gradient(loss, weights)]  # of (y - p)^2 / 2
    for i, gradient in enumerate(gradients):

        def value(w: np.ndarray, i: int = i) -> np.ndarray:
            return forward(*weights[:i], w, *weights[i + 1 :]) / 2

        assert_gradient(gradient, numerical_gradient(value, weights[i]))
    p = hidden @ w2 + b2
    np.testing.assert_allclose(gradients[2], hidden.T @ p)


def test_network_3_4_2_with_softmax() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), np.eye(2)[[0, 1, 1, 0, 1]]
    weights = [rng.normal(size=shape) for shape in ((3, 4), (4,), (4, 2), (2,))]
    loss_fn = losses.CategoricalCrossentropy(from_logits=True)

    def logits_of(w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray) -> np.ndarray:
        return ops.dense(ops.dense(x, w1, b1, activation="relu"), w2, b2)

    with tilefuse.GradientTape(persistent=True) as tape:
        logits = logits_of(*weights)
        loss = loss_fn(y, logits)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(tape.gradient(loss, logits), (p - y) / 5)
    for i, gradient in enumerate(tape.gradient(loss, weights)):

        def value(w: np.ndarray, i: int = i) -> np.ndarray:
            return loss_fn(y, logits_of(*weights[:i], w, *weights[i + 1 :]))

        assert_gradient(gradient, numerical_gradient(value, weights[i]))
