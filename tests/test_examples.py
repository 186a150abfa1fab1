"""The examples run, learn, and are Keras programs but for their imports."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilefuse
from tilefuse._mnist_programs import PROGRAMS
from tilefuse.datasets import load_digits_sample, load_image, load_mnist, write_image_folder

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
OF_TILEFUSE_ONLY = {"export_onnx.py", "jax_mnist_mlp.py", "model_selection.py", "torch_mnist_cnn.py"}

KERAS_IMPORTS = {
    "from tilefuse import GradientTape, Sequential": (
        "from keras import Sequential\nfrom tensorflow import GradientTape"
    ),
    "from tilefuse import Sequential": "from keras import Sequential",
    "from tilefuse import Model": "from keras import Model",
    "from tilefuse.datasets import (\n    ImageDataGenerator,": (
        "from tensorflow.keras.preprocessing.image import ImageDataGenerator\nfrom tilefuse.datasets import ("
    ),
    "from tilefuse.layers": "from keras.layers",
    "from tilefuse.losses": "from keras.losses",
    "from tilefuse.optimizers": "from keras.optimizers",
    "from tilefuse.utils": "from keras.utils",
    ".safetensors": ".keras",
}  # the data sets, the plot of the curves and the report of precision and recall are not in Keras


def output_of(
    script: str,
    epochs: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *arguments: str | Path,
) -> str:
    monkeypatch.setattr(sys, "argv", [script, "--epochs", str(epochs), *map(str, arguments)])
    monkeypatch.delenv("TILEFUSE_DATA", raising=False)
    tilefuse.seed(0)
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return capsys.readouterr().out


def numbers(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, text)]


def test_all_programs_have_an_example() -> None:
    assert {script.removesuffix(".py") for script in SCRIPTS} >= set(PROGRAMS)


def test_binary(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = output_of("mnist_binary_mlp.py", 5, capsys, monkeypatch)
    (accuracy,) = numbers(r"test accuracy ([0-9.]+)", out)
    (of_classes,) = numbers(r"accuracy of the predicted classes ([0-9.]+)", out)
    assert accuracy > 0.9
    assert of_classes == pytest.approx(accuracy, abs=1e-4)


def test_softmax(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = output_of("mnist_softmax_mlp.py", 3, capsys, monkeypatch)
    of_fit, of_loop = numbers(r"accuracy +([0-9.]+) +1000\n", out)
    assert of_fit > 0.9
    assert of_loop > 0.9
    assert len(re.findall(r"^ +[0-9](?: +[01]\.[0-9]{3}){3} +100$", out, re.MULTILINE)) == 20


def test_dropout(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = output_of("mnist_dropout_mlp.py", 5, capsys, monkeypatch)
    assert numbers(r"test accuracy ([0-9.]+)", out)[0] > 0.92


def test_convolutions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = output_of("mnist_cnn.py", 2, capsys, monkeypatch)
    assert numbers(r"test accuracy ([0-9.]+)", out)[0] > 0.93


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_program_of_pytorch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = output_of("torch_mnist_cnn.py", 2, capsys, monkeypatch)
    assert numbers(r"test accuracy ([0-9.]+)", out)[0] > 0.93


def test_residual_network_and_a_new_head(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = output_of("mnist_residual.py", 2, capsys, monkeypatch)
    of_ten, of_two = numbers(r"test accuracy ([0-9.]+)", out)
    assert of_ten > 0.9
    assert of_two > 0.9


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    out = output_of("export_onnx.py", 1, capsys, monkeypatch, "--output", tmp_path / "digits.onnx")
    ours, theirs = numbers(r"test accuracy ([0-9.]+)", out)
    assert ours > 0.9
    assert theirs == pytest.approx(ours, abs=2e-3)
    assert numbers(r"largest difference of a probability: (\S+)", out)[0] < 1e-5


def test_search(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    out = output_of("model_selection.py", 1, capsys, monkeypatch)
    of_search = numbers(r"[0-9]\. accuracy ([0-9.]+)", out)
    assert len(of_search) == 8
    assert of_search == sorted(of_search, reverse=True)
    assert numbers(r"test accuracy .*: ([0-9.]+)", out)[0] > 0.85


def digits_folder(path: Path, each: int) -> Path:
    """Images of the digits 3 and 8, in the folders "three" and "eight"."""
    (x, y), _ = load_digits_sample()
    for digit, name in ((3, "three"), (8, "eight")):
        write_image_folder(path, x[y == digit][:each], np.zeros(each, np.int32), [name])
    return path


def test_folder_of_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    for part in ("train", "test"):
        digits_folder(tmp_path / "digits" / part, 8)
    image = tmp_path / "digits/test/eight/00000.png"
    arguments = ("--data", tmp_path / "digits", "--output", output, "--predict", image)
    out = output_of("image_folder_cnn.py", 1, capsys, monkeypatch, *arguments)
    assert "16 images to train on, 16 to test with; classes: eight, three" in out
    ((path, name, probability),) = re.findall(r"^(.+): (\w+), with a probability of ([0-9.]+)$", out, re.M)
    assert path == str(image)
    of_three = tilefuse.saving.load_model(output / "model.safetensors").predict(
        load_image(image, 150, rescale=1 / 255)[None], verbose=0
    )
    assert name == ("three" if of_three > 0.5 else "eight")
    assert float(probability) == pytest.approx(max(of_three, 1 - of_three), abs=1e-4)
    assert (output / "curves.png").stat().st_size > 1000


def test_folder_of_two_classes_is_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--data", digits_folder(tmp_path / "digits", 10), "--output", tmp_path)
    out = output_of("image_folder_cnn.py", 1, capsys, monkeypatch, *arguments)
    assert "16 images to train on, 4 to test with; classes: eight, three" in out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: folder.rename(folder.with_name("elsewhere")), r"There is no folder .*digits"),
        (lambda folder: (folder / "eight").rename(folder.with_name("eight")), "needs two classes"),
        (lambda folder: (folder / "three/00009.png").write_text("?"), r"1 image \(.*00009.png: no image"),
    ],
)
def test_folder_that_does_not_do(
    damage: Callable[[Path], Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage(digits_folder(tmp_path / "digits", 10))
    arguments = ("--data", tmp_path / "digits", "--output", tmp_path)
    with pytest.raises(SystemExit, match=message):
        output_of("image_folder_cnn.py", 1, capsys, monkeypatch, *arguments)


@pytest.mark.slow
def test_folder_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = output_of("image_folder_cnn.py", 10, capsys, monkeypatch, "--output", tmp_path)
    assert numbers(r"test accuracy ([0-9.]+)", out)[0] > 0.97


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
@pytest.mark.parametrize("script", sorted({*SCRIPTS} - OF_TILEFUSE_ONLY))
def test_runs_on_keras(script: str, tmp_path: Path) -> None:
    source = (EXAMPLES / script).read_text()
    for ours, theirs in KERAS_IMPORTS.items():
        source = source.replace(ours, theirs)
    assert not re.search(r"tilefuse(?!\.(datasets|history|metrics)| import)", source.partition('"""\n\n')[2])
    (tmp_path / script).write_text(source)
    command = [sys.executable, str(tmp_path / script), "--epochs", "1"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif("TILEFUSE_DATA" not in os.environ, reason="TILEFUSE_DATA names no folder with MNIST")
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("mnist_binary_mlp", 0.982),
        ("mnist_softmax_mlp", 0.972),
        ("mnist_dropout_mlp", 0.976),
        ("mnist_cnn", 0.990),
    ],
)
def test_accuracy_on_all_of_mnist(name: str, least: float) -> None:
    program = PROGRAMS[name]
    train, test = (program.prepare(*split) for split in load_mnist())
    accuracies = []
    for seed in range(5):
        tilefuse.seed(seed)
        _, _, accuracy = program.train(program.model(), train, test, program.epochs, [])
        accuracies.append(accuracy)
    assert statistics.mean(accuracies) >= least
