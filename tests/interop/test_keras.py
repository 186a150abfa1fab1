"""Models from and to Keras: the same architecture, weights, predictions and training. Needs Keras 3."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.networks import digits_network, folder_network, randomized, residual_network
from helpers.training import same_weights
from tilefuse import Input, Model, Sequential, layers
from tilefuse.datasets import load_digits_sample
from tilefuse.interop.keras import from_keras, load_keras, to_keras

keras = pytest.importorskip("keras")
lay = keras.layers
pytestmark = pytest.mark.filterwarnings("default")  # Keras and its backends warn about themselves


@pytest.fixture(autouse=True)
def _seed() -> None:
    keras.utils.set_random_seed(0)


def images(model: Any, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, *model.input_shape[1:]), dtype=np.float32)


def disturb(keras_model: Any, seed: int = 0) -> Any:
    """The model with weights that hide nothing, as `randomized` makes them."""
    rng = np.random.default_rng(seed)
    for weight in keras_model.weights:
        around = 1 if weight.name in ("gamma", "scale", "moving_variance") else 0
        weight.assign(around + rng.normal(size=weight.shape) * (0.3 if around else 0.2))
    for weight in keras_model.weights:
        if weight.name == "moving_variance":
            weight.assign(abs(weight.numpy()))
    return keras_model


def agree(ours: Model, theirs: Any, tolerance: float = 1e-5) -> None:
    x = images(ours, 5)
    expected = theirs.predict(x, verbose=0)
    np.testing.assert_allclose(ours.predict(x), expected, rtol=tolerance, atol=tolerance)


# ---- training goes on as in Keras --------------------------------------------------


def losses_of_20_steps(
    model: Any, k: Any, loss: str, x: np.ndarray, y: np.ndarray, batch: int
) -> list[float]:
    """With larger steps the networks part: rounding decides which of two maxima gets a gradient."""
    model.compile(k.optimizers.SGD(0.003), loss)
    losses = []
    for step in range(20):
        part = slice(step * batch % len(x), step * batch % len(x) + batch)
        losses.append(float(np.ravel(model.train_on_batch(x[part], y[part]))[0]))
        if hasattr(model, "reset_metrics"):
            model.reset_metrics()
    return losses


@pytest.mark.parametrize(
    ("make", "loss", "batch"),
    [
        (digits_network, "categorical_crossentropy", 32),
        pytest.param(
            lambda k: folder_network(k, dropout=0.0), "binary_crossentropy", 8, marks=pytest.mark.slow
        ),
        (lambda k: folder_network(k, size=64, dropout=0.0), "binary_crossentropy", 16),
        (residual_network, "sparse_categorical_crossentropy", 16),
    ],
    ids=["program 4", "program 5", "program 5 on 64 x 64", "residual"],
)
def test_predictions_and_losses_of_20_steps_of_sgd(make: Callable[[Any], Any], loss: str, batch: int) -> None:
    """Dropout, whose masks differ, is off; moving averages are compared by the predictions at the end."""
    theirs, ours = make(keras), make(tilefuse)
    load_keras(ours, theirs)
    agree(ours, theirs)
    assert same_weights(from_keras(theirs), ours)
    rng, x = np.random.default_rng(3), images(theirs, 4 * batch)
    if make is digits_network:
        x = (load_digits_sample()[0][0][: 4 * batch, ..., None] / 255).astype(np.float32)
    ids = rng.integers(0, theirs.output_shape[1] if theirs.output_shape[1] > 1 else 2, len(x))
    y = np.eye(10, dtype=np.float32)[ids] if loss.startswith("categorical") else ids
    expected = losses_of_20_steps(theirs, keras, loss, x, y, batch)
    np.testing.assert_allclose(
        losses_of_20_steps(ours, tilefuse, loss, x, y, batch), expected, rtol=0, atol=1e-4
    )
    assert abs(expected[-1] - expected[0]) > 1e-3
    agree(ours, theirs, 1e-3)
    load_keras(ours, theirs)
    agree(ours, theirs)


# ---- architectures -----------------------------------------------------------------

ACTIVATIONS = [
    "linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softmax",
    "log_softmax",
]  # fmt: skip


def stack(shape: tuple[int, ...], *more: Any) -> Any:
    return disturb(keras.Sequential([keras.Input(shape), *more]))


def round_trip(theirs: Any) -> Model:
    """The translated model predicts the same, and so does its translation back."""
    ours = from_keras(theirs)
    agree(ours, theirs)
    back = to_keras(ours)
    np.testing.assert_array_equal(
        back.predict(images(ours, 3), verbose=0), theirs.predict(images(ours, 3), verbose=0)
    )
    assert [layer.name for layer in from_keras(back).layers] == [layer.name for layer in ours.layers]
    return ours


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    round_trip(stack((6,), lay.Dense(5, activation=activation), lay.Dense(4), lay.Activation(activation)))


def test_layers_that_are_activations() -> None:
    activations = [lay.ReLU(), lay.LeakyReLU(negative_slope=0.2), lay.ELU(), lay.Softmax()]
    ours = round_trip(stack((6,), lay.Dense(5), *activations))
    names = [vars(layer)["activation"] for layer in ours.layers[1:]]
    assert names == ["relu", "leaky_relu", "elu", "softmax"]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("where", [{}, {"strides": 2}, {"dilation_rate": 2}])
def test_convolutions(padding: str, where: dict[str, Any]) -> None:
    theirs = stack(
        (9, 8, 4),
        lay.Conv2D(6, (3, 2), padding=padding, activation="relu", **where),
        lay.DepthwiseConv2D(2, depth_multiplier=2, padding=padding, use_bias=False),
        lay.Conv2D(4, 1),
        lay.Flatten(),
        lay.Dense(3),
    )
    round_trip(theirs)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow's CPUs have no groups")
def test_groups() -> None:
    round_trip(stack((6, 6, 4), lay.Conv2D(6, 3, groups=2, padding="same")))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_and_normalisation(padding: str) -> None:
    theirs = stack(
        (11, 13, 3),
        lay.MaxPooling2D(2, padding=padding),
        lay.BatchNormalization(momentum=0.9, epsilon=1e-4),
        lay.AveragePooling2D((2, 3), strides=2, padding=padding),
        lay.LayerNormalization(epsilon=1e-5, center=False),
        lay.BatchNormalization(scale=False),
        lay.GlobalAveragePooling2D(keepdims=True),
        lay.Reshape((3,)),
        lay.RMSNormalization(),
        lay.Dropout(0.3, seed=4),
    )
    ours = round_trip(theirs)
    assert (ours.layers[1].momentum, ours.layers[-1].rate, ours.layers[-1].seed) == (0.9, 0.3, 4)  # type: ignore[attr-defined]
    round_trip(stack((5, 4, 3), lay.GlobalMaxPooling2D()))


def test_zeros_around_images() -> None:
    """ResNet's beginning: zeros are a layer of their own in Keras."""
    theirs = stack(
        (15, 14, 3),
        lay.ZeroPadding2D(3),
        lay.Conv2D(4, 7, strides=2),
        lay.ReLU(),
        lay.ZeroPadding2D(((1, 0), (0, 1))),
        lay.MaxPooling2D(3, strides=2),
        lay.ZeroPadding2D((0, 1)),
        lay.DepthwiseConv2D(3),
    )
    ours = round_trip(theirs)
    assert ours.layers[0].padding == ((3, 3), (3, 3))  # type: ignore[attr-defined]
    model = randomized(
        Sequential(
            [Input((7, 8, 3)), layers.Conv2D(4, 3, padding=1), layers.Conv2D(2, 3, padding=((1, 0), (0, 2)))]
        )
    )
    again = to_keras(model)
    agree(model, again)
    assert same_weights(from_keras(again), model)


