import itertools

import numpy as np
import pytest
from helpers.arrays import LAYOUTS, normal
from helpers.compare import assert_close, assert_same_bits
from helpers.precision import double
from helpers.properties import LONG
from hypothesis import given
from hypothesis import strategies as st
from tilefuse import reference as ref

DTYPES = [np.float32, np.float64]
CATEGORICAL = ["softmax_cross_entropy", "categorical_cross_entropy"]
LOSSES = [
    *((name, kind) for name in CATEGORICAL for kind in ("ids", "probabilities")),
    ("sigmoid_binary_cross_entropy", "probabilities"),
    ("binary_cross_entropy", "probabilities"),
    ("mean_squared_error", "probabilities"),
]
all_losses = pytest.mark.parametrize(("name", "kind"), LOSSES, ids=["-".join(loss) for loss in LOSSES])


def problem(name, kind, lead, classes, dtype, seed=0):
    """Scores and labels of that kind for the loss."""
    rng = np.random.default_rng((seed, *lead, classes))
    scores = normal(rng, (*lead, classes), dtype, 3.0)
    if name in ("binary_cross_entropy", "categorical_cross_entropy"):
        scores = rng.uniform(0.05, 0.95, scores.shape).astype(dtype)
    if kind == "ids":
        return scores, rng.integers(0, classes, lead).astype(np.int32)
    if name in CATEGORICAL:
        return scores, rng.dirichlet(np.ones(classes), lead).astype(dtype).reshape(scores.shape)
    if name == "mean_squared_error":
        return scores, normal(rng, scores.shape, dtype)
    return scores, rng.integers(0, 2, scores.shape).astype(dtype)


def check(ops, name, scores, labels, **options):
    loss, gradient = getattr(ops, name)(scores, labels, **options)
    wide = {key: v.astype(np.float64) if isinstance(v, np.ndarray) else v for key, v in options.items()}
    labels64 = labels.astype(np.float64) if labels.dtype.kind == "f" else labels
    exact_loss, exact = double(lambda s, t: getattr(ref, name)(s, t, **wide), scores, labels64)
    assert np.shape(loss) == ()
    assert loss.dtype == scores.dtype
    assert gradient.dtype == scores.dtype
    samples = max(int(np.prod(scores.shape[:-1])), 1)
    weight = np.abs(options.get("sample_weight", np.ones(scores.shape[:-1]))).astype(np.float64)
    spread = float(np.abs(scores).max(initial=1.0))
    # a sample's loss is a sum of `classes` terms, each rounded where the scores are as large as `spread`
    loss_size = abs(float(exact_loss)) + spread * weight.sum() / samples
    assert_close(loss, exact_loss, magnitude=loss_size, terms=scores.shape[-1])
    outputs = 1 if name in CATEGORICAL else max(scores.shape[-1], 1)
    gradient_size = np.abs(exact) * spread + (spread * weight / samples / outputs)[..., None]
    if name == "categorical_cross_entropy":  # divides by probabilities, then by their sum
        gradient_size = gradient_size + np.abs(exact) * 8
    assert_close(gradient, exact, magnitude=gradient_size, terms=scores.shape[-1])


@all_losses
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes(ops, name, kind, dtype):
    for rows, classes in itertools.product((0, 1, 3, 8, 33), (1, 2, 3, 7, 8, 9, 10, 16, 17, 33, 100, 1031)):
        check(ops, name, *problem(name, kind, (rows,), classes, dtype))


@all_losses
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_around_48_kilobytes(ops, name, kind, dtype):
    for classes in (3050, 6100, 12250):  # see test_softmax.py
        check(ops, name, *problem(name, kind, (2,), classes, dtype))


