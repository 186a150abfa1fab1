"""Weights from and to PyTorch: the same architecture gives the same predictions. Needs PyTorch."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.networks import randomized
from helpers.training import same_weights
from tilefuse import Input, Model, Sequential
from tilefuse.interop.weights import load_torch, to_torch
from tilefuse.layers import (
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    Layer,
    LayerNormalization,
    MaxPooling2D,
    Reshape,
    RMSNormalization,
)

torch = pytest.importorskip("torch")
nn = torch.nn


def disturbed(module: Any) -> Any:
    """The module with parameters and moving averages that hide nothing, for inference."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.copy_(noise.abs() + 0.5 if "var" in name else 0.3 * noise)
    return module.eval()


def predictions(module: Any, x: np.ndarray) -> np.ndarray:
    """What the module gives for samples as tilefuse takes them."""
    batch = torch.from_numpy(x)
    with torch.no_grad():
        y = module(batch.movedim(3, 1) if x.ndim == 4 else batch)
    return (y.movedim(1, 3) if y.ndim == 4 else y).numpy()


def agree(model: Model, module: Any, **arguments: Any) -> None:
    """Weights moved over from PyTorch give its predictions; moved back, they are those that were there."""
    disturbed(module)
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    load_torch(model, module, **arguments)
    np.testing.assert_allclose(model.predict(x), predictions(module, x), rtol=1e-4, atol=1e-5)
    before = copy.deepcopy(module.state_dict())
    disturbed_again = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    module.load_state_dict(disturbed_again)
    to_torch(model, module, **arguments)
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, before[name]), name


def stack(shape: Sequence[int], *layers: Layer) -> Sequential:
    return Sequential([Input(shape), *layers])


def test_digits_networks() -> None:
    agree(
        stack((784,), Dense(64, "relu"), Dense(64, "relu"), Dense(10)),
        nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    convolutions = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2)]
    convolutions += [nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)]
    agree(
        stack(
            (28, 28, 1),
            Conv2D(8, 3, activation="relu"),
            MaxPooling2D(),
            Conv2D(16, 3, activation="relu"),
            MaxPooling2D(),
            Flatten(),
            Dropout(0.5),
            Dense(32, "relu"),
            Dense(10),
        ),
        nn.Sequential(
            *convolutions, nn.Flatten(), nn.Dropout(), nn.Linear(400, 32), nn.ReLU(), nn.Linear(32, 10)
        ),
    )


@pytest.mark.parametrize("strides", [1, 2, (1, 3)])
@pytest.mark.parametrize("padding", [0, 1, (2, 1)])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
def test_convolutions(strides: Any, padding: Any, dilation: Any) -> None:
    pads = tuple((p, p) for p in padding) if isinstance(padding, tuple) else padding
    ours: dict[str, Any] = {"strides": strides, "padding": pads, "dilation_rate": dilation}
    theirs: dict[str, Any] = {"stride": strides, "padding": padding, "dilation": dilation}
    agree(stack((9, 10, 4), Conv2D(6, (3, 2), groups=2, **ours)), nn.Conv2d(4, 6, (3, 2), groups=2, **theirs))
    agree(
        stack((9, 10, 3), DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, **ours)),
        nn.Conv2d(3, 6, 3, groups=3, bias=False, **theirs),
    )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_same_padding() -> None:
    agree(stack((7, 8, 2), Conv2D(3, (3, 4), padding="same")), nn.Conv2d(2, 3, (3, 4), padding="same"))
    agree(stack((7, 8, 2), Conv2D(3, 3, padding="same")), nn.Conv2d(2, 3, 3, padding=1))
    agree(stack((7, 7, 2), Conv2D(3, 3, padding="same", strides=2)), nn.Conv2d(2, 3, 3, padding=1, stride=2))


def test_normalisation() -> None:
    agree(
        stack(
            (6, 6, 3), Conv2D(4, 3, use_bias=False), BatchNormalization(momentum=0.9, epsilon=1e-5), Flatten()
        ),
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), Channels(nn.Flatten())),
    )
    agree(stack((5,), BatchNormalization(momentum=0.7, epsilon=1e-4)), nn.BatchNorm1d(5, 1e-4, momentum=0.3))
    agree(
        stack((5,), BatchNormalization(momentum=0.9, epsilon=1e-5, scale=False, center=False)),
        nn.BatchNorm1d(5, affine=False),
    )
    agree(
        stack((4, 5), LayerNormalization(epsilon=1e-5), Dense(3)),
        nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3)),
    )
    agree(stack((5,), RMSNormalization(epsilon=1e-6)), nn.RMSNorm(5, eps=1e-6))


