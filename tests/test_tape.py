"""The gradient tape: against central differences and the compiled step, and its rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.gradients import assert_gradient, numerical_gradient
from helpers.training import blobs
from tilefuse import layers, losses, ops

pytestmark = pytest.mark.usefixtures("device")

RNG = np.random.default_rng(3)
A, B, C = RNG.normal(size=(5, 4)), RNG.normal(size=(4, 3)), RNG.normal(size=3)
TARGET = RNG.normal(size=(5, 3))
ACTIVATIONS = [
    "linear", "relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus", "silu", "gelu", "gelu_tanh",
]  # fmt: skip


@pytest.fixture
def float64() -> Iterator[None]:
    tilefuse.set_precision("float64")
    yield
    tilefuse.set_precision("float32")


def check(function: Callable[..., Any], *inputs: np.ndarray) -> None:
    """Gradients of the mean square of `function` by each input."""
    loss_fn = losses.MeanSquaredError()
    with tilefuse.GradientTape() as tape:
        y = function(*inputs)
        loss = loss_fn(np.zeros_like(y), y)
    for i, gradient in enumerate(tape.gradient(loss, list(inputs))):

        def value(x: np.ndarray, i: int = i) -> np.ndarray:
            y = function(*inputs[:i], x, *inputs[i + 1 :])
            return loss_fn(np.zeros_like(y), y)

        assert_gradient(gradient, numerical_gradient(value, inputs[i]), 1e-7)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense(activation: str) -> None:
    check(lambda x, w, b: ops.dense(x, w, b, activation=activation), A, B, C)
    check(lambda x, w: ops.dense(x, w, activation=activation), A, B)


@pytest.mark.parametrize("name", [*ACTIVATIONS[1:-1], "softmax", "log_softmax"])
def test_activations(name: str) -> None:
    check(getattr(ops, name), A)


def test_activation_arguments() -> None:
    check(lambda x: ops.leaky_relu(x, negative_slope=0.4), A)
    check(lambda x: ops.elu(x, 0.3), A)
    check(lambda x: ops.gelu(x, approximate=True), A)
    check(lambda x: ops.softmax(x, axis=0), A)


@pytest.mark.parametrize("flip_a", [False, True])
@pytest.mark.parametrize("flip_b", [False, True])
def test_matmul(flip_a: bool, flip_b: bool) -> None:
    a, b = (A.T.copy() if flip_a else A), (B.T.copy() if flip_b else B)
    check(lambda a, b: ops.matmul(a, b, transpose_a=flip_a, transpose_b=flip_b), a, b)


def test_matmul_with_epilogue_and_batch() -> None:
    check(lambda a, b, c: ops.matmul(a, b, bias=c, activation="gelu"), A, B, C)
    check(lambda a, b, c: ops.matmul(a, b, bias=c, activation="tanh"), A, B, C)
    check(ops.matmul, RNG.normal(size=(2, 5, 4)), B)
    check(ops.matmul, RNG.normal(size=(2, 5, 4)), RNG.normal(size=(2, 4, 3)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm(activation: str, training: bool) -> None:
    gamma, beta, residual = RNG.normal(size=4), RNG.normal(size=4), RNG.normal(size=(5, 4))

    def norm(x: np.ndarray, *more: np.ndarray) -> Any:
        moving = np.linspace(-1, 1, 4), np.linspace(0.5, 2, 4)
        gamma, beta, residual = (*more, None, None, None)[:3]
        how = {"training": training, "activation": activation, "residual": residual}
        y = ops.batch_norm(x, gamma, beta, *moving, **how)
        return y[0] if training else y

    check(norm, A)
    check(norm, A, gamma, beta)
    check(norm, A, gamma, beta, residual)


def test_row_norms() -> None:
    gamma, beta = RNG.normal(size=4), RNG.normal(size=4)
    check(ops.layer_norm, A, gamma, beta)
    check(lambda x: ops.layer_norm(x, epsilon=0.1), A)
    check(lambda x: ops.rms_norm(x, epsilon=0.1), A)
    check(ops.rms_norm, A, gamma)


def test_dropout() -> None:
    check(lambda x: ops.dropout(x, 0.4, seed=1, step=2)[0], A)


def test_pooling() -> None:
    images = RNG.normal(size=(2, 5, 4, 3))
    check(lambda x: ops.max_pool2d(x, (3, 2), strides=2, padding="same"), images)
    check(lambda x: ops.avg_pool2d(x, 3, strides=1, padding=1, count_padding=True), images)
    check(ops.avg_pool2d, images)
    check(ops.global_avg_pool2d, images)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("activation", [*ACTIVATIONS, "softmax", "log_softmax"])
def test_model(activation: str) -> None:
    tilefuse.seed(0)
    model = tilefuse.Sequential(
        [
            layers.Reshape((2, 2), input_shape=(4,)),
            layers.Dense(3, activation),
            layers.Flatten(),
            layers.Activation(activation),
            layers.Dense(3),
        ]
    )
    loss_fn = losses.MeanSquaredError()
    with tilefuse.GradientTape() as tape:
        loss = loss_fn(TARGET, model(A, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        start = variable.numpy()

        def value(w: np.ndarray, variable: tilefuse.Variable = variable) -> np.ndarray:
            variable.assign(w)
            return loss_fn(TARGET, model(A))

        numerical = numerical_gradient(value, start)
        variable.assign(start)
        assert_gradient(gradient, numerical, 1e-7)


@pytest.mark.usefixtures("float64")
def test_penalties() -> None:
    model = tilefuse.Sequential(
        [tilefuse.Input((4,)), layers.Dense(3, kernel_regularizer=tilefuse.regularizers.L1L2(0.1, 0.2))]
    )
    kernel = model.layers[0].kernel
    with tilefuse.GradientTape() as tape:
        loss = losses.MeanSquaredError()(TARGET, model(A))
        penalties = model.losses
    both = tape.gradient([loss, *penalties], kernel)
    with tilefuse.GradientTape() as tape:
        loss = losses.MeanSquaredError()(TARGET, model(A))
    alone = tape.gradient(loss, kernel)
    np.testing.assert_allclose(both - alone, 0.1 * np.sign(kernel.value) + 0.4 * kernel.value)


def test_dropout_has_the_compiled_steps_mask() -> None:
    x, y = blobs(32)

    def network() -> tilefuse.Sequential:
        tilefuse.seed(4)
        model = tilefuse.Sequential(
            [
                tilefuse.Input((8,)),
                layers.Dense(33, "relu"),
                layers.Dropout(0.5, seed=9),
                layers.Dense(3, "softmax"),
            ]
        )
        model.compile(tilefuse.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        return model

    compiled, eager = network(), network()
    for _ in range(3):
        compiled.train_on_batch(x, y)
        with tilefuse.GradientTape() as tape:
            loss = eager.loss(y, eager(x, training=True))
        gradients = tape.gradient(loss, eager.trainable_variables)
        eager.optimizer.apply_gradients(zip(gradients, eager.trainable_variables, strict=True))
    for u, v in zip(compiled.get_weights(), eager.get_weights(), strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-6)


def test_hand_written_loop_learns() -> None:
    x, y = blobs()
    tilefuse.seed(0)
    model = tilefuse.Sequential([layers.Dense(16, "relu", input_shape=(8,)), layers.Dense(3, "softmax")])
    loss_fn, optimizer = losses.SparseCategoricalCrossentropy(), tilefuse.optimizers.Adam(0.02)
    values = []
    for _ in range(30):
        with tilefuse.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        values.append(float(loss))
    assert values[-1] < values[0] / 3


def test_a_value_used_twice_adds_up() -> None:
    x = np.array([[2.0, -1.0]])
    with tilefuse.GradientTape() as tape:
        y = ops.matmul(x, x, transpose_b=True)
    np.testing.assert_array_equal(tape.gradient(y, x), 2 * x)


def test_one_source_and_unconnected_ones() -> None:
    other = tilefuse.Variable([1.0])
    with tilefuse.GradientTape() as tape:
        y = ops.relu(A)
    assert tape.gradient(y, [A, other])[1] is None
    with tilefuse.GradientTape() as tape:
        y = ops.relu(A)
    gradient = tape.gradient(y, A, output_gradients=2 * np.ones_like(A))
    np.testing.assert_array_equal(gradient, 2.0 * (A > 0))


def test_persistence() -> None:
    with tilefuse.GradientTape(persistent=True) as tape:
        y = ops.tanh(A)
        z = ops.relu(y)
    np.testing.assert_array_equal(tape.gradient(z, y), A > 0)
    assert tape.gradient(z, A) is not None
    with tilefuse.GradientTape() as tape:
        y = ops.tanh(A)
    tape.gradient(y, A)
    with pytest.raises(RuntimeError, match="persistent=True"):
        tape.gradient(y, A)


def test_what_is_not_recorded_is_refused() -> None:
    loss_fn = losses.MeanSquaredError()
    outside = loss_fn(TARGET, A @ B)
    with tilefuse.GradientTape() as tape:
        inside = loss_fn(TARGET, ops.matmul(A, B))
        with tape.stop_recording():
            paused = loss_fn(TARGET, ops.matmul(A, B))
    for value in (outside, paused, inside * 2):
        with pytest.raises(ValueError, match="was not recorded on this tape"):
            tape.gradient(value, A)


def test_nested_tapes_and_reset() -> None:
    with tilefuse.GradientTape() as outer:
        with tilefuse.GradientTape() as inner:
            y = ops.relu(A)
        z = ops.tanh(y)
    with pytest.raises(ValueError, match="was not recorded"):
        inner.gradient(z, A)
    assert inner.gradient(y, A) is not None
    assert outer.gradient(z, A) is not None
    with pytest.raises(RuntimeError, match="recording already"), outer, outer:
        pass
    outer.reset()
    with outer:
        y = ops.relu(A)
    assert outer.gradient(y, A) is not None
