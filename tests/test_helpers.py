"""The comparisons must be able to fail."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.arrays import LAYOUTS, Guarded
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.gradients import assert_gradient, numerical_gradient

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize("comparison", [assert_same, assert_close])
@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ([NAN, 1], [1, 1]),
        ([1, 1], [NAN, 1]),
        ([INF, 1], [1, 1]),
        ([1, 1], [INF, 1]),
        ([-INF, 1], [INF, 1]),
        ([NAN, 1], [INF, 1]),
        ([1.001, 1], [1, 1]),
        ([0, 1], [1e-30, 1]),
        ([1], [1, 1]),
    ],
)
def test_differences_are_found(comparison, actual, expected):
    with pytest.raises(AssertionError):
        comparison(np.array(actual, np.float32), np.array(expected, np.float64))


@pytest.mark.parametrize("comparison", [assert_same, assert_close])
def test_equal_arrays_pass(comparison):
    x = np.array([NAN, INF, -INF, 0.0, -0.0, 1.5], np.float32)
    comparison(x, x.astype(np.float64))


def test_bounds():
    eps = 2.0**-23
    one = np.ones(1, np.float64)
    assert_close((one + 4 * eps).astype(np.float32), one)
    with pytest.raises(AssertionError, match="times the bound"):
        assert_close((one + 6 * eps).astype(np.float32), one)
    assert_close((one + 6 * eps).astype(np.float32), one, terms=4)
    assert_close((one + 6 * eps).astype(np.float32), one, magnitude=2 * one)
    assert_close(np.array([INF], np.float32), [1e300])  # as it overflows when rounded to float32


def test_bits():
    zero = np.zeros(2, np.float32)
    assert_same_bits(zero, zero)
    with pytest.raises(AssertionError, match="bits differ"):
        assert_same_bits(zero, -zero)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_keep_values(layout):
    for shape in [(), (0,), (5,), (3, 4), (2, 3, 4)]:
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        assert_same(LAYOUTS[layout](x), x)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("pad", [0, 3])
def test_guards(pad, transposed):
    out = Guarded((3, 4), np.float32, pad=pad, transposed=transposed)
    assert np.isnan(out.check()).all()
    out.array[...] = 1
    assert_same(out.check(), np.ones((3, 4)))
    memory = out._memory
    for index in (0, 36, memory.size - 37, memory.size - 1):
        before = memory[index]
        memory[index] = 0
        with pytest.raises(AssertionError, match="outside"):
            out.check()
        memory[index] = before


def test_numerical_gradient():
    x = np.array([1.0, -2.0])
    dx = numerical_gradient(lambda x: x**3, x, np.array([1.0, 2.0]))
    assert_gradient(3 * x**2 * [1, 2], dx, tolerance=1e-8)
    with pytest.raises(AssertionError, match="gradient off"):
        assert_gradient(dx + 1e-3, dx)


def test_shares_are_disjoint_and_together_complete():
    def collected(*options):
        command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-k", "differences", *options]
        root = Path(__file__).parents[1]
        done = subprocess.run([*command, __file__], cwd=root, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if "::" in line]

    parts = [collected("--share", f"{k}/3") for k in (1, 2, 3)]
    assert all(parts)
    assert sorted(itertools.chain(*parts)) == sorted(collected())
