"""compile, fit, evaluate and predict: the layers become a compiled Program, which does a whole epoch in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _arrays, _core, losses, optimizers
from . import metrics as metrics_module
from ._config import to_config
from ._progress import Progress
from ._results import Results
from ._runtime import generator
from .callbacks import CallbackList, History
from .layers import Layer
from .layers.base import Shape
from .losses import Loss
from .optimizers import Optimizer
from .variables import Variable

_DEFAULT_BATCH = 32
# Programs are kept for so many batch sizes; each has its own workspace.
_KEPT_PROGRAMS = 4
# Seconds between two updates of the progress bar.
_REFRESH = 0.05


class _Data(NamedTuple):
    """Samples as the Program takes them."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None

    def part(self, start: int, stop: int) -> _Data:
        return _Data(
            self.x[start:stop], self.y[start:stop], None if self.weight is None else self.weight[start:stop]
        )


class Trainer:
    """The part of a model that trains; `Sequential` is the part that has layers."""

    # What a Sequential provides.
    layers: list[Layer]
    built: bool
    input_shape: Shape | None
    output_shape: Shape | None
    dtype: np.dtype[Any]
    weights: list[Variable]
    seed: int
    build: Callable[[Shape], None]

    def __init__(self) -> None:
        self.compiled = False
        self.stop_training = False
        self.epochs_trained = 0
        self.history: History | None = None
        self._programs: dict[tuple[Any, ...], _core.Program] = {}
        self._batch_size = _DEFAULT_BATCH

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Choose optimizer, loss and metrics.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str or Loss
            Mean squared error, or binary, categorical or sparse categorical cross-entropy.
        loss_weights : None
            There is one output, so there is nothing to weight.
        metrics, weighted_metrics : list of str, Metric or callable, optional
            "accuracy" is the accuracy that fits loss and labels. With ``BinaryCrossentropy(from_logits=True)`` it
            compares the probability with 0.5, where Keras would compare the logit. `weighted_metrics` take sample
            and class weights into account. A callable ``fn(y_true, y_pred)`` returns a value for each sample.
        run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
            As in Keras; without effect.

        Raises
        ------
        ValueError
            A name is not known, or the loss cannot be compiled.
        """
        if loss is None:
            raise ValueError("compile needs a loss, for instance loss='sparse_categorical_crossentropy'.")
        if loss_weights is not None:
            raise ValueError(
                f"loss_weights must be None, since the model has one output; got {loss_weights!r}. "
                "Metrics are passed by name: compile(optimizer, loss, metrics=['accuracy'])."
            )
        self.loss: Loss = losses.get(loss)
        self.loss.lower()
        self.optimizer: Optimizer = optimizers.get(optimizer)
        self._metrics, self._weighted_metrics = _as_list(metrics), _as_list(weighted_metrics)
        for metric in (*self._metrics, *self._weighted_metrics):
            if not isinstance(metric, str) or metric not in metrics_module.ACCURACY_NAMES:
                metrics_module.get(metric)
        self.compiled = True
        self._forget_programs()

    def get_compile_config(self) -> dict[str, Any]:
        """Return what `compile` was given, as a dict that JSON can hold."""
        self._require_compiled("get_compile_config")
        return {
            "optimizer": to_config(self.optimizer),
            "loss": to_config(self.loss),
            "metrics": to_config(self._metrics),
            "weighted_metrics": to_config(self._weighted_metrics),
        }

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compile with `get_compile_config`'s dict."""
        self.compile(**config)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        *,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> History:
        """Train.

        Each epoch is one native call. The order of the samples follows from the model's seed and the number of
        epochs trained so far.

        Parameters
        ----------
        x : array_like [n, ...]
            Anything NumPy can view. What is not C-contiguous and of the model's dtype is converted once, in a copy.
        y : array_like [n, ...]
            Labels as the loss takes them.
        batch_size : int, optional
            32 by default. The last batch may be smaller.
        epochs : int
            The number of the last epoch: ``epochs - initial_epoch`` are trained.
        verbose : {"auto", 0, 1, 2}
            0: silent, 1: progress bar, 2: a line an epoch; "auto": 1 on a terminal, else 2.
        callbacks : list of Callback, optional
        validation_split : float
            Keep the last samples, this fraction of them, out of the training and validate on them.
        validation_data : tuple (x, y) or (x, y, sample_weight), optional
            Takes precedence over `validation_split`.
        shuffle : bool
            Whether each epoch takes the samples in a new order.
        class_weight : dict of int to float, optional
            Factor of the loss for the samples of a class; 1 for classes that are not in it.
        sample_weight : array_like [n], optional
            Factor of the loss for each sample.
        initial_epoch : int
            The number of the first epoch.
        validation_batch_size : int, optional
        validation_freq : int
            Validate after every so many epochs.

        Returns
        -------
        History

        Raises
        ------
        ValueError, TypeError
            Data or arguments don't fit; the message says what was expected.
        RuntimeError
            `compile` was not called.
        KeyboardInterrupt
            Ctrl-C; the model keeps what it learned and can go on.
        """
        self._require_compiled("fit")
        train, validation = self._split(x, y, sample_weight, class_weight, validation_split, validation_data)
        batch = min(_count("batch_size", batch_size or _DEFAULT_BATCH), len(train.x))
        _count("epochs", epochs), _count("validation_freq", validation_freq)
        steps = math.ceil(len(train.x) / batch)
        self._batch_size, self.history, self.stop_training = batch, History(), False
        progress = Progress(verbose, epochs, steps)
        params = {"epochs": epochs, "steps": steps, "verbose": progress.verbose}
        hooks = CallbackList([*CallbackList(callbacks, self).callbacks, self.history], self, params)
        hooks("on_train_begin", {})
        logs: dict[str, Any] = {}
        for epoch in range(initial_epoch, epochs):
            hooks("on_epoch_begin", epoch, {})
            logs = self._fit_epoch(epoch, epochs, train, batch, shuffle, hooks, progress)
            if validation is not None and (epoch + 1 - initial_epoch) % validation_freq == 0:
                size = validation_batch_size or batch
                results = self._evaluate(validation, size, hooks)
                logs |= {f"val_{name}": value for name, value in results.items()}
            hooks("on_epoch_end", epoch, logs)
            progress.end(logs)
            if self.stop_training:
                break
        hooks("on_train_end", logs)
        return self.history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        *,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Return loss and metrics on the samples `x` with the labels `y`.

        Parameters
        ----------
        x, y, sample_weight
            As for `fit`.
        batch_size : int, optional
            Does not change the result.
        verbose : {"auto", 0, 1, 2}
            0 is silent, the others print a line.
        callbacks : list of Callback, optional
        return_dict : bool
            Return a dict by name.

        Returns
        -------
        float, list of float or dict
            The loss; with metrics, a list of the loss and the metrics in the order of `compile`.
        """
        self._require_compiled("evaluate")
        data = self._data(x, y, sample_weight)
        progress = Progress(verbose, 1, 1)
        logs = self._evaluate(data, batch_size or self._batch_size, CallbackList(callbacks, self))
        progress.line("Evaluation", logs)
        return logs if return_dict else _unnamed(logs)

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: str | int = "auto", *, callbacks: Any = None
    ) -> np.ndarray:
        """Return the outputs for the samples `x`.

        Parameters
        ----------
        x : array_like [n, ...]
        batch_size : int, optional
            Does not change the result.
        verbose : {"auto", 0, 1, 2}
            Without effect.
        callbacks : list of Callback, optional

        Returns
        -------
        array [n, ...]
        """
        data = self._features(x)
        size = min(_count("batch_size", batch_size or self._batch_size), len(data))
        out = np.empty((len(data), *self._output_shape()), self.dtype)
        hooks = CallbackList(callbacks, self)
        hooks("on_predict_begin", {})
        program = self._program(size)
        if hooks.override("on_predict_batch_begin", "on_predict_batch_end"):
            for batch, start in enumerate(range(0, len(data), size)):
                hooks("on_predict_batch_begin", batch, {})
                part = slice(start, start + size)
                program.predict(data[part], out[part])
                hooks("on_predict_batch_end", batch, {"outputs": out[part]})
        else:
            program.predict(data, out)
        hooks("on_predict_end", {})
        return out

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Return the outputs for one batch."""
        return self.predict(x)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Make one update with one batch, and return its loss and metrics, as `evaluate` does.

        They are those of this batch alone, where Keras would average over the batches since the last reset.
        """
        self._require_compiled("train_on_batch")
        data = self._weighted(self._data(x, y, sample_weight), class_weight)
        logs = self._train(
            data, len(data.x), np.arange(len(data.x)), CallbackList(None, self), Progress(0, 1, 1)
        )
        return logs if return_dict else _unnamed(logs)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Return loss and metrics of one batch, as `evaluate` does."""
        return self.evaluate(x, y, verbose=0, sample_weight=sample_weight, return_dict=return_dict)

    @property
    def program(self) -> _core.Program:
        """The compiled step for the batch size of the last `fit` (32 before); print it for its stages and bytes.

        Raises
        ------
        ValueError
            The model is not built.
        """
        self._output_shape()
        return self._program(self._batch_size)

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
        self._forget_programs()

    # Data

    def _features(self, x: Any) -> np.ndarray:
        array = _arrays.features(x, self.dtype, self.input_shape)
        if not self.built:
            self.build((None, *array.shape[1:]))
        return array

    def _data(self, x: Any, y: Any, sample_weight: Any) -> _Data:
        if x is None or y is None:
            raise ValueError("Both x and y are needed: the samples and their labels.")
        samples = self._features(x)
        array = _arrays.as_array(y, "y")
        _arrays.same_length(samples, array)
        labels = _arrays.labels(array, self.loss.kind, self.dtype, (None, *self._output_shape()))
        weight = None
        if sample_weight is not None:
            weight = _arrays.sample_weights(sample_weight, len(samples), self.dtype)
        return _Data(samples, labels, weight)

    def _weighted(self, data: _Data, class_weight: Mapping[int, float] | None) -> _Data:
        if class_weight is None:
            return data
        weight = _arrays.class_weights(class_weight, data.y, self.dtype)
        return data._replace(weight=weight if data.weight is None else weight * data.weight)

    def _split(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Mapping[int, float] | None,
        validation_split: float,
        validation_data: Any,
    ) -> tuple[_Data, _Data | None]:
        """Return the data to train on, and those to validate on."""
        data, validation = self._data(x, y, sample_weight), None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
                raise ValueError(
                    "validation_data must be (x, y) or (x, y, sample_weight), got a "
                    f"{type(validation_data).__name__}."
                )
            validation = self._data(
                *validation_data[:2], validation_data[2] if len(validation_data) == 3 else None
            )
        elif validation_split:
            samples = len(data.x)
            at = math.floor(samples * (1 - validation_split)) if 0 < validation_split < 1 else 0
            if not 0 < at < samples:
                raise ValueError(
                    "validation_split must be between 0 and 1 and leave samples on both sides; got "
                    f"{validation_split!r} of {samples} samples."
                )
            data, validation = data.part(0, at), data.part(at, samples)
        return self._weighted(data, class_weight), validation

    # Programs

    def _program(self, batch: int) -> _core.Program:
        """Return the Program for a batch size, made on first use; it follows `trainable` and `compile`."""
        key = (batch, *(layer.trainable for layer in self.layers))
        if key not in self._programs:
            while len(self._programs) >= _KEPT_PROGRAMS:
                self._programs.pop(next(iter(self._programs)))
            self._programs[key] = self._make_program(batch)
        return self._programs[key]

    def _make_program(self, batch: int) -> _core.Program:
        assert self.input_shape is not None
        slots = self.optimizer.slots if self.compiled else lambda variable: []
        return _core.Program(
            [layer.lower(slots) for layer in self.layers],
            self.input_shape[1:],
            batch,
            self.loss.lower() if self.compiled else None,
            self.optimizer.lower() if self.compiled else None,
            str(self.dtype),
        )

    def _forget_programs(self) -> None:
        self._programs.clear()

    def _output_shape(self) -> tuple[int, ...]:
        if not self.built or self.output_shape is None:
            raise ValueError("This model is not built: add layers and an Input, or show it data first.")
        return tuple(n for n in self.output_shape[1:] if n is not None)

    # Training and evaluation

    def _fit_epoch(
        self,
        epoch: int,
        epochs: int,
        data: _Data,
        batch: int,
        shuffle: bool,
        hooks: CallbackList,
        progress: Progress,
    ) -> dict[str, Any]:
        samples, start = len(data.x), self.optimizer.iterations
        order = (
            generator(self.seed, self.epochs_trained).permutation(samples) if shuffle else np.arange(samples)
        )
        progress.begin(epoch)
        try:
            logs = self._train(data, batch, order, hooks, progress)
        except BaseException as error:
            progress.close()
            if isinstance(error, KeyboardInterrupt):
                done = self.optimizer.iterations - start
                raise KeyboardInterrupt(
                    f"Training was interrupted in epoch {epoch + 1} of {epochs}, after {done} of {progress.steps} "
                    "steps. The model keeps what it has learned so far and can be used or saved; to go on, call fit "
                    f"again with initial_epoch={epoch}."
                ) from None
            raise
        progress.trained(self.optimizer.iterations - start)
        self.epochs_trained += 1
        return logs

    def _train(
        self, data: _Data, batch: int, order: np.ndarray, hooks: CallbackList, progress: Progress
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
        """Return what the native code calls during an epoch, and after how many seconds; None where nobody cares."""
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
                ):  # a callback has changed it: the native code reads `rates` at each step
                    rates[done:] = optimizer.rates(len(rates) - done)
                if done < len(rates) and not self.stop_training:
                    hooks("on_train_batch_begin", done, {})
            return self.stop_training

        if each_step:
            hooks("on_train_batch_begin", 0, {})
        return on_progress, 0.0 if each_step else _REFRESH

    def _evaluate(self, data: _Data, batch: int, hooks: CallbackList) -> dict[str, Any]:
        hooks("on_test_begin", {})
        measure = self._results(data.y)
        program = self._program(min(_count("batch_size", batch), len(data.x)))
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
        program: Any, data: _Data, batch: int, measure: Results, hooks: CallbackList
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

    def _require_compiled(self, what: str) -> None:
        if not self.compiled:
            raise RuntimeError(
                f"{what} needs a compiled model: call compile(optimizer, loss, metrics) first, for "
                "instance compile('adam', 'sparse_categorical_crossentropy', metrics=['accuracy'])."
            )


def _unnamed(logs: Mapping[str, Any]) -> Any:
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    return int(value)
