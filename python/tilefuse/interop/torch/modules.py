"""Modules of `torch.nn` on tilefuse's kernels: the same constructors, attributes, state dicts and numerics.

Images are NCHW as everywhere in PyTorch. In the memory format `torch.channels_last` they go in without a
copy; others are copied first. Results are in channels_last. What a module can't do its constructor refuses; a
call that its kernels can't take, such as one with a target to ignore, with 16-bit numbers or with what traces
a function, goes to PyTorch's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import functions as F

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "RMSNorm",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


class _Checked:
    """Refuses, when made, what `cannot` says; when called, leaves to PyTorch what kernels don't take."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        forward = vars(cls).get("forward")
        if forward is None:
            return

        @functools.wraps(forward)
        def call(self: Any, input: Tensor, *others: Tensor) -> Tensor:
            if _is_taken(input):
                return forward(self, input, *others)
            return _afterwards(self, super(cls, self).forward(input, *others))  # type: ignore[misc]

        cls.forward = call  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        problem = type(self).cannot(self)
        if problem:
            raise ValueError(f"tilefuse.torch.{type(self).__name__}: {problem}; torch.nn has a module for it")

    @staticmethod
    def cannot(module: Any) -> str | None:
        """Return why the kernels can't do what a module of `torch.nn` does; None where they can."""
        for parameter in module.parameters():
            if parameter.dtype not in (torch.float32, torch.float64) or parameter.device.type != "cpu":
                place = f"{parameter.dtype} on {parameter.device}"
                return f"parameters are {place}; expected float32 or float64 on cpu"
        return None


def _is_taken(x: Any) -> bool:
    """Whether kernels take such an input. Under autocast, 16 bits are converted for them."""
    if not isinstance(x, Tensor) or not x.is_cpu:
        return False
    return x.dtype in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu")


def _afterwards(module: Any, y: Tensor) -> Tensor:
    """What a fused module does after its own work, by PyTorch."""
    if getattr(module, "activation", None) is not None:
        y = getattr(nn.functional, module.activation)(y)
    return y if getattr(module, "pool", None) is None else nn.functional.max_pool2d(y, module.pool)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _nchw(y: Tensor) -> Tensor:
    return y.permute(0, 3, 1, 2)


