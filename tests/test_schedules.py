"""Learning-rate schedules against their formulas, one step and a whole epoch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tilefuse
from helpers.training import blobs, classifier
from tilefuse import schedules

Schedule = schedules.LearningRateSchedule
CASES: dict[str, tuple[Schedule, Callable[[int], float]]] = {
    "exponential": (schedules.ExponentialDecay(0.1, 10, 0.5), lambda s: 0.1 * 0.5 ** (s / 10)),
    "staircase": (schedules.ExponentialDecay(0.1, 10, 0.5, True), lambda s: 0.1 * 0.5 ** (s // 10)),
    "inverse": (schedules.InverseTimeDecay(0.1, 10, 0.5), lambda s: 0.1 / (1 + 0.5 * s / 10)),
    "inverse_stairs": (schedules.InverseTimeDecay(0.1, 10, 0.5, True), lambda s: 0.1 / (1 + 0.5 * (s // 10))),
    "polynomial": (
        schedules.PolynomialDecay(0.1, 20, 0.01, power=2.0),
        lambda s: 0.09 * (1 - min(s, 20) / 20) ** 2 + 0.01,
    ),
    "polynomial_cycle": (
        schedules.PolynomialDecay(0.1, 20, 0.01, cycle=True),
        lambda s: 0.09 * (1 - s / (20 * max(1, math.ceil(s / 20)))) + 0.01,
    ),
    "piecewise": (
        schedules.PiecewiseConstantDecay([5, 20], [1.0, 0.5, 0.1]),
        lambda s: 1.0 if s <= 5 else 0.5 if s <= 20 else 0.1,
    ),
    "cosine": (
        schedules.CosineDecay(0.1, 20, alpha=0.1),
        lambda s: 0.1 * (0.9 * 0.5 * (1 + math.cos(math.pi * min(s, 20) / 20)) + 0.1),
    ),
    "warmup": (
        schedules.CosineDecay(0.0, 20, warmup_target=0.2, warmup_steps=10),
        lambda s: 0.02 * s if s < 10 else 0.1 * (1 + math.cos(math.pi * min(s - 10, 20) / 20)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_formula(case: str) -> None:
    schedule, formula = CASES[case]
    expected = [formula(step) for step in range(60)]
    np.testing.assert_allclose([schedule(step) for step in range(60)], expected, atol=1e-15)
    np.testing.assert_allclose(schedule.rates(np.arange(60.0)), expected, atol=1e-15)
    config = {"class_name": type(schedule).__name__, "config": schedule.get_config()}
    np.testing.assert_array_equal(
        schedules.get(config).rates(np.arange(60.0)), schedule.rates(np.arange(60.0))
    )


class Own(Schedule):
    """A schedule that knows single steps only."""

    def __call__(self, step: int) -> float:
        return 0.1 if step < 3 else 0.0


def test_own_schedule_in_training() -> None:
    x, y = blobs(128)
    a, b = classifier(tilefuse.optimizers.SGD(Own())), classifier(tilefuse.optimizers.SGD(0.1))
    a.fit(x, y, shuffle=False, verbose=0)  # 4 steps
    b.fit(x[:96], y[:96], shuffle=False, verbose=0)  # 3 steps
    for u, v in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(u, v)
    assert a.optimizer.learning_rate == 0.0


def test_errors() -> None:
    with pytest.raises(ValueError, match="decay_steps must be greater than 0"):
        schedules.CosineDecay(0.1, 0)
    with pytest.raises(ValueError, match="one value more than boundaries"):
        schedules.PiecewiseConstantDecay([1], [0.1])
    with pytest.raises(ValueError, match="must rise"):
        schedules.PiecewiseConstantDecay([2, 1], [0.1, 0.2, 0.3])
