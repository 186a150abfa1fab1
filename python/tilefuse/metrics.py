"""Metrics: numbers that say how good predictions are.

The classes collect batches, as in Keras: ``update_state(y_true, y_pred)``, ``result()``, ``reset_state()``.
Labels may be integers or one-hot rows, predictions classes or a row of scores a sample. The functions take
class numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._config import Configurable, lookup, snake_case, to_config


class Metric(Configurable):
    """Base of the metrics.

    A subclass implements `update_state`, `result` and `reset_state`, and names its attributes as its
    constructor's parameters.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or snake_case(type(self).__name__)
        self.reset_state()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account."""
        raise NotImplementedError

    def result(self) -> Any:
        """Return the metric over all batches since the last `reset_state`: a float, or an array."""
        raise NotImplementedError

    def reset_state(self) -> None:
        """Forget all batches."""
        raise NotImplementedError

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Call `update_state` and return `result`."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()


class Mean(Metric):
    """The weighted mean of the values given to ``update_state(values, sample_weight=None)``.

    Examples
    --------
    >>> import tilefuse
    >>> mean = tilefuse.metrics.Mean()
    >>> mean.update_state([1.0, 3.0])
    >>> mean.result()
    2.0
    """

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        array = np.asarray(values, np.float64)
        weight = np.ones(array.shape) if sample_weight is None else _weights(sample_weight, array.shape)
        self._total += float((array * weight).sum())
        self._count += float(weight.sum())

    def result(self) -> float:
        return self._total / self._count if self._count else 0.0

    def reset_state(self) -> None:
        self._total = self._count = 0.0

    def __call__(self, values: Any, sample_weight: Any = None) -> float:  # type: ignore[override]
        self.update_state(values, sample_weight)
        return self.result()


class _MeanOf(Metric):
    """Base of the metrics that are the mean of a value for each sample, which the method `of` returns."""

    def __init__(self, name: str | None = None) -> None:
        self._mean = Mean()
        super().__init__(name)

    def of(self, y_true: Any, y_pred: Any) -> Any:
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self._mean.update_state(self.of(np.asarray(y_true), np.asarray(y_pred)), sample_weight)

    def result(self) -> float:
        return self._mean.result()

    def reset_state(self) -> None:
        self._mean.reset_state()


class MeanMetricWrapper(_MeanOf):
    """The mean of ``fn(y_true, y_pred)``, which returns one value for each sample.

    Parameters
    ----------
    fn : callable
    name : str, optional
        The function's name by default.
    """

    def __init__(self, fn: Callable[[Any, Any], Any], name: str | None = None) -> None:
        self.fn = fn
        super().__init__(name or getattr(fn, "__name__", type(fn).__name__))

    def of(self, y_true: Any, y_pred: Any) -> Any:
        return self.fn(y_true, y_pred)

    def serialized(self) -> dict[str, Any]:
        return to_config(self.fn)


class Accuracy(_MeanOf):
    """The fraction of elements that are equal.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.Accuracy()([1, 2, 3, 4], [1, 2, 3, 0])
    0.75
    """

    def of(self, y_true: Any, y_pred: Any) -> np.ndarray:
        y_true, y_pred = _same_shape(self.name, y_true, y_pred)
        return y_true == y_pred


class BinaryAccuracy(_MeanOf):
    """The fraction of outputs on the right side of `threshold`.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.BinaryAccuracy()([[1], [0]], [[0.9], [0.6]])
    0.5
    """

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        self.threshold = threshold
        super().__init__(name)

    def of(self, y_true: Any, y_pred: Any) -> np.ndarray:
        y_true, y_pred = _same_shape(self.name, y_true, y_pred)
        return ((y_pred > self.threshold) == (y_true > 0.5)).mean(axis=-1)


class CategoricalAccuracy(_MeanOf):
    """The fraction of samples whose highest score is at the label's one; labels are one-hot rows."""

    def of(self, y_true: Any, y_pred: Any) -> np.ndarray:
        y_true, y_pred = _same_shape(self.name, y_true, y_pred)
        return y_true.argmax(axis=-1) == y_pred.argmax(axis=-1)


class SparseCategoricalAccuracy(_MeanOf):
    """The fraction of samples whose highest score is at the label; labels are integers.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.SparseCategoricalAccuracy()([1, 0], [[0.1, 0.9], [0.2, 0.8]])
    0.5
    """

    def of(self, y_true: Any, y_pred: Any) -> np.ndarray:
        y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
        return y_true.reshape(y_pred.shape[:-1]) == y_pred.argmax(axis=-1)


class MeanSquaredError(_MeanOf):
    """The mean of the squared differences."""

    def of(self, y_true: Any, y_pred: Any) -> np.ndarray:
        y_true, y_pred = _same_shape(self.name, y_true, y_pred)
        return np.square(y_pred - y_true).mean(axis=-1)


