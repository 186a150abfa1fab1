"""Layers compiled into Programs, and what one epoch of training or one evaluation does with them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _device
from ._graph import Graph
from ._progress import Progress
from ._results import Results
from ._runtime import get_precision, next_seed, precisions
from ._stream import Stream
from ._tally import Tally
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

    def parts(self, size: int) -> Iterator[Data]:
        """Yield the samples, `size` at a time."""
        return (self.part(start, start + size) for start in range(0, len(self.x), size))

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
                    for layer, sources in zip(self._layers, self._feeds, strict=True)
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
        done = self._run(
            program,
            data,
            order,
            rates,
            batch_size=batch,
            predictions=predictions,
            on_progress=on_progress,
            interval=interval,
        )
        if predictions is not None:
            seen = order[: done["samples"]]
            weight = None if data.weight is None else data.weight[seen]
            measure.reset()
            measure.update(data.y[seen], predictions[: len(seen)], weight)
        return measure.final(done["loss"], done["accuracy"])

    def _run(
        self, program: _core.Program, data: Data, order: np.ndarray | None, rates: np.ndarray, **how: Any
    ) -> dict[str, Any]:
        """Make an update for each batch, and count them."""
        program.iteration = self.optimizer.iterations
        try:
            return program.train_epoch(data.x, data.y, order, rates, sample_weight=data.weight, **how)
        finally:
            self.optimizer.iterations = program.iteration

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

    def _train_batches(
        self, batches: Iterable[Data], hooks: CallbackList, progress: Progress
    ) -> dict[str, Any]:
        """Make an update with each batch, as it comes, and return the results."""
        tally, size = Tally(self), 0
        for number, data in enumerate(batches):
            hooks("on_train_batch_begin", number, {})
            size = max(size, len(data.x))
            program = self._program(size)
            self._batch_size, predictions = size, tally.room(data)
            rates = self.optimizer.rates(1)
            done = self._run(program, data, None, rates, predictions=predictions)
            logs = tally.add(data, done["loss"], done["accuracy"], predictions)
            progress.update(number + 1, logs)
            hooks("on_train_batch_end", number, logs)
            if self.stop_training:
                break
        return tally.final()

    def _evaluate(self, data: Data | Stream[Data], batch: int, hooks: CallbackList) -> dict[str, Any]:
        if isinstance(data, Stream):
            with closing(data):
                return self._evaluate_batches(data, hooks)
        in_batches = hooks.override("on_test_batch_begin", "on_test_batch_end")
        return self._evaluate_batches(data.parts(batch) if in_batches else [data], hooks, batch)

    def _evaluate_batches(
        self, batches: Iterable[Data], hooks: CallbackList, largest: int = sys.maxsize
    ) -> dict[str, Any]:
        """Return the results on all batches, computed for at most `largest` samples at a time."""
        hooks("on_test_begin", {})
        tally, size = Tally(self), 0
        for number, data in enumerate(batches):
            hooks("on_test_batch_begin", number, {})
            size = max(size, min(len(data.x), largest))
            program, predictions = self._program(size), tally.room(data)
            if predictions is not None:
                program.predict(data.x, predictions)
            logs = tally.add(data, *program.evaluate(data.x, data.y, data.weight), predictions)
            hooks("on_test_batch_end", number, logs)
        logs = tally.final()
        hooks("on_test_end", logs)
        return logs

    def _predict(
        self, batches: Iterable[np.ndarray], hooks: CallbackList, largest: int = sys.maxsize
    ) -> np.ndarray:
        """Return the outputs for all batches, computed for at most `largest` samples at a time."""
        hooks("on_predict_begin", {})
        outputs, size = [], 0
        for number, x in enumerate(batches):
            hooks("on_predict_batch_begin", number, {})
            size = max(size, min(len(x), largest))
            out = np.empty((len(x), *self._output_shape()), self.dtype)
            self._program(size).predict(x, out)
            outputs.append(out)
            hooks("on_predict_batch_end", number, {"outputs": out})
        hooks("on_predict_end", {})
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _results(self, y: np.ndarray) -> Results:
        return Results(
            self._metrics, self._weighted_metrics, self.loss, y.shape, (len(y), *self._output_shape())
        )


def _sample_shape(shape: Shape) -> tuple[int, ...]:
    """Return `shape` without the batch axis."""
    return tuple(n for n in shape[1:] if n is not None)
