"""compile, fit, evaluate and predict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np

from . import _arrays, losses, optimizers
from . import metrics as metrics_module
from ._config import to_config
from ._engine import DEFAULT_BATCH, Data, Engine
from ._progress import Progress
from ._runtime import generator
from ._stream import Stream, is_stream, labelled, unlabelled
from .callbacks import CallbackList, History
from .metrics import Metric


class Trainer(Engine):
    """The part of a model that a user trains with."""

    def __init__(self) -> None:
        super().__init__()
        self.history: History | None = None

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
            "accuracy" is the accuracy that fits loss and labels. `weighted_metrics` take sample and class
            weights into account. A callable ``fn(y_true, y_pred)`` returns a value for each sample. With
            ``BinaryCrossentropy(from_logits=True)`` "accuracy" compares the probability with 0.5, where Keras
            would compare the logit.
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
        self.loss = losses.get(loss)
        self.loss.lower()
        self.optimizer = optimizers.get(optimizer)
        self._metrics = [_metric(m) for m in _as_list(metrics)]
        self._weighted_metrics = [_metric(m) for m in _as_list(weighted_metrics)]
        self.compiled = True
        self._changed()

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
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        *,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> History:
        """Train.

        With arrays, each epoch is one native call, and the order of the samples follows from the model's seed
        and the number of epochs trained so far. With batches, their order is up to whoever makes them.

        Parameters
        ----------
        x : array_like [n, ...] or iterable of batches
            Anything NumPy can view. What is not C-contiguous and of the model's dtype is converted once, in a
            copy. Or batches ``(x, y)`` or ``(x, y, sample_weight)``, from a `datasets.ImageFolder` or any
            other iterable, iterator or generator (but no list or tuple); `batch_size`, `shuffle` and what
            else goes with arrays is then left out.
        y : array_like [n, ...]
            Labels as the loss takes them. None when `x` gives batches.
        batch_size : int, optional
            32 by default. The last batch may be smaller.
        epochs : int
            The number of the last epoch: ``epochs - initial_epoch`` are trained.
        verbose : {"auto", 0, 1, 2}
            0: silent, 1: progress bar, 2: a line an epoch; "auto": 1 on a terminal, else 2.
        callbacks : list of Callback, optional
        validation_split : float
            Keep the last samples, this fraction of them, out of the training and validate on them.
        validation_data : tuple (x, y) or (x, y, sample_weight), or iterable of batches, optional
            Takes precedence over `validation_split`.
        shuffle : bool
            Whether each epoch takes the samples in a new order.
        class_weight : dict of int to float, optional
            Factor of the loss for the samples of a class; 1 for classes that are not in it.
        sample_weight : array_like [n], optional
            Factor of the loss for each sample.
        initial_epoch : int
            The number of the first epoch.
        steps_per_epoch, validation_steps : int, optional
            How many batches an epoch or a validation takes from an iterable; by default one pass over it.
            Generators need them. Training goes on where the last epoch ended, and starts again at the end of
            an iterable; each validation on an iterable starts at its beginning.
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
        train, validation = self._sources(
            self._source(x, y, batch_size, sample_weight, steps_per_epoch, "steps_per_epoch"),
            class_weight,
            validation_split,
            validation_data,
            validation_steps,
        )
        batch = _count("batch_size", batch_size or DEFAULT_BATCH)
        if isinstance(train, Data):
            batch = min(batch, len(train.x))
            steps: int | None = math.ceil(len(train.x) / batch)
        else:
            steps = train.steps
        _count("epochs", epochs), _count("validation_freq", validation_freq)
        validation_batch = _count("validation_batch_size", validation_batch_size or batch)
        self._batch_size, self.history, self.stop_training = batch, History(), False
        progress = Progress(verbose, epochs, steps)
        params = {"epochs": epochs, "steps": steps, "verbose": progress.verbose}
        hooks = CallbackList([*_as_list(callbacks), self.history], self, params)
        hooks("on_train_begin", {})
        logs: dict[str, Any] = {}
        epoch, start = initial_epoch, self.optimizer.iterations
        try:
            for epoch in range(initial_epoch, epochs):
                start = self.optimizer.iterations
                hooks("on_epoch_begin", epoch, {})
                progress.begin(epoch)
                if isinstance(train, Data):
                    logs = self._train(train, batch, self._order(len(train.x), shuffle), hooks, progress)
                else:
                    logs = self._train_batches(train, hooks, progress)
                progress.trained(self.optimizer.iterations - start)
                self.epochs_trained += 1
                if validation is not None and (epoch + 1 - initial_epoch) % validation_freq == 0:
                    results = self._evaluate(validation, validation_batch, hooks)
                    logs |= {f"val_{name}": value for name, value in results.items()}
                hooks("on_epoch_end", epoch, logs)
                progress.end(logs)
                progress.close()
                if self.stop_training:
                    break
        except KeyboardInterrupt:
            done = self.optimizer.iterations - start
            raise KeyboardInterrupt(_interrupted(epoch, epochs, done, steps)) from None
        finally:
            progress.close()
            if isinstance(train, Stream):
                train.close()
        hooks("on_train_end", logs)
        return self.history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        *,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Return loss and metrics on the samples `x` with the labels `y`.

        Parameters
        ----------
        x, y, sample_weight
            As for `fit`; also batches, with labels.
        batch_size : int, optional
            Does not change the result.
        verbose : {"auto", 0, 1, 2}
            0 is silent, the others print a line.
        steps : int, optional
            How many batches to take from an iterable; by default all. Generators need it.
        callbacks : list of Callback, optional
        return_dict : bool
            Return a dict by name.

        Returns
        -------
        float, list of float or dict
            The loss; with metrics, a list of the loss and the metrics in the order of `compile`.
        """
        self._require_compiled("evaluate")
        data = self._source(x, y, batch_size, sample_weight, steps, "steps")
        progress = Progress(verbose, 1, 1)
        logs = self._evaluate(
            data, _count("batch_size", batch_size or self._batch_size), CallbackList(callbacks, self)
        )
        progress.line("Evaluation", logs)
        return logs if return_dict else _unnamed(logs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        *,
        callbacks: Any = None,
    ) -> np.ndarray:
        """Return the outputs for the samples `x`.

        Parameters
        ----------
        x : array_like [n, ...] or iterable of batches
            Batches are samples alone, or tuples that begin with them.
        batch_size : int, optional
            Does not change the result.
        verbose : {"auto", 0, 1, 2}
            Without effect.
        steps : int, optional
            How many batches to take from an iterable; by default all. Generators need it.
        callbacks : list of Callback, optional

        Returns
        -------
        array [n, ...]
        """
        hooks = CallbackList(callbacks, self)
        if is_stream(x):
            _leave_out("x gives batches", batch_size=batch_size)
            with closing(
                Stream(x, steps, "steps", lambda batch: self._features(unlabelled(batch)))
            ) as stream:
                return self._predict(stream, hooks)
        _leave_out("x is an array", steps=steps)
        data = self._features(x)
        size = min(_count("batch_size", batch_size or self._batch_size), len(data))
        in_batches = hooks.override("on_predict_batch_begin", "on_predict_batch_end")
        starts = range(0, len(data), size)
        return self._predict([data[i : i + size] for i in starts] if in_batches else [data], hooks, size)

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

    def _features(self, x: Any) -> np.ndarray:
        array = _arrays.features(x, self.dtype, self.input_shape)
        if not self.built:
            self.build((None, *array.shape[1:]))
        return array

    def _data(self, x: Any, y: Any, sample_weight: Any = None) -> Data:
        if x is None or y is None:
            raise ValueError("Both x and y are needed: the samples and their labels.")
        samples = self._features(x)
        array = _arrays.as_array(y, "y")
        _arrays.same_length(samples, array)
        labels = _arrays.labels(array, self.loss.kind, self.dtype, (None, *self._output_shape()))
        weight = None
        if sample_weight is not None:
            weight = _arrays.sample_weights(sample_weight, len(samples), self.dtype)
        return Data(samples, labels, weight)

    def _weighted(self, data: Data, class_weight: Mapping[int, float] | None) -> Data:
        if class_weight is None:
            return data
        weight = _arrays.class_weights(class_weight, data.y, self.dtype)
        return data._replace(weight=weight if data.weight is None else weight * data.weight)

    def _source(
        self, x: Any, y: Any, batch_size: Any, sample_weight: Any, steps: int | None, argument: str
    ) -> Data | Stream[Data]:
        """Return arrays as Data, and what gives batches as a Stream."""
        if not is_stream(x):
            _leave_out("x is an array", **{argument: steps})
            return self._data(x, y, sample_weight)
        _leave_out("x gives batches", y=y, batch_size=batch_size, sample_weight=sample_weight)
        return Stream(x, steps, argument, lambda batch: self._data(*labelled(batch)))

    def _validation(self, data: Any, steps: int | None) -> Data | Stream[Data]:
        if is_stream(data):
            return self._source(data, None, None, None, steps, "validation_steps")
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise ValueError(
                "validation_data must be (x, y) or (x, y, sample_weight), or an iterable of such batches; "
                f"got a {type(data).__name__}."
            )
        x, y, sample_weight = (*data, None)[:3]
        return self._source(x, y, None, sample_weight, steps, "validation_steps")

    def _sources(
        self,
        train: Data | Stream[Data],
        class_weight: Mapping[int, float] | None,
        validation_split: float,
        validation_data: Any,
        validation_steps: int | None,
    ) -> tuple[Data | Stream[Data], Data | Stream[Data] | None]:
        """Return what to train on, and what to validate on."""
        validation: Data | Stream[Data] | None = None
        if validation_data is not None:
            validation = self._validation(validation_data, validation_steps)
        elif isinstance(train, Data) and validation_split:
            train, validation = _split(train, validation_split)
        else:
            _leave_out("x gives batches", validation_split=validation_split or None)
            _leave_out("there is no validation_data", validation_steps=validation_steps)
        if isinstance(train, Stream):
            train = train.map(lambda batch: self._weighted(batch, class_weight))
        else:
            train = self._weighted(train, class_weight).on(self.device)
        return train, validation.on(self.device) if isinstance(validation, Data) else validation

    def _order(self, samples: int, shuffle: bool) -> np.ndarray:
        """Return the order of the samples in the next epoch."""
        if not shuffle:
            return np.arange(samples)
        return generator(self.seed, self.epochs_trained).permutation(samples)

    def _require_compiled(self, what: str) -> None:
        if not self.compiled:
            raise RuntimeError(
                f"{what} needs a compiled model: call compile(optimizer, loss, metrics) first, for "
                "instance compile('adam', 'sparse_categorical_crossentropy', metrics=['accuracy'])."
            )


def _split(data: Data, validation_split: float) -> tuple[Data, Data]:
    """Return the samples to train on and the last ones, to validate on."""
    samples = len(data.x)
    at = math.floor(samples * (1 - validation_split)) if 0 < validation_split < 1 else 0
    if not 0 < at < samples:
        raise ValueError(
            "validation_split must be between 0 and 1 and leave samples on both sides; got "
            f"{validation_split!r} of {samples} samples."
        )
    return data.part(0, at), data.part(at, samples)


def _leave_out(why: str, **arguments: Any) -> None:
    """Check that arguments that make no sense are not given."""
    if given := [name for name, value in arguments.items() if value is not None]:
        raise ValueError(
            f"Leave out {' and '.join(given)}, since {why}. Batches (x, y) or (x, y, sample_weight) bring "
            "their labels and weights and have their size; steps count batches."
        )


def _interrupted(epoch: int, epochs: int, done: int, steps: int | None) -> str:
    of = "" if steps is None else f" of {steps}"
    return (
        f"Training was interrupted in epoch {epoch + 1} of {epochs}, after {done}{of} steps. The "
        "model keeps what it has learned so far and can be used or saved; to go on, call fit again with "
        f"initial_epoch={epoch + (done == steps)}."
    )


def _unnamed(logs: Mapping[str, Any]) -> Any:
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def _metric(identifier: Any) -> Metric | str:
    """Return the metric, or the name of the accuracy that is chosen when the labels are known."""
    return identifier if identifier in ("accuracy", "acc") else metrics_module.get(identifier)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    return int(value)
