"""tilefuse's kernels in PyTorch programs, on the CPU.

- `replace_modules(model)` lets a model that exists run on them: the one line that makes a program faster.
- `Linear`, `Conv2d`, `BatchNorm2d`, `CrossEntropyLoss`, ...: modules of `torch.nn` on tilefuse's kernels.
- `SGD`, `Adam`, `AdamW`, `RMSprop`, `Adagrad`: optimizers of `torch.optim`, a step of which is one kernel.
- `dense`, `conv2d`, `softmax`, ...: the functions of `tilefuse.ops` on tensors, differentiable.

All of it works under `torch.compile` and `torch.autocast`. Gradients of gradients and `torch.func`'s
transforms are not supported.

Examples
--------
>>> import torch, tilefuse.torch
>>> from torch import nn
>>> model = tilefuse.torch.replace_modules(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
>>> optimizer, loss_fn = tilefuse.torch.Adam(model.parameters()), tilefuse.torch.CrossEntropyLoss()
>>> loss = loss_fn(model(torch.randn(16, 4)), torch.randint(3, (16,)))
>>> loss.backward()
>>> optimizer.step()
"""

from . import functions, modules, optimizers
from .functions import *  # noqa: F403
from .modules import *  # noqa: F403
from .optimizers import *  # noqa: F403
from .replace import replace_modules

__all__ = ["replace_modules", *functions.__all__, *modules.__all__, *optimizers.__all__]
