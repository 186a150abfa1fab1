"""The sweep behind `tilefuse bench matmul`: products of many shapes, beside NumPy's and PyTorch's.

Everybody takes turns in one process, with the same operands, as many threads and an array for the result. A
time is the median of its rounds; a ratio is the fastest peer's time over tilefuse's. It takes minutes; fewer
with OPENBLAS_THREAD_TIMEOUT=20 in the environment.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tilefuse import ops
from tilefuse._runtime import get_num_threads

from .sweep import (
    COLOURS,
    TILEFUSE,
    check,
    cold_times,
    draw_rates,
    draw_roof,
    mean_of,
    print_facts,
    ratio,
    setting,
    write,
)
from .timing import Run, interleaved, torch_module


class Product(NamedTuple):
    """The shape of a product: a is [m, k], b is [k, n], each stored as it is or transposed."""

    sweep: str
    m: int
    n: int
    k: int
    transpose_a: bool = False
    transpose_b: bool = False

    @property
    def operations(self) -> int:
        return 2 * self.m * self.n * self.k

    @property
    def elements(self) -> int:
        """Of both operands and the result, which must all move."""
        return self.m * self.k + self.k * self.n + self.m * self.n

    def __str__(self) -> str:
        layout = "".join("nt"[flag] for flag in (self.transpose_a, self.transpose_b))
        return f"{self.m} x {self.n} x {self.k} {layout}"


def _squares() -> Iterator[Product]:
    for n in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096):
        yield Product("square", n, n, n)


def _programs() -> Iterator[Product]:
    """Yield what the training steps of the examples multiply: y = x w, dw = x' dy, dx = dy w'.

    A convolution counts as the product of its patches.
    """
    dense = [(128, 784, 64), (128, 64, 64), (128, 64, 1), (32, 784, 64), (32, 64, 64), (32, 64, 10)]
    dense += [(32, 784, 128), (32, 128, 10), (32, 576, 64), (32, 6272, 512), (32, 512, 10)]
    convolutions = [(32 * 26 * 26, 9, 32), (32 * 11 * 11, 288, 64), (32 * 3 * 3, 576, 64)]
    convolutions += [(148 * 148, 27, 32), (72 * 72, 288, 64), (34 * 34, 576, 128), (15 * 15, 1152, 128)]
    for rows, inputs, outputs in dense + convolutions:
        yield Product("programs", rows, outputs, inputs)
        yield Product("programs", inputs, outputs, rows, transpose_a=True)
        yield Product("programs", rows, inputs, outputs, transpose_b=True)


def _batches() -> Iterator[Product]:
    """Yield small batches through dense layers, with weights stored as [inputs, outputs] and transposed."""
    for inputs, outputs in [(256, 256), (784, 512), (1000, 1000), (1024, 1024), (6272, 512), (2048, 4096)]:
        for transposed in (False, True):
            for rows in (1, 2, 3, 4, 8, 12, 16, 24, 32, 64):
                yield Product("batches", rows, outputs, inputs, transpose_b=transposed)


def _random(count: int = 200, largest: int = 3000) -> Iterator[Product]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        m, n, k = (int(x) for x in rng.integers(1, largest + 1, 3))
        yield Product("random", m, n, k, *(bool(flag) for flag in rng.integers(0, 2, 2)))


PRECISIONS = ("float32", "ieee", "bfloat16")
SWEEPS: dict[str, Callable[[], Iterator[Product]]] = {
    "square": _squares,
    "programs": _programs,
    "batches": _batches,
    "random": _random,
}


def bench_matmul(
    sweeps: Sequence[str] = ("square", "programs"),
    *,
    precision: str = "float32",
    seconds: float = 0.3,
    cold: bool = False,
    output: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Time the products of some sweeps; print a line for each and, for all, the geometric mean of the ratios.

    Parameters
    ----------
    sweeps : sequence of str
        Of square, programs, batches (few rows) and random.
    precision : str
        "float32" or "ieee", as `ops.matmul` takes them; "bfloat16": of arrays of bfloat16, beside PyTorch's.
    seconds : float
        How long each product takes at the least, for each library.
    cold : bool
        Whether to empty the caches before each call.
    output : path, optional
        A folder for matmul-PRECISION-threadsN.json and, with matplotlib, such a .png: the roofline.

    Returns
    -------
    list of dict
        For each product its shape, the seconds by library, and the ratio.
    """
    check(sweeps, SWEEPS, precision, PRECISIONS, seconds)
    if precision == "bfloat16" and torch_module() is None:
        raise ImportError("products of bfloat16 are timed beside PyTorch's: pip install torch")
    threads = get_num_threads()
    results: list[dict[str, Any]] = []
    products = [product for name in sweeps for product in SWEEPS[name]()]
    with _numpy_threads(threads):
        facts = print_facts(precision, cold)
        print(f"{'m x n x k, layouts':<28}{'GFLOP/s':>10}   {'peers':<30}{'tilefuse is':>18}")
        for product in tqdm(products, disable=None, leave=False):
            runs = _runs(product, precision)
            times = cold_times(runs) if cold else interleaved(runs, seconds, rounds=15)
            results.append({**product._asdict(), "seconds": times, "ratio": ratio(times)})
            tqdm.write(_line(product, times))
    for name in sweeps:
        ratios = [result["ratio"] for result in results if result["sweep"] == name]
        print(f"{name}: {mean_of(ratios)} products")
        print(f"{'':<{len(name)}}  at least {min(ratios):.2f}; {sum(r < 0.9 for r in ratios)} are below 0.9")
    if output is not None:
        write(Path(output), "matmul", facts, {"products": results}, partial(_draw, results, facts))
    return results


