"""tilefuse's modules in the place of PyTorch's, in a model that exists."""

from __future__ import annotations

import collections
from typing import TypeVar

from torch import nn

from . import modules
from .modules import Conv2d, Linear, _BatchNorm, _pair

__all__ = ["replace_modules"]

_Model = TypeVar("_Model", bound=nn.Module)

_OURS = {getattr(nn, name): getattr(modules, name) for name in modules.__all__}

# Activations whose derivative needs no more than the output; all of them never fall.
_FUSED_ACTIVATIONS = {name: name.lower() for name in ("ReLU", "SELU", "Sigmoid", "Tanh", "Softplus")}


class Fused(nn.Identity):
    """What is left of a module whose work the one before it does."""

    into = was = ""

    def extra_repr(self) -> str:
        return f"{self.was} is part of {self.into}"


def replace_modules(model: _Model, *, fuse: bool = True) -> _Model:
    """Let the modules of a model run on tilefuse's kernels, wherever there is one that does the same.

    The modules stay the same objects and only change their class: parameters, buffers, hooks, names, modes
    and optimizers that were made before all stay what they are. The weights of convolutions are put into
    memory in another order (see `Conv2d`), in which they are not contiguous: what asks for contiguous ones,
    such as ``safetensors.torch.save_file`` or ``torch.optim.LBFGS``, needs copies. Subclasses of PyTorch's
    modules, modules that change their input (``inplace=True``), and whatever the kernels can't do (dtypes,
    modes of padding, ...), stay as they are.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    fuse : bool
        In each `torch.nn.Sequential`, let `Linear`, `Conv2d` and batch normalisation do the activation that
        follows, and `Conv2d` the max-pooling after that: one pass instead of several. What was fused stays in
        its place and does nothing. Not done where a module has hooks, or is used in two places. Who looks at
        a module's output later, by a hook or by calling a part of the model, sees it with the activation and
        the pooling; False leaves every module its own output.

    Returns
    -------
    torch.nn.Module
        `model` itself; its class, too, is changed if it is one of `torch.nn`.

    Examples
    --------
    >>> import tilefuse.torch
    >>> from torch import nn
    >>> tilefuse.torch.replace_modules(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True, activation=relu)
      (1): Fused(ReLU is part of 0)
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    uses = collections.Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for module in list(model.modules()):
        _replace(module)
    if fuse:
        for module in list(model.modules()):
            if type(module) is nn.Sequential:
                _fuse(module, uses)
    return model


def _replace(module: nn.Module) -> None:
    ours = _OURS.get(type(module))
    if ours is None or ours.cannot(module) is not None or getattr(module, "inplace", False):
        return
    module.__class__ = ours
    if isinstance(module, Conv2d):
        module.lay_out()


def _fuse(sequential: nn.Sequential, uses: collections.Counter[int]) -> None:
    before: nn.Module | None = None  # whose output the next module gets
    place = ""
    for name, module in sequential.named_children():
        if before is not None and _takes_over(before, module, uses):
            vars(module).update(was=type(module).__name__, into=place)
            module.__class__ = Fused
        elif not isinstance(module, Fused):
            before, place = module, name


def _takes_over(module: nn.Module, following: nn.Module, uses: collections.Counter[int]) -> bool:
    """Let `module` do what `following` does, if it can."""
    if any(uses[id(each)] > 1 or _has_hooks(each) for each in (module, following)):
        return False
    pooled = isinstance(module, Conv2d) and module.pool is not None
    activation = _activation_of(following)
    if isinstance(module, (Linear, Conv2d, _BatchNorm)) and activation is not None and not pooled:
        if module.activation is None:
            module.activation = activation
            return True
    elif isinstance(module, Conv2d) and isinstance(following, modules.MaxPool2d) and not pooled:
        window = _pair(following.kernel_size)
        if (
            _pair(following.stride) == window
            and _pair(following.padding) == (0, 0)
            and window[0] * window[1] <= 256
        ):
            module.pool = window
            return True
    return False


def _activation_of(module: nn.Module) -> str | None:
    kind = _OURS.get(type(module), type(module))  # PyTorch's own, where it works in place
    is_ours = kind in _OURS.values() and kind.cannot(module) is None
    return _FUSED_ACTIVATIONS.get(kind.__name__) if is_ours else None


def _has_hooks(module: nn.Module) -> bool:
    return any(value for key, value in vars(module).items() if key.endswith("_hooks"))
