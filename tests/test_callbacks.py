"""Callbacks: when they are called, and what each does."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.training import blobs, classifier
from tilefuse import callbacks

pytestmark = pytest.mark.usefixtures("device")

X, Y = blobs(100)


class Recorder(callbacks.Callback):
    """Writes down every hook that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []
        for name in dir(callbacks.Callback):
            if name.startswith("on_") and not name.startswith("on_batch"):
                setattr(self, name, self.noting(name))

    def noting(self, name: str) -> Any:
        def hook(*args: Any) -> None:
            self.calls.append((name, args[0] if len(args) > 1 else None))

        return hook


class Script(callbacks.Callback):
    """Puts given values in the place of val_loss."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_loss"] = self.values[epoch]


def test_order_of_the_hooks() -> None:
    recorder = Recorder()
    model = classifier()
    model.fit(
        X[:64],
        Y[:64],
        epochs=2,
        validation_data=(X[64:80], Y[64:80]),
        callbacks=[recorder],
        batch_size=32,
        verbose=0,
    )
    epoch = [
        ("on_train_batch_begin", 0),
        ("on_train_batch_end", 0),
        ("on_train_batch_begin", 1),
        ("on_train_batch_end", 1),
        ("on_test_begin", None),
        ("on_test_batch_begin", 0),
        ("on_test_batch_end", 0),
        ("on_test_end", None),
    ]
    expected = [("on_train_begin", None)]
    for number in range(2):
        expected += [("on_epoch_begin", number), *epoch, ("on_epoch_end", number)]
    assert recorder.calls == [*expected, ("on_train_end", None)]
    assert recorder.params == {"epochs": 2, "steps": 2, "verbose": 0}
    assert recorder.model is model

    recorder.calls.clear()
    model.predict(X[:64], batch_size=32, callbacks=[recorder])
    names = [name for name, _ in recorder.calls]
    assert names == [
        "on_predict_begin",
        *["on_predict_batch_begin", "on_predict_batch_end"] * 2,
        "on_predict_end",
    ]


def test_batch_logs_are_means_so_far() -> None:
    seen: list[dict[str, float]] = []
    watch = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(dict(logs)))
    history = classifier().fit(X, Y, callbacks=[watch], verbose=0)
    assert len(seen) == 4
    assert seen[-1]["loss"] == pytest.approx(history.history["loss"][0])
    assert seen[-1]["accuracy"] == pytest.approx(history.history["accuracy"][0])


def test_evaluation_in_batches_is_the_same() -> None:
    model = classifier()
    seen: list[int] = []
    watch = callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: seen.append(batch))
    whole = model.evaluate(X, Y, verbose=0)
    assert model.evaluate(X, Y, batch_size=30, callbacks=[watch], verbose=0) == pytest.approx(whole)
    assert seen == [0, 1, 2, 3]


def test_stop_training_within_an_epoch() -> None:
    model = classifier()

    def stop(batch: int, logs: Any) -> None:
        model.stop_training = batch == 1

    history = model.fit(
        X, Y, epochs=5, callbacks=[callbacks.LambdaCallback(on_train_batch_end=stop)], verbose=0
    )
    assert model.optimizer.iterations == 2
    assert history.epoch == [0]


def test_batch_callbacks_may_change_the_learning_rate() -> None:
    model = classifier(tilefuse.optimizers.SGD(0.1))
    weights: list[np.ndarray] = []

    def freeze(batch: int, logs: Any) -> None:
        model.optimizer.learning_rate = 0.0
        weights.append(model.get_weights()[0])

    model.fit(X, Y, callbacks=[callbacks.LambdaCallback(on_train_batch_end=freeze)], verbose=0)
    np.testing.assert_array_equal(weights[0], weights[-1])


def test_early_stopping() -> None:
    stop = callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    kept: list[list[np.ndarray]] = []
    model = classifier()
    keep = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    history = model.fit(
        X, Y, epochs=9, callbacks=[Script(3, 2, 2.5, 2.1, 1, 1, 1, 1, 1), keep, stop], verbose=0
    )
    assert len(history.epoch) == 4
    assert (stop.stopped_epoch, stop.best_epoch, stop.best) == (3, 1, 2)
    for u, v in zip(model.get_weights(), kept[1], strict=True):
        np.testing.assert_array_equal(u, v)


@pytest.mark.parametrize(
    ("arguments", "values", "epochs"),
    [
        ({"patience": 1, "min_delta": 0.5}, (3, 2.8, 2.7, 1), 2),
        ({"patience": 1, "mode": "max"}, (1, 2, 3, 2), 4),
        ({"patience": 1, "baseline": 2.5}, (3, 2.9, 2.8, 2.7), 4),
        ({"patience": 2, "baseline": 0.5}, (3, 3, 3, 3), 2),
        ({"patience": 1, "start_from_epoch": 3}, (1, 2, 3, 4), 4),
    ],
)
def test_early_stopping_arguments(arguments: dict[str, Any], values: tuple[float, ...], epochs: int) -> None:
    stop = callbacks.EarlyStopping(**arguments)
    history = classifier().fit(X, Y, epochs=4, callbacks=[Script(*values), stop], verbose=0)
    assert len(history.epoch) == epochs


def test_unknown_monitor_warns_with_a_suggestion() -> None:
    with pytest.warns(UserWarning, match="Did you mean 'accuracy'"):
        classifier().fit(X, Y, callbacks=[callbacks.EarlyStopping("acuracy")], verbose=0)


def test_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run" / "model-{epoch:02d}-{val_loss:.2f}.safetensors"
    save = callbacks.ModelCheckpoint(path, save_best_only=True)
    model = classifier()
    model.fit(X, Y, epochs=4, callbacks=[Script(3, 2, 2.5, 1), save], verbose=0)
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == [f"model-{n}.safetensors" for n in ("01-3.00", "02-2.00", "04-1.00")]
    loaded = tilefuse.load_model(tmp_path / "run" / names[-1])
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_checkpoint_of_weights_and_wrong_names(tmp_path: Path) -> None:
    model = classifier()
    save = callbacks.ModelCheckpoint(tmp_path / "w.safetensors", save_weights_only=True)
    model.fit(X, Y, callbacks=[save], verbose=0)
    other = classifier(seed=5)
    other.load_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    bad = callbacks.ModelCheckpoint(tmp_path / "{val_los}.safetensors")
    with pytest.raises(ValueError, match="names 'val_los'"):
        model.fit(X, Y, callbacks=[bad], verbose=0)
    with pytest.raises(ValueError, match="save_freq must be 'epoch'"):
        callbacks.ModelCheckpoint("m", save_freq="100")


def test_learning_rate_scheduler() -> None:
    schedule = callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 / (epoch + 1))
    history = classifier("sgd").fit(X, Y, epochs=3, callbacks=[schedule], verbose=0)
    np.testing.assert_allclose(history.history["learning_rate"], [0.1, 0.05, 0.1 / 3])
    bad = callbacks.LearningRateScheduler(lambda epoch, rate: "fast")  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="must return a number"):
        classifier().fit(X, Y, callbacks=[bad], verbose=0)


def test_reduce_on_plateau() -> None:
    reduce = callbacks.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.02)
    model = classifier(tilefuse.optimizers.SGD(0.1))
    history = model.fit(X, Y, epochs=9, callbacks=[Script(*[1.0] * 9), reduce], verbose=0)
    expected = [0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.02, 0.02]
    np.testing.assert_allclose(history.history["learning_rate"], expected)
    with pytest.raises(ValueError, match="factor must be between 0 and 1"):
        callbacks.ReduceLROnPlateau(factor=2)


def test_csv_logger(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    model = classifier()
    first = model.fit(X, Y, epochs=2, callbacks=[callbacks.CSVLogger(path)], verbose=0)
    model.fit(X, Y, epochs=1, callbacks=[callbacks.CSVLogger(path, append=True)], verbose=0)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "0"]
    assert float(rows[1]["loss"]) == first.history["loss"][1]


def test_terminate_on_nan(capsys: pytest.CaptureFixture[str]) -> None:
    x = X.copy()
    x[40] = np.nan
    model = classifier()
    model.fit(x, Y, epochs=3, shuffle=False, callbacks=[callbacks.TerminateOnNaN()], verbose=0)
    assert model.optimizer.iterations == 2
    assert "Batch 1: the loss is nan" in capsys.readouterr().out


def test_wrong_callbacks() -> None:
    with pytest.raises(TypeError, match=r"must be tilefuse\.callbacks\.Callback objects"):
        classifier().fit(X, Y, callbacks=[print], verbose=0)
    with pytest.raises(ValueError, match="Did you mean 'on_epoch_end'"):
        callbacks.LambdaCallback(on_epoch_ends=print)
    with pytest.raises(ValueError, match="mode must be"):
        callbacks.EarlyStopping(mode="lower")


def test_an_error_in_a_callback_comes_out() -> None:
    class Broken(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise ZeroDivisionError("mine")

    model = classifier()
    with pytest.raises(ZeroDivisionError, match="mine"):
        model.fit(X, Y, callbacks=[Broken()], verbose=0)
    assert model.optimizer.iterations == 1
    model.fit(X, Y, verbose=0)
