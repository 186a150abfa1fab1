"""Optimizers: the compiled update and apply_gradients agree; arguments, state and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.training import OPTIMIZERS, blobs, classifier
from tilefuse import optimizers

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tape_and_compiled_step_agree(name: str) -> None:
    tilefuse.set_precision("float64")
    try:
        compiled, eager = classifier(OPTIMIZERS[name]), classifier(OPTIMIZERS[name])
    finally:
        tilefuse.set_precision("float32")
    x, y = blobs(96)
    for start in range(0, 96, 16):
        xs, ys = x[start : start + 16], y[start : start + 16]
        compiled.train_on_batch(xs, ys)
        with tilefuse.GradientTape() as tape:
            loss = eager.loss(ys, eager(xs, training=True))
        gradients = tape.gradient(loss, eager.trainable_variables)
        eager.optimizer.apply_gradients(zip(gradients, eager.trainable_variables, strict=True))
    assert compiled.optimizer.iterations == eager.optimizer.iterations == 6
    for u, v in zip(compiled.get_weights(), eager.get_weights(), strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-9, atol=1e-11)


def test_weight_decay_shrinks_all_weights() -> None:
    w = tilefuse.Variable([2.0, -4.0])
    optimizers.SGD(0.5, weight_decay=0.1).apply_gradients([(np.zeros(2), w)])
    np.testing.assert_allclose(w.value, [1.9, -3.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ({"clipvalue": 1.0}, [[-1.0, 1.0], [0.5]]),
        ({"clipnorm": 1.0}, [[-0.6, 0.8], [0.5]]),
        ({"global_clipnorm": 1.0}, [[-3 / 25.25**0.5, 4 / 25.25**0.5], [0.5 / 25.25**0.5]]),
    ],
)
def test_clipping(clip: dict[str, float], expected: Any) -> None:
    variables = [tilefuse.Variable([0.0, 0.0]), tilefuse.Variable([0.0])]
    gradients = [np.array([3.0, -4.0], np.float32), np.array([-0.5], np.float32)]
    optimizers.SGD(1.0, **clip).apply(gradients, variables)
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.value, value, rtol=1e-6)
    np.testing.assert_array_equal(gradients[0], [3.0, -4.0])  # the caller's arrays stay


def test_learning_rate_can_be_set() -> None:
    x, y = blobs(32)
    model = classifier(optimizers.SGD(0.1))
    model.optimizer.learning_rate = 0.0
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    for u, v in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(u, v)
    assert optimizers.SGD(lambda: 0.25).learning_rate == 0.25
    scheduled = optimizers.Adam(tilefuse.schedules.ExponentialDecay(0.1, 10, 0.5))
    assert scheduled.learning_rate == 0.1
    with pytest.raises(TypeError, match="ExponentialDecay"):
        scheduled.learning_rate = 0.5


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
def test_config_round_trip(name: str) -> None:
    schedule = optimizers.schedules.CosineDecay(0.1, 100)
    optimizer = getattr(optimizers, name)(learning_rate=schedule, clipnorm=1.0)
    again = optimizers.get({"class_name": name, "config": optimizer.get_config()})
    assert again.get_config() == optimizer.get_config()
    assert again.learning_rate == optimizer.learning_rate


def test_keras_defaults() -> None:
    assert optimizers.SGD().learning_rate == 0.01
    assert optimizers.AdamW().weight_decay == 0.004
    assert optimizers.Adagrad().initial_accumulator_value == 0.1
    for name in ("rmsprop", "adagrad", "adam", "adamw"):
        optimizer = optimizers.get(name)
        assert optimizer.learning_rate == 0.001
        assert optimizer.get_config()["epsilon"] == 1e-7


def test_missing_gradients() -> None:
    v, w = tilefuse.Variable([1.0], name="v"), tilefuse.Variable([1.0], name="w")
    with pytest.warns(UserWarning, match="No gradient for w"):
        optimizers.SGD(1.0).apply_gradients([(np.ones(1), v), (None, w)])
    assert (v.value[0], w.value[0]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="No gradient was given for any variable"):
        optimizers.SGD().apply_gradients([(None, v)])
    with pytest.raises(ValueError, match=r"must have its shape \(1,\)"):
        optimizers.SGD().apply_gradients([(np.ones(2), v)])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optimizers.SGD(clipnorm=1.0, clipvalue=1.0), "Only one of"),
        (lambda: optimizers.SGD(clipnorm=-1.0), "clipnorm must be greater than 0"),
        (lambda: optimizers.SGD(-0.1), "learning_rate must be"),
        (lambda: optimizers.SGD(momentum=1.5), "momentum must be between 0 and 1"),
        (lambda: optimizers.Adam(beta_1=1.0), "beta_1 must be at least 0 and less than 1"),
        (lambda: optimizers.Adam(weight_decay=-1.0), "must be between 0 and inf"),
        (lambda: optimizers.AdamW(weight_decay=None), "use Adam"),
        (lambda: optimizers.get("adm"), "Did you mean 'adam'"),
    ],
)
def test_wrong_arguments(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_learning_rate_of_the_wrong_type() -> None:
    with pytest.raises(TypeError, match="a number, a LearningRateSchedule or a callable"):
        optimizers.SGD("fast")
