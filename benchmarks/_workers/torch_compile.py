"""PyTorch's training step with forward and backward compiled."""

from __future__ import annotations

from collections.abc import Callable

from . import torch as eager
from .models import Mlp

setup = eager.setup


def training(mlp: Mlp) -> Callable[[int], tuple[int, float]]:
    return eager.training(mlp, compiled=True)
