"""Models on each device: where their weights are, and that they learn the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.training import blobs, classifier, same_weights
from tilefuse import _device
from tilefuse._mnist_programs import PROGRAMS, MnistProgram
from tilefuse.datasets import load_digits_sample
from tilefuse.layers import Dense


@pytest.fixture
def other(device: str) -> str:
    """A device that is not the CPU, in use."""
    if device == "cpu":
        pytest.skip("compares another device with the CPU")
    return device


def trained(program: MnistProgram, steps: int) -> tilefuse.Sequential:
    """The program's network after so many steps, and an evaluation, from the same seed and data."""
    tilefuse.seed(0)
    images, labels = load_digits_sample()[0]
    epoch = min(steps, 8)
    samples = epoch * program.batch_size
    x, y = program.prepare(images[:samples], labels[:samples])
    model = program.model()
    model.fit(x, y, program.batch_size, -(-steps // epoch), verbose=0, validation_data=(x[:50], y[:50]))
    return model


# Rounding decides between near maxima, and the signs of small gradients, by which Adam steps by 1e-3.
TOLERANCES = {"mnist_cnn": 1e-3}


@pytest.mark.slow
@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "mnist_cnn"])  # an hour there
def test_hundreds_of_steps_end_with_the_cpu_weights(program: str, other: str) -> None:
    compare_with_cpu(program, other, 300)


@pytest.mark.parametrize("program", PROGRAMS)
def test_steps_end_with_the_cpu_weights(program: str, other: str) -> None:
    checked = getattr(_device.native(), "checked", False)  # then a step takes up to 3 s
    compare_with_cpu(program, other, 3 if checked else 16)


def compare_with_cpu(program: str, device: str, steps: int) -> None:
    model = trained(PROGRAMS[program], steps)
    with _device.using("cpu"):
        expected = trained(PROGRAMS[program], steps)
    assert (model.device, expected.device) == (device, "cpu")
    assert model.optimizer.iterations == expected.optimizer.iterations >= steps
    tolerance = TOLERANCES.get(program, 1e-4)
    for ours, theirs in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=tolerance, err_msg=ours.path)
    assert model.history is not None
    assert expected.history is not None
    for name, values in expected.history.history.items():
        ours = model.history.history[name]
        np.testing.assert_allclose(ours, values, rtol=tolerance, atol=1e-5, err_msg=name)


def test_weights_and_slots_lie_on_the_device(other: str) -> None:
    model = classifier()
    x, y = blobs(40)
    model.fit(x, y, verbose=0)
    arrays = [w.value for w in model.weights] + list(model.optimizer.state().values())
    assert all(_device.native().owns(array) for array in arrays)
    assert {w.device for w in model.weights} == {other}


def test_a_model_works_while_another_device_is_in_use(other: str) -> None:
    x, y = blobs(70)
    straight, elsewhere = classifier(dropout=0.25), classifier(dropout=0.25)
    straight.fit(x, y, epochs=3, verbose=0)
    elsewhere.fit(x, y, epochs=1, verbose=0)
    with _device.using("cpu"):
        elsewhere.fit(x, y, epochs=2, verbose=0)
        assert elsewhere.device == other
        assert tilefuse.get_device() == "cpu"
        predictions = elsewhere.predict(x)
        np.testing.assert_allclose(elsewhere(x), predictions, rtol=1e-5, atol=1e-6)
    assert same_weights(straight, elsewhere)
    np.testing.assert_array_equal(straight.predict(x), predictions)


def test_layers_of_two_devices_are_refused(other: str) -> None:
    here = Dense(4, "relu", name="here")
    here.build((None, 8))
    with _device.using("cpu"):
        there = Dense(3, "softmax", name="there")
        there.build((None, 4))
    model = tilefuse.Sequential([here, there])
    with pytest.raises(ValueError, match=rf"'here' on '{other}', 'there' on 'cpu'.*set_weights"):
        model.predict(np.zeros((2, 8), np.float32))


def test_a_file_moves_a_model_to_the_device_in_use(other: str, tmp_path: Path) -> None:
    x, y = blobs(70)
    with _device.using("cpu"):
        model = classifier(dropout=0.25)
        model.fit(x, y, verbose=0)
        model.save(tmp_path / "model.safetensors")
    moved = tilefuse.load_model(tmp_path / "model.safetensors")
    assert (model.device, moved.device) == ("cpu", other)
    assert same_weights(model, moved)
    for one in (model, moved):
        one.fit(x, y, epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), moved.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_tape_and_apply_gradients_make_the_step_of_fit(device: str, optimizer: str) -> None:
    x, y = blobs(32)
    fitted, by_hand = classifier(optimizer), classifier(optimizer)
    fitted.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    with tilefuse.GradientTape() as tape:
        loss = by_hand.loss(y, by_hand(x, training=True))
    gradients: list[Any] = tape.gradient(loss, by_hand.trainable_variables)
    by_hand.optimizer.apply_gradients(zip(gradients, by_hand.trainable_variables, strict=True))
    for a, b in zip(fitted.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


PREDICTS_AT_EXIT = """
import numpy as np, tilefuse
tilefuse.set_device({device!r})
model = tilefuse.Sequential([tilefuse.Input((4,)), tilefuse.layers.Dense(2)])
print(model.predict(np.ones((3, 4))).shape)
"""


def test_a_process_ends_in_order_with_models_alive(other: str) -> None:
    script = PREDICTS_AT_EXIT.format(device=other)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(3, 2)\n", "")
