"""tilefuse's training step: one call of the compiled program for each batch; with "epoch", one for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tilefuse
from tilefuse import _device
from tilefuse.layers import Dense, Dropout, Input, Layer
from tilefuse.variables import copy_to

from .models import Mlp

EPOCH = 128  # steps: many, so that its beginning counts little

Batches = list[tuple[np.ndarray, np.ndarray]]
Run = Callable[[int], tuple[int, float]]


def setup(threads: int, device: str) -> dict[str, object]:
    tilefuse.set_num_threads(threads)
    tilefuse.set_device(device)
    config = tilefuse.show_config("dicts") or {}
    if device.startswith("cuda"):
        config["gpu"] = _device.report()["cuda"].removeprefix("available: ")
    return config


def training(mlp: Mlp, device: str, how: str = "steps") -> Run:
    tilefuse.seed(0)
    layers: list[Layer | Input] = [Input((mlp.sizes[0],))]
    for i, units in enumerate(mlp.sizes[1:-1]):
        layers.append(Dense(units, activation="relu"))
        if i == 0 and mlp.dropout:
            layers.append(Dropout(mlp.dropout))
    layers.append(Dense(mlp.sizes[-1], activation="sigmoid" if mlp.binary else "softmax"))
    model = tilefuse.Sequential(layers)
    model.compile("adam", "binary_crossentropy" if mlp.binary else "sparse_categorical_crossentropy")
    batches = mlp.batches()
    if mlp.binary:
        batches = [(x, y[:, None].astype(x.dtype)) for x, y in batches]
    model.fit(*batches[0], batch_size=mlp.batch, verbose=0)  # settles the batch size
    return {"steps": steps_of, "epoch": epochs_of}[how](model.program, batches, device)


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


def epochs_of(program: Any, batches: Batches, device: str) -> Run:
    """An epoch a call, which gathers its batches from all samples in random order, as `fit` does."""
    repeats = EPOCH // len(batches)
    x, y = (copy_to(device, np.concatenate(each * repeats)) for each in zip(*batches, strict=True))
    order = np.random.default_rng(0).permutation(len(x))
    rates = np.full(EPOCH, 1e-3)

    def run(steps: int) -> tuple[int, float]:
        epochs = -(-steps // EPOCH)
        for _ in range(epochs):
            totals = program.train_epoch(x, y, order, rates)
        return epochs * EPOCH, totals["loss"]

    return run
