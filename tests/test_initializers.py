"""Initializers: ranges, moments, seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tilefuse
from tilefuse import initializers

SHAPE = (400, 200)
FAN_IN, FAN_OUT = SHAPE
VARIANCES = {
    "glorot_uniform": 2 / (FAN_IN + FAN_OUT),
    "glorot_normal": 2 / (FAN_IN + FAN_OUT),
    "he_uniform": 2 / FAN_IN,
    "he_normal": 2 / FAN_IN,
    "lecun_uniform": 1 / FAN_IN,
    "lecun_normal": 1 / FAN_IN,
}


@pytest.mark.parametrize("name", VARIANCES)
def test_variance(name: str) -> None:
    tilefuse.seed(0)
    w = initializers.get(name)(SHAPE, np.float64)
    assert w.var() == pytest.approx(VARIANCES[name], rel=0.02)
    assert abs(w.mean()) < 5 * math.sqrt(VARIANCES[name] / w.size)


def test_glorot_limit() -> None:
    w = initializers.GlorotUniform(seed=0)((784, 128))
    limit = math.sqrt(6 / (784 + 128))
    assert 0.99 * limit < np.abs(w).max() <= limit * (1 + 1e-6)


def test_convolution_fans() -> None:
    w = initializers.HeUniform(seed=0)((3, 3, 32, 64))
    assert np.abs(w).max() == pytest.approx(math.sqrt(6 / (9 * 32)), rel=1e-2)


def test_truncated_normal_ends_at_two_deviations() -> None:
    w = initializers.TruncatedNormal(mean=1.0, stddev=0.5, seed=1)((10000,), np.float64)
    assert w.min() >= 0
    assert w.max() <= 2


def test_orthogonal() -> None:
    for shape in ((5, 3), (3, 5)):
        w = initializers.Orthogonal(gain=2.0, seed=0)(shape, np.float64)
        gram = w.T @ w if shape[0] > shape[1] else w @ w.T
        np.testing.assert_allclose(gram, 4 * np.eye(3), atol=1e-12)
    with pytest.raises(ValueError, match="at least 2 axes"):
        initializers.Orthogonal()((3,))


def test_constants() -> None:
    np.testing.assert_array_equal(initializers.Zeros()((2,)), [0, 0])
    np.testing.assert_array_equal(initializers.Ones()((2,)), [1, 1])
    np.testing.assert_array_equal(initializers.Constant(3)((2,)), [3, 3])


ALL: list[Any] = [
    initializers.RandomUniform(-1, 1, seed=3),
    initializers.RandomNormal(seed=3),
    initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=3),
    initializers.HeNormal(seed=3),
    initializers.Constant(2.0),
]


@pytest.mark.parametrize("initializer", ALL)
def test_config_gives_the_same_values(initializer: Any) -> None:
    config = {"class_name": type(initializer).__name__, "config": initializer.get_config()}
    again = initializers.get(config)
    np.testing.assert_array_equal(again((4, 5)), initializer((4, 5)))
    assert initializer((4, 5)).dtype == np.float32


def test_seed_rules_all_that_are_unseeded() -> None:
    def draw(n: int) -> list[np.ndarray]:
        tilefuse.seed(n)
        return [initializers.GlorotUniform()((3, 3)) for _ in range(2)]

    first, again, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])


def test_errors() -> None:
    with pytest.raises(ValueError, match="Did you mean 'glorot_uniform'"):
        initializers.get("glorot_unifrom")
    with pytest.raises(TypeError, match=r"a name .*'glorot_uniform'"):
        initializers.get(3)
    with pytest.raises(ValueError, match="mode must be"):
        initializers.VarianceScaling(mode="fan")
    with pytest.raises(ValueError, match="distribution must be"):
        initializers.VarianceScaling(distribution="normal")
    with pytest.raises(ValueError, match="scale must be"):
        initializers.VarianceScaling(scale=0)
