"""What the sweeps over many shapes share: checks, times, the machine's limits, results as JSON and a plot."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tilefuse import _core
from tilefuse._device import current
from tilefuse._runtime import get_num_threads, show_config

from .timing import Run, settle

TILEFUSE = "tilefuse"
COLOURS = {TILEFUSE: "#2f6fb3", "numpy": "#e0a030", "torch": "#8a93a0"}


class Work(Protocol):
    """A shape: how many operations it takes, and how many elements must move."""

    @property
    def operations(self) -> int: ...
    @property
    def elements(self) -> int: ...


def check(
    sweeps: Sequence[str],
    known: Collection[str],
    precision: str,
    precisions: Collection[str],
    seconds: float,
) -> None:
    """ValueError if a sweep can't run so."""
    unknown = [name for name in sweeps if name not in known]
    if unknown:
        raise ValueError(f"unknown sweep {unknown[0]!r}; expected some of: {', '.join(known)}")
    if precision not in precisions:
        raise ValueError(f"unknown precision {precision!r}; expected one of: {', '.join(precisions)}")
    if not seconds > 0:
        raise ValueError(f"seconds must be more than 0, got {seconds}")
    if current() != "cpu":
        raise ValueError(f"sweeps are for device 'cpu', got {current()!r}: leave --device out")


def print_facts(precision: str, cold: bool) -> dict[str, Any]:
    """Print and return how a sweep is measured, and what the machine can do at most."""
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    threads, peak, bandwidth = get_num_threads(), measured_peak(dtype), measured_bandwidth()
    facts = {"precision": precision, "threads": threads, "cold": cold, "torch": _version("torch")}
    print(f"{precision}, {setting(facts)}")
    print(
        f"multiply-adds of {dtype} {peak / 1e9:.1f} GFLOP/s, memory {bandwidth / 1e9:.1f} GB/s, both at most"
    )
    return {**facts, "flops": peak, "bytes_per_second": bandwidth}


def setting(facts: dict[str, Any]) -> str:
    """Return threads and caches in words."""
    return f"threads: {facts['threads']}, caches {'cold' if facts['cold'] else 'warm'}"


def cold_times(runs: dict[str, Run], rounds: int = 15) -> dict[str, float]:
    """Return the median time of single calls, each after a pass over more memory than the caches hold."""
    wall = np.zeros(max(32 << 20, 3 * _largest_cache()) // 8)
    times: dict[str, list[float]] = {name: [] for name in runs}
    last = ""
    for _ in range(rounds):
        for name, run in runs.items():
            settle(last, name)
            last = name
            wall += 1
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def _largest_cache() -> int:
    """Bytes; 0 where the system doesn't say."""
    with contextlib.suppress(ValueError, OSError):
        return max(os.sysconf(f"SC_LEVEL{level}_CACHE_SIZE") for level in (2, 3))
    return 0


def measured_peak(dtype: str = "float32", tries: int = 20) -> float:
    """Operations a second of multiply-adds alone, on all threads: the best of several tries."""
    best = 0.0
    for _ in range(tries):
        start = time.perf_counter()
        operations = _core.peak(dtype, turns=1_000_000)  # some milliseconds
        best = max(best, operations / (time.perf_counter() - start))
    return best


def measured_bandwidth(megabytes: int = 256) -> float:
    """Bytes a second that an activation reads and writes: the best of several passes."""
    x = np.ones(megabytes << 18, np.float32)
    y = np.empty_like(x)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        _core.activation(x, y, "relu", 0.0)
        best = max(best, 2 * x.nbytes / (time.perf_counter() - start))
    return best


def ratio(times: dict[str, float]) -> float:
    """Return the fastest peer's time over tilefuse's."""
    return min(each for name, each in times.items() if name != TILEFUSE) / times[TILEFUSE]


def mean_of(ratios: Sequence[float]) -> str:
    """Return the geometric mean in words."""
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    return f"{mean:.2f} x as fast as the fastest peer, the geometric mean of {len(ratios)}"


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def write(
    folder: Path,
    kind: str,
    facts: dict[str, Any],
    results: dict[str, Any],
    draw: Callable[[Any, Any], None],
) -> None:
    """Write KIND-PRECISION-threadsN.json and, with matplotlib, such a .png, of two axes that `draw` fills."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{kind}-{facts['precision']}-threads{facts['threads']}"
    path = folder / f"{stem}{'-cold' if facts['cold'] else ''}.json"
    path.write_text(json.dumps({"config": show_config("dicts"), **facts, **results}, indent=1) + "\n")
    print(f"written: {path}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print('no plot: pip install "tilefuse[plot]"')
        return
    figure = Figure(figsize=(11, 4.4), layout="constrained", dpi=120)
    pair = figure.subplots(1, 2)
    draw(*pair)
    for axes in pair:
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path.with_suffix(".png"))
    print(f"written: {path.with_suffix('.png')}")


def draw_rates(axes: Any, name: str, points: Sequence[tuple[Work, float]], size: int = 4) -> None:
    """Draw the rate of each shape, given with its seconds, over its operations a byte."""
    x = [work.operations / (work.elements * size) for work, _ in points]
    y = [work.operations / seconds / 1e9 for work, seconds in points]
    axes.plot(x, y, ".", color=COLOURS[name], label=name, alpha=0.7)


def draw_roof(axes: Any, facts: dict[str, Any]) -> None:
    """Draw the limits of the machine, and name the axes."""
    intensity = np.geomspace(0.2, 1000, 200)
    roof = np.minimum(facts["flops"], intensity * facts["bytes_per_second"]) / 1e9
    axes.loglog(intensity, roof, color="black", linewidth=1, label="memory, multiply-adds")
    axes.set_xlabel("operations a byte that must move")
    axes.set_ylabel("GFLOP/s")
