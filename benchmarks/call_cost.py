"""What a call costs: ops on arrays so small that little else counts, beside the libraries' own.

usage: python benchmarks/call_cost.py [--roads numpy,cupy,torch,jax,c] [--output DIR]

Each op of tilefuse.ops is called with the library's own arrays, and gives such; beside it stands the
library's op of that kind, or its addition where it has none. Calls that return before their work is done are
waited for. All take turns, for rounds of a millisecond; the figure is the median of the rounds. In C, kernels
stand beside plain loops (call_cost.c).
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tilefuse
from _report import markdown_table, save
from tilefuse import _device, ops

HERE = Path(__file__).resolve().parent
ROUNDS, SECONDS = 31, 1e-3
ELEMENTWISE = ["relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus", "silu", "gelu", "softmax"]
ELEMENTWISE += ["log_softmax"]
Run = Callable[[], object]


class Pair(NamedTuple):
    op: str
    run: Run
    peer: str
    peer_run: Run


class Cost(NamedTuple):
    op: str
    ns: float
    peer: str
    peer_ns: float


class Small:
    """Arrays of a library, of 4 x 4 float32 each, made by `convert` from NumPy's."""

    def __init__(self, convert: Callable[[np.ndarray], Any]) -> None:
        rng = np.random.default_rng(0)
        self.x, self.y, self.dy, self.p = (convert(rng.random((4, 4), np.float32) + 0.1) for _ in range(4))
        self.unit = convert(rng.random((4, 4), np.float32))
        self.row = convert(rng.random(4, np.float32))
        self.ids = convert(np.array([0, 3, 1, 2]))
        self.kept = convert(rng.random((4, 4)) < 0.5)
        # One image of 4 x 4, and two filters.
        self.image, self.w, self.dy_of_image, self.dy_of_pool = (
            convert(rng.random(shape, np.float32))
            for shape in ((1, 4, 4, 1), (3, 3, 1, 2), (1, 2, 2, 2), (1, 2, 2, 1))
        )
        self.two = convert(rng.random(2, np.float32))
        self.one = convert(rng.random((1, 1), np.float32))


def calls(a: Small) -> dict[str, Run]:
    """Return a call of each op that goes directly to its kernel."""
    runs: dict[str, Run] = {}
    for name in ELEMENTWISE:
        forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")
        runs[name] = lambda op=forward: op(a.x)
        runs[f"{name}_backward"] = lambda op=backward: op(a.dy, a.y)
    return runs | {
        "add": lambda: ops.add(a.x, a.y),
        "matmul": lambda: ops.matmul(a.x, a.y),
        "dense": lambda: ops.dense(a.x, a.y, a.row, "relu"),
        "dense_backward": lambda: ops.dense_backward(a.dy, a.x, a.y, a.p, "relu"),
        "layer_norm": lambda: ops.layer_norm(a.x, a.row, a.row),
        "layer_norm_backward": lambda: ops.layer_norm_backward(a.dy, a.x, a.row),
        "rms_norm": lambda: ops.rms_norm(a.x, a.row),
        "rms_norm_backward": lambda: ops.rms_norm_backward(a.dy, a.x, a.row),
        "batch_norm": lambda: ops.batch_norm(a.x, a.row, a.row, a.row, a.row),
        "batch_norm_backward": lambda: ops.batch_norm_backward(a.dy, a.x, a.row, a.row, a.row),
        "dropout": lambda: ops.dropout(a.x, 0.5),
        "dropout_backward": lambda: ops.dropout_backward(a.dy, a.kept, 0.5),
        "conv2d": lambda: ops.conv2d(a.image, a.w, a.two),
        "conv2d_backward": lambda: ops.conv2d_backward(a.dy_of_image, a.image, a.w),
        "max_pool2d": lambda: ops.max_pool2d(a.image),
        "max_pool2d_backward": lambda: ops.max_pool2d_backward(a.dy_of_pool, a.image),
        "avg_pool2d": lambda: ops.avg_pool2d(a.image),
        "avg_pool2d_backward": lambda: ops.avg_pool2d_backward(a.dy_of_pool, a.image),
        "global_avg_pool2d": lambda: ops.global_avg_pool2d(a.image),
        "global_avg_pool2d_backward": lambda: ops.global_avg_pool2d_backward(a.one, a.image),
        "softmax_cross_entropy": lambda: ops.softmax_cross_entropy(a.x, a.ids),
        "categorical_cross_entropy": lambda: ops.categorical_cross_entropy(a.p, a.y),
        "sigmoid_binary_cross_entropy": lambda: ops.sigmoid_binary_cross_entropy(a.x, a.p),
        "binary_cross_entropy": lambda: ops.binary_cross_entropy(a.p, a.y),
        "mean_squared_error": lambda: ops.mean_squared_error(a.x, a.y),
    }


