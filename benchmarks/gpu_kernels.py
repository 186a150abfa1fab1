"""How long a GPU's kernels take, beside PyTorch's of the same op.

usage: python benchmarks/gpu_kernels.py [--ops matmul,conv,others] [--output DIR]

The time of an op is what its kernels take on the GPU, by CUPTI through PyTorch's profiler: without launches,
and without Python. Both work on the same arrays, whose elements are random. Convolutions have channels last
in both; backward gives both gradients. PyTorch has the fastest algorithm of cuDNN, and tf32 just where
tilefuse has it.
Writes gpu_kernels.json and .md to benchmarks/results.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tilefuse
import torch
import torch.nn.functional as F
from _report import markdown_table, save
from tilefuse import ops
from torch.profiler import ProfilerActivity, profile

HERE = Path(__file__).resolve().parent
REPEATS = 7
Run = Callable[[], object]


class Case(NamedTuple):
    name: str
    run: Run
    peer: Run
    flops: float = 0  # of floating point
    moved: float = 0  # bytes, the fewest that must be


def microseconds(run: Run) -> float:
    """Of all kernels that `run` queues, each at its median."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        for _ in range(REPEATS):
            run()
        torch.cuda.synchronize()
    times: dict[str, list[float]] = {}
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times.setdefault(event.name, []).append(event.device_time)
    return sum(statistics.median(each) * len(each) / REPEATS for each in times.values())


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda")


