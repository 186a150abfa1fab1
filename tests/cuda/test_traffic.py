"""What the CUDA kernels move, by the executor's counts: sectors of global memory against those that their
arrays have, each input read once and each output written once; and conflicts in shared memory, of which there
are none.

Caches don't count here: a sector that two warps want, or one warp twice, is moved twice.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tilefuse.ops._windows import windows

SECTOR = 32  # bytes
WITHIN = 1.05  # of the ideal
REGISTRY = Path(__file__).parents[2] / "csrc/common/registry.h"

DTYPES = ["float32", "float64"]
# Elements, and how many of them an array begins after the beginning of a sector. (In much smaller arrays the
# few numbers weigh more that each block reads for itself, such as an optimizer's rule.)
LENGTHS = [(1 << 14, 0), (16381, 0), (16381, 1), (1 << 14, 3), (1 << 14, 2)]
ACTIVATIONS = ["linear", "relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "silu", "softplus"]
ACTIVATIONS += ["gelu_tanh", "gelu"]
# Rows, columns, and the shift: rows that share a warp, that take one, that take a block; primes; shifted.
MATRICES = [
    (2048, 10, 0),
    (512, 32, 0),
    (509, 31, 0),
    (128, 128, 0),
    (131, 127, 1),
    (24, 1024, 0),
    (23, 1021, 3),
]
MATRICES += [(5, 4096, 0), (5, 4099, 1), (2, 12289, 0)]


@pytest.fixture(scope="module")
def native() -> Any:
    """The executor's checked build, which counts; whatever device is in use."""
    if importlib.util.find_spec("tilefuse._simt_checked") is None:
        pytest.skip("the executor's checked build is not there")
    if (
        "avx2" not in importlib.import_module("tilefuse._core").available_isas()
        and os.uname().machine == "x86_64"
    ):
        pytest.skip("the executor needs a processor with AVX2")
    return importlib.import_module("tilefuse._simt_checked")


class Arrays:
    """Makes arrays in device memory that begin `shift` elements after the beginning of a sector."""

    def __init__(self, native: Any, dtype: str, shift: int = 0) -> None:
        self.native, self.dtype, self.shift = native, dtype, shift
        self.random = np.random.default_rng(0)

    def empty(self, shape: Any, dtype: Any = None) -> np.ndarray:
        kind, size = np.dtype(dtype or self.dtype), int(np.prod(shape))
        memory = self.native.empty((size + self.shift + SECTOR,), kind)
        start = -memory.ctypes.data % SECTOR // kind.itemsize + self.shift
        return memory[start : start + size].reshape(shape)

    def full(self, shape: Any, value: Any, dtype: Any = None) -> np.ndarray:
        array = self.empty(shape, dtype)
        array[...] = value
        return array

    def floats(self, *shapes: Any) -> Any:
        arrays = [self.full(shape, self.random.uniform(0.1, 0.9, shape)) for shape in shapes]
        return arrays if len(arrays) > 1 else arrays[0]


