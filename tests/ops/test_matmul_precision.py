"""How exact products of float32 are, in each precision.

Matrix units split operands, round them, and count as zero what is denormal: what they make must not be told
from float32's own, up to the ends of its range.
"""

import functools
import itertools

import numpy as np
import pytest
from helpers.arrays import LAYOUTS, Guarded, integers, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.precision import exact_product, product_magnitude, rounded

# Blocks are of 32 rows, 32 columns and 512 of k, and small products don't go to the matrix unit.
SHAPES = [
    (64, 64, 128),
    (65, 130, 97),
    (33, 70, 1100),
    (200, 64, 64),
    (31, 31, 31),
    (5, 300, 9),
    (160, 257, 513),
    (3, 70, 1029),
    (40, 1, 130),
]
TRANSPOSES = list(itertools.product([False, True], [False, True]))


PRECISIONS = ["float32", "ieee", "bfloat16", "split", "tf32", "float16"]
EXACT = ["float32", "ieee", "split"]  # as exact as multiply-adds


@pytest.fixture
def multiply(ops, device, precision):
    """`matmul` in this precision, on each device that has it."""
    if device == "cpu" and precision in ("split", "tf32", "float16"):
        pytest.skip(f"{precision} is for CUDA devices")
    return functools.partial(ops.matmul, precision=precision)


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_integers_are_exact(multiply, m, n, k):
    rng = np.random.default_rng((m, n, k))
    a, b, bias = integers(rng, (m, k), "f"), integers(rng, (k, n), "f"), integers(rng, (n,), "f")
    for flip_a, flip_b in TRANSPOSES:
        left = np.ascontiguousarray(a.T) if flip_a else a
        right = np.ascontiguousarray(b.T) if flip_b else b
        out = Guarded((m, n), "f", pad=3)
        options = {"transpose_a": flip_a, "transpose_b": flip_b, "out": out.array}
        multiply(left, right, **options)
        assert_same(out.check(), a @ b)
        multiply(left, right, bias=bias, activation="relu", beta=2.0, **options)
        assert_same(out.check(), np.maximum(3 * (a @ b) + bias, 0))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layouts_and_batches(multiply):
    rng = np.random.default_rng(1)
    a, b = integers(rng, (3, 70, 90), "f"), integers(rng, (90, 140), "f")
    for layout_a, layout_b in itertools.product(LAYOUTS, LAYOUTS):
        laid_a, laid_b = LAYOUTS[layout_a](a[0]), LAYOUTS[layout_b](b)
        assert_same(multiply(laid_a, laid_b), a[0] @ b)
    assert_same(multiply(a, b), a @ b)


@pytest.mark.parametrize("precision", ["bfloat16", "tf32", "float16"])
def test_operands_are_rounded_and_sums_are_float32(multiply, precision):
    for m, n, k in SHAPES:
        rng = np.random.default_rng((m, n, k))
        a, b = normal(rng, (m, k), "f"), normal(rng, (k, n), "f")
        x, y = rounded(a, precision), rounded(b, precision)
        assert not np.array_equal(x, a)
        assert_close(multiply(a, b), exact_product(x, y), magnitude=product_magnitude(x, y), terms=k)


def error(c, a, b):
    """By norm and by the largest element, both over what float32 could give at best."""
    exact = exact_product(a, b)
    wrong = np.abs(c - exact)
    return np.linalg.norm(wrong) / np.linalg.norm(exact), (wrong / product_magnitude(a, b)).max()


def scaled_rows(rng, shape, low, high):
    return normal(rng, shape, "f") * 10.0 ** rng.uniform(low, high, (shape[0], 1)).astype("f")


