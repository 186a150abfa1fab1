"""What `gpu.sh` has found out, as one JSON: `python benchmarks/_gpu_report.py FOLDER OUTPUT.json`.

FOLDER has `facts` (lines of name, tab, value), `steps` (name, status, seconds), NAME.log of each step, and
NAME.state of those that measure, with samples of what the fact "gpu state" names. While a run is under way
there is less.
"""

from __future__ import annotations

import datetime
import json
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _report import processor

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
MOST_LINES = 60  # of what a tool has found


def result_of(folder: Path) -> dict[str, Any]:
    facts = lists(rows(folder / "facts"))
    steps = {name: (int(status), int(seconds)) for name, status, seconds in rows(folder / "steps")}
    gpu = {name.removeprefix("gpu "): each[0] for name, each in facts.items() if name.startswith("gpu ")}
    fields = gpu.pop("state", "").split(",")
    training = read_json(folder / "train_step_cuda.json")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": gpu.get("name"),
        "driver": gpu.get("driver_version"),
        "commit": facts.get("commit", [""])[0] or None,
        "dirty": "changed" in facts,
        "changed": facts.get("changed", []),
        "wheel": facts.get("wheel", [None])[0],  # instead of a build of that commit
        "gpu": gpu,
        "clocks": {
            name: clocks(fields, rows(folder / f"{name}.state", ","))
            for name in ("kernels", "kernel_times", "training")
        },
        "processor": processor(),
        "nvcc": facts.get("nvcc", [""])[0] or "from PyPI",
        "tf32": "off in CuPy and PyTorch",
        "packages": facts.get("package", []),
        "info": read(folder / "info.log").splitlines(),
        "asked": facts.get("only", [""])[0].split(","),
        "steps": {
            name: {"passed": status == 0, "status": status, "seconds": seconds}
            for name, (status, seconds) in steps.items()
        },
        "failed": [name for name, (status, _) in steps.items() if status != 0],
        "left_out": facts.get("left_out", []),
        "tests": pytest_outcome(read(folder / "tests.log")) if "tests" in steps else None,
        "sanitizers": {
            tool: sanitizer_outcome(read(folder / f"{tool}.log")) for tool in TOOLS if tool in steps
        },
        "kernels": kernels(read_json(folder / "kernels.json")),
        "kernel_times": (read_json(folder / "gpu_kernels.json") or {}).get("kernels"),
        "training": training and {"versions": training["versions"], "models": training["models"]},
    }


def read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def read_json(path: Path) -> Any:
    text = read(path)
    return json.loads(text) if text.strip() else None


def rows(path: Path, separator: str = "\t") -> list[list[str]]:
    return [[cell.strip() for cell in line.split(separator)] for line in read(path).splitlines()]


def lists(pairs: Iterable[list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def clocks(fields: list[str], samples: list[list[str]]) -> dict[str, Any] | None:
    """Least, median and most of each number; of what limits the clocks, all values that were seen."""
    columns: dict[str, Any] = {}
    whole = [sample for sample in samples if len(sample) == len(fields)]  # the last may be cut off
    for field, column in zip(fields, zip(*whole, strict=True), strict=False):
        if "reasons" in field:
            columns[field] = sorted(set(column))
            continue
        numbers = [float(value) for value in column if re.fullmatch(r"[\d.]+", value)]
        if numbers:
            columns[field] = [min(numbers), statistics.median(numbers), max(numbers)]
    return columns and {"samples": len(whole), "least, median, most": columns}


def pytest_outcome(log: str) -> dict[str, Any]:
    """The numbers with which pytest closes (none where it did not), and the tests that did not pass."""
    closing = re.findall(r"^=*\s?(\d+ [a-z]+(?:, \d+ [a-z]+)*) in [\d.]+s", log, re.MULTILINE)
    counts = {name: int(n) for n, name in re.findall(r"(\d+) ([a-z]+)", closing[-1])} if closing else {}
    return {"counts": counts, "not passed": re.findall(r"^(?:FAILED|ERROR) (.*)", log, re.MULTILINE)}


def sanitizer_outcome(log: str) -> dict[str, Any]:
    lines = [
        line.removeprefix("=========").strip() for line in log.splitlines() if line.startswith("=========")
    ]
    summaries = [line for line in lines if "SUMMARY" in line]
    findings = [line for line in lines if line and line not in summaries and line != "COMPUTE-SANITIZER"]
    return {"summary": summaries, "findings": findings[:MOST_LINES], "tests": pytest_outcome(log)}


def kernels(measured: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    """For each benchmark the median of a whole call, with tilefuse and the reference on CuPy; their ratio."""
    if measured is None:
        return None
    found: dict[str, dict[str, Any]] = {}
    for benchmark in measured["benchmarks"]:
        backend = benchmark["params"]["backend"]
        name = re.sub(rf"\[{backend}-?|\]$", " ", benchmark["name"]).strip()
        row = found.setdefault(name, {"name": name})
        row[f"{backend} us"] = round(1e6 * benchmark["stats"]["median"], 3)
        if backend == "tilefuse":
            row |= benchmark["extra_info"]
    for row in found.values():
        if {"tilefuse us", "cupy us"} <= row.keys():
            row["ratio"] = round(row["cupy us"] / row["tilefuse us"], 3)
    return list(found.values())


def write(result: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.part")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    unfinished.replace(target)


if __name__ == "__main__":
    write(result_of(Path(sys.argv[1])), Path(sys.argv[2]))
