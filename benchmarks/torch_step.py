"""A training step of a PyTorch program, eager, before and after `tilefuse.torch.replace_modules`.

usage: python benchmarks/torch_step.py [--blocks N] [--steps N] [--output DIR]

The network is cnn28 of train_step.py, with Adam. PyTorch's own step is measured in both memory formats, each
with one thread and with as many as there are cores, and with its fused Adam; it counts at its best. The kinds
take turns in short blocks, and a time is the median of a kind's blocks. Writes torch_step.json and .md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import tilefuse
import tilefuse.torch
import torch
from _report import markdown_table, save
from _workers.models import MODELS
from torch import nn

HERE = Path(__file__).resolve().parent
SETTLE = 0.03  # seconds between two kinds' blocks: threads may spin for 20 ms
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def network() -> nn.Sequential:
    """The layers of cnn28."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, filters in ((1, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, filters, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1], nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10))


def step_of(model: nn.Module, loss_fn: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def kinds(cores: int) -> dict[str, tuple[Step, torch.memory_format, int]]:
    """A step, the memory format of its batches, and PyTorch's threads, by name."""
    found: dict[str, tuple[Step, torch.memory_format, int]] = {}
    for form in (torch.contiguous_format, torch.channels_last):
        for threads in sorted({1, cores}):
            model = network().to(memory_format=form)
            optimizer = torch.optim.Adam(model.parameters(), fused=True)
            name = "NCHW" if form == torch.contiguous_format else "channels_last"
            name = f"PyTorch, {name}, {threads} thread{'s' if threads > 1 else ''}"
            found[name] = (step_of(model, nn.CrossEntropyLoss(), optimizer), form, threads)
    model = tilefuse.torch.replace_modules(network())
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    how = (torch.contiguous_format, 1)
    found["replace_modules"] = (step_of(model, nn.CrossEntropyLoss(), optimizer), *how)
    model = tilefuse.torch.replace_modules(network())
    optimizer = tilefuse.torch.Adam(model.parameters())
    found["replace_modules, Adam, loss"] = (
        step_of(model, tilefuse.torch.CrossEntropyLoss(), optimizer),
        *how,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=15, help="of each kind (15)")
    parser.add_argument("--steps", type=int, default=25, help="of a block (25)")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder (benchmarks/results)")
    options = parser.parse_args()

    pairs = MODELS["cnn28"].batches()
    batches = [(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y).long()) for x, y in pairs]
    measured = kinds(len(os.sched_getaffinity(0)))
    times: dict[str, list[float]] = {name: [] for name in measured}
    losses = {}
    for block in range(options.blocks + 1):
        for name, (step, form, threads) in measured.items():
            torch.set_num_threads(threads)
            own = [(x.contiguous(memory_format=form), y) for x, y in batches]
            time.sleep(SETTLE)
            start = time.perf_counter()
            for i in range(options.steps):
                losses[name] = float(step(*own[i % len(own)]))
            if block > 0:  # the first one warms up
                times[name].append(1e3 * (time.perf_counter() - start) / options.steps)

    medians = {name: statistics.median(each) for name, each in times.items()}
    best = min((name for name in medians if name.startswith("PyTorch")), key=medians.__getitem__)
    rows = [
        [name, f"{ms:.2f}", f"{medians[best] / ms:.2f}", f"{losses[name]:.3f}"]
        for name, ms in medians.items()
    ]
    table = markdown_table(["cnn28, batch 32", "ms a step", f"times faster than {best}", "last loss"], rows)
    print(table)
    versions = {"torch": torch.__version__, "tilefuse": tilefuse.__version__}
    save(options.output, "torch_step", {"versions": versions, "ms_per_step": medians, "blocks": times}, table)


if __name__ == "__main__":
    main()
