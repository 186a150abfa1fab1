"""Taking arrays in and giving results back: every check that the ops share, and what they say when one fails.

Inputs may be NumPy arrays, nested lists, and whatever speaks DLPack, ``__array_interface__``, the buffer
protocol or ``__array__``: PyTorch's and JAX's arrays on the CPU, for two. On device "cuda" they may also be
arrays on the GPU, CuPy's or others that speak DLPack or ``__cuda_array_interface__``. Results are of the kind
of the first array that is not NumPy's: of its library, if that can take memory in by DLPack, else NumPy's (on
a GPU, CuPy's).

Memory is shared both ways. Where a kernel needs contiguous memory, an input that is not (or that is not
aligned to its elements) is copied once. Arguments that are written to are never copied: they are viewed, or
refused.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tilefuse import _core
from tilefuse._cuda_arrays import array_module, is_on_gpu
from tilefuse._device import current, on_device
from tilefuse._host_arrays import handed_over, on_host, shared

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Sequence[Any]

_Op = TypeVar("_Op", bound=Callable[..., Any])

_PLAIN = (np.ndarray, np.generic, str, float, int, list, tuple, type(None))  # arguments that say no kind
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def view(x: Any, name: str) -> Array:
    """`x` as a NumPy array (on a GPU, CuPy's), without a copy where it already is an array of any kind."""
    return x if isinstance(x, np.ndarray) else _viewed(x, name, on_host)


def _viewed(x: Any, name: str, on_host: Callable[[Any], Array]) -> Array:
    if current().startswith("cuda") and is_on_gpu(x):
        return on_device(x, name)
    try:
        return on_host(x)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        if is_on_gpu(x):
            return on_device(x, name)  # which says what to do
        raise TypeError(
            f"{name} is a {type(x).__name__} whose memory can't be used ({error}); expected an array of "
            "float32 or float64 in the CPU's memory"
        ) from error


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], like: Array) -> Array:
    """A new array of the kind of `like`."""
    if not isinstance(like, np.ndarray):
        return array_module().empty(shape, dtype)
    return np.empty(shape, dtype) if _caller.array is None else _core.empty(shape, dtype)


class _Caller(threading.local):
    """The array whose kind the results of this thread's call are to have; None for NumPy's own."""

    array: Any = None


_caller = _Caller()


def as_given(op: _Op) -> _Op:
    """`op`, with results of the kind of its first array that is not NumPy's."""

    @functools.wraps(op)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        like = next((x for x in given if not isinstance(x, _PLAIN) and hasattr(x, "__dlpack__")), None)
        if like is None:
            return op(*args, **kwargs)
        outer, _caller.array = _caller.array, like
        try:
            result = op(*args, **kwargs)
        finally:
            _caller.array = outer
        if isinstance(result, tuple):
            return tuple(_handed_over(x, like) for x in result)
        return result if any(result is x for x in given) else _handed_over(result, like)

    return cast(_Op, call)


def _handed_over(result: Any, like: Any) -> Any:
    """The array `result` as one of the library that `like` is of."""
    is_array = hasattr(result, "__dlpack__") and type(result) is not type(like)
    return handed_over(result, like) if is_array else result


def floats(
    x: ArrayLike, name: str, dtype: np.dtype[Any] | None = None, like: str = "the other arrays"
) -> Array:
    """`x` as an array of float32 or float64, of any strides; with `dtype`, which `like` has, of that one."""
    a = view(x, name)
    if a.dtype not in _FLOATS and a.dtype != dtype:
        raise TypeError(
            f"{name} has dtype {a.dtype}; expected float32 or float64: convert it with .astype(numpy.float32)"
        )
    if dtype is not None and a.dtype != dtype:
        raise TypeError(f"{name} has dtype {a.dtype}, and {like} {dtype}: pass all arrays in one dtype")
    return a


