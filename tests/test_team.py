"""Teams: how that of a training step finds its size, on machines that are simulated, and how members meet."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SIZES = ["one", "ideal", "useless", "peak", "busy_from_the_start", "busy_for_a_while", "noisy"]


def compiled(name: str, folder: Path) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    source, include = HERE / f"helpers/{name}.cpp", HERE.parent / "csrc"
    command = ["g++", "-std=c++20", "-O1", "-Wall", "-fopenmp", "-I", include, source, "-o", folder / name]
    subprocess.run(command, check=True)
    return folder / name


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("team_size", tmp_path_factory.mktemp("team_size"))


@pytest.fixture(scope="module")
def barrier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("barrier", tmp_path_factory.mktemp("barrier"))


def check(program: Path, case: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_THREAD_LIMIT"}
    done = subprocess.run(
        [program, case], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("case", SIZES)
def test_size(sizes: Path, case: str) -> None:
    check(sizes, case)


@pytest.mark.parametrize("wake_ups", ["woken", "lost"])
def test_barrier(barrier: Path, wake_ups: str) -> None:
    check(barrier, wake_ups)
