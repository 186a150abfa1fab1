"""What the benchmarks of kernels share: the functions to time with their arrays, and names for shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tilefuse
from tilefuse import reference
from tilefuse._cuda_arrays import array_module
from tilefuse.variables import copy_to


def backend_names(device: str) -> list[str]:
    """tilefuse, and the library whose arrays the reference takes there."""
    return ["tilefuse", "cupy" if device.startswith("cuda") else "numpy"]


class Backend:
    """Functions to time, and the arrays that they take, which lie in the memory where the functions work."""

    def __init__(self, name: str, device: str, timer: Any) -> None:
        self.ops: Any = tilefuse.ops if name == "tilefuse" else reference
        self._cupy: Any = array_module() if device.startswith("cuda") else None
        self._device = device if name == "tilefuse" else "cpu"
        self._timer = timer
        self._rng = np.random.default_rng(0)

    def asarray(self, array: np.ndarray) -> Any:
        if self._cupy is not None:
            return self._cupy.asarray(array)
        return array if self._device == "cpu" else copy_to(self._device, array)

    def normal(self, *shape: int) -> Any:
        """Random float32."""
        return self.asarray(self._rng.standard_normal(shape, dtype=np.float32))

    def zeros(self, *shape: int) -> Any:
        return self.asarray(np.zeros(shape, np.float32))

    def labels(self, n: int, classes: int) -> Any:
        """Random class numbers, int32."""
        return self.asarray(self._rng.integers(0, classes, n).astype(np.int32))

    def zeros_and_ones(self, *shape: int) -> Any:
        """Random zeros and ones, float32."""
        return self.asarray(self._rng.integers(0, 2, shape).astype(np.float32))

    def time(self, run: Callable[[], object], *, flops: int = 0, bytes_moved: int = 0) -> None:
        """Time `run`, which does so many floating-point operations or must move so many bytes.

        On a GPU, from the call to the end of all that it has queued there.
        """
        if self._cupy is not None:
            wait = self._cupy.cuda.Device().synchronize
            wait()
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