class _Counts(Metric):
    """Base of the metrics made from true positives, false positives and false negatives of each output.

    With integer labels and a row of scores a sample, or one-hot labels in several columns, each sample is
    predicted to be of the class with the highest score; with one output, or a `threshold`, each output
    decides for itself.
    """

    threshold: float | None = None
    _counts: np.ndarray | None

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth, guess = _decisions(y_true, y_pred, self.threshold)
        weight = 1.0 if sample_weight is None else _weights(sample_weight, truth.shape[:1])[:, None]
        counts = np.stack(
            [
                (weight * (truth & guess)).sum(axis=0),
                (weight * (~truth & guess)).sum(axis=0),
                (weight * (truth & ~guess)).sum(axis=0),
                (weight * truth).sum(axis=0),
            ]
        )
        self._counts = counts if self._counts is None else self._counts + counts

    def reset_state(self) -> None:
        self._counts = None

    def counts(self) -> np.ndarray:
        """Return [4, outputs]: true positives, false positives, false negatives, positives."""
        return np.zeros((4, 1)) if self._counts is None else self._counts


class _PrecisionOrRecall(_Counts):
    def __init__(
        self,
        thresholds: float | None = None,
        class_id: int | None = None,
        name: str | None = None,
        average: str | None = "micro",
    ) -> None:
        self.thresholds = self.threshold = thresholds
        self.class_id, self.average = class_id, _checked_average(average)
        super().__init__(name)

    def score(self, counts: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def result(self) -> Any:
        counts = self.counts()
        if self.class_id is not None:
            counts = counts[:, self.class_id : self.class_id + 1]
        return _averaged(self.score, counts, self.average if self.class_id is None else "micro")


class Precision(_PrecisionOrRecall):
    """True positives divided by all that was predicted positive.

    Parameters
    ----------
    thresholds : float, optional
        An output is positive above it: 0.5 by default for a single output. With several outputs the default
        is to take the highest, where Keras would compare each with 0.5.
    class_id : int, optional
        Look at this output only.
    name : str, optional
    average : {"micro", "macro", "weighted", None}
        How several outputs become one number; None gives an array. Keras has "micro" only.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.Precision()([0, 1, 1, 1], [1, 0, 1, 1])
    0.6666666666666666
    """

    def score(self, counts: np.ndarray) -> np.ndarray:
        return _ratio(counts[0], counts[0] + counts[1])


class Recall(_PrecisionOrRecall):
    """True positives divided by all that is positive. Parameters as for `Precision`.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.Recall()([0, 1, 1, 1], [1, 0, 1, 1])
    0.6666666666666666
    """

    def score(self, counts: np.ndarray) -> np.ndarray:
        return _ratio(counts[0], counts[0] + counts[2])


class F1Score(_Counts):
    """The harmonic mean of precision and recall.

    Parameters
    ----------
    average : {None, "micro", "macro", "weighted"}
        How several outputs become one number. None gives an array, except for a single output.
    threshold : float, optional
        As `thresholds` of `Precision`.
    name : str, optional

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.F1Score()([0, 0, 1, 1], [0, 1, 1, 1])
    0.8
    """

    def __init__(
        self, average: str | None = None, threshold: float | None = None, name: str | None = None
    ) -> None:
        self.average, self.threshold = _checked_average(average), threshold
        super().__init__(name)

    def result(self) -> Any:
        counts = self.counts()
        return _averaged(_f1, counts, "micro" if counts.shape[1] == 1 else self.average)


class ConfusionMatrix(Metric):
    """How often each class (row) was taken for each class (column).

    Parameters
    ----------
    num_classes : int, optional
        Taken from the predictions' columns by default, or the largest class seen.
    name : str, optional

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.ConfusionMatrix()([0, 0, 1], [0, 1, 1])
    array([[1, 1],
           [0, 1]])
    """

    _matrix: np.ndarray | None

    def __init__(self, num_classes: int | None = None, name: str | None = None) -> None:
        self.num_classes = num_classes
        super().__init__(name)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        scores = np.asarray(y_pred)
        columns = scores.shape[-1] if scores.ndim > 1 and scores.shape[-1] > 1 else 0
        seen = 0 if self._matrix is None else len(self._matrix)
        truth, guess = classes(y_true), classes(y_pred)
        least = max(columns, seen, int(max(truth.max(initial=0), guess.max(initial=0))) + 1)
        matrix = confusion_matrix(truth, guess, num_classes=self.num_classes or least, weights=sample_weight)
        if self._matrix is not None:
            matrix[:seen, :seen] += self._matrix
        self._matrix = matrix

    def result(self) -> np.ndarray:
        size = self.num_classes or 0
        return np.zeros((size, size), np.int64) if self._matrix is None else self._matrix

    def reset_state(self) -> None:
        self._matrix = None


def classes(y: Any, threshold: float = 0.5) -> np.ndarray:
    """Return the class of each sample as int64 [n].

    Parameters
    ----------
    y : array_like
        Class numbers [n] or [n, 1]; probabilities of class 1, likewise (floats, compared with `threshold`);
        or scores or one-hot rows [n, classes].

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.classes([[0.1, 0.9], [0.8, 0.2]])
    array([1, 0])
    """
    array = np.asarray(y)
    if array.ndim > 1 and array.shape[-1] > 1:
        return array.argmax(axis=-1).reshape(-1)
    flat = array.reshape(-1)
    if flat.dtype.kind == "f" and not np.array_equal(flat, np.floor(flat)):
        return (flat > threshold).astype(np.int64)
    return flat.astype(np.int64)


def confusion_matrix(
    y_true: Any, y_pred: Any, num_classes: int | None = None, weights: Any = None
) -> np.ndarray:
    """Return the matrix whose element [i, j] counts the samples of class i that were predicted to be j.

    Parameters
    ----------
    y_true, y_pred : array_like
        As `classes` takes them.
    num_classes : int, optional
        One more than the largest class by default.
    weights : array_like [n], optional
        Count a sample as so many.

    Returns
    -------
    int64 array [num_classes, num_classes], or float64 where there are weights

    Raises
    ------
    ValueError
        The lengths differ, or a class is negative or not below `num_classes`.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.confusion_matrix([0, 1, 1], [0, 1, 0])
    array([[1, 0],
           [1, 1]])
    """
    truth, guess = classes(y_true), classes(y_pred)
    if len(truth) != len(guess):
        raise ValueError(
            f"y_true and y_pred must have one entry for each sample; got {len(truth)} and {len(guess)}."
        )
    largest = int(max(truth.max(initial=-1), guess.max(initial=-1)))
    size = largest + 1 if num_classes is None else num_classes
    if largest >= size or min(truth.min(initial=0), guess.min(initial=0)) < 0:
        raise ValueError(
            f"Classes must be integers from 0 to {size - 1}; y_true has {_span(truth)}, "
            f"y_pred {_span(guess)}."
        )
    counts = np.bincount(truth * size + guess, weights, minlength=size * size)
    return counts.reshape(size, size)


def classification_report(
    y_true: Any,
    y_pred: Any,
    target_names: Sequence[str] | None = None,
    digits: int = 4,
    output_dict: bool = False,
) -> Any:
    """Return precision, recall, F1 and the number of samples of each class, as a table.

    Parameters
    ----------
    y_true, y_pred : array_like
        As `classes` takes them.
    target_names : sequence of str, optional
        The classes' names; their numbers by default.
    digits : int
    output_dict : bool
        Return ``{name: {"precision", "recall", "f1-score", "support"}}`` instead of text.

    Returns
    -------
    str or dict
        A row a class, then the accuracy and the means over the classes, plain and weighted by support.

    Examples
    --------
    >>> import tilefuse
    >>> print(tilefuse.metrics.classification_report([0, 1, 1], [0, 1, 0], digits=2))
                  precision  recall  f1-score  support
               0       0.50    1.00      0.67        1
               1       1.00    0.50      0.67        2
        accuracy                         0.67        3
       macro avg       0.75    0.75      0.67        3
    weighted avg       0.83    0.67      0.67        3
    """
    matrix = confusion_matrix(y_true, y_pred)
    names = (
        [str(i) for i in range(len(matrix))] if target_names is None else [str(name) for name in target_names]
    )
    if len(names) != len(matrix):
        raise ValueError(f"target_names must name {len(matrix)} classes, got {len(names)} names.")
    hits, support, guessed = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    counts = np.stack([hits, guessed - hits, support - hits, support]).astype(np.float64)
    columns = np.stack([_ratio(hits, guessed), _ratio(hits, support), _f1(counts)], axis=1)
    share = support / max(support.sum(), 1)
    rows = [(name, *row, n) for name, row, n in zip(names, columns, support, strict=True)]
    total = int(support.sum())
    accuracy = float(hits.sum() / max(total, 1))
    averages = [("macro avg", *columns.mean(axis=0), total), ("weighted avg", *(share @ columns), total)]
    if output_dict:
        keys = ("precision", "recall", "f1-score")
        table: dict[str, Any] = {
            row[0]: dict(zip(keys, map(float, row[1:4]), strict=True)) | {"support": int(row[4])}
            for row in rows + averages
        }
        return table | {"accuracy": accuracy}
    width = max(len(name) for name in [*names, "weighted avg"])
    lines = [f"{'':>{width}}  precision  recall  f1-score  support"]
    lines += [_report_line(width, digits, row) for row in rows]
    lines += [f"{'accuracy':>{width}}  {'':9}  {'':6}  {accuracy:8.{digits}f}  {total:7d}"]
    lines += [_report_line(width, digits, row) for row in averages]
    return "\n".join(lines)


def _report_line(width: int, digits: int, row: tuple[Any, ...]) -> str:
    name, precision, recall, f1, support = row
    return f"{name:>{width}}  {precision:9.{digits}f}  {recall:6.{digits}f}  {f1:8.{digits}f}  {support:7d}"


def _decisions(y_true: Any, y_pred: Any, threshold: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and prediction of each output of each sample as booleans [n, outputs]."""
    truth, scores = np.asarray(y_true), np.asarray(y_pred)
    outputs = scores.shape[-1] if scores.ndim > 1 else 1
    scores = scores.reshape(-1, outputs)
    if truth.size not in (len(scores), scores.size):
        raise ValueError(
            f"y_true and y_pred must have one entry for each sample; got shapes {truth.shape} and "
            f"{np.shape(y_pred)}."
        )
    if truth.size == scores.size:
        truth = truth.reshape(scores.shape)
        if truth.size and truth.max() > 1:
            raise ValueError(
                f"Labels of a single output must be 0 or 1, got {truth.max()}. Give a row of scores for "
                "each sample, or call classification_report with class numbers."
            )
        truth = truth > 0.5
    else:
        truth = _one_hot(truth, outputs)
    if outputs == 1 or threshold is not None:
        return truth, scores > (0.5 if threshold is None else threshold)
    return truth, _one_hot(scores.argmax(axis=-1), outputs)


def _one_hot(labels: np.ndarray, number: int) -> np.ndarray:
    return labels.reshape(-1, 1) == np.arange(number)


def _averaged(score: Callable[[np.ndarray], np.ndarray], counts: np.ndarray, average: str | None) -> Any:
    if average == "micro":
        return float(score(counts.sum(axis=1)))
    each = score(counts)
    if average is None:
        return each
    weights = counts[3] if average == "weighted" and counts[3].sum() else np.ones(len(each))
    return float((each * weights).sum() / weights.sum())


def _f1(counts: np.ndarray) -> np.ndarray:
    return _ratio(2 * counts[0], 2 * counts[0] + counts[1] + counts[2])


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, 0 where there is nothing to divide by."""
    return np.divide(
        numerator, denominator, out=np.zeros(np.shape(numerator)), where=np.asarray(denominator) > 0
    )


def _checked_average(average: str | None) -> str | None:
    if average not in (None, "micro", "macro", "weighted"):
        raise ValueError(f"average must be None, 'micro', 'macro' or 'weighted', got {average!r}.")
    return average


def _same_shape(name: str, y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays of the shape of `y_pred`; labels [n] go with predictions [n, 1]."""
    truth, pred = np.atleast_1d(y_true), np.atleast_1d(y_pred)
    if truth.ndim == pred.ndim - 1 and pred.shape[-1] == 1:
        truth = truth[..., None]
    if truth.shape != pred.shape:
        raise ValueError(
            f"{name}: y_true and y_pred must have one shape, got {truth.shape} and {pred.shape}."
        )
    return truth, pred


def _weights(sample_weight: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the weights repeated along the axes that they do not have."""
    weight = np.asarray(sample_weight, np.float64)
    if weight.ndim > len(shape) and weight.shape[-1] == 1:
        weight = weight[..., 0]
    return np.broadcast_to(weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim)), shape)


def _span(values: np.ndarray) -> str:
    return f"{values.min()} to {values.max()}" if values.size else "none"


_METRICS: tuple[type[Metric], ...] = (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    MeanSquaredError,
    Precision,
    Recall,
    F1Score,
    ConfusionMatrix,
)
_CLASSES: dict[str, type[Metric]] = {snake_case(cls.__name__): cls for cls in _METRICS}
_CLASSES["mse"] = MeanSquaredError


def get(identifier: Any) -> Metric:
    """Return the metric that an instance, class, function, name or config stands for.

    A function ``fn(y_true, y_pred)`` becomes the mean of its values.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.metrics.get("precision").name
    'precision'
    """
    if callable(identifier) and not isinstance(identifier, (type, Metric)):
        return MeanMetricWrapper(identifier)
    metric = lookup("metric", identifier, Metric, _CLASSES)
    return metric if isinstance(metric, Metric) else MeanMetricWrapper(metric)


def accuracy_for(label_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Metric:
    """Return what Keras means by "accuracy" for these shapes, batch axis included."""
    if output_shape[-1] == 1:
        return BinaryAccuracy("accuracy")
    sparse = len(label_shape) < len(output_shape) or label_shape[-1] == 1
    return SparseCategoricalAccuracy("accuracy") if sparse else CategoricalAccuracy("accuracy")
