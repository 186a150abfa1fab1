"""PyTorch's training step: eager, with the fused Adam; all batches are where the network is.

With "compile", forward and backward are compiled; with "graph", on a GPU, the whole step is a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from .models import Mlp

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def setup(threads: int, device: str) -> dict[str, object]:
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")  # no TF32: tilefuse's products are as exact as float32's
    config: dict[str, object] = {"torch": torch.__version__}
    if device.startswith("cuda"):
        config |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "float32 products": "IEEE (TF32 off)",
        }
    return config


def training(mlp: Mlp, device: str, *how: str) -> Callable[[int], tuple[int, float]]:
    place = device if device.startswith("cuda") else "cpu"
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(mlp.sizes)):
        if i:
            layers.append(nn.ReLU())
        if i == 1 and mlp.dropout:
            layers.append(nn.Dropout(mlp.dropout))
        layers.append(nn.Linear(inputs, outputs))
    net = nn.Sequential(*layers).train().to(place)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True, capturable="graph" in how)
    batches = [
        (
            torch.from_numpy(x).to(place),
            (torch.from_numpy(y).float()[:, None] if mlp.binary else torch.from_numpy(y).long()).to(place),
        )
        for x, y in mlp.batches()
    ]
    loss_function: Any = (
        nn.functional.binary_cross_entropy_with_logits if mlp.binary else nn.functional.cross_entropy
    )

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss_function(net(x), y)

    if "compile" in how:  # tries out kernels where that takes seconds
        mode = "default" if place == "cpu" else "max-autotune-no-cudagraphs"
        forward = torch.compile(forward, mode=mode)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    steps = captured(step, batches) if "graph" in how else [lambda b=batch: step(*b) for batch in batches]

    def run(count: int) -> tuple[int, float]:
        for i in range(count):
            loss = steps[i % len(steps)]()
        return count, loss.item()  # waits for all steps: they are queued one after the other

    return run


def captured(step: Step, batches: Batches) -> list[Callable[[], torch.Tensor]]:
    """A graph of each batch's step, so that no batch is copied to where the only graph would expect it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for batch in batches[:3]:  # compiles, and makes Adam's moments
            step(*batch)
    torch.cuda.current_stream().wait_stream(stream)
    pool = torch.cuda.graph_pool_handle()
    return [replay(step, batch, pool, stream) for batch in batches]


def replay(step: Step, batch: tuple[torch.Tensor, torch.Tensor], pool: Any, stream: Any) -> Any:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream):
        loss = step(*batch)

    def run() -> torch.Tensor:
        graph.replay()
        return loss

    return run
