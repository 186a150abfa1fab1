"""tilefuse's training step: one call of the compiled program for each batch; with "epoch", one for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tilefuse
from tilefuse import _device, layers
from tilefuse.variables import copy_to

from .models import Network

EPOCH = 128  # steps, at most: many, so that its beginning counts little

Batches = list[tuple[np.ndarray, np.ndarray]]
Run = Callable[[int], tuple[int, float]]


def setup(threads: int, device: str, precision: str) -> dict[str, object]:
    tilefuse.set_num_threads(threads)
    tilefuse.set_device(device)
    tilefuse.set_precision(precision)
    config = tilefuse.show_config("dicts") or {}
    if device.startswith("cuda"):
        config["gpu"] = _device.report()["cuda"].removeprefix("available: ")
    return config


def compiled(network: Network) -> tilefuse.Sequential:
    """The network, ready to be trained."""
    model = tilefuse.Sequential(network.keras_layers(layers))
    model.compile("adam", network.keras_loss)
    return model


def training(network: Network, device: str, precision: str, how: str = "steps") -> Run:
    tilefuse.seed(0)
    model = compiled(network)
    batches = network.batches()
    if network.binary:
        batches = [(x, y[:, None].astype(x.dtype)) for x, y in batches]
    model.fit(*batches[0], batch_size=network.batch, verbose=0)  # settles the batch size
    if how == "epoch":
        return epochs_of(model.program, batches, device, min(EPOCH, network.epoch))
    return steps_of(model.program, batches, device)


def steps_of(program: Any, batches: Batches, device: str) -> Run:
    """A step a call; each gives its loss, and so is waited for."""
    if device != "cpu":
        batches = [(copy_to(device, x), copy_to(device, y)) for x, y in batches]

    def run(steps: int) -> tuple[int, float]:
        loss = 0.0
        for i in range(steps):
            loss, _ = program.train_step(*batches[i % len(batches)], learning_rate=1e-3)
        return steps, loss

    return run


def epochs_of(program: Any, batches: Batches, device: str, epoch: int) -> Run:
    """An epoch a call, which gathers its batches from all samples in random order, as `fit` does."""
    repeats = epoch // len(batches)
    x, y = (copy_to(device, np.concatenate(each * repeats)) for each in zip(*batches, strict=True))
    order = np.random.default_rng(0).permutation(len(x))
    rates = np.full(epoch, 1e-3)

    def run(steps: int) -> tuple[int, float]:
        epochs = -(-steps // epoch)
        for _ in range(epochs):
            totals = program.train_epoch(x, y, order, rates)
        return epochs * epoch, totals["loss"]

    return run
