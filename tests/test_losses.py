"""Losses called on arrays: values, weights, reductions, names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.gradients import assert_gradient, numerical_gradient
from tilefuse import losses

pytestmark = pytest.mark.usefixtures("device")

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(7, 4))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
IDS = RNG.integers(0, 4, 7)
ONE_HOT = np.eye(4)[IDS]
WEIGHTS = RNG.random(7)

CASES = {
    "mse": (losses.MeanSquaredError(), ONE_HOT, LOGITS),
    "binary": (losses.BinaryCrossentropy(label_smoothing=0.1), ONE_HOT, PROBABILITIES),
    "binary_logits": (losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1), ONE_HOT, LOGITS),
    "categorical": (losses.CategoricalCrossentropy(label_smoothing=0.2), ONE_HOT, PROBABILITIES),
    "categorical_logits": (losses.CategoricalCrossentropy(True, 0.2), ONE_HOT, LOGITS),
    "sparse": (losses.SparseCategoricalCrossentropy(), IDS, PROBABILITIES),
    "sparse_logits": (losses.SparseCategoricalCrossentropy(from_logits=True), IDS, LOGITS),
}


def other_reduction(loss: losses.Loss, reduction: Any) -> losses.Loss:
    return type(loss).from_config(loss.get_config() | {"reduction": reduction})


@pytest.mark.parametrize("case", CASES)
def test_reductions_and_weights_agree(case: str) -> None:
    loss, y, p = CASES[case]
    each = other_reduction(loss, None)(y, p)
    assert each.shape == (7,)
    assert loss(y, p).shape == ()
    assert loss(y, p) == pytest.approx(each.mean())
    assert loss(y, p, WEIGHTS) == pytest.approx((each * WEIGHTS).sum() / 7)
    assert loss(y, p, WEIGHTS[:, None]) == pytest.approx((each * WEIGHTS).sum() / 7)
    assert other_reduction(loss, "sum")(y, p, WEIGHTS) == pytest.approx((each * WEIGHTS).sum())


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
@pytest.mark.parametrize("case", CASES)
def test_gradients(case: str, reduction: str) -> None:
    loss, y, p = CASES[case]
    loss = other_reduction(loss, reduction)
    with tilefuse.GradientTape() as tape:
        value = loss(y, p, WEIGHTS)
    assert_gradient(tape.gradient(value, p), numerical_gradient(lambda x: loss(y, x, WEIGHTS), p), 1e-6)


def test_formulas() -> None:
    np.testing.assert_allclose(losses.mean_squared_error([[0.0, 2.0]], [[1.0, 0.0]]), [2.5])
    np.testing.assert_allclose(losses.binary_crossentropy([[1.0]], [[0.6]]), [-np.log(0.6)])
    np.testing.assert_allclose(losses.categorical_crossentropy([[0, 1]], [[0.2, 0.8]]), [-np.log(0.8)])
    np.testing.assert_allclose(losses.sparse_categorical_crossentropy([1], [[0.2, 0.8]]), [-np.log(0.8)])
    np.testing.assert_allclose(losses.binary_crossentropy([[1.0]], [[0.0]]), [-np.log(1e-7)])


def test_float32_stays() -> None:
    for loss, y, p in CASES.values():
        assert loss(y, p.astype(np.float32)).dtype == np.float32


def test_labels_without_the_last_axis() -> None:
    loss = losses.BinaryCrossentropy()
    p = np.array([[0.2], [0.7]])
    assert loss([0, 1], p) == loss([[0], [1]], p)
    sparse = losses.SparseCategoricalCrossentropy()
    assert sparse(IDS[:, None], PROBABILITIES) == sparse(IDS, PROBABILITIES)


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("mse", losses.MeanSquaredError),
        ("MeanSquaredError", losses.MeanSquaredError),
        ("binary_crossentropy", losses.BinaryCrossentropy),
        (losses.CategoricalCrossentropy, losses.CategoricalCrossentropy),
        (losses.sparse_categorical_crossentropy, losses.SparseCategoricalCrossentropy),
    ],
)
def test_get(identifier: Any, expected: type) -> None:
    assert type(losses.get(identifier)) is expected


def test_config_round_trip() -> None:
    loss = losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    again = losses.get({"class_name": "CategoricalCrossentropy", "config": loss.get_config()})
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize("labels", [[0, 4], [-1, 0], [0.5, 1], [np.nan, 1]])
def test_class_ids_out_of_range(labels: Any) -> None:
    with pytest.raises(ValueError, match="integers from 0 to 3"):
        losses.SparseCategoricalCrossentropy()(np.array(labels), PROBABILITIES[:2])


def test_wrong_shapes_and_arguments() -> None:
    with pytest.raises(ValueError, match=r"must have the shape \(7, 4\)"):
        losses.MeanSquaredError()(np.zeros((7, 3)), LOGITS)
    with pytest.raises(ValueError, match="use CategoricalCrossentropy"):
        losses.SparseCategoricalCrossentropy()(ONE_HOT, PROBABILITIES)
    with pytest.raises(ValueError, match="one weight a sample"):
        losses.MeanSquaredError()(ONE_HOT, LOGITS, np.ones(3))
    with pytest.raises(ValueError, match="reduction must be"):
        losses.MeanSquaredError(reduction="average")
    with pytest.raises(ValueError, match="label_smoothing"):
        losses.BinaryCrossentropy(label_smoothing=2)
