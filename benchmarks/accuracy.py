"""Test accuracy and time per epoch of the MNIST programs, trained on all of MNIST.

usage: python benchmarks/accuracy.py --data FOLDER [--programs NAMES] [--seeds N]    (or TILEFUSE_DATA=FOLDER)
Accuracies are means over the seeds; that after two epochs is known where a program watches the test data.
Writes accuracy.json and accuracy.md to benchmarks/results.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import tilefuse
from _report import markdown_table, save
from tilefuse._mnist_programs import PROGRAMS, EpochTimes, MnistProgram
from tilefuse.datasets import load_mnist

HERE = Path(__file__).resolve().parent


def train(program: MnistProgram, data: Any, seed: int) -> tuple[list[float], list[float]]:
    """Test accuracy (after each epoch, or only after all) and seconds of each epoch."""
    tilefuse.seed(seed)
    times = EpochTimes()
    splits = [program.prepare(*split) for split in data]
    history, _, accuracy = program.train(program.model(), *splits, epochs=program.epochs, callbacks=[times])
    return [accuracy] if program.validation_split else history.history["val_accuracy"], times.seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of MNIST's files (TILEFUSE_DATA; else they are downloaded)")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help=f"of {','.join(PROGRAMS)} (all)")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each program (5)")
    parser.add_argument("--threads", type=int, help="(one for each core)")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder (benchmarks/results)")
    options = parser.parse_args()
    if options.threads:
        tilefuse.set_num_threads(options.threads)
    data = load_mnist(options.data)

    results: dict[str, Any] = {}
    for name in options.programs.split(","):
        runs = [train(PROGRAMS[name], data, seed) for seed in range(options.seeds)]
        means = [
            statistics.mean(accuracies) for accuracies in zip(*(curve for curve, _ in runs), strict=True)
        ]
        epoch = statistics.median(seconds for _, times in runs for seconds in times)
        results[name] = {
            "accuracy": [curve[-1] for curve, _ in runs],
            "mean_after_epochs": means,
            "mean": means[-1],
            "seconds_per_epoch": epoch,
        }
        print(f"{name}: test accuracy {means[-1]:.4f}, {epoch:.3f} s an epoch", flush=True)
    table = markdown_table(
        ["program", "epochs", "test accuracy (mean)", "least", "after 2 epochs", "s an epoch (median)"],
        [
            [
                f"`{name}`",
                str(PROGRAMS[name].epochs),
                f"{result['mean']:.4f}",
                f"{min(result['accuracy']):.4f}",
                f"{result['mean_after_epochs'][1]:.4f}" if len(result["mean_after_epochs"]) > 1 else "-",
                f"{result['seconds_per_epoch']:.3f}",
            ]
            for name, result in results.items()
        ],
    )
    save(options.output, "accuracy", {"config": tilefuse.show_config("dicts"), "programs": results}, table)
    print(table)


if __name__ == "__main__":
    main()
