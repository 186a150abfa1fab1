"""Mistakes: each message says what was given, what was expected and how to mend it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.training import blobs, classifier, same_weights
from tilefuse import callbacks, layers

pytestmark = pytest.mark.usefixtures("device")

X, Y = blobs(60)


def fit(x: Any = X, y: Any = Y, **arguments: Any) -> Callable[[], Any]:
    return lambda: classifier().fit(x, y, verbose=0, **arguments)


def fit_with(loss: str, y: Any, outputs: int = 3) -> Callable[[], Any]:
    def run() -> Any:
        model = tilefuse.Sequential([tilefuse.Input((8,)), layers.Dense(outputs, "sigmoid")])
        model.compile("sgd", loss)
        return model.fit(X, y, verbose=0)

    return run


def with_value(y: np.ndarray, index: int, value: float) -> np.ndarray:
    y = y.astype(np.float64)
    y[index] = value
    return y


WRONG_VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "width of x": (fit(X[:, :5]), r"x must have the shape \(n, 8\).*got \(60, 5\)"),
    "x without a batch axis": (fit(X[0]), r"must have a batch axis.*x\[None\]"),
    "empty x": (fit(X[:0], Y[:0]), r"x is empty: its shape is \(0, 8\)"),
    "unequal lengths": (fit(X, Y[:50]), "x has 60 samples and y has 50 labels"),
    "label too large": (fit(y=with_value(Y, 7, 3)), r"y\[7\] is 3.*integers from 0 to 2"),
    "negative label": (fit(y=with_value(Y, 7, -1)), r"y\[7\] is -1.*integers from 0 to 2"),
    "fraction as label": (fit(y=with_value(Y, 7, 0.5)), r"y\[7\] is 0\.5.*integers from 0 to 2"),
    "NaN as label": (fit(y=with_value(Y, 7, np.nan)), r"y\[7\] is nan"),
    "one-hot for sparse": (fit(y=np.eye(3)[Y]), "One-hot labels go with loss='categorical_crossentropy'"),
    "sparse for one-hot": (fit_with("categorical_crossentropy", Y), "sparse_categorical_crossentropy"),
    "NaN for mse": (fit_with("mse", with_value(Y, 7, np.nan), 1), r"y\[7, 0\] is nan: labels must be finite"),
    "binary out of range": (
        fit_with("binary_crossentropy", Y, 1),
        "must be between 0 and 1, got 0.* to 2.*mean_squared_error",
    ),
    "shape of y": (fit_with("mse", np.zeros((60, 2))), r"shape \(n, 3\).*got \(60, 2\)"),
    "no y": (fit(y=None), "Both x and y are needed"),
    "batch size": (fit(batch_size=-3), "batch_size must be an integer of at least 1, got -3"),
    "epochs": (fit(epochs=0), "epochs must be an integer of at least 1, got 0"),
    "verbose": (lambda: classifier().fit(X, Y, verbose=3), "verbose must be 'auto', 0, 1 or 2, got 3"),
    "validation split": (fit(validation_split=1.5), "must be between 0 and 1.*got 1.5 of 60 samples"),
    "validation data": (fit(validation_data=X), r"must be \(x, y\) or \(x, y, sample_weight\)"),
    "width of validation x": (fit(validation_data=(X[:, :3], Y)), r"got \(60, 3\)"),
    "length of sample_weight": (fit(sample_weight=np.ones(5)), r"must have the shape \(60,\).*got \(5,\)"),
    "negative sample_weight": (fit(sample_weight=-np.ones(60)), "finite numbers of at least 0"),
    "negative class_weight": (fit(class_weight={0: -1.0}), "class_weight must map class numbers"),
    "unknown loss": (
        lambda: classifier().compile("sgd", "binary_crossentropi"),
        "Did you mean 'binary_cross",
    ),
    "unknown optimizer": (lambda: classifier("adams"), "Did you mean 'adam'"),
    "unknown metric": (lambda: classifier(metrics=["acuracy"]), "Unknown metric 'acuracy'"),
    "unknown activation": (lambda: layers.Dense(3, "rleu"), "Did you mean 'relu'"),
    "unknown initializer": (lambda: layers.Dense(3, kernel_initializer="he"), "Known: .*'he_normal'"),
    "unknown regularizer": (lambda: layers.Dense(3, kernel_regularizer="l3"), "Known: 'l1', 'l1_l2', 'l2'"),
    "units": (lambda: layers.Dense(0), "positive integer as units, got 0"),
    "rate": (lambda: layers.Dropout(1.0), "at least 0 and less than 1, got 1.0"),
    "reshape": (lambda: layers.Reshape((3, 3))(X), r"cannot reshape samples of shape \(8,\) \(8 elements\)"),
    "input": (lambda: tilefuse.Input(784), r"tuple of positive integers, such as \(784,\); got 784"),
    "second input": (
        lambda: tilefuse.Sequential([layers.Dense(2), tilefuse.Input((3,))]),
        "Input comes first",
    ),
    "same name": (
        lambda: tilefuse.Sequential([layers.Dense(2, name="a"), layers.Dense(2, name="a")]),
        "a layer 'a' already",
    ),
    "no layers": (lambda: tilefuse.Sequential()(X), "has no layers"),
    "not built": (lambda: tilefuse.Sequential([layers.Dense(3)]).program, "is not built"),
    "no loss": (lambda: classifier().compile("sgd"), "compile needs a loss"),
    "loss_weights": (
        lambda: classifier().compile("sgd", "mse", ["accuracy"]),  # type: ignore[arg-type]
        r"metrics=\['accuracy'\]",
    ),
    "reduction": (
        lambda: classifier().compile("sgd", tilefuse.losses.MeanSquaredError("sum")),
        "use a gradient tape",
    ),
    "number of weights": (lambda: classifier().set_weights([X]), "has 4 weights, got 1"),
    "layer's input": (lambda: classifier().layers[0](X[:, :3]), r"built for inputs of shape \(None, 8\)"),
    "unknown layer": (
        lambda: classifier().get_layer("dens"),
        r"no layer 'dens'; it has \['dense', 'dense_1'\]",
    ),
    "mixed precision": (
        lambda: tilefuse.Sequential([layers.Dense(2), layers.Dense(2, dtype="float64")]),
        "has dtype float64, but the model has float32",
    ),
    "rebuilt": (lambda: classifier().build((None, 9)), r"built for inputs of shape \(None, 8\)"),
}

WRONG_TYPES: dict[str, tuple[Callable[[], Any], str]] = {
    "complex x": (fit(X * 1j), "x must hold real numbers.*complex64"),
    "text x": (fit(X.astype(str)), "x must hold real numbers.*astype"),
    "ragged x": (fit([[1.0], [1.0, 2.0]]), "x must be an array that NumPy can view"),
    "object x": (fit(X.astype(object)), "got dtype object"),
    "text y": (fit(y=Y.astype(str)), "Number the classes from 0"),
    "not a layer": (lambda: tilefuse.Sequential([print]), "made of layers from tilefuse.layers"),  # type: ignore[list-item]
    "a model as layer": (
        lambda: tilefuse.Sequential([tilefuse.Sequential()]),  # type: ignore[list-item]
        r"write \*model\.layers",
    ),
    "loss of a wrong type": (lambda: classifier().compile("sgd", 3), "a name .*'mse'"),
    "activation of a wrong type": (lambda: layers.Dense(3, 5), "a name or a function of tilefuse.ops"),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_wrong_value(case: str) -> None:
    run, match = WRONG_VALUES[case]
    with pytest.raises(ValueError, match=f"(?s){match}"):
        run()


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_wrong_type(case: str) -> None:
    run, match = WRONG_TYPES[case]
    with pytest.raises(TypeError, match=f"(?s){match}"):
        run()


@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_uncompiled(method: str) -> None:
    model = tilefuse.Sequential([tilefuse.Input((8,)), layers.Dense(3)])
    with pytest.raises(RuntimeError, match="needs a compiled model: call compile"):
        getattr(model, method)(X, Y)


def test_wrong_weights_change_nothing() -> None:
    model = classifier()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"'dense_1/bias' has shape \(3,\), got \(2,\)"):
        model.set_weights([np.zeros((8, 16)), np.zeros(16), np.zeros((16, 3)), np.zeros(2)])
    for u, v in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(u, v)


def test_interrupted_by_a_callback_the_model_goes_on() -> None:
    class Interrupt(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1 and self.model.epochs_trained == 1:
                raise KeyboardInterrupt

    model = classifier()
    with pytest.raises(KeyboardInterrupt, match=r"in epoch 2 of 5, after 2 of 4 steps.*initial_epoch=1"):
        model.fit(X, Y, batch_size=16, epochs=5, callbacks=[Interrupt()], verbose=0)
    assert model.optimizer.iterations == 6
    assert len(model.history.epoch) == 1
    model.fit(X, Y, batch_size=16, epochs=5, initial_epoch=1, verbose=0)
    assert model.epochs_trained == 5


def test_interrupted_between_epochs() -> None:
    def press(epoch: int, logs: Any) -> None:
        raise KeyboardInterrupt

    model = classifier()
    with pytest.raises(KeyboardInterrupt, match=r"in epoch 1 of 2, after 2 of 2 steps.*initial_epoch=1"):
        model.fit(X, Y, epochs=2, callbacks=[callbacks.LambdaCallback(on_epoch_end=press)], verbose=0)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also in a process that a shell has told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_soon_and_leaves_the_model_usable() -> None:
    x, y = blobs(200_000)
    model = classifier()
    delays = []
    for _ in range(3):  # the least of three: other programs may hold the processor once
        sent = []

        def press(sent: list[float] = sent) -> None:
            time.sleep(0.3)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=press)
        thread.start()
        with pytest.raises(KeyboardInterrupt, match="Training was interrupted in epoch"):
            model.fit(x, y, epochs=1000, verbose=0)
        delays.append(time.perf_counter() - sent[0])
        thread.join()
    assert min(delays) < 0.2
    assert np.isfinite(model.predict(x[:10])).all()
    other = classifier()
    other.set_weights(model.get_weights())
    assert same_weights(model, other)
    model.fit(x[:100], y[:100], verbose=0)
