"""Exported models are valid, and another runtime predicts the same. Needs onnx and onnxruntime."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.networks import folder_network, randomized, residual_network
from tilefuse import Input, Model, Sequential
from tilefuse._mnist_programs import PROGRAMS
from tilefuse.datasets import load_digits_sample
from tilefuse.interop import onnx as interop
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
    GlobalMaxPooling2D,
    Layer,
    LayerNormalization,
    MaxPooling2D,
    Reshape,
    RMSNormalization,
)
from tilefuse.layers.affine import _ACTIVATIONS

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
onnxruntime = pytest.importorskip("onnxruntime")


def operators(model: Model) -> list[str]:
    return [node.op_type for node in interop.to_onnx(model).graph.node]


def run(proto: bytes | str, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    (y,) = session.run(["output"], {"input": x})
    return y


def check(model: Model, x: np.ndarray | None = None, tolerance: float = 1e-5) -> None:
    """The exported model passes ONNX's own check, and predicts what the model does."""
    proto = interop.to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    if x is None:
        x = np.random.default_rng(1).normal(size=(5, *model.input_shape[1:])).astype(model.dtype)
    for batch in (x, x[:1]):
        y = run(proto.SerializeToString(), batch)
        assert y.dtype == model.dtype
        np.testing.assert_allclose(y, model.predict(batch), rtol=tolerance, atol=tolerance)


def stack(shape: Sequence[int], *layers: Layer) -> Sequential:
    return randomized(Sequential([Input(shape), *layers]))


@pytest.mark.parametrize("name", PROGRAMS)
def test_trained_programs(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]
    (x, y), (x_test, _) = (program.prepare(*split) for split in load_digits_sample())
    model = program.model()
    model.fit(x[:640], y[:640], batch_size=32, verbose=0)
    check(model, x_test[:50])
    model.export(tmp_path / "model.onnx", format="onnx")
    np.testing.assert_allclose(run(str(tmp_path / "model.onnx"), x_test), model.predict(x_test), atol=1e-5)


def test_program_of_folders() -> None:
    model = folder_network()
    rng = np.random.default_rng(0)
    x = rng.random((4, 150, 150, 3), np.float32)
    model.compile("adam", "binary_crossentropy")
    model.fit(x, [0, 1, 1, 0], verbose=0)
    check(model, x)


def test_residual_network() -> None:
    model = residual_network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    model.fit(rng.random((32, 16, 16, 3), np.float32), rng.integers(0, 4, 32), batch_size=8, verbose=0)
    check(model)


def test_images_are_transposed_once() -> None:
    assert operators(PROGRAMS["mnist_cnn"].model()) == [
        "Transpose", "Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", "Conv", "Relu", "Flatten",
        "Gemm", "Relu", "Gemm", "Softmax",
    ]  # fmt: skip
    x = Input((8, 8, 4))
    y = BatchNormalization()(Conv2D(4, 3, padding="same")(x))
    residual = Model(x, Dense(2)(GlobalAveragePooling2D()(Activation("gelu")(x + y))))
    assert operators(residual).count("Transpose") == 1
    assert operators(PROGRAMS["mnist_softmax_mlp"].model()).count("Transpose") == 0


