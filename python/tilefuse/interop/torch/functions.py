"""The functions of `tilefuse.ops` on tensors, differentiable: the table of all, with what they return.

A call of a function whose gradient is not wanted goes straight to the kernel. Names, arguments and results
are those of `tilefuse.ops` (images as NHWC, filters as HWIO); `out` and `beta` of `matmul` are not there.
Tensors are of float32 or float64, in the CPU's memory. Under `torch.autocast` tensors of 16 bits are
converted to float32, products are made in precision "bfloat16", and results are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tilefuse import _core, ops
from tilefuse._gradients import RULES
from tilefuse.ops._arrays import as_given
from tilefuse.ops._windows import windows
from tilefuse.ops.conv import conv2d_pooled, conv2d_pooled_backward

from ._registry import PLAIN, TRACED, Op, public

_Arguments = dict[str, Any]
_Results = Callable[[_Arguments], Any]


def _like(*names: str) -> _Results:
    """Results with the shapes of these arguments."""
    if len(names) == 1:
        return lambda a: _new(a[names[0]], a[names[0]].shape)
    return lambda a: tuple(_new(a[name], a[name].shape) for name in names)


def _new(like: Tensor, shape: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device)


def _dense(a: _Arguments) -> Tensor:
    return _new(a["x"], (*a["x"].shape[:-1], a["w"].shape[1]))


def _weighted_backward(a: _Arguments) -> tuple[Tensor, ...]:
    x, w = a["x"], a["w"]
    return _new(x, x.shape), _new_laid_out(w), _new(w, w.shape[-1:])


def _new_laid_out(w: Tensor) -> Tensor:
    transposed = w.ndim == 2 and w.t().is_contiguous() and not w.is_contiguous()
    return _new(w, w.t().shape).t() if transposed else _new(w, w.shape)


def _matmul(a: _Arguments) -> Tensor:
    left, right = a["a"].shape, a["b"].shape
    m = left[-1] if a["transpose_a"] else left[-2]
    n = right[-2] if a["transpose_b"] else right[-1]
    return _new(a["a"], (*torch.broadcast_shapes(left[:-2], right[:-2]), m, n))


def _conv2d(a: _Arguments) -> Tensor:
    return _windows(a, tuple(a["w"].shape[:2]), a["w"].shape[3], a["dilation"])


def _conv2d_pooled(a: _Arguments) -> tuple[Tensor, Tensor]:
    n, height, width, channels = _conv2d(a).shape
    rows, columns = a["pool_size"]
    shape = (n, height // rows, width // columns, channels)
    return _new(a["x"], shape), _new(a["x"], shape, torch.uint8)


def _conv2d_pooled_rule(f: Any, dy: Any, result: Any, a: _Arguments) -> Sequence[Any]:
    how = {
        key: a[key]
        for key in ("pool_size", "strides", "padding", "dilation", "groups", "activation", "precision")
    }
    return f["conv2d_pooled_backward"](dy, a["x"], a["w"], *result, **how)


def _pool2d(a: _Arguments) -> Tensor:
    return _windows(a, tuple(a["pool_size"]), a["x"].shape[3])


def _windows(a: _Arguments, kernel: Any, channels: Any, dilation: Any = 1) -> Tensor:
    n, height, width, _ = a["x"].shape
    top, bottom, left, right = a["padding"]
    place = windows((height, width), kernel, a["strides"], ((top, bottom), (left, right)), dilation)
    return _new(a["x"], (n, *place.out, channels))


def _batch_norm_training(a: _Arguments) -> tuple[Tensor, ...]:
    x = a["x"]
    return _new(x, x.shape), _new(x, x.shape[-1:]), _new(x, x.shape[-1:])


def _batch_norm_backward(a: _Arguments) -> list[Tensor]:
    x = a["x"]
    shapes = [x.shape, x.shape[-1:], x.shape[-1:]] + [x.shape] * a["residual"]
    return [_new(x, shape) for shape in shapes]


def _row_norm_backward(count: int) -> _Results:
    return lambda a: (_new(a["x"], a["x"].shape), *(_new(a["x"], a["x"].shape[-1:]) for _ in range(count)))


def _loss(a: _Arguments) -> tuple[Tensor, Tensor]:
    scores = next(iter(a.values()))
    return _new(scores, ()), _new(scores, scores.shape)


_RESULTS: dict[str, _Results] = {
    "dense": _dense,
    "dense_backward": _weighted_backward,
    "matmul": _matmul,
    "conv2d": _conv2d,
    "conv2d_backward": _weighted_backward,
    "max_pool2d": _pool2d,
    "max_pool2d_backward": _like("x"),
    "avg_pool2d": _pool2d,
    "avg_pool2d_backward": _like("x"),
    "global_avg_pool2d": lambda a: _new(a["x"], (a["x"].shape[0], a["x"].shape[3])),
    "global_avg_pool2d_backward": _like("x"),
    "batch_norm_backward": _batch_norm_backward,
    "layer_norm_backward": _row_norm_backward(2),
    "rms_norm_backward": _row_norm_backward(1),
    "dropout": lambda a: (_new(a["x"], a["x"].shape), _new(a["x"], a["x"].shape, torch.bool)),
    "softmax_cross_entropy": _loss,
    "categorical_cross_entropy": _loss,
    "sigmoid_binary_cross_entropy": _loss,
    "binary_cross_entropy": _loss,
    "mean_squared_error": _loss,
    "add": _like("a"),
    **{name: _like("x") for name in ("layer_norm", "rms_norm")},
}  # of elementwise ops: as the first argument


def _first(a: _Arguments) -> Tensor:
    """What elementwise ops return."""
    x = next(iter(a.values()))
    return _new(x, x.shape)


_BACKWARD = [name for name in ops.__all__ if name.endswith("_backward")]
OPS = {
    name: Op(name, getattr(ops, name), _RESULTS.get(name, _first))
    for name in (*RULES, *_BACKWARD)
    if name != "batch_norm"
}
# Two operators, as one has three results. Neither moves the averages: what changes arguments has no gradient.
_moved: dict[str, Any] = {"moving_mean": None, "moving_variance": None, "momentum": 0.0}
OPS["batch_norm"] = Op("batch_norm", ops.batch_norm, _first, training=False, momentum=0.0)
OPS["batch_norm_training"] = Op(
    "batch_norm_training", ops.batch_norm, _batch_norm_training, training=True, **_moved
)


def _direct(function: Any) -> Any:
    return _core.direct(function.__name__, as_given(function))


# A convolution and what follows in one kernel, for `Conv2d`.
OPS["conv2d_pooled"] = Op(
    "conv2d_pooled", _direct(conv2d_pooled), _conv2d_pooled, rule=(("x", "w", "b"), _conv2d_pooled_rule)
)
OPS["conv2d_pooled_backward"] = Op(
    "conv2d_pooled_backward", _direct(conv2d_pooled_backward), _weighted_backward
)


def _either_batch_norm(road: str) -> Callable[..., Any]:
    def call(*, training: bool, momentum: float, **arguments: Any) -> Any:
        name = "batch_norm_training" if training else "batch_norm"
        given = {key: value for key, value in arguments.items() if key in OPS[name].defaults}
        return getattr(OPS[name], road)(**given)

    return call


PLAIN.update({name: op.plain for name, op in OPS.items()} | {"batch_norm": _either_batch_norm("plain")})
TRACED.update({name: op.traced for name, op in OPS.items()} | {"batch_norm": _either_batch_norm("traced")})

add = public(OPS["add"])
avg_pool2d = public(OPS["avg_pool2d"])
_batch_norm_inference = public(OPS["batch_norm"])
_batch_norm_in_training = public(OPS["batch_norm_training"])
binary_cross_entropy = public(OPS["binary_cross_entropy"])
categorical_cross_entropy = public(OPS["categorical_cross_entropy"])
conv2d = public(OPS["conv2d"])
conv2d_max_pool2d = public(OPS["conv2d_pooled"])
dense = public(OPS["dense"])
dropout = public(OPS["dropout"])
elu = public(OPS["elu"])
gelu = public(OPS["gelu"])
global_avg_pool2d = public(OPS["global_avg_pool2d"])
layer_norm = public(OPS["layer_norm"])
leaky_relu = public(OPS["leaky_relu"])
log_softmax = public(OPS["log_softmax"])
matmul = public(OPS["matmul"])
max_pool2d = public(OPS["max_pool2d"])
mean_squared_error = public(OPS["mean_squared_error"])
relu = public(OPS["relu"])
rms_norm = public(OPS["rms_norm"])
selu = public(OPS["selu"])
sigmoid = public(OPS["sigmoid"])
sigmoid_binary_cross_entropy = public(OPS["sigmoid_binary_cross_entropy"])
silu = public(OPS["silu"])
softmax = public(OPS["softmax"])
softmax_cross_entropy = public(OPS["softmax_cross_entropy"])
softplus = public(OPS["softplus"])
tanh = public(OPS["tanh"])


def batch_norm(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    moving_mean: Tensor | None,
    moving_variance: Tensor | None,
    *,
    training: bool = False,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Any:
    """As `tilefuse.ops.batch_norm`."""
    how: dict[str, Any] = {"epsilon": epsilon, "activation": activation, "residual": residual}
    if not training:
        return _batch_norm_inference(x, gamma, beta, moving_mean, moving_variance, **how)
    y, mean, inv_std = _batch_norm_in_training(x, gamma, beta, **how)
    if x.numel() > 0:
        with torch.no_grad():
            if moving_mean is not None:
                moving_mean.lerp_(mean, 1 - momentum)
            if moving_variance is not None:
                moving_variance.lerp_(inv_std**-2 - epsilon, 1 - momentum)
    return y, mean, inv_std


__all__ = [*RULES]
