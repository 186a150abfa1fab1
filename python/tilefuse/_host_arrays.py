"""Arrays of any library on the CPU as NumPy's, and NumPy's as another library's, in the same memory."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from . import _core


def on_host(x: Any) -> np.ndarray:
    """Return `x` as a NumPy array, without a copy where it is an array of any kind.

    Raises
    ------
    TypeError, ValueError, RuntimeError, BufferError
        It can't be: whatever its library or NumPy raised.
    """
    if isinstance(x, np.ndarray):
        return x
    return _core.from_dlpack(x) if hasattr(x, "__dlpack__") else np.asarray(x)


def shared(x: Any) -> np.ndarray:
    """Return `x` as a NumPy array that shares its memory, and may be written to unless `x` is read-only.

    Raises
    ------
    TypeError, ValueError, RuntimeError, BufferError
        It can't be.
    """
    if hasattr(x, "__dlpack__"):
        a = on_host(x)
        if not a.flags.writeable and hasattr(
            x, "__array__"
        ):  # before version 1, DLPack can't say that it may
            b = np.asarray(x)
            return b if b.ctypes.data == a.ctypes.data else a
        return a
    if isinstance(x, np.generic) or not hasattr(x, "__array_interface__"):  # a scalar's memory is a copy
        try:
            x = memoryview(x)
        except TypeError:
            raise TypeError("it cannot be updated in place: pass an array") from None
    return np.asarray(x)


def handed_over(array: Any, like: Any) -> Any:
    """Return `array`, NumPy's or CuPy's, as one of the library that `like` is of, if that takes DLPack."""
    on_cpu = isinstance(array, np.ndarray)
    handed = _core.hand_over(array, like) if on_cpu else None
    if handed is not None:
        return handed
    namespace = getattr(like, "__array_namespace__", None)
    library = namespace() if namespace else sys.modules.get(type(like).__module__.partition(".")[0])
    from_dlpack = getattr(library, "from_dlpack", None)
    if from_dlpack is None:
        return array
    return from_dlpack(_core.HandedOver(array) if on_cpu else array)