def _on_images(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of NHWC on NCHW, or on one image without the first axis."""
    if x.ndim == 3:
        return _nchw(function(_nhwc(x[None])))[0]
    if x.ndim != 4:
        raise ValueError(f"the input has shape {tuple(x.shape)}; expected [n, c, h, w] or [c, h, w]")
    return _nchw(function(_nhwc(x)))


def _elementwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of each element, which keeps images in channels_last as they lie."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return _nchw(function(_nhwc(x)))
    return function(x)


class _Activated:
    """What `replace_modules` may let a module do besides its own."""

    activation: str | None = None

    def extra_repr(self) -> str:
        own = super().extra_repr()  # type: ignore[misc]
        return own if self.activation is None else f"{own}, activation={self.activation}"


class Linear(_Checked, _Activated, nn.Linear):
    """As `torch.nn.Linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dense(input, self.weight.t(), self.bias, self.activation)


class Conv2d(_Checked, _Activated, nn.Conv2d):
    """As `torch.nn.Conv2d` with zeros for padding.

    The weight has PyTorch's shape, [f, c / groups, h, w], and lies in memory as the kernels read it, as [h,
    w, c / groups, f]. A weight that lies in another way (put there by ``load_state_dict(assign=True)``, for
    one) is copied in each call.
    """

    pool: tuple[int, int] | None = None  # of the max-pooling that follows, by replace_modules

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lay_out()

    @staticmethod
    def cannot(module: Any) -> str | None:
        if module.padding_mode != "zeros":
            return f"padding_mode is {module.padding_mode!r}; expected 'zeros'"
        return _Checked.cannot(module)

    def lay_out(self) -> None:
        """Put the weight in memory as the kernels read it; it stays the same Parameter."""
        weight = self._parameters.get("weight")
        if weight is not None and not nn.parameter.is_lazy(weight):
            weight.data = weight.data.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        result = super()._apply(fn, recurse)
        self.lay_out()
        return result

    def forward(self, input: Tensor) -> Tensor:
        return _on_images(self._convolved, input)

    def _convolved(self, x: Tensor) -> Tensor:
        w = self.weight.permute(2, 3, 1, 0)
        how = {
            "strides": self.stride,
            "padding": self.padding if isinstance(self.padding, str) else tuple((n, n) for n in self.padding),
            "dilation": self.dilation,
            "groups": self.groups,
            "activation": self.activation,
        }
        if self.pool is None:
            return F.conv2d(x, w, self.bias, **how)
        return F.conv2d_max_pool2d(x, w, self.bias, self.pool, **how)[0]

    def extra_repr(self) -> str:
        own = super().extra_repr()
        return own if self.pool is None else f"{own}, max_pool={self.pool}"


class MaxPool2d(_Checked, nn.MaxPool2d):
    """As `torch.nn.MaxPool2d`, without dilation, indices and ceil_mode."""

    @staticmethod
    def cannot(module: Any) -> str | None:
        if _pair(module.dilation) != (1, 1) or module.return_indices or module.ceil_mode:
            return "expected dilation=1, return_indices=False and ceil_mode=False"
        return None

    def forward(self, input: Tensor) -> Tensor:
        padding = tuple((n, n) for n in _pair(self.padding))
        return _on_images(lambda x: F.max_pool2d(x, self.kernel_size, self.stride, padding), input)


class AvgPool2d(_Checked, nn.AvgPool2d):
    """As `torch.nn.AvgPool2d`, without ceil_mode and divisor_override."""

    @staticmethod
    def cannot(module: Any) -> str | None:
        if module.ceil_mode or module.divisor_override is not None:
            return "expected ceil_mode=False and divisor_override=None"
        return None

    def forward(self, input: Tensor) -> Tensor:
        padding = tuple((n, n) for n in _pair(self.padding))

        def pooled(x: Tensor) -> Tensor:
            return F.avg_pool2d(x, self.kernel_size, self.stride, padding, self.count_include_pad)

        return _on_images(pooled, input)


class AdaptiveAvgPool2d(_Checked, nn.AdaptiveAvgPool2d):
    """As `torch.nn.AdaptiveAvgPool2d` with an output of one pixel: the mean of each image."""

    @staticmethod
    def cannot(module: Any) -> str | None:
        size = module.output_size
        return None if size in (1, (1, 1), [1, 1]) else f"output_size is {size}; expected 1"

    def forward(self, input: Tensor) -> Tensor:
        return _on_images(lambda x: F.global_avg_pool2d(x)[:, None, None], input)


class _BatchNorm(_Checked, _Activated):
    """As the class of `torch.nn`."""

    def forward(self: Any, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        x = _nhwc(input) if input.ndim == 4 else input.movedim(1, -1)
        y = self._normalised(x)
        return _nchw(y) if input.ndim == 4 else y.movedim(-1, 1)

    def _normalised(self: Any, x: Tensor) -> Tensor:
        how = {"epsilon": self.eps, "activation": self.activation}
        if not self.training and self.running_mean is not None:
            return F.batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, **how)
        count = x.numel() // x.shape[-1] if x.shape[-1] else 0
        if self.training and count == 1:
            raise ValueError(f"the input has {count} values for each channel; training needs more than one")
        y, mean, inv_std = F.batch_norm(x, self.weight, self.bias, None, None, training=True, **how)
        if self.training and self.track_running_stats and count > 0:
            self._follow(mean, inv_std, count)
        return y

    @torch.no_grad()
    def _follow(self: Any, mean: Tensor, inv_std: Tensor, count: int) -> None:
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        variance = inv_std.pow(-2).sub_(self.eps).mul_(count / (count - 1))  # unbiased
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """As `torch.nn.BatchNorm1d`."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """As `torch.nn.BatchNorm2d`."""


def _over_rows(module: Any, x: Tensor, function: Callable[[Tensor, Any], Tensor]) -> Tensor:
    """A function of the last axis on all axes that the module normalises."""
    axes = len(module.normalized_shape)
    if x.shape[x.ndim - axes :] != tuple(module.normalized_shape):
        expected = ", ".join(map(str, module.normalized_shape))
        raise ValueError(f"the input has shape {tuple(x.shape)}; expected [..., {expected}]")
    if axes == 1:
        return function(x, lambda weight: weight)
    flat = function(x.flatten(-axes), lambda weight: None if weight is None else weight.flatten())
    return flat.view(x.shape)


class LayerNorm(_Checked, nn.LayerNorm):
    """As `torch.nn.LayerNorm`."""

    def forward(self, input: Tensor) -> Tensor:
        def normalised(x: Tensor, flat: Any) -> Tensor:
            return F.layer_norm(x, flat(self.weight), flat(self.bias), epsilon=self.eps)

        return _over_rows(self, input, normalised)


class RMSNorm(_Checked, nn.RMSNorm):
    """As `torch.nn.RMSNorm`."""

    def forward(self, input: Tensor) -> Tensor:
        epsilon = torch.finfo(input.dtype).eps if self.eps is None else self.eps
        return _over_rows(self, input, lambda x, flat: F.rms_norm(x, flat(self.weight), epsilon=epsilon))


class ReLU(_Checked, nn.ReLU):
    """As `torch.nn.ReLU`; with `inplace`, too, the result is a new tensor."""

    def forward(self, input: Tensor) -> Tensor:
        return _elementwise(F.relu, input)


class LeakyReLU(_Checked, nn.LeakyReLU):
    """As `torch.nn.LeakyReLU`, for slopes that are not negative."""

    @staticmethod
    def cannot(module: Any) -> str | None:
        slope = module.negative_slope
        return None if slope >= 0 else f"negative_slope is {slope}; expected none below 0"

    def forward(self, input: Tensor) -> Tensor:
        return _elementwise(lambda x: F.leaky_relu(x, float(self.negative_slope)), input)


class ELU(_Checked, nn.ELU):
    """As `torch.nn.ELU`."""

    def forward(self, input: Tensor) -> Tensor:
        return _elementwise(lambda x: F.elu(x, float(self.alpha)), input)


class SELU(_Checked, nn.SELU):
    """As `torch.nn.SELU`."""

    def forward(self, input: Tensor) -> Tensor:
        return _elementwise(F.selu, input)


class GELU(_Checked, nn.GELU):
    """As `torch.nn.GELU`."""

    def forward(self, input: Tensor) -> Tensor:
        return _elementwise(lambda x: F.gelu(x, self.approximate == "tanh"), input)


class SiLU(_Checked, nn.SiLU):
    """As `torch.nn.SiLU`."""

    def forward(self, input: Tensor) -> Tensor:
        return _elementwise(F.silu, input)


class Sigmoid(_Checked, nn.Sigmoid):
    """As `torch.nn.Sigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return _elementwise(F.sigmoid, input)


class Tanh(_Checked, nn.Tanh):
    """As `torch.nn.Tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return _elementwise(F.tanh, input)


class Softplus(_Checked, nn.Softplus):
    """As `torch.nn.Softplus` with ``beta=1``; exact beyond its threshold of 20, too."""

    @staticmethod
    def cannot(module: Any) -> str | None:
        if module.beta != 1 or module.threshold < 20:
            return f"beta is {module.beta} and threshold {module.threshold}; expected 1 and at least 20"
        return None

    def forward(self, input: Tensor) -> Tensor:
        return _elementwise(F.softplus, input)


class Softmax(_Checked, nn.Softmax):
    """As `torch.nn.Softmax` with a `dim`."""

    @staticmethod
    def cannot(module: Any) -> str | None:
        return "dim is None; expected the number of an axis" if module.dim is None else None

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class LogSoftmax(_Checked, nn.LogSoftmax):
    """As `torch.nn.LogSoftmax` with a `dim`."""

    cannot = Softmax.cannot

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


class Dropout(_Checked, nn.Dropout):
    """As `torch.nn.Dropout`, with masks of its own that `torch.manual_seed` determines.

    In a compiled function, and for ``p=1``, it is PyTorch's.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        if self.p == 1 or torch.compiler.is_compiling():
            return super().forward(input)
        seed = int(torch.empty((), dtype=torch.int64).random_())
        return _elementwise(lambda x: F.dropout(x, float(self.p), seed=seed)[0], input)


class _Loss(_Checked):
    """A loss with the reductions "mean" and "sum"."""

    @staticmethod
    def cannot(module: Any) -> str | None:
        if getattr(module, "weight", None) is not None or getattr(module, "pos_weight", None) is not None:
            return "weight and pos_weight are not supported"
        if module.reduction not in ("mean", "sum"):
            return f"reduction is {module.reduction!r}; expected 'mean' or 'sum'"
        return None

    @staticmethod
    def _is_plain(input: Tensor, target: Tensor) -> bool:
        """Whether each number has a target of its own that is a constant."""
        alike = input.shape == target.shape and input.dtype == target.dtype and not target.requires_grad
        return alike and input.ndim > 0 and input.numel() > 0

    def _reduced(self: Any, mean: Tensor, count: int) -> Tensor:
        return mean if self.reduction == "mean" else mean * count


class CrossEntropyLoss(_Loss, nn.CrossEntropyLoss):
    """As `torch.nn.CrossEntropyLoss`, without weights.

    Batches with targets to ignore, targets with a gradient, and compiled functions get PyTorch's.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        rows = target if target.ndim < input.ndim else input[:, 0] if input.ndim > 1 else input[0]
        ours = not torch.compiler.is_compiling() and input.numel() > 0 and not target.requires_grad
        if not ours or (target.ndim < input.ndim and bool((target == self.ignore_index).any())):
            return super().forward(input, target)
        if input.ndim > 2:
            input = input.movedim(1, -1)
            target = target.movedim(1, -1) if target.ndim == input.ndim else target
        mean = F.softmax_cross_entropy(input, target, label_smoothing=float(self.label_smoothing))[0]
        if target.ndim == input.ndim > 2:
            mean = mean * (
                rows.numel() / len(input)
            )  # PyTorch's mean of distributions is over the batch alone
        return self._reduced(mean, len(input) if target.ndim == input.ndim > 2 else rows.numel())


class BCEWithLogitsLoss(_Loss, nn.BCEWithLogitsLoss):
    """As `torch.nn.BCEWithLogitsLoss`, without weights.

    Targets with a gradient, or of another dtype, get PyTorch's.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if not self._is_plain(input, target):
            return super().forward(input, target)
        return self._reduced(F.sigmoid_binary_cross_entropy(input, target)[0], input.numel())


class MSELoss(_Loss, nn.MSELoss):
    """As `torch.nn.MSELoss`.

    Shapes that broadcast, and targets with a gradient or of another dtype, get PyTorch's.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if not self._is_plain(input, target):
            return super().forward(input, target)
        return self._reduced(F.mean_squared_error(input, target)[0], input.numel())
