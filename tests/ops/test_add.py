import numpy as np
import pytest
from helpers.arrays import LAYOUTS, integers, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.precision import double
from tilefuse import _core
from tilefuse import reference as ref

DTYPES = [np.float32, np.float64]


def pair(rng, shape, dtype):
    return normal(rng, shape, dtype), normal(rng, shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes(ops, dtype):
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 3, 15, 16, 17, 31, 63, 64, 65, 1023, 1024, 1025, 10_007):
        a, b = integers(rng, (size,), dtype), integers(rng, (size,), dtype)
        assert_same(ops.add(a, b), a + b)


@pytest.mark.parametrize("activation", _core.activations())
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations(ops, activation, dtype):
    a, b = pair(np.random.default_rng(1), (7, 1030), dtype)
    assert_close(ops.add(a, b, activation), double(ref.add, a, b, activation), magnitude=abs(a) + abs(b) + 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_and_layouts(ops, layout):
    for shape in [(), (70,), (7, 33), (2, 3, 70)]:
        a, b = (LAYOUTS[layout](x) for x in pair(np.random.default_rng(2), shape, np.float32))
        assert_same(ops.add(a, b), np.asarray(a) + np.asarray(b))


def test_not_a_number_and_infinity(ops):
    a, b = np.array([np.nan, np.inf, np.inf, -np.inf]), np.array([1, np.inf, -np.inf, 2.0])
    with np.errstate(invalid="ignore"):
        assert_same(ops.add(a, b), a + b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(ops, set_num_threads, dtype):
    a, b = pair(np.random.default_rng(3), (613, 517), dtype)
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.append(ops.add(a, b, "gelu"))
    for y in results[1:]:
        assert_same_bits(y, results[0])


def test_bad_arguments(ops):
    a = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"b has shape \(3, 2\); expected \(2, 3\), the shape of a"):
        ops.add(a, a.T)
    with pytest.raises(TypeError, match="b has dtype float64, and a float32"):
        ops.add(a, a.astype(np.float64))
    with pytest.raises(ValueError, match="unknown activation 'step'"):
        ops.add(a, a, "step")
