"""The compiled step of image networks: convolutions, pooling, normalisation, and branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.programs import (
    SGD,
    Layers,
    activation,
    add,
    batch,
    check_gradients,
    conv,
    dense,
    dropout,
    make_program,
    norm,
    pool,
    reshape,
)
from tilefuse import layers

# Each begins with samples of 6 numbers and ends with 3.
NETWORKS: dict[str, Callable[[], Layers]] = {
    "convolution": lambda: [images(4, 5, 2), conv((4, 5), (3, 3, 2, 4), "tanh"), *head(2, 3, 4)],
    "with pooling": lambda: [
        images(7, 6, 2),
        conv((7, 6), (3, 3, 2, 3), "relu"),
        pool("max_pool2d", (5, 4), (2, 2)),
        conv((2, 2), (2, 2, 3, 5), "tanh"),
        *head(1, 1, 5),
    ],
    "strides, padding, dilation, groups": lambda: [
        images(6, 5, 2),
        conv((6, 5), (3, 2, 2, 4), "sigmoid", strides=2, padding="same"),
        conv((3, 3), (2, 2, 2, 6), "gelu", groups=2, dilation=2, padding=1),
        conv((3, 3), (2, 2, 1, 6), groups=6),
        *head(2, 2, 6),
    ],
    "small groups, with pooling": lambda: [
        images(7, 6, 2),
        conv((7, 6), (2, 2, 2, 18), "tanh"),
        conv((6, 5), (3, 2, 9, 2), groups=2),
        conv((4, 4), (2, 2, 1, 6), "relu", groups=2),
        pool("max_pool2d", (3, 3), (2, 2)),
        *head(1, 1, 6),
    ],
    "few filters": lambda: [
        images(4, 4, 2),
        conv((4, 4), (1, 1, 2, 20), "tanh"),
        conv((4, 4), (3, 3, 20, 2)),
        *head(2, 2, 2),
    ],
    "pooling by itself": lambda: [
        images(5, 5, 3),
        pool("max_pool2d", (5, 5), (3, 2), 2, "same"),
        activation("tanh"),
        pool("avg_pool2d", (3, 3), (2, 2), 1, "same"),
        *head(3, 3, 3),
    ],
    "pooling that overlaps": lambda: [
        images(6, 6, 2),
        conv((6, 6), (3, 3, 2, 3), "relu", padding="same"),
        pool("max_pool2d", (6, 6), (3, 3), 2, "same"),
        *head(3, 3, 3),
    ],
    "global pooling": lambda: [
        images(4, 4, 2),
        conv((4, 4), (3, 3, 2, 5), "elu"),
        pool("avg_pool2d", (2, 2), (2, 2), shape=(5,)),
        dense(5, 3),
    ],
    "batch normalisation": lambda: [
        images(4, 4, 2),
        conv((4, 4), (3, 3, 2, 3), bias=None),
        norm("batch_norm", 3),
        activation("relu"),
        *head(2, 2, 3),
    ],
    "batch normalisation with gelu, then pooling": lambda: [
        images(4, 4, 2),
        conv((4, 4), (1, 1, 2, 3)),
        norm("batch_norm", 3),
        activation("gelu"),
        pool("max_pool2d", (4, 4), (2, 2)),
        norm("batch_norm", 3, gamma=None, beta=None),
        *head(2, 2, 3),
    ],
    "frozen batch normalisation": lambda: [
        images(4, 4, 2),
        conv((4, 4), (3, 3, 2, 3), "tanh"),
        norm("batch_norm", 3, trainable=False),
        *head(2, 2, 3),
    ],
    "layer normalisation": lambda: [dense(6, 9, "tanh"), norm("layer_norm", 9), dense(9, 3)],
    "RMS normalisation": lambda: [dense(6, 9), norm("rms_norm", 9), activation("silu"), dense(9, 3)],
    "normalisation first": lambda: [norm("batch_norm", 6), norm("layer_norm", 6), dense(6, 3)],
    "a residual block": lambda: [
        images(3, 3, 4),  # layers 0 and 1
        conv((3, 3), (3, 3, 4, 4), padding="same", bias=None),
        norm("batch_norm", 4),
        activation("relu"),
        conv((3, 3), (3, 3, 4, 4), padding="same", bias=None),
        norm("batch_norm", 4),
        add(6, 1),
        activation("relu"),
        *head(3, 3, 4),
    ],
    "a residual block with a projection": lambda: [
        images(4, 4, 2),
        conv((4, 4), (3, 3, 2, 4), "tanh", strides=2, padding="same"),
        conv((2, 2), (3, 3, 4, 4), padding="same"),
        conv((4, 4), (1, 1, 2, 4), strides=2) | {"sources": [1]},
        add(3, 4),
        activation("relu"),
        *head(2, 2, 4),
    ],
    "branches of dense layers": lambda: [
        dense(6, 5, "tanh"),
        dense(5, 5, "gelu"),
        dense(5, 5, "relu") | {"sources": [0]},
        add(1, 2, 0),
        activation("softplus"),
        dropout(),
        dense(5, 3),
    ],
    "a sum with itself and with the input": lambda: [
        dense(6, 6, "tanh"),
        add(0, 0),
        add(-1, 1),
        activation("silu"),
        dense(6, 6) | {"sources": [3]},
        add(4, 3),
        dropout(),
        dense(6, 3),
    ],
    "three readers of one activation": lambda: [
        dense(6, 4),
        activation("silu"),
        dense(4, 4, "tanh"),
        norm("layer_norm", 4) | {"sources": [1]},
        add(2, 3, 1),
        dense(4, 3),
    ],
    "a frozen branch": lambda: [
        dense(6, 4, "tanh", trainable=False),
        dense(4, 4, "tanh", trainable=False),
        dense(6, 4, "relu") | {"sources": [-1]},
        add(1, 2),
        dense(4, 3),
    ],
}


def images(h: int, w: int, c: int) -> dict[str, Any]:
    """Two layers' worth in one entry; see `expand`."""
    return {"images": (h, w, c)}


