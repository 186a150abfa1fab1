"""Whole training steps against PyTorch, JAX and Keras: forward, backward and Adam, of networks and images.

usage: python benchmarks/train_step.py [--device cuda] [--peer-python VENV/bin/python] [--peers torch,jax]
                                       [--models cnn28,cnn150|others] [--precision bfloat16]

Every peer runs with one thread, pinned to one core, and with as many threads as there are cores, and counts
at its best. Each (peer, threads) is a process of its own that lives through the whole run; they take turns in
short blocks, so that whatever the machine does meanwhile hits all of them alike. A time is the median of a
process's blocks.
On a GPU all batches are in its memory beforehand, and a block ends when the GPU has done all its steps.
tilefuse runs step by step, each waited for, and by the epoch; PyTorch eager, compiled, and each of these as
CUDA graphs of whole steps, all without waiting between steps.
In bfloat16, weights and Adam stay float32: tilefuse's set_precision, PyTorch's autocast, Keras's
mixed_bfloat16; JAX casts weights and samples.
"others" are more image networks. Writes train_step.json, .md and .png (of others: train_step_others; on a
GPU: train_step_cuda; in bfloat16: train_step_bfloat16) to benchmarks/results.
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
from _workers.models import MODELS, OTHERS, PROGRAMS

HERE = Path(__file__).resolve().parent
OWN = {"cpu": ["tilefuse"], "simt": ["tilefuse", "tilefuse-epoch"], "cuda": ["tilefuse", "tilefuse-epoch"]}
PEERS = {
    "cpu": ["torch", "torch-compile", "jax", "keras"],
    "simt": [],
    "cuda": ["torch", "torch-compile", "torch-graph", "torch-compile-graph"],
}
DEFAULT_PEERS = {"cpu": ["torch", "jax", "keras"]}  # elsewhere all
SETTLE = 0.03  # seconds between two processes' blocks; the first one's threads may spin for 20 ms


class Worker:
    """A process that trains when asked; `name` is "peer/threads", on a GPU "peer"."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name, self._process = name, process
        self.config = self._answer()

    @property
    def is_own(self) -> bool:
        return self.name.startswith("tilefuse")

    def train(self, model: str, steps: int) -> dict[str, float]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"model": model, "steps": steps}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its answer is the end of the file
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} has ended; see above")
        return json.loads(line)


