"""Calls that go to a kernel with no Python in between: the same results, the same errors, and no leaks."""

import copy
import inspect
import itertools
import pickle
import sys
import threading

import numpy as np
import pytest
import tilefuse
from helpers.arrays import integers
from helpers.compare import assert_same, assert_same_bits
from tilefuse import ops


@pytest.fixture(autouse=True)
def on_the_cpu():
    before = tilefuse.get_device()
    tilefuse.set_device("cpu")
    yield
    tilefuse.set_device(before)


@pytest.fixture
def python_calls(monkeypatch):
    """The calls that go through Python: what the functions of ops.matmul call there, counted."""
    calls = []
    module = sys.modules["tilefuse.ops.matmul"]
    original = module.native
    monkeypatch.setattr(module, "native", lambda: (calls.append(1), original())[1])
    return calls


RNG = np.random.default_rng(0)
A, B, BIAS = integers(RNG, (5, 7), "f"), integers(RNG, (7, 4), "f"), integers(RNG, (4,), "f")
PLAIN = [
    ((A, B), {}),
    ((A.astype("d"), B.astype("d")), {"activation": "gelu"}),
    (
        (
            A,
            B,
        ),
        {"bias": BIAS, "activation": "leaky_relu"},
    ),
    ((A.T, B.T), {"transpose_a": True, "transpose_b": True, "bias": None, "activation": None, "out": None}),
    ((A[::-1, ::2], B[:4, ::-1]), {"beta": 0.0}),
    ((np.stack([A] * 3), B), {"activation": "elu"}),
    ((A, np.stack([B, B])[:, None]), {"bias": BIAS}),
    ((A, B), {"precision": "bfloat16"}),
    ((A[:0], B), {}),
    ((A[:, :0], B[:0]), {"bias": BIAS}),
]


@pytest.mark.parametrize("case", range(len(PLAIN)))
def test_same_bits_as_through_python(case, python_calls):
    args, options = PLAIN[case]
    direct = ops.matmul(*args, **options)
    assert not python_calls
    assert type(direct) is np.ndarray
    assert direct.flags.c_contiguous
    assert direct.flags.owndata
    assert_same_bits(direct, ops.matmul.__wrapped__(*args, **options))
    assert python_calls


def test_out_and_beta(python_calls):
    memory = np.full((6, 9), 7, np.float32)
    out = memory[:5, 2:6]
    assert ops.matmul(A, B, out=out, beta=2.0) is out
    assert_same(out, A @ B + 14)
    memory[:5, 2:6] = 7
    assert (memory == 7).all()
    assert not python_calls


@pytest.mark.parametrize(
    "options",
    [
        {"out": np.zeros((4, 5), np.float32).T},
        {"out": np.zeros((5, 8), np.float32)[:, ::2]},
        {"beta": 0},
        {"transpose_a": 0},
    ],
)
def test_others_go_through_python(options, python_calls):
    assert_same(ops.matmul(A, B, **options), A @ B)
    assert python_calls


@pytest.mark.parametrize("view", [memoryview, np.ma.asarray, lambda x: x.view(np.recarray)])
def test_arrays_of_other_kinds(view, python_calls):
    assert_same(np.asarray(ops.matmul(view(A), B)), A @ B)
    assert python_calls


