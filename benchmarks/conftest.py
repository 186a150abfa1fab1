"""Each benchmark runs with tilefuse and with the reference in NumPy, and in CuPy where there is a GPU.

pytest benchmarks --benchmark-group-by=func,param:shape        # a table for each op and shape
pytest benchmarks --benchmark-disable                          # each once, without timing
"""

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


@pytest.fixture(params=["tilefuse", "numpy", *(["cupy"] if CUPY is not None else [])])
def backend(request: pytest.FixtureRequest, benchmark: Any) -> Backend:
    return Backend(request.param, benchmark)


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["tilefuse"] = tilefuse.show_config("dicts")


def shape_id(shape: Any) -> str:
    return "x".join(map(str, shape)) if isinstance(shape, tuple) else str(shape)


def shapes(*values: Any) -> pytest.MarkDecorator:
    """A parameter `shape` with readable names."""
    return pytest.mark.parametrize("shape", values, ids=shape_id)
