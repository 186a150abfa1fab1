"""The machine whose kernels are in use: its compiled module, and why another one can't be used here."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import Any

from . import _core
from ._cuda_arrays import ArraysIn, as_device_array

_HOW_TO_BUILD = "pip install . -C cmake.define.{option}=ON (in a clone of the sources)"


class DeviceError(RuntimeError):
    """The machine cannot do what was asked: a device that is not there, not built, or without a driver."""

    why = ""  # in a few words


class _Current:
    """The mutable part of this module, in one place."""

    device = "cpu"
    module: Any = _core


def native() -> Any:
    """Return the compiled module of the device in use."""
    return _Current.module


def current() -> str:
    """Return the name of the device in use."""
    return _Current.device


def use(device: str) -> None:
    """Use ``"cpu"``, ``"simt"``, ``"cuda"`` or ``"cuda:<index>"``; DeviceError says why it can't be."""
    module = module_of(device)
    if device.startswith("cuda"):
        _choose(device, module)
        module = ArraysIn(module)
    _Current.device, _Current.module = device, module
    _core.use_direct(device == "cpu")


@contextlib.contextmanager
def using(device: str) -> Iterator[Any]:
    """Use another device inside the block; gives its module."""
    before = current()
    if device != before:
        use(device)
    try:
        yield native()
    finally:
        if device != before:
            use(before)


def module_of(device: str) -> Any:
    """Return the compiled module of a device that is there; DeviceError says why it isn't."""
    if device == "cpu":
        return _core
    return _simt(device) if device == "simt" else _cuda(device)


def on_device(x: Any, name: str) -> Any:
    """Return the CuPy array that shares the memory of `x`, an array on a GPU; TypeError on another device."""
    if not _Current.device.startswith("cuda"):
        raise TypeError(
            f"{name} is a {type(x).__name__} in a GPU's memory, and the device in use is {current()!r}: "
            "call tilefuse.set_device('cuda'), or pass a NumPy array"
        )
    return as_device_array(x)


def best() -> tuple[str, str]:
    """Return the best device that there is, and why there is no better one."""
    try:
        _choose("cuda", module_of("cuda"))
    except DeviceError as error:
        return "cpu", f"not 'cuda': {error.why}"
    return "cuda", ""


def report() -> dict[str, str]:
    """Return, for each device, what is built and whether it can be used here."""
    return {"cpu": "available", "simt": _report_simt(), "cuda": _report_cuda()}


def _simt(device: str) -> Any:
    build = os.environ.get("TILEFUSE_SIMT") or "plain"
    if build not in ("plain", "checked"):
        raise DeviceError(
            f"TILEFUSE_SIMT is {build!r}; expected 'plain' or 'checked', the executor's two builds. "
            "Use set_device('cpu') or another value."
        )
    if not _is_built("_simt"):
        raise _error(
            device,
            "this installation was built without the executor of CUDA kernels",
            _HOW_TO_BUILD.format(option="TILEFUSE_SIMT"),
        )
    if "baseline" in _core.available_isas()[-1:] and os.uname().machine == "x86_64":
        raise _error(device, "the executor needs a processor with AVX2")
    return _imported(device, "_simt" if build == "plain" else "_simt_checked")


def _cuda(device: str) -> Any:
    if not _is_built("_cuda"):
        raise _error(
            device,
            "this installation was built without CUDA kernels",
            _HOW_TO_BUILD.format(option="TILEFUSE_CUDA"),
        )
    module = _imported(device, "_cuda")
    gpus = _gpus(device, module)
    if _index(device) >= len(gpus):
        raise _error(device, f"GPUs are counted from 0, and this machine has {len(gpus)}")
    gpu = gpus[_index(device)]
    driver, needed = module.driver_version(), module.runtime_version()
    if not has_image(gpu["capability"], module.architectures, from_ptx=driver >= needed):
        raise _error(
            device,
            f"this installation has no image for {gpu['name']}, of compute capability "
            f"{_dotted(gpu['capability'])}: it was built for {_listed(module.architectures)} where the "
            f"driver is for CUDA {_version(needed)} or later, and this one is for CUDA {_version(driver)}",
            _HOW_TO_BUILD.format(option="TILEFUSE_CUDA"),
        )
    return module


def _choose(device: str, module: Any) -> None:
    try:
        module.set_device(_index(device))
    except RuntimeError as error:  # in use by one process alone, or full
        raise _error(device, str(error)) from error


def _gpus(device: str, module: Any) -> list[dict[str, Any]]:
    driver, needed = module.driver_version(), module.runtime_version()
    if driver == 0:
        raise _error(device, "there is no NVIDIA driver on this machine")
    if driver // 1000 < needed // 1000:
        raise _error(
            device,
            f"the NVIDIA driver is for CUDA {_version(driver)}, and this installation needs one for CUDA "
            f"{_version(needed)}",
        )
    try:
        gpus = list(module.gpus())
    except RuntimeError as error:
        raise _error(device, str(error)) from error
    if not gpus:
        raise _error(device, "the NVIDIA driver finds no GPU")
    return gpus


def has_image(capability: int, architectures: Sequence[int], from_ptx: bool = True) -> bool:
    """Whether code for `architectures`, with PTX for the last, runs on a GPU of that compute capability.

    A driver takes PTX only from a toolkit that is not newer than itself, minor version included (CUDA
    Compatibility, "Minor Version Compatibility").
    """
    same_major = any(a // 10 == capability // 10 and a <= capability for a in architectures)
    return same_major or (from_ptx and capability >= architectures[-1])


def _report_simt() -> str:
    if not _is_built("_simt"):
        return "not built"
    return "available" + (
        ", also its checked build (TILEFUSE_SIMT=checked)" if _is_built("_simt_checked") else ""
    )


def _report_cuda() -> str:
    if not _is_built("_cuda"):
        return "not built"
    module = importlib.import_module("tilefuse._cuda")
    built = f"built for {_listed(module.architectures)}"
    try:
        gpus = _gpus("cuda", module)
        _cuda("cuda")
    except DeviceError as error:
        return f"{built}; can't be used: {error.why}"
    names = ", ".join(f"{gpu['name']} ({_dotted(gpu['capability'])})" for gpu in gpus)
    return f"available: {names}; {built}"


def _is_built(name: str) -> bool:
    return importlib.util.find_spec(f"tilefuse.{name}") is not None


def _imported(device: str, name: str) -> Any:
    try:
        return importlib.import_module(f"tilefuse.{name}")
    except ImportError as error:
        raise _error(device, f"its module does not load ({error})") from error


def _error(device: str, why: str, mend: str = "") -> DeviceError:
    build = f"Build it with {mend}, or use" if mend else "Use"
    error = DeviceError(f"Device {device!r} is not available: {why}. {build} set_device('cpu').")
    error.why = why
    return error


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _listed(architectures: Sequence[int]) -> str:
    return f"{', '.join(map(_dotted, architectures))} and, through PTX, later ones"


def _dotted(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