class Channels(nn.Module):
    """What a module makes of images in tilefuse's order."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any) -> Any:
        return self.module(x.movedim(1, 3))


def test_order_of_flattened_images() -> None:
    """What is learned for each element is permuted until a dense layer has mixed them."""
    agree(
        stack(
            (5, 6, 3),
            Conv2D(4, 3),
            Flatten(),
            Activation("relu"),
            BatchNormalization(momentum=0.9, epsilon=1e-5),
            LayerNormalization(epsilon=1e-5),
            Dense(7),
            Dense(7),
        ),
        nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.Flatten(),
            nn.ReLU(),
            nn.BatchNorm1d(48),
            nn.LayerNorm(48),
            nn.Linear(48, 7),
            nn.Linear(7, 7),
        ),
    )
    agree(stack((5, 6, 3), Flatten(), Dense(2)), nn.Sequential(nn.Flatten(), nn.Linear(90, 2)))
    agree(stack((5, 6, 3), Reshape((-1,)), Dense(2)), nn.Sequential(nn.Flatten(), nn.Linear(90, 2)))
    agree(
        stack((5, 6, 3), Conv2D(4, 3), Reshape((12, 4)), Flatten(), Dense(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3), Channels(nn.Flatten()), nn.Linear(48, 2)),
    )
    x = Input((4, 4, 3))
    a, b = Flatten()(Conv2D(2, 1)(x)), Flatten()(Conv2D(2, 1)(x))
    module = nn.ModuleDict({"a": nn.Conv2d(3, 2, 1), "b": nn.Conv2d(3, 2, 1), "head": nn.Linear(32, 5)})
    module.forward = lambda x: module["head"](module["a"](x).flatten(1) + module["b"](x).flatten(1))
    agree(Model(x, Dense(5)(Add()([a, b]))), module)
    with pytest.raises(ValueError, match=r"'add_1' takes a flattened image and something else"):
        load_torch(Model(x, Dense(5)(Add(name="add_1")([a, Dense(32)(Flatten()(x))]))), module)


class Block(nn.Module):
    """A residual block; the way around it is made first."""

    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Conv2d(3, 8, 1, stride=2)
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.norm(self.conv(x)) + self.around(x))
        return self.head(y.mean(dim=(2, 3)))


def residual() -> Model:
    x = Input((8, 8, 3))
    y = Conv2D(8, 3, strides=2, padding=1, use_bias=False, name="conv")(x)
    y = BatchNormalization(momentum=0.9, epsilon=1e-5, name="norm")(y)
    y = Activation("relu")(Add()([y, Conv2D(8, 1, strides=2, name="around")(x)]))
    return Model(x, Dense(4, name="head")(GlobalAveragePooling2D()(y)))


def test_names_where_the_order_differs() -> None:
    with pytest.raises(ValueError, match=r"'conv' \(Conv2D\) needs weight, but module 'around' \(Conv2d\)"):
        load_torch(residual(), Block())
    agree(residual(), Block(), names={"around": "around"})
    agree(residual(), Block(), names={name: name for name in ("conv", "norm", "around", "head")})
    for names, message in (
        ({"round": "around"}, "names has 'round', but there is no such layer with weights: conv, norm"),
        ({"around": "a"}, "names has 'a', but there is no such module with tensors: around, conv"),
        ({"around": "conv", "conv": "conv"}, "a module to more than one layer"),
    ):
        with pytest.raises(ValueError, match=message):
            load_torch(residual(), Block(), names)


def test_state_dicts() -> None:
    module, model = disturbed(Block()), residual()
    names = {"around": "around"}
    load_torch(model, module, names)
    for state in (
        module.state_dict(),
        OrderedDict((name, tensor.numpy()) for name, tensor in module.state_dict().items()),
        {name: tensor.double() for name, tensor in module.state_dict().items()},
        {f"model.{name}": tensor for name, tensor in module.state_dict().items()},
    ):
        other = residual()
        prefix = "model." if "model.conv.weight" in state else ""
        load_torch(other, state, {"around": f"{prefix}around"})
        assert same_weights(model, other)
    halves = {name: tensor.bfloat16() for name, tensor in module.state_dict().items()}
    load_torch(other, halves, names)
    np.testing.assert_allclose(other.get_weights()[0], model.get_weights()[0], rtol=2**-8)
    to_torch(model, halves, names)
    assert halves["conv.weight"].dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"torch\.nn\.Module or its state dict, got a list"):
        load_torch(model, [])


def test_float64() -> None:
    tilefuse.set_precision("float64")
    try:
        model = stack((3,), Dense(2))
    finally:
        tilefuse.set_precision("float32")
    module = nn.Linear(3, 2, dtype=torch.float64)
    load_torch(model, module)
    np.testing.assert_array_equal(model.get_weights()[0], module.weight.detach().numpy().T)


def test_training_goes_on_as_in_torch() -> None:
    """20 steps of SGD in both, batch normalisation included; moving averages by n and n - 1 apart."""
    torch.manual_seed(0)
    module, model = Block(), residual()
    names = {"around": "around"}
    load_torch(model, module, names)
    model.compile(
        tilefuse.optimizers.SGD(0.05), tilefuse.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    rng = np.random.default_rng(0)
    x, y = rng.random((64, 8, 8, 3), np.float32), rng.integers(0, 4, 64)
    ours, theirs = [], []
    for step in range(20):
        part = slice(step % 4 * 16, step % 4 * 16 + 16)
        ours.append(model.train_on_batch(x[part], y[part]))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(
            module(torch.from_numpy(x[part]).movedim(3, 1)), torch.from_numpy(y[part])
        )
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    assert sum(theirs[-4:]) < sum(theirs[:4])  # of the same batches
    factor = 16 * 4 * 4 / (16 * 4 * 4 - 1)  # running_var is that of n - 1
    variance = model.get_layer("norm").weights[3].numpy()
    kept = 0.9**20
    np.testing.assert_allclose(module.norm.running_var.numpy() - kept, (variance - kept) * factor, rtol=1e-3)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (
            lambda: Dense(3, name="d"),
            lambda: nn.Linear(4, 5),
            r"'d': its kernel of shape \(4, 3\) needs a weight of shape \(3, 4\), but .* has \(5, 4\)",
        ),
        (
            lambda: Dense(3, use_bias=False),
            lambda: nn.Linear(4, 3),
            "needs weight, but module '1' .* has bias, weight",
        ),
        (lambda: Dense(3), lambda: nn.LayerNorm(4), r"needs a weight of shape \(3, 4\)"),
        (
            lambda: BatchNormalization(name="b"),
            lambda: nn.BatchNorm1d(4),
            r"'b' has epsilon=0.001, but module '1' \(BatchNorm1d\) has eps=1e-05. Make .*epsilon=1e-05",
        ),
        (lambda: RMSNormalization(), lambda: nn.RMSNorm(4), "has eps=1.19"),
        (
            lambda: Dropout(0.1),
            lambda: nn.Linear(4, 3),
            r"has 1 layers with weights \(dense\), but .* 2 modules",
        ),
    ],
)
def test_mismatches_change_nothing(
    ours: Callable[[], Layer], theirs: Callable[[], Any], message: str
) -> None:
    module = nn.Sequential(nn.Linear(6, 4), theirs())
    model = randomized(stack((6,), Dense(4), ours()))
    before, state = model.get_weights(), copy.deepcopy(module.state_dict())
    for move in (load_torch, to_torch):
        with pytest.raises(ValueError, match=message):
            move(model, module)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"strides": 2, "padding": "same"}, {"stride": 2, "padding": 1}),  # images of an even size
        ({"strides": 2}, {}),
        ({"padding": "same"}, {}),
        ({"dilation_rate": 2, "padding": 2}, {"padding": 1}),
        ({"padding": 1}, {"padding": 1, "padding_mode": "reflect"}),
    ],
)
def test_windows_that_lie_elsewhere(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"'c' has strides=.*on images of 8 x 8 their windows lie elsewhere"):
        load_torch(stack((8, 8, 3), Conv2D(4, 3, name="c", **ours)), nn.Conv2d(3, 4, 3, **theirs))


def test_another_momentum_is_told() -> None:
    model = stack((4,), BatchNormalization(epsilon=1e-5, name="b"))
    with pytest.warns(
        UserWarning, match=r"'b' has momentum=0.99, but module '' \(BatchNorm1d\) has 0.1, which is 0.9"
    ):
        load_torch(model, disturbed(nn.BatchNorm1d(4)))
    assert not (model.get_weights()[2] == 0).any()


def test_not_built() -> None:
    with pytest.raises(ValueError, match="no weights yet"):
        load_torch(Sequential([Dense(3)]), nn.Linear(2, 3))


def test_pooling_is_not_compared_but_agrees() -> None:
    agree(
        stack((8, 8, 3), Conv2D(4, 3, padding=1), AveragePooling2D(2), Flatten(), Dense(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 2)),
    )
