"""Files: what goes in comes out, training goes on bit for bit, and a failed save loses nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.training import OPTIMIZERS, blobs, classifier, same_weights
from tilefuse import callbacks, layers

pytestmark = pytest.mark.usefixtures("device")

X, Y = blobs()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_goes_on_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    straight, stopped = (classifier(OPTIMIZERS[optimizer], dropout=0.3) for _ in range(2))
    straight.fit(X, Y, epochs=4, verbose=0)
    stopped.fit(X, Y, epochs=2, verbose=0)
    stopped.save(path)
    loaded = tilefuse.load_model(path)
    a = straight.fit(X, Y, epochs=6, initial_epoch=4, verbose=0)
    loaded.fit(X, Y, epochs=4, initial_epoch=2, verbose=0)
    b = loaded.fit(X, Y, epochs=6, initial_epoch=4, verbose=0)
    assert same_weights(straight, loaded)
    assert a.history == b.history
    assert loaded.optimizer.iterations == straight.optimizer.iterations == 42


def test_a_checkpoint_is_as_good_as_the_model(tmp_path: Path) -> None:
    straight, watched = classifier(dropout=0.2), classifier(dropout=0.2)
    straight.fit(X, Y, epochs=4, verbose=0)
    save = callbacks.ModelCheckpoint(tmp_path / "{epoch}.safetensors")
    watched.fit(X, Y, epochs=2, callbacks=[save], verbose=0)
    loaded = tilefuse.load_model(tmp_path / "2.safetensors")
    loaded.fit(X, Y, epochs=4, initial_epoch=2, verbose=0)
    assert same_weights(straight, loaded)


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"  # any name will do
    tilefuse.set_precision("float64")
    try:
        model = tilefuse.Sequential(
            [
                layers.Flatten(input_shape=(2, 4)),
                layers.Dense(
                    5,
                    "gelu",
                    kernel_initializer="he_normal",
                    kernel_regularizer=tilefuse.regularizers.L2(0.1),
                ),
                layers.Dense(6, "tanh", use_bias=False, trainable=False, name="inner"),
                layers.Dropout(0.25, seed=3),
                layers.Reshape((3, 2)),
                layers.Activation("leaky_relu"),
                layers.Flatten(),
                layers.Dense(3, "softmax"),
            ],
            name="everything",
        )
    finally:
        tilefuse.set_precision("float32")
    schedule = tilefuse.schedules.CosineDecay(0.01, 100, warmup_target=0.1, warmup_steps=5)
    model.compile(
        tilefuse.optimizers.AdamW(schedule, clipnorm=1.0),
        tilefuse.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy", tilefuse.metrics.F1Score("macro")],
    )
    x, y = X.reshape(-1, 2, 4), np.eye(3)[Y]
    model.fit(x, y, verbose=0)
    model.save(path)
    loaded = tilefuse.load_model(path)
    assert loaded.get_config() == model.get_config()
    assert loaded.get_compile_config() == model.get_compile_config()
    assert loaded.training_state() == model.training_state()
    assert loaded.dtype == np.float64
    assert same_weights(loaded, model)
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_networks_with_branches(tmp_path: Path) -> None:
    inputs = tilefuse.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(inputs))
    x = layers.RMSNormalization()(layers.MaxPooling2D()(layers.Activation("relu")(x + inputs)))
    x = layers.AveragePooling2D()(layers.LayerNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
    model = tilefuse.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    model.save(tmp_path / "model.safetensors")
    loaded = tilefuse.load_model(tmp_path / "model.safetensors")
    assert loaded.get_config() == model.get_config()
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(loaded.predict(images), model.predict(images))


def test_sequential_load_and_without_compile(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = classifier()
    model.save(path)
    np.testing.assert_array_equal(tilefuse.Sequential.load(path).predict(X), model.predict(X))
    plain = tilefuse.load_model(path, compile=False)
    assert not plain.compiled
    np.testing.assert_array_equal(plain.predict(X), model.predict(X))


def hardest(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    return y_pred.min(axis=-1)


def test_own_metrics_need_their_function(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    classifier(metrics=[hardest]).save(path)
    with pytest.raises(ValueError, match="Unknown metric 'hardest'"):
        tilefuse.load_model(path)
    loaded = tilefuse.load_model(path, custom_objects={"hardest": hardest})
    assert "hardest" in loaded.evaluate(X, Y, verbose=0, return_dict=True)


def test_weights_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    model, other = classifier(), classifier(seed=2)
    model.save_weights(path)
    other.load_weights(path)
    assert same_weights(model, other)
    model.save(tmp_path / "m.safetensors")
    third = classifier(seed=3)
    third.load_weights(tmp_path / "m.safetensors")
    assert same_weights(model, third)
    with pytest.raises(ValueError, match="weights without an architecture"):
        tilefuse.load_model(path)


def test_weights_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    classifier(features=5).save_weights(path)
    with pytest.raises(
        ValueError, match=r"'dense/kernel' has shape \(8, 16\) here and \(5, 16\) in the file"
    ):
        classifier().load_weights(path)
    tilefuse.Sequential([tilefuse.Input((8,)), layers.Dense(3, name="head")]).save_weights(path)
    with pytest.raises(ValueError, match=r"Not in the file: dense/bias.*not in the model: head/bias"):
        classifier().load_weights(path)
    with pytest.raises(ValueError, match="has no weights yet"):
        tilefuse.Sequential([layers.Dense(2)]).save(path)


def test_file_is_plain_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    model = classifier()
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.safetensors")
    arrays = load_file(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(arrays["weights/dense/kernel"], model.get_weights()[0])
    assert "optimizer/dense/kernel/1" in arrays


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, -1])
def test_truncated_file(kept: float, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    classifier().save(path)
    data = path.read_bytes()
    end = int(kept * len(data)) if isinstance(kept, float) else kept
    path.write_bytes(data[:end])
    with pytest.raises(ValueError, match=r"m\.safetensors is no model file, or a truncated or damaged one"):
        tilefuse.load_model(path)


def test_other_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(FileNotFoundError, match="There is no model file"):
        tilefuse.load_model(tmp_path / "none.safetensors")
    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no model that tilefuse saved"):
        tilefuse.load_model(tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, this is a text")
    with pytest.raises(ValueError, match="is no model file"):
        tilefuse.load_model(tmp_path / "text.safetensors")


def test_unwritable_path(tmp_path: Path) -> None:
    model = classifier()
    before = model.get_weights()
    with pytest.raises(OSError, match=r"could not be saved to .*Choose a file in an existing folder"):
        model.save(tmp_path / "missing" / "m.safetensors")
    with pytest.raises(OSError, match="could not be saved"):
        model.save(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not be saved"):
        model.save(tmp_path / "file" / "m.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
    for u, v in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(u, v)
    model.fit(X, Y, verbose=0)


def test_a_failed_save_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    model = classifier()
    model.save(path)
    old = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model.fit(X, Y, verbose=0)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_no_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = classifier()
    model.save(path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(path, overwrite=False)


def test_precision_is_kept(tmp_path: Path) -> None:
    tilefuse.set_precision("bfloat16")
    try:
        model = classifier()
    finally:
        tilefuse.set_precision("float32")
    x = np.random.default_rng(0).random((8, *model.input_shape[1:]), np.float32)
    model.save(tmp_path / "m.safetensors")
    again = tilefuse.load_model(tmp_path / "m.safetensors")
    assert again.precision == "bfloat16"
    expected = model.predict(x)
    np.testing.assert_array_equal(again.predict(x), expected)
    again.precision = "ieee"
    assert (again.predict(x) != expected).any()
    old = {name: value for name, value in model.get_config().items() if name != "precision"}
    assert tilefuse.Sequential.from_config(old).precision == "float32"


def test_from_config_makes_an_equal_model_with_new_weights() -> None:
    model = classifier(dropout=0.1)
    again = tilefuse.Sequential.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert not same_weights(model, again)


def test_layer_configs() -> None:
    for layer in (layers.Dense(3, "relu", name="a"), layers.Dropout(0.3, seed=1), layers.Reshape((2, -1))):
        config: dict[str, Any] = {"class_name": type(layer).__name__, "config": layer.get_config()}
        assert layers.from_config(config).get_config() == layer.get_config()