def whole(a: Array) -> Array:
    """`a` itself, or a copy if its memory or strides are not aligned to its elements."""
    if _aligned(a) and (a.flags.c_contiguous or all(stride % a.itemsize == 0 for stride in a.strides)):
        return a
    return a.copy()


def _aligned(a: Array) -> bool:
    return not isinstance(a, np.ndarray) or a.flags.aligned  # CuPy's arrays always are


def packed(a: Array) -> Array:
    """`a` itself, or a copy if it is not C-contiguous and aligned."""
    return a if a.flags.c_contiguous and _aligned(a) else a.copy(order="C")


def packed_floats(
    x: ArrayLike, name: str, dtype: np.dtype[Any] | None = None, like: str = "the other arrays"
) -> Array:
    """:func:`floats`, contiguous."""
    return packed(floats(x, name, dtype, like))


def check_shape(a: Array, name: str, shape: tuple[int, ...], like: str) -> None:
    """ValueError unless `a` has the shape of `like`."""
    if a.shape != shape:
        raise ValueError(f"{name} has shape {a.shape}; expected {shape}, the shape of {like}")


def pair(dy: ArrayLike, at: ArrayLike, name: str) -> tuple[Array, Array]:
    """A gradient and the array `name` that it belongs to: contiguous, of one shape and dtype."""
    gradient = packed_floats(dy, "dy")
    array = packed_floats(at, name, gradient.dtype, "dy")
    check_shape(gradient, "dy", array.shape, name)
    return gradient, array


def writeable_view(
    x: Any, name: str, dtype: np.dtype[Any] | None = None, like: str = "the other arrays"
) -> Array:
    """`x` as an array that shares its memory and can be written to, with any strides."""
    a = x if isinstance(x, np.ndarray) else _viewed(x, name, shared)
    a = floats(a, name, dtype, like)
    if isinstance(a, np.ndarray) and not a.flags.writeable:
        raise ValueError(f"{name} is read-only: pass a writeable array, for instance a copy")
    return a


def writeable(x: Any, name: str, dtype: np.dtype[Any] | None = None) -> Array:
    """:func:`writeable_view`, contiguous."""
    a = writeable_view(x, name, dtype)
    if not (a.flags.c_contiguous and _aligned(a)):
        raise ValueError(
            f"{name} of shape {a.shape} is not contiguous: what is updated in place must be C-contiguous "
            "and aligned; pass numpy.ascontiguousarray of it and copy the result back"
        )
    return a


def writeable_list(xs: Iterable[Any], name: str, like: Sequence[Array] | None = None) -> list[Array]:
    """A list of :func:`writeable` arrays of one dtype; with `like`, of the same shapes as those."""
    arrays = _as_list(xs, name, like)
    result: list[Array] = []
    for i, x in enumerate(arrays):
        first = like[0] if like else (result[0] if result else None)
        a = writeable(x, f"{name}[{i}]", None if first is None else first.dtype)
        if like is not None:
            check_shape(a, f"{name}[{i}]", like[i].shape, f"params[{i}]")
        result.append(a)
    return result


def packed_list(xs: Iterable[Any], name: str, like: Sequence[Array]) -> list[Array]:
    """A list of contiguous arrays with the dtype and shapes of `like`."""
    arrays = _as_list(xs, name, like)
    result = []
    for i, (x, other) in enumerate(zip(arrays, like, strict=True)):
        a = packed_floats(x, f"{name}[{i}]", other.dtype, "the parameters")
        check_shape(a, f"{name}[{i}]", other.shape, f"params[{i}]")
        result.append(a)
    return result


def _as_list(xs: Iterable[Any], name: str, like: Sequence[Array] | None) -> list[Any]:
    if isinstance(xs, np.ndarray) or not isinstance(xs, Iterable):
        raise TypeError(f"{name} is a {type(xs).__name__}; expected a list of arrays, one for each parameter")
    arrays = list(xs)
    if like is not None and len(arrays) != len(like):
        raise ValueError(f"{name} has {len(arrays)} arrays; expected {len(like)}, one for each parameter")
    return arrays