def test_an_array_that_overlaps_the_result(python_calls):
    square = integers(np.random.default_rng(1), (6, 6), "f")
    expected = square @ square
    for left, right in itertools.product([True, False], repeat=2):
        memory = np.zeros((8, 6), np.float32)
        memory[1:7] = square
        ops.matmul(memory[1:7] if left else square, memory[1:7] if right else square, out=memory[2:8])
        assert_same(memory[2:8], expected)
    assert len(python_calls) == 3


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((A,), {}, TypeError, "missing 1 required positional argument: 'b'"),
        ((A, B, BIAS), {}, TypeError, "takes 2 positional arguments but 3 were given"),
        ((A, B), {"a": A}, TypeError, "multiple values for argument 'a'"),
        ((A, B), {"bais": BIAS}, TypeError, "unexpected keyword argument 'bais'"),
        ((A, A), {}, ValueError, "k is 7 in a and 5 in b"),
        ((A, B[0]), {}, ValueError, "at least two axes"),
        ((np.stack([A] * 2), np.stack([B] * 3)), {}, ValueError, "leading axes that broadcast"),
        ((A, B.astype("d")), {}, TypeError, "b has dtype float64, and a float32"),
        ((A.astype(int), B), {}, TypeError, "a has dtype int64"),
        ((A, B), {"bias": BIAS[:3]}, ValueError, r"bias has shape \(3,\); expected \(4,\)"),
        ((A, B), {"activation": "rleu"}, ValueError, "unknown activation 'rleu'"),
        ((A, B), {"activation": 3}, ValueError, "unknown activation 3"),
        ((A, B), {"activation": "\ud800"}, ValueError, "unknown activation"),
        ((A, B), {"beta": 1.0}, ValueError, "out is None"),
        ((A, B), {"out": np.zeros((5, 5), np.float32)}, ValueError, r"out has shape \(5, 5\)"),
        ((A, B), {"precision": "float64"}, ValueError, "precision is 'float64'"),
    ],
)
def test_errors_are_those_of_the_function(args, options, error, message):
    with pytest.raises(error, match=message):
        ops.matmul(*args, **options)


def test_read_only(python_calls):
    a, out = A.copy(), np.zeros((5, 4), np.float32)
    a.flags.writeable = out.flags.writeable = False
    assert_same(ops.matmul(a, B), A @ B)
    assert not python_calls
    with pytest.raises(ValueError, match="out is read-only"):
        ops.matmul(a, B, out=out)


def test_a_tape_sees_every_call(python_calls):
    with tilefuse.GradientTape() as tape:
        with tape.stop_recording():
            ops.matmul(A, B)
            assert not python_calls
        y = ops.matmul(A, B)
    assert python_calls
    assert_same(tape.gradient(y, B), A.T @ np.ones_like(y))
    python_calls.clear()
    ops.matmul(A, B)
    assert not python_calls


def test_a_tape_of_another_thread(python_calls):
    with tilefuse.GradientTape():
        thread = threading.Thread(target=ops.matmul, args=(A, B))
        thread.start()
        thread.join()
    assert not python_calls


def test_nothing_leaks():
    out = np.zeros((5, 4), np.float32)
    everything = (A, B, BIAS, out, "relu", ops.matmul)

    def calls():
        for _ in range(50):
            ops.matmul(A, B, bias=BIAS, activation="relu", out=out, beta=0.5)
            ops.matmul(A, B, bias=BIAS)
            ops.matmul(A, B, precision="ieee", transpose_a=0)
            with pytest.raises(ValueError):
                ops.matmul(A, A)

    calls()
    before = [sys.getrefcount(x) for x in everything]
    calls()
    assert [sys.getrefcount(x) for x in everything] == before


def test_is_like_a_function():
    assert pickle.loads(pickle.dumps(ops.matmul)) is ops.matmul
    assert copy.deepcopy(ops.matmul) is ops.matmul
    assert list(inspect.signature(ops.matmul).parameters)[:3] == ["a", "b", "bias"]
    assert ops.matmul.__doc__.startswith("``activation(a @ b")
    assert ops.matmul.__name__ == "matmul"
    assert "matmul" in repr(ops.matmul)

    class Matrix(np.ndarray):
        times = ops.matmul

    assert_same(A.view(Matrix).times(B), A @ B)
    assert_same(Matrix.times(A, B), A @ B)


def test_parameters_are_those_of_the_function():
    given = {"bias": BIAS, "activation": "relu", "transpose_a": False, "transpose_b": False, "beta": 0.0}
    parameters = list(inspect.signature(ops.matmul).parameters.values())
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    assert_same_bits(ops.matmul(A, B, **(defaults | given)), ops.matmul.__wrapped__(A, B, **given))