def numpy_pairs() -> Iterator[Pair]:
    a = Small(np.asarray)
    peers = {"matmul": ("np.matmul", lambda: np.matmul(a.x, a.y))}
    for name, run in calls(a).items():
        yield Pair(name, run, *peers.get(name, ("np.add", lambda: np.add(a.x, a.y))))


def cupy_pairs() -> Iterator[Pair]:
    import cupy

    def waited_for(run: Run) -> Run:
        return lambda: (run(), cupy.cuda.get_current_stream().synchronize())

    a = Small(cupy.asarray)
    peers = {"matmul": ("cp.matmul", waited_for(lambda: cupy.matmul(a.x, a.y)))}
    before = tilefuse.get_device()
    tilefuse.set_device("cuda")
    for name, run in calls(a).items():
        yield Pair(name, run, *peers.get(name, ("cp.add", waited_for(lambda: cupy.add(a.x, a.y)))))
    tilefuse.set_device(before)


def torch_pairs() -> Iterator[Pair]:
    import torch
    from torch.nn import functional as f

    torch.set_grad_enabled(False)
    torch.set_num_threads(tilefuse.get_num_threads())
    a = Small(torch.tensor)
    aten = torch.ops.aten
    _, mean, inv_std = torch.native_layer_norm(a.x, (4,), a.row, a.row, 1e-3)

    inv_rms = a.x.square().mean(-1, keepdim=True).rsqrt()

    def rms_norm_backward() -> object:
        n, g = a.x * inv_rms, a.dy * a.row
        return inv_rms * (g - n * (g * n).mean(-1, keepdim=True)), (a.dy * n).sum(0)

    def dense_backward() -> object:
        dz = aten.threshold_backward(a.dy, a.p, 0)
        return torch.mm(dz, a.y.T), torch.mm(a.x.T, dz), dz.sum(0)

    image, w, dy = (
        t.permute(*axes).contiguous()
        for t, axes in ((a.image, (0, 3, 1, 2)), (a.w, (3, 2, 0, 1)), (a.dy_of_image, (0, 3, 1, 2)))
    )
    dy_of_pool = a.dy_of_pool.permute(0, 3, 1, 2).contiguous()
    _, argmax = f.max_pool2d(image, 2, return_indices=True)
    whole = ((1, 1), (0, 0), (1, 1))
    plain: dict[str, tuple[str, Run]] = {
        "batch_norm": ("F.batch_norm", lambda: f.batch_norm(a.x, a.row, a.row, a.row, a.row)),
        "batch_norm_backward": (
            "aten.native_batch_norm_backward",
            lambda: aten.native_batch_norm_backward(
                a.dy, a.x, a.row, None, None, a.row, a.row, True, 1e-3, [True] * 3
            ),
        ),
        "dropout": ("aten.native_dropout", lambda: aten.native_dropout(a.x, 0.5, True)),
        "dropout_backward": (
            "aten.native_dropout_backward",
            lambda: aten.native_dropout_backward(a.dy, a.kept, 2.0),
        ),
        "conv2d": ("F.conv2d", lambda: f.conv2d(image, w, a.two)),
        "conv2d_backward": (
            "aten.convolution_backward",
            lambda: aten.convolution_backward(dy, image, w, [2], *whole, False, (0, 0), 1, [True] * 3),
        ),
        "max_pool2d": ("F.max_pool2d", lambda: f.max_pool2d(image, 2)),
        "max_pool2d_backward": (
            "aten.max_pool2d_with_indices_backward",
            lambda: aten.max_pool2d_with_indices_backward(
                dy_of_pool, image, (2, 2), (2, 2), (0, 0), (1, 1), False, argmax
            ),
        ),
        "avg_pool2d": ("F.avg_pool2d", lambda: f.avg_pool2d(image, 2)),
        "avg_pool2d_backward": (
            "aten.avg_pool2d_backward",
            lambda: aten.avg_pool2d_backward(dy_of_pool, image, (2, 2), (2, 2), (0, 0), False, True, None),
        ),
        "global_avg_pool2d": ("mean of two axes", lambda: image.mean((2, 3))),
        "matmul": ("torch.mm", lambda: torch.mm(a.x, a.y)),
        "dense": ("F.linear and relu", lambda: torch.relu(f.linear(a.x, a.y, a.row))),
        "relu": ("torch.relu", lambda: torch.relu(a.x)),
        "leaky_relu": ("F.leaky_relu", lambda: f.leaky_relu(a.x, 0.2)),
        "elu": ("F.elu", lambda: f.elu(a.x)),
        "selu": ("torch.selu", lambda: torch.selu(a.x)),
        "sigmoid": ("torch.sigmoid", lambda: torch.sigmoid(a.x)),
        "tanh": ("torch.tanh", lambda: torch.tanh(a.x)),
        "softplus": ("F.softplus", lambda: f.softplus(a.x)),
        "silu": ("F.silu", lambda: f.silu(a.x)),
        "gelu": ("F.gelu", lambda: f.gelu(a.x)),
        "softmax": ("torch.softmax", lambda: torch.softmax(a.x, -1)),
        "log_softmax": ("torch.log_softmax", lambda: torch.log_softmax(a.x, -1)),
        "layer_norm": ("F.layer_norm", lambda: f.layer_norm(a.x, (4,), a.row, a.row)),
        "rms_norm": ("F.rms_norm", lambda: f.rms_norm(a.x, (4,), a.row)),
        "softmax_cross_entropy": ("F.cross_entropy, no gradient", lambda: f.cross_entropy(a.x, a.ids)),
        "mean_squared_error": ("F.mse_loss, no gradient", lambda: f.mse_loss(a.x, a.y)),
        "sigmoid_binary_cross_entropy": (
            "F.binary_cross_entropy_with_logits, no gradient",
            lambda: f.binary_cross_entropy_with_logits(a.x, a.p),
        ),
        "binary_cross_entropy": (
            "F.binary_cross_entropy, no gradient",
            lambda: f.binary_cross_entropy(a.unit, a.unit),
        ),
        "rms_norm_backward": ("the formula", rms_norm_backward),
        "categorical_cross_entropy": (
            "the formula, no gradient",
            lambda: -(a.y * a.p.log()).sum(-1).mean(),
        ),
        "dense_backward": ("two torch.mm, sum, relu's gradient", dense_backward),
        "layer_norm_backward": (
            "aten.native_layer_norm_backward",
            lambda: aten.native_layer_norm_backward(a.dy, a.x, (4,), mean, inv_std, a.row, a.row, [True] * 3),
        ),
        "relu_backward": ("aten.threshold_backward", lambda: aten.threshold_backward(a.dy, a.y, 0)),
        "softmax_backward": (
            "aten._softmax_backward_data",
            lambda: aten._softmax_backward_data(a.dy, a.y, -1, torch.float32),
        ),
        "sigmoid_backward": ("aten.sigmoid_backward", lambda: aten.sigmoid_backward(a.dy, a.y)),
        "tanh_backward": ("aten.tanh_backward", lambda: aten.tanh_backward(a.dy, a.y)),
        "gelu_backward": ("aten.gelu_backward", lambda: aten.gelu_backward(a.dy, a.y)),
        "silu_backward": ("aten.silu_backward", lambda: aten.silu_backward(a.dy, a.y)),
    }
    for name, run in calls(a).items():
        yield Pair(name, run, *plain.get(name, ("torch.add", lambda: torch.add(a.x, a.y))))


