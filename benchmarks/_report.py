"""Results as files: JSON for programs, a table in Markdown for people."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def processor() -> str:
    """The processor's name, as Linux tells it. (As tilefuse does, which may not be installed here.)"""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save(folder: Path, name: str, results: dict[str, Any], table: str, gpu: str | None = None) -> None:
    """Write NAME.json and NAME.md, with the processor's name and the GPU's, where one was used."""
    folder.mkdir(parents=True, exist_ok=True)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    machine = {"processor": processor()} | ({"gpu": gpu} if gpu else {})
    (folder / f"{name}.json").write_text(json.dumps({"date": day, **machine, **results}, indent=1) + "\n")
    (folder / f"{name}.md").write_text(f"{', '.join([day, *reversed(machine.values())])}\n\n{table}\n")
