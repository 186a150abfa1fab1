"""Learning rates that change with the step. Names and formulas as in `keras.optimizers.schedules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._config import Configurable, lookup, snake_case


class LearningRateSchedule(Configurable):
    """A function from the number of updates made so far to a learning rate.

    A subclass implements `__call__`; one that also implements `rates` is evaluated for a whole epoch at once.
    """

    def __call__(self, step: Any) -> float:
        """Return the learning rate of the update number `step`, counted from 0."""
        return float(self.rates(np.asarray([step], np.float64))[0])

    def rates(self, steps: np.ndarray) -> np.ndarray:
        """Return the learning rates of `steps` (float64) as float64."""
        return np.array([float(self(int(step))) for step in steps], np.float64)


class ExponentialDecay(LearningRateSchedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``; `staircase` rounds the exponent down.

    Examples
    --------
    >>> import tilefuse
    >>> schedule = tilefuse.schedules.ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)
    >>> schedule(0), schedule(10)
    (0.1, 0.05)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate, self.decay_rate = initial_learning_rate, decay_rate
        self.decay_steps, self.staircase, self.name = _positive("decay_steps", decay_steps), staircase, name

    def rates(self, steps: np.ndarray) -> np.ndarray:
        periods = steps / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (
            np.floor(periods) if self.staircase else periods
        )


class InverseTimeDecay(LearningRateSchedule):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``; `staircase` rounds down."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        self.initial_learning_rate, self.decay_rate = initial_learning_rate, decay_rate
        self.decay_steps, self.staircase, self.name = _positive("decay_steps", decay_steps), staircase, name

    def rates(self, steps: np.ndarray) -> np.ndarray:
        periods = steps / self.decay_steps
        return self.initial_learning_rate / (
            1 + self.decay_rate * (np.floor(periods) if self.staircase else periods)
        )


class PolynomialDecay(LearningRateSchedule):
    """From `initial_learning_rate` to `end_learning_rate` along a power; `cycle` starts again."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate, self.end_learning_rate = initial_learning_rate, end_learning_rate
        self.decay_steps, self.power, self.cycle = _positive("decay_steps", decay_steps), power, cycle
        self.name = name

    def rates(self, steps: np.ndarray) -> np.ndarray:
        length = self.decay_steps * np.maximum(1, np.ceil(steps / self.decay_steps) if self.cycle else 1)
        left = 1 - np.minimum(steps, length) / length
        return (
            self.initial_learning_rate - self.end_learning_rate
        ) * left**self.power + self.end_learning_rate


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[i]``, where i is the first with ``step <= boundaries[i]``; the last value after all of them.

    Examples
    --------
    >>> import tilefuse
    >>> schedule = tilefuse.schedules.PiecewiseConstantDecay([100, 200], [0.1, 0.01, 0.001])
    >>> schedule(100), schedule(101), schedule(1000)
    (0.1, 0.01, 0.001)
    """

    def __init__(
        self, boundaries: Sequence[int], values: Sequence[float], name: str = "PiecewiseConstant"
    ) -> None:
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"PiecewiseConstantDecay takes one value more than boundaries, got {len(boundaries)} "
                f"boundaries and {len(values)} values."
            )
        if list(boundaries) != sorted(boundaries):
            raise ValueError(f"boundaries must rise, got {list(boundaries)}.")
        self.boundaries, self.values, self.name = list(boundaries), list(values), name

    def rates(self, steps: np.ndarray) -> np.ndarray:
        return np.asarray(self.values, np.float64)[np.searchsorted(self.boundaries, steps, side="left")]


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate down to `alpha` times it, after an optional linear warm-up.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
        Length of the decay, not counting the warm-up.
    alpha : float
        The last rate as a fraction of the highest.
    warmup_target : float, optional
        Rise linearly from `initial_learning_rate` to this in `warmup_steps`, then decay from there.
    warmup_steps : int
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate, self.alpha, self.name = initial_learning_rate, alpha, name
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def rates(self, steps: np.ndarray) -> np.ndarray:
        if self.warmup_target is None:
            return self._decayed(steps, self.initial_learning_rate)
        rise = (self.warmup_target - self.initial_learning_rate) * steps / max(self.warmup_steps, 1)
        decayed = self._decayed(steps - self.warmup_steps, self.warmup_target)
        return np.where(steps < self.warmup_steps, self.initial_learning_rate + rise, decayed)

    def _decayed(self, steps: np.ndarray, start: float) -> np.ndarray:
        done = np.minimum(steps, self.decay_steps) / self.decay_steps
        return start * ((1 - self.alpha) * 0.5 * (1 + np.cos(np.pi * done)) + self.alpha)


def _positive(name: str, value: int) -> int:
    if value <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value}.")
    return value


_CLASSES: dict[str, type[LearningRateSchedule]] = {
    snake_case(cls.__name__): cls
    for cls in (ExponentialDecay, InverseTimeDecay, PolynomialDecay, PiecewiseConstantDecay, CosineDecay)
}


def get(identifier: Any) -> LearningRateSchedule:
    """Return the schedule that an instance or a config stands for."""
    return lookup("learning-rate schedule", identifier, LearningRateSchedule, _CLASSES)
