"""Losses, each with its gradient in one pass.

A sample is one position of all axes but the last. The loss is ``sum(sample_weight * loss_of_sample) /
number_of_samples`` (Keras's "sum over batch size"), and the gradient is that of this mean.
Without samples it is 0.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from tilefuse._device import native

from ._arrays import Array, check_shape, empty, floats, packed, view

__all__ = [
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "mean_squared_error",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
]


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Array, Array]:
    """``-sum(labels * log_softmax(logits))`` over the last axis, averaged over the samples.

    Parameters
    ----------
    logits : array_like of float32 or float64, [..., classes]
        Copied first if it is not contiguous.
    labels : array_like, integers [...] or numbers [..., classes]
        Class ids, or a distribution over the classes (converted to the dtype of `logits`). A class of label 0
        adds nothing, even where its logit is minus infinity.
    sample_weight : array_like [...], optional
        Converted to the dtype of `logits`.
    label_smoothing : float
        In [0, 1]: the share of each label that is spread evenly over the classes.

    Returns
    -------
    loss : ndarray, 0-d, dtype of `logits`
    dlogits : ndarray, shape and dtype of `logits`
        Already divided by the number of samples.

    Raises
    ------
    TypeError
        `logits` is not of float32 or float64, or `labels` are not numbers.
    ValueError
        The shapes do not fit, a class id is out of range, or `label_smoothing` is.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> loss, dlogits = ops.softmax_cross_entropy(np.array([[0.0, 0.0]]), np.array([1]))
    >>> float(loss), dlogits
    (0.6931471805599453, array([[ 0.5, -0.5]]))
    """
    return _categorical(logits, "logits", labels, sample_weight, label_smoothing, from_logits=True)


def categorical_cross_entropy(
    probs: ArrayLike,
    labels: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Array, Array]:
    """``-sum(labels * log(p))`` over the last axis, averaged over the samples.

    ``p`` is ``probs / sum(probs)``, clipped to ``[1e-7, 1 - 1e-7]``; where clipping acts the gradient is 0.
    Where the probabilities come from a softmax, :func:`softmax_cross_entropy` of the logits is faster and
    more accurate.

    Parameters
    ----------
    probs : array_like of float32 or float64, [..., classes]
        Copied first if it is not contiguous.
    labels : array_like, integers [...] or numbers [..., classes]
        Class ids, or a distribution over the classes (converted to the dtype of `probs`).
    sample_weight : array_like [...], optional
        Converted to the dtype of `probs`.
    label_smoothing : float
        In [0, 1]: the share of each label that is spread evenly over the classes.

    Returns
    -------
    loss : ndarray, 0-d, dtype of `probs`
    dprobs : ndarray, shape and dtype of `probs`
        Already divided by the number of samples.

    Raises
    ------
    TypeError
        `probs` is not of float32 or float64, or `labels` are not numbers.
    ValueError
        The shapes do not fit, a class id is out of range, or `label_smoothing` is.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> loss, dprobs = ops.categorical_cross_entropy(np.array([[0.5, 0.5]]), np.array([1]))
    >>> float(loss), dprobs
    (0.6931471805599453, array([[ 1., -1.]]))
    """
    return _categorical(probs, "probs", labels, sample_weight, label_smoothing, from_logits=False)


def sigmoid_binary_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Array, Array]:
    """``-t log(p) - (1 - t) log(1 - p)`` with ``p = sigmoid(logits)``, averaged over last axis and samples.

    Parameters
    ----------
    logits : array_like of float32 or float64, [..., outputs]
        Copied first if it is not contiguous.
    labels : array_like [..., outputs]
        In [0, 1]; converted to the dtype of `logits`.
    sample_weight : array_like [...], optional
        Converted to the dtype of `logits`.
    label_smoothing : float
        In [0, 1]: the share of each label that is replaced by one half.

    Returns
    -------
    loss : ndarray, 0-d, dtype of `logits`
    dlogits : ndarray, shape and dtype of `logits`
        Already divided by the number of samples and of outputs.

    Raises
    ------
    TypeError
        `logits` is not of float32 or float64, or `labels` are not numbers.
    ValueError
        The shapes do not fit, or `label_smoothing` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> loss, dlogits = ops.sigmoid_binary_cross_entropy(np.array([[0.0]]), np.array([[1.0]]))
    >>> float(loss), dlogits
    (0.6931471805599453, array([[-0.5]]))
    """
    return _elementwise(
        "binary_crossentropy", True, logits, "logits", labels, "labels", sample_weight, label_smoothing
    )


def binary_cross_entropy(
    probs: ArrayLike,
    labels: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Array, Array]:
    """``-t log(p) - (1 - t) log(1 - p)``, averaged over the last axis and the samples.

    ``p`` is `probs`, clipped to ``[1e-7, 1 - 1e-7]``; where clipping acts the gradient is 0. Where the
    probabilities come from a sigmoid, :func:`sigmoid_binary_cross_entropy` of the logits is faster and more
    accurate.

    Parameters
    ----------
    probs : array_like of float32 or float64, [..., outputs]
        Copied first if it is not contiguous.
    labels : array_like [..., outputs]
        In [0, 1]; converted to the dtype of `probs`.
    sample_weight : array_like [...], optional
        Converted to the dtype of `probs`.
    label_smoothing : float
        In [0, 1]: the share of each label that is replaced by one half.

    Returns
    -------
    loss : ndarray, 0-d, dtype of `probs`
    dprobs : ndarray, shape and dtype of `probs`
        Already divided by the number of samples and of outputs.

    Raises
    ------
    TypeError
        `probs` is not of float32 or float64, or `labels` are not numbers.
    ValueError
        The shapes do not fit, or `label_smoothing` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> loss, dprobs = ops.binary_cross_entropy(np.array([[0.5]]), np.array([[1.0]]))
    >>> float(loss), dprobs
    (0.6931471805599453, array([[-2.]]))
    """
    return _elementwise(
        "binary_crossentropy", False, probs, "probs", labels, "labels", sample_weight, label_smoothing
    )


def mean_squared_error(
    pred: ArrayLike, target: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[Array, Array]:
    """``(pred - target) ** 2``, averaged over the last axis and the samples.

    Parameters
    ----------
    pred : array_like of float32 or float64, [..., outputs]
        Copied first if it is not contiguous.
    target : array_like [..., outputs]
        Converted to the dtype of `pred`.
    sample_weight : array_like [...], optional
        Converted to the dtype of `pred`.

    Returns
    -------
    loss : ndarray, 0-d, dtype of `pred`
    dpred : ndarray, shape and dtype of `pred`
        Already divided by the number of samples and of outputs.

    Raises
    ------
    TypeError
        `pred` is not of float32 or float64, or `target` is not of numbers.
    ValueError
        The shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse import ops
    >>> loss, dpred = ops.mean_squared_error(np.array([[3.0, 1.0]]), np.array([[1.0, 1.0]]))
    >>> float(loss), dpred
    (2.0, array([[2., 0.]]))
    """
    return _elementwise("mean_squared_error", False, pred, "pred", target, "target", sample_weight, 0.0)


def _categorical(
    scores: ArrayLike,
    name: str,
    labels: ArrayLike,
    sample_weight: ArrayLike | None,
    label_smoothing: float,
    *,
    from_logits: bool,
) -> tuple[Array, Array]:
    x = _scores(scores, name)
    given = _numbers(labels, "labels")
    if given.shape == x.shape:
        kind, target = "categorical_crossentropy", _converted(given, x)
    elif given.shape == x.shape[:-1] and given.dtype.kind in "iu":
        kind, target = "sparse_categorical_crossentropy", _class_ids(given, x.shape[-1])
    else:
        raise ValueError(
            f"labels have shape {given.shape} and dtype {given.dtype}; expected integers of shape "
            f"{x.shape[:-1]} or numbers of shape {x.shape}, as {name} has shape {x.shape}"
        )
    return _run(kind, from_logits, x, target, sample_weight, label_smoothing)


def _elementwise(
    kind: str,
    from_logits: bool,
    scores: ArrayLike,
    name: str,
    labels: ArrayLike,
    labels_name: str,
    sample_weight: ArrayLike | None,
    label_smoothing: float,
) -> tuple[Array, Array]:
    x = _scores(scores, name)
    target = _numbers(labels, labels_name)
    check_shape(target, labels_name, x.shape, name)
    return _run(kind, from_logits, x, _converted(target, x), sample_weight, label_smoothing)


def _run(
    kind: str,
    from_logits: bool,
    x: Array,
    labels: Array,
    sample_weight: ArrayLike | None,
    label_smoothing: float,
) -> tuple[Array, Array]:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a number in [0, 1]")
    weight = None
    if sample_weight is not None:
        given = _numbers(sample_weight, "sample_weight")
        check_shape(given, "sample_weight", x.shape[:-1], "the samples")
        weight = _converted(given, x)
    dx = empty(x.shape, x.dtype, x)
    rows = (math.prod(x.shape[:-1]), x.shape[-1])
    loss = native().loss(
        kind, from_logits, x.reshape(rows), labels, weight, float(label_smoothing), dx.reshape(rows)
    )
    mean = empty((), x.dtype, x)
    mean[()] = loss
    return mean, dx


def _scores(scores: ArrayLike, name: str) -> Array:
    x = floats(scores, name)
    if x.ndim == 0:
        raise ValueError(f"{name} has shape (); expected at least one axis, [..., outputs]")
    return packed(x)


def _numbers(x: ArrayLike, name: str) -> Array:
    a = view(x, name)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {a.dtype}; expected floats, integers or bools")
    return a


def _converted(a: Array, x: Array) -> Array:
    return packed(a.astype(x.dtype, copy=False))


def _class_ids(labels: Array, classes: int) -> Array:
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"labels go from {labels.min()} to {labels.max()}; expected class ids in [0, {classes})"
        )
    return packed(labels.astype(np.int32, copy=False))
