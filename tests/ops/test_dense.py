import itertools

import numpy as np
import pytest
from helpers.arrays import LAYOUTS, integers, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.precision import double, exact_product, product_magnitude
from helpers.properties import LONG
from hypothesis import given
from hypothesis import strategies as st
from tilefuse import reference as ref
from tilefuse.reference.activations import FORWARD, NEEDS_INPUT, activate, activate_backward

DTYPES = [np.float32, np.float64]
STEEPEST = 1.76  # the largest derivative of any activation (selu)


def check_integers(ops, lead, k, n, dtype, activation, with_bias=True, layout="contiguous"):
    rng = np.random.default_rng((*lead, k, n))
    lay = LAYOUTS[layout]
    x, w = integers(rng, (*lead, k), dtype), integers(rng, (k, n), dtype)
    dy = integers(rng, (*lead, n), dtype)
    b = integers(rng, (n,), dtype) if with_bias else None
    y = ops.dense(lay(x), lay(w), b, activation)
    assert y.dtype == dtype
    assert_same(y, ref.dense(x, w, b, activation))
    gradients = ops.dense_backward(lay(dy), lay(x), lay(w), lay(y), activation)
    assert isinstance(gradients, tuple)
    for actual, expected in zip(gradients, ref.dense_backward(dy, x, w, y, activation), strict=True):
        assert actual.dtype == dtype
        assert_same(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "linear", "relu"])
