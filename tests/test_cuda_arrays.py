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
        self.flags = SimpleNamespace(
            c_contiguous=array.flags.c_contiguous, f_contiguous=array.flags.f_contiguous
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = dict(self._array.__array_interface__)
        return interface | {"version": 3, "stream": 1}

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **how: Any) -> np.ndarray:
        return self._array

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


STREAM = 7  # CuPy's current one


class Tensor:
    """Of a library that speaks DLPack, on the GPU; the capsule is the memory itself."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory, self.streams = memory, []

    @classmethod
    def of(cls, array: np.ndarray) -> Tensor:
        return cls(on_gpu(array)._array)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: int | None = None) -> np.ndarray:
        self.streams.append(stream)
        return self.memory

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(from_dlpack=lambda x: Tensor(x._array))


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
    cupy = SimpleNamespace(
        ndarray=DeviceArray,
        empty=empty,
        asarray=lambda x: DeviceArray(x.memory),
        from_dlpack=lambda x: DeviceArray(x.__dlpack__(stream=STREAM)),
    )
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


class Interface:
    """Speaks the protocol alone: CuPy makes an array of its own over its memory."""

    def __init__(self, array: np.ndarray, **interface: Any) -> None:
        self.memory = on_gpu(array)._array
        self.__cuda_array_interface__ = self.memory.__array_interface__ | interface


def test_other_arrays_on_a_gpu(waits: Waits) -> None:
    check(ops.relu(Interface(X)), ref.relu(X))


def test_arrays_that_speak_dlpack(waits: Waits) -> None:
    """CuPy's current stream waits for the library's, and results are the library's again."""
    x, w = Tensor.of(X), Tensor.of(W)
    y = ops.matmul(x, w)
    assert isinstance(y, Tensor)
    assert_same(y.memory, X @ W)
    assert x.streams == w.streams == [STREAM]
    assert set(waits) == {1}  # on which the stand-in for CuPy has its results
    dx, dw, db = ops.dense_backward(on_gpu(X @ W), x, on_gpu(W), y)
    assert all(isinstance(result, DeviceArray) for result in (dx, dw, db))  # of the first array's kind
    out = Tensor.of(np.zeros((7, 3), np.float32))
    assert ops.matmul(x, w, out=out) is out
    assert_same(out.memory, X @ W)
    ops.sgd_step([x], [x], learning_rate=0.5)
    assert_same(x.memory, 0.5 * X)


@pytest.mark.parametrize(
    ("stream", "waited"), [(None, []), (1, [1]), (2, [2]), (0x7F00_0000_1000, [0x7F00_0000_1000])]
)
def test_streams_that_an_interface_names(waits: Waits, stream: int | None, waited: list[int]) -> None:
    module = _device.native()
    x, y = Interface(X, version=3, stream=stream), Interface(0 * X, version=3, stream=stream)
    module.activation(x, y, "relu", 0.0)
    assert waits == waited  # once each, before the kernel
    assert_same(y.memory, ref.relu(X))


def test_interfaces_that_are_refused(waits: Waits) -> None:
    module = _device.native()
    y = Interface(X)
    with pytest.raises(ValueError, match=r"names stream 0.*expected 1 for the legacy one"):
        module.activation(Interface(X, stream=0), y, "relu", 0.0)
    with pytest.raises(TypeError, match="with a mask"):
        module.activation(Interface(X, mask=y), y, "relu", 0.0)
    read_only = Interface(X)
    address, _ = read_only.__cuda_array_interface__["data"]
    read_only.__cuda_array_interface__["data"] = (address, True)
    with pytest.raises(ValueError, match="y is read-only"):
        module.activation(y, read_only, "relu", 0.0)
    module.activation(read_only, y, "relu", 0.0)
    assert_same(y.memory, ref.relu(X))


def test_memory_of_another_device_is_refused(waits: Waits) -> None:
    with pytest.raises(ValueError, match=r"shape \(7, 5\) does not lie in the memory of device 'simt'"):
        ops.relu(DeviceArray(X))


def test_on_another_device() -> None:
    with pytest.raises(TypeError, match=r"x is a DeviceArray in a GPU's memory.*'cpu'.*set_device\('cuda'\)"):
        ops.relu(on_gpu(X))
    assert tilefuse.get_device() == "cpu"