@pytest.mark.parametrize("activation", sorted(_ACTIVATIONS))
def test_activations(activation: str) -> None:
    check(stack((6,), Dense(5, activation)))
    check(stack((6, 6, 2), Conv2D(4, 3, activation=activation), Flatten(), Activation(activation), Dense(3)))
    x = np.linspace(-30, 30, 101, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    check(stack((2,), Activation(activation)), x)


@pytest.mark.parametrize("size", [(9, 12), (8, 7)])
@pytest.mark.parametrize("padding", ["valid", "same", 1, ((2, 0), (1, 3))])
@pytest.mark.parametrize("strides", [1, 2, (3, 1)])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
def test_convolutions(size: tuple[int, int], padding: Any, strides: Any, dilation: Any) -> None:
    where: dict[str, Any] = {"strides": strides, "padding": padding, "dilation_rate": dilation}
    check(stack((*size, 4), Conv2D(6, (3, 2), groups=2, **where)))
    check(stack((*size, 4), Conv2D(6, (3, 2), use_bias=False, **where), Flatten(), Dense(3)))
    check(stack((*size, 3), DepthwiseConv2D((2, 3), depth_multiplier=2, activation="relu", **where)))


@pytest.mark.parametrize("padding", ["valid", "same", 1])
@pytest.mark.parametrize("strides", [None, 1, (2, 3)])
@pytest.mark.parametrize("pooling", [MaxPooling2D, AveragePooling2D])
def test_pooling(pooling: Any, strides: Any, padding: Any) -> None:
    check(stack((9, 8, 3), pooling((3, 2), strides=strides, padding=padding)))
    check(stack((9, 8, 3), pooling((9, 8), strides=strides, padding=padding)))  # of the whole image


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("pooling", [GlobalAveragePooling2D, GlobalMaxPooling2D])
def test_global_pooling(pooling: Any, keepdims: bool) -> None:
    check(stack((5, 7, 3), Conv2D(4, 3), pooling(keepdims=keepdims), Flatten(), Dense(2)))
    check(stack((5, 7, 3), pooling(keepdims=keepdims)))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("norm", [BatchNormalization, LayerNormalization, RMSNormalization])
def test_normalisation(norm: Any, scale: bool, center: bool) -> None:
    arguments = {} if norm is RMSNormalization else {"scale": scale, "center": center, "epsilon": 0.01}
    check(stack((6,), norm(**arguments)))
    check(stack((5, 6), norm(**arguments), Dense(3)))
    check(stack((5, 6, 4), Conv2D(3, 3), norm(**arguments), Conv2D(2, 1)))
    check(stack((5, 6, 4), Conv2D(3, 3), Flatten(), norm(**arguments), Dense(3)))


def test_order_of_flattened_images() -> None:
    """What follows a flattened image without a dense layer in between sees it in tilefuse's order."""
    check(stack((4, 5, 3), Conv2D(2, 3), Flatten()))
    check(stack((4, 5, 3), Conv2D(2, 3), Flatten(), Dropout(0.5), Activation("softmax")))
    check(stack((4, 5, 3), Conv2D(2, 3), Flatten(), Reshape((4, 3)), Dense(2)))
    check(stack((4, 5, 3), Conv2D(2, 3), Reshape((-1,)), Flatten(), Dense(2)))
    check(stack((4, 5, 3), Conv2D(2, 3), Reshape((3, 2, 2)), Conv2D(2, 2)))
    check(stack((24,), Reshape((4, 3, 2)), Conv2D(2, 2), Flatten(), Dense(2)))
    check(stack((4, 5, 3), Flatten(), Dense(2)))
    check(stack((4, 5, 3), Dense(2), Conv2D(2, 2), Dense(3, use_bias=False)))
    check(stack((4, 5, 1), MaxPooling2D(2), Flatten(), Dense(3, use_bias=False)))


def test_branches_of_flattened_images() -> None:
    x = Input((4, 6, 3))
    a, b = Flatten()(Conv2D(2, 1)(x)), Flatten()(Conv2D(4, (1, 4), strides=(2, 1))(x))
    c, d = Flatten()(Conv2D(2, 1)(x)), Dense(48)(a)
    check(randomized(Model(x, Dense(2)(Add()([a, c])))))
    e = Flatten()(Conv2D(8, (1, 1), strides=(2, 2))(x))
    check(randomized(Model(x, Dense(2)(Add()([a, c, d])))))
    check(randomized(Model(x, Dense(2)(Add()([Add()([a, d]), c])))))
    f = Flatten()(Conv2D(4, 1, strides=(2, 1))(x))
    check(randomized(Model(x, Dense(2)(Add()([a, f])))))
    assert b.shape == (None, 24)
    assert e.shape == (None, 48)
    check(randomized(Model(x, Add()([a, e, f]))))


def test_branches_of_images() -> None:
    x = Input((4, 6, 3))
    y = Conv2D(3, 1)(x)
    check(randomized(Model(x, Add()([x, LayerNormalization()(y)]))))
    check(randomized(Model(x, Add()([LayerNormalization()(y), Dense(3)(x), x]))))
    check(randomized(Model(x, Activation("softmax")(Add()([y])))))


def test_models_in_models() -> None:
    body = Sequential([Input((8, 8, 2)), Conv2D(4, 3, activation="relu"), MaxPooling2D()])
    check(randomized(Model(body.input, Dense(2, name="head")(Flatten()(body.layers[0].output)))))
    x = Input((8, 8, 2))
    check(randomized(Model(x, Dense(3, "softmax")(Flatten()(body(x))))))


def test_nothing_but_the_input() -> None:
    check(stack((3,), Dropout(0.5)))
    check(stack((3, 2, 2), Activation("linear")))


def test_float64() -> None:
    tilefuse.set_precision("float64")
    try:
        model = stack(
            (8, 8, 3),
            Conv2D(4, 3, padding="same", activation="relu"),
            BatchNormalization(),
            MaxPooling2D(),
            Flatten(),
            LayerNormalization(),
            Dense(6, "gelu"),
            Dense(3, "softmax"),
        )
    finally:
        tilefuse.set_precision("float32")
    x = np.random.default_rng(1).normal(size=(5, 8, 8, 3))
    proto = interop.to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    # ONNX's own evaluator, since onnxruntime's convolutions are of float32.
    (y,) = reference.ReferenceEvaluator(proto).run(None, {"input": x})
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, model.predict(x), rtol=1e-7, atol=1e-7)  # epsilon is of float32 in ONNX


