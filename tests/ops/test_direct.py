"""Calls that go to a kernel with no Python in between: the same results, the same errors, and no leaks."""

import copy
import inspect
import itertools
import pickle
import re
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import tilefuse
from helpers.arrays import integers
from helpers.calls import DIRECT, IDS, X, as_tuple, of_dtype
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


def test_bfloat16_of_numpy(nothing_python):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="NumPy knows no bfloat16 without it")
    a, b = A.astype(ml_dtypes.bfloat16), B.astype(ml_dtypes.bfloat16)
    exact = A @ B
    product = ops.matmul(a, b)
    assert type(product) is np.ndarray
    assert product.dtype == ml_dtypes.bfloat16
    assert_same(product, exact.astype(ml_dtypes.bfloat16))
    assert_same(
        ops.matmul(b, a, transpose_a=True, transpose_b=True, activation="relu"),
        np.maximum(exact.T, 0).astype(a.dtype),
    )
    for dtype in ("f", a.dtype):
        out = np.empty((5, 4), dtype)
        assert ops.matmul(a, b, out=out) is out
        assert_same(out, exact.astype(dtype))
    with pytest.raises(AssertionError, match="went through Python"):
        ops.matmul(a, b, bias=BIAS.astype(a.dtype))
    with pytest.raises(TypeError, match="b has dtype float32, and a bfloat16"):
        ops.matmul(a, B)


