"""The command `tilefuse`: train a network on MNIST, time the kernels, say what they run on."""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

import tilefuse

from ._bench import conv, matmul
from ._bench.quick import print_benchmarks
from ._device import report
from ._mnist_programs import PROGRAMS, EpochTimes
from .callbacks import Callback
from .datasets import load_digits_sample, load_mnist

_MISTAKES = (ValueError, TypeError, OSError, ImportError, tilefuse.DeviceError)
_SWEEPS: dict[str, tuple[Callable[..., object], list[str]]] = {
    "matmul": (matmul.bench_matmul, list(matmul.SWEEPS)),
    "conv": (conv.bench_conv, list(conv.SWEEPS)),
}
_OPTIONAL = {
    "matplotlib": "plots",
    "pooch": "downloads",
    "cupy": "GPU arrays",
    "torch": "",
    "jax": "",
    "keras": "",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit status: 0, 2 where the input was wrong, 130 after Ctrl-C.

    Examples
    --------
    >>> from tilefuse.cli import main
    >>> main(["train", "--data", "no-such-folder"])
    2
    """
    options = _parser().parse_args(argv)
    try:
        tilefuse.set_device(options.device)
        if options.threads is not None:
            tilefuse.set_num_threads(options.threads)
        options.run(options)
    except _MISTAKES as error:
        print(f"tilefuse {options.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"tilefuse {options.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tilefuse", description="Fast training of neural networks.")
    parser.add_argument("--version", action="version", version=f"tilefuse {tilefuse.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{train,bench,info}")

    train = commands.add_parser("train", help="train a network on MNIST and test it")
    programs = "; ".join(f"{name}: {program.title}" for name, program in PROGRAMS.items())
    train.add_argument("--program", choices=list(PROGRAMS), default="mnist_dropout_mlp", help=programs)
    train.add_argument(
        "--data", metavar="DIR", help="folder of MNIST's four files (default: the built-in sample)"
    )
    train.add_argument("--epochs", type=_positive, metavar="N", help="(default: as many as suit the data)")
    train.add_argument("--save", metavar="MODEL", help="write the trained model to this .safetensors file")
    train.add_argument("--plot", metavar="FILE", help="where the curves go (default: tilefuse-PROGRAM.png)")
    train.add_argument(
        "--seed", type=int, default=0, metavar="N", help="all random numbers follow from it (0)"
    )
    train.set_defaults(run=_train)

    bench = commands.add_parser("bench", help="time kernels and a training step against NumPy and others")
    whats = ["quick", *_SWEEPS]
    bench.add_argument("what", nargs="?", choices=whats, default="quick", help="(quick; the others: sweeps)")
    bench.add_argument("--seconds", type=float, metavar="S", help="for each measurement (0.3; of conv 0.05)")
    known = "; ".join(f"of {name}: some of {','.join(sweeps)}" for name, (_, sweeps) in _SWEEPS.items())
    bench.add_argument("--sweeps", metavar="LIST", help=known)
    precisions = matmul.PRECISIONS
    bench.add_argument("--precision", choices=precisions, default=precisions[0], help="of a sweep (float32)")
    bench.add_argument("--cold", action="store_true", help="of a sweep: with empty caches")
    bench.add_argument("--output", metavar="DIR", help="of a sweep: where a .json and a .png go")
    bench.set_defaults(run=_bench)

    info = commands.add_parser(
        "info", help="show version, instruction set, threads and what else is installed"
    )
    info.set_defaults(run=lambda options: _info())

    for command in (train, bench, info):
        command.add_argument("--device", default="cpu", help="cpu, cuda, simt or auto (cpu)")
        command.add_argument("--threads", type=_positive, metavar="N", help="(default: one for each core)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _train(options: argparse.Namespace) -> None:
    program = PROGRAMS[options.program]
    plot = _plot_path(options)
    for path in (plot, options.save):
        _check_writable(path)
    train, test = load_mnist(options.data) if options.data else load_digits_sample()
    epochs = options.epochs or (program.epochs if options.data else program.sample_epochs)

    config = tilefuse.show_config("dicts") or {}
    source = options.data or "the built-in sample of MNIST"
    print(
        f"tilefuse {tilefuse.__version__}, {config['instruction set']} kernels, threads: {config['threads']}"
    )
    print(f"{options.program} ({program.title})")
    print(f"{len(train[0])} digits to train on, {len(test[0])} to test on, from {source}")

    tilefuse.seed(options.seed)
    model = program.model()
    times = EpochTimes()
    history, loss, accuracy = program.train(
        model, program.prepare(*train), program.prepare(*test), epochs, [times, _Bar(epochs)]
    )
    seconds = statistics.median(times.seconds)
    print(f"test accuracy   {accuracy:.4f} (loss {loss:.4f})")
    print(f"time per epoch  {seconds:.3f} s (median of {epochs})")
    if plot is not None:
        history.plot(plot)
        print(f"curves          {os.path.abspath(plot)}")
    if options.save:
        model.save(options.save)
        print(f"model           {os.path.abspath(options.save)}")


def _plot_path(options: argparse.Namespace) -> str | None:
    """Return where the plot goes; None where matplotlib is missing and no plot was asked for."""
    if importlib.util.find_spec("matplotlib") is not None:
        return options.plot or f"tilefuse-{options.program}.png"
    mend = 'matplotlib is not installed: pip install "tilefuse[plot]"'
    if options.plot:
        raise ImportError(f"--plot {options.plot}: {mend}")
    print(f"no plot of the curves: {mend}", file=sys.stderr)
    return None


def _check_writable(path: str | None) -> None:
    """Find out before the training, not after it, that a file cannot be written."""
    if path is None:
        return
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK) or Path(path).is_dir():
        raise PermissionError(f"cannot write {path}: it is a folder, or lies in one that is not writable")


class _Bar(Callback):
    """One progress bar over all epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._bar = tqdm(total=epochs, unit="epoch", file=sys.stdout, dynamic_ncols=True)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._bar.set_postfix({name: f"{value:.4f}" for name, value in (logs or {}).items()}, refresh=False)
        self._bar.update()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._bar.close()


def _bench(options: argparse.Namespace) -> None:
    given: dict[str, Any] = {} if options.seconds is None else {"seconds": options.seconds}
    if options.what == "quick":
        print_benchmarks(**given)
        return
    if options.sweeps is not None:
        given["sweeps"] = options.sweeps.split(",")
    run, _ = _SWEEPS[options.what]
    run(precision=options.precision, cold=options.cold, output=options.output, **given)


def _info() -> None:
    tilefuse.show_config()
    for device, state in report().items():
        print(f"{f'device {device}':<27}{state}")
    for name, use in _OPTIONAL.items():
        there = "installed" if importlib.util.find_spec(name) else "not installed"
        print(f"{name:<27}{there}{f' ({use})' if use else ''}")