def allow_tf32(precision: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def as_computed(precision: str, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """As PyTorch takes them: 16 bits are a matter of dtype there."""
    dtype = getattr(torch, precision) if precision in ("bfloat16", "float16") else torch.float32
    return [tensor.to(dtype) for tensor in tensors]


def matmul_cases() -> Iterator[Case]:
    def product(m: int, k: int, n: int, precision: str, layout: str = "nn", stored: bool = False) -> Case:
        a = normal(k, m) if layout[0] == "t" else normal(m, k)
        b = normal(n, k) if layout[1] == "t" else normal(k, n)
        theirs = as_computed(precision, a, b)
        left, right = (x.t() if of == "t" else x for x, of in zip(theirs, layout, strict=True))
        given = theirs if stored else [a, b]
        options = {"transpose_a": layout[0] == "t", "transpose_b": layout[1] == "t"}
        if not stored:
            options["precision"] = precision
        allow_tf32(precision)
        name = f"matmul {m}x{k}x{n} {layout} {precision}{' arrays' * stored}"
        return Case(name, lambda: ops.matmul(*given, **options), lambda: left @ right, 2 * m * n * k)

    for n in (256, 512, 1024, 2048, 4096):
        for precision in ("ieee", "split", "tf32", "bfloat16", "float16"):
            yield product(n, n, n, precision)
        yield product(n, n, n, "bfloat16", stored=True)
    for m, k, n in (
        (32, 784, 128),
        (128, 784, 512),
        (784, 128, 512),
        (256, 25088, 64),
        (64, 25088, 1152),
        (4096, 1024, 1024),
        (8192, 512, 64),
    ):
        yield product(m, k, n, "ieee")
        yield product(m, k, n, "bfloat16", stored=True)
    for layout in ("tn", "nt", "tt"):
        for precision in ("ieee", "tf32"):
            yield product(2048, 2048, 2048, precision, layout)
        yield product(2048, 2048, 2048, "bfloat16", layout, stored=True)


# Images of n x h x w x c, filters, and their edges, strides, padding and groups.
CONVOLUTIONS = [
    (32, 28, 28, 1, 32, 3, 1, 0, 1),
    (32, 13, 13, 32, 64, 3, 1, 0, 1),
    (32, 150, 150, 3, 32, 3, 1, 0, 1),
    (32, 74, 74, 32, 64, 3, 1, 0, 1),
    (32, 56, 56, 64, 64, 3, 1, 1, 1),
    (32, 28, 28, 128, 128, 3, 1, 1, 1),
    (32, 14, 14, 256, 256, 3, 1, 1, 1),
    (32, 7, 7, 512, 512, 3, 1, 1, 1),
    (32, 56, 56, 256, 64, 1, 1, 0, 1),
    (32, 14, 14, 256, 512, 3, 2, 1, 1),
    (32, 56, 56, 128, 128, 3, 1, 1, 128),
]


def conv_cases() -> Iterator[Case]:
    for precision in ("ieee", "tf32", "bfloat16"):
        for n, h, w, c, f, kernel, stride, pad, groups in CONVOLUTIONS:
            x, filters = normal(n, h, w, c), normal(kernel, kernel, c // groups, f)
            options: dict[str, Any] = {"strides": stride, "padding": pad, "groups": groups}
            options["precision"] = precision
            allow_tf32(precision)
            dy = torch.randn_like(ops.conv2d(x, filters, **options))
            theirs = as_computed(precision, x, filters.permute(3, 2, 0, 1), dy)
            images, gradient = (theirs[i].permute(0, 3, 1, 2) for i in (0, 2))
            kernels = theirs[1].contiguous(memory_format=torch.channels_last)
            geometry = ([stride] * 2, [pad] * 2, [1, 1], False, [0, 0], groups)
            flops = 2 * dy.numel() * kernel * kernel * c // groups
            name = f"{n}x{h}x{w}x{c} to {f}, {kernel}x{kernel}/{stride}, {groups} groups, {precision}"
            yield Case(
                f"conv2d {name}",
                lambda x=x, filters=filters, options=options: ops.conv2d(x, filters, **options),
                lambda images=images, kernels=kernels, s=stride, p=pad, g=groups: F.conv2d(
                    images, kernels, None, s, p, 1, g
                ),
                flops,
            )
            yield Case(
                f"conv2d_backward {name}",
                lambda dy=dy, x=x, filters=filters, options=options: ops.conv2d_backward(
                    dy, x, filters, **options
                ),
                lambda gradient=gradient, images=images, kernels=kernels, geometry=geometry: (
                    torch.ops.aten.convolution_backward(
                        gradient, images, kernels, None, *geometry, [True, True, False]
                    )
                ),
                2 * flops,
            )


def other_cases() -> Iterator[Case]:
    allow_tf32("ieee")
    x, gamma, beta = normal(32, 112, 112, 64), normal(64), normal(64)
    images, size = x.permute(0, 3, 1, 2), 4 * x.numel()
    mean, variance = torch.zeros(64, device="cuda"), torch.ones(64, device="cuda")
    yield Case(
        "max_pool2d 2x2", lambda: ops.max_pool2d(x, 2), lambda: F.max_pool2d(images, 2), moved=1.25 * size
    )
    yield Case("global_avg_pool2d", lambda: ops.global_avg_pool2d(x), lambda: images.mean((2, 3)), moved=size)
    yield Case(
        "batch_norm, training",
        lambda: ops.batch_norm(x, gamma, beta, mean, variance, training=True),
        lambda: F.batch_norm(images, None, None, gamma, beta, True),
        moved=2 * size,
    )
    z, weight, bias = normal(8192, 1024), normal(1024), normal(1024)
    size, labels = 4 * z.numel(), torch.randint(0, 1024, (8192,), device="cuda")
    short_labels = labels.to(torch.int32)
    pairs: dict[str, tuple[Run, Run, float]] = {
        "layer_norm": (
            lambda: ops.layer_norm(z, weight, bias),
            lambda: F.layer_norm(z, (1024,), weight, bias),
            2,
        ),
        "softmax": (lambda: ops.softmax(z), lambda: F.softmax(z, -1), 2),
        "relu": (lambda: ops.relu(z), lambda: F.relu(z), 2),
        "gelu": (lambda: ops.gelu(z), lambda: F.gelu(z), 2),
        "add": (lambda: ops.add(z, z), lambda: z + z, 3),
        "dropout": (lambda: ops.dropout(z, 0.2), lambda: F.dropout(z, 0.2), 2.25),
        "softmax_cross_entropy": (  # which gives the gradient too
            lambda: ops.softmax_cross_entropy(z, short_labels),
            lambda: F.cross_entropy(z, labels),
            2,
        ),
    }
    for name, (run, peer, arrays) in pairs.items():
        yield Case(f"{name} 8192x1024", run, peer, moved=arrays * size)


OPS = {"matmul": matmul_cases, "conv": conv_cases, "others": other_cases}


def row(result: dict[str, Any]) -> list[str]:
    def rate(us: float) -> str:
        if result["flops"]:
            return f"{result['flops'] / us / 1e6:.3g} TFLOP/s"
        return f"{result['bytes'] / us / 1e3:.3g} GB/s"

    ours, theirs = result["us"], result["peer_us"]
    return [result["name"], f"{ours:.1f}", rate(ours), f"{theirs:.1f}", rate(theirs), f"{theirs / ours:.2f}"]


HEADER = ["op", "tilefuse (us)", "rate", "PyTorch (us)", "rate", "times faster"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ops", default=",".join(OPS), help=f"of {','.join(OPS)} (all)")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder (benchmarks/results)")
    options = parser.parse_args()
    if unknown := [name for name in options.ops.split(",") if name not in OPS]:
        parser.error(f"--ops has {', '.join(unknown)}; there are: {', '.join(OPS)}")
    try:
        tilefuse.set_device("cuda")
    except RuntimeError as error:
        parser.exit(2, f"{error}\n")

    torch.backends.cudnn.benchmark = True
    results: list[dict[str, Any]] = []
    for name in options.ops.split(","):
        for case in OPS[name]():
            ours, theirs = microseconds(case.run), microseconds(case.peer)
            result = {"name": case.name, "us": round(ours, 2), "peer_us": round(theirs, 2)}
            results.append(result | {"flops": case.flops, "bytes": case.moved})
            print(*row(results[-1]), sep="  ", flush=True)
    versions = {"torch": torch.__version__, "tilefuse": tilefuse.__version__}
    save(
        options.output,
        "gpu_kernels",
        {"versions": versions, "kernels": results},
        markdown_table(HEADER, [row(result) for result in results]),
        torch.cuda.get_device_name(),
    )


if __name__ == "__main__":
    main()
