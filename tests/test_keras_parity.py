"""A program written for Keras runs after changing its imports, and gives the same numbers. Needs Keras.

Image networks: tests/interop/test_keras.py.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.training import OPTIMIZERS

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("default")  # Keras and its backends warn about themselves

RNG = np.random.default_rng(0)
X = RNG.normal(size=(320, 12)).astype(np.float32)
IDS = RNG.integers(0, 4, 320)
ONE_HOT = np.eye(4, dtype=np.float32)[IDS]
BITS = (RNG.random((320, 4)) < 0.5).astype(np.float32)
WEIGHTS = RNG.random(320).astype(np.float32)

ACTIVATIONS = [
    "linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softmax",
    "log_softmax",
]  # fmt: skip

# name: (activation of the last layer, labels, the loss of a framework)
LOSSES: dict[str, tuple[str | None, np.ndarray, Callable[[ModuleType], Any]]] = {
    "mse": ("tanh", ONE_HOT, lambda k: k.losses.MeanSquaredError()),
    "binary": ("sigmoid", BITS, lambda k: k.losses.BinaryCrossentropy(label_smoothing=0.1)),
    "binary_logits": (None, BITS, lambda k: k.losses.BinaryCrossentropy(from_logits=True)),
    "categorical": ("softmax", ONE_HOT, lambda k: k.losses.CategoricalCrossentropy(label_smoothing=0.1)),
    "categorical_logits": (None, ONE_HOT, lambda k: k.losses.CategoricalCrossentropy(from_logits=True)),
    "sparse": ("softmax", IDS, lambda k: k.losses.SparseCategoricalCrossentropy()),
    "sparse_logits": (None, IDS, lambda k: k.losses.SparseCategoricalCrossentropy(from_logits=True)),
}


def network(k: ModuleType, activation: str = "relu", last: str | None = "softmax", **dense: Any) -> Any:
    """The same lines for both: only the module differs."""
    return k.Sequential(
        [
            k.Input((3, 4)),
            k.layers.Flatten(),
            k.layers.Dense(24, activation=activation, **dense),
            k.layers.Dense(16),
            k.layers.Activation(activation),
            k.layers.Dense(4, activation=last),
        ]
    )


def pair(make: Callable[[ModuleType], Any]) -> tuple[Any, Any]:
    """A Keras model, and tilefuse's with its weights."""
    theirs, ours = make(keras), make(tilefuse)
    ours.set_weights(theirs.get_weights())
    return theirs, ours


