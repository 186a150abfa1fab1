"""PyTorch's training step: eager, with the fused Adam; all batches are where the network is.

With "compile", forward and backward are compiled; with "graph", on a GPU, the whole step is a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from .models import Conv, Dense, Drop, Flatten, Network, Pool

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def setup(threads: int, device: str, precision: str) -> dict[str, object]:
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


def compiled(network: Network, place: str) -> nn.Module:
    """The network before the sigmoid or softmax; images have channels last, which is faster."""
    torch.manual_seed(0)
    stack: list[nn.Module] = []
    for layer, hidden in zip(network.layers, network.is_hidden, strict=True):
        match layer:
            case Conv(filters, kernel, strides):
                padding = kernel // 2 if layer.padded else 0  # for strides another one than Keras's, as large
                stack += [nn.LazyConv2d(filters, kernel, strides, padding), nn.ReLU()]
            case Pool():
                stack.append(nn.MaxPool2d(2))
            case Flatten():
                stack.append(nn.Flatten())
            case Drop(rate):
                stack.append(nn.Dropout(rate))
            case Dense(units):
                stack += [nn.LazyLinear(units), nn.ReLU()] if hidden else [nn.LazyLinear(units)]
    net = nn.Sequential(*stack).to(place)
    net(samples(np.zeros((1, *network.inputs), np.float32)).to(place))  # the layers see how large they are
    return net.to(memory_format=torch.channels_last).train()


def samples(x: np.ndarray) -> torch.Tensor:
    """An array of samples; images, which have channels last, as PyTorch names their axes."""
    tensor = torch.from_numpy(x)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def step_of(network: Network, place: str, precision: str, *how: str) -> tuple[Step, Batches]:
    """The function that makes a step with a batch, and the batches."""
    net = compiled(network, place)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True, capturable="graph" in how)
    batches = [
        (
            samples(x).to(place),
            (torch.from_numpy(y).float()[:, None] if network.binary else torch.from_numpy(y).long()).to(
                place
            ),
        )
        for x, y in network.batches()
    ]
    loss_function: Any = (
        nn.functional.binary_cross_entropy_with_logits if network.binary else nn.functional.cross_entropy
    )
    cast = torch.autocast(place.partition(":")[0], torch.bfloat16, enabled=precision == "bfloat16")

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with cast:
            logits = net(x)
        return loss_function(logits.float(), y)

    if "compile" in how:  # tries out kernels where that takes seconds
        mode = "default" if place == "cpu" else "max-autotune-no-cudagraphs"
        forward = torch.compile(forward, mode=mode)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, batches


def training(network: Network, device: str, precision: str, *how: str) -> Callable[[int], tuple[int, float]]:
    step, batches = step_of(network, device if device.startswith("cuda") else "cpu", precision, *how)
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