def test_integers_are_exact(ops, activation, dtype):
    for m, n, k in itertools.product((0, 1, 5, 6, 8, 13), (0, 1, 7, 10, 16, 25, 33, 65), (0, 1, 2, 17, 257)):
        check_integers(ops, (m,), k, n, dtype, activation)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "k", "n"), [(128, 784, 64), (32, 784, 10), (257, 300, 513), (1031, 7, 9), (1, 900, 1)]
)
def test_integers_are_exact_in_large_layers(ops, m, k, n, dtype):
    check_integers(ops, (m,), k, n, dtype, "relu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 0, 3), (2, 1, 2, 3)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_leading_axes(ops, lead, with_bias, dtype):
    check_integers(ops, lead, 5, 9, dtype, "relu", with_bias)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(ops, layout, dtype):
    for lead in [(1,), (7,), (2, 9), (70,)]:
        check_integers(ops, lead, 19, 33, dtype, "relu", layout=layout)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", FORWARD)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (7, 19, 33), (64, 300, 10)])
def test_activations(ops, m, k, n, activation, dtype):
    rng = np.random.default_rng((m, k, n))
    x, w, b = normal(rng, (m, k), dtype), normal(rng, (k, n), dtype, k**-0.5), normal(rng, (n,), dtype)
    dy = normal(rng, (m, n), dtype)
    y = ops.dense(x, w, b, activation)
    exact_z = exact_product(x, w) + b
    z_size = product_magnitude(x, w) + np.abs(b)
    exact_y = double(activate, exact_z, activation)
    assert_close(y, exact_y, magnitude=STEEPEST * z_size + np.abs(exact_y), terms=k)

    z = exact_z.astype(dtype)
    actual = ops.dense_backward(dy, x, w, y, activation, z=z)
    dz = activate_backward(dy.astype(np.float64), y.astype(np.float64), activation, x=z.astype(np.float64))
    dz_size = 2 * np.abs(dy.astype(np.float64))
    sizes = dz_size @ np.abs(w.T), np.abs(x.T) @ dz_size, dz_size.sum(axis=0)
    exact = dz @ w.T, x.T @ dz, dz.sum(axis=0)
    for value, expected, size, terms in zip(actual, exact, sizes, (n, m, m), strict=True):
        assert_close(value, expected, magnitude=size, terms=terms)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_same_bits_for_any_number_of_threads(ops, set_num_threads, activation, dtype):
    rng = np.random.default_rng(8)
    for m, k, n in [(257, 300, 129), (4096, 30, 20), (32, 784, 64), (3, 5, 7)]:
        x, w, b = normal(rng, (m, k), dtype), normal(rng, (k, n), dtype), normal(rng, (n,), dtype)
        dy, z = normal(rng, (m, n), dtype), normal(rng, (m, n), dtype)
        results = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            y = ops.dense(x, w, b, activation)
            results.append((y, *ops.dense_backward(dy, x, w, y, activation, z=z)))
        for result in results[1:]:
            for actual, expected in zip(result, results[0], strict=True):
                assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity(ops, dtype):
    rng = np.random.default_rng(9)
    x, w, b = integers(rng, (9, 40), dtype), integers(rng, (40, 17), dtype), integers(rng, (17,), dtype)
    dy = integers(rng, (9, 17), dtype)
    x[0, 0], w[1, 1], b[2], dy[3, 3], dy[4, 4] = np.nan, np.inf, -np.inf, np.nan, np.inf
    y = np.ones_like(dy)
    with np.errstate(invalid="ignore"):
        assert_same(ops.dense(x, w, b, "relu"), ref.dense(x, w, b, "relu"))
        expected = ref.dense_backward(dy, x, w, y, "relu")
        for actual, value in zip(ops.dense_backward(dy, x, w, y, "relu"), expected, strict=True):
            assert_same(actual, value)


def check_any_layer(ops, lead, k, n, dtype, activation, with_bias, layout):
    check_integers(ops, lead, k, n, dtype, activation, with_bias, layout)


layers = given(
    lead=st.lists(st.integers(0, 20), max_size=3).map(tuple),
    k=st.integers(0, 300),
    n=st.integers(0, 140),
    dtype=st.sampled_from(DTYPES),
    activation=st.sampled_from([None, "relu"]),
    with_bias=st.booleans(),
    layout=st.sampled_from(sorted(LAYOUTS)),
)


@layers
def test_any_layer(ops, **layer):
    check_any_layer(ops, **layer)


@pytest.mark.fuzz
@LONG
@layers
def test_any_layer_long(ops, **layer):
    check_any_layer(ops, **layer)


def floats(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ((floats(2, 3), floats(4, 5)), ValueError, r"\(2, 3\).*\(4, 5\)"),
        ((floats(2, 3), floats(3)), ValueError, r"w.*\(3,\)"),
        ((floats(2, 3), floats(2, 3, 5)), ValueError, r"w.*\(2, 3, 5\)"),
        ((floats(2, 3), floats(3, 5), floats(4)), ValueError, r"\(4,\)"),
        ((floats(2, 3), floats(3, 5), None, "rleu"), ValueError, "'rleu'.*relu"),
        ((floats(2, 3), floats(3, 5).astype(np.float64)), TypeError, "float32.*float64|float64.*float32"),
        ((floats(2, 3).astype(np.int64), floats(3, 5)), TypeError, "int64"),
    ],
)
def test_bad_arguments(ops, args, error, says):
    with pytest.raises(error, match=rf"(?s){says}"):
        ops.dense(*args)


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ((floats(2, 4), floats(2, 3), floats(3, 5), floats(2, 5)), ValueError, r"dy.*\(2, 4\)"),
        ((floats(2, 5), floats(2, 3), floats(3, 5), floats(2, 4), "relu"), ValueError, r"y.*\(2, 4\)"),
        ((floats(2, 5), floats(2, 4), floats(3, 5), floats(2, 5)), ValueError, r"\(2, 4\).*\(3, 5\)"),
        ((floats(2, 5), floats(2, 3), floats(3, 5), floats(2, 5), "rleu"), ValueError, "'rleu'.*relu"),
    ],
)
def test_bad_arguments_of_backward(ops, args, error, says):
    with pytest.raises(error, match=rf"(?s){says}"):
        ops.dense_backward(*args)


@pytest.mark.parametrize("activation", sorted(NEEDS_INPUT))
def test_backward_needs_the_preactivation(ops, activation):
    with pytest.raises(ValueError, match=rf"{activation}.*z"):
        ops.dense_backward(floats(2, 5), floats(2, 3), floats(3, 5), floats(2, 5), activation)