@all_losses
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (2, 1, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_leading_axes_and_weights(ops, name, kind, lead, weighted, dtype):
    scores, labels = problem(name, kind, lead, 10, dtype)
    options = {}
    if weighted:
        options["sample_weight"] = np.random.default_rng(1).uniform(0, 2, lead).astype(dtype)
    check(ops, name, scores, labels, **options)


@pytest.mark.parametrize(("name", "kind"), LOSSES[:-1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1.0])
def test_label_smoothing(ops, name, kind, smoothing, dtype):
    check(ops, name, *problem(name, kind, (9,), 10, dtype), label_smoothing=smoothing)


@all_losses
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(ops, name, kind, layout):
    scores, labels = problem(name, kind, (7,), 11, np.float32)
    if labels.dtype.kind == "f":
        labels = LAYOUTS[layout](labels)
    check(ops, name, LAYOUTS[layout](scores), labels)


@pytest.mark.parametrize("name", CATEGORICAL)
@pytest.mark.parametrize("labels_dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_dtypes_of_class_ids(ops, name, labels_dtype):
    scores, labels = problem(name, "ids", (9,), 10, np.float32)
    check(ops, name, scores, labels.astype(labels_dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_confident_logits(ops, dtype):
    logits = np.array([[1000.0, 0, -1000], [50, -50, 0], [1e4, 1e4, 1e4]], dtype)
    for labels in (np.array([0, 1, 2]), np.array([1, 0, 0])):
        check(ops, "softmax_cross_entropy", logits, labels)
    check(ops, "sigmoid_binary_cross_entropy", logits, np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0]], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
def test_probabilities_of_zero_and_one(ops, name, dtype):
    """Clipped, with no gradient where clipping acts; the margin itself is rounded to the dtype."""
    probs = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [0.25, 0.75]], dtype)
    labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype)
    loss, gradient = getattr(ops, name)(probs, labels)
    expected_loss, expected = getattr(ref, name)(probs, labels)
    assert_close(loss, expected_loss)
    assert_close(gradient, expected, magnitude=np.abs(expected) + 1)


@all_losses
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan(ops, name, kind, dtype):
    scores, labels = problem(name, kind, (5,), 4, dtype)
    scores[1, 2] = np.nan
    loss, gradient = getattr(ops, name)(scores, labels)
    assert np.isnan(loss)
    with np.errstate(all="ignore"):
        expected = getattr(ref, name)(scores, labels)[1]
    assert (np.isnan(gradient) == np.isnan(expected)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_class(ops, dtype):
    """A logit of minus infinity is a class of probability zero."""
    loss, gradient = ops.softmax_cross_entropy(np.array([[0.0, -np.inf, 0.0]], dtype), np.array([2]))
    assert_close(loss, np.log(2))
    assert_close(gradient, [[0.5, 0, -0.5]])


@all_losses
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(ops, set_num_threads, name, kind, dtype):
    for lead, classes in [((20_000,), 10), ((70,), 3001), ((3,), 5)]:
        scores, labels = problem(name, kind, lead, classes, dtype)
        results = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            results.append(getattr(ops, name)(scores, labels))
        for loss, gradient in results[1:]:
            assert_same_bits(loss, results[0][0])
            assert_same_bits(gradient, results[0][1])


samples = given(
    loss=st.sampled_from(LOSSES),
    lead=st.lists(st.integers(0, 20), max_size=2).map(tuple),
    classes=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
)


def check_any_loss(ops, loss, lead, classes, dtype):
    check(ops, loss[0], *problem(*loss, lead, classes, dtype))


@samples
def test_any_loss(ops, **options):
    check_any_loss(ops, **options)


@pytest.mark.fuzz
@LONG
@samples
def test_any_loss_long(ops, **options):
    check_any_loss(ops, **options)


@pytest.mark.parametrize("name", CATEGORICAL)
@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0, 2**31], [2**40, 0]])
def test_labels_out_of_range(ops, name, labels):
    with pytest.raises(ValueError, match=r"(?s)label.*3"):
        getattr(ops, name)(np.full((2, 3), 0.3, np.float32), np.array(labels))


@all_losses
def test_bad_arguments(ops, name, kind):
    scores, labels = problem(name, kind, (4,), 3, np.float32)
    loss = getattr(ops, name)
    with pytest.raises(ValueError, match=r"(?s)\(4, 3\)"):
        loss(scores, labels[:3])
    with pytest.raises(ValueError, match=r"(?s)sample_weight.*\(3,\)"):
        loss(scores, labels, sample_weight=np.ones(3, np.float32))
    with pytest.raises(TypeError, match=r"(?s)int64.*float32"):
        loss(scores.astype(np.int64), labels)
    if name != "mean_squared_error":
        with pytest.raises(ValueError, match=r"label_smoothing.*1\.5"):
            loss(scores, labels, label_smoothing=1.5)
