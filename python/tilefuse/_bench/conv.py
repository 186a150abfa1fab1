"""The sweep behind `tilefuse bench conv`: convolutions of many shapes and their gradients, beside PyTorch's.

Both take turns in one process, with the same operands and as many threads. PyTorch's tensors are in either
memory format, and its time is the better one's. A time is the median of its rounds. Operations are counted
with those on the padding, which needn't be done: with much of it a rate may exceed what is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product as combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tilefuse import _core, ops
from tilefuse.ops._windows import windows

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

PRECISIONS = ("float32", "ieee")
DIRECTIONS = ("forward", "dx", "dw")
FORMATS = ("channels_last", "contiguous_format")


class Convolution(NamedTuple):
    """A convolution of images [n, h, w, c] with filters [kernel, kernel, c / groups, f]."""

    sweep: str
    n: int
    h: int
    w: int
    c: int
    f: int
    kernel: int
    strides: int = 1
    padding: int = 0  # on all sides, as PyTorch wants it
    dilation: int = 1
    groups: int = 1

    @property
    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("strides", "padding", "dilation", "groups")}

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Of the images, the filters and the result."""
        place = windows((self.h, self.w), (self.kernel,) * 2, self.strides, self.padding, self.dilation)
        filters = (self.kernel, self.kernel, self.c // self.groups, self.f)
        return (self.n, self.h, self.w, self.c), filters, (self.n, *place.out, self.f)

    @property
    def operations(self) -> int:
        """Of each direction."""
        _, filters, y = self.shapes
        return 2 * int(np.prod(y)) * int(np.prod(filters[:3]))

    @property
    def elements(self) -> int:
        """Of images, filters and result, which must all move."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def __str__(self) -> str:
        tail = [f"/{self.strides}"] if self.strides > 1 else []
        tail += [f"pad {self.padding}"] if self.padding else []
        tail += [f"dilation {self.dilation}"] if self.dilation > 1 else []
        tail += [f"groups {self.groups}"] if self.groups > 1 else []
        kernel = f"{self.kernel}x{self.kernel}"
        return " ".join([f"{self.n}x{self.h}x{self.w}x{self.c} -> {self.f}, {kernel}", *tail])


def _batched(convolution: Convolution, images: int = 8, operations: float = 1e9) -> Convolution:
    """Return it with half as many images as long as it takes more operations."""
    batch = convolution._replace(n=images)
    while batch.n > 1 and batch.operations > operations:
        batch = batch._replace(n=batch.n // 2)
    return batch


def _resnet50() -> Iterator[Convolution]:
    yield _batched(Convolution("resnet50", 1, 224, 224, 3, 64, 7, 2, 3))
    inputs, size = 64, 56
    for width in (64, 128, 256, 512):
        strides, outputs, small = (1 if width == 64 else 2), 4 * width, (size if width == 64 else size // 2)
        layers = [
            (size, inputs, width, 1, 1),
            (size, width, width, 3, strides),
            (small, width, outputs, 1, 1),
            (small, outputs, width, 1, 1),
        ]
        if strides == 2:
            layers += [(size, inputs, outputs, 1, 2), (small, width, width, 3, 1)]
        for h, c, f, kernel, step in layers:
            yield _batched(Convolution("resnet50", 1, h, h, c, f, kernel, step, kernel // 2))
        inputs, size = outputs, small


def _mobilenet() -> Iterator[Convolution]:
    """Yield the first version's layers; padding is that of PyTorch where strides are 2."""
    yield _batched(Convolution("mobilenet", 1, 224, 224, 3, 32, 3, 2, 1))
    size = 112
    layers = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
    layers += [(256, 512, 2), (512, 512, 1), (512, 1024, 2), (1024, 1024, 1)]
    for c, f, strides in layers:
        yield _batched(Convolution("mobilenet", 1, size, size, c, c, 3, strides, 1, groups=c))
        size //= strides
        yield _batched(Convolution("mobilenet", 1, size, size, c, f, 1))


def _programs() -> Iterator[Convolution]:
    """Yield what the training steps of the examples convolve; of large images a part of the batch."""
    for h, c, f in ((28, 1, 32), (13, 32, 64), (5, 64, 64)):
        yield Convolution("programs", 32, h, h, c, f, 3)
    for h, c, f in ((150, 3, 32), (74, 32, 64), (36, 64, 128), (17, 128, 128)):
        yield Convolution("programs", 8, h, h, c, f, 3)


def _random(count: int = 51, most: float = 2e9, largest: int = 4 << 20) -> Iterator[Convolution]:
    rng = np.random.default_rng(0)

    def up_to(most: int) -> int:
        """As many small numbers as large ones."""
        return round(float(most ** rng.random()))

    for _ in range(count):
        kernel, strides, dilation = (int(x) for x in rng.integers(1, (8, 4, 3)))
        reach = (kernel - 1) * dilation + 1
        padding = reach // 2 * int(rng.integers(0, 2))
        h, w = (reach + up_to(112) for _ in range(2))
        c, f = up_to(256), up_to(256)
        groups = int(rng.choice([1, 1, 1, 2, 4, c]))
        c, f = (-(-x // groups) * groups for x in (c, f))
        images = up_to(64)
        shape = Convolution("random", images, h, w, c, f, kernel, strides, padding, dilation, groups)
        while shape.n > 1 and (shape.operations > most or shape.elements > largest):
            shape = shape._replace(n=shape.n // 2)
        yield shape


SWEEPS: dict[str, Callable[[], Iterator[Convolution]]] = {
    "resnet50": _resnet50,
    "mobilenet": _mobilenet,
    "programs": _programs,
    "random": _random,
}


def bench_conv(
    sweeps: Sequence[str] = tuple(SWEEPS),
    *,
    precision: str = "float32",
    seconds: float = 0.05,
    cold: bool = False,
    output: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Time the convolutions of some sweeps and their gradients; print a line for each, and the mean ratio.

    Parameters
    ----------
    sweeps : sequence of str
        Of resnet50, mobilenet, programs and random: 100 shapes in all.
    precision : str
        "float32" or "ieee", as `ops.conv2d` takes them.
    seconds : float
        How long each direction of each shape takes at the least, for each library.
    cold : bool
        Whether to empty the caches before each call.
    output : path, optional
        A folder for conv-PRECISION-threadsN.json and, with matplotlib, such a .png.

    Returns
    -------
    list of dict
        For each shape and direction the seconds by library, and the ratio: PyTorch's time over tilefuse's.
    """
    check(sweeps, SWEEPS, precision, PRECISIONS, seconds)
    torch = torch_module()
    if torch is None:
        raise ImportError("convolutions are timed beside PyTorch's: pip install torch")
    facts = print_facts(precision, cold)
    print(f"{'':<60}" + "".join(f"{direction:>31}" for direction in DIRECTIONS))
    heads = f"{'ms':>9}{'GFLOP/s':>9}{'torch':>7}{'ratio':>6}"
    print(f"{'images -> filters, kernel':<60}" + heads * len(DIRECTIONS))
    results: list[dict[str, Any]] = []
    for shape in tqdm([shape for name in sweeps for shape in SWEEPS[name]()], disable=None, leave=False):
        with torch.no_grad():
            runs = _runs(torch, shape, precision)
            times = cold_times(runs) if cold else interleaved(runs, seconds, rounds=5)
        cells = ""
        for direction in DIRECTIONS:
            best = {library: _best(times, f"{library} {direction}") for library in (TILEFUSE, "torch")}
            results.append({**shape._asdict(), "direction": direction, "seconds": best, "ratio": ratio(best)})
            rates = [shape.operations / each / 1e9 for each in best.values()]
            cells += f"{best[TILEFUSE] * 1e3:>9.3f}{rates[0]:>9.1f}{rates[1]:>7.1f}{ratio(best):>6.2f}"
        tqdm.write(f"{shape!s:<60}{cells}")
    _summarise(sweeps, results)
    if output is not None:
        write(Path(output), "conv", facts, {"convolutions": results}, partial(_draw, results, facts))
    return results


def _runs(torch: Any, shape: Convolution, precision: str) -> dict[str, Run]:
    """Return what to time, by library, direction and, for PyTorch, format; all were found to agree.

    tilefuse's gradients go into arrays that are there, as in a training step.
    """
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(each, np.float32) for each in shape.shapes)
    dx, dw = np.empty_like(x), np.empty_like(w)
    place = windows((shape.h, shape.w), w.shape[:2], shape.strides, shape.padding, shape.dilation)
    geometry = (*place.out, *place.strides, *place.dilation, *place.before, shape.groups)
    runs: dict[str, Callable[[], Any]] = {
        f"{TILEFUSE} forward": partial(ops.conv2d, x, w, **shape.options, precision=precision),
        f"{TILEFUSE} dx": partial(_core.conv2d_backward_data, dy, w, dx, geometry, precision),
        f"{TILEFUSE} dw": partial(_core.conv2d_backward_weights, x, dy, dw, None, geometry, precision),
    }
    runs[f"{TILEFUSE} dx"]()
    runs[f"{TILEFUSE} dw"]()
    expected = {"forward": runs[f"{TILEFUSE} forward"](), "dx": dx, "dw": dw}
    for name, direction in combinations(FORMATS, DIRECTIONS):
        run = _torch_run(torch, shape, direction, getattr(torch, name), x, w, dy)
        runs[f"torch {direction} {name}"] = run
        axes = (2, 3, 1, 0) if direction == "dw" else (0, 2, 3, 1)
        difference = np.abs(run().numpy().transpose(axes) - expected[direction]).max()
        if not difference <= 1e-3 * np.abs(expected[direction]).max():
            raise AssertionError(f"{direction} of {shape} differs from PyTorch's by {difference}")
    return runs


def _torch_run(
    torch: Any, shape: Convolution, direction: str, memory: Any, x: np.ndarray, w: np.ndarray, dy: np.ndarray
) -> Callable[[], Any]:
    def tensor(array: np.ndarray, *axes: int) -> Any:
        view = torch.from_numpy(array).permute(axes)
        return torch.empty(view.shape, memory_format=memory).copy_(view)

    images, gradient, filters = tensor(x, 0, 3, 1, 2), tensor(dy, 0, 3, 1, 2), tensor(w, 3, 2, 0, 1)
    strides, padding, dilation, groups = shape.options.values()
    if direction == "forward":
        conv2d = torch.nn.functional.conv2d
        return partial(conv2d, images, filters, None, strides, padding, dilation, groups)
    pairs = ([strides] * 2, [padding] * 2, [dilation] * 2, False, [0, 0], groups)
    which = 0 if direction == "dx" else 1
    mask = [which == 0, which == 1, False]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(gradient, images, filters, None, *pairs, mask)[which]


def _best(times: dict[str, float], run: str) -> float:
    return min(seconds for name, seconds in times.items() if name.startswith(run))


def _summarise(sweeps: Sequence[str], results: list[dict[str, Any]]) -> None:
    for key, names in (("sweep", sweeps), ("direction", DIRECTIONS)):
        for name in names:
            print(f"{name}: {mean_of([result['ratio'] for result in results if result[key] == name])}")
    print(f"all: {mean_of([result['ratio'] for result in results])}")
    slower = sorted((each for each in results if each["ratio"] < 0.8), key=lambda each: each["ratio"])
    print(f"{len(slower)} are below 0.8{':' if slower else ''}")
    for result in slower:
        seconds = result["seconds"]
        print(
            f"{result['ratio']:.2f}  {_shape_of(result)!s:<60}{result['direction']:<10}"
            f"{seconds[TILEFUSE] * 1e3:.3f} ms, torch {seconds['torch'] * 1e3:.3f} ms"
        )


def _shape_of(result: dict[str, Any]) -> Convolution:
    return Convolution(*(result[field] for field in Convolution._fields))


def _draw(results: list[dict[str, Any]], facts: dict[str, Any], roofline: Any, ratios: Any) -> None:
    for name in ("torch", TILEFUSE):
        draw_rates(roofline, name, [(_shape_of(result), result["seconds"][name]) for result in results])
    draw_roof(roofline, facts)
    shapes = len(results) // len(DIRECTIONS)
    roofline.set_title(f"{shapes} convolutions and their gradients, {facts['precision']}", fontsize=10)
    for direction, colour in zip(DIRECTIONS, COLOURS.values(), strict=True):
        ordered = sorted(result["ratio"] for result in results if result["direction"] == direction)
        ratios.plot(ordered, ".", color=colour, label=direction)
    ratios.axhline(1, color="black", linewidth=1)
    ratios.set_yscale("log", base=2)
    ratios.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    ratios.set_xlabel("shapes, slowest first")
    ratios.set_ylabel("x as fast as PyTorch")
    ratios.set_title(setting(facts), fontsize=10)
