"""The loss and the metrics of an epoch or an evaluation, as a dict by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .losses import Loss
from .metrics import Metric, accuracy_for


class _Measure(NamedTuple):
    name: str
    metric: Metric | None  # None: the accuracy that the Program computes itself
    weighted: bool


class Results:
    """What to measure, for a loss and the shapes of labels and outputs (batch axis included)."""

    def __init__(
        self,
        plain: Sequence[Metric | str],
        weighted: Sequence[Metric | str],
        loss: Loss,
        label_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
    ) -> None:
        self._measures: list[_Measure] = []
        taken = {"loss"}
        for identifier, is_weighted in [*((m, False) for m in plain), *((m, True) for m in weighted)]:
            measure = _measure(identifier, is_weighted, loss, label_shape, output_shape)
            if measure.name in taken:
                measure = measure._replace(
                    name=_free_name(f"weighted_{measure.name}" if is_weighted else measure.name, taken)
                )
            taken.add(measure.name)
            self._measures.append(measure)

    @property
    def need_predictions(self) -> bool:
        """Whether a metric has to see the outputs."""
        return any(measure.metric is not None for measure in self._measures)

    def so_far(self, loss: float, accuracy: float) -> dict[str, float]:
        """Return what the Program knows in the middle of an epoch."""
        return {"loss": loss} | {m.name: accuracy for m in self._measures if m.metric is None}

    def reset(self) -> None:
        """Forget what the metrics have seen."""
        for _, metric, _ in self._measures:
            if metric is not None:
                metric.reset_state()

    def update(self, y: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> None:
        """Show the metrics outputs for samples with the labels `y`."""
        for _, metric, weighted in self._measures:
            if metric is not None:
                metric.update_state(y, predictions, weight if weighted else None)

    def final(self, loss: float, accuracy: float) -> dict[str, Any]:
        """Return the loss and all metrics, over all that they have seen since `reset`."""
        logs: dict[str, Any] = {"loss": float(loss)}
        for name, metric, _ in self._measures:
            result = accuracy if metric is None else metric.result()
            logs[name] = float(result) if np.ndim(result) == 0 else np.asarray(result)
        return logs


def _measure(
    metric: Metric | str,
    weighted: bool,
    loss: Loss,
    label_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
) -> _Measure:
    if isinstance(metric, Metric):
        return _Measure(metric.name, metric, weighted)
    compiled = loss.kind.endswith("categorical_crossentropy") or (
        loss.kind == "binary_crossentropy" and output_shape[-1] == 1
    )
    own = None if compiled and not weighted else accuracy_for(label_shape, output_shape)
    return _Measure(metric, own, weighted)


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
