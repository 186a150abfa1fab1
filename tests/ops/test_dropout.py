import numpy as np
import pytest
from helpers.arrays import LAYOUTS, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from tilefuse import reference as ref

DTYPES = [np.float32, np.float64]
RATES = (0.0, 0.1, 0.2, 0.5, 0.999)


def check(ops, x, rate, **options):
    y, mask = ops.dropout(x, rate, **options)
    expected, expected_mask = double_dropout(x, rate, **options)
    assert mask.dtype == np.bool_
    assert y.dtype == x.dtype
    assert_same(mask, expected_mask)
    assert_close(y, expected)
    assert_close(ops.dropout_backward(x, mask, rate), expected)


def double_dropout(x, rate, **options):
    return ref.dropout(x.astype(np.float64), rate, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", RATES)
def test_sizes(ops, rate, dtype):
    for size in (0, 1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 1031, 10_007):
        check(ops, normal(np.random.default_rng(0), (size,), dtype), rate, seed=5)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32, 2**63 + 12345, 2**64 - 1])
@pytest.mark.parametrize("step", [0, 1, 2**32 - 1, 2**32, 2**64 - 1])
def test_seeds_and_steps(ops, seed, step):
    check(ops, np.ones((3, 67), np.float32), 0.3, seed=seed, step=step)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_and_layouts(ops, layout):
    for shape in [(), (70,), (7, 33), (2, 3, 70)]:
        check(ops, LAYOUTS[layout](normal(np.random.default_rng(1), shape, np.float32)), 0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropped_elements_are_zero_whatever_they_were(ops, dtype):
    x = np.full(100, np.nan, dtype)
    y, mask = ops.dropout(x, 0.5, seed=3)
    assert_same(y, np.where(mask, np.nan, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(ops, set_num_threads, dtype):
    x = normal(np.random.default_rng(2), (613, 517), dtype)
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.append(ops.dropout(x, 0.2, seed=1, step=2))
    for y, mask in results[1:]:
        assert_same_bits(y, results[0][0])
        assert_same(mask, results[0][1])
    assert_same(results[0][1], ref.dropout(x, 0.2, seed=1, step=2)[1])


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, np.nan])
def test_bad_rate(ops, rate):
    with pytest.raises(ValueError, match="rate"):
        ops.dropout(np.ones(3, np.float32), rate)


def test_bad_arguments(ops):
    x = np.ones((2, 3), np.float32)
    with pytest.raises(TypeError, match=r"(?s)int32.*float32"):
        ops.dropout(x.astype(np.int32), 0.5)
    with pytest.raises(ValueError, match="mask"):
        ops.dropout_backward(x, np.ones(3, np.bool_), 0.5)
    with pytest.raises(ValueError, match="seed"):
        ops.dropout(x, 0.5, seed=-1)
