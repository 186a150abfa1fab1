"""How a gradient tape differentiates the functions of `tilefuse.ops`: the table `RULES`, one entry an op.

`differentiable` wraps the functions so that an active tape records their calls. A rule gets the functions by
name, the gradient `dy` of the result, the result, and the call's arguments by name; it returns one gradient
for each of the inputs that the table names.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .tape import record, recording

_Functions = Mapping[str, Callable[..., Any]]
_Arguments = dict[str, Any]
_Rule = Callable[[_Functions, Any, Any, _Arguments], Sequence[Any]]

_FROM_OUTPUT = ("relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus", "softmax", "log_softmax")
_FROM_INPUT = ("silu", "gelu", "max_pool2d", "avg_pool2d", "global_avg_pool2d")
NEEDS_INPUT = ("silu", "gelu", "gelu_tanh")
_LOSSES = (
    "softmax_cross_entropy",
    "categorical_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "binary_cross_entropy",
    "mean_squared_error",
)


def differentiable(functions: _Functions) -> dict[str, Callable[..., Any]]:
    """Return those of `functions` that have a rule, wrapped so that an active tape records them."""
    plain = {name: f for name, f in functions.items() if inspect.isfunction(f)}
    return {name: _recorded(plain, plain[name], *rule) for name, rule in RULES.items() if name in plain}


def needed_by_rule(name: str, arguments: _Arguments) -> tuple[set[str], bool]:
    """Return the names of a call's arrays that the op's rule reads, and whether it reads the first result."""
    activation = arguments.get("activation")
    if name in _FROM_OUTPUT:
        return set(), True
    if name in _LOSSES or name == "dropout":
        return set(), False
    if activation in NEEDS_INPUT:
        return set(arguments), False
    read = set(arguments) - {"beta", "residual"}
    if name == "add":
        read = set()
    if arguments.get("training"):
        read -= {"moving_mean", "moving_variance"}
    return read, activation not in (None, "linear")


def _recorded(
    functions: _Functions, function: Callable[..., Any], inputs: Sequence[str], rule: _Rule
) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if recording():
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = bound.arguments
            output = result[0] if isinstance(result, tuple) else result
            record(
                [arguments[name] for name in inputs],
                output,
                lambda dy: rule(functions, dy, result, arguments),
            )
        return result

    return call


def _from_output(name: str) -> _Rule:
    def rule(f: _Functions, dy: Any, y: Any, arguments: _Arguments) -> Sequence[Any]:
        return [f[f"{name}_backward"](dy, y, **{k: v for k, v in arguments.items() if k != "x"})]

    return rule


def _from_input(name: str) -> _Rule:
    def rule(f: _Functions, dy: Any, y: Any, arguments: _Arguments) -> Sequence[Any]:
        return [f[f"{name}_backward"](dy, **arguments)]

    return rule


def _loss(f: _Functions, dy: Any, result: Any, arguments: _Arguments) -> Sequence[Any]:
    return [result[1] * dy]


def _dropout(f: _Functions, dy: Any, result: Any, arguments: _Arguments) -> Sequence[Any]:
    return [f["dropout_backward"](dy, result[1], arguments["rate"])]


def _dense(f: _Functions, dy: Any, y: Any, arguments: _Arguments) -> Sequence[Any]:
    x, w, b, activation = (arguments[name] for name in ("x", "w", "b", "activation"))
    how = {"precision": arguments["precision"]}
    if activation in NEEDS_INPUT:
        dy, activation = _undo(f, activation, dy, f["dense"](x, w, b, **how)), None
    return f["dense_backward"](dy, x, w, y, activation, **how)


def _conv2d(f: _Functions, dy: Any, y: Any, arguments: _Arguments) -> Sequence[Any]:
    x, w, b, activation = (arguments[name] for name in ("x", "w", "b", "activation"))
    how = {name: arguments[name] for name in ("strides", "padding", "dilation", "groups", "precision")}
    if activation in NEEDS_INPUT:
        dy, activation = _undo(f, activation, dy, f["conv2d"](x, w, b, **how)), None
    return f["conv2d_backward"](dy, x, w, y, activation=activation, **how)


def _add(f: _Functions, dy: Any, y: Any, arguments: _Arguments) -> Sequence[Any]:
    activation = arguments["activation"] or "linear"
    at = f["add"](arguments["a"], arguments["b"]) if activation in NEEDS_INPUT else y
    return [_undo(f, activation, dy, at)] * 2


def _batch_norm(f: _Functions, dy: Any, result: Any, arguments: _Arguments) -> Sequence[Any]:
    training, activation, residual = (arguments[name] for name in ("training", "activation", "residual"))
    if training:
        y, mean, inv_std = result
    else:
        y, mean = result, arguments["moving_mean"]
        inv_std = (arguments["moving_variance"] + arguments["epsilon"]) ** -0.5
    if activation in NEEDS_INPUT:
        linear = arguments | {"activation": None}
        if training:
            z, _, _ = f["batch_norm"](**linear | {"moving_mean": None, "moving_variance": None})
        else:
            z = f["batch_norm"](**linear)
        dy, activation = _undo(f, activation, dy, z), None
    how = {"training": training, "activation": activation, "residual": residual is not None}
    gradients = f["batch_norm_backward"](dy, arguments["x"], arguments["gamma"], mean, inv_std, y, **how)
    return gradients if residual is not None else [*gradients, None]


def _row_norm(name: str) -> _Rule:
    def rule(f: _Functions, dy: Any, y: Any, arguments: _Arguments) -> Sequence[Any]:
        x, gamma, epsilon = (arguments[name] for name in ("x", "gamma", "epsilon"))
        return f[f"{name}_backward"](dy, x, gamma, epsilon=epsilon)

    return rule


def _matmul(f: _Functions, dy: Any, y: Any, arguments: _Arguments) -> Sequence[Any]:
    a, b, bias, activation = (arguments[name] for name in ("a", "b", "bias", "activation"))
    flip_a, flip_b = arguments["transpose_a"], arguments["transpose_b"]
    matmul = functools.partial(f["matmul"], precision=arguments["precision"])
    if activation is not None:
        at = y
        if activation in NEEDS_INPUT:
            at = matmul(a, b, bias=bias, transpose_a=flip_a, transpose_b=flip_b)
        dy = _undo(f, activation, dy, at)
    if flip_a:
        da = matmul(b, dy, transpose_a=flip_b, transpose_b=True)
    else:
        da = matmul(dy, b, transpose_b=not flip_b)
    if flip_b:
        db = matmul(dy, a, transpose_a=True, transpose_b=flip_a)
    else:
        db = matmul(a, dy, transpose_a=not flip_a)
    return [
        _summed_to(a.shape, da),
        _summed_to(b.shape, db),
        None if bias is None else _summed_to(np.shape(bias), dy),
    ]


def _undo(f: _Functions, activation: str, dy: Any, at: Any) -> Any:
    """Return the gradient at an activation's input; `at` is its output, or its input where that is needed."""
    if activation == "linear":
        return dy
    if activation == "gelu_tanh":
        return f["gelu_backward"](dy, at, approximate=True)
    return f[f"{activation}_backward"](dy, at)


