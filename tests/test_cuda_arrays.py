"""Arrays on a GPU, as ops take and return them; on the executor's memory, with a stand-in for CuPy."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.compare import assert_same
from tilefuse import _cuda_arrays, _device, ops
from tilefuse import reference as ref

simt = pytest.importorskip("tilefuse._simt")


class DeviceArray:
    """What the ops use of a cupy.ndarray: its memory is the executor's, and NumPy can't look into it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.size, self.itemsize, self.strides = array.size, array.itemsize, array.strides
        self.flags = SimpleNamespace(c_contiguous=array.flags.c_contiguous)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = dict(self._array.__array_interface__)
        return interface | {"version": 3, "stream": 1}

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")  # as CuPy says it

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        return on_gpu(function(*(host(a) for a in args), **kwargs))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, out: Any = None) -> Any:
        result = ufunc(*(host(a) for a in args))
        if out is None:
            return on_gpu(result)
        out[0]._array[...] = result
        return out[0]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._array[key] = host(value)

    @property
    def T(self) -> DeviceArray:
        return DeviceArray(self._array.T)

    def swapaxes(self, a: int, b: int) -> DeviceArray:
        return DeviceArray(self._array.swapaxes(a, b))

    def reshape(self, *shape: Any) -> DeviceArray:
        result = self._array.reshape(*shape)
        return DeviceArray(result) if np.shares_memory(result, self._array) else on_gpu(result)

    def copy(self, order: str = "C") -> DeviceArray:
        return on_gpu(self._array)

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        return self if self.dtype == dtype and not copy else on_gpu(self._array.astype(dtype))

    def min(self) -> Any:
        return self._array.min()

    def max(self) -> Any:
        return self._array.max()


def empty(shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    return DeviceArray(simt.empty(shape, np.dtype(dtype)))


def on_gpu(array: Any) -> DeviceArray:
    array = np.asarray(array)
    result = empty(array.shape, array.dtype)
    result._array[...] = array
    return result


def host(x: Any) -> Any:
    return x._array.copy() if isinstance(x, DeviceArray) else x


class Waits(list[int]):
    """The executor's module, noting the streams that were waited for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(simt, name)

    def synchronize(self, stream: int) -> None:
        self.append(stream)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Device "cuda", as far as arrays are concerned."""
    module = Waits()
    cupy = SimpleNamespace(ndarray=DeviceArray, empty=empty, asarray=lambda x: DeviceArray(x.memory))
    _cuda_arrays.array_module.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "cupy", cupy)
    monkeypatch.setattr(_device._Current, "device", "cuda")
    monkeypatch.setattr(_device._Current, "module", _cuda_arrays.ArraysIn(module))
    gc.collect()  # what earlier tests left
    before = simt.live_allocations()
    yield module
    gc.collect()
    assert simt.live_allocations() == before
    _cuda_arrays.array_module.cache_clear()


RNG = np.random.default_rng(0)
X = RNG.integers(-4, 5, (7, 5)).astype(np.float32)
W = RNG.integers(-4, 5, (5, 3)).astype(np.float32)
B = RNG.integers(-4, 5, 3).astype(np.float32)
IDS = RNG.integers(0, 5, 7)


def check(results: Any, expected: Any) -> None:
    results = results if isinstance(results, tuple) else (results,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for result, right in zip(results, expected, strict=True):
        assert isinstance(result, DeviceArray)
        np.testing.assert_allclose(host(result), right, rtol=1e-5, atol=1e-6)


def test_results_are_of_the_caller_s_kind(waits: Waits) -> None:
    x, w, b, ids = (on_gpu(a) for a in (X, W, B, IDS))
    check(ops.relu(x), ref.relu(X))
    check(ops.relu_backward(x, x), ref.relu_backward(X, X))
    check(ops.matmul(x, w, bias=b, activation="tanh"), ref.matmul(X, W, bias=B, activation="tanh"))
    check(ops.matmul(w, x, transpose_a=True, transpose_b=True), (X @ W).T)
    check(ops.dense(x, w, b, "relu"), ref.dense(X, W, B, "relu"))
    dy = X @ W
    check(ops.dense_backward(on_gpu(dy), x, w, on_gpu(dy)), ref.dense_backward(dy, X, W, dy))
    check(ops.softmax(x), ref.softmax(X))
    check(ops.softmax(x, axis=0), ref.softmax(X, axis=0))
    check(ops.softmax_cross_entropy(x, ids), ref.softmax_cross_entropy(X, IDS))
    check(ops.mean_squared_error(x, x), ref.mean_squared_error(X, X))
    check(ops.dropout(x, 0.5, seed=3), ref.dropout(X, 0.5, seed=3))
    assert set(waits) == {1}


def test_results_that_are_written_in_place(waits: Waits) -> None:
    x, w, out = on_gpu(X), on_gpu(W), on_gpu(np.full((7, 3), np.nan, np.float32))
    assert ops.matmul(x, w, out=out) is out
    assert_same(host(out), X @ W)
    params, slots = [on_gpu(X), on_gpu(B)], [on_gpu(0 * X), on_gpu(0 * B)]
    grads = [on_gpu(X), on_gpu(B)]
    ops.momentum_step(params, grads, slots, learning_rate=0.5, momentum=0.5)
    assert_same(host(params[0]), 0.5 * X)
    assert_same(host(params[1]), 0.5 * B)
    norm = ops.clip_by_global_norm(grads, 1.0)
    np.testing.assert_allclose(norm, np.sqrt((X**2).sum() + (B**2).sum()), rtol=1e-6)
    np.testing.assert_allclose(host(grads[1]), B / norm, rtol=1e-5)


def test_views_and_numpy_arrays_beside(waits: Waits) -> None:
    x = on_gpu(X)
    check(ops.matmul(DeviceArray(x._array[::2, 1:4]), W[:3]), X[::2, 1:4] @ W[:3])
    check(ops.relu(DeviceArray(x._array[:, ::2])), ref.relu(X[:, ::2]))
    assert isinstance(ops.relu(X), np.ndarray)


def test_other_arrays_on_a_gpu(waits: Waits) -> None:
    """Of whatever speaks the protocol: CuPy makes an array of its own over their memory."""

    class Tensor:
        def __init__(self, array: np.ndarray) -> None:
            self.memory = simt.empty(array.shape, array.dtype)
            self.memory[...] = array
            self.__cuda_array_interface__ = self.memory.__array_interface__

    check(ops.relu(Tensor(X)), ref.relu(X))


def test_memory_of_another_device_is_refused(waits: Waits) -> None:
    with pytest.raises(ValueError, match=r"shape \(7, 5\) does not lie in the memory of device 'simt'"):
        ops.relu(DeviceArray(X))


def test_on_another_device() -> None:
    with pytest.raises(TypeError, match=r"x is a DeviceArray in a GPU's memory.*'cpu'.*set_device\('cuda'\)"):
        ops.relu(on_gpu(X))
    assert tilefuse.get_device() == "cpu"