def jax_pairs() -> Iterator[Pair]:
    import jax
    from jax import numpy as jnp

    a = Small(jnp.asarray)
    plain: dict[str, tuple[str, Run]] = {
        "relu": ("jax.nn.relu", lambda: jax.nn.relu(a.x)),
        "add": ("jnp.add", lambda: jnp.add(a.x, a.y)),
        "matmul": ("jnp.matmul", lambda: jnp.matmul(a.x, a.y)),
        "softmax": ("jax.nn.softmax", lambda: jax.nn.softmax(a.x)),
    }
    runs = calls(a)
    for name, (peer, peer_run) in plain.items():
        yield Pair(name, runs[name], peer, lambda run=peer_run: run().block_until_ready())


def nanoseconds(pair: Pair) -> tuple[float, float]:
    """Return the times of both calls, which take turns."""
    times: dict[Run, list[float]] = {pair.run: [], pair.peer_run: []}
    counts = {}
    for run in times:
        start = time.perf_counter()
        for _ in range(100):
            run()
        counts[run] = max(1, int(100 * SECONDS / (time.perf_counter() - start)))
    for _ in range(ROUNDS):
        for run, each in times.items():
            start = time.perf_counter()
            for _ in range(counts[run]):
                run()
            each.append((time.perf_counter() - start) / counts[run])
    own, peer = (1e9 * statistics.median(each) for each in times.values())
    return own, peer