def test_branches_and_models_in_models() -> None:
    body = keras.Sequential(
        [keras.Input((6, 6, 4)), lay.Conv2D(4, 3, padding="same"), lay.ReLU()], name="body"
    )
    inputs = keras.Input((6, 6, 3))
    x = lay.Conv2D(4, 1)(inputs)
    inner = keras.Input((6, 6, 4))
    block = keras.Model(inner, lay.Add()([inner, lay.BatchNormalization()(body(inner))]), name="block")
    x = x + block(x)
    x = lay.Dropout(0.5)(x, training=False)
    theirs = disturb(keras.Model(inputs, lay.Dense(2)(lay.GlobalAveragePooling2D()(x))))
    ours = from_keras(theirs)
    agree(ours, theirs)
    assert {layer.name for layer in ours.layers} >= {"block_body_" + body.layers[0].name}
    assert not any(isinstance(layer, layers.Dropout) for layer in ours.layers)
    agree(ours, to_keras(ours))


def test_residual_network() -> None:
    ours = round_trip(disturb(residual_network(keras)))
    assert not isinstance(ours, Sequential)
    model = residual_network()
    load_keras(model, to_keras(ours))
    assert same_weights(model, ours)
    theirs = residual_network(keras)
    assert to_keras(randomized(model), theirs) is theirs
    agree(model, theirs)


