"""Whole training steps against PyTorch, JAX and Keras: forward, backward and Adam of four networks.

usage: python benchmarks/train_step.py [--peer-python VENV/bin/python] [--peers torch,jax,keras] [--blocks N]

Every peer runs with one thread, pinned to one core, and with as many threads as there are cores, and counts
at its best. Each (peer, threads) is a process of its own that lives through the whole run; they take turns in
short blocks, so that whatever the machine does meanwhile hits all of them alike. A time is the median of a
process's blocks.
Writes train_step.json, .md and .png to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from _report import markdown_table, save
from _workers.models import MODELS

HERE = Path(__file__).resolve().parent
PEERS = ("torch", "torch-compile", "jax", "keras")
SETTLE = 0.03  # seconds between two processes' blocks; the first one's threads may spin for 20 ms


class Worker:
    """A process that trains when asked."""

    def __init__(self, name: str, threads: int, process: subprocess.Popen[str]) -> None:
        self.name, self.threads, self._process = name, threads, process
        self.config = self._answer()

    def train(self, model: str, steps: int) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"model": model, "steps": steps}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} with {self.threads} threads has ended; see above")
        return json.loads(line)


@contextmanager
def started(name: str, threads: int, python: str) -> Iterator[Worker | None]:
    """A worker; None where a peer cannot start, such as when it is not installed."""
    command = [python, "-m", "_workers", name, str(threads)]
    with subprocess.Popen(
        command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            try:
                worker = Worker(name, threads, process)
            except RuntimeError as error:
                if name == "tilefuse":
                    raise
                print(f"left out: {error}", file=sys.stderr)
                worker = None
            yield worker
        finally:
            process.kill()


def measure(workers: list[Worker], model: str, blocks: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds a step of each block, by "peer/threads"."""
    steps, loss = {}, {}
    for worker in workers:
        worker.train(model, 30)  # compiles, and finds the way into the caches
        probe = worker.train(model, 30)
        steps[worker] = max(10, round(seconds * probe["steps"] / probe["seconds"]))
    times: dict[str, list[float]] = {f"{worker.name}/{worker.threads}": [] for worker in workers}
    for block in range(blocks):
        for worker in workers[block % len(workers) :] + workers[: block % len(workers)]:
            time.sleep(SETTLE)
            result = worker.train(model, steps[worker])
            times[f"{worker.name}/{worker.threads}"].append(1e3 * result["seconds"] / result["steps"])
            loss[worker] = result["loss"]
    for worker in workers:
        if not 0 < loss[worker] < MODELS[model].chance_loss:
            raise RuntimeError(f"{worker.name} does not learn {model}: its loss is {loss[worker]}")
    return times


def summarise(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, the fastest peer, and how many times faster than it tilefuse is."""
    medians = {name: statistics.median(each) for name, each in times.items()}
    peers = {name: ms for name, ms in medians.items() if not name.startswith("tilefuse/")}
    summary: dict[str, Any] = {"ms_per_step": medians, "blocks": times}
    if peers:
        fastest = min(peers, key=peers.__getitem__)
        own = {name: ms for name, ms in medians.items() if name not in peers}
        summary |= {"fastest_peer": fastest, "ratio": {name: peers[fastest] / ms for name, ms in own.items()}}
    return summary


def label(name: str) -> str:
    peer, threads = name.split("/")
    return f"{peer}, {threads} thread{'s' if threads != '1' else ''}"


def table(results: dict[str, dict[str, Any]]) -> str:
    """A column for each model: everybody's times, then tilefuse's ratios."""
    each = list(results.values())
    header = ["ms a step", *(f"`{model}`" for model in results)]
    rows = [
        [label(name), *(f"{result['ms_per_step'][name]:.3f}" for result in each)]
        for name in each[0]["ms_per_step"]
    ]
    for name in each[0].get("ratio", {}):
        rows.append([f"{label(name)}: times faster than the fastest peer"])
        rows[-1] += [f"**{result['ratio'][name]:.2f}**" for result in each]
    return markdown_table(header, rows)


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(results), 3.6), layout="constrained", dpi=120)
    for axes, (model, result) in zip(
        figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
    ):
        medians = dict(sorted(result["ms_per_step"].items(), key=lambda item: -item[1]))
        colours = ["#2f6fb3" if name.startswith("tilefuse/") else "#b4bac4" for name in medians]
        bars = axes.barh([label(name) for name in medians], list(medians.values()), color=colours)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axes.set_title(
            f"{model}\n{'-'.join(map(str, MODELS[model].sizes))}, batch {MODELS[model].batch}", fontsize=10
        )
        axes.set_xlabel("ms a step")
        axes.margins(x=0.18)
        axes.tick_params(axis="y", labelsize=8, length=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has the peers (this one)"
    )
    parser.add_argument("--peers", default="torch,jax,keras", help=f"of {','.join(PEERS)} (torch,jax,keras)")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {','.join(MODELS)} (all)")
    parser.add_argument("--blocks", type=int, default=15, help="for each process and model (15)")
    parser.add_argument("--seconds", type=float, default=0.2, help="least time of a block (0.2)")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder (benchmarks/results)")
    options = parser.parse_args()

    cores = len(os.sched_getaffinity(0))
    wanted = [("tilefuse", n, sys.executable) for n in sorted({1, min(2, cores), cores})]
    peers = [peer for peer in options.peers.split(",") if peer]
    wanted += [(peer, n, options.peer_python) for peer in peers for n in sorted({1, cores})]
    with ExitStack() as stack:
        started_workers = [stack.enter_context(started(*each)) for each in wanted]
        workers = [worker for worker in started_workers if worker is not None]
        results = {}
        for model in options.models.split(","):
            results[model] = summarise(measure(workers, model, options.blocks, options.seconds))
            print(f"{model} {json.dumps(results[model]['ms_per_step'])}", flush=True)
        versions = {f"{worker.name}/{worker.threads}": worker.config for worker in workers}
    print(table(results))
    save(options.output, "train_step", {"versions": versions, "models": results}, table(results))
    plot(results, options.output / "train_step.png")
    print(f"written: {options.output}/train_step.json, .md, .png")


if __name__ == "__main__":
    main()
