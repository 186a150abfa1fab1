"""Precisions by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilefuse._device import current
from tilefuse._runtime import PRECISIONS_ON_CUDA, precisions


def checked(name: str | None, dtype: np.dtype[Any]) -> str:
    """What the kernel is to be told; only float32 has several."""
    if name is None or name == dtype.name:
        return "float32"
    known = precisions(current())
    if name not in known:
        problem = f"not available on {current()!r}" if name in PRECISIONS_ON_CUDA else "unknown"
        raise ValueError(f"precision {name!r} is {problem}; expected None, {', '.join(map(repr, known))}")
    if name == "float64" or dtype != np.float32:
        raise ValueError(f"precision is {name!r} and the arrays are of {dtype}; convert the arrays")
    return name
