"""Arrays in a GPU's memory: CuPy's, and of whatever else speaks DLPack or ``__cuda_array_interface__``.

https://dmlc.github.io/dlpack/latest/python_spec.html
https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

_CUDA_DEVICES = (2, 13)  # DLPack's types of devices: a GPU's memory, and managed memory


@functools.cache
def array_module() -> Any:
    """CuPy, whose arrays results on a GPU are: from its memory pool, on its current device."""
    try:
        import cupy  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError(
            "arrays on a GPU need CuPy: pip install cupy-cuda13x; or pass NumPy arrays, which are copied to "
            "the GPU and back"
        ) from error
    return cupy


def is_on_gpu(x: Any) -> bool:
    """Whether `x` is an array in the memory of a CUDA device."""
    try:
        return x.__dlpack_device__()[0] in _CUDA_DEVICES
    except (AttributeError, TypeError, ValueError, RuntimeError, BufferError):  # on no device that DLPack has
        return hasattr(x, "__cuda_array_interface__")


def as_device_array(x: Any) -> Any:
    """Return an array of CuPy's that shares the memory of `x`, an array on a GPU.

    CuPy's current stream waits for what the stream of the array has been given to do: by DLPack, CuPy tells
    the library of `x` which stream is to wait; else the array's interface names the stream to wait for.
    """
    cupy = array_module()
    if isinstance(x, cupy.ndarray):
        return x
    return cupy.from_dlpack(x) if hasattr(x, "__dlpack__") else cupy.asarray(x)


class ArraysIn:
    """A module of kernels, with functions that take arrays in its machine's memory beside NumPy's.

    What the caller has queued for an array, on the stream that its interface names, is waited for; the
    kernels are done when a function returns.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._module, name)
        found = member if isinstance(member, type) or not callable(member) else self._taking_arrays(member)
        setattr(self, name, found)
        return found

    def _taking_arrays(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            streams: set[int] = set()
            given = [self._viewed(arg, streams) for arg in args]
            for stream in streams:
                self._module.synchronize(stream)
            return function(*given)

        return call

    def _viewed(self, x: Any, streams: set[int]) -> Any:
        if isinstance(x, (list, tuple)):
            return [self._viewed(item, streams) for item in x]
        interface = getattr(x, "__cuda_array_interface__", None)
        if interface is None:
            return x
        if interface.get("mask") is not None:
            raise TypeError(f"a {type(x).__name__} with a mask can't be used: pass an array without one")
        stream = interface.get("stream")
        if stream == 0:
            raise ValueError(
                f"the interface of a {type(x).__name__} names stream 0, which could be either default "
                "stream: expected 1 for the legacy one, 2 for that of the thread, or None"
            )
        if stream is not None:
            streams.add(stream)
        address, read_only = interface["data"]
        layout = (interface["shape"], interface.get("strides"), np.dtype(interface["typestr"]))
        return self._module.view(x, address or 0, *layout, read_only)
