"""Layers as the compiled step takes them, and whether its gradients are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tilefuse import _core, _device
from tilefuse.ops._windows import windows

Layers = list[dict[str, Any]]
SGD = {"kind": "sgd"}
WEIGHTS = ("kernel", "bias", "gamma", "beta")


def placed(value: Any) -> Any:
    """What is in `value`, with copies of its arrays in the memory of the device in use."""
    if isinstance(value, np.ndarray):
        copy = _device.native().empty(value.shape, value.dtype)
        copy[...] = value
        return copy
    return [placed(item) for item in value] if isinstance(value, list) else value


def make_program(layers: Layers, *arguments: Any, **options: str) -> Any:
    """A Program of the device in use; the arrays of `layers` move there."""
    for layer in layers:
        layer.update({key: placed(value) for key, value in layer.items()})
    return _device.native().Program(layers, *arguments, **options)


def weighted(kind: str, **weights: np.ndarray) -> dict[str, Any]:
    """A layer in float64 with room for an optimizer's slots."""
    slots = {f"{name}_slots": [np.zeros_like(w) for _ in range(3)] for name, w in weights.items()}
    return {"kind": kind, "name": kind, "alpha": 0.5, "trainable": True} | weights | slots


def dense(inputs: int, units: int, activation: str = "linear", **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(inputs * 1000 + units)
    kernel, bias = rng.normal(size=(inputs, units)) / np.sqrt(inputs), rng.normal(size=units) / 10
    named = {"name": f"dense_{units}", "activation": activation}
    return weighted("dense", kernel=kernel, bias=bias) | named | more


def conv(
    size: tuple[int, int],
    kernel: tuple[int, int, int, int],
    activation: str = "linear",
    *,
    strides: int = 1,
    padding: Any = "valid",
    dilation: int = 1,
    groups: int = 1,
    **more: Any,
) -> dict[str, Any]:
    """A convolution of images of `size` with a kernel of this shape, [h, w, c / groups, f]."""
    rng = np.random.default_rng(sum(kernel))
    w = rng.normal(size=kernel) / np.sqrt(np.prod(kernel[:3]))
    place = windows(size, kernel[:2], strides, padding, dilation)
    geometry = (*place.out, *place.strides, *place.dilation, *place.before, groups)
    layer = weighted("conv2d", kernel=w, bias=rng.normal(size=kernel[3]) / 10)
    return layer | {"activation": activation, "geometry": geometry} | more


def pool(
    kind: str,
    size: tuple[int, int],
    window: tuple[int, int],
    strides: Any = None,
    padding: Any = "valid",
    **more: Any,
) -> dict[str, Any]:
    """A max_pool2d or avg_pool2d of images of `size`."""
    place = windows(size, window, strides or window, padding)
    geometry = (*place.out, *place.strides, *place.dilation, *place.before, 1)
    return {"kind": kind, "name": kind, "window": window, "geometry": geometry} | more


def norm(kind: str, channels: int, **more: Any) -> dict[str, Any]:
    """A batch_norm, layer_norm or rms_norm."""
    rng = np.random.default_rng(channels)
    layer = weighted(kind, gamma=rng.normal(1, 0.2, channels), beta=rng.normal(size=channels))
    if kind == "rms_norm":
        layer["beta"] = None
    if kind == "batch_norm":
        layer |= {
            "moving_mean": rng.normal(size=channels),
            "moving_variance": 1 + rng.random(channels),
            "momentum": 0.9,
        }
    return layer | {"epsilon": 1e-3} | more


def add(*sources: int) -> dict[str, Any]:
    return {"kind": "add", "name": "add", "sources": sources}


def reshape(*shape: int) -> dict[str, Any]:
    return {"kind": "reshape", "name": "reshape", "shape": shape}


def activation(name: str) -> dict[str, Any]:
    return {"kind": "activation", "name": name, "activation": name, "alpha": 0.5}


def dropout(rate: float = 0.4) -> dict[str, Any]:
    return {"kind": "dropout", "name": "dropout", "rate": rate, "seed": 11}


def variables(layers: Layers) -> list[np.ndarray]:
    """The weights that could be trained."""
    return [layer[key] for layer in layers for key in WEIGHTS if layer.get(key) is not None]


def batch(loss: str, n: int = 7, outputs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n, 6))
    if loss == "sparse_categorical_crossentropy":
        return x, rng.integers(0, outputs, n).astype(np.int32)
    if loss == "categorical_crossentropy":
        return x, rng.dirichlet(np.ones(outputs), n)
    if loss == "binary_crossentropy":
        return x, rng.integers(0, 2, (n, outputs)).astype(float)
    return x, rng.normal(size=(n, outputs))


def step_loss(layers: Layers, loss: str, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> float:
    """The loss of a training step (with its dropout) that changes nothing."""
    copies = [{k: v.copy() if isinstance(v, np.ndarray) else v for k, v in layer.items()} for layer in layers]
    program = _core.Program(copies, x.shape[1:], len(x), {"kind": loss}, SGD, "float64")  # on the CPU
    return program.train_step(x, y, weight, 0.0)[0]


def check_gradients(
    layers: Layers, trained: Layers, loss: str, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None
) -> None:
    """A step of SGD with learning rate 1 on `trained` subtracts the gradients of its copy `layers`."""
    program = make_program(trained, x.shape[1:], len(x), {"kind": loss}, SGD, "float64")
    assert program.train_step(x, y, weight, 1.0)[0] == pytest.approx(step_loss(layers, loss, x, y, weight))
    h = 1e-6
    still = [layer for layer in layers if layer.get("trainable") is False]
    frozen = variables(still)
    for before, after in zip(variables(layers), variables(trained), strict=True):
        gradient = before - after  # SGD with learning rate 1
        if any(before is f for f in frozen):
            assert not gradient.any()
            continue
        for index in np.ndindex(before.shape):
            value = before[index]
            before[index] = value + h
            above = step_loss(layers, loss, x, y, weight)
            before[index] = value - h
            below = step_loss(layers, loss, x, y, weight)
            before[index] = value
            assert gradient[index] == pytest.approx((above - below) / (2 * h), abs=2e-8, rel=1e-6)
