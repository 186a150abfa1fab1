import math

import numpy as np
import pytest
from helpers.gradients import assert_gradient, numerical_gradient
from tilefuse import reference as ref


def scores_and_labels(loss, lead, labels_kind, rng):
    scores = rng.standard_normal((*lead, 4))
    if loss in (ref.binary_cross_entropy, ref.categorical_cross_entropy):
        scores = rng.uniform(0.3, 0.7, scores.shape)
    if labels_kind == "ids":
        return scores, rng.integers(0, 4, lead)
    if loss in (ref.softmax_cross_entropy, ref.categorical_cross_entropy):
        return scores, rng.dirichlet(np.ones(4), lead)
    return scores, rng.uniform(0, 1, scores.shape)


LOSSES = [
    (ref.softmax_cross_entropy, "ids", 0.0),
    (ref.softmax_cross_entropy, "ids", 0.1),
    (ref.softmax_cross_entropy, "probabilities", 0.0),
    (ref.softmax_cross_entropy, "probabilities", 0.3),
    (ref.categorical_cross_entropy, "ids", 0.0),
    (ref.categorical_cross_entropy, "probabilities", 0.2),
    (ref.sigmoid_binary_cross_entropy, "probabilities", 0.0),
    (ref.sigmoid_binary_cross_entropy, "probabilities", 0.2),
    (ref.binary_cross_entropy, "probabilities", 0.0),
    (ref.binary_cross_entropy, "probabilities", 0.2),
    (ref.mean_squared_error, "probabilities", None),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("lead", [(3,), (2, 3)])
@pytest.mark.parametrize(("loss", "kind", "smoothing"), LOSSES)
def test_gradient(loss, kind, smoothing, lead, weighted):
    rng = np.random.default_rng(5)
    scores, labels = scores_and_labels(loss, lead, kind, rng)
    options = {} if smoothing is None else {"label_smoothing": smoothing}
    if weighted:
        options["sample_weight"] = rng.uniform(0, 2, lead)
    value, gradient = loss(scores, labels, **options)
    assert value.shape == ()
    assert value.dtype == gradient.dtype == np.float64
    assert_gradient(gradient, numerical_gradient(lambda s: loss(s, labels, **options)[0], scores))


def test_gradient_of_labels_that_do_not_sum_to_one():
    logits, labels = np.array([[0.3, -1.0, 2.0]]), np.array([[1.0, 1.0, 0.5]])
    gradient = ref.softmax_cross_entropy(logits, labels)[1]
    assert_gradient(gradient, numerical_gradient(lambda x: ref.softmax_cross_entropy(x, labels)[0], logits))


def test_values():
    logits = np.log(np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]))
    expected = -(math.log(0.5) + math.log(0.1)) / 2
    for labels in (np.array([2, 0]), np.array([[0.0, 0, 1], [1, 0, 0]])):
        assert ref.softmax_cross_entropy(logits, labels)[0] == pytest.approx(expected, rel=1e-14)
        assert ref.categorical_cross_entropy(3 * np.exp(logits), labels)[0] == pytest.approx(
            expected, rel=1e-14
        )
    assert ref.mean_squared_error(np.array([[1.0, 2], [0, 0]]), np.array([[0.0, 0], [2, 4]]))[0] == 6.25
    p, y = np.array([[0.6, 0.4]]), np.array([[1.0, 0.0]])
    assert ref.binary_cross_entropy(p, y)[0] == pytest.approx(-math.log(0.6), rel=1e-14)
    logits = np.log(p / (1 - p))
    assert ref.sigmoid_binary_cross_entropy(logits, y)[0] == pytest.approx(-math.log(0.6), rel=1e-14)


def test_half_of_the_binary_cross_entropy():
    """The mean of -y ln p alone over y = [1, 0], p = [0.6, 0.4] is 0.255413."""
    p, y = np.array([0.6, 0.4]), np.array([1, 0])
    assert np.mean(-y * np.log(p)) == pytest.approx(0.255413, abs=5e-7)


def test_sample_weights_do_not_change_the_divisor():
    pred, target = np.array([[1.0], [3.0]]), np.zeros((2, 1))
    value, gradient = ref.mean_squared_error(pred, target, sample_weight=np.array([1.0, 0.0]))
    assert value == 0.5
    assert gradient.tolist() == [[1], [0]]


def test_clipping():
    p, y = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    value, gradient = ref.binary_cross_entropy(p, y)
    assert value == pytest.approx(-math.log(1e-7), rel=1e-8)
    assert gradient.tolist() == [[0, 0]]
    value, gradient = ref.categorical_cross_entropy(p, y)
    assert value == pytest.approx(-math.log(1e-7), rel=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_no_samples(dtype):
    value, gradient = ref.softmax_cross_entropy(np.zeros((0, 3), dtype), np.zeros(0, np.int32))
    assert value == 0
    assert value.dtype == dtype
    assert gradient.shape == (0, 3)
    assert gradient.dtype == dtype
    value, gradient = ref.mean_squared_error(np.ones((2, 2), dtype), np.zeros((2, 2)))
    assert value == 1
    assert value.dtype == dtype
    assert gradient.dtype == dtype


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_out_of_range(labels):
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        ref.softmax_cross_entropy(np.zeros((2, 3)), np.array(labels))


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="labels"):
        ref.softmax_cross_entropy(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="labels"):
        ref.mean_squared_error(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="sample_weight"):
        ref.mean_squared_error(np.zeros((2, 3)), np.zeros((2, 3)), sample_weight=np.ones(3))
