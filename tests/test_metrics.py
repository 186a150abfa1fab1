"""Metrics: values on known cases, batches, weights, tables."""

from __future__ import annotations

import numpy as np
import pytest
from tilefuse import metrics

RNG = np.random.default_rng(0)
SCORES = RNG.random((60, 4))
LABELS = RNG.integers(0, 4, 60)
GUESSES = SCORES.argmax(axis=1)


def plain_f1(label: int) -> float:
    hits = ((label == LABELS) & (label == GUESSES)).sum()
    return float(2 * hits / ((label == LABELS).sum() + (label == GUESSES).sum()))


@pytest.mark.parametrize(
    "metric",
    [
        metrics.SparseCategoricalAccuracy(),
        metrics.Precision(),
        metrics.Recall(average="macro"),
        metrics.F1Score("weighted"),
        metrics.ConfusionMatrix(),
    ],
)
def test_batches_add_up(metric: metrics.Metric) -> None:
    whole = metric(LABELS, SCORES)
    metric.reset_state()
    for start in range(0, 60, 17):
        metric.update_state(LABELS[start : start + 17], SCORES[start : start + 17])
    np.testing.assert_allclose(metric.result(), whole)
    metric.reset_state()
    one_hot = np.eye(4)[LABELS]
    if not isinstance(metric, metrics.SparseCategoricalAccuracy):
        np.testing.assert_allclose(metric(one_hot, SCORES), whole)


def test_accuracies() -> None:
    right = (GUESSES == LABELS).mean()
    assert metrics.SparseCategoricalAccuracy()(LABELS, SCORES) == pytest.approx(right)
    assert metrics.SparseCategoricalAccuracy()(LABELS[:, None], SCORES) == pytest.approx(right)
    assert metrics.CategoricalAccuracy()(np.eye(4)[LABELS], SCORES) == pytest.approx(right)
    assert metrics.Accuracy()(LABELS, GUESSES) == pytest.approx(right)
    assert metrics.BinaryAccuracy()([1, 0, 1, 1], [[0.9], [0.1], [0.4], [0.5]]) == 0.5
    assert metrics.BinaryAccuracy(threshold=0.3)([1, 0, 1, 1], [0.9, 0.1, 0.4, 0.5]) == 1.0


def test_weights() -> None:
    accuracy = metrics.SparseCategoricalAccuracy()
    weight = RNG.random(60)
    right = GUESSES == LABELS
    expected = (right * weight).sum() / weight.sum()
    assert accuracy(LABELS, SCORES, weight) == pytest.approx(expected)
    micro = metrics.Precision()
    assert micro(LABELS, SCORES, weight) == pytest.approx(expected)  # each sample is predicted once


def test_averages_of_f1() -> None:
    each = np.array([plain_f1(label) for label in range(4)])
    support = np.bincount(LABELS, minlength=4)
    np.testing.assert_allclose(metrics.F1Score()(LABELS, SCORES), each)
    assert metrics.F1Score("macro")(LABELS, SCORES) == pytest.approx(each.mean())
    assert metrics.F1Score("weighted")(LABELS, SCORES) == pytest.approx((each * support).sum() / 60)
    assert metrics.F1Score("micro")(LABELS, SCORES) == pytest.approx((GUESSES == LABELS).mean())


def test_one_class_and_threshold() -> None:
    precision = metrics.Precision(class_id=2)(LABELS, SCORES)
    assert precision == pytest.approx(((LABELS == 2) & (GUESSES == 2)).sum() / (GUESSES == 2).sum())
    recall = metrics.Recall(thresholds=0.8)(LABELS, SCORES)
    assert recall == pytest.approx((SCORES[np.arange(60), LABELS] > 0.8).mean())


def test_binary_counts() -> None:
    y, p = [1, 1, 1, 0, 0], [0.9, 0.8, 0.2, 0.7, 0.1]
    assert metrics.Precision()(y, p) == pytest.approx(2 / 3)
    assert metrics.Recall()(y, np.array(p)[:, None]) == pytest.approx(2 / 3)
    assert metrics.F1Score()(y, p) == pytest.approx(2 / 3)


def test_nothing_predicted_is_zero() -> None:
    assert metrics.Precision()([1, 1], [0.0, 0.0]) == 0.0
    assert metrics.Recall()([0, 0], [0.0, 0.0]) == 0.0
    assert metrics.F1Score().result() == 0.0
    assert metrics.Mean().result() == 0.0


def test_confusion_matrix() -> None:
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (LABELS, GUESSES), 1)
    np.testing.assert_array_equal(metrics.confusion_matrix(LABELS, GUESSES), expected)
    np.testing.assert_array_equal(metrics.confusion_matrix(np.eye(4)[LABELS], SCORES), expected)
    np.testing.assert_array_equal(metrics.confusion_matrix([1, 0], [[0.9], [0.2]]), [[1, 0], [0, 1]])
    weighted = metrics.confusion_matrix([0, 1], [0, 0], weights=[0.5, 2.0])
    np.testing.assert_array_equal(weighted, [[0.5, 0.0], [2.0, 0.0]])
    assert metrics.confusion_matrix([0], [0], num_classes=3).shape == (3, 3)


def test_confusion_matrix_of_growing_classes() -> None:
    matrix = metrics.ConfusionMatrix()
    matrix.update_state([0, 1], [0, 1])
    matrix.update_state([2], [0])
    np.testing.assert_array_equal(matrix.result(), [[1, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_classification_report() -> None:
    table = metrics.classification_report(LABELS, GUESSES, output_dict=True)
    assert table["2"]["f1-score"] == pytest.approx(plain_f1(2))
    assert table["accuracy"] == pytest.approx((GUESSES == LABELS).mean())
    text = metrics.classification_report(LABELS, SCORES, target_names=["a", "b", "c", "long name"])
    assert len(text.splitlines()) == 8
    assert f"{plain_f1(3):.4f}" in text
    with pytest.raises(ValueError, match="must name 4 classes"):
        metrics.classification_report(LABELS, GUESSES, target_names=["a"])


def test_any_function_is_a_metric() -> None:
    metric = metrics.get(lambda y_true, y_pred: np.abs(y_pred - y_true).max(axis=-1))
    assert metric([[1.0, 2.0]], [[1.5, 2.0]]) == 0.5
    assert metrics.MeanSquaredError()([[1.0], [2.0]], [[1.0], [4.0]]) == 2.0


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("f1_score", metrics.F1Score),
        ("BinaryAccuracy", metrics.BinaryAccuracy),
        ("sparse_categorical_accuracy", metrics.SparseCategoricalAccuracy),
    ],
)
def test_names(name: str, cls: type) -> None:
    assert type(metrics.get(name)) is cls


def test_errors() -> None:
    with pytest.raises(ValueError, match="Did you mean 'precision'"):
        metrics.get("precison")
    with pytest.raises(ValueError, match="average must be"):
        metrics.F1Score("mean")
    with pytest.raises(ValueError, match="one entry for each sample"):
        metrics.confusion_matrix([0, 1], [0])
    with pytest.raises(ValueError, match="from 0 to 1"):
        metrics.confusion_matrix([0, 2], [0, 1], num_classes=2)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        metrics.Precision()([0, 3], [0.1, 0.9])
    with pytest.raises(ValueError, match="one entry for each sample"):
        metrics.Recall()([0, 1, 1], SCORES)
    with pytest.raises(ValueError, match="must have one shape"):
        metrics.BinaryAccuracy()([[0, 1]], [0.5])
