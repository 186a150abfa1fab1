"""The reference against PyTorch and Keras, where they are installed."""

import numpy as np
import pytest
from helpers.arrays import normal
from tilefuse import reference as ref
from tilefuse.reference.activations import activate, activate_backward

pytestmark = pytest.mark.filterwarnings("ignore")  # their warnings are not ours


def close(actual, expected, rtol=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-13)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def keras():
    pytest.importorskip("keras", exc_type=ImportError)
    import keras

    return keras


@pytest.mark.parametrize(
    ("name", "alpha", "twin", "options"),
    [
        ("relu", 0, "relu", {}),
        ("leaky_relu", 0.2, "leaky_relu", {"negative_slope": 0.2}),
        ("elu", 1.3, "elu", {"alpha": 1.3}),
        ("selu", 0, "selu", {}),
        ("sigmoid", 0, "sigmoid", {}),
        ("tanh", 0, "tanh", {}),
        ("softplus", 0, "softplus", {"threshold": 1000}),
        ("silu", 0, "silu", {}),
        ("gelu", 0, "gelu", {}),
        ("gelu_tanh", 0, "gelu", {"approximate": "tanh"}),
    ],
)
def test_activations_like_torch(torch, name, alpha, twin, options):
    x = np.linspace(-9, 9, 1001)
    given = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.nn.functional, twin)(given, **options)
    expected.sum().backward()
    y = activate(x, name, alpha)
    close(y, expected.detach().numpy())
    close(activate_backward(np.ones_like(x), y, name, alpha, x=x), given.grad.numpy(), rtol=1e-11)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_like_torch(torch, smoothing):
    rng = np.random.default_rng(0)
    logits, labels = normal(rng, (7, 5), np.float64), rng.integers(0, 5, 7)
    given = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(given, torch.tensor(labels), label_smoothing=smoothing)
    expected.backward()
    loss, gradient = ref.softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    close(loss, expected.item())
    close(gradient, given.grad.numpy())


OPTIMIZERS = [
    ("SGD", {"learning_rate": 0.1}, "sgd_step", {"learning_rate": 0.1}),
    ("SGD", {"momentum": 0.9}, "momentum_step", {}),
    ("SGD", {"momentum": 0.8, "nesterov": True}, "momentum_step", {"momentum": 0.8, "nesterov": True}),
    ("Adagrad", {"initial_accumulator_value": 0.0}, "adagrad_step", {}),
    ("RMSprop", {}, "rmsprop_step", {}),
    ("RMSprop", {"momentum": 0.8, "centered": True}, "rmsprop_step", {"momentum": 0.8}),
    ("Adam", {}, "adam_step", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}, "adam_step", {"weight_decay": 0.1}),
    ("AdamW", {}, "adamw_step", {}),
]


@pytest.mark.parametrize(("theirs", "their_options", "ours", "options"), OPTIMIZERS)
def test_optimizers_like_keras(keras, theirs, their_options, ours, options):
    rng = np.random.default_rng(1)
    w = normal(rng, (4, 3), np.float64)
    variable = keras.Variable(w, dtype="float64")
    optimizer = getattr(keras.optimizers, theirs)(**their_options)
    amsgrad, centered = their_options.get("amsgrad"), their_options.get("centered")
    count = {"sgd_step": 0, "momentum_step": 1, "adagrad_step": 1}.get(ours, 2 + bool(amsgrad or centered))
    if ours == "rmsprop_step" and not centered:
        count = 1
    slots = [[np.zeros_like(w)] for _ in range(count)]
    for step in range(1, 6):
        g = normal(rng, w.shape, np.float64)
        optimizer.apply([keras.ops.convert_to_tensor(g)], [variable])
        extra = {"step": step} if "adam" in ours else {}
        getattr(ref, ours)([w], [g], *slots, **options, **extra)
        close(w, keras.ops.convert_to_numpy(variable), rtol=1e-6)  # Keras keeps its settings in float32


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_like_keras(keras, smoothing):
    rng = np.random.default_rng(2)
    raw, weight = normal(rng, (6, 4), np.float32), rng.uniform(0, 2, 6).astype(np.float32)
    one_hot = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 6)]
    probs = rng.uniform(0, 1, (6, 4)).astype(np.float32)
    for loss, scores, theirs, options in [
        (ref.softmax_cross_entropy, raw, "CategoricalCrossentropy", {"from_logits": True}),
        (ref.categorical_cross_entropy, probs, "CategoricalCrossentropy", {}),
        (ref.sigmoid_binary_cross_entropy, raw, "BinaryCrossentropy", {"from_logits": True}),
        (ref.binary_cross_entropy, probs, "BinaryCrossentropy", {}),
    ]:
        expected = getattr(keras.losses, theirs)(label_smoothing=smoothing, **options)(
            one_hot, scores, weight
        )
        actual = loss(scores, one_hot, label_smoothing=smoothing, sample_weight=weight)[0]
        close(actual, float(expected), rtol=1e-5)
    expected = keras.losses.MeanSquaredError()(one_hot, raw, weight)
    close(ref.mean_squared_error(raw, one_hot, sample_weight=weight)[0], float(expected), rtol=1e-5)


@pytest.mark.parametrize(("theirs", "clip"), [("clipvalue", "clip_by_value"), ("clipnorm", "clip_by_norm")])
def test_clipping_like_keras(keras, theirs, clip):
    g = [np.array([3.0, -4.0]), np.array([0.1, 0.2])]
    variables = [keras.Variable(np.zeros(2), dtype="float64") for _ in g]
    optimizer = keras.optimizers.SGD(1.0, **{theirs: 2.0})
    optimizer.apply([keras.ops.convert_to_tensor(x) for x in g], variables)
    getattr(ref, clip)(g, 2.0)
    for x, variable in zip(g, variables, strict=True):
        close(-x, keras.ops.convert_to_numpy(variable), rtol=1e-6)


POOLINGS = [
    ("max_pool2d", {}),
    ("avg_pool2d", {"count_padding": True}),
    ("avg_pool2d", {"count_padding": False}),
]


@pytest.mark.parametrize(("name", "how"), POOLINGS, ids=str)
def test_pooling_like_torch(torch, name, how):
    x = normal(np.random.default_rng(4), (2, 9, 8, 3), np.float64)
    given = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    options = {"count_include_pad": how["count_padding"]} if how else {}
    expected = getattr(torch.nn.functional, name)(given, 3, 2, 1, **options)
    dy = normal(np.random.default_rng(5), expected.shape, np.float64)
    expected.backward(torch.tensor(dy))
    how = {"pool_size": 3, "strides": 2, "padding": 1, **how}
    close(getattr(ref, name)(x, **how).transpose(0, 3, 1, 2), expected.detach().numpy())
    dx = getattr(ref, f"{name}_backward")(dy.transpose(0, 2, 3, 1), x, **how)
    close(dx.transpose(0, 3, 1, 2), given.grad.numpy())


@pytest.mark.parametrize(
    ("ours", "theirs"), [("max_pool2d", "MaxPooling2D"), ("avg_pool2d", "AveragePooling2D")]
)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_like_keras(keras, ours, theirs, padding):
    x = normal(np.random.default_rng(6), (2, 9, 8, 3), np.float32)
    for size, strides in (((2, 2), None), ((3, 2), (2, 3))):
        layer = getattr(keras.layers, theirs)(size, strides, padding, data_format="channels_last")
        expected = keras.ops.convert_to_numpy(layer(x))
        close(getattr(ref, ours)(x, size, strides, padding), expected, rtol=1e-6)