@pytest.mark.parametrize("kind", [np.int16, np.float16, object()])
def test_another_module_of_that_name(kind):
    """What is named bfloat16 in a module of another's making is not taken for it."""
    code = f"""
import sys, types, numpy as np
sys.modules["ml_dtypes"] = types.ModuleType("ml_dtypes")
sys.modules["ml_dtypes"].bfloat16 = {f"np.{kind.__name__}" if isinstance(kind, type) else "object()"}
from tilefuse import ops
try:
    ops.matmul(np.ones((2, 2), np.int16), np.ones((2, 2), np.int16))
except TypeError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "a has dtype int16; expected float32 or float64" in result.stdout


@pytest.fixture
def nothing_python(monkeypatch):
    """Python functions that fail, in place of those that a declined call goes to."""

    def declined(*args):
        raise AssertionError("went through Python")

    for name in (
        "_activation",
        "add",
        "conv",
        "dense",
        "dropout",
        "losses",
        "matmul",
        "norm",
        "pool",
        "softmax",
    ):
        monkeypatch.setattr(sys.modules[f"tilefuse.ops.{name}"], "native", declined)


@pytest.mark.parametrize("name", DIRECT)
def test_goes_directly(name, nothing_python):
    op = getattr(ops, name)
    for dtype in ("f", "d"):
        args, options = (of_dtype(given, dtype) for given in DIRECT[name])
        everything = dict(zip(inspect.signature(op).parameters, args, strict=False)) | options
        results = as_tuple(op(*args, **options))
        by_name = as_tuple(op(**everything))
        for result, same in zip(results, by_name, strict=True):
            assert type(result) is np.ndarray
            assert result.dtype in (np.dtype(dtype), np.bool_)
            assert_same_bits(result, same)
        with pytest.raises(AssertionError, match="went through Python"):
            op.__wrapped__(*args, **options)


@pytest.mark.parametrize("name", DIRECT)
def test_every_op_gives_the_bits_of_its_function(name):
    op = getattr(ops, name)
    for dtype in ("f", "d"):
        args, options = (of_dtype(given, dtype) for given in DIRECT[name])
        plain = [array for array in args if isinstance(array, np.ndarray)]
        for how in (
            (options, {})
            if name != "dense_backward"
            else (options, {"activation": None}, {"activation": "relu"})
        ):
            expected = as_tuple(op.__wrapped__(*args, **how))
            for result, right in zip(as_tuple(op(*args, **how)), expected, strict=True):
                assert_same_bits(result, right)
        if name not in (
            "matmul",
            "dense",
            "dense_backward",
            "dropout",
            "dropout_backward",
            "conv2d_backward",
        ):
            empty = [array[:0] for array in plain[:1]] + [a[:0] if len(a) == 7 else a for a in plain[1:]]
            for result, right in zip(as_tuple(op(*empty)), as_tuple(op.__wrapped__(*empty)), strict=True):
                assert_same_bits(result, right)


@pytest.mark.parametrize("name", DIRECT)
def test_parameters_and_defaults_are_those_of_the_function(name, nothing_python):
    op = getattr(ops, name)
    parameters = list(inspect.signature(op).parameters.values())
    args, _ = DIRECT[name]
    needed = [p for p in parameters if p.default is inspect.Parameter.empty]
    defaults = {p.name: p.default for p in parameters[len(needed) :]}
    results = as_tuple(op(*args[: len(needed)], **defaults))
    for result, same in zip(results, as_tuple(op(*args[: len(needed)])), strict=True):
        assert_same_bits(result, same)
    by_position = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    values = [*args[: len(needed)], *(p.default for p in by_position[len(needed) :])]
    for result, same in zip(results, as_tuple(op(*values)), strict=True):
        assert_same_bits(result, same)
    with pytest.raises(TypeError, match=r"takes .* positional argument"):
        op(*values, None)


def declining(name):
    """Calls that are not for the kernel as they are."""
    args, options = DIRECT[name]
    yield args[:-1] if len(args) > 1 else (), options  # one too few
    yield args, options | {"nonsense": 1}
    yield (args[0].astype(int), *args[1:]), options
    for i, array in enumerate(args):
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            others = [
                array.astype("d"),
                array[:-1],
                array[None, None],
                np.stack([array] * 2, axis=-1)[..., 0],
            ]
            for other in others:
                yield (*args[:i], other, *args[i + 1 :]), options
    for key, value in options.items():
        yield args, options | {key: object()}
        if isinstance(value, np.ndarray):
            yield args, options | {key: value[:-1]}
            yield args, options | {key: value.astype("d")}
        elif not isinstance(value, (bool, str)):
            yield args, options | {key: -3}


@pytest.mark.parametrize("name", DIRECT)
def test_other_calls_do_as_the_function(name):
    op = getattr(ops, name)
    for args, options in declining(name):
        try:
            expected = as_tuple(op.__wrapped__(*args, **options))
        except (TypeError, ValueError) as error:
            with pytest.raises(type(error), match=f"^{re.escape(str(error))}$"):
                op(*args, **options)
        else:
            for result, right in zip(as_tuple(op(*args, **options)), expected, strict=True):
                assert_same_bits(result, right)


@pytest.mark.parametrize("name", DIRECT)
def test_no_references_leak(name):
    args, options = DIRECT[name]
    op = getattr(ops, name)
    everything = [*args, *options.values()]

    def calls():
        for _ in range(20):
            op(*args, **options)
            with pytest.raises(TypeError):
                op(*args, nonsense=1)

    calls()
    before = [sys.getrefcount(x) for x in everything]
    calls()
    assert [sys.getrefcount(x) for x in everything] == before


WINDOWS = [
    {"padding": "same", "strides": (2, 3)},
    {"padding": "valid", "dilation": (2, 1)},
    {"padding": 2, "dilation": 2, "groups": 2, "strides": 2},
    {"padding": ((0, 3), (2, 1)), "groups": 2, "precision": "ieee"},
    {"padding": ((0, 0), (0, 0)), "strides": (9, 1)},
    {"dilation": 7},  # no place for a window
]


@pytest.mark.parametrize("options", WINDOWS)
def test_windows(options, monkeypatch):
    rng = np.random.default_rng(2)
    x = integers(rng, (2, 8, 9, 4), "f")
    w = integers(rng, (3, 2, 4 // options.get("groups", 1), 6), "f")
    y = ops.conv2d.__wrapped__(x, w, activation="relu", **options)
    dy = integers(rng, y.shape, "f")
    calls = [
        (ops.conv2d, (x, w, None), {"activation": "relu", **options}),
        (ops.conv2d_backward, (dy, x, w, y), {"activation": "relu", **options}),
        (ops.conv2d_backward, (dy, x, w), {"needs_dx": False, **options}),
    ]
    expected = [as_tuple(op.__wrapped__(*args, **how)) for op, args, how in calls]
    monkeypatch.setattr(sys.modules["tilefuse.ops.conv"], "native", None)
    for (op, args, how), results in zip(calls, expected, strict=True):
        for result, right in zip(as_tuple(op(*args, **how)), results, strict=True):
            if right is None:
                assert result is None
            else:
                assert_same_bits(result, right)


@pytest.mark.parametrize(
    "padding", [(1, 1), ((1, 1), 1), "Same", -1, ((1, -1), (0, 0)), 2**20, True, "none", None]
)
def test_paddings_as_the_function_has_them(padding):
    x, w = np.ones((1, 2, 2, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    for op, arrays in ((ops.conv2d, (x[:0], w[..., :0])), (ops.max_pool2d, (x,))):
        try:
            expected = op.__wrapped__(*arrays, padding=padding)
        except (TypeError, ValueError) as error:
            with pytest.raises(type(error), match=f"^{re.escape(str(error))}$"):
                op(*arrays, padding=padding)
        else:
            assert_same_bits(op(*arrays, padding=padding), expected)


def test_class_ids(nothing_python):
    for ids in (IDS, IDS.astype("i")):
        assert_same(ops.softmax_cross_entropy(X, ids)[1], ops.softmax_cross_entropy(X, IDS)[1])
    images = X.reshape(1, 7, 5)
    assert_same(ops.softmax_cross_entropy(images, IDS[None])[1][0], ops.softmax_cross_entropy(X, IDS)[1])


@pytest.mark.parametrize("wrong", [-1, 5, 2**40])
def test_class_ids_out_of_range(wrong):
    with pytest.raises(ValueError, match=r"expected class ids in \[0, 5\)"):
        ops.softmax_cross_entropy(X, np.where(IDS[0] == IDS, wrong, IDS))


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
    assert weakref.ref(ops.matmul)() is ops.matmul
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


def test_an_op_is_made_by_the_module_alone():
    with pytest.raises(TypeError, match="cannot create"):
        type(ops.relu)()


@pytest.mark.parametrize(
    "call",
    [
        lambda: ops.matmul(A, B, activation="relu\0x"),
        lambda: ops.matmul(A, B, precision="ieee\0x"),
        lambda: ops.conv2d(A[None, ..., None], np.ones((1, 1, 1, 1), "f"), padding="valid\0x"),
    ],
)
def test_names_are_whole(call):
    with pytest.raises(ValueError, match=r"\\x00x|x00"):
        call()