@contextmanager
def started(peer: str, threads: int, device: str, precision: str, python: str) -> Iterator[Worker | None]:
    """A worker; None where a peer cannot start, such as when it is not installed."""
    command = [python, "-m", "_workers", peer, str(threads), device, precision]
    with subprocess.Popen(
        command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            try:
                worker = Worker(f"{peer}/{threads}" if device == "cpu" else peer, process)
            except RuntimeError as error:
                if peer in OWN["cuda"]:
                    sys.exit(str(error))
                print(f"left out: {error}", file=sys.stderr)
                worker = None
            yield worker
        finally:
            process.kill()


def measure(workers: list[Worker], model: str, blocks: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds a step of each block, by name. A peer that fails is left out from there on."""
    steps, loss = {}, {}
    least = max(4, MODELS[model].epoch // 8)
    for worker in list(workers):
        try:
            worker.train(model, least)  # compiles, and finds the way into the caches
            probe = worker.train(model, least)
        except RuntimeError as error:
            if worker.is_own:
                raise
            print(f"left out: {error}", file=sys.stderr)
            workers.remove(worker)
            continue
        steps[worker] = max(-(-least // 3), round(seconds * probe["steps"] / probe["seconds"]))
    times: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for block in range(blocks):
        for worker in workers[block % len(workers) :] + workers[: block % len(workers)]:
            time.sleep(SETTLE)
            result = worker.train(model, steps[worker])
            times[worker.name].append(1e3 * result["seconds"] / result["steps"])
            loss[worker] = result["loss"]
    for worker in workers:
        if not 0 <= loss[worker] < MODELS[model].chance_loss:
            raise RuntimeError(f"{worker.name} does not learn {model}: its loss is {loss[worker]}")
    return times


def summarise(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, the fastest peer, and how many times faster than it tilefuse is."""
    medians = {name: statistics.median(each) for name, each in times.items()}
    peers = {name: ms for name, ms in medians.items() if not name.startswith("tilefuse")}
    summary: dict[str, Any] = {"ms_per_step": medians, "blocks": times}
    if peers:
        fastest = min(peers, key=peers.__getitem__)
        own = {name: ms for name, ms in medians.items() if name not in peers}
        summary |= {"fastest_peer": fastest, "ratio": {name: peers[fastest] / ms for name, ms in own.items()}}
    return summary


def label(name: str) -> str:
    peer, _, threads = name.partition("/")
    if not threads:
        return peer
    return f"{peer}, {threads} thread{'s' if threads != '1' else ''}"


def table(results: dict[str, dict[str, Any]]) -> str:
    """A column for each model: everybody's times, then tilefuse's ratios."""
    each = list(results.values())
    header = ["ms a step", *(f"`{model}`" for model in results)]
    rows = [
        [label(name), *(cell(result["ms_per_step"].get(name)) for result in each)]
        for name in each[0]["ms_per_step"]
    ]
    for name in each[0].get("ratio", {}):
        rows.append([f"{label(name)}: times faster than the fastest peer"])
        rows[-1] += [bold(result.get("ratio", {}).get(name)) for result in each]
    return markdown_table(header, rows)


def cell(value: float | None) -> str:
    """Three digits, or all before the point."""
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def bold(value: float | None) -> str:
    return "-" if value is None else f"**{value:.2f}**"


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    columns = min(len(results), 3)
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(4 * columns, 3.6 * rows), layout="constrained", dpi=120)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (model, result) in zip(panels, results.items(), strict=False):
        medians = dict(sorted(result["ms_per_step"].items(), key=lambda item: -item[1]))
        colours = ["#2f6fb3" if name.startswith("tilefuse") else "#b4bac4" for name in medians]
        bars = axes.barh([label(name) for name in medians], list(medians.values()), color=colours)
        axes.bar_label(bars, fmt=cell, padding=3, fontsize=8)
        axes.set_title(f"{model}\n{MODELS[model].title}, batch {MODELS[model].batch}", fontsize=8)
        axes.set_xlabel("ms a step")
        axes.margins(x=0.18)
        axes.tick_params(axis="y", labelsize=8, length=0)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels:
        axes.set_visible(False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has the peers (this one)"
    )
    parser.add_argument(
        "--device", default="cpu", help="of tilefuse: cpu, simt or, with PyTorch's, cuda (cpu)"
    )
    parser.add_argument(
        "--peers",
        help=f"of {','.join(PEERS['cpu'])} (torch,jax,keras); on cuda {','.join(PEERS['cuda'])} (all)",
    )
    parser.add_argument(
        "--models",
        default=",".join(PROGRAMS),
        help=f"of {','.join(MODELS)}; or others, the last {len(OTHERS)} (the first {len(PROGRAMS)})",
    )
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="of products (float32)"
    )
    parser.add_argument("--blocks", type=int, default=15, help="for each process and model (15)")
    parser.add_argument("--seconds", type=float, default=0.2, help="least time of a block (0.2)")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder (benchmarks/results)")
    options = parser.parse_args()

    kind = options.device.partition(":")[0]
    if kind not in PEERS:
        parser.error(f"--device is {options.device}; expected one of {', '.join(PEERS)}")
    asked = DEFAULT_PEERS.get(kind, PEERS[kind]) if options.peers is None else options.peers.split(",")
    peers = [peer for peer in asked if peer]
    unknown = [peer for peer in peers if peer not in PEERS[kind]]
    if unknown:
        known = ", ".join(PEERS[kind]) or "none"
        parser.error(f"--peers has {', '.join(unknown)}; with --device {options.device} there are: {known}")

    others = options.models == "others"
    models = [*OTHERS] if others else options.models.split(",")
    if unknown := [model for model in models if model not in MODELS]:
        parser.error(f"--models has {', '.join(unknown)}; there are: {', '.join(MODELS)}, or others")
    suffixes = ["others"] * others + [kind] * (kind != "cpu")
    suffixes += [options.precision] * (options.precision != "float32")
    name = "_".join(["train_step", *suffixes])
    with ExitStack() as stack:
        started_workers = [stack.enter_context(started(*each)) for each in wanted(options, kind, peers)]
        workers = [worker for worker in started_workers if worker is not None]
        versions = {worker.name: worker.config for worker in workers}
        gpu = versions["tilefuse"]["gpu"] if kind == "cuda" else None
        results: dict[str, dict[str, Any]] = {}
        for model in models:
            results[model] = summarise(measure(workers, model, options.blocks, options.seconds))
            measured = {name.partition("/")[0] for name in results[model]["ms_per_step"]}
            results[model]["left_out"] = [peer for peer in peers if peer not in measured]
            print(f"{model} {json.dumps(results[model]['ms_per_step'])}", flush=True)
            save(
                options.output,
                name,
                {"precision": options.precision, "versions": versions, "models": results},
                table(results),
                gpu,
            )
    print(table(results))
    plot(results, options.output / f"{name}.png")
    print(f"written: {options.output}/{name}.json, .md, .png")


def wanted(options: argparse.Namespace, kind: str, peers: list[str]) -> list[tuple[str, int, str, str, str]]:
    """What to start: peer, threads, device, precision, interpreter."""
    cores = len(os.sched_getaffinity(0))
    own = sorted({1, min(2, cores), cores}) if kind == "cpu" else [cores]
    theirs = sorted({1, cores}) if kind == "cpu" else [cores]
    how = (options.device, options.precision)
    return [(peer, n, *how, sys.executable) for peer in OWN[kind] for n in own] + [
        (peer, n, *how, options.peer_python) for peer in peers for n in theirs
    ]


if __name__ == "__main__":
    main()