def test_what_training_needs_is_kept() -> None:
    theirs = stack(
        (4,),
        lay.Dense(
            3,
            name="a",
            kernel_regularizer=keras.regularizers.L1L2(0.01, 0.02),
            bias_regularizer="l2",
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            bias_initializer="ones",
            trainable=False,
        ),
        lay.Dense(2, name="b", kernel_initializer=keras.initializers.IdentityInitializer()),
    )
    ours = from_keras(theirs)
    a, b = ours.layers
    assert [layer.name for layer in ours.layers] == ["a", "b"]
    assert not a.trainable
    assert b.trainable
    assert a.get_config()["kernel_regularizer"] == {"class_name": "L1L2", "config": {"l1": 0.01, "l2": 0.02}}
    assert a.get_config()["kernel_initializer"] == {"class_name": "HeNormal", "config": {"seed": 3}}
    assert b.get_config()["kernel_initializer"]["class_name"] == "GlorotUniform"
    assert ours.name == theirs.name
    back = to_keras(ours).layers[0]
    assert (back.kernel_regularizer.l1, back.kernel_regularizer.l2) == pytest.approx((0.01, 0.02))
    assert back.bias_regularizer.l2 == pytest.approx(0.01)
    assert back.kernel_initializer.get_config()["seed"] == 3
    assert not back.trainable


def test_order_of_layers_does_not_matter() -> None:
    """Keras sorts layers by depth, tilefuse by the way from the output: they are matched by the latter."""

    def network(k: Any, swapped: bool) -> Any:
        x = k.Input((5,))
        if swapped:
            short = k.layers.Dense(3, name="s")(x)
            long = k.layers.Dense(3, name="l")(k.layers.Dense(5)(x))
        else:
            long = k.layers.Dense(3, name="l")(k.layers.Dense(5)(x))
            short = k.layers.Dense(3, name="s")(x)
        return k.Model(x, k.layers.Add()([long, short]))

    theirs, ours = disturb(network(keras, True)), network(tilefuse, False)
    load_keras(ours, theirs)
    agree(ours, theirs)