def losses_of_steps(model: Any, y: np.ndarray, steps: int, batch: int = 32) -> list[float]:
    """The loss of each of `steps` batches; Keras's running mean is started anew for each."""
    x, values = X.reshape(-1, 3, 4), []
    for step in range(steps):
        part = slice((step * batch) % len(x), (step * batch) % len(x) + batch)
        result = model.train_on_batch(x[part], y[part])
        values.append(float(np.ravel(result)[0]))
        if hasattr(model, "reset_metrics"):
            model.reset_metrics()
    return values


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_predictions(activation: str) -> None:
    theirs, ours = pair(lambda k: network(k, activation, activation))
    x = X.reshape(-1, 3, 4)
    expected = theirs.predict(x, verbose=0)
    np.testing.assert_allclose(ours.predict(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", LOSSES)
def test_losses_of_50_steps_of_sgd(case: str) -> None:
    last, y, loss = LOSSES[case]
    theirs, ours = pair(lambda k: network(k, last=last))
    for model, k in ((theirs, keras), (ours, tilefuse)):
        model.compile(k.optimizers.SGD(0.1), loss(k))
    np.testing.assert_allclose(
        losses_of_steps(ours, y, 50), losses_of_steps(theirs, y, 50), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if "softmax" not in a])
def test_training_with_each_activation(activation: str) -> None:
    theirs, ours = pair(lambda k: network(k, activation))
    for model, k in ((theirs, keras), (ours, tilefuse)):
        model.compile(k.optimizers.SGD(0.02), "sparse_categorical_crossentropy")
    np.testing.assert_allclose(
        losses_of_steps(ours, IDS, 50), losses_of_steps(theirs, IDS, 50), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    entry = OPTIMIZERS[name]
    cls = {"sgd": "SGD", "adagrad": "Adagrad", "rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW"}
    theirs, ours = pair(network)
    for model, k in ((theirs, keras), (ours, tilefuse)):
        optimizer = getattr(k.optimizers, cls[entry["class_name"]])(**entry["config"])
        model.compile(optimizer, "sparse_categorical_crossentropy")
    np.testing.assert_allclose(
        losses_of_steps(ours, IDS, 20), losses_of_steps(theirs, IDS, 20), rtol=0, atol=5e-4
    )


@pytest.mark.parametrize(
    "name",
    ["ExponentialDecay", "InverseTimeDecay", "PolynomialDecay", "CosineDecay", "PiecewiseConstantDecay"],
)
def test_schedules(name: str) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "ExponentialDecay": {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5},
        "InverseTimeDecay": {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5},
        "PolynomialDecay": {"initial_learning_rate": 0.1, "decay_steps": 20, "power": 2.0},
        "CosineDecay": {
            "initial_learning_rate": 0.0,
            "decay_steps": 20,
            "warmup_target": 0.1,
            "warmup_steps": 5,
        },
        "PiecewiseConstantDecay": {"boundaries": [5, 10], "values": [0.1, 0.05, 0.01]},
    }
    theirs = getattr(keras.optimizers.schedules, name)(**arguments[name])
    ours = getattr(tilefuse.optimizers.schedules, name)(**arguments[name])
    np.testing.assert_allclose(
        [ours(step) for step in range(30)], [float(theirs(step)) for step in range(30)], rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("weights", [{"class_weight": {0: 2.0, 3: 0.5}}, {"sample_weight": WEIGHTS}])
def test_penalties_and_weights(weights: dict[str, Any]) -> None:
    theirs, ours = pair(
        lambda k: network(k, kernel_regularizer=k.regularizers.L1L2(0.01, 0.02), bias_regularizer="l2")
    )
    x, results = X.reshape(-1, 3, 4), []
    for model in (theirs, ours):
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(
            x,
            IDS,
            batch_size=32,
            epochs=3,
            shuffle=False,
            validation_split=0.25,
            verbose=0,
            **weights,
        )
        results.append(history.history)
    assert set(results[0]) == set(results[1])
    for name, values in results[0].items():
        np.testing.assert_allclose(results[1][name], values, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("case", LOSSES)
def test_losses_of_arrays(case: str) -> None:
    last, y, loss = LOSSES[case]
    scores = RNG.normal(size=(320, 4)).astype(np.float32)
    if last is not None:
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    for weight in (None, WEIGHTS):
        expected = float(loss(keras)(y, scores, sample_weight=weight))
        assert float(loss(tilefuse)(y, scores, sample_weight=weight)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(40, 30), (3, 3, 8, 16)])
@pytest.mark.parametrize("name", ["GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunNormal"])
def test_initializers_have_the_same_spread(name: str, shape: tuple[int, ...]) -> None:
    theirs = np.asarray(getattr(keras.initializers, name)(seed=1)(shape))
    ours = getattr(tilefuse.initializers, name)(seed=1)(shape)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.12)
    assert abs(ours).max() == pytest.approx(abs(theirs).max(), rel=0.12)


def test_metrics() -> None:
    scores = RNG.random((320, 4)).astype(np.float32)
    for name, y in (("SparseCategoricalAccuracy", IDS), ("CategoricalAccuracy", ONE_HOT)):
        theirs, ours = getattr(keras.metrics, name)(), getattr(tilefuse.metrics, name)()
        assert float(theirs(y, scores)) == pytest.approx(ours(y, scores))
    for average in ("micro", "macro", "weighted"):
        theirs = keras.metrics.F1Score(average)
        theirs.update_state(ONE_HOT, scores)
        ours = tilefuse.metrics.F1Score(average)
        assert ours(ONE_HOT, scores) == pytest.approx(float(theirs.result()), rel=1e-5)
    for name in ("Precision", "Recall", "BinaryAccuracy"):
        theirs, ours = getattr(keras.metrics, name)(), getattr(tilefuse.metrics, name)()
        p, y = scores[:, :1], BITS[:, :1]
        assert ours(y, p) == pytest.approx(float(theirs(y, p)), rel=1e-5)
