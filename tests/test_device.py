"""Which devices there are, and what is said of those that can't be used."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import tilefuse
from tilefuse import _core, _device


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    tilefuse.set_device("cpu")


def cuda_module(**given: Any) -> SimpleNamespace:
    """The module of CUDA kernels on a machine with one GPU of compute capability 9.0, or as `given`."""
    facts = {
        "architectures": (75, 80, 90),
        "driver_version": lambda: 13000,
        "runtime_version": lambda: 13000,
        "gpus": lambda: [{"name": "H100", "capability": 90}],
        "set_device": lambda index: None,
    }
    return SimpleNamespace(**facts | given)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The compiled modules beside the CPU's, by name: none until a test adds them."""
    modules: dict[str, Any] = {}
    monkeypatch.setattr(_device, "_is_built", modules.__contains__)
    monkeypatch.setattr(
        _device.importlib, "import_module", lambda name: modules[name.removeprefix("tilefuse.")]
    )
    return modules


def no_gpu() -> list[Any]:
    raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


@pytest.mark.parametrize(
    ("asked", "module", "says"),
    [
        ("cuda", None, "built without CUDA kernels.*TILEFUSE_CUDA=ON"),
        ("cuda:1", None, "'cuda:1'.*built without CUDA kernels"),
        ("cuda", cuda_module(driver_version=lambda: 0), "no NVIDIA driver"),
        (
            "cuda",
            cuda_module(driver_version=lambda: 12040),
            r"driver is for CUDA 12\.4.*needs one for CUDA 13\.0",
        ),
        ("cuda", cuda_module(gpus=no_gpu), "no CUDA-capable device is detected"),
        ("cuda", cuda_module(gpus=list), "finds no GPU"),
        ("cuda:1", cuda_module(), "counted from 0.*has 1"),
        (
            "cuda",
            cuda_module(architectures=(100, 120)),
            r"no image for H100, of compute capability 9\.0.*10\.0, 12\.0.*TILEFUSE_CUDA=ON",
        ),
    ],
)
def test_why_cuda_cannot_be_used(built: dict[str, Any], asked: str, module: Any, says: str) -> None:
    if module is not None:
        built["_cuda"] = module
    with pytest.raises(tilefuse.DeviceError, match=rf"{says}.*set_device\('cpu'\)"):
        tilefuse.set_device(asked)
    assert tilefuse.get_device() == "cpu"
    assert _device.native() is _core


def test_a_module_that_does_not_load(built: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    built["_cuda"] = None

    def fails(name: str) -> None:
        raise ImportError("libfoo.so: cannot open shared object file")

    monkeypatch.setattr(_device.importlib, "import_module", fails)
    with pytest.raises(tilefuse.DeviceError, match=r"does not load \(libfoo\.so"):
        tilefuse.set_device("cuda")


def test_cuda_where_it_is(built: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    chosen: list[int] = []
    two = [{"name": "A100", "capability": 80}, {"name": "H100", "capability": 90}]
    built["_cuda"] = cuda_module(gpus=lambda: two, set_device=chosen.append)
    assert tilefuse.set_device("cuda:1") == "cuda:1"
    assert _device.report()["cuda"].startswith("available: A100 (8.0), H100 (9.0); built for 7.5, 8.0, 9.0")
    tilefuse.set_device("cpu")
    assert tilefuse.set_device("auto") == "cuda"
    assert chosen[0] == 1
    assert set(chosen[1:]) == {0}
    assert "'auto' is 'cuda'" in capsys.readouterr().out


def test_auto_says_why_it_is_the_cpu(built: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    built["_cuda"] = cuda_module(driver_version=lambda: 0)
    assert tilefuse.set_device("auto") == "cpu"
    assert "there is no NVIDIA driver on this machine" in capsys.readouterr().out
    assert "7.5, 8.0, 9.0" in _device.report()["cuda"]
    assert "no NVIDIA driver" in _device.report()["cuda"]


def test_a_gpu_that_cannot_be_used(built: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    def fails(index: int) -> None:
        raise RuntimeError("using the GPU: cudaErrorDevicesUnavailable: all CUDA-capable devices are busy")

    built["_cuda"] = cuda_module(set_device=fails)
    with pytest.raises(tilefuse.DeviceError, match=r"are busy.*set_device\('cpu'\)"):
        tilefuse.set_device("cuda")
    assert tilefuse.set_device("auto") == "cpu"
    assert "devices are busy" in capsys.readouterr().out


def test_ptx_is_newer_than_the_driver(built: dict[str, Any]) -> None:
    blackwell = [{"name": "B200", "capability": 100}]
    versions = {"driver_version": lambda: 13010, "runtime_version": lambda: 13020}
    built["_cuda"] = cuda_module(gpus=lambda: blackwell, **versions)
    with pytest.raises(tilefuse.DeviceError, match=r"for B200.*CUDA 13\.2 or later.*is for CUDA 13\.1"):
        tilefuse.set_device("cuda")


@pytest.mark.parametrize(
    ("capability", "architectures", "there"),
    [
        (75, (75, 80), True),
        (70, (75, 80), False),
        (86, (75, 80, 90), True),  # the image for 8.0
        (89, (75, 90), False),  # 7.5's is of another generation, 9.0's PTX too new
        (103, (75, 90, 100), True),
        (121, (75, 120), True),
        (130, (75, 80), True),  # PTX
        (90, (100,), False),
    ],
)
def test_images(capability: int, architectures: tuple[int, ...], there: bool) -> None:
    assert _device.has_image(capability, architectures) is there
    assert not _device.has_image(120, (75, 90), from_ptx=False)


def test_the_executor(built: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(tilefuse.DeviceError, match=r"built without the executor.*TILEFUSE_SIMT=ON.*'cpu'"):
        tilefuse.set_device("simt")
    assert _device.report()["simt"] == "not built"
    built |= {"_simt": object(), "_simt_checked": object()}
    assert "checked" in _device.report()["simt"]
    for build, name in (("", "_simt"), ("plain", "_simt"), ("checked", "_simt_checked")):
        monkeypatch.setenv("TILEFUSE_SIMT", build)
        tilefuse.set_device("simt")
        assert _device.native() is built[name]
    monkeypatch.setenv("TILEFUSE_SIMT", "fast")
    with pytest.raises(tilefuse.DeviceError, match=r"'fast'.*'plain' or 'checked'"):
        tilefuse.set_device("simt")


def test_import_loads_the_cpu_alone() -> None:
    code = "import sys, tilefuse; sys.exit(any(f'tilefuse._{m}' in sys.modules for m in ('simt', 'cuda')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


NO_DRIVER = """
import numpy as np, tilefuse
try:
    tilefuse.set_device("cuda")
except tilefuse.DeviceError as error:
    print(error)
model = tilefuse.Sequential([tilefuse.Input((4,)), tilefuse.layers.Dense(2)])
model.compile("adam", "mse")
print(len(model.fit(np.ones((8, 4)), np.ones((8, 2)), epochs=2, verbose=0).history["loss"]))
"""


@pytest.mark.skipif(importlib.util.find_spec("tilefuse._cuda") is None, reason="device 'cuda' is not built")
def test_where_cuda_is_built_and_there_is_no_driver() -> None:
    if importlib.import_module("tilefuse._cuda").driver_version() > 0:
        pytest.skip("there is a driver")
    done = subprocess.run([sys.executable, "-c", NO_DRIVER], capture_output=True, text=True, check=True)
    error, epochs = done.stdout.splitlines()
    assert "no NVIDIA driver" in error
    assert "set_device('cpu')" in error
    assert epochs == "2"
