"""The compiled step: its gradients, its updates, its fusions, and what it promises not to do."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.programs import (
    SGD,
    Layers,
    activation,
    batch,
    check_gradients,
    dense,
    dropout,
    make_program,
    placed,
    reshape,
    variables,
)
from tilefuse import _core, _device, ops, reference

EXECUTOR = "simt"


NETWORKS: dict[str, tuple[Callable[[], Layers], str]] = {
    "one layer": (lambda: [dense(6, 3)], "mean_squared_error"),
    "no bias": (lambda: [dense(6, 5, "tanh", bias=None), dense(5, 3)], "mean_squared_error"),
    "output with an activation": (lambda: [dense(6, 5, "elu"), dense(5, 3, "tanh")], "mean_squared_error"),
    "softmax, sparse": (
        lambda: [dense(6, 5, "relu"), dense(5, 3, "softmax")],
        "sparse_categorical_crossentropy",
    ),
    "softmax, dense": (lambda: [dense(6, 5, "gelu"), dense(5, 3, "softmax")], "categorical_crossentropy"),
    "softmax as a layer": (
        lambda: [dense(6, 5, "silu"), dense(5, 3), activation("softmax")],
        "categorical_crossentropy",
    ),
    "softmax not for the loss": (lambda: [dense(6, 3, "softmax")], "mean_squared_error"),
    "log-softmax within": (
        lambda: [dense(6, 5, "log_softmax"), dense(5, 3, "sigmoid")],
        "binary_crossentropy",
    ),
    "sigmoid": (lambda: [dense(6, 5, "softplus"), dense(5, 3, "sigmoid")], "binary_crossentropy"),
    "activations as layers": (
        lambda: [dense(6, 5), activation("selu"), activation("tanh"), dense(5, 3, "leaky_relu")],
        "mean_squared_error",
    ),
    "activation first": (lambda: [activation("gelu_tanh"), dense(6, 3)], "mean_squared_error"),
    "three axes": (
        lambda: [
            reshape(3, 2),
            dense(2, 4, "tanh"),
            reshape(12),
            dense(12, 3),
        ],
        "mean_squared_error",
    ),
    "dropout after relu": (lambda: [dense(6, 9, "relu"), dropout(), dense(9, 3)], "mean_squared_error"),
    "dropout after tanh": (lambda: [dense(6, 9, "tanh"), dropout(), dense(9, 3)], "mean_squared_error"),
    "dropout first": (lambda: [dropout(), dense(6, 9, "tanh"), dense(9, 3)], "mean_squared_error"),
    "dropout twice": (
        lambda: [dense(6, 9, "gelu"), dropout(), dropout(0.2), dense(9, 3)],
        "mean_squared_error",
    ),
    "penalties": (
        lambda: [dense(6, 5, "tanh", kernel_l2=0.1, bias_l2=0.3), dense(5, 3, kernel_l1=0.2)],
        "mean_squared_error",
    ),
    "a frozen layer": (
        lambda: [dense(6, 5, "tanh"), dense(5, 4, "tanh", trainable=False), dense(4, 3)],
        "mean_squared_error",
    ),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_central_differences(network: str, weighted: bool, device: str) -> None:
    make, loss = NETWORKS[network]
    x, y = batch(loss)
    check_gradients(make(), make(), loss, x, y, np.random.default_rng(2).random(len(x)) if weighted else None)


OPTIMIZERS: dict[str, tuple[dict[str, Any], Callable[..., None]]] = {
    "sgd": ({"kind": "sgd"}, lambda w, g, s, t: reference.sgd_step(w, g, learning_rate=0.1)),
    "nesterov": (
        {"kind": "sgd", "momentum": 0.9, "nesterov": True},
        lambda w, g, s, t: reference.momentum_step(w, g, s[0], learning_rate=0.1, nesterov=True),
    ),
    "adagrad": (
        {"kind": "adagrad"},
        lambda w, g, s, t: reference.adagrad_step(w, g, s[0], learning_rate=0.1),
    ),
    "rmsprop": (
        {"kind": "rmsprop", "momentum": 0.5, "centered": True},
        lambda w, g, s, t: reference.rmsprop_step(w, g, *s, learning_rate=0.1, momentum=0.5),
    ),
    "adamw": (
        {"kind": "adam", "weight_decay": 0.04},
        lambda w, g, s, t: reference.adam_step(
            w, g, s[0], s[1], step=t, learning_rate=0.1, weight_decay=0.04
        ),
    ),
    "amsgrad": (
        {"kind": "adam", "amsgrad": True},
        lambda w, g, s, t: reference.adam_step(w, g, *s, step=t, learning_rate=0.1),
    ),
}
CLIPPINGS: dict[str, tuple[dict[str, float], Callable[[list[np.ndarray]], Any]]] = {
    "no clipping": ({}, lambda g: None),
    "clipvalue": ({"clipvalue": 0.05}, lambda g: reference.clip_by_value(g, 0.05)),
    "clipnorm": ({"clipnorm": 0.1}, lambda g: reference.clip_by_norm(g, 0.1)),
    "global_clipnorm": ({"global_clipnorm": 0.1}, lambda g: reference.clip_by_global_norm(g, 0.1)),
}


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_updates_equal_the_reference(optimizer: str, clipping: str, device: str) -> None:
    described, update = OPTIMIZERS[optimizer]
    limits, clip = CLIPPINGS[clipping]
    layers = [dense(6, 17, "tanh"), dense(17, 3)]
    program = make_program(layers, (6,), 7, {"kind": "mean_squared_error"}, described | limits, "float64")
    mine = [v.copy() for v in variables(layers)]
    slots = [[np.zeros_like(v) for v in mine] for _ in range(3)]
    x, y = batch("mean_squared_error")
    for step in range(1, 4):
        program.train_step(x, y, None, 0.1)
        w1, b1, w2, b2 = mine
        hidden = reference.dense(x, w1, b1, "tanh")
        prediction = reference.dense(hidden, w2, b2)
        _, dy = reference.mean_squared_error(prediction, y)
        dhidden, dw2, db2 = reference.dense_backward(dy, hidden, w2, prediction)
        _, dw1, db1 = reference.dense_backward(dhidden, x, w1, hidden, "tanh")
        gradients = [dw1, db1, dw2, db2]
        clip(gradients)
        update(mine, gradients, slots, step)
        for ours, theirs in zip(variables(layers), mine, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def in_dtype(layers: Layers, dtype: str) -> Layers:
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, np.ndarray):
                layer[key] = value.astype(dtype)
            elif key.endswith("_slots"):
                layer[key] = [slot.astype(dtype) for slot in value]
    return layers


def mnist_like(dtype: str = "float32", **options: str) -> tuple[Layers, Any]:
    layers = [dense(30, 64, "relu"), dropout(0.2), dense(64, 20, "gelu"), dense(20, 10, "softmax")]
    loss = {"kind": "sparse_categorical_crossentropy"}
    return layers, make_program(in_dtype(layers, dtype), (30,), 32, loss, {"kind": "adam"}, dtype, **options)


def digits(n: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.random((n, 30)).astype(dtype), rng.integers(0, 10, n).astype(np.int32)


@pytest.mark.parametrize("weighted", [False, True])
def test_an_epoch_is_its_steps(device: str, weighted: bool) -> None:
    x, y = digits(100)
    order = np.random.default_rng(1).permutation(100)
    rates = np.array([1e-3, 2e-3, 3e-3, 4e-3])
    one, program = mnist_like()
    predictions = np.full((100, 10), np.nan, np.float32)
    weight = np.random.default_rng(2).random(100).astype(np.float32) if weighted else None
    logs = program.train_epoch(x, y, order, rates, predictions=predictions, sample_weight=weight)
    other, stepwise = mnist_like()
    losses = []
    for i, rate in enumerate(rates):
        rows = order[32 * i : 32 * (i + 1)]
        of_rows = None if weight is None else weight[rows]
        losses.append(stepwise.train_step(x[rows], y[rows], of_rows, rate)[0] * len(rows))
    for a, b in zip(variables(one), variables(other), strict=True):
        assert a.tobytes() == b.tobytes()
    assert logs["loss"] == pytest.approx(sum(losses) / 100)
    assert (logs["steps"], logs["samples"], program.iteration) == (4, 100, 4)
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
    assert logs["accuracy"] == pytest.approx((predictions.argmax(axis=1) == y[order]).mean())


def test_same_bits_for_any_number_of_threads(set_num_threads: Callable[[int], None]) -> None:
    x, y = digits(107)
    bits = set()
    for threads in (1, 2, 3, 5):
        set_num_threads(threads)
        layers, program = mnist_like()
        program.train_epoch(x, y, np.arange(107), np.full(4, 1e-2))
        bits.add(b"".join(v.tobytes() for v in variables(layers)))
    assert len(bits) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 13, 16])
def test_same_bits_of_small_batches_for_any_number_of_threads(
    size: int, set_num_threads: Callable[[int], None]
) -> None:
    x, y = digits(3 * size)
    bits = set()
    for threads in (1, 2, 3, 4):  # some of which share out rows, others columns
        set_num_threads(threads)
        layers = [dense(30, 64, "tanh"), dense(64, 128, "tanh"), dense(128, 10, "softmax")]
        loss = {"kind": "sparse_categorical_crossentropy"}
        program = make_program(in_dtype(layers, "float32"), (30,), size, loss, {"kind": "sgd"}, "float32")
        program.train_epoch(x, y, np.arange(3 * size), np.full(3, 1e-2))
        bits.add(b"".join(v.tobytes() for v in variables(layers)))
    assert len(bits) == 1


def test_a_step_opens_one_parallel_region(set_num_threads: Callable[[int], None]) -> None:
    set_num_threads(2)
    rng = np.random.default_rng(0)
    layers = [dense(256, 128, "relu"), dropout(), dense(128, 10)]
    program = _core.Program(
        layers,
        (256,),
        64,
        {"kind": "mean_squared_error"},
        {"kind": "adam", "global_clipnorm": 1.0},
        "float64",
    )
    x, y = rng.normal(size=(64, 256)), rng.normal(size=(64, 10))
    opened = []
    for _ in range(3):
        before = _core.counters()["parallel_regions"]
        program.train_step(x, y)
        opened.append(_core.counters()["parallel_regions"] - before)
    assert opened[0] == 1
    assert max(opened) == 1  # a later step may try a team of one member, which opens none


COUNTER = r"""
// Counts what the process allocates.
#include <dlfcn.h>
#include <stddef.h>
static long count;
long allocations(void) { return __atomic_load_n(&count, __ATOMIC_RELAXED); }
#define COUNTED(result, name, parameters, arguments)                                \
    result name parameters {                                                        \
        static result(*real) parameters;                                            \
        if (!real) real = (result(*) parameters)dlsym(RTLD_NEXT, #name);            \
        __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);                            \
        return real arguments;                                                      \
    }
