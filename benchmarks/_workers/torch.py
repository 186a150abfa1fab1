"""PyTorch's training step: eager, with the fused Adam."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from .models import Mlp


def setup(threads: int) -> dict[str, object]:
    torch.set_num_threads(threads)
    return {"torch": torch.__version__}


def training(mlp: Mlp, compiled: bool = False) -> Callable[[int], tuple[int, float]]:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(mlp.sizes)):
        if i:
            layers.append(nn.ReLU())
        if i == 1 and mlp.dropout:
            layers.append(nn.Dropout(mlp.dropout))
        layers.append(nn.Linear(inputs, outputs))
    net = nn.Sequential(*layers).train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    batches = [
        (
            torch.from_numpy(x),
            torch.from_numpy(y).float()[:, None] if mlp.binary else torch.from_numpy(y).long(),
        )
        for x, y in mlp.batches()
    ]
    loss_function: Any = (
        nn.functional.binary_cross_entropy_with_logits if mlp.binary else nn.functional.cross_entropy
    )

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss_function(net(x), y)

    if compiled:
        forward = torch.compile(forward)

    def run(steps: int) -> tuple[int, float]:
        for i in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = forward(*batches[i % len(batches)])
            loss.backward()
            optimizer.step()
        return steps, loss.item()

    return run
