"""Timing several things by turns, in one process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from tilefuse._runtime import get_num_threads

Run = Callable[[], object]


def settle(last: str, name: str) -> None:
    """Wait until the threads of the library that ran last have fallen asleep; they spin first.

    The library is the first word of a run's name. Nobody waits for the own threads.

    OpenMP's do for up to 20 ms. OpenBLAS's do for 100 to 200 ms, in which others' threads may stand still for
    15 ms; with the environment variable OPENBLAS_THREAD_TIMEOUT=20, of a millisecond. One thread waits for
    nobody.
    """
    library = last.partition(" ")[0]
    if get_num_threads() == 1 or library in ("", name.partition(" ")[0]):
        return
    slow = library == "numpy" and "OPENBLAS_THREAD_TIMEOUT" not in os.environ
    time.sleep(0.25 if slow else 0.03)


def interleaved(
    runs: dict[str, Run], seconds: float, wait: Run = lambda: None, rounds: int = 7
) -> dict[str, float]:
    """Return the median time of each, in seconds, over rounds in which they take turns."""
    counts: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    last = ""
    for name, run in runs.items():
        settle(last, name)
        last = name
        run()
        wait()
        start = time.perf_counter()
        run()
        wait()
        counts[name] = max(1, int(seconds / rounds / (time.perf_counter() - start)))
    for _ in range(rounds):
        for name, run in runs.items():
            settle(last, name)
            last = name
            run()  # wakes the threads
            wait()
            start = time.perf_counter()
            for _ in range(counts[name]):
                run()
            wait()
            times[name].append((time.perf_counter() - start) / counts[name])
    return {name: statistics.median(each) for name, each in times.items()}


def torch_module() -> Any:
    """Return PyTorch, set to as many threads as tilefuse has; None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch = importlib.import_module("torch")
    torch.set_num_threads(get_num_threads())
    return torch