def _summed_to(shape: tuple[int, ...], gradient: Any) -> Any:
    """Return the gradient of an array that was broadcast from `shape`."""
    extra = gradient.ndim - len(shape)
    stretched = [i + extra for i, n in enumerate(shape) if n == 1 and gradient.shape[i + extra] != 1]
    axes = (*range(extra), *stretched)
    return gradient.sum(axis=axes, keepdims=True).reshape(shape) if axes else gradient


RULES: dict[str, tuple[Sequence[str], _Rule]] = {
    **{name: (("x",), _from_output(name)) for name in _FROM_OUTPUT},
    **{name: (("x",), _from_input(name)) for name in _FROM_INPUT},
    "add": (("a", "b"), _add),
    "dense": (("x", "w", "b"), _dense),
    "conv2d": (("x", "w", "b"), _conv2d),
    "matmul": (("a", "b", "bias"), _matmul),
    "batch_norm": (("x", "gamma", "beta", "residual"), _batch_norm),
    "layer_norm": (("x", "gamma", "beta"), _row_norm("layer_norm")),
    "rms_norm": (("x", "gamma"), _row_norm("rms_norm")),
    "dropout": (("x",), _dropout),
    "softmax_cross_entropy": (("logits",), _loss),
    "categorical_cross_entropy": (("probs",), _loss),
    "sigmoid_binary_cross_entropy": (("logits",), _loss),
    "binary_cross_entropy": (("probs",), _loss),
    "mean_squared_error": (("pred",), _loss),
}