@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 128), (97, 130, 700), (256, 96, 1500)])
@pytest.mark.parametrize("precision", ["float32", "split"])
def test_as_exact_as_multiply_adds(multiply, ops, m, n, k):
    rng = np.random.default_rng((m, n, k))
    plain = normal(rng, (m, k), "f"), normal(rng, (k, n), "f")
    positive = np.abs(plain[0]), np.abs(plain[1])
    scaled = scaled_rows(rng, (m, k), -30, 7), np.ascontiguousarray(scaled_rows(rng, (n, k), -8, 29).T)
    cancelling = (
        np.concatenate([plain[0], -plain[0]], 1),
        np.concatenate([plain[1], plain[1] * (1 + 1e-3)], 0),
    )
    tiny = plain[0] * np.float32(1e-20), plain[1] * np.float32(1e-17)
    for a, b in (plain, positive, cancelling):
        ours = error(multiply(a, b), a, b)
        ieee = error(ops.matmul(a, b, precision="ieee"), a, b)
        assert ours[0] <= 1.2 * ieee[0]
        assert ours[1] <= 1.2 * ieee[1]
    for a, b in (scaled, tiny):  # each sum has a scale of its own; terms that are denormal count as zero
        bounds = {"magnitude": product_magnitude(a, b), "terms": k, "flushed": 4 * k}
        assert_close(multiply(a, b), exact_product(a, b), **bounds)


def with_extremes(rng, shape):
    """Normal numbers, a few of which are what float32 has at its ends."""
    x = normal(rng, shape, "f")
    ends = np.array([3.4e38, -3.4e38, 1e-38, -3e-38, 1e-36, 1e-33, 0.0, -0.0], np.float32)
    where = rng.random(shape) < 0.002
    x[where] = rng.choice(ends, where.sum())
    return x


@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 128), (97, 130, 700)])
@pytest.mark.parametrize("precision", EXACT)
def test_the_ends_of_the_range(multiply, m, n, k):
    rng = np.random.default_rng((m, n, k))
    a, b = with_extremes(rng, (m, k)), normal(rng, (k, n), "f") * np.float32(1e-3)
    assert_close(multiply(a, b), exact_product(a, b), magnitude=product_magnitude(a, b), terms=k)
    small = a * np.float32(1e-38)
    assert_close(
        multiply(small, b),
        exact_product(small, b),
        magnitude=product_magnitude(small, b),
        terms=k,
        flushed=4 * k,
    )
    big = np.full((m, k), 1e19, np.float32)
    assert_same(multiply(big, big.T.copy()), np.full((m, m), np.inf))
    whole = np.zeros((m, k), np.float32)
    whole[:, 3] = np.finfo(np.float32).max
    ones = np.ones((k, n), np.float32)
    assert_same(multiply(whole, ones), np.full((m, n), np.finfo(np.float32).max))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nan_and_infinity(multiply):
    rng = np.random.default_rng(7)
    for m, n, k in [(64, 64, 128), (97, 130, 700)]:
        a, b = integers(rng, (m, k), "f"), integers(rng, (k, n), "f")
        a[rng.random(a.shape) < 0.0005], b[rng.random(b.shape) < 0.0005] = np.inf, -np.inf
        a[0, 1], b[2, 3] = np.nan, np.nan
        with np.errstate(invalid="ignore"):
            expected = a.astype(np.float64) @ b.astype(np.float64)
        assert np.isinf(expected).any()
        assert np.isfinite(expected).any()
        assert_same(multiply(a, b), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_same_bits_for_any_number_of_threads(multiply, set_num_threads):
    rng = np.random.default_rng(8)
    for m, n, k in [(257, 129, 300), (64, 640, 1300), (97, 130, 700)]:
        a, b = normal(rng, (m, k), "f"), normal(rng, (k, n), "f")
        a[5, 7], b[-1, -1] = 1e38, 1e-37
        results = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            results.append(multiply(a, b, activation="gelu"))
        assert_same_bits(results[1], results[0])
        assert_same_bits(results[2], results[0])


def test_what_is_not_there(ops, device):
    a = np.ones((3, 3), np.float32)
    for name in ("split", "tf32", "float16") if device == "cpu" else ():
        with pytest.raises(ValueError, match=f"'{name}' is not available on 'cpu'; expected None, 'float32'"):
            ops.matmul(a, a, precision=name)
    with pytest.raises(ValueError, match="precision 'double' is unknown"):
        ops.matmul(a, a, precision="double")
    with pytest.raises(ValueError, match="arrays are of float64; convert"):
        ops.matmul(a.astype("d"), a.astype("d"), precision="ieee")
