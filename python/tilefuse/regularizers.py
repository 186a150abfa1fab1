"""Penalties on weights, added to the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._config import Configurable, lookup
from .tape import record


class L1L2(Configurable):
    """The penalty ``l1 * sum(|w|) + l2 * sum(w * w)``.

    Parameters
    ----------
    l1, l2 : float
        Not negative.

    Raises
    ------
    ValueError
        A factor is negative, infinite or NaN.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> float(tilefuse.regularizers.L1L2(l1=1.0, l2=0.5)(np.array([1.0, -2.0])))
    5.5
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        for name, value in (("l1", l1), ("l2", l2)):
            if not (0 <= value < float("inf")):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}.")
        self.l1, self.l2 = float(l1), float(l2)

    def __call__(self, w: Any) -> np.ndarray:
        """Return the penalty of `w` as a 0-d array; a gradient tape records it."""
        value = np.asarray(w)
        penalty = np.asarray(self.l1 * np.abs(value).sum() + self.l2 * np.square(value).sum(), value.dtype)
        record([value], penalty, lambda dy: [dy * (self.l1 * np.sign(value) + 2 * self.l2 * value)])
        return penalty


class L1(L1L2):
    """The penalty ``l1 * sum(|w|)``."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)


class L2(L1L2):
    """The penalty ``l2 * sum(w * w)``."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)


_CLASSES: dict[str, type[L1L2]] = {"l1": L1, "l2": L2, "l1_l2": L1L2}


def get(identifier: Any) -> L1L2 | None:
    """Return the regularizer that an instance, class, name or config stands for; None stays None.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.regularizers.get("l2").l2
    0.01
    """
    return None if identifier is None else lookup("regularizer", identifier, L1L2, _CLASSES)
