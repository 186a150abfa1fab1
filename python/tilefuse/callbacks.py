"""What happens during training besides training. Names, arguments and behaviour as in Keras.

The hooks for single batches cost a call into Python at each step; they are called only where a callback
overrides them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._config import suggestion
from .history import plot_history

if TYPE_CHECKING:
    from .models import Model

Logs = Mapping[str, Any] | None


class Callback:
    """Base of the callbacks; override what you need.

    Attributes
    ----------
    model : Model
        The model in training. ``self.model.stop_training = True`` ends the training after the current epoch.
    params : dict
        "epochs", "steps" and "verbose" of `fit`.

    Examples
    --------
    >>> import tilefuse
    >>> class Stop(tilefuse.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         self.model.stop_training = logs["loss"] < 0.01
    """

    model: Model

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def set_params(self, params: dict[str, Any]) -> None:
        """Take the arguments of `fit`."""
        self.params = params

    def set_model(self, model: Model) -> None:
        """Take the model."""
        self.model = model

    def on_train_begin(self, logs: Logs = None) -> None:
        """Be called when `fit` starts."""

    def on_train_end(self, logs: Logs = None) -> None:
        """Be called when `fit` ends, with the last epoch's logs."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Be called before each epoch; `epoch` counts from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Be called after each epoch, validation included, with all its results."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Be called before each step of training."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Be called after each step of training, with the means over the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Be called by `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Be called by `on_train_batch_end`."""

    def on_test_begin(self, logs: Logs = None) -> None:
        """Be called when an evaluation starts."""

    def on_test_end(self, logs: Logs = None) -> None:
        """Be called when an evaluation ends, with its results."""

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Be called before each batch of an evaluation."""

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Be called after each batch of an evaluation."""

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Be called when a prediction starts."""

    def on_predict_end(self, logs: Logs = None) -> None:
        """Be called when a prediction ends."""

    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Be called before each batch of a prediction."""

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Be called after each batch of a prediction."""


class CallbackList:
    """Calls a hook of many callbacks by its name: ``callbacks("on_epoch_end", epoch, logs)``."""

    def __init__(
        self,
        callbacks: Callback | Iterable[Callback] | None,
        model: Any,
        params: dict[str, Any] | None = None,
    ) -> None:
        self.callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(
                    f"callbacks must be tilefuse.callbacks.Callback objects, got {callback!r} of type "
                    f"{type(callback).__name__}."
                )
            callback.set_model(model)
            callback.set_params(params or {})

    def __call__(self, hook: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(*args)

    def override(self, *hooks: str) -> bool:
        """Return whether any callback does something in one of the hooks."""
        return any(_overrides(callback, hook) for callback in self.callbacks for hook in hooks)


def _overrides(callback: Callback, hook: str) -> bool:
    return hook in vars(callback) or getattr(type(callback), hook) is not getattr(Callback, hook)


class History(Callback):
    """Records every epoch's results; `fit` returns one.

    Attributes
    ----------
    history : dict of str to list
        "loss", "accuracy", "val_loss", ...: one value an epoch.
    epoch : list of int
        The epochs' numbers, from 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the loss and the metrics over the epochs with matplotlib.

        Parameters
        ----------
        path : str or path, optional
            Write the figure to this file; its ending says the format.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            No epoch was trained.
        """
        return plot_history(self.history, self.epoch, path)


class _Monitor(Callback):
    """Base of the callbacks that watch one of the logs."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be 'auto', 'min' or 'max', got {mode!r}.")
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether `value` is better than `best` by more than `min_delta`."""
        if best is None:
            return True
        rises = self.mode == "max" or (self.mode == "auto" and _grows_when_better(self.monitor))
        return value > best + self.min_delta if rises else value < best - self.min_delta

    def value(self, logs: Logs) -> float | None:
        """Return the watched value; warn where there is none."""
        if logs and self.monitor in logs:
            return float(logs[self.monitor])
        warnings.warn(
            f"{type(self).__name__} watches {self.monitor!r}, which is not among the results. "
            f"{suggestion(self.monitor, logs or {})}",
            stacklevel=3,
        )
        return None


def _grows_when_better(name: str) -> bool:
    return any(word in name for word in ("acc", "precision", "recall", "f1"))


class EarlyStopping(_Monitor):
    """Stop when a result has not improved for `patience` epochs.

    Parameters
    ----------
    monitor : str
    min_delta : float
        Smaller improvements are none.
    patience : int
        Epochs without improvement before the training stops.
    verbose : int
        1 prints when it happens.
    mode : {"auto", "min", "max"}
        Whether lower or higher is better; "auto" decides by the name.
    baseline : float, optional
        Stop also if the result does not get better than this within `patience` epochs.
    restore_best_weights : bool
        Leave the model with the weights of the best epoch instead of the last.
    start_from_epoch : int
        Epochs before this one don't count.

    Examples
    --------
    >>> import tilefuse
    >>> stop = tilefuse.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best: float | None = None
        self.best_weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        value = self.value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self.improves(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        if self.stopped_epoch > 0 and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of the best epoch: {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)

    def _reset(self) -> None:
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = None
        self.best_weights = None


class ModelCheckpoint(_Monitor):
    """Save the model after each epoch, or after those that are better than all before.

    Parameters
    ----------
    filepath : str or path
        May name the epoch and its results: ``"model-{epoch:02d}-{val_loss:.2f}.safetensors"``.
    monitor : str
    verbose : int
        1 prints each save.
    save_best_only : bool
    save_weights_only : bool
        Leave out the architecture and the optimizer's state.
    mode : {"auto", "min", "max"}
    save_freq : "epoch"
    initial_value_threshold : float, optional
        With `save_best_only`: the result to beat.

    Examples
    --------
    >>> import tilefuse
    >>> save = tilefuse.callbacks.ModelCheckpoint("best.safetensors", save_best_only=True)
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        if save_freq != "epoch":
            raise ValueError(f"save_freq must be 'epoch', got {save_freq!r}.")
        self.filepath, self.verbose = os.fspath(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.best = initial_value_threshold

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.save_best_only:
            value = self.value(logs)
            if value is None or not self.improves(value, self.best):
                return
            self.best = value
        path = self._path(epoch, logs or {})
        if self.verbose:
            print(f"Epoch {epoch + 1}: saving the model to {path}")
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)

    def _path(self, epoch: int, logs: Mapping[str, Any]) -> str:
        try:
            path = self.filepath.format(**{**logs, "epoch": epoch + 1})
        except KeyError as error:
            name = error.args[0]
            raise ValueError(
                f"filepath {self.filepath!r} names {name!r}, which is not among the results. "
                f"{suggestion(name, [*logs, 'epoch'])}"
            ) from None
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return path


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)`` returns the new rate; `epoch` counts from 0.
    verbose : int
        1 prints each rate.
    """

    def __init__(self, schedule: Callable[[int, float], float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        rate = self.schedule(epoch, self.model.optimizer.learning_rate)
        if not isinstance(rate, (float, int, np.floating)):
            raise TypeError(f"The schedule of LearningRateScheduler must return a number, got {rate!r}.")
        self.model.optimizer.learning_rate = float(rate)
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {rate}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if isinstance(logs, dict):
            logs["learning_rate"] = self.model.optimizer.learning_rate


class ReduceLROnPlateau(_Monitor):
    """Multiply the learning rate by `factor` when a result has not improved for `patience` epochs.

    Parameters
    ----------
    monitor : str
    factor : float
        Less than 1.
    patience : int
    verbose : int
        1 prints each change.
    mode : {"auto", "min", "max"}
    min_delta : float
    cooldown : int
        Epochs to wait after a change before counting again.
    min_lr : float
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ValueError(f"factor must be between 0 and 1, got {factor}.")
        self.factor, self.patience, self.verbose, self.cooldown = factor, patience, verbose, cooldown
        self.min_lr = min_lr
        self.cooldown_counter = self.wait = 0
        self.best: float | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        optimizer = self.model.optimizer
        if isinstance(logs, dict):
            logs["learning_rate"] = optimizer.learning_rate
        value = self.value(logs)
        if value is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience and optimizer.learning_rate > self.min_lr:
                optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: reducing the learning rate to {optimizer.learning_rate}")

    def _reset(self) -> None:
        self.best = None
        self.cooldown_counter = self.wait = 0


class CSVLogger(Callback):
    """Write every epoch's results as a line of a CSV file.

    Parameters
    ----------
    filename : str or path
    separator : str
    append : bool
        Add to the file instead of replacing it.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__()
        self.filename, self.separator, self.append = os.fspath(filename), separator, append
        self._columns: list[str] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        self._columns = []
        self._has_header = (
            self.append and os.path.exists(self.filename) and os.path.getsize(self.filename) > 0
        )
        with open(self.filename, "a" if self.append else "w"):
            pass

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        import csv

        row = {"epoch": epoch, **(logs or {})}
        with open(self.filename, "a", newline="") as file:
            self._columns = self._columns or list(row)
            writer = csv.DictWriter(file, self._columns, extrasaction="ignore", delimiter=self.separator)
            if not self._has_header:
                writer.writeheader()
                self._has_header = True
            writer.writerow(row)


class TerminateOnNaN(Callback):
    """Stop as soon as the loss is NaN or infinite."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            print(f"Batch {batch}: the loss is {loss}, stopping the training")
            self.model.stop_training = True


class LambdaCallback(Callback):
    """A callback made of functions, each called as the hook of its name.

    Examples
    --------
    >>> import tilefuse
    >>> log = tilefuse.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **hooks: Callable[..., Any],
    ) -> None:
        super().__init__()
        hooks |= {
            name: hook
            for name, hook in {
                "on_epoch_begin": on_epoch_begin,
                "on_epoch_end": on_epoch_end,
                "on_train_begin": on_train_begin,
                "on_train_end": on_train_end,
                "on_train_batch_begin": on_train_batch_begin,
                "on_train_batch_end": on_train_batch_end,
            }.items()
            if hook is not None
        }
        for name, hook in hooks.items():
            if not (name.startswith("on_") and hasattr(Callback, name)):
                known = [hook for hook in dir(Callback) if hook.startswith("on_")]
                raise ValueError(f"Unknown hook {name!r}. {suggestion(name, known)}")
            setattr(self, name, hook)