COUNTED(void*, malloc, (size_t n), (n))
COUNTED(void*, realloc, (void* p, size_t n), (p, n))
COUNTED(void*, aligned_alloc, (size_t a, size_t n), (a, n))
COUNTED(int, posix_memalign, (void** p, size_t a, size_t n), (p, a, n))
"""

COUNTED_EPOCHS = """
import ctypes, sys
sys.path[:0] = {path!r}
import numpy as np
from tilefuse import _core
from test_program import digits, mnist_like
_core.set_num_threads(2)
allocations = ctypes.CDLL(None).allocations
allocations.restype = ctypes.c_long
def count(steps):
    x, y = digits(32 * steps)
    layers, program = mnist_like()
    arguments = x, y, np.arange(32 * steps), np.full(steps, 1e-3)
    program.train_epoch(*arguments)
    before = allocations()
    program.train_epoch(*arguments)
    return allocations() - before
count(3)
print(count(10), count(500))
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to count allocations")
def test_a_step_allocates_nothing(tmp_path: Path) -> None:
    source, library = tmp_path / "counter.c", tmp_path / "counter.so"
    source.write_text("#define _GNU_SOURCE\n" + COUNTER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", source, "-o", library, "-ldl"], check=True)
    script = COUNTED_EPOCHS.format(path=[str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"LD_PRELOAD": str(library), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    few, many = map(int, done.stdout.split())
    assert many == few, f"10 steps make {few} allocations, 500 make {many}"


def test_a_program_describes_itself(device: str) -> None:
    _, program = mnist_like(networks="off")
    text = program.describe()
    assert text == repr(program)
    phrases = ("batch 32", "relu, dropout", "gelu'", "softmax fused", "dw = x' dy, update", "barrier", "KiB")
    for phrase in phrases:
        assert phrase in text
    first_layer = [stage for stage in program.stages if stage.startswith("dense_64")]
    assert not any("dx" in stage for stage in first_layer)


@pytest.mark.parametrize("threads", [1, 3])
def test_profiling_times_every_stage_and_changes_no_bit(
    threads: int, device: str, set_num_threads: Callable[[int], None]
) -> None:
    if threads > 1 and device != "cpu":
        pytest.skip("threads are the CPU's")
    x, y = digits(64)
    weights = []
    set_num_threads(threads)
    for profiled in (False, True):
        layers, program = mnist_like(networks="off")
        assert program.timings == []
        program.profile(profiled)
        for part in (slice(0, 32), slice(32, 64)):
            program.train_step(x[part], y[part])
        times = program.timings
        weights.append([layer["kernel"] for layer in layers if "kernel" in layer])
    assert [time["stage"] for time in times] == program.stages
    matmuls = [time["work"] for time in times if "x w" in time["stage"]]
    assert matmuls
    assert all(0 < seconds < 1 for seconds in matmuls)
    assert all(time["wait"] >= 0 for time in times)
    for plain, timed in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, timed)
    program.profile()
    assert program.timings == []  # it begins anew
    program.profile(False)


# Layers that one kernel takes together where the device has it, and how many such kernels a step has.
WHOLE_NETWORKS: dict[str, tuple[Callable[[], Layers], int]] = {
    "all layers": (lambda: [dense(6, 128, "relu"), dense(128, 33, "tanh"), dense(33, 3)], 1),
    "dropout between": (
        lambda: [dense(6, 40, "relu"), dropout(), dense(40, 20, "leaky_relu"), dense(20, 3)],
        1,
    ),
    "derivatives of inputs": (
        lambda: [dense(6, 9, "gelu"), dense(9, 17, "silu"), dense(17, 3, "gelu_tanh")],
        1,
    ),
    "dropout that is a stage": (
        lambda: [dense(6, 9, "relu"), dense(9, 8, "tanh"), dropout(), dense(8, 5, "elu"), dense(5, 3)],
        2,
    ),
    "a wide layer below": (lambda: [dense(6, 129, "relu"), dense(129, 12, "relu"), dense(12, 3)], 1),
    "a wide layer above": (
        lambda: [dense(6, 8, "relu"), dense(8, 12, "selu"), dense(12, 200, "relu"), dense(200, 3)],
        1,
    ),
    "a wide layer between": (lambda: [dense(6, 8, "relu"), dense(8, 200, "relu"), dense(200, 3)], 0),
    "ten layers": (
        lambda: [dense(6, 10, "tanh")] + [dense(10 + i, 11 + i, "tanh") for i in range(8)] + [dense(18, 3)],
        2,
    ),
    "frozen at the bottom": (
        lambda: [dense(6, 5, "tanh", trainable=False), dense(5, 4, "gelu"), dense(4, 3)],
        1,
    ),
    "no bias": (lambda: [dense(6, 5, "tanh", bias=None), dense(5, 3)], 1),
    "rows of three axes": (
        lambda: [
            reshape(3, 2),
            dense(2, 4, "tanh"),
            dense(4, 6, "relu"),
            reshape(18),
            dense(18, 5, "relu"),
            dense(5, 3, kernel_l2=0.1),
        ],
        2,
    ),
}


@pytest.mark.parametrize("clipping", ["no clipping", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("precision", ["fma", "split"])
@pytest.mark.parametrize("network", WHOLE_NETWORKS)
def test_layers_in_one_kernel_equal_layers_by_themselves(
    network: str, precision: str, clipping: str, device: str
) -> None:
    make, kernels = WHOLE_NETWORKS[network]
    x, y = (array.astype(np.float32) for array in batch("mean_squared_error", 45))
    results = []
    for networks in (precision, "off"):
        layers = in_dtype(make(), "float32")
        optimizer = {"kind": "adam"} | CLIPPINGS[clipping][0]
        loss = {"kind": "mean_squared_error"}
        program = make_program(layers, (6,), 45, loss, optimizer, "float32", networks=networks)
        expected = kernels if networks == precision and device != "cpu" else 0
        for direction in ("forward", "backward"):
            assert sum(f"{direction} in one kernel" in stage for stage in program.stages) == expected
        losses = [program.train_step(x, y, None, 1e-2)[0] for _ in range(3)]
        predictions = np.empty((45, 3), np.float32)
        program.predict(x, predictions)
        results.append([*variables(layers), predictions, np.array([*losses, program.evaluate(x, y)[0]])])
    for together, alone in zip(*results, strict=True):
        np.testing.assert_allclose(together, alone, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_networks_with_rounded_operands(precision: str, error: float, device: str) -> None:
    x = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    results = []
    for networks in (precision, "off"):
        layers = in_dtype([dense(30, 64, "tanh"), dense(64, 3)], "float32")
        program = make_program(layers, (30,), 40, None, None, "float32", networks=networks)
        results.append(np.empty((40, 3), np.float32))
        program.predict(x, results[-1])
    difference = np.abs(results[0] - results[1]).max()
    assert difference <= 4 * error
    assert (difference >= error / 32) == (device != "cpu")


def test_unknown_networks() -> None:
    with pytest.raises(ValueError, match="networks is 'whole'; expected 'auto', 'off', 'fma'"):
        _core.Program([], (3,), 1, None, None, "float32", networks="whole")


def test_memory_is_shared_between_phases(device: str) -> None:
    """Wide layers are split by columns, with barriers between: their buffers take turns."""
    layers = [dense(400, 400, "relu") for _ in range(8)] + [dense(400, 4)]
    program = make_program(layers, (400,), 64, None, None, "float64")
    assert 2 * 64 * 400 * 8 <= program.bytes <= 3 * 64 * 400 * 8


def test_predict_and_evaluate_agree_with_the_ops(device: str) -> None:
    layers, program = mnist_like("float64")
    x, y = digits(300, "float64")
    out = np.full((300, 10), np.nan)
    program.predict(x, out)
    hidden = ops.dense(x, layers[0]["kernel"], layers[0]["bias"], "relu")
    hidden = ops.dense(hidden, layers[2]["kernel"], layers[2]["bias"], "gelu")
    expected = ops.softmax(ops.dense(hidden, layers[3]["kernel"], layers[3]["bias"]))
    np.testing.assert_allclose(out, expected, rtol=1e-12)
    loss, accuracy = program.evaluate(x, y)
    assert loss == pytest.approx(-np.log(expected[np.arange(300), y]).mean())
    assert accuracy == pytest.approx((expected.argmax(axis=1) == y).mean())


def test_nothing_to_predict_writes_nothing(device: str) -> None:
    _, program = mnist_like()
    x, _ = digits(5)
    program.predict(x, np.empty((5, 10), np.float32))
    guarded = np.full((5, 10), 7, np.float32)
    program.predict(x[:0], guarded[:0])
    assert (guarded == 7).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((4, 29), np.float32)}, r"x has shape \(4, 29\); expected \(n, 30\)"),
        ({"x": np.zeros((4, 30))}, "dtype"),
        ({"x": np.zeros((30, 4), np.float32).T}, "contiguous"),
        ({"x": np.zeros((0, 30), np.float32), "y": np.zeros(0, np.int32)}, "no samples"),
        ({"y": np.array([0, 1, 10, 2], np.int32)}, "label 10 at position 2; expected 0 to 9"),
        ({"y": np.array([0, 1, -1, 2], np.int32)}, "label -1"),
        ({"y": np.zeros(3, np.int32)}, "y has shape"),
        ({"y": np.zeros(4)}, "int32"),
        ({"sample_weight": np.zeros(3, np.float32)}, "sample_weight"),
    ],
)
def test_bad_batches(change: dict[str, np.ndarray], message: str, device: str) -> None:
    layers, program = mnist_like()
    before = [v.copy() for v in variables(layers)]
    arguments = {"x": np.zeros((4, 30), np.float32), "y": np.zeros(4, np.int32)} | change
    with pytest.raises((ValueError, TypeError), match=message):
        program.train_step(**arguments)
    for v, old in zip(variables(layers), before, strict=True):
        assert np.array_equal(v, old)
    assert program.iteration == 0


def test_weights_must_lie_in_the_device_memory(device: str) -> None:
    layers = [dense(6, 3)]
    loss = {"kind": "mean_squared_error"}
    if device == "cpu":
        _device.native().Program(layers, (6,), 7, loss, SGD, "float64")
        return
    with pytest.raises(ValueError, match=rf"dense_3's kernel does not lie in .* device '{device}'.*empty"):
        _device.native().Program(layers, (6,), 7, loss, SGD, "float64")


# --- on a device with a stream: what the host asks of it ---


@pytest.fixture
def executor() -> Iterator[Any]:
    """The executor's module, in use."""
    if importlib.util.find_spec("tilefuse._simt") is None:
        pytest.skip("the executor of CUDA kernels is not built")
    with _device.using(EXECUTOR) as native:
        yield native


def counted(native: Any, call: Callable[[], Any]) -> dict[str, int]:
    """How often the host made or launched a graph, or waited, during the call."""
    before = native.counters()
    call()
    return {name: n - before[name] for name, n in native.counters().items()}


def test_a_step_is_captured_once_and_launched_again(executor: Any) -> None:
    layers, program = mnist_like()
    x, y = digits(32 * 6)
    epoch = [x, y, np.arange(32 * 6), np.full(6, 1e-3)]
    # The first step runs as it is, the second is captured: what comes but once needs no graph.
    first = counted(executor, lambda: program.train_epoch(*epoch))
    assert (first["captures"], first["graph_launches"]) == (1, 5)
    epoch[2:] = np.arange(32 * 6)[::-1].copy(), np.full(6, 2e-3)
    again = counted(executor, lambda: program.train_epoch(*epoch))
    assert (again["captures"], again["graph_launches"]) == (0, 6)
    # The graph finds the new order and learning rates: the weights are those of steps without a graph.
    other, stepwise = mnist_like()
    for order, rate in ((np.arange(32 * 6), 1e-3), (epoch[2], 2e-3)):
        stepwise.profile(True)  # stage by stage
        for i in range(6):
            rows = order[32 * i : 32 * (i + 1)]
            stepwise.train_step(x[rows], y[rows], None, rate)
    assert [v.tobytes() for v in variables(layers)] == [v.tobytes() for v in variables(other)]


def test_other_data_weights_and_predictions_have_their_own_graphs(executor: Any) -> None:
    layers, program = mnist_like()
    other, reference_program = mnist_like()
    x, y = digits(96)
    weight = np.linspace(0, 1, 96, dtype=np.float32)
    predictions = np.empty((96, 10), np.float32)
    calls: list[dict[str, Any]] = [{}, {"sample_weight": weight}, {"predictions": predictions}, {}]
    for more in calls * 2:
        order, rates = np.arange(96), np.full(3, 1e-2)
        program.train_epoch(placed(x), placed(y), order, rates, **more)
        reference_program.profile(True)
        reference_program.train_epoch(x, y, order, rates, **more)
        assert [v.tobytes() for v in variables(layers)] == [v.tobytes() for v in variables(other)]


def test_the_host_waits_at_polls_alone(executor: Any) -> None:
    steps, rows = 200, 4  # so small that there are several between two polls
    program = make_program([dense(6, 3)], (6,), rows, {"kind": "mean_squared_error"}, SGD, "float64")
    x, y = batch("mean_squared_error", steps * rows)
    polls: list[int] = []
    arguments = placed(x), placed(y), np.arange(len(x)), np.full(steps, 1e-3)
    waits = counted(
        executor,
        lambda: program.train_epoch(*arguments, on_progress=lambda done, *_: polls.append(done)),
    )["waits"]
    assert polls[-1] == steps
    assert len(polls) < steps
    assert waits == 2 * (len(polls) + 1)  # at each poll and at the end: for the totals, and their copy


def test_rates_changed_at_a_poll_hold_for_the_next_step(executor: Any) -> None:
    layers, program = mnist_like()
    x, y = digits(32 * 4)
    rates = np.full(4, 1e-3)

    def change(done: int, loss: float, accuracy: float) -> None:
        rates[done:] = 1e-3 * (done + 1)

    program.train_epoch(x, y, np.arange(len(x)), rates, on_progress=change, interval=0.0)
    other, stepwise = mnist_like()
    for i in range(4):
        rows = slice(32 * i, 32 * (i + 1))
        stepwise.train_step(x[rows], y[rows], None, 1e-3 * (i + 1))
    assert [v.tobytes() for v in variables(layers)] == [v.tobytes() for v in variables(other)]


def test_an_epoch_ends_where_a_poll_says_so(executor: Any) -> None:
    _, program = mnist_like()
    x, y = digits(32 * 4)
    predictions = np.full((len(x), 10), np.nan, np.float32)
    done = program.train_epoch(
        x,
        y,
        np.arange(len(x)),
        np.full(4, 1e-3),
        predictions=predictions,
        on_progress=lambda done, *_: done == 2,
        interval=0.0,
    )
    assert (done["steps"], done["samples"], program.iteration) == (2, 64, 2)
    np.testing.assert_allclose(predictions[:64].sum(axis=1), 1, rtol=1e-5)
    assert np.isnan(predictions[64:]).all()


def test_same_bits_in_any_order_of_the_threads(executor: Any) -> None:
    x, y = digits(107)
    bits = set()
    try:
        for order in ("forward", "forward", "reverse", "random:1", "random:2"):
            executor.set_order(order)
            layers, program = mnist_like()
            logs = program.train_epoch(x, y, np.arange(107), np.full(4, 1e-2))
            results = [np.array(list(logs.values())), *variables(layers)]
            bits.add(b"".join(v.tobytes() for v in results))
    finally:
        executor.set_order(os.environ.get("TILEFUSE_SIMT_ORDER") or "forward")
    assert len(bits) == 1


def test_steps_allocate_no_device_memory_and_programs_give_theirs_back(executor: Any) -> None:
    gc.collect()
    before = executor.live_allocations()
    layers, program = mnist_like()
    x, y = digits(100)
    epoch = x, y, np.arange(100), np.full(4, 1e-3)
    program.train_epoch(*epoch)
    program.evaluate(x, y)
    during = executor.live_allocations()
    for _ in range(3):
        program.train_epoch(*epoch)
        program.evaluate(x, y)
    assert executor.live_allocations() == during
    del layers, program
    gc.collect()
    assert executor.live_allocations() == before
