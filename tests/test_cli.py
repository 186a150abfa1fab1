"""The command `tilefuse`: what it prints and writes, and how it says no."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tilefuse
from tilefuse import cli
from tilefuse._mnist_programs import PROGRAMS
from tilefuse.datasets import load_digits_sample, mnist

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _in_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_num_threads: Callable[[int], None]
) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = tilefuse.get_device()
    yield
    tilefuse.set_device(before)  # the command is a process of its own, and leaves it as asked for


def accuracy(text: str) -> float:
    match = re.search(r"^test accuracy +([0-9.]+) \(loss [0-9.]+\)$", text, re.MULTILINE)
    assert match, text
    return float(match.group(1))


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a call that must end with status 2, before anything is trained."""
    try:
        status = cli.main(arguments)
    except SystemExit as end:  # argparse's way
        status = end.code
    captured = capsys.readouterr()
    assert status == 2
    assert "Traceback" not in captured.err
    assert "test accuracy" not in captured.out
    return captured.err


@pytest.mark.parametrize("program", PROGRAMS)
def test_train(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["train", "--program", program, "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    assert accuracy(out) > 0.8
    assert re.search(r"^time per epoch +[0-9.]+ s", out, re.MULTILINE)
    plot = Path(f"tilefuse-{program}.png")
    assert str(plot.absolute()) in out
    assert plot.read_bytes().startswith(PNG)


def test_train_main_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train"]) == 0
    assert accuracy(capsys.readouterr().out) > 0.93


def test_train_saves_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--epochs", "1", "--save", "digits.safetensors", "--plot", "curves.png"]) == 0
    out = capsys.readouterr().out
    assert Path("curves.png").read_bytes().startswith(PNG)
    model = tilefuse.load_model("digits.safetensors")
    _, test = load_digits_sample()
    _, same = model.evaluate(*PROGRAMS["mnist_dropout_mlp"].prepare(*test), verbose=0)
    assert accuracy(out) == pytest.approx(same, abs=1e-4)


def test_train_on_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--epochs", "1", "--data", str(mnist._SAMPLE)]) == 0
    out = capsys.readouterr().out
    assert f"from {mnist._SAMPLE}" in out
    assert accuracy(out) > 0.8


def test_seed_and_threads(capsys: pytest.CaptureFixture[str]) -> None:
    weights = []
    for seed, threads in ((3, 1), (3, 2), (4, 2)):
        arguments = ["train", "--epochs", "1", "--save", "m.safetensors"]
        assert cli.main([*arguments, "--seed", str(seed), "--threads", str(threads)]) == 0
        assert f"threads: {threads}" in capsys.readouterr().out
        weights.append(tilefuse.load_model("m.safetensors").get_weights()[0])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[1], weights[2])


def test_train_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cli.importlib.util.find_spec
    monkeypatch.setattr(
        cli.importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else real(name, *a)
    )
    assert cli.main(["train", "--epochs", "1"]) == 0
    captured = capsys.readouterr()
    assert accuracy(captured.out) > 0.8
    assert 'pip install "tilefuse[plot]"' in captured.err
    assert 'pip install "tilefuse[plot]"' in mistake(capsys, "train", "--plot", "x.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "absent"], "no folder absent"),
        (["train", "--save", "absent/model.safetensors"], "cannot write absent/model.safetensors"),
        (["train", "--plot", "absent/x.png"], "cannot write absent/x.png"),
        (["train", "--save", "."], r"cannot write \."),
        (["train", "--device", "cuda"], "'cuda' is not available"),
        (["train", "--device", "gpu"], "Unknown device 'gpu'"),
        (["train", "--seed", "-1"], "seed"),
        (["train", "--epochs", "0"], "--epochs.*at least 1, got '0'"),
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--threads", "0"], "--threads"),
        (["train", "--program", "mnist_mlp"], "mnist_dropout_mlp"),
        (["bench", "--seconds", "0"], "more than 0"),
        (["bench", "--seconds", "x"], "--seconds"),
        (["bench", "matmul", "--sweeps", "cube"], "unknown sweep 'cube'; expected some of: square"),
        (["bench", "matmul", "--seconds", "-1"], "more than 0, got -1"),
        (["bench", "conv", "--sweeps", "vgg"], "unknown sweep 'vgg'; expected some of: resnet50, mobilenet"),
        (["bench", "conv", "--precision", "bfloat16"], "unknown precision 'bfloat16'.*float32, ieee"),
        (["bench", "conv", "--device", "simt"], "for device 'cpu', got 'simt'|not available"),
        (["bench", "lstm"], "lstm"),
        (["trian"], "train"),
        ([], "required"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, mistake(capsys, *arguments))


def test_data_folder_with_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in mnist.SHA256:
        (tmp_path / name).write_bytes((mnist._SAMPLE / name).read_bytes()[:400])
    assert "train-images-idx3-ubyte.gz" in mistake(capsys, "train", "--data", str(tmp_path))


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_digits_sample", interrupted)
    assert cli.main(["train"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--threads", "2"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^tilefuse +{re.escape(tilefuse.__version__)}$", out, re.MULTILINE)
    assert re.search(r"^threads +2$", out, re.MULTILINE)
    assert re.search(r"^matplotlib +(not )?installed", out, re.MULTILINE)


def test_bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilefuse._bench.quick.MATMUL_SIZES", (16,))
    monkeypatch.setattr("tilefuse._bench.quick.torch_module", lambda: None)  # its import takes seconds
    assert cli.main(["bench", "--seconds", "0.001"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^matmul 16 x 16 x 16 +tilefuse +[0-9.]+ us +[0-9.]+ GFLOP/s$", out, re.MULTILINE)
    assert re.search(r"^ +numpy +[0-9.]+ us +[0-9]+ steps/s +[0-9.]+ x as fast$", out, re.MULTILINE)


@pytest.mark.parametrize("cold", [False, True])
def test_bench_matmul(
    cold: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = importlib.import_module("tilefuse._bench.matmul")
    products = [bench.Product("square", 16, 16, 16), bench.Product("square", 5, 3, 7, True, True)]
    monkeypatch.setitem(bench.SWEEPS, "square", lambda: iter(products))
    monkeypatch.setattr(bench, "torch_module", lambda: None)  # its import takes seconds
    monkeypatch.setattr("tilefuse._bench.sweep._largest_cache", lambda: 0)
    arguments = [
        "bench",
        "matmul",
        "--sweeps",
        "square",
        "--seconds",
        "0.001",
        "--output",
        str(tmp_path / "new"),
    ]
    assert cli.main(arguments + ["--cold"] * cold) == 0
    out = capsys.readouterr().out
    assert re.search(r"^16 x 16 x 16 nn +[0-9.]+ +numpy [0-9.]+ +[0-9.]+ x as fast$", out, re.MULTILINE)
    assert re.search(r"^5 x 3 x 7 tt ", out, re.MULTILINE)
    assert re.search(r"^square: [0-9.]+ x as fast as the fastest peer.* of 2 products$", out, re.MULTILINE)
    (path,) = (tmp_path / "new").glob(f"matmul-float32-threads*{'-cold' * cold}.json")
    report = json.loads(path.read_text())
    assert report["cold"] is cold
    assert [product["m"] for product in report["products"]] == [16, 5]
    assert path.with_suffix(".png").read_bytes().startswith(PNG)


def test_bench_of_bfloat16_needs_a_peer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = importlib.import_module("tilefuse._bench.matmul")
    monkeypatch.setattr(bench, "torch_module", lambda: None)
    assert cli.main(["bench", "matmul", "--precision", "bfloat16"]) == 2
    assert "PyTorch's: pip install torch" in capsys.readouterr().err


class _Torch:
    """As much of PyTorch as the sweep of convolutions itself calls."""

    channels_last, contiguous_format = "channels_last", "contiguous_format"
    no_grad = contextlib.nullcontext


@pytest.fixture
def conv(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sweep, of two shapes, with the reference for a peer."""
    bench = importlib.import_module("tilefuse._bench.conv")

    def peer(_: object, shape: Any, direction: str, *arrays: Any) -> Callable[[], Any]:
        _, x, w, dy = arrays
        y = tilefuse.reference.conv2d(x, w, **shape.options)
        dx, dw, _ = tilefuse.reference.conv2d_backward(dy, x, w, **shape.options)
        array = {"forward": y, "dx": dx, "dw": dw.transpose(2, 0, 1, 3)}[direction]
        tensor = SimpleNamespace(numpy=lambda: np.moveaxis(array, 3, 0 if direction == "dw" else 1))
        return lambda: tensor

    shapes = [
        bench.Convolution("programs", 2, 6, 5, 3, 4, 3),
        bench.Convolution("programs", 1, 9, 7, 4, 8, 3, 2, 1, 2, groups=4),
    ]
    monkeypatch.setitem(bench.SWEEPS, "programs", lambda: iter(shapes))
    monkeypatch.setattr(bench, "torch_module", _Torch)
    monkeypatch.setattr(bench, "_torch_run", peer)
    monkeypatch.setattr("tilefuse._bench.sweep._largest_cache", lambda: 0)
    return bench


@pytest.mark.parametrize("cold", [False, True])
def test_bench_conv(cold: bool, conv: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["bench", "conv", "--sweeps", "programs", "--seconds", "0.001", "--output", str(tmp_path)]
    assert cli.main(arguments + ["--cold"] * cold) == 0
    out = capsys.readouterr().out
    assert re.search(r"^2x6x5x3 -> 4, 3x3( +[0-9.]+){12}$", out, re.MULTILINE)
    assert re.search(r"^1x9x7x4 -> 8, 3x3 /2 pad 1 dilation 2 groups 4( +[0-9.]+){12}$", out, re.MULTILINE)
    assert re.search(r"^dw: [0-9.]+ x as fast as the fastest peer.* of 2$", out, re.MULTILINE)
    assert re.search(r"^all: .* of 6$", out, re.MULTILINE)
    below = re.search(r"^([0-9]) are below 0.8", out, re.MULTILINE)
    assert below
    (path,) = tmp_path.glob(f"conv-float32-threads*{'-cold' * cold}.json")
    results = json.loads(path.read_text())["convolutions"]
    assert [result["direction"] for result in results] == ["forward", "dx", "dw"] * 2
    assert sum(result["ratio"] < 0.8 for result in results) == int(below[1])
    assert path.with_suffix(".png").read_bytes().startswith(PNG)


def test_bench_conv_notices_wrong_results(conv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv.ops, "conv2d", lambda *_, **__: np.full((2, 4, 3, 4), np.nan, np.float32))
    with pytest.raises(AssertionError, match="forward of 2x6x5x3 -> 4, 3x3 differs from PyTorch's by nan"):
        conv.bench_conv(["programs"], seconds=0.001)


def test_bench_conv_needs_a_peer(
    conv: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv, "torch_module", lambda: None)
    assert cli.main(["bench", "conv"]) == 2
    assert "PyTorch's: pip install torch" in capsys.readouterr().err


def test_shapes_of_bench_conv() -> None:
    """A hundred, all different, which give at least one place and take neither long nor much memory."""
    bench = importlib.import_module("tilefuse._bench.conv")
    shapes = [shape for sweep in bench.SWEEPS.values() for shape in sweep()]
    assert len({shape[1:] for shape in shapes}) == len(shapes) == 100
    for shape in shapes:
        assert 0 < shape.operations <= 2e9
        assert shape.elements < 1e7


def test_version_of_the_module() -> None:
    command = [sys.executable, "-m", "tilefuse", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == (
        f"tilefuse {tilefuse.__version__}\n"
    )
