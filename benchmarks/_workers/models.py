"""The networks whose training steps are timed, and the batches for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mlp:
    """Dense layers of these sizes with relu between them; one output: a sigmoid, more: a softmax.

    Adam with a rate of 1e-3, float32, dropout after the first hidden layer.
    """

    sizes: tuple[int, ...]
    batch: int
    dropout: float = 0.0

    @property
    def binary(self) -> bool:
        return self.sizes[-1] == 1

    @property
    def chance_loss(self) -> float:
        """The loss of a network that knows nothing."""
        return math.log(max(self.sizes[-1], 2))

    def batches(self, number: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of x, float32 [batch, inputs], and of labels, int32 [batch]."""
        rng = np.random.default_rng(0)
        return [
            (
                rng.random((self.batch, self.sizes[0]), dtype=np.float32),
                rng.integers(0, max(self.sizes[-1], 2), self.batch).astype(np.int32),
            )
            for _ in range(number)
        ]


MODELS = {
    "mlp_binary": Mlp((784, 64, 64, 1), 128),
    "mlp_softmax": Mlp((784, 64, 64, 10), 32),
    "mlp_dropout": Mlp((784, 128, 10), 32, dropout=0.2),
    "mlp_wide": Mlp((784, 512, 256, 10), 128),
}
