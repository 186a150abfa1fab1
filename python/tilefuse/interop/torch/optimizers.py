"""Optimizers of `torch.optim` whose step is one call of a kernel over all parameters.

Constructors, defaults, parameter groups, hooks, numerics and state dicts are PyTorch's; a state dict of one
can be loaded into the other. `foreach`, `fused` and `capturable` change nothing.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tilefuse._device import native

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop"]

_Group = dict[str, Any]


class _OneKernel:
    """A step in one call for all parameters that have a dtype and a number of steps in common."""

    param_groups: list[_Group]
    state: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if any(group.get("differentiable") for group in self.param_groups):
            raise ValueError("differentiable is True; a kernel's step has no gradient: use torch.optim's")
        # fused=True has set it: GradScaler would leave the scale to the step.
        self._step_supports_amp_scaling = False

    def slots(self, group: _Group) -> list[str]:
        """Return the names in a parameter's state of what the kernel updates along with it."""
        raise NotImplementedError

    def rule(self, group: _Group, step: int) -> dict[str, Any]:
        """Return the update as the kernel is to make it, at a parameter's step of that number, from 1 on."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss again, and its gradients.

        Returns
        -------
        What `closure` returned.

        Raises
        ------
        TypeError
            A parameter or gradient is not of float32 or float64 in the CPU's memory, or is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_of(group)
        return loss

    def _step_of(self, group: _Group) -> None:
        names = self.slots(group)
        calls: dict[Any, tuple[list[Any], list[Any], list[Any]]] = collections.defaultdict(
            lambda: ([], [], [])
        )
        steps = []
        for p in group["params"]:
            if p.grad is None:
                continue
            number = self._begin(p, group, names)
            if "step" in self.state[p]:
                steps.append(self.state[p]["step"])
            parameters, gradients, slots = calls[p.dtype, number]
            w, *state = self._memory(p, names)
            parameters.append(w)
            gradients.append(_elements(p.grad, p))
            slots.append(state)
        if steps:
            torch._foreach_add_(steps, 1)
        rate = float(group["lr"])
        for (_, number), (parameters, gradients, slots) in calls.items():
            rule = {"convention": "torch", "learning_rate": rate, "maximize": group["maximize"]}
            native().optimizer_step(rule | self.rule(group, number), parameters, gradients, slots)

    def _begin(self, p: Tensor, group: _Group, names: list[str]) -> int:
        """Make what is missing in a parameter's state; return the number of the step that is to be made."""
        state = self.state[p]
        if "step" not in state:
            state["step"] = torch.tensor(0.0)
        for name in names:
            if state.get(name) is None:
                state[name] = torch.zeros_like(p)
        return int(state["step"]) + 1

    def _memory(self, p: Tensor, names: list[str]) -> list[np.ndarray]:
        """Return the elements of a parameter and of its state, in the order in which the parameter's lie."""
        state, known = self.state[p], self.__dict__.setdefault("_known", {})
        key = (p.data_ptr(), *(state[name].data_ptr() for name in names))
        found = known.get(p)
        if found is None or found[0] != key:
            _check_dense(p)
            for name in names:
                if state[name].stride() != p.stride():
                    state[name] = torch.empty_like(p).copy_(state[name])
            key = (p.data_ptr(), *(state[name].data_ptr() for name in names))
            found = known[p] = (key, [_elements(p, p), *(_elements(state[name], p) for name in names)])
        return found[1]


def _elements(x: Tensor, like: Tensor) -> np.ndarray:
    """`x` as one axis, in the order in which the elements of `like` lie in memory; copied if it differs."""
    if x.dtype != like.dtype or x.dtype not in (torch.float32, torch.float64) or x.layout != torch.strided:
        raise TypeError(
            f"a parameter is of {like.dtype}, its gradient or state of {x.dtype} ({x.layout}); "
            "expected dense tensors of float32 or float64: use torch.optim's optimizer for others"
        )
    if x.device.type != "cpu":
        raise TypeError(f"a parameter or its gradient is on {x.device}; expected it in the CPU's memory")
    if x.stride() != like.stride():
        x = torch.empty_like(like).copy_(x)
    return x.detach().numpy() if x.is_contiguous() else x.as_strided((x.numel(),), (1,)).numpy()


def _check_dense(p: Tensor) -> None:
    if torch.empty_like(p).stride() != p.stride():  # those of a dense tensor are preserved
        raise TypeError(
            f"a parameter of shape {tuple(p.shape)} has strides {p.stride()}, with gaps or overlaps"
        )


class SGD(_OneKernel, torch.optim.SGD):
    """As `torch.optim.SGD`: momentum, dampening, Nesterov's step, weight decay."""

    def slots(self, group: _Group) -> list[str]:
        return ["momentum_buffer"] if group["momentum"] != 0 else []

    def rule(self, group: _Group, step: int) -> dict[str, Any]:
        return {
            "kind": "sgd",
            "momentum": float(group["momentum"]),
            "nesterov": group["nesterov"],
            "dampening": float(group["dampening"])
            if step > 1
            else 0.0,  # the first gradient goes in as it is
            "l2": group["weight_decay"] / 2,
        }

    def _begin(self, p: Tensor, group: _Group, names: list[str]) -> int:
        state = self.state[p]
        for name in names:
            if state.get(name) is None:
                state[name] = torch.zeros_like(p)
                return 1
        return 2


class Adam(_OneKernel, torch.optim.Adam):
    """As `torch.optim.Adam`, with AMSGrad."""

    def slots(self, group: _Group) -> list[str]:
        return ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * group["amsgrad"]

    def rule(self, group: _Group, step: int) -> dict[str, Any]:
        decoupled = isinstance(self, torch.optim.AdamW) or group.get("decoupled_weight_decay")
        decay = {"weight_decay": group["weight_decay"]} if decoupled else {"l2": group["weight_decay"] / 2}
        beta_1, beta_2 = group["betas"]
        return {
            "kind": "adam",
            "step": step,
            "beta_1": float(beta_1),
            "beta_2": float(beta_2),
            "epsilon": group["eps"],
            "amsgrad": group["amsgrad"],
            **decay,
        }


class AdamW(_OneKernel, torch.optim.AdamW):
    """As `torch.optim.AdamW`, with AMSGrad."""

    slots = Adam.slots
    rule = Adam.rule


class RMSprop(_OneKernel, torch.optim.RMSprop):
    """As `torch.optim.RMSprop`: momentum, centered."""

    def slots(self, group: _Group) -> list[str]:
        return (
            ["square_avg"] + ["momentum_buffer"] * (group["momentum"] > 0) + ["grad_avg"] * group["centered"]
        )

    def rule(self, group: _Group, step: int) -> dict[str, Any]:
        return {
            "kind": "rmsprop",
            "rho": group["alpha"],
            "momentum": float(group["momentum"]),
            "centered": group["centered"],
            "epsilon": group["eps"],
            "l2": group["weight_decay"] / 2,
        }


class Adagrad(_OneKernel, torch.optim.Adagrad):
    """As `torch.optim.Adagrad`."""

    def slots(self, group: _Group) -> list[str]:
        return ["sum"]

    def rule(self, group: _Group, step: int) -> dict[str, Any]:
        return {
            "kind": "adagrad",
            "learning_rate": float(group["lr"]) / (1 + (step - 1) * group["lr_decay"]),
            "epsilon": group["eps"],
            "l2": group["weight_decay"] / 2,
        }
