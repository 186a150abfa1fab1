"""The benchmarks themselves: where their arrays lie, and steps timed on another device than the CPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import call_cost
import numpy as np
import pytest
import tilefuse
from _backends import Backend, backend_names
from helpers.calls import DIRECT
from tilefuse import _device
from tilefuse._bench import quick

ROOT = Path(__file__).parents[1]


class Timer:
    """pytest-benchmark's fixture: calls once."""

    stats = None

    def __call__(self, run: Any) -> None:
        run()


@pytest.mark.parametrize("name", ["tilefuse", "reference"])
def test_arrays_lie_where_the_functions_work(name: str, device: str) -> None:
    backend = Backend("tilefuse" if name == "tilefuse" else backend_names(device)[1], device, Timer())
    if device.startswith("cuda"):
        import cupy

        kind = cupy.ndarray
    else:
        kind = np.ndarray
    made = [backend.normal(3, 4), backend.zeros(5), backend.labels(6, 7), backend.zeros_and_ones(2, 2)]
    assert all(isinstance(array, kind) for array in made)
    if name == "tilefuse" and not device.startswith("cuda"):
        assert all(_device.native().owns(array) for array in made)
    results: list[Any] = []
    backend.time(lambda: results.append(backend.ops.relu(made[0])))
    assert isinstance(results[0], kind)


def test_quick_benchmark(
    device: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "MATMUL_SIZES", (16,))
    monkeypatch.setattr(quick, "torch_module", lambda: None)  # its import takes seconds
    quick.print_benchmarks(0.001)
    out = capsys.readouterr().out
    assert ("on " + device in out) == (device != "cpu")
    peer = "cupy" if device.startswith("cuda") else "numpy"
    assert re.search(r"^matmul 16 x 16 x 16 +tilefuse +[0-9.]+ us +[0-9.]+ GFLOP/s$", out, re.MULTILINE)
    assert re.search(rf"^ +{peer} +[0-9.]+ us +[0-9]+ steps/s +[0-9.]+ x as fast$", out, re.MULTILINE)


@pytest.mark.slow
def test_steps_are_timed_on_the_executor(tmp_path: Path) -> None:
    pytest.importorskip("tilefuse._simt")
    command = [sys.executable, str(ROOT / "benchmarks/train_step.py"), "--device", "simt"]
    options = ["--models", "mlp_softmax", "--blocks", "1", "--seconds", "0.01", "--output", str(tmp_path)]
    subprocess.run([*command, *options], check=True, capture_output=True)
    result = json.loads((tmp_path / "train_step_simt.json").read_text())
    model = result["models"]["mlp_softmax"]
    assert set(model["ms_per_step"]) == {"tilefuse", "tilefuse-epoch"}
    assert all(0 < ms < 1000 for ms in model["ms_per_step"].values())
    assert result["versions"]["tilefuse"]["device"] == "simt"
    assert result["versions"]["tilefuse"]["tilefuse"] == tilefuse.__version__


@pytest.mark.slow
def test_training_from_files_is_timed(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/image_pipeline.py"), "--steps", "1", "--blocks", "1"]
    subprocess.run([*command, "--output", str(tmp_path)], check=True, capture_output=True)
    kinds = json.loads((tmp_path / "image_pipeline.json").read_text())["kinds"]
    assert [name for name in kinds if "kept" not in name] == ["memory", "PNG 150 x 150", "JPEG 200 x 200"]
    assert all(0 < kind["ratio"] < 10 and 0 < kind["possible"] <= 1 for kind in kinds.values())


@pytest.mark.slow
def test_memory_of_steps_is_counted() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/step_memory.py"), "--models", "cnn28"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (own,) = re.findall(r"^\| `cnn28` \| ([0-9.]+) ", done.stdout, re.MULTILINE)
    assert 0.5 < float(own) < 8


def test_models_that_there_are_not() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/train_step.py"), "--models", "cnn28,vgg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--models has vgg; there are: mlp_binary, mlp_softmax" in done.stderr


def test_a_device_that_is_not_there() -> None:
    if "available" in _device.report()["cuda"]:
        pytest.skip("there is a GPU")
    command = [sys.executable, str(ROOT / "benchmarks/train_step.py"), "--device", "cuda", "--peers", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "tilefuse: Device 'cuda' is not available" in done.stderr
    assert "Traceback" not in done.stderr


def test_peers_that_a_device_does_not_have() -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks/train_step.py"),
        "--device",
        "cuda",
        "--peers",
        "torch,keras",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--peers has keras; with --device cuda there are: torch, torch-compile, torch-graph" in done.stderr


def test_call_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_cost, "ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["call_cost.py", "--roads", "numpy,c", "--output", str(tmp_path)])
    call_cost.main()
    calls = json.loads((tmp_path / "call_cost.json").read_text())["calls"]
    assert sorted(call["op"] for call in calls if call["road"] == "numpy") == sorted(DIRECT)
    assert all(call["ns"] > 0 and call["peer_ns"] > 0 for call in calls)
    report = (tmp_path / "call_cost.md").read_text()
    assert "| numpy `relu` | " in report
    assert "| c `relu` | " in report or call_cost.missing("c")
