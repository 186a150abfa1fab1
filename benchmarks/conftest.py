"""Each benchmark runs with tilefuse on one device and with the reference beside it.

pytest benchmarks --benchmark-group-by=func,param:shape        # a table for each op and shape
pytest benchmarks --benchmark-disable                          # each once, without timing
pytest benchmarks --device cuda                                # on a GPU, against CuPy
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _backends import Backend

# Functions import tilefuse, and not this file: that chooses the instruction set, for which there is --isa.


def device_of(config: pytest.Config) -> str:
    return config.getoption("--device") or "cpu"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        from _backends import backend_names

        metafunc.parametrize("backend", backend_names(device_of(metafunc.config)), indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest, benchmark: Any) -> Iterator[Backend]:
    import tilefuse
    from _backends import Backend

    before = tilefuse.get_device()
    device = tilefuse.set_device(device_of(request.config))
    yield Backend(request.param, device, benchmark)
    tilefuse.set_device(before)


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    import tilefuse

    output_json["tilefuse"] = tilefuse.show_config("dicts")
    output_json["device"] = device_of(config)
