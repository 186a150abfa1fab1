"""Losses: classes for `compile` and the gradient tape, functions that give a value for each sample.

Names, defaults and numerics as in Keras.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ops
from ._config import Configurable, lookup, snake_case
from .tape import record

# Probabilities are kept this far from 0 and 1 before the logarithm, as in Keras.
_EPSILON = 1e-7
_REDUCTIONS = ("sum_over_batch_size", "mean", "sum", None, "none")


class Loss(Configurable):
    """A function of labels and predictions.

    Parameters
    ----------
    reduction : {"sum_over_batch_size", "mean", "sum", None}
        What becomes of the samples' losses. The first two are the same: the sum over the samples, each times
        its weight, divided by their number.
    name : str
    """

    #: What the compiled step calls this loss.
    kind: str

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"reduction must be 'sum_over_batch_size', 'mean', 'sum' or None, got {reduction!r}."
            )
        self.reduction = None if reduction == "none" else reduction
        self.name = name or snake_case(type(self).__name__)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        """Return the loss as a 0-d array (with ``reduction=None``: one value a sample).

        Parameters
        ----------
        y_true : array_like
            Labels: [..., classes], or [...] of integers for a sparse loss.
        y_pred : array [..., outputs]
            float32 or float64; the result has its dtype.
        sample_weight : array_like [...], optional
            One weight a sample.

        Raises
        ------
        ValueError
            The shapes do not fit, or a label is out of range.
        """
        pred = (
            y_pred
            if isinstance(y_pred, np.ndarray) and y_pred.dtype.kind == "f"
            else np.asarray(y_pred, float)
        )
        labels = self.labels(np.asarray(y_true), pred)
        weight = None if sample_weight is None else _weights(sample_weight, pred)
        if self.reduction is None:
            values = self.values(labels, pred)
            return values if weight is None else values * weight
        mean = self.mean(labels, pred, weight)
        if self.reduction != "sum":
            return mean
        samples = pred.size // max(pred.shape[-1], 1)
        total = np.asarray(mean * samples, pred.dtype)
        record([mean], total, lambda dy: [np.asarray(dy * samples, pred.dtype)])
        return total

    def labels(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """Return the labels in the shape and dtype that `mean` takes: those of the predictions."""
        if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
            y_true = y_true[..., None]
        if y_true.shape != y_pred.shape:
            raise ValueError(
                f"{self.name}: y_true must have the shape {y_pred.shape} of y_pred, got {y_true.shape}."
            )
        return np.ascontiguousarray(y_true, y_pred.dtype)

    def mean(self, labels: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Return the weighted mean over the samples as a 0-d array, recorded by an active tape."""
        raise NotImplementedError

    def values(self, labels: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """Return the loss of each sample."""
        raise NotImplementedError

    def lower(self) -> dict[str, Any]:
        """Return what the compiled step needs to know.

        Raises
        ------
        ValueError
            The reduction is not the mean over the samples.
        """
        if self.reduction not in ("sum_over_batch_size", "mean"):
            raise ValueError(
                f"compile takes losses with reduction='sum_over_batch_size', got {self.reduction!r}; "
                "use a gradient tape for others."
            )
        return {"kind": self.kind, "from_logits": False, "label_smoothing": 0.0}


class MeanSquaredError(Loss):
    """The mean of the squared differences.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> float(tilefuse.losses.MeanSquaredError()(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]])))
    0.5
    """

    kind = "mean_squared_error"

    def mean(self, labels: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        return ops.mean_squared_error(y_pred, labels, sample_weight=weight)[0]

    def values(self, labels: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.square(y_pred - labels).mean(axis=-1)


class _CrossEntropy(Loss):
    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing!r}.")
        self.from_logits, self.label_smoothing = bool(from_logits), float(label_smoothing)

    def lower(self) -> dict[str, Any]:
        return super().lower() | {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


class BinaryCrossentropy(_CrossEntropy):
    """``-y ln(p) - (1 - y) ln(1 - p)``, the mean over the outputs.

    Parameters
    ----------
    from_logits : bool
        Whether predictions are logits instead of probabilities.
    label_smoothing : float
        0 leaves the labels, 1 makes them all 0.5.
    reduction, name
        As for every `Loss`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> loss = tilefuse.losses.BinaryCrossentropy()
    >>> round(float(loss(np.array([[1.0], [0.0]]), np.array([[0.6], [0.4]]))), 6)
    0.510826
    """

    kind = "binary_crossentropy"

    def mean(self, labels: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        function = ops.sigmoid_binary_cross_entropy if self.from_logits else ops.binary_cross_entropy
        return function(y_pred, labels, sample_weight=weight, label_smoothing=self.label_smoothing)[0]

    def values(self, labels: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        y = labels * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        if self.from_logits:
            return (np.maximum(y_pred, 0) - y_pred * y + np.log1p(np.exp(-np.abs(y_pred)))).mean(axis=-1)
        p = np.clip(y_pred, _EPSILON, 1 - _EPSILON)
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=-1)


class CategoricalCrossentropy(_CrossEntropy):
    """``-sum(y ln(p))`` with one-hot labels (or other probabilities) [..., classes].

    Parameters
    ----------
    from_logits : bool
        Whether predictions are logits instead of probabilities.
    label_smoothing : float
        The share of each label that is spread evenly over the classes.
    reduction, name
        As for every `Loss`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> loss = tilefuse.losses.CategoricalCrossentropy()
    >>> round(float(loss(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]))), 4)
    0.6931
    """

    kind = "categorical_crossentropy"

    def mean(self, labels: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        function = ops.softmax_cross_entropy if self.from_logits else ops.categorical_cross_entropy
        return function(y_pred, labels, sample_weight=weight, label_smoothing=self.label_smoothing)[0]

    def values(self, labels: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        y = labels * (1 - self.label_smoothing) + self.label_smoothing / y_pred.shape[-1]
        return -(y * _log_probabilities(y_pred, self.from_logits)).sum(axis=-1)


class SparseCategoricalCrossentropy(Loss):
    """``-ln(p[y])`` with integer labels [...] or [..., 1].

    Parameters
    ----------
    from_logits : bool
        Whether predictions are logits instead of probabilities.
    reduction, name
        As for every `Loss`.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> loss = tilefuse.losses.SparseCategoricalCrossentropy()
    >>> round(float(loss([1], np.array([[0.5, 0.5]]))), 4)
    0.6931
    """

    kind = "sparse_categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = bool(from_logits)

    def labels(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
            y_true = y_true[..., 0]
        if y_true.shape != y_pred.shape[:-1]:
            raise ValueError(
                f"{self.name}: y_true must have the shape {y_pred.shape[:-1]}, got {y_true.shape}; "
                "for one-hot labels use CategoricalCrossentropy."
            )
        return class_ids(y_true, y_pred.shape[-1], "y_true")

    def mean(self, labels: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        function = ops.softmax_cross_entropy if self.from_logits else ops.categorical_cross_entropy
        return function(y_pred, labels, sample_weight=weight)[0]

    def values(self, labels: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        logs = _log_probabilities(y_pred, self.from_logits)
        return -np.take_along_axis(logs, labels[..., None].astype(np.int64), axis=-1)[..., 0]

    def lower(self) -> dict[str, Any]:
        return super().lower() | {"from_logits": self.from_logits}


def class_ids(labels: np.ndarray, classes: int, what: str) -> np.ndarray:
    """Return `labels` as int32.

    Raises
    ------
    TypeError
        They are not numbers.
    ValueError
        One is NaN, not a whole number, or not in [0, classes).
    """
    if labels.dtype.kind not in "iubf":
        raise TypeError(f"{what} must hold integers from 0 to {classes - 1}, got dtype {labels.dtype}.")
    valid = (labels >= 0) & (labels < classes)
    if labels.dtype.kind == "f":
        valid &= labels == np.floor(labels)
    if not valid.all():
        where = tuple(int(i) for i in np.argwhere(~valid)[0])
        index = where[0] if len(where) == 1 else where
        raise ValueError(
            f"{what}[{index}] is {labels[where]}, but the model has {classes} outputs, so labels must be "
            f"integers from 0 to {classes - 1}. Renumber the labels or give the last layer more units."
        )
    return np.ascontiguousarray(labels, np.int32)


def mean_squared_error(y_true: Any, y_pred: Any) -> np.ndarray:
    """Return `MeanSquaredError` of each sample; no tape records it.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.losses.mean_squared_error([[0.0, 2.0]], [[0.0, 0.0]])
    array([2.])
    """
    return MeanSquaredError(reduction=None)(y_true, y_pred)


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0
) -> np.ndarray:
    """Return `BinaryCrossentropy` of each sample; no tape records it."""
    return BinaryCrossentropy(from_logits, label_smoothing, reduction=None)(y_true, y_pred)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0
) -> np.ndarray:
    """Return `CategoricalCrossentropy` of each sample; no tape records it."""
    return CategoricalCrossentropy(from_logits, label_smoothing, reduction=None)(y_true, y_pred)


def sparse_categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False) -> np.ndarray:
    """Return `SparseCategoricalCrossentropy` of each sample; no tape records it."""
    return SparseCategoricalCrossentropy(from_logits, reduction=None)(y_true, y_pred)


def _log_probabilities(y_pred: np.ndarray, from_logits: bool) -> np.ndarray:
    if from_logits:
        shifted = y_pred - y_pred.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    p = y_pred / y_pred.sum(axis=-1, keepdims=True)
    return np.log(np.clip(p, _EPSILON, 1 - _EPSILON))


def _weights(sample_weight: Any, y_pred: np.ndarray) -> np.ndarray:
    """Return one weight a sample; those of the first axis are repeated along the others."""
    weight = np.asarray(sample_weight, y_pred.dtype)
    samples = y_pred.shape[:-1]
    if weight.ndim > len(samples) and weight.shape[-1] == 1:
        weight = weight[..., 0]
    if weight.shape != samples[: weight.ndim]:
        raise ValueError(
            f"sample_weight must have the shape {samples}, one weight a sample, got {weight.shape}."
        )
    weight = weight.reshape(weight.shape + (1,) * (len(samples) - weight.ndim))
    return np.ascontiguousarray(np.broadcast_to(weight, samples))


_CLASSES: dict[str, type[Loss]] = {
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}
_FUNCTIONS = (
    mean_squared_error,
    binary_crossentropy,
    categorical_crossentropy,
    sparse_categorical_crossentropy,
)


def get(identifier: Any) -> Loss:
    """Return the loss that an instance, class, function, name or config stands for.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.losses.get("mse").name
    'mean_squared_error'
    """
    return lookup("loss", identifier.__name__ if identifier in _FUNCTIONS else identifier, Loss, _CLASSES)
