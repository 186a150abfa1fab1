"""Layers compiled into Programs, and what one epoch of training or one evaluation does with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _device
from ._graph import Graph
from ._progress import Progress
from ._results import Results
from ._runtime import get_precision, next_seed, precisions
from .callbacks import CallbackList
from .layers.symbol import Shape
from .losses import Loss
from .metrics import Metric
from .optimizers import Optimizer
from .variables import copy_to

if TYPE_CHECKING:
    from . import _core

DEFAULT_BATCH = 32
# Programs are kept for so many batch sizes; each has its own workspace.
_KEPT_PROGRAMS = 4
# Seconds between two updates of the progress bar.
_REFRESH = 0.05


class Data(NamedTuple):
    """Samples as the Program takes them."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None

    def part(self, start: int, stop: int) -> Data:
        return Data(
            self.x[start:stop], self.y[start:stop], None if self.weight is None else self.weight[start:stop]
        )

    def on(self, device: str) -> Data:
        """Return the samples in the device's memory: copied there now, and not at each use."""
        if device == "cpu":
            return self
        weight = None if self.weight is None else copy_to(device, self.weight)
        return Data(copy_to(device, self.x), copy_to(device, self.y), weight)


class Engine(Graph):
    """Layers with the Programs made from them; the part of a model that drives the native code.

    Attributes
    ----------
    compiled : bool
        Whether `compile` was called, and so optimizer, loss and metrics exist.
    seed : int
        The order of the samples follows from it and the number of epochs trained.
    epochs_trained : int
    precision : str
        How the matrix products of its compiled steps are made, as `set_precision` said when the model was
        made. May be changed at any time, and is saved with the model.
    stop_training : bool
        Set to True by a callback to end the training.
    """

    optimizer: Optimizer
    loss: Loss

    def __init__(self) -> None:
        super().__init__()
        self.compiled = False
        self.stop_training = False
        self.seed = next_seed()
        self.precision = get_precision()
        self.epochs_trained = 0
        self._metrics: list[Metric | str] = []
        self._weighted_metrics: list[Metric | str] = []
        self._programs: dict[tuple[Any, ...], _core.Program] = {}
        self._batch_size = DEFAULT_BATCH

    @property
    def program(self) -> _core.Program:
        """The compiled step for the last batch size (32 at first); print it for its stages and bytes.

        Raises
        ------
        ValueError
            The model is not built.
        """
        self._output_shape()
        return self._program(self._batch_size)

    @property
    def device(self) -> str:
        """The device whose memory the weights are in: the one that was in use when they were made.

        Training, evaluation and prediction take place there, whichever device is in use.

        Raises
        ------
        ValueError
            The layers were built on different devices.
        """
        devices = {layer.name: weight.device for layer in self.layers for weight in layer.weights}
        if len(set(devices.values())) > 1:
            places = ", ".join(f"{name!r} on {device!r}" for name, device in devices.items())
            raise ValueError(
                f"The layers of this model were built on different devices: {places}. Make them all with one "
                "device in use, and copy the weights with set_weights(other.get_weights())."
            )
        return next(iter(devices.values()), _device.current())

    def training_state(self) -> dict[str, Any]:
        """Return the counters and seeds that the course of the training depends on."""
        return {
            "seed": self.seed,
            "epochs": self.epochs_trained,
            "iterations": self.optimizer.iterations if self.compiled else 0,
            "layers": {layer.name: layer.random_state() for layer in self.layers if layer.random_state()},
        }

    def set_training_state(self, state: Mapping[str, Any]) -> None:
        """Take what `training_state` returned."""
        self.seed, self.epochs_trained = state["seed"], state["epochs"]
        if self.compiled:
            self.optimizer.iterations = state["iterations"]
        for layer in self.layers:
            if layer.name in state["layers"]:
                layer.set_random_state(state["layers"][layer.name])
        self._changed()

    def _program(self, batch: int) -> _core.Program:
        """Return the Program for a batch size, made on first use; it follows `trainable` and `compile`."""
        key = (batch, self.device, self.precision, *(layer.trainable for layer in self.layers))
        if key not in self._programs:
            while len(self._programs) >= _KEPT_PROGRAMS:
                self._programs.pop(next(iter(self._programs)))
            self._programs[key] = self._make_program(batch)
        return self._programs[key]

    def _make_program(self, batch: int) -> _core.Program:
        assert self.input_shape is not None
        available = precisions(self.device)
        if self.precision not in available:
            raise ValueError(
                f"This model's precision is {self.precision!r}, which device {self.device!r} does not have. "
                f"Set model.precision to one of: {', '.join(map(repr, available))}."
            )
        several = self.dtype == np.float32 and self.precision != "float64"
        slots = self.optimizer.slots if self.compiled else lambda variable: []
        with _device.using(self.device) as native:
            program: _core.Program = native.Program(
                [
                    layer.lower(slots) | {"sources": sources}
                    for layer, sources in zip(self._layers, self._sources, strict=True)
                ],
                _sample_shape(self.input_shape),
                batch,
                self.loss.lower() if self.compiled else None,
                self.optimizer.lower() if self.compiled else None,
                str(self.dtype),
                precision=self.precision if several else "float32",
            )
        return program

    def _changed(self) -> None:
        self._programs.clear()

    def _output_shape(self) -> tuple[int, ...]:
        if not self.built or self.output_shape is None:
            raise ValueError("This model is not built: add layers and an Input, or show it data first.")
        return _sample_shape(self.output_shape)

    def _train(
        self, data: Data, batch: int, order: np.ndarray, hooks: CallbackList, progress: Progress
    ) -> dict[str, Any]:
        """Make an update for each batch of `order`, in one native call, and return the results."""
        optimizer, program = self.optimizer, self._program(batch)
        measure = self._results(data.y)
        rates = optimizer.rates(math.ceil(len(order) / batch))
        predictions = (
            np.empty((len(order), *self._output_shape()), self.dtype) if measure.need_predictions else None
        )
        on_progress, interval = self._on_progress(rates, measure, hooks, progress)
        program.iteration = optimizer.iterations
        try:
            done = program.train_epoch(
                data.x,
                data.y,
                order,
                rates,
                batch_size=batch,
                sample_weight=data.weight,
                predictions=predictions,
                on_progress=on_progress,
                interval=interval,
            )
        finally:
            optimizer.iterations = program.iteration
        seen = order[: done["samples"]]
        if predictions is None:
            return measure.final(done["loss"], done["accuracy"], data.y, None, None)
        return measure.final(
            done["loss"],
            done["accuracy"],
            data.y[seen],
            predictions[: len(seen)],
            None if data.weight is None else data.weight[seen],
        )

    def _on_progress(
        self, rates: np.ndarray, measure: Results, hooks: CallbackList, progress: Progress
    ) -> tuple[Callable[[int, float, float], bool] | None, float]:
        """Return what the native code calls during an epoch (or None), and after how many seconds."""
        each_step = hooks.override(
            "on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end"
        )
        if not each_step and not progress.live:
            return None, _REFRESH
        optimizer, first, rate = self.optimizer, self.optimizer.iterations, self.optimizer.rate

        def on_progress(done: int, loss: float, accuracy: float) -> bool:
            logs = measure.so_far(loss, accuracy)
            progress.update(done, logs)
            if each_step:
                optimizer.iterations = first + done
                hooks("on_train_batch_end", done - 1, logs)
                if (
                    optimizer.rate != rate
                ):  # a callback changed it; the native code reads `rates` at each step
                    rates[done:] = optimizer.rates(len(rates) - done)
                if done < len(rates) and not self.stop_training:
                    hooks("on_train_batch_begin", done, {})
            return self.stop_training

        if each_step:
            hooks("on_train_batch_begin", 0, {})
        return on_progress, 0.0 if each_step else _REFRESH

    def _evaluate(self, data: Data, batch: int, hooks: CallbackList) -> dict[str, Any]:
        hooks("on_test_begin", {})
        measure = self._results(data.y)
        program = self._program(min(batch, len(data.x)))
        if hooks.override("on_test_batch_begin", "on_test_batch_end"):
            loss, accuracy = self._evaluate_in_batches(program, data, batch, measure, hooks)
        else:
            loss, accuracy = program.evaluate(data.x, data.y, data.weight)
        predictions = None
        if measure.need_predictions:
            predictions = np.empty((len(data.x), *self._output_shape()), self.dtype)
            program.predict(data.x, predictions)
        logs = measure.final(loss, accuracy, data.y, predictions, data.weight)
        hooks("on_test_end", logs)
        return logs

    @staticmethod
    def _evaluate_in_batches(
        program: Any, data: Data, batch: int, measure: Results, hooks: CallbackList
    ) -> tuple[float, float]:
        totals, seen = np.zeros(2), 0
        for number, start in enumerate(range(0, len(data.x), batch)):
            hooks("on_test_batch_begin", number, {})
            part = data.part(start, start + batch)
            totals += len(part.x) * np.array(program.evaluate(*part))
            seen += len(part.x)
            hooks("on_test_batch_end", number, measure.so_far(*(totals / seen)))
        return float(totals[0] / seen), float(totals[1] / seen)

    def _results(self, y: np.ndarray) -> Results:
        return Results(
            self._metrics, self._weighted_metrics, self.loss, y.shape, (len(y), *self._output_shape())
        )


def _sample_shape(shape: Shape) -> tuple[int, ...]:
    """Return `shape` without the batch axis."""
    return tuple(n for n in shape[1:] if n is not None)
