"""Each benchmark runs with tilefuse and with the reference in NumPy, and in CuPy where there is a GPU.

pytest benchmarks --benchmark-group-by=func,param:shape        # a table for each op and shape
pytest benchmarks --benchmark-disable                          # each once, without timing
"""

from __future__ import annotations

from typing import Any

import pytest
import tilefuse
from _backends import NAMES, Backend


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest, benchmark: Any) -> Backend:
    return Backend(request.param, benchmark)


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["tilefuse"] = tilefuse.show_config("dicts")