def timed(pairs: Callable[[], Iterator[Pair]]) -> Callable[[], Iterator[Cost]]:
    def costs() -> Iterator[Cost]:
        for pair in pairs():
            own, peer = nanoseconds(pair)
            yield Cost(pair.op, own, pair.peer, peer)

    return costs


def c_costs() -> Iterator[Cost]:
    folder = Path(tilefuse.get_include()).parent / "lib"
    with tempfile.TemporaryDirectory() as scratch:
        program = f"{scratch}/call_cost"
        command = ["gcc", "-std=gnu11", "-O2", f"-I{tilefuse.get_include()}", str(HERE / "call_cost.c")]
        command += ["-o", program, f"-L{folder}", "-ltilefuse", "-lm", f"-Wl,-rpath,{folder}"]
        subprocess.run(command, check=True)
        printed = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in printed.splitlines():
        op, own, peer = line.split()
        yield Cost(op, float(own), "a loop", float(peer))


ROADS: dict[str, Callable[[], Iterator[Cost]]] = {
    "numpy": timed(numpy_pairs),
    "cupy": timed(cupy_pairs),
    "torch": timed(torch_pairs),
    "jax": timed(jax_pairs),
    "c": c_costs,
}


def missing(road: str) -> str:
    """Return what it lacks here, or nothing."""
    if road == "c":
        return "" if shutil.which("gcc") else "gcc is missing"
    if importlib.util.find_spec(road) is None:
        return f"{road} is not installed"
    return _device.best()[1] if road == "cupy" else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--roads", default=",".join(ROADS), help=f"those installed of {','.join(ROADS)} (all)"
    )
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder (benchmarks/results)")
    options = parser.parse_args()
    if unknown := set(options.roads.split(",")) - set(ROADS):
        parser.error(f"--roads has {', '.join(sorted(unknown))}; there are: {', '.join(ROADS)}")
    rows, results = [], []
    for road in options.roads.split(","):
        if lacks := missing(road):
            print(f"left out: {road} ({lacks})")
            continue
        for op, own, peer_name, peer in ROADS[road]():
            results.append({"road": road, "op": op, "ns": own, "peer": peer_name, "peer_ns": peer})
            more = f"{own - peer:+.0f}"
            rows.append([f"{road} `{op}`", f"{own:.0f}", peer_name, f"{peer:.0f}", more, f"{own / peer:.2f}"])
            print(*rows[-1], sep="  ")
    header = ["4 x 4 float32", "ns a call", "beside", "ns a call", "ns more", "ratio"]
    config = {"config": tilefuse.show_config("dicts")}
    save(options.output, "call_cost", config | {"calls": results}, markdown_table(header, rows))


if __name__ == "__main__":
    main()
