"""The quick benchmark behind `tilefuse bench`: one process, a few seconds.

`benchmarks/train_step.py` in the repository does it with more care.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tilefuse import ops, reference
from tilefuse._cuda_arrays import array_module
from tilefuse._device import current
from tilefuse._mnist_programs import PROGRAMS
from tilefuse.layers import Input
from tilefuse.models import Sequential
from tilefuse.variables import copy_to

from .timing import Run, interleaved, torch_module

MATMUL_SIZES = (128, 512, 1024)
BATCH = 32


def print_benchmarks(seconds: float = 0.3) -> None:
    """Time matmul and a training step with tilefuse, NumPy and, where installed, PyTorch, and print a table.

    All of it takes place on the device in use; on a GPU with CuPy instead of NumPy.

    Parameters
    ----------
    seconds : float
        How long each measurement takes.
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be more than 0, got {seconds}")
    device = current()
    print(f"{'' if device == 'cpu' else f'on {device}':<34}{'':<10}{'time':>12}{'':>16}{'tilefuse is':>18}")
    for title, operations, runs in _benchmarks(device):
        times = interleaved(runs, seconds, _wait(device))
        for name, each in times.items():
            rate = f"{operations / each / 1e9:.1f} GFLOP/s" if operations else f"{1 / each:.0f} steps/s"
            ratio = "" if name == "tilefuse" else f"{each / times['tilefuse']:.2f} x as fast"
            print(f"{title:<34}{name:<10}{each * 1e6:>9.1f} us{rate:>16}{ratio:>18}".rstrip())
            title = ""


def _wait(device: str) -> Run:
    """Return what waits for all that was queued on the device; on a CPU nothing is."""
    return array_module().cuda.Device().synchronize if device.startswith("cuda") else lambda: None


def _benchmarks(device: str) -> Iterator[tuple[str, int, dict[str, Run]]]:
    """Yield a title, the floating-point operations (0: not counted), and what to run, by name.

    All arrays lie where the functions that take them work.
    """
    on_gpu = device.startswith("cuda")
    xp = array_module() if on_gpu else np
    own: Callable[[np.ndarray], Any] = xp.asarray if on_gpu or device == "cpu" else partial(copy_to, device)
    torch = torch_module()
    if on_gpu and torch is not None and not torch.cuda.is_available():
        torch = None
    place = device if on_gpu else "cpu"
    rng = np.random.default_rng(0)
    for n in MATMUL_SIZES:
        a, b = rng.random((2, n, n), dtype=np.float32)
        runs: dict[str, Run] = {
            "tilefuse": partial(ops.matmul, own(a), own(b), out=own(np.empty_like(a))),
            xp.__name__: partial(xp.matmul, *map(xp.asarray, (a, b, np.empty_like(a)))),
        }
        if torch is not None:
            x, y, z = (torch.from_numpy(array).to(place) for array in (a, b, np.empty_like(a)))
            runs["torch"] = partial(torch.matmul, x, y, out=z)
        yield f"matmul {n} x {n} x {n}", 2 * n**3, runs
    x, y = rng.random((BATCH, 784), dtype=np.float32), rng.integers(0, 10, BATCH).astype(np.int32)
    runs = {"tilefuse": _tilefuse_step(device, x, y), xp.__name__: _numpy_step(xp, x, y)}
    if torch is not None:
        runs["torch"] = _torch_step(torch, place, x, y)
    yield f"step of 784-64-64-10, batch {BATCH}", 0, runs


def _tilefuse_step(device: str, x: np.ndarray, y: np.ndarray) -> Run:
    program = PROGRAMS["mnist_softmax_mlp"]
    model = Sequential([Input(program.input_shape), *program.layers()])
    model.compile("adam", "sparse_categorical_crossentropy")
    return partial(model.program.train_step, copy_to(device, x), copy_to(device, y), learning_rate=1e-3)


def _numpy_step(xp: Any, x: np.ndarray, y: np.ndarray) -> Run:
    x, y = xp.asarray(x), xp.asarray(y)
    rng = np.random.default_rng(0)
    shapes = [(784, 64), (64,), (64, 64), (64,), (64, 10), (10,)]
    params = [xp.asarray(rng.normal(0, 0.05, shape).astype(np.float32)) for shape in shapes]
    m, v = [xp.zeros_like(w) for w in params], [xp.zeros_like(w) for w in params]
    rows, step = xp.arange(len(x)), 0

    def run() -> None:
        nonlocal step
        step += 1
        w1, b1, w2, b2, w3, b3 = params
        h1 = xp.maximum(x @ w1 + b1, 0)
        h2 = xp.maximum(h1 @ w2 + b2, 0)
        z = h2 @ w3 + b3
        p = xp.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[rows, y] -= 1
        d3 = p / len(x)
        d2 = (d3 @ w3.T) * (h2 > 0)
        d1 = (d2 @ w2.T) * (h1 > 0)
        grads = [x.T @ d1, d1.sum(axis=0), h1.T @ d2, d2.sum(axis=0), h2.T @ d3, d3.sum(axis=0)]
        reference.adam_step(params, grads, m, v, step=step)

    return run


def _torch_step(torch: Any, place: str, x: np.ndarray, y: np.ndarray) -> Run:
    nn = torch.nn
    net = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(
        place
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    inputs, labels = torch.from_numpy(x).to(place), torch.from_numpy(y.astype(np.int64)).to(place)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()

    return run
