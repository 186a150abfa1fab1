import itertools

import numpy as np
import pytest
from helpers.arrays import LAYOUTS, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.precision import double
from helpers.properties import LONG
from hypothesis import given
from hypothesis import strategies as st
from tilefuse import reference as ref

DTYPES = [np.float32, np.float64]
NAMES = ["softmax", "log_softmax"]
COLUMNS = (1, 2, 3, 5, 7, 8, 9, 10, 15, 16, 17, 31, 33, 64, 65, 127, 1031)


def check(ops, name, x, dy, axis=-1):
    y = getattr(ops, name)(x, axis=axis)
    exact = double(getattr(ref, name), x, axis)
    assert y.dtype == x.dtype
    terms = x.shape[axis]
    spread = np.abs(x.astype(np.float64)).max(axis=axis, keepdims=True, initial=1.0)
    size = np.abs(exact) * spread if name == "softmax" else np.abs(exact) + spread
    assert_close(y, exact, magnitude=size, terms=terms)

    dx = getattr(ops, f"{name}_backward")(dy, y, axis=axis)
    wide_dy, wide_y = dy.astype(np.float64), y.astype(np.float64)
    exact = double(getattr(ref, f"{name}_backward"), wide_dy, wide_y, axis)
    if name == "softmax":
        total = np.abs(wide_dy * wide_y).sum(axis=axis, keepdims=True)
        size = wide_y * (np.abs(wide_dy) + total)
    else:
        total = np.abs(wide_dy).sum(axis=axis, keepdims=True)
        size = np.abs(wide_dy) + np.exp(wide_y) * np.clip(-wide_y, 1, 1000) * total
    assert dx.dtype == x.dtype
    assert_close(dx, exact, magnitude=size, terms=terms)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_sizes(ops, name, dtype):
    rng = np.random.default_rng(0)
    for rows, cols in itertools.product((0, 1, 3, 8, 13), COLUMNS):
        check(ops, name, normal(rng, (rows, cols), dtype, 3.0), normal(rng, (rows, cols), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_sizes_around_48_kilobytes(ops, name, dtype):
    # A row, or dy's and y's together: what a block of a GPU has of shared memory without asking for more.
    rng = np.random.default_rng(0)
    for cols in (3050, 6100, 6130, 12250, 12300):
        check(ops, name, normal(rng, (2, cols), dtype, 3.0), normal(rng, (2, cols), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_no_columns(ops, name, dtype):
    y = getattr(ops, name)(np.zeros((3, 0), dtype))
    assert y.shape == (3, 0)
    assert getattr(ops, f"{name}_backward")(y, y).shape == (3, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_axes(ops, name, axis, dtype):
    rng = np.random.default_rng(1)
    check(ops, name, normal(rng, (4, 5, 11), dtype), normal(rng, (4, 5, 11), dtype), axis)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_layouts(ops, name, layout):
    rng = np.random.default_rng(2)
    for shape in [(9,), (7, 33), (2, 3, 10)]:
        x, dy = normal(rng, shape, np.float32), normal(rng, shape, np.float32)
        check(ops, name, LAYOUTS[layout](x), LAYOUTS[layout](dy))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_large_values_do_not_overflow(ops, name, dtype):
    x = np.array([[1e4, 1e4, -1e4], [-1e30, 0, 1e30], [3e38, 3e38, -3e38]], dtype)
    check(ops, name, x, np.ones_like(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cols", [4, 10, 33])
def test_nan_and_infinity(ops, name, cols, dtype):
    x = np.zeros((6, cols), dtype)
    x[1, 2], x[2, 1], x[3, 3], x[4] = np.nan, -np.inf, np.inf, -np.inf
    y = getattr(ops, name)(x)
    exact = double(getattr(ref, name), x)
    assert np.isnan(exact[1]).all()
    assert np.isfinite(exact[2]).sum() == cols - (name == "log_softmax")
    assert_close(y, exact)
    dy = np.ones_like(x)
    dy[0, 0] = np.nan
    dx = getattr(ops, f"{name}_backward")(dy, np.full_like(x, 0.1))
    assert np.isnan(dx[0]).all()
    assert np.isfinite(dx[1:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_sum_to_one(ops, dtype):
    y = ops.softmax(normal(np.random.default_rng(3), (50, 1000), dtype, 5.0))
    assert_close(y.sum(axis=-1, dtype=np.float64).astype(dtype), np.ones(50), terms=1000)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_for_any_number_of_threads(ops, set_num_threads, name, dtype):
    rng = np.random.default_rng(4)
    for shape in [(5000, 10), (300, 1031), (1, 100_003)]:
        x, dy = normal(rng, shape, dtype), normal(rng, shape, dtype)
        results = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            y = getattr(ops, name)(x)
            results.append((y, getattr(ops, f"{name}_backward")(dy, y)))
        for result in results[1:]:
            for actual, expected in zip(result, results[0], strict=True):
                assert_same_bits(actual, expected)


shapes = given(
    name=st.sampled_from(NAMES),
    shape=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    axis=st.integers(-1, 0),
    dtype=st.sampled_from(DTYPES),
    scale=st.floats(0.1, 30),
)


def check_any_shape(ops, name, shape, axis, dtype, scale):
    rng = np.random.default_rng(shape)
    check(ops, name, normal(rng, shape, dtype, scale), normal(rng, shape, dtype), axis)


@shapes
def test_any_shape(ops, **problem):
    check_any_shape(ops, **problem)


@pytest.mark.fuzz
@LONG
@shapes
def test_any_shape_long(ops, **problem):
    check_any_shape(ops, **problem)


@pytest.mark.parametrize("name", NAMES)
def test_bad_arguments(ops, name):
    forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"axis.*2"):
        forward(x, axis=2)
    with pytest.raises(ValueError, match="axis"):
        forward(np.float32(1.0))
    with pytest.raises(TypeError, match=r"(?s)int64.*float32"):
        forward(x.astype(np.int64))
    with pytest.raises(ValueError, match=r"(?s)\(2, 3\).*\(2, 2\)|\(2, 2\).*\(2, 3\)"):
        backward(x[:, :2], x)
    assert_same(x, np.ones((2, 3)))
