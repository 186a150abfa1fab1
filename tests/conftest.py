"""Settings of the whole suite.

The tests run with the kernels of the best instruction set that the processor has. For another one::

    pytest --isa avx2            # or TILEFUSE_ISA=avx2 pytest

Long property tests (`fuzz`) and whole trainings (`slow`) are deselected by default. To run them::

    pytest -m "slow or fuzz"
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from helpers.properties import SHORT
from hypothesis import settings

settings.register_profile("short", SHORT)
settings.load_profile("short")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--isa", help="instruction set of the CPU kernels: baseline, avx2 or avx512")


def pytest_configure(config: pytest.Config) -> None:
    isa = config.getoption("--isa")
    if isa:
        os.environ["TILEFUSE_ISA"] = isa  # read when tilefuse is imported, which no plugin does before this


def pytest_report_header() -> str:
    from tilefuse import _core

    return (
        f"tilefuse: {_core.isa()} kernels (of {', '.join(_core.available_isas())}), "
        f"{_core.get_num_threads()} threads"
    )


def available_devices() -> list[str]:
    return ["cpu"]


@pytest.fixture(params=available_devices())
def device(request: pytest.FixtureRequest) -> str:
    """Each device that is there."""
    return request.param


@pytest.fixture
def ops(device: str) -> ModuleType:
    """tilefuse.ops for that device: a test that asks for it runs once on each."""
    assert device == "cpu"
    from tilefuse import ops

    return ops


@pytest.fixture
def set_num_threads() -> Iterator[Callable[[int], None]]:
    """tilefuse.set_num_threads, undone afterwards."""
    import tilefuse

    before = tilefuse.get_num_threads()
    yield tilefuse.set_num_threads
    tilefuse.set_num_threads(before)
