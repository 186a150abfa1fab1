"""Losses: means over the samples, whose gradients are computed in the same pass."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._launch import Array, Shape, by_rows, check_shape, floats, launch, like, over_rows

SPARSE, CATEGORICAL, BINARY, SQUARED = range(4)  # as the kernels count them
Settings = tuple[int, bool, float]  # kind, from logits, label smoothing


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(settings: Settings, x: Array, labels: Array, weight: Array | None) -> Array:
    return _loss_forward(settings, x, labels, weight, saved=False)[0]


def _loss_forward(
    settings: Settings, x: Array, labels: Array, weight: Array | None, saved: bool = True
) -> Any:
    kind, from_logits, smoothing = settings
    samples = max(1, math.prod(x.shape[:-1]))

    def call(x: Array, labels: Array, *weight: Array) -> tuple[Array, ...]:
        outputs = {"row_loss": Shape(x.shape[:-1], x.dtype), **({"dx": like(x)} if saved else {})}
        inputs = {"x": x, "labels": labels, "sample_weight": weight[0] if weight else None}
        fields = {"loss": kind, "from_logits": from_logits, "label_smoothing": smoothing}
        per_row = {"rows_per_sample": 1, "scale": 1 / samples}
        return launch("loss", inputs, outputs, by_rows(x) | fields | per_row)

    arrays = (x, labels) if weight is None else (x, labels, weight)
    of_rows, *dx = over_rows(call, (True,) * len(arrays))(*arrays)
    return jnp.sum(of_rows) / samples, tuple(dx)


def _loss_backward(settings: Settings, saved: tuple[Array], dy: Array) -> tuple[Array, None, None]:
    return saved[0] * dy, None, None


_loss.defvjp(_loss_forward, _loss_backward)


def softmax_cross_entropy(
    logits: Any, labels: Any, *, sample_weight: Any = None, label_smoothing: float = 0.0
) -> Array:
    """``-sum(labels * log(softmax(logits)))`` over the last axis, averaged over the samples.

    The gradient is with respect to `logits`; labels and weights are constants. `vmap` makes one call.

    Parameters
    ----------
    logits : array of float32 or float64, [..., classes]
    labels : integers [...] or numbers [..., classes]
        Class ids, or a distribution over the classes. Ids out of range make the loss NaN.
    sample_weight : numbers [...], optional
    label_smoothing : float
        In [0, 1]: the share of each label that is spread evenly over the classes.

    Returns
    -------
    loss : array, no axes, dtype of `logits`

    Raises
    ------
    TypeError
        `logits` is not of float32 or float64.
    ValueError
        The shapes do not fit, or `label_smoothing` is out of range.
    """
    return _categorical(logits, "logits", labels, sample_weight, label_smoothing, from_logits=True)


def categorical_cross_entropy(
    probs: Any, labels: Any, *, sample_weight: Any = None, label_smoothing: float = 0.0
) -> Array:
    """``-sum(labels * log(p))``, averaged, where ``p`` is `probs` divided by their sum and clipped.

    Arguments, result and errors are those of `softmax_cross_entropy`, with probabilities in place of logits.
    """
    return _categorical(probs, "probs", labels, sample_weight, label_smoothing, from_logits=False)


def sigmoid_binary_cross_entropy(
    logits: Any, labels: Any, *, sample_weight: Any = None, label_smoothing: float = 0.0
) -> Array:
    """``-t log(p) - (1 - t) log(1 - p)`` with ``p = sigmoid(logits)``, averaged over last axis and samples.

    Arguments, result and errors are those of `softmax_cross_entropy`, with labels in [0, 1], [..., outputs].
    """
    return _elementwise((BINARY, True), logits, "logits", labels, "labels", sample_weight, label_smoothing)


def binary_cross_entropy(
    probs: Any, labels: Any, *, sample_weight: Any = None, label_smoothing: float = 0.0
) -> Array:
    """``-t log(p) - (1 - t) log(1 - p)``, averaged over last axis and samples; ``p`` is `probs`, clipped.

    Arguments, result and errors are those of `sigmoid_binary_cross_entropy`, with probabilities for logits.
    """
    return _elementwise((BINARY, False), probs, "probs", labels, "labels", sample_weight, label_smoothing)


def mean_squared_error(pred: Any, target: Any, *, sample_weight: Any = None) -> Array:
    """``(pred - target) ** 2``, averaged over the last axis and the samples.

    Arguments, result and errors are those of `sigmoid_binary_cross_entropy`, without smoothing.
    """
    return _elementwise((SQUARED, False), pred, "pred", target, "target", sample_weight, 0.0)


def _categorical(
    x: Any, name: str, labels: Any, weight: Any, smoothing: float, *, from_logits: bool
) -> Array:
    scores = _scores(x, name)
    given = jnp.asarray(labels)
    if given.shape == scores.shape:
        kind, target = CATEGORICAL, given.astype(scores.dtype)
    elif given.shape == scores.shape[:-1] and jnp.issubdtype(given.dtype, jnp.integer):
        kind, target = SPARSE, given.astype(np.int32)
    else:
        raise ValueError(
            f"labels have shape {given.shape} and dtype {given.dtype}; expected integers of shape "
            f"{scores.shape[:-1]} or numbers of shape {scores.shape}, as {name} has shape {scores.shape}"
        )
    return _run(kind, from_logits, scores, target, weight, smoothing)


def _elementwise(
    kind: tuple[int, bool], x: Any, name: str, labels: Any, labels_name: str, weight: Any, smoothing: float
) -> Array:
    scores = _scores(x, name)
    target = jnp.asarray(labels)
    check_shape(target, labels_name, scores.shape, name)
    return _run(*kind, scores, target.astype(scores.dtype), weight, smoothing)


def _run(kind: int, from_logits: bool, x: Array, labels: Array, weight: Any, smoothing: float) -> Array:
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing is {smoothing}; expected a number in [0, 1]")
    weights = None
    if weight is not None:
        weights = jnp.asarray(weight).astype(x.dtype)
        check_shape(weights, "sample_weight", x.shape[:-1], "the samples")
    return _loss((kind, from_logits, float(smoothing)), x, labels, weights)


def _scores(x: Any, name: str) -> Array:
    scores = floats(x, name)
    if scores.ndim == 0:
        raise ValueError(f"{name} has shape (); expected at least one axis, [..., outputs]")
    return scores