def sectors(*arrays: np.ndarray) -> int:
    begins = [a.ctypes.data for a in arrays]
    return sum(-(-(b + a.nbytes) // SECTOR) - b // SECTOR for a, b in zip(arrays, begins, strict=True))


def assert_no_conflicts(counted: Iterable[dict[str, Any]]) -> None:
    for launch in counted:
        worse = [a for a in launch["accesses"] if a["shared"] and a["transfers"] > a["ideal"]]
        assert not worse, f"{launch['kernel']}: {worse}"


@contextmanager
def counting(native: Any, kernels: str = "") -> Iterator[list[dict[str, Any]]]:
    """The counts of the launches inside, of kernels whose name matches; none has bank conflicts."""
    counted: list[dict[str, Any]] = []
    native.reset_counts()
    yield counted
    counted += [launch for launch in native.counts() if re.search(kernels, launch["kernel"])]
    assert counted, "nothing was launched"
    assert_no_conflicts(counted)


def traffic(counted: Iterable[dict[str, Any]], *arrays: np.ndarray, more: float = 0) -> float:
    """Sectors that the launches moved, as a multiple of the ideal: those of the arrays, and `more`.

    An array that is read and written is given twice.
    """
    return sum(launch["global"]["transfers"] for launch in counted) / (sectors(*arrays) + more)


# ---- which kernels these are ---------------------------------------------------------------------

_tested: set[str] = set()


def of_kernels(*names: str) -> Callable[[Any], Any]:
    """Marks a test of these kernels of the registry."""
    _tested.update(names)
    return lambda test: test


def test_every_kernel_is_here() -> None:
    assert _tested == set(re.findall(r"\bkernel\((\w+)\)", REGISTRY.read_text()))


# ---- elementwise ---------------------------------------------------------------------------------

lengths = pytest.mark.parametrize(("n", "shift"), LENGTHS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@of_kernels("activation", "activation_backward")
@dtypes
@pytest.mark.parametrize(
    ("name", "n", "shift"),
    [*((name, *LENGTHS[0]) for name in ACTIVATIONS), *(("relu", *length) for length in LENGTHS[1:])],
)
def test_activation(native: Any, name: str, n: int, shift: int, dtype: str) -> None:
    x, dy, y = Arrays(native, dtype, shift).floats(n, n, n)
    with counting(native) as counted:
        native.activation(x, y, name, 0.5)
    assert traffic(counted, x, y) <= WITHIN
    with counting(native) as counted:
        native.activation_backward(dy, x, y, name, 0.5)
    assert traffic(counted, dy, x, y) <= WITHIN
    with counting(native) as counted:
        native.activation(x, x, name, 0.5)
    assert traffic(counted, x, x) <= WITHIN


@dtypes
def test_arrays_that_lie_differently(native: Any, dtype: str) -> None:
    """Only one of two arrays can be moved by whole sectors; the other takes one more for each warp."""
    n, of_warp = 1 << 14, 32 * np.dtype(dtype).itemsize // SECTOR
    x, y = Arrays(native, dtype, 1).floats(n), Arrays(native, dtype, 2).floats(n)
    with counting(native) as counted:
        native.activation(x, y, "tanh", 0.0)
    assert traffic(counted, x, y) == pytest.approx((1 + (of_warp + 1) / of_warp) / 2, rel=0.01)


@of_kernels("add")
@lengths
@dtypes
@pytest.mark.parametrize("activation", ["linear", "relu", "gelu"])
def test_add(native: Any, n: int, shift: int, dtype: str, activation: str) -> None:
    a, b, y = Arrays(native, dtype, shift).floats(n, n, n)
    with counting(native) as counted:
        native.add(a, b, y, activation)
    assert traffic(counted, a, b, y) <= WITHIN


@of_kernels("dropout", "dropout_mask")
@dtypes
@lengths
def test_dropout(native: Any, n: int, shift: int, dtype: str) -> None:
    arrays = Arrays(native, dtype, shift)
    x, y = arrays.floats(n, n)
    mask = arrays.empty(n, bool)
    with counting(native) as counted:
        native.dropout_mask(mask, 0.4, 1, 2)
    assert traffic(counted, mask) <= WITHIN
    assert 0.5 < mask.mean() < 0.7
    with counting(native) as counted:
        native.dropout(x, mask, y, 0.4)
    assert traffic(counted, x, mask, y) <= WITHIN


RULES = {
    "sgd": ({"kind": "sgd"}, 0),
    "momentum": ({"kind": "sgd", "momentum": 0.9}, 1),
    "nesterov": ({"kind": "sgd", "momentum": 0.9, "nesterov": True}, 1),
    "adagrad": ({"kind": "adagrad"}, 1),
    "rmsprop": ({"kind": "rmsprop"}, 1),
    "rmsprop, all": ({"kind": "rmsprop", "momentum": 0.9, "centered": True}, 3),
    "adam": ({"kind": "adam"}, 2),
    "amsgrad": ({"kind": "adam", "amsgrad": True}, 3),
    "adamw, clipped": ({"kind": "adam", "weight_decay": 0.1, "clipvalue": 0.5}, 2),
}


@of_kernels("optimizer")
@dtypes
@pytest.mark.parametrize(
    ("name", "n", "shift"),
    [*((name, *LENGTHS[0]) for name in RULES), *(("adam", *length) for length in LENGTHS[1:])],
)
def test_optimizer(native: Any, name: str, n: int, shift: int, dtype: str) -> None:
    """Each block reads the rule too: 1 % of what it does with the smallest of slices."""
    rule, slots = RULES[name]
    arrays = Arrays(native, dtype, shift)
    sizes = [n, n // 2]
    weights, gradients = ([arrays.floats(size) for size in sizes] for _ in range(2))
    state = [[arrays.full(size, 1) for _ in range(slots)] for size in sizes]
    written = [*weights, *state[0], *state[1]]
    with counting(native) as counted:
        native.optimizer_step(rule, weights, gradients, state)
    assert traffic(counted, *gradients, *written, *written) <= WITHIN


# ---- reductions ----------------------------------------------------------------------------------

matrices = pytest.mark.parametrize(
    ("dtype", "rows", "cols", "shift"),
    [*(("float32", *shape) for shape in MATRICES), *(("float64", *shape) for shape in MATRICES[::2])],
)


@of_kernels("clip_norm")
@dtypes
@lengths
@pytest.mark.parametrize("together", [False, True])
def test_clip_norm(native: Any, together: bool, n: int, shift: int, dtype: str) -> None:
    gradients = Arrays(native, dtype, shift).floats(n, n)
    with counting(native) as counted:
        native.clip_norm(gradients, 1.0, together)
    assert traffic(counted, *gradients) <= WITHIN


@of_kernels("total")
@pytest.mark.parametrize("n", [1 << 14, 16381])
def test_total(native: Any, n: int) -> None:
    arrays = Arrays(native, "float32")
    x, labels, dx = arrays.floats((n, 1), (n, 1), (n, 1))
    with counting(native, "total") as counted:
        native.loss("mean_squared_error", False, x, labels, None, 0.0, dx)
    assert traffic(counted, more=n * 8 / SECTOR) <= WITHIN


@of_kernels("column_sum")
@dtypes
@pytest.mark.parametrize(
    ("rows", "cols", "shift"), [*MATRICES[:7], (1024, 1, 0), (1000, 7, 3), (129, 513, 1)]
)
def test_column_sum(native: Any, rows: int, cols: int, shift: int, dtype: str) -> None:
    arrays = Arrays(native, dtype, shift)
    x, y = arrays.floats((rows, cols), cols)
    with counting(native) as counted:
        native.column_sum(x, y)
    assert traffic(counted, x, y) <= WITHIN


@dtypes
def test_column_sum_of_shifted_rows(native: Any, dtype: str) -> None:
    """Rows of whole sectors are read by themselves; where x doesn't begin with one, neighbours share them."""
    x, y = Arrays(native, dtype, 1).floats((512, 64), 64)
    of_row = 64 * np.dtype(dtype).itemsize // SECTOR
    with counting(native) as counted:
        native.column_sum(x, y)
    assert traffic(counted, x, y) <= (of_row + 1) / of_row * 1.03


@of_kernels("softmax", "softmax_backward")
@matrices
@pytest.mark.parametrize("log", [False, True])
def test_softmax(native: Any, log: bool, rows: int, cols: int, shift: int, dtype: str) -> None:
    x, y, dy = Arrays(native, dtype, shift).floats(*[(rows, cols)] * 3)
    with counting(native) as counted:
        native.softmax(x, y, log)
    assert traffic(counted, x, y) <= WITHIN
    with counting(native) as counted:
        native.softmax_backward(dy, y, x, log)
    assert traffic(counted, dy, y, x) <= WITHIN


@pytest.mark.parametrize(("log", "backward"), [(False, 5 / 3), (True, 4 / 3)])
def test_softmax_of_rows_beyond_shared_memory(native: Any, log: bool, backward: float) -> None:
    """They are read again in each pass: x three times, instead of once."""
    x, y, dy = Arrays(native, "float64").floats(*[(1, 1 << 15)] * 3)
    with counting(native) as counted:
        native.softmax(x, y, log)
    assert traffic(counted, x, y) == pytest.approx(4 / 2, rel=0.01)
    with counting(native) as counted:
        native.softmax_backward(dy, y, x, log)
    assert traffic(counted, dy, y, x) == pytest.approx(backward, rel=0.01)


LOSSES = [
    ("sparse_categorical_crossentropy", True),
    ("sparse_categorical_crossentropy", False),
    ("categorical_crossentropy", True),
    ("categorical_crossentropy", False),
    ("binary_crossentropy", True),
    ("binary_crossentropy", False),
    ("mean_squared_error", False),
]
losses = pytest.mark.parametrize(("name", "logits"), LOSSES)
LOSS_KERNELS = r"^by_(warps|blocks)<"


def loss_problem(arrays: Arrays, name: str, rows: int, cols: int) -> tuple[np.ndarray, ...]:
    """x, labels, weights, and room for the gradient."""
    x, labels, dx = arrays.floats(*[(rows, cols)] * 3)
    if name.startswith("sparse"):
        labels = arrays.full(rows, cols // 2, np.int32)
    return x, labels, arrays.full(rows, 1), dx


@of_kernels("loss")
@matrices
@losses
def test_loss(native: Any, name: str, logits: bool, rows: int, cols: int, shift: int, dtype: str) -> None:
    x, labels, weights, dx = loss_problem(Arrays(native, dtype, shift), name, rows, cols)
    of_rows = rows * 8 / SECTOR  # float64, for each row
    for weight in (None, weights):
        given = [x, labels, dx] if weight is None else [x, labels, dx, weight]
        with counting(native, LOSS_KERNELS) as counted:
            native.loss(name, logits, x, labels, weight, 0.1, dx)
        assert traffic(counted, *given, more=of_rows) <= WITHIN


@losses
def test_loss_of_rows_beyond_shared_memory(native: Any, name: str, logits: bool) -> None:
    arrays = Arrays(native, "float64")
    x, labels, _, dx = loss_problem(arrays, name, 1, 1 << 15)
    reads = {  # of x, and of the labels where each column has one
        ("sparse_categorical_crossentropy", True): (3, 0),
        ("sparse_categorical_crossentropy", False): (4, 0),
        ("categorical_crossentropy", True): (3, 2),
        ("categorical_crossentropy", False): (4, 2),
    }.get((name, logits), (1, 1))
    needed = 2 if name.startswith("sparse") else 3
    with counting(native, LOSS_KERNELS) as counted:
        native.loss(name, logits, x, labels, None, 0.0, dx)
    moved = traffic(counted, x, dx, *([labels] if needed == 3 else []))
    assert moved == pytest.approx((sum(reads) + 1) / needed, rel=0.01)


# ---- pooling -------------------------------------------------------------------------------------


def pooling(
    arrays: Arrays, shape: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, int]
) -> tuple[np.ndarray, ...]:
    """x, y, dx and dy, and room for the places of the maxima."""
    n, h, w, c = shape
    out = (n, (h - kernel[0]) // strides[0] + 1, (w - kernel[1]) // strides[1] + 1, c)
    argmax = arrays.full(out, 0, np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32)
    return (*arrays.floats(shape, out, shape, out), argmax)


def geometry(y: np.ndarray, strides: tuple[int, int]) -> tuple[int, ...]:
    return (*y.shape[1:3], *strides, 1, 1, 0, 0, 1)


# Side by side, and whole images: in one thread and in several, and with places of four bytes.
@of_kernels("pool2d")
@dtypes
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((2, 16, 16, 32), (2, 2)),
        ((3, 9, 12, 16), (3, 4)),
        ((4, 14, 14, 64), (14, 14)),
        ((2, 17, 18, 64), (17, 18)),
    ],
    ids=str,
)
def test_pool(native: Any, shape: tuple[int, ...], kernel: tuple[int, int], dtype: str) -> None:
    x, y, _, _, argmax = pooling(Arrays(native, dtype), shape, kernel, kernel)
    place = geometry(y, kernel)
    with counting(native) as counted:
        native.pool2d("average", x, y, kernel, place)
    assert traffic(counted, x, y) <= WITHIN
    with counting(native) as counted:
        native.pool2d("max", x, y, kernel, place)
    assert traffic(counted, x, y) <= WITHIN
    with counting(native) as counted:
        native.pool2d("max", x, y, kernel, place, argmax=argmax)
    assert traffic(counted, x, y, argmax) <= WITHIN


@of_kernels("pool2d_backward")
@dtypes
def test_pool_backward(native: Any, dtype: str) -> None:
    """Each element of dx reads its window's gradient for itself: neighbours find it in a cache."""
    kernel = (2, 2)
    _, _, dx, dy, argmax = pooling(Arrays(native, dtype), (2, 16, 16, 32), kernel, kernel)
    place = geometry(dy, kernel)
    with counting(native) as counted:
        native.pool2d_backward("average", dy, dx, kernel, place)
    assert traffic(counted, dx, *[dy] * 4) <= WITHIN
    with counting(native) as counted:
        native.pool2d_backward("max", dy, dx, kernel, place, argmax=argmax)
    assert traffic(counted, dx, *[dy, argmax] * 4) <= WITHIN


@dtypes
def test_windows_that_overlap(native: Any, dtype: str) -> None:
    """They read what they share again; so do the elements of dx, in each of the windows that they are in."""
    kernel, strides = (3, 3), (1, 1)
    x, y, dx, dy, _ = pooling(Arrays(native, dtype), (2, 14, 14, 32), kernel, strides)
    place = geometry(y, strides)
    with counting(native) as counted:
        native.pool2d("average", x, y, kernel, place)
    assert traffic(counted, *[y] * 10) <= WITHIN
    with counting(native) as counted:
        native.pool2d_backward("average", dy, dx, kernel, place)
    assert traffic(counted, dx, *[dy] * 9) <= WITHIN


@pytest.mark.parametrize(("channels", "times"), [(1, 2), (3, 2.2)])
def test_pool_of_few_channels(native: Any, channels: int, times: float) -> None:
    """Neighbouring threads skip what other elements of their windows need, and read those sectors again."""
    x, y, _, _, _ = pooling(Arrays(native, "float32"), (4, 32, 32, channels), (2, 2), (2, 2))
    with counting(native) as counted:
        native.pool2d("average", x, y, (2, 2), geometry(y, (2, 2)))
    assert traffic(counted, y, more=times * sectors(x)) <= WITHIN


# ---- what only a program runs --------------------------------------------------------------------


def dense(arrays: Arrays, inputs: int, units: int, activation: str = "linear", **more: Any) -> dict[str, Any]:
    layer = {
        "kind": "dense",
        "name": f"dense_{units}",
        "activation": activation,
        "alpha": 0.5,
        "trainable": True,
    }
    layer["kernel"], layer["bias"] = arrays.floats((inputs, units), units)
    layer["kernel_slots"] = [arrays.full((inputs, units), 1) for _ in range(2)]
    layer["bias_slots"] = [arrays.full(units, 1) for _ in range(2)]
    return layer | more


def train(
    arrays: Arrays,
    layers: list[dict[str, Any]],
    samples: int,
    loss: str = "mean_squared_error",
    **options: Any,
) -> np.ndarray:
    """One step with a shuffled batch; gives x."""
    inputs, units = layers[0]["kernel"].shape[0], layers[-1]["kernel"].shape[1]
    program = arrays.native.Program(
        layers, (inputs,), samples, {"kind": loss}, {"kind": "adam"}, arrays.dtype, **options
    )
    x = arrays.floats((samples, inputs))
    y = arrays.full(samples, 1, np.int32) if loss.startswith("sparse") else arrays.floats((samples, units))
    order = arrays.random.permutation(samples).astype(np.int64)
    program.train_epoch(x, y, order, np.full(1, 1e-3))
    return x


# Columns, and what is allowed. Rows that are not whole packs are cut into single elements, and where a warp's
# end falls into a row, its sector is read twice.
# Rows and columns of normalisations, and what they may move, as a multiple of the ideal: forward, forward by
# moving averages, and backward of batch norm; forward and backward of layer norm. The factors of columns are
# read with each element, and the rows of layer norm more than once: caches have these.
NORMS = [
    ((4096, 64, 0), (1.3, 1.4, 1.25), (2.0, 2.6)),
    ((4096, 32, 0), (1.3, 1.4, 1.25), (2.2, 2.9)),
]


@of_kernels("batch_norm", "batch_norm_backward", "batch_norm_fold")
@dtypes
@pytest.mark.parametrize(("shape", "most", "_"), NORMS)
def test_batch_norm(native: Any, shape: tuple[int, int, int], most: Any, _: Any, dtype: str) -> None:
    rows, cols, shift = shape
    arrays = Arrays(native, dtype, shift)
    x, y = arrays.floats((rows, cols), (rows, cols))
    columns = [arrays.floats(cols) for _ in range(6)]
    with counting(native) as counted:
        native.batch_norm(x, *columns[:4], y, True, 0.9, 1e-3, "relu", 0.0, None, *columns[4:])
    measured = [traffic(counted, x, x, y)]
    with counting(native) as counted:
        native.batch_norm(x, *columns[:4], y, False, 0.9, 1e-3, "relu", 0.0)
    measured += [traffic(counted, x, y)]
    dx = arrays.empty(x.shape)
    with counting(native) as counted:
        native.batch_norm_backward(y, x, columns[0], *columns[4:], dx, *columns[1:3], True)
    measured += [traffic(counted, x, y, x, y, dx)]
    assert all(a <= b for a, b in zip(measured, most, strict=True)), measured


@of_kernels("layer_norm", "layer_norm_backward")
@dtypes
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize(("shape", "_", "most"), NORMS)
def test_layer_norm(
    native: Any, shape: tuple[int, int, int], _: Any, most: Any, rms: bool, dtype: str
) -> None:
    rows, cols, shift = shape
    arrays = Arrays(native, dtype, shift)
    x, y, dx = arrays.floats((rows, cols), (rows, cols), (rows, cols))
    gamma, beta, mean, inv_std = (arrays.floats(n) for n in (cols, cols, rows, rows))
    with counting(native) as counted:
        native.layer_norm(x, gamma, None if rms else beta, y, rms, 1e-3, mean, inv_std)
    measured = [traffic(counted, x, y, mean, inv_std)]
    with counting(native) as counted:
        native.layer_norm_backward(y, x, gamma, dx, beta, None, rms, 1e-3, mean, inv_std)
    measured += [traffic(counted, x, y, dx, mean, inv_std)]
    assert all(a <= b for a, b in zip(measured, most, strict=True)), measured


@of_kernels("gather")
@dtypes
@pytest.mark.parametrize(
    ("cols", "allowed"), [(32, WITHIN), (784, WITHIN), (4, WITHIN), (31, 1.25), (783, 1.25)]
)
def test_gather(native: Any, cols: int, allowed: float, dtype: str) -> None:
    samples = 128
    arrays = Arrays(native, dtype)
    with counting(native, "gather") as counted:
        x = train(arrays, [dense(arrays, cols, 8)], samples)
    rows = sum(
        sectors(row) for row in x
    )  # by themselves, as they are read in any order; they are written in one piece
    assert traffic(counted[:1], x, more=rows + samples * 8 / SECTOR) <= allowed


@of_kernels("penalty")
@dtypes
@pytest.mark.parametrize(("inputs", "units"), [(128, 64), (127, 61)])
def test_penalty(native: Any, inputs: int, units: int, dtype: str) -> None:
    arrays = Arrays(native, dtype)
    layers = [dense(arrays, inputs, units, kernel_l1=0.1, kernel_l2=0.2)]
    with counting(native, "sum_slices") as counted:
        train(arrays, layers, 4)
    assert traffic(counted, layers[0]["kernel"]) <= WITHIN


@dtypes
@pytest.mark.parametrize("cols", [10, 127, 1024])
def test_loss_and_accuracy_of_softmax(native: Any, cols: int, dtype: str) -> None:
    """Softmax, loss, gradient and correctness in one pass."""
    rows = 128
    arrays = Arrays(native, dtype)
    with counting(native, LOSS_KERNELS) as counted:
        train(arrays, [dense(arrays, 4, cols, "softmax")], rows, "sparse_categorical_crossentropy")
    logits = arrays.empty((rows, cols))
    of_rows = rows * (4 + logits.itemsize + 8 + 8) / SECTOR  # label, weight, loss, correct
    assert traffic(counted, logits, logits, more=of_rows) <= WITHIN


# ---- shared memory of the products ---------------------------------------------------------------

# m, n, k, and the shift: for each of the tiles, and for products whose k is cut.
SHAPES = [
    (128, 128, 24, 0),
    (128, 128, 24, 1),
    (256, 192, 40, 0),
    (512, 512, 8, 0),
    (61, 67, 71, 0),
    (31, 33, 700, 0),
]


@of_kernels("matmul")
@dtypes
@pytest.mark.parametrize(("m", "n", "k", "shift"), SHAPES)
@pytest.mark.parametrize("transposed", ["", "a", "b", "ab"])
def test_matmul(native: Any, m: int, n: int, k: int, shift: int, transposed: str, dtype: str) -> None:
    arrays = Arrays(native, dtype, shift)
    a = arrays.floats((k, m)).T if "a" in transposed else arrays.floats((m, k))
    b = arrays.floats((n, k)).T if "b" in transposed else arrays.floats((k, n))
    out, bias, z = arrays.floats((m, n), n, (m, n))
    with counting(native):
        native.matmul(a, b, out, bias, "relu", 0.0, 1.0, z)


# Images, height, width, channels, kernel, filters, strides, padding, groups.
CONVOLUTIONS = [
    (2, 14, 14, 16, 3, 32, 1, "same", 1),
    (2, 9, 9, 3, 3, 32, 1, "valid", 1),
    (3, 12, 12, 8, 3, 16, 2, "same", 2),
    (2, 8, 8, 64, 1, 64, 1, "valid", 1),
    (2, 8, 8, 32, 3, 32, 1, "same", 32),
]


# Of float32 also on matrix units.
MULTIPLIED = [("float32", "float32"), ("float64", "float32")]
MULTIPLIED += [("float32", precision) for precision in ("split", "tf32", "bfloat16", "float16")]


class Convolving:
    """A layer's arrays, and its kernels."""

    def __init__(self, native: Any, layer: tuple[Any, ...], dtype: str, precision: str) -> None:
        n, h, w, c, k, f, strides, padding, groups = layer
        arrays = Arrays(native, dtype)
        place = windows((h, w), (k, k), strides, padding)
        self.native, self.precision, self.out = native, precision, place.out
        self.geometry = (*place.out, *place.strides, *place.dilation, *place.before, groups)
        self.x, self.w, self.b = arrays.floats((n, h, w, c), (k, k, c // groups, f), f)
        self.y, self.dx = arrays.empty((n, *place.out, f)), arrays.empty(self.x.shape)
        self.dw, self.db = arrays.empty(self.w.shape), arrays.empty(f)
        pooled = (n, place.out[0] // 2, place.out[1] // 2, f)
        self.pooled, self.argmax = arrays.floats(pooled), arrays.full(pooled, 1, np.uint8)

    def forward(self) -> None:
        how = ("relu", 0.0, None, self.geometry, self.precision)
        self.native.conv2d(self.x, self.w, self.y, self.b, *how)

    def forward_and_pool(self) -> None:
        how = ("relu", 0.0, None, self.geometry, self.precision, (2, 2), self.argmax)
        self.native.conv2d(self.x, self.w, self.pooled, self.b, *how)

    def backward_to_data(self) -> None:
        self.native.conv2d_backward_data(self.y, self.w, self.dx, self.geometry, self.precision)

    def backward_to_data_of_pooled(self) -> None:
        how = (self.geometry, self.precision, (2, 2), self.argmax)
        self.native.conv2d_backward_data(self.pooled, self.w, self.dx, *how)

    def backward_to_weights(self) -> None:
        how = (self.geometry, self.precision)
        self.native.conv2d_backward_weights(self.x, self.y, self.dw, self.db, *how)

    def backward_to_weights_of_pooled(self) -> None:
        how = (self.geometry, self.precision, (2, 2), self.argmax)
        self.native.conv2d_backward_weights(self.x, self.pooled, self.dw, self.db, *how)


@of_kernels("conv2d", "conv2d_backward_data", "conv2d_backward_weights")
@pytest.mark.parametrize(("dtype", "precision"), MULTIPLIED)
@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_convolutions(native: Any, layer: tuple[Any, ...], dtype: str, precision: str) -> None:
    layer_of = Convolving(native, layer, dtype, precision)
    for run in (
        *(layer_of.forward, layer_of.forward_and_pool),
        *(layer_of.backward_to_data, layer_of.backward_to_data_of_pooled),
        *(layer_of.backward_to_weights, layer_of.backward_to_weights_of_pooled),
    ):
        with counting(native, "convolve|weigh|add_and_pool"):
            run()


@pytest.mark.parametrize("precision", ["split", "tf32", "bfloat16", "float16"])
def test_convolutions_move_what_their_tiles_need(native: Any, precision: str) -> None:
    """One column of tiles, of 64 rows: images are read once for each tap, the other operand for each tile."""
    shape, f, taps = (2, 10, 10, 16), 24, 9
    layer = Convolving(native, (*shape, 3, f, 1, "valid", 1), "float32", precision)
    x, y, w = layer.x, layer.y, layer.w
    x_pixels, y_pixels = x[..., 0].size, y[..., 0].size
    tiles = {"x": -(-x_pixels // 64), "y": -(-y_pixels // 64), "w": -(-taps * shape[3] // 64)}

    def needed(*numbers: int) -> float:
        return sum(numbers) * 4 / SECTOR

    x_by_taps, y_by_taps = y_pixels * taps * shape[3], y_pixels * taps * f
    with counting(native, "convolve") as counted:
        layer.forward()
    assert traffic(counted, more=needed(x_by_taps, tiles["y"] * w.size, y.size)) <= WITHIN
    with counting(native, "convolve") as counted:
        layer.backward_to_data()
    assert traffic(counted, more=needed(y_by_taps, tiles["x"] * w.size, x.size)) <= WITHIN
    with counting(native, "weigh") as counted:
        layer.backward_to_weights()
    assert traffic(counted, more=needed(x_by_taps, tiles["w"] * y.size, w.size)) <= WITHIN


@of_kernels("mlp")
@pytest.mark.parametrize("networks", ["fma", "split", "bfloat16", "float16"])
@pytest.mark.parametrize("units", [(64, 32), (128, 10), (31, 7)])
def test_networks_in_one_kernel(native: Any, units: tuple[int, ...], networks: str) -> None:
    arrays = Arrays(native, "float32")
    layers = [dense(arrays, inputs, n, "tanh") for inputs, n in zip((100, *units), units, strict=False)]
    with counting(native, "forward|backward|add_gradients") as counted:
        train(arrays, layers, 64, networks=networks)
    assert len(counted) == 3


# ---- that these tests would see a kernel that falls short ----------------------------------------


def test_strided_reading_is_seen(native: Any) -> None:
    arrays = Arrays(native, "float32")
    a, b, y = arrays.floats((256, 8), (1, 1), (256, 1))
    with counting(native) as counted:
        native.matmul(a[:, :1], b, y, None, "linear", 0.0, 0.0, None)
    assert traffic(counted, y, y) > 2


def test_reading_again_is_seen(native: Any) -> None:
    arrays = Arrays(native, "float32")
    a, b, y = arrays.floats((256, 64), (64, 256), (256, 256))
    with counting(native) as counted:
        native.matmul(a, b, y, None, "linear", 0.0, 0.0, None)
    # Each of its accesses is as good as it can be; but the operands are read for each tile of the result.
    assert all(launch["global"]["transfers"] == launch["global"]["ideal"] for launch in counted)
    assert traffic(counted, a, b, y) > 1.5


def test_conflicts_are_seen() -> None:
    access = {"shared": True, "transfers": 2, "ideal": 1}
    with pytest.raises(AssertionError, match="scale"):
        assert_no_conflicts([{"kernel": "scale", "accesses": [access]}])
