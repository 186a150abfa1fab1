"""How the team of a training step finds its size, on machines that are simulated."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = ["one", "ideal", "useless", "peak", "busy_from_the_start", "busy_for_a_while", "noisy"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    binary = tmp_path_factory.mktemp("team_size") / "team_size"
    source = HERE / "helpers/team_size.cpp"
    include = str(HERE.parent / "csrc")
    command = ["g++", "-std=c++20", "-O1", "-Wall", "-I", include, str(source), "-o", str(binary)]
    subprocess.run(command, check=True)
    return binary


@pytest.mark.parametrize("case", CASES)
def test_size(program: Path, case: str) -> None:
    done = subprocess.run([program, case], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
