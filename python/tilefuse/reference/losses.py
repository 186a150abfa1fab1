"""Losses, each with its gradient.

A sample is one position of the axes before the last; the loss is ``sum(sample_weight * loss_of_sample) /
number_of_samples`` as a 0-d array, zero when there are no samples. The gradient is that of this mean.
"""

from __future__ import annotations

import math

from ._namespace import Array, get_array_module
from .activations import sigmoid, softplus
from .softmax import log_softmax

PROBABILITY_MARGIN = 1e-7  # probabilities are clipped to [margin, 1 - margin], as in Keras


def softmax_cross_entropy(
    logits: Array, labels: Array, *, sample_weight: Array | None = None, label_smoothing: float = 0.0
) -> tuple[Array, Array]:
    """``-sum(labels * log_softmax(logits))`` over the last axis, averaged over the samples.

    Parameters
    ----------
    logits : array [..., classes]
    labels : integer array [...] of class ids, or array [..., classes] of probabilities
    sample_weight : array [...], optional
    label_smoothing : float
        Share of each label that is spread evenly over the classes.

    Returns
    -------
    loss : 0-d array
    dlogits : array [..., classes]

    Raises
    ------
    ValueError
        If the shapes do not fit or a class id is out of range.
    """
    xp = get_array_module(logits)
    target = _class_probabilities(labels, logits, label_smoothing)
    log_p = log_softmax(logits)
    losses = -xp.where(target == 0, xp.zeros_like(log_p), target * log_p).sum(axis=-1)
    gradient = xp.exp(log_p) * target.sum(axis=-1, keepdims=True) - target
    return _mean_over_samples(losses, gradient, sample_weight)


def categorical_cross_entropy(
    probs: Array, labels: Array, *, sample_weight: Array | None = None, label_smoothing: float = 0.0
) -> tuple[Array, Array]:
    """``-sum(labels * log(p))`` with ``p = clip(probs / sum(probs))``, averaged over the samples.

    Arguments and results as for :func:`softmax_cross_entropy`, with probabilities in the place of logits.
    """
    xp = get_array_module(probs)
    target = _class_probabilities(labels, probs, label_smoothing)
    total = probs.sum(axis=-1, keepdims=True)
    q = probs / total
    p, inside = _clip_probability(q)
    losses = -(target * xp.log(p)).sum(axis=-1)
    dq = xp.where(inside, -target / p, xp.zeros_like(p))
    gradient = (dq - (dq * q).sum(axis=-1, keepdims=True)) / total
    return _mean_over_samples(losses, gradient, sample_weight)


def sigmoid_binary_cross_entropy(
    logits: Array, labels: Array, *, sample_weight: Array | None = None, label_smoothing: float = 0.0
) -> tuple[Array, Array]:
    """``-t log(p) - (1 - t) log(1 - p)`` with ``p = sigmoid(logits)``, averaged over last axis and samples.

    Parameters
    ----------
    logits, labels : array [..., outputs]
    sample_weight : array [...], optional
    label_smoothing : float
        Share of each label `t` that is replaced by one half.

    Returns
    -------
    loss : 0-d array
    dlogits : array [..., outputs]
    """
    t = _binary_target(labels, logits, label_smoothing)
    losses = softplus(logits) - logits * t
    gradient = sigmoid(logits) - t
    return _mean_over_outputs(losses, gradient, sample_weight)


def binary_cross_entropy(
    probs: Array, labels: Array, *, sample_weight: Array | None = None, label_smoothing: float = 0.0
) -> tuple[Array, Array]:
    """``-t log(p) - (1 - t) log(1 - p)`` with ``p = clip(probs)``, averaged over last axis and samples.

    Arguments and results as for :func:`sigmoid_binary_cross_entropy`, with probabilities for logits.
    """
    xp = get_array_module(probs)
    t = _binary_target(labels, probs, label_smoothing)
    p, inside = _clip_probability(probs)
    losses = -(t * xp.log(p) + (1 - t) * xp.log(1 - p))
    gradient = xp.where(inside, (1 - t) / (1 - p) - t / p, xp.zeros_like(p))
    return _mean_over_outputs(losses, gradient, sample_weight)


def mean_squared_error(
    pred: Array, target: Array, *, sample_weight: Array | None = None
) -> tuple[Array, Array]:
    """``(pred - target) ** 2``, averaged over the last axis and the samples.

    Parameters
    ----------
    pred, target : array [..., outputs]
    sample_weight : array [...], optional

    Returns
    -------
    loss : 0-d array
    dpred : array [..., outputs]
    """
    difference = pred - _binary_target(target, pred, 0.0)
    return _mean_over_outputs(difference * difference, 2 * difference, sample_weight)


def _class_probabilities(labels: Array, scores: Array, label_smoothing: float) -> Array:
    """The labels as probabilities [..., classes], smoothed."""
    xp = get_array_module(scores)
    classes = scores.shape[-1]
    if labels.shape == scores.shape:
        target = labels.astype(scores.dtype)
    elif labels.shape == scores.shape[:-1] and labels.dtype.kind in "iu":
        if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
            raise ValueError(f"labels must be in [0, {classes}), got {labels.min()} to {labels.max()}")
        target = (labels[..., None] == xp.arange(classes)).astype(scores.dtype)
    else:
        raise ValueError(
            f"labels must be integers {scores.shape[:-1]} or probabilities {scores.shape}, "
            f"got {labels.dtype} {labels.shape}"
        )
    return target * (1 - label_smoothing) + label_smoothing / max(classes, 1)


def _binary_target(labels: Array, scores: Array, label_smoothing: float) -> Array:
    if labels.shape != scores.shape:
        raise ValueError(f"labels must have the shape {scores.shape} of the predictions, got {labels.shape}")
    return labels.astype(scores.dtype) * (1 - label_smoothing) + 0.5 * label_smoothing


def _clip_probability(p: Array) -> tuple[Array, Array]:
    """The clipped probabilities, and where clipping changed nothing."""
    low, high = PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN
    clipped = get_array_module(p).clip(p, low, high)
    return clipped, ~((p < low) | (p > high))


def _mean_over_outputs(losses: Array, gradient: Array, sample_weight: Array | None) -> tuple[Array, Array]:
    outputs = max(losses.shape[-1], 1)
    return _mean_over_samples(losses.sum(axis=-1) / outputs, gradient / outputs, sample_weight)


def _mean_over_samples(losses: Array, gradient: Array, sample_weight: Array | None) -> tuple[Array, Array]:
    """The weighted mean of `losses` [...], and its gradient from that of each sample's loss, [..., n]."""
    xp = get_array_module(losses)
    samples = max(math.prod(losses.shape), 1)
    if sample_weight is not None:
        if sample_weight.shape != losses.shape:
            raise ValueError(f"sample_weight must have the shape {losses.shape}, got {sample_weight.shape}")
        weight = sample_weight.astype(gradient.dtype)
        losses, gradient = losses * weight, gradient * weight[..., None]
    return xp.asarray(losses.sum() / samples, dtype=gradient.dtype), gradient / samples
