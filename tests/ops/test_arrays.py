"""Arrays of every kind go in without a copy, and results come back as they came."""

from __future__ import annotations

import ctypes
import gc
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.arrays import LAYOUTS, integers
from helpers.compare import assert_same
from helpers.dlpack import CUDA, IS_COPIED, READ_ONLY, Producer
from tilefuse import _core, ops
from tilefuse import reference as ref

RNG = np.random.default_rng(0)
X, Y, W, B = (integers(RNG, shape, "f") for shape in ((7, 5), (7, 5), (5, 3), (3,)))
IDS = RNG.integers(0, 5, 7)


class Interface:
    """Has ``__array_interface__`` and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array  # which owns the memory
        self.__array_interface__ = array.__array_interface__


ROADS = {
    "DLPack": Producer,
    "DLPack before version 1": lambda a: Producer(a, versioned=False),
    "DLPack with an offset": lambda a: Producer(a, byte_offset=64),
    "DLPack without strides": lambda a: Producer(a, strides=None),
    "array interface": Interface,
    "buffer": memoryview,
}


@pytest.mark.parametrize("road", ROADS)
def test_goes_in(road: str) -> None:
    assert_same(ops.relu(ROADS[road](X)), ref.relu(X))
    assert_same(ops.matmul(ROADS[road](X), W, bias=ROADS[road](B)), X @ W + B)
    loss, dlogits = ops.softmax_cross_entropy(ROADS[road](X), ROADS[road](IDS))
    expected = ops.softmax_cross_entropy(X, IDS)
    assert_same(loss, expected[0])
    assert_same(dlogits, expected[1])


@pytest.mark.parametrize("road", [road for road in ROADS if "before" not in road])
def test_is_updated_in_place(road: str) -> None:
    """Which shows that the memory is shared."""
    w, out = X.copy(), np.zeros((7, 3), np.float32)
    ops.sgd_step([ROADS[road](w)], [ROADS[road](Y)], learning_rate=0.5)
    assert_same(w, X - 0.5 * Y)
    given = ROADS[road](out)
    assert ops.matmul(X, W, out=given) is given
    assert_same(out, X @ W)


@pytest.mark.parametrize("versioned", [True, False])
def test_a_capsule_is_taken_once(versioned: bool) -> None:
    producer = Producer(X, versioned=versioned)
    array = _core.from_dlpack(producer)
    assert array.ctypes.data == X.ctypes.data
    assert producer.capsule_name == ("used_dltensor_versioned" if versioned else "used_dltensor")
    part = array[2:]
    del array
    assert producer.deleted == 0
    del part
    assert producer.deleted == 1


def test_what_a_producer_is_asked() -> None:
    new, old = Producer(X), Producer(X, versioned=False)
    ops.relu(new)
    ops.relu(old)
    assert new.asked == [{"max_version": (1, 1), "copy": False}]
    assert old.asked == [{"max_version": (1, 1), "copy": False}, {}]
    assert (new.deleted, old.deleted) == (1, 1)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"version": 2}, "version 2 of DLPack; expected version 1"),
        ({"flags": IS_COPIED}, "hand over a copy"),
        ({"device": (7, 0)}, "DLPack's device type 7"),
        ({"code": 3}, "no dtype for DLPack's type 3 of 32 bits"),
        ({"lanes": 4}, "no dtype for DLPack's type 2 of 32 bits"),
        ({"null": True}, "it has no memory"),
    ],
)
def test_what_is_refused_is_given_back(how: dict[str, Any], message: str) -> None:
    producer = Producer(X, **how)
    with pytest.raises(TypeError, match=f"x is a Producer whose memory can't be used .*{message}"):
        ops.relu(producer)
    gc.collect()
    assert producer.deleted == 1
    legacy = {key: value for key, value in how.items() if key not in ("version", "flags")}
    if legacy:
        producer = Producer(X, versioned=False, **legacy)
        with pytest.raises(TypeError, match=message):
            ops.relu(producer)
        assert producer.deleted == 1


def test_an_array_on_another_device() -> None:
    with pytest.raises(TypeError, match=r"x is a Producer in a GPU's memory.*'cpu'.*set_device\('cuda'\)"):
        ops.relu(Producer(X, device=(CUDA, 0)))


def test_errors_of_a_producer_are_told() -> None:
    class Broken:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

        def __dlpack__(self, **how: Any) -> Any:
            raise BufferError("nobody gets this")

    with pytest.raises(TypeError, match=r"x is a Broken.*nobody gets this"):
        ops.relu(Broken())
    with pytest.raises(TypeError, match=r"params\[0\] is a list.*cannot be updated in place: pass an array"):
        ops.sgd_step([[1.0]], [[1.0]])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    x = LAYOUTS[layout](X)
    if layout != "misaligned":  # DLPack's strides are in elements
        assert_same(ops.relu(Producer(x)), ref.relu(X))
        assert_same(ops.matmul(Producer(x), W), X @ W)
    assert_same(ops.relu(Interface(x)), ref.relu(X))
    assert_same(ops.matmul(Interface(x), W), X @ W)


def test_misaligned_memory() -> None:
    x = LAYOUTS["misaligned"](X)
    assert_same(ops.relu(Producer(x)), ref.relu(X))
    assert_same(ops.matmul(Producer(x), W), X @ W)
    with pytest.raises(ValueError, match="aligned"):
        ops.clip_by_value([Producer(x)], 1.0)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (7, 0), ()])
def test_no_elements_and_no_axes(shape: tuple[int, ...]) -> None:
    x = np.ones(shape, np.float32)
    for how in ({}, {"null": 0 in shape}, {"strides": None}, {"versioned": False}):
        assert_same(ops.relu(Producer(x, **how)), x)


def test_read_only() -> None:
    x = X.copy()
    x.flags.writeable = False
    given = [Producer(X, flags=READ_ONLY), Producer(X, versioned=False), x, Interface(x), memoryview(x)]
    for read_only in given:
        assert_same(ops.relu(read_only), ref.relu(X))
        with pytest.raises(ValueError, match=r"grads\[0\] is read-only: pass a writeable array"):
            ops.clip_by_value([read_only], 1.0)
    with pytest.raises(ValueError, match="out is read-only"):
        ops.matmul(X, W, out=Producer(np.zeros((7, 3), np.float32), flags=READ_ONLY))


def test_not_contiguous_in_place() -> None:
    with pytest.raises(ValueError, match=r"not contiguous.*numpy.ascontiguousarray"):
        ops.clip_by_value([Producer(X.T)], 1.0)


def test_results_are_numpy_s_where_the_library_takes_none() -> None:
    assert type(ops.relu(Producer(X))) is np.ndarray


class Namespaced(Producer):
    """Of a library that takes arrays in as the array API has it."""

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(from_dlpack=lambda x: Taken(x))


class Taken:
    def __init__(self, x: Any) -> None:
        self.array = np.from_dlpack(x)

    def __dlpack__(self, **how: Any) -> Any:
        return self.array.__dlpack__(**how)


def test_results_are_of_the_library_s_namespace() -> None:
    y = ops.relu(Namespaced(X))
    assert isinstance(y, Taken)
    assert_same(y.array, ref.relu(X))
    assert y.array.ctypes.data % 64 == 0
    y, mask = ops.dropout(Namespaced(X), 0.5)
    assert isinstance(mask, Taken)
    assert mask.array.dtype == bool
    assert isinstance(ops.relu_backward(X, Namespaced(X)), Taken)  # whatever comes first
    out = np.zeros((7, 3), np.float32)
    assert ops.matmul(Namespaced(X), W, out=out) is out
    assert ops.clip_by_global_norm([Namespaced(X.copy())], 1.0) > 1
    with pytest.raises(ValueError, match="k is 5"):
        ops.matmul(Namespaced(X), X)
    assert type(ops.relu(list(X))) is np.ndarray


def test_what_is_handed_over() -> None:
    handed = _core.HandedOver(X)
    assert handed.__dlpack_device__() == (1, 0)
    for how in ({}, {"max_version": (1, 0)}, {"max_version": (0, 8)}, {"stream": None, "dl_device": (1, 0)}):
        assert 'object "dltensor' in repr(handed.__dlpack__(**how))
        assert ("versioned" in repr(handed.__dlpack__(**how))) == (how.get("max_version") == (1, 0))
    assert np.from_dlpack(handed).ctypes.data == X.ctypes.data
    copied = _core.from_dlpack(SimpleNamespace(__dlpack__=lambda **how: handed.__dlpack__(copy=True)))
    assert copied.ctypes.data != X.ctypes.data
    assert_same(copied, X)
    with pytest.raises(BufferError, match="in the CPU's memory"):
        handed.__dlpack__(dl_device=(2, 0))
    x = X.copy()
    x.flags.writeable = False
    with pytest.raises(BufferError, match="read-only"):
        _core.HandedOver(x).__dlpack__()
    assert not _core.from_dlpack(_core.HandedOver(x)).flags.writeable
    with pytest.raises(BufferError, match="no type for dtype"):
        _core.HandedOver(np.array(["a"])).__dlpack__()


def test_what_is_handed_over_lives_as_long_as_needed() -> None:
    class Watched(np.ndarray):
        gone = 0

        def __del__(self) -> None:
            Watched.gone += 1

    def handed() -> Any:
        return _core.HandedOver(np.zeros(3, np.float32).view(Watched)).__dlpack__(max_version=(1, 0))

    capsule = handed()
    assert Watched.gone == 0
    del capsule
    assert Watched.gone == 1
    capsule = handed()
    array = _core.from_dlpack(SimpleNamespace(__dlpack__=lambda capsule=capsule, **how: capsule))
    del capsule
    assert Watched.gone == 1
    del array
    assert Watched.gone == 2


@pytest.mark.parametrize("road", [*ROADS, "NumPy"])
def test_no_memory_but_the_result_s(road: str) -> None:
    x = np.ones((1024, 1024), np.float32)
    given = ROADS.get(road, np.asarray)(x)
    out = np.empty((1024, 1024), np.float32)

    def peak(call: Any) -> float:
        """Of x's size."""
        call()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        return (tracemalloc.get_traced_memory()[1] - before) / x.nbytes

    tracemalloc.start()
    try:
        assert peak(lambda: ops.matmul(given, given, out=out)) < 0.01
        assert peak(lambda: ops.mean_squared_error(given, x[::-1])) > 0.99  # a documented copy: seen here
        if "before" not in road:
            assert peak(lambda: ops.sgd_step([given], [given])) < 0.01
    finally:
        tracemalloc.stop()


def test_ctypes_arrays() -> None:
    memory = (ctypes.c_float * 6)(*range(6))
    ops.clip_by_value([memory], 2.0)
    assert list(memory) == [0, 1, 2, 2, 2, 2]
