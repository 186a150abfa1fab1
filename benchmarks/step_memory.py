"""Memory that a training step takes beyond weights, Adam's moments and the batch, beside PyTorch's.

usage: python benchmarks/step_memory.py [--peer-python VENV/bin/python] [--models cnn150]
                                        [--precision bfloat16]

Of tilefuse this is the arena of the compiled step, where all that a step computes lies; of PyTorch, in eager
mode, the most bytes of live tensors at any time of a step, as its profiler sees them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import tilefuse
from _report import markdown_table
from _workers.models import MODELS
from _workers.tilefuse import compiled

HERE = Path(__file__).resolve().parent
MIB = 1 << 20


def of_tilefuse(name: str) -> int:
    """The bytes of the arena."""
    network = MODELS[name]
    model = compiled(network)
    model.fit(*network.batches()[0], batch_size=network.batch, verbose=0)  # settles the batch size
    return model.program.bytes


def of_torch(name: str, precision: str, python: str) -> int | None:
    """The most bytes of live tensors; None where there is no PyTorch."""
    command = [python, "-m", "_workers.torch_memory", name, precision]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"left out: PyTorch: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)["bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has PyTorch (this one)"
    )
    parser.add_argument("--models", default="cnn28,cnn150", help=f"of {','.join(MODELS)} (cnn28,cnn150)")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    models = options.models.split(",")
    if unknown := [model for model in models if model not in MODELS]:
        parser.error(f"--models has {', '.join(unknown)}; there are: {', '.join(MODELS)}")
    tilefuse.set_precision(options.precision)
    rows = []
    for name in models:
        own, peer = of_tilefuse(name), of_torch(name, options.precision, options.peer_python)
        theirs = ["-", "-"] if peer is None else [f"{peer / MIB:.1f}", f"{own / peer:.2f}"]
        rows.append([f"`{name}`", f"{own / MIB:.1f}", *theirs])
    print(markdown_table(["MiB a step", "tilefuse", "PyTorch", "ratio"], rows))


if __name__ == "__main__":
    main()
