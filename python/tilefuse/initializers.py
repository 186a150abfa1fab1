"""Where weights start. Names and formulas as in Keras; a draw follows from the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

import numpy as np

from ._config import Configurable, lookup, snake_case
from ._runtime import default_dtype, generator, next_seed

# The standard deviation of a standard normal truncated at +-2.
_TRUNCATED_STDDEV = 0.87962566103423978


class Initializer(Configurable):
    """Something that makes an array: ``initializer(shape, dtype=None)``.

    A subclass implements `draw`, and names its attributes as its constructor's parameters.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> np.ndarray:
        """Return a new array of `shape`; `dtype` follows `tilefuse.set_precision` by default."""
        wanted = default_dtype() if dtype is None else np.dtype(dtype)
        return np.ascontiguousarray(self.draw(tuple(shape)), dtype=wanted)

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the values as float64."""
        raise NotImplementedError


class Constant(Initializer):
    """All elements equal `value`.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.initializers.Constant(0.5)((2,))
    array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value, np.float64)


class Zeros(Initializer):
    """All elements 0."""

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape)


class Ones(Initializer):
    """All elements 1."""

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.ones(shape)


class _Random(Initializer):
    """Draws from a generator of its own, so that one initializer gives the same values each time."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._key = next_seed() if seed is None else seed

    def generator(self) -> np.random.Generator:
        return generator(self._key)


class RandomUniform(_Random):
    """Uniform in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.generator().uniform(self.minval, self.maxval, shape)


class RandomNormal(_Random):
    """Normal with the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.generator().normal(self.mean, self.stddev, shape)


class TruncatedNormal(RandomNormal):
    """Normal, where values more than two standard deviations from the mean are drawn again."""

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.mean + self.stddev * _truncated_normal(self.generator(), shape)


class VarianceScaling(_Random):
    """Variance `scale` / fan, where fan is the number of inputs, outputs or their mean.

    Parameters
    ----------
    scale : float
    mode : {"fan_in", "fan_out", "fan_avg"}
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
    seed : int, optional
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}.")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"mode must be 'fan_in', 'fan_out' or 'fan_avg', got {mode!r}.")
        if distribution not in ("truncated_normal", "untruncated_normal", "uniform"):
            raise ValueError(
                "distribution must be 'truncated_normal', 'untruncated_normal' or 'uniform', "
                f"got {distribution!r}."
            )
        self.scale, self.mode, self.distribution = scale, mode, distribution

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        fan_in, fan_out = _fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = sqrt(3 * variance)
            return self.generator().uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return self.generator().normal(0, sqrt(variance), shape)
        return sqrt(variance) / _TRUNCATED_STDDEV * _truncated_normal(self.generator(), shape)


class _FixedScaling(VarianceScaling):
    """A VarianceScaling with a name: the subclass's `rule` is (scale, mode, distribution)."""

    rule: tuple[float, str, str]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.rule, seed=seed)


class GlorotUniform(_FixedScaling):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)). Glorot and Bengio, AISTATS 2010.

    Examples
    --------
    >>> import tilefuse
    >>> w = tilefuse.initializers.GlorotUniform(seed=1)((64, 32))
    >>> bool(abs(w).max() <= (6 / 96) ** 0.5)
    True
    """

    rule = (1.0, "fan_avg", "uniform")


class GlorotNormal(_FixedScaling):
    """Truncated normal of variance 2 / (fan_in + fan_out)."""

    rule = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_FixedScaling):
    """Uniform in +-sqrt(6 / fan_in). He et al., ICCV 2015."""

    rule = (2.0, "fan_in", "uniform")


class HeNormal(_FixedScaling):
    """Truncated normal of variance 2 / fan_in."""

    rule = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_FixedScaling):
    """Uniform in +-sqrt(3 / fan_in)."""

    rule = (1.0, "fan_in", "uniform")


class LecunNormal(_FixedScaling):
    """Truncated normal of variance 1 / fan_in."""

    rule = (1.0, "fan_in", "truncated_normal")


class Orthogonal(_Random):
    """Orthonormal rows or columns, whichever are fewer, times `gain`. Saxe et al., ICLR 2014."""

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = gain

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal makes arrays with at least 2 axes, got shape {shape}.")
        rows, cols = prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(self.generator().normal(size=(max(rows, cols), min(rows, cols))))
        q *= np.sign(np.diag(r))
        return self.gain * (q if rows >= cols else q.T).reshape(shape)


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the number of inputs and outputs of a kernel [..., in, out] or of a vector."""
    if len(shape) < 2:
        size = float(shape[0]) if shape else 1.0
        return size, size
    field = prod(shape[:-2])
    return float(shape[-2] * field), float(shape[-1] * field)


def _truncated_normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = random.normal(size=shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = random.normal(size=int(outside.sum()))
    return values


_CLASSES: dict[str, type[Initializer]] = {
    snake_case(cls.__name__): cls
    for cls in (
        Constant,
        Zeros,
        Ones,
        RandomUniform,
        RandomNormal,
        TruncatedNormal,
        VarianceScaling,
        GlorotUniform,
        GlorotNormal,
        HeUniform,
        HeNormal,
        LecunUniform,
        LecunNormal,
        Orthogonal,
    )
}


def get(identifier: Any) -> Initializer:
    """Return the initializer that an instance, class, name or config stands for.

    Examples
    --------
    >>> import tilefuse
    >>> type(tilefuse.initializers.get("he_normal")).__name__
    'HeNormal'
    """
    return lookup("initializer", identifier, Initializer, _CLASSES)
