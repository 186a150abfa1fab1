"""tilefuse's training step: one call of the compiled program for a batch."""

from __future__ import annotations

from collections.abc import Callable

import tilefuse
from tilefuse.layers import Dense, Dropout, Input, Layer

from .models import Mlp


def setup(threads: int) -> dict[str, object]:
    tilefuse.set_num_threads(threads)
    return tilefuse.show_config("dicts") or {}


def training(mlp: Mlp) -> Callable[[int], tuple[int, float]]:
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
    step = model.program.train_step

    def run(steps: int) -> tuple[int, float]:
        loss = 0.0
        for i in range(steps):
            loss, _ = step(*batches[i % len(batches)], learning_rate=1e-3)
        return steps, loss

    return run