def _runs(product: Product, precision: str) -> dict[str, Run]:
    rng = np.random.default_rng(0)
    shape_a = (product.k, product.m) if product.transpose_a else (product.m, product.k)
    shape_b = (product.n, product.k) if product.transpose_b else (product.k, product.n)
    a, b = rng.standard_normal(shape_a, np.float32), rng.standard_normal(shape_b, np.float32)
    out = np.empty((product.m, product.n), np.float32)
    torch = torch_module()
    if precision == "bfloat16":
        bfloat16 = importlib.import_module("ml_dtypes").bfloat16
        a, b, out = (array.astype(bfloat16) for array in (a, b, out))

    def product_of(matmul: Callable[..., object], **options: Any) -> Run:
        flags = {"transpose_a": product.transpose_a, "transpose_b": product.transpose_b}
        return partial(matmul, a, b, **flags, **options, out=out)

    run = product_of(ops.matmul, **({"precision": precision} if precision == "ieee" else {}))
    left, right = (a.T if product.transpose_a else a), (b.T if product.transpose_b else b)
    runs: dict[str, Run] = {TILEFUSE: run}
    if precision != "bfloat16":
        runs["numpy"] = partial(np.matmul, left, right, out=np.empty_like(out))
    if torch is not None:
        x, y, z = (_tensor(torch, array) for array in (left, right, np.empty_like(out)))
        runs["torch"] = partial(torch.matmul, x, y, out=z)
    return runs


def _tensor(torch: Any, array: np.ndarray) -> Any:
    """Return a tensor in the memory of an array; of bfloat16, which PyTorch doesn't take from NumPy, too."""
    if array.dtype == np.float32:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


@contextlib.contextmanager
def _numpy_threads(threads: int) -> Iterator[None]:
    """Give NumPy as many threads, which takes threadpoolctl where they aren't all of them."""
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        if threads != len(os.sched_getaffinity(0)):
            raise ImportError(
                f"to give NumPy {threads} threads takes threadpoolctl: pip install threadpoolctl"
            ) from None
        yield
    else:
        with threadpool_limits(threads, user_api="blas"):
            yield


def _line(product: Product, times: dict[str, float]) -> str:
    rate = {name: product.operations / each / 1e9 for name, each in times.items()}
    peers = ", ".join(f"{name} {each:.1f}" for name, each in rate.items() if name != TILEFUSE)
    return f"{product!s:<28}{rate[TILEFUSE]:>10.1f}   {peers:<30}{ratio(times):>10.2f} x as fast"


def _draw(results: list[dict[str, Any]], facts: dict[str, Any], roofline: Any, sizes: Any) -> None:
    size = 2 if facts["precision"] == "bfloat16" else 4
    for name in reversed(results[0]["seconds"]):
        points = [(Product(*(r[field] for field in Product._fields)), r["seconds"][name]) for r in results]
        draw_rates(roofline, name, points, size)
        squares = [(p.n, p.operations / each / 1e9) for p, each in points if p.sweep == "square"]
        if squares:
            sizes.plot(*zip(*squares, strict=True), "o-", color=COLOURS[name], label=name, markersize=4)
    draw_roof(roofline, facts)
    roofline.set_title(f"products of {len(results)} shapes, {facts['precision']}", fontsize=10)
    sizes.axhline(facts["flops"] / 1e9, color="black", linewidth=1)
    sizes.set_xscale("log", base=2)
    sizes.set_ylim(bottom=0)
    sizes.set_xlabel("n, of n x n x n")
    sizes.set_ylabel("GFLOP/s")
    sizes.set_title(setting(facts), fontsize=10)