def head(h: int, w: int, c: int) -> Layers:
    return [reshape(h * w * c), dense(h * w * c, 3)]


def expand(layers: Layers) -> Layers:
    """Make images of samples of 6 numbers: a dense layer and a reshaping."""
    whole: Layers = []
    for layer in layers:
        if "images" in layer:
            whole += [dense(6, int(np.prod(layer["images"]))), reshape(*layer["images"])]
        else:
            whole.append(layer)
    return whole


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_central_differences(network: str, weighted: bool, device: str) -> None:
    x, y = batch("mean_squared_error")
    weight = np.random.default_rng(2).random(len(x)) if weighted else None
    layers, trained = expand(NETWORKS[network]()), expand(NETWORKS[network]())
    check_gradients(layers, trained, "mean_squared_error", x, y, weight)


@pytest.mark.parametrize("network", NETWORKS)
def test_clipped_updates_are_those_of_whole_gradients(network: str, device: str) -> None:
    """A limit that nothing reaches changes nothing, though the gradients are written then."""
    x, y = batch("mean_squared_error")
    results = []
    for limit in ({}, {"global_clipnorm": 1e9}):
        layers = expand(NETWORKS[network]())
        program = make_program(layers, (6,), len(x), {"kind": "mean_squared_error"}, SGD | limit, "float64")
        for _ in range(3):
            program.train_step(x, y, None, 0.1)
        out = np.empty((len(x), 3))
        program.predict(x, out)
        results.append(out)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("image", [(4, 3, 64), (21, 20, 24)], ids=["few pixels", "many pixels"])
def test_a_convolution_of_one_tap_learns_by_its_gradient(
    image: tuple[int, ...], bias: bool, device: str
) -> None:
    rng = np.random.default_rng(3)
    x, labels = rng.integers(-2, 3, (5, *image)).astype(np.float32), np.zeros((5, 2), np.float32)
    model = tilefuse.Sequential(
        [
            layers.Input(image),
            layers.Conv2D(64, 1, use_bias=bias),
            layers.Flatten(),
            layers.Dense(2, use_bias=False),
        ]
    )
    model.compile(tilefuse.optimizers.SGD(0.25), "mean_squared_error")
    weights = [rng.integers(-1, 2, w.shape).astype(np.float32) for w in model.get_weights()]
    model.set_weights(weights)
    model.fit(x, labels, batch_size=5, epochs=1, verbose=0)
    kernel, head = weights[0][0, 0].astype(np.float64), weights[-1].astype(np.float64)
    hidden = x @ kernel + (weights[1] if bias else 0)
    error = 2 * hidden.reshape(5, -1) @ head / labels.size
    dy = (error @ head.T).reshape(hidden.shape)
    new = model.get_weights()
    np.testing.assert_allclose(
        new[0][0, 0], kernel - 0.25 * np.tensordot(x, dy, ((0, 1, 2),) * 2), rtol=1e-5, atol=1e-2
    )
    if bias:
        np.testing.assert_allclose(new[1], weights[1] - 0.25 * dy.sum((0, 1, 2)), rtol=1e-5, atol=1e-2)
