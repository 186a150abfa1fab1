"""What one training step of PyTorch allocates: `python -m _workers.torch_memory MODEL PRECISION`.

Prints JSON: the most bytes of tensors at any time of a step, beyond those that are there before it (weights,
Adam's moments and the batch), as the profiler sees them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from .models import MODELS
from .torch import setup, step_of


def main() -> None:
    name, precision = sys.argv[1:]
    config = setup(torch.get_num_threads(), "cpu", precision)
    step, batches = step_of(MODELS[name], "cpu", precision)
    step(*batches[0])  # makes Adam's moments
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step(*batches[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
    live = most = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        live += size
        most = max(most, live)
    print(json.dumps(config | {"bytes": most}))


main()
