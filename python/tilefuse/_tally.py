"""Loss and metrics over batches that come one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._results import Results

if TYPE_CHECKING:
    from ._engine import Data, Engine


class Tally:
    """The means over the batches so far, as the metrics see them."""

    def __init__(self, model: Engine) -> None:
        self._model = model
        self._measure: Results | None = None
        self._samples = 0
        self._means = np.zeros(2)

    def room(self, data: Data) -> np.ndarray | None:
        """Return an array for the outputs for a batch, if a metric has to see them."""
        if self._measure is None:
            self._measure = self._model._results(data.y)
            self._measure.reset()
        if not self._measure.need_predictions:
            return None
        return np.empty((len(data.x), *self._model._output_shape()), self._model.dtype)

    def add(
        self, data: Data, loss: float, accuracy: float, predictions: np.ndarray | None
    ) -> dict[str, float]:
        """Take the results of a batch, after `room`, and return the means so far."""
        assert self._measure is not None
        self._samples += len(data.x)
        self._means += (np.array([loss, accuracy]) - self._means) * (len(data.x) / self._samples)
        if predictions is not None:
            self._measure.update(data.y, predictions, data.weight)
        return self._measure.so_far(*self._means.tolist())

    def final(self) -> dict[str, Any]:
        """Return loss and all metrics."""
        assert self._measure is not None
        return self._measure.final(*self._means.tolist())
