"""What the benchmarks of kernels share: the functions to time with their arrays, and names for shapes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tilefuse
from tilefuse import reference


def _cupy() -> ModuleType | None:
    try:
        import cupy

        return cupy if cupy.cuda.is_available() else None
    except ImportError:
        return None


CUPY = _cupy()


NAMES = ["tilefuse", "numpy", *(["cupy"] if CUPY is not None else [])]


class Backend:
    """Functions to time, and the arrays that they take."""

    def __init__(self, name: str, timer: Any) -> None:
        self.ops: Any = tilefuse.ops if name == "tilefuse" else reference
        self.xp: Any = CUPY if name == "cupy" else np
        self._timer = timer
        self._rng = np.random.default_rng(0)

    def normal(self, *shape: int) -> Any:
        """Random float32."""
        return self.xp.asarray(self._rng.standard_normal(shape, dtype=np.float32))

    def labels(self, n: int, classes: int) -> Any:
        return self.xp.asarray(self._rng.integers(0, classes, n).astype(np.int32))

    def time(self, run: Callable[[], object], *, flops: int = 0, bytes_moved: int = 0) -> None:
        """Time `run`, which does so many floating-point operations or must move so many bytes."""
        if self.xp is CUPY:
            wait = CUPY.cuda.Device().synchronize
            self._timer(lambda: (run(), wait()))
        else:
            self._timer(run)
        if self._timer.stats is not None:
            seconds = self._timer.stats.stats.median
            if flops:
                self._timer.extra_info["GFLOP/s"] = round(flops / seconds / 1e9, 2)
            if bytes_moved:
                self._timer.extra_info["GB/s"] = round(bytes_moved / seconds / 1e9, 2)


def shape_id(shape: Any) -> str:
    return "x".join(map(str, shape)) if isinstance(shape, tuple) else str(shape)


def shapes(*values: Any) -> pytest.MarkDecorator:
    """A parameter `shape` with readable names."""
    return pytest.mark.parametrize("shape", values, ids=shape_id)
