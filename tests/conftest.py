"""Settings of the whole suite.

The tests run with the kernels of the best instruction set that the processor has. For another one::

    pytest --isa avx2            # or TILEFUSE_ISA=avx2 pytest

A test that takes the fixture `device`, or `ops`, runs on each device: on the CPU, and on the executor of CUDA
kernels where it is built. For others, and for the executor's checked build or another order of its threads::

    pytest --device cpu,cuda
    TILEFUSE_SIMT=checked TILEFUSE_SIMT_ORDER=random pytest --device simt

Long property tests (`fuzz`) and whole trainings (`slow`) are deselected by default. To run them::

    pytest -m "slow or fuzz"
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from helpers.properties import SHORT
from hypothesis import settings

settings.register_profile("short", SHORT)
settings.load_profile("short")


def pytest_report_header(config: pytest.Config) -> str:
    from tilefuse import _core

    return (
        f"tilefuse: {_core.isa()} kernels (of {', '.join(_core.available_isas())}), "
        f"{_core.get_num_threads()} threads; devices: {', '.join(devices(config))}"
    )


def devices(config: pytest.Config) -> list[str]:
    asked = config.getoption("--device")
    if asked:
        return asked.split(",")
    return ["cpu", "simt"] if importlib.util.find_spec("tilefuse._simt") else ["cpu"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", devices(metafunc.config), indirect=True)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device in use: a test that asks for it runs once on each."""
    import tilefuse

    before = tilefuse.get_device()
    yield tilefuse.set_device(request.param)
    tilefuse.set_device(before)


@pytest.fixture
def ops(device: str) -> ModuleType:
    """tilefuse.ops, on that device."""
    from tilefuse import ops

    return ops


@pytest.fixture
def set_num_threads() -> Iterator[Callable[[int], None]]:
    """tilefuse.set_num_threads, undone afterwards."""
    import tilefuse

    before = tilefuse.get_num_threads()
    yield tilefuse.set_num_threads
    tilefuse.set_num_threads(before)
