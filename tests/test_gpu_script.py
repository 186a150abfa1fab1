"""benchmarks/gpu.sh where there is no GPU: what it says, what it makes of steps that fail, and its JSON.

`nvidia-smi`, `compute-sanitizer` and the interpreter that runs the steps are scripts of the tests' own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks/gpu.sh"

NVIDIA_SMI = """\
case "$*" in
*=name*) echo "NVIDIA Test 9000" ;;
*=compute_cap*) echo 9.0 ;;
*=driver_version*) echo 580.1 ;;
*=clocks.sm,*) echo "1980, 3201, 45, 300.5, 99, 0x0000000000000004" ;;
*) echo 7 ;;
esac
"""

# The interpreter of a machine where some steps fail; what it was called with goes to a file.
PYTHON = """\
echo "$* in ${{PYTHONPATH:-}}" >>"$CALLS"
all=$*
prefix=${{all#*--prefix }}
case $all in
*_gpu_report.py*) exec {python} "$@" ;;
*"pip install"*--prefix*) mkdir -p "${{prefix%% *}}/lib/python3/site-packages/tilefuse" ;;&
*"$FAILING"*) echo "1 failed, 6 passed in 0.1s"; exit 3 ;;
*freeze*) echo numpy==2.4.6 ;;
*) echo "7 passed in 0.1s" ;;
esac
"""

# Runs what it is given, as it does.
SANITIZER = """\
while [ "${1#-}" != "$1" ]; do case $1 in --target*|--tool|--error*) shift 2 ;; esac; done
echo "========= COMPUTE-SANITIZER"
"$@" || exit
echo "========= ERROR SUMMARY: 0 errors"
"""


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has what a shell script needs, and nothing else yet."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in (
        "bash",
        "cat",
        "dirname",
        "env",
        "find",
        "git",
        "grep",
        "mkdir",
        "mktemp",
        "rm",
        "sed",
        "sleep",
        "tail",
        "tr",
    ):
        found = shutil.which(tool)
        if found:
            (tools / tool).symlink_to(found)
    return {
        "PATH": str(tools),
        "CALLS": str(tmp_path / "calls"),
        "FAILING": "no step at all",
        "HOME": str(tmp_path),
        "CUDA_HOME": str(tmp_path / "no toolkit"),
    }


def add(machine: dict[str, str], name: str, text: str) -> str:
    path = Path(machine["PATH"]) / name
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(0o755)
    return str(path)


def run(machine: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments], env=machine, capture_output=True, text=True, check=False, timeout=120
    )


def finished(machine: dict[str, str], tmp_path: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """A run with a GPU and an interpreter: its status, output and result."""
    add(machine, "nvidia-smi", NVIDIA_SMI)
    python = add(machine, "its-python", PYTHON.format(python=sys.executable))
    output = tmp_path / "new folder/result.json"
    done = run(machine, "--python", python, *arguments, str(output))
    return done.returncode, done.stdout + done.stderr, json.loads(output.read_text())


def test_syntax() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)


def test_no_driver(machine: dict[str, str]) -> None:
    done = run(machine)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no GPU: there is no nvidia-smi" in done.stderr


@pytest.mark.parametrize("status", [0, 6])
def test_no_gpu(machine: dict[str, str], status: int) -> None:
    add(machine, "nvidia-smi", f"echo No devices were found; exit {status}")
    done = run(machine)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no GPU: nvidia-smi says: No devices were found" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "tests,speed"], "--only has speed"),
        (["--python"], "needs a value"),
        (["--wheel", "none.whl"], "there is no wheel none.whl"),
        (["--wheel", str(SCRIPT)], "--wheel needs --python"),
        (["-x"], "unknown option -x"),
    ],
)
def test_wrong_arguments(machine: dict[str, str], arguments: list[str], says: str) -> None:
    done = run(machine, *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_help_is_the_head_of_the_script(machine: dict[str, str]) -> None:
    text = run(machine, "--help").stdout
    assert text.startswith("All that there is to measure")
    assert "--only STEPS" in text
    assert "pipefail" not in text


def test_all_steps_pass(machine: dict[str, str], tmp_path: Path) -> None:
    add(machine, "compute-sanitizer", SANITIZER)
    status, said, result = finished(machine, tmp_path)
    assert status == 0, said
    assert result["device"] == "NVIDIA Test 9000"
    assert result["driver"] == "580.1"
    assert "off" in result["tf32"]
    tools = ["memcheck", "racecheck", "initcheck", "synccheck"]
    assert list(result["steps"]) == ["build", "info", "tests", *tools, "kernels", "kernel_times", "training"]
    assert (result["failed"], result["left_out"]) == ([], [])
    assert result["tests"]["counts"] == {"passed": 7}
    assert result["sanitizers"]["racecheck"]["summary"] == ["ERROR SUMMARY: 0 errors"]
    assert result["sanitizers"]["racecheck"]["tests"]["counts"] == {"passed": 7}
    assert result["clocks"]["training"]["least, median, most"]["clocks.sm"] == [1980.0] * 3
    assert result["packages"] == ["numpy==2.4.6"]
    calls = (tmp_path / "calls").read_text()
    assert "-C cmake.define.TILEFUSE_CUDA=ON -C cmake.define.TILEFUSE_CUDA_ARCHITECTURES=90" in calls
    step = r"benchmarks/train_step.py --device cuda .* in /.*/lib/python3/site-packages$"
    assert re.search(step, calls, re.MULTILINE)


def test_a_wheel_is_installed_and_not_built(machine: dict[str, str], tmp_path: Path) -> None:
    wheel = tmp_path / "tilefuse-1-py3-none-any.whl"
    wheel.touch()
    status, said, result = finished(machine, tmp_path, "--wheel", str(wheel), "--only", "tests")
    assert status == 0, said
    assert list(result["steps"]) == ["build", "info", "tests"]
    (install,) = re.findall("^.*pip install.*$", (tmp_path / "calls").read_text(), re.MULTILINE)
    assert str(wheel) in install
    assert "cmake" not in install
    assert result["wheel"] == wheel.name


def test_a_failed_step_is_recorded_and_the_others_run(machine: dict[str, str], tmp_path: Path) -> None:
    status, said, result = finished(machine | {"FAILING": "--benchmark-json"}, tmp_path)
    assert status == 1
    assert "kernels: FAILED with status 3" in said
    assert result["failed"] == ["kernels"]
    assert result["steps"]["training"]["passed"]
    assert [line.partition(":")[0] for line in result["left_out"]] == [
        "memcheck",
        "racecheck",
        "initcheck",
        "synccheck",
    ]


def test_a_failed_build_ends_the_run(machine: dict[str, str], tmp_path: Path) -> None:
    status, _, result = finished(machine | {"FAILING": "pip install"}, tmp_path)
    assert status == 1
    assert (list(result["steps"]), result["failed"], result["tests"]) == (["build"], ["build"], None)


def test_a_finding_of_a_sanitizer_fails_the_run(machine: dict[str, str], tmp_path: Path) -> None:
    add(machine, "compute-sanitizer", SANITIZER.replace("0 errors", "1 error") + "exit 1\n")
    status, _, result = finished(machine, tmp_path, "--only", "memcheck")
    assert (status, result["failed"], result["asked"]) == (1, ["memcheck"], ["memcheck"])
    assert list(result["steps"]) == ["build", "info", "memcheck"]


@pytest.mark.parametrize(
    ("missing", "steps", "left_out"),
    [
        ("import cupy", "kernels,synccheck", ["synccheck", "kernels"]),
        ("import torch", "kernel_times", ["kernel_times"]),
    ],
)
def test_what_is_missing_is_left_out(
    machine: dict[str, str], tmp_path: Path, missing: str, steps: str, left_out: list[str]
) -> None:
    status, said, result = finished(machine | {"FAILING": missing}, tmp_path, "--only", steps)
    assert status == 0, said
    assert [line.partition(":")[0] for line in result["left_out"]] == left_out


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_commit_and_changes(machine: dict[str, str], tmp_path: Path) -> None:
    """In a clean clone, and with a file changed and another one new."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(tmp_path / "clone")]
    (tmp_path / "clone/benchmarks/results").mkdir(parents=True)
    for name in ("gpu.sh", "_gpu_report.py", "_report.py"):
        shutil.copy(ROOT / "benchmarks" / name, tmp_path / "clone/benchmarks")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    add(machine, "nvidia-smi", NVIDIA_SMI)
    add(machine, "its-python", PYTHON.format(python=sys.executable))
    output = tmp_path / "clone/benchmarks/results/gpu-NVIDIA-Test-9000.json"

    def result() -> dict[str, Any]:
        command = ["clone/benchmarks/gpu.sh", "--python", "bin/its-python", "--only", "tests"]
        env = machine | {"PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
        return json.loads(output.read_text())

    assert [result()[key] for key in ("commit", "dirty")] == [commit, False]
    assert not result()["dirty"]  # the result itself doesn't count
    (tmp_path / "clone/new.cu").touch()
    with (tmp_path / "clone/benchmarks/_report.py").open("a") as file:
        file.write("# more\n")
    assert result()["changed"] == ["M benchmarks/_report.py", "?? new.cu"]


LOGS = {
    "facts": """\
gpu name\tNVIDIA Test 9000
gpu driver_version\t580.1
gpu state\tclocks.sm,power.draw,clocks_event_reasons.active
commit\tabc
changed\t M csrc/cuda/mlp.cu
nvcc\t13.0.88
only\ttests,memcheck
left_out\ttorch: no wheel
""",
    "steps": "build\t0\t90\ntests\t1\t60\nmemcheck\t1\t300\nracecheck\t0\t400\n",
    "kernels.state": "1980, 300.5, 0x0\n1700, 690.1, 0x4\n1800, [N/A], 0x4\n19",
    "tests.log": """\
..F. [100%]
= short test summary info =
FAILED tests/ops/test_matmul.py::test_beta[cuda] - assert 1 == 2
ERROR tests/test_x.py - boom
1 failed, 1170 passed, 5 skipped, 1 error in 70.51s (0:01:10)
""",
    "memcheck.log": """\
========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at multiply<Tile>(Product)+0x4f0 in matmul.cu:301
Fatal Python error: Aborted
========= ERROR SUMMARY: 1 error
""",
    "racecheck.log": """\
========= COMPUTE-SANITIZER
690 passed, 644 deselected in 26.56s
========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)
""",
}


def test_the_result_of_recorded_logs(tmp_path: Path) -> None:
    for name, text in LOGS.items():
        (tmp_path / name).write_text(text)
    each = [("tilefuse", 2e-6, "64x64x64"), ("cupy", 5e-6, "64x64x64"), ("tilefuse", 1e-3, "512x512x512")]
    benchmarks = [
        {
            "name": f"test_matmul[{backend}-{shape}]",
            "params": {"backend": backend},
            "stats": {"median": median},
            "extra_info": {"GFLOP/s": 1.0},
        }
        for backend, median, shape in each
    ]
    (tmp_path / "kernels.json").write_text(json.dumps({"benchmarks": benchmarks}))
    training = {
        "versions": {"torch": {"float32 products": "IEEE"}},
        "models": {"mlp": {"ratio": {"tilefuse": 3}}},
    }
    (tmp_path / "train_step_cuda.json").write_text(json.dumps({"date": "x"} | training))

    times = [{"name": "relu", "us": 17.0, "peer_us": 17.1}]
    (tmp_path / "gpu_kernels.json").write_text(json.dumps({"date": "x", "kernels": times}))

    output = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks/_gpu_report.py"), str(tmp_path), str(output)]
    subprocess.run(command, check=True)
    result = json.loads(output.read_text())
    facts = [result[key] for key in ("device", "driver", "commit", "dirty", "nvcc")]
    assert facts == ["NVIDIA Test 9000", "580.1", "abc", True, "13.0.88"]
    assert result["changed"] == ["M csrc/cuda/mlp.cu"]
    assert result["clocks"]["kernels"] == {
        "samples": 3,
        "least, median, most": {
            "clocks.sm": [1700.0, 1800.0, 1980.0],
            "power.draw": [300.5, 495.3, 690.1],
            "clocks_event_reasons.active": ["0x0", "0x4"],
        },
    }
    assert not result["clocks"]["training"]
    assert result["failed"] == ["tests", "memcheck"]
    assert result["left_out"] == ["torch: no wheel"]
    assert result["tests"] == {
        "counts": {"failed": 1, "passed": 1170, "skipped": 5, "error": 1},
        "not passed": ["tests/ops/test_matmul.py::test_beta[cuda] - assert 1 == 2", "tests/test_x.py - boom"],
    }
    assert result["sanitizers"]["memcheck"] == {
        "summary": ["ERROR SUMMARY: 1 error"],
        "findings": [
            "Invalid __global__ read of size 4 bytes",
            "at multiply<Tile>(Product)+0x4f0 in matmul.cu:301",
        ],
        "tests": {"counts": {}, "not passed": []},
    }
    assert result["sanitizers"]["racecheck"]["tests"]["counts"] == {"passed": 690, "deselected": 644}
    assert result["kernels"] == [
        {"name": "test_matmul 64x64x64", "tilefuse us": 2.0, "cupy us": 5.0, "GFLOP/s": 1.0, "ratio": 2.5},
        {"name": "test_matmul 512x512x512", "tilefuse us": 1000.0, "GFLOP/s": 1.0},
    ]
    assert result["training"] == training
    assert result["kernel_times"] == times