def test_names_and_versions() -> None:
    model = Sequential([Input((4,)), Dense(2, "relu", name="head")], name="digits")
    proto = interop.to_onnx(model)
    assert (proto.producer_name, proto.producer_version) == ("tilefuse", tilefuse.__version__)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", interop.OPSET)]
    assert proto.graph.name == "digits"
    assert [array.name for array in proto.graph.initializer] == ["head/kernel", "head/bias"]
    assert [node.name for node in proto.graph.node] == ["head/Gemm", "head/Relu"]
    for value, length in ((proto.graph.input[0], 4), (proto.graph.output[0], 2)):
        batch, features = value.type.tensor_type.shape.dim
        assert (batch.dim_param, features.dim_value) == ("batch", length)


def test_files(tmp_path: Path) -> None:
    path, model = tmp_path / "model.onnx", stack((4,), Dense(2))
    path.write_text("older")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        interop.export(model, path, overwrite=False)
    with pytest.raises(OSError, match=r"could not be saved to .*Choose a file in an existing folder"):
        interop.export(model, tmp_path / "missing" / "model.onnx")
    assert path.read_text() == "older"
    interop.export(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    x = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(run(str(path), x), model.predict(x), rtol=1e-5)


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(Layer):
        def call(self, x: np.ndarray, training: bool) -> np.ndarray:
            return 2 * x

        def lower(self, slots: Any) -> dict[str, Any]:
            return {"kind": "doubled"}

    with pytest.raises(TypeError, match=r"Layer 'doubled' \(Doubled\) cannot be exported"):
        interop.to_onnx(Sequential([Input((3,)), Doubled()]))
    with pytest.raises(TypeError, match=r"takes a tilefuse\.Model, got 'model'"):
        interop.to_onnx("model")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no weights yet"):
        interop.to_onnx(Sequential([Dense(3)]))
    model = stack((4,), Dense(2))
    with pytest.raises(ValueError, match="format is 'openvino'; expected 'onnx'"):
        model.export(tmp_path / "model", format="openvino")
    monkeypatch.setattr(interop, "_LARGEST", 10)
    with pytest.raises(ValueError, match="an ONNX file holds less than 2"):
        model.export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "tilefuse\[onnx\]"'):
        interop.to_onnx(stack((4,), Dense(2)))