# ---- what does not match -----------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda k: k.Dense(4, name="d"),
            r"'d' \(Dense\) has the type Dense, but Keras's layer .* has Conv2D",
        ),
        (
            lambda k: k.Conv2D(5, 3, name="c"),
            r"'c' \(Conv2D\) has weights of the shapes .*\(3, 3, 2, 5\).*has .*\(3, 3, 2, 4\)",
        ),
        (lambda k: k.Conv2D(4, 3, use_bias=False), r"has weights of the shapes"),
        (lambda k: k.Conv2D(4, 3, padding="same"), r"has windows .*\(8, 8, 1, 1, 1, 1, 1, 1, 1\)"),
        (lambda k: k.Conv2D(4, 3, dilation_rate=2), r"has windows"),
    ],
)
def test_mismatches_change_nothing(layer: Callable[[Any], Any], message: str) -> None:
    theirs = keras.Sequential([keras.Input((8, 8, 2)), lay.Conv2D(2, 1), lay.Conv2D(4, 3)])
    ours = Sequential([Input((8, 8, 2)), layers.Conv2D(2, 1), layer(layers)])
    before, of_keras = ours.get_weights(), theirs.get_weights()
    for move in (load_keras, to_keras):
        with pytest.raises(ValueError, match=message):
            move(ours, theirs)
    for a, b in zip(before + of_keras, ours.get_weights() + theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_mismatches() -> None:
    def normalised(k: Any, **arguments: Any) -> Any:
        return k.Sequential([k.Input((4,)), k.layers.BatchNormalization(name="n", **arguments)])

    ours = normalised(tilefuse)
    with pytest.raises(ValueError, match=r"'n' .* has epsilon 0.001, but Keras's layer 'n' .* has 1e-05"):
        load_keras(ours, normalised(keras, epsilon=1e-5))
    with pytest.warns(UserWarning, match=r"momentum=0.99, but Keras's layer 'n' has 0.5"):
        load_keras(ours, disturb(normalised(keras, momentum=0.5)))
    assert not (ours.get_weights()[1] == 0).any()
    with pytest.raises(ValueError, match=r"has 1 layers with weights \(n\), but the Keras model has 0"):
        load_keras(ours, keras.Sequential([keras.Input((4,)), lay.Dropout(0.5)]))


def shared() -> Any:
    x, dense = keras.Input((3,)), lay.Dense(3)
    return keras.Model(x, dense(dense(x)))


def two_inputs() -> Any:
    x, y = keras.Input((3,)), keras.Input((3,))
    return keras.Model([x, y], lay.Add()([x, y]))


def called_for_training() -> Any:
    x = keras.Input((3,))
    return keras.Model(x, lay.BatchNormalization(name="n")(x, training=True))


def with_constant() -> Any:
    x = keras.Input((3,))
    return keras.Model(x, lay.Dense(3)(x) + 1.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: "model", TypeError, r"Expected a keras\.Model, got 'model'"),
        (lambda: keras.Sequential([lay.Dense(3)]), ValueError, "has no weights yet"),
        (two_inputs, ValueError, "several inputs or outputs"),
        (shared, ValueError, r"Keras's layer '.*' is used 2 times"),
        (called_for_training, ValueError, r"'n' \(BatchNormalization\) .*called with training=True"),
        (with_constant, ValueError, "only layers, and the sum of two, can be translated"),
        (
            lambda: stack((3,), lay.Dense(2, name="d", activation="mish")),
            ValueError,
            "'d' .*Unknown activation 'mish'",
        ),
        (lambda: stack((3,), lay.GaussianNoise(0.1)), ValueError, "Unknown layer 'GaussianNoise'"),
        (lambda: stack((3,), lay.ReLU(max_value=6.0)), ValueError, "max_value is 6.0; expected None"),
        (
            lambda: stack((3,), lay.Dense(2, kernel_constraint="non_neg")),
            ValueError,
            "kernel_constraint is .*which tilefuse has not",
        ),
        (lambda: stack((3,), lay.Dropout(0.1, noise_shape=(None, 1))), ValueError, "noise_shape is"),
        (lambda: stack((4, 5), lay.LayerNormalization(axis=1)), ValueError, "normalises over the last axis"),
        (
            lambda: stack((6, 6, 2), lay.ZeroPadding2D(1), lay.AveragePooling2D(2)),
            ValueError,
            "zeros are around its images",
        ),
        (lambda: stack((6, 6, 2), lay.ZeroPadding2D(1)), ValueError, "ends with zeros"),
    ],
)
def test_what_cannot_be_translated(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_keras(make())


def test_what_keras_has_not() -> None:
    with pytest.raises(ValueError, match="Keras has no activation 'gelu_tanh'"):
        to_keras(Sequential([Input((3,)), layers.Dense(2, "gelu_tanh")]))
    with pytest.raises(ValueError, match="Keras's pooling takes 'valid' or 'same'"):
        to_keras(Sequential([Input((6, 6, 1)), layers.MaxPooling2D(2, padding=1)]))
    with pytest.raises(ValueError, match="no weights yet"):
        to_keras(Sequential([layers.Dense(2)]))


def test_without_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match="pip install keras"):
        to_keras(Sequential([Input((3,)), layers.Dense(2)]))
