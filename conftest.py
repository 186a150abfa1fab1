"""Options of tests and benchmarks; `tests/conftest.py` and `benchmarks/conftest.py` say what they do."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--isa", help="instruction set of the CPU kernels, one of those that `tilefuse info` lists"
    )
    parser.addoption(
        "--device",
        help="tests: devices, such as cpu,simt (those that are built, but for cuda); benchmarks: one (cpu)",
    )


def pytest_configure(config: pytest.Config) -> None:
    isa = config.getoption("--isa")
    if isa:
        os.environ["TILEFUSE_ISA"] = isa  # read when tilefuse is imported, which no plugin does before this
