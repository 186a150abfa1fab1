"""Options of tests and benchmarks; `tests/conftest.py` and `benchmarks/conftest.py` say what they do."""

from __future__ import annotations

import argparse
import os
import zlib

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--isa", help="instruction set of the CPU kernels, one of those that `tilefuse info` lists"
    )
    parser.addoption(
        "--device",
        help="tests: devices, such as cpu,simt (those that are built, but for cuda); benchmarks: one (cpu)",
    )
    parser.addoption("--share", help="K/N: only the K-th of N parts of the tests", type=share)


def share(text: str) -> tuple[int, int]:
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise argparse.ArgumentTypeError(f"it is {text!r}; expected K/N with 1 <= K <= N, such as 1/4")
    return int(k), int(n)


@pytest.hookimpl(trylast=True)  # of those that -k and -m leave
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the share asked for: by names, as each N-th test may have the same value of some parameter."""
    if asked := config.getoption("--share"):
        k, n = asked
        parts: dict[bool, list[pytest.Item]] = {True: [], False: []}
        for item in items:
            parts[zlib.crc32(item.nodeid.encode()) % n == k - 1].append(item)
        config.hook.pytest_deselected(items=parts[False])
        items[:] = parts[True]


def pytest_configure(config: pytest.Config) -> None:
    isa = config.getoption("--isa")
    if isa:
        os.environ["TILEFUSE_ISA"] = isa  # read when tilefuse is imported, which no plugin does before this
