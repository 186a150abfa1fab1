"""One peer on one device: `python -m _workers PEER THREADS DEVICE PRECISION`.

PEER is a module of this package, with dashes and what else its `training` takes: torch, torch-compile-graph.

Reads requests as lines of JSON and answers each with one:
{"model": NAME, "steps": N} -> {"seconds": T, "steps": N, "loss": L}: time at least N training steps.
The first answer, unasked, has the versions of what is used.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def main() -> None:
    peer, threads, device, precision = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    if threads == 1:  # one core, so that no pool of threads that a peer may have can help
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["OMP_NUM_THREADS"] = str(threads)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    module, *how = peer.split("-")
    try:
        worker = importlib.import_module(f"_workers.{module}")
        versions = worker.setup(threads, device, precision)
    except (ImportError, RuntimeError) as error:  # not installed, or not for this device
        sys.exit(f"{peer}: {error}")
    answers.write(json.dumps(versions) + "\n")

    from .models import MODELS

    runs = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["model"]
        if name not in runs:
            runs[name] = worker.training(MODELS[name], device, precision, *how)
        start = time.perf_counter()
        steps, loss = runs[name](request["steps"])
        seconds = time.perf_counter() - start
        answers.write(json.dumps({"seconds": seconds, "steps": steps, "loss": loss}) + "\n")


main()
