"""Compile the CUDA kernels with nvcc for every architecture, and see what each kernel takes of a GPU.

Compiles only: no GPU or driver is needed. Warnings and spilled registers are errors; so is a kernel without
__launch_bounds__ (nothing else makes sure that a block finds registers), and one of which fewer blocks fit on
a multiprocessor than csrc/cuda/resources.json says.

Usage: kernel_resources.py [--architectures 75 80 ...] [--jobs N] [--write] [FILE.cu ...]

--write makes resources.json anew, or the lines of the files given; for all architectures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "csrc/cuda").glob("*.cu"))
RECORD = ROOT / "csrc/cuda/resources.json"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# As in csrc/cuda/CMakeLists.txt.
FLAGS = ["-std=c++20", "-O3", "-fmad=false", "--expt-relaxed-constexpr", "-DTILEFUSE_ISA=device"]
FLAGS += ["-I", str(ROOT / "csrc"), "-I", str(ROOT / "csrc/include"), "-Werror", "all-warnings"]

# Of a multiprocessor (CUDA programming guide, technical specifications): the least that any of them has.
REGISTERS, SHARED, THREADS = 65536, 65536, 1024

_ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)\w*'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")
_BOUNDS = re.compile(r"\.entry (\w+)\(.*?\)\s*((?:\.\w+ [\d, ]+\s*)*)\{", re.DOTALL)
_FUNCTION = re.compile(r"^\.text\.(\S+):", re.MULTILINE)
_INSTRUCTION = re.compile(r"\*/ +(?:@!?\w+ )?([A-Z][\w.]*)")
_MAXIMUM = re.compile(r"\.maxntid (\d+)(?:, (\d+))?(?:, (\d+))?")


class Use(NamedTuple):
    """What one kernel takes, for one architecture."""

    kernel: str
    architecture: int
    registers: int
    shared: int  # bytes, without those that a launch adds
    spilled: int  # bytes
    threads: int  # the most that a block may have; 0: not said
    instructions: frozenset[str] = frozenset()  # of its machine code; empty where nobody disassembled it

    @property
    def blocks(self) -> int:
        """How many blocks of it fit on a multiprocessor."""
        by_registers = REGISTERS // (-(-self.registers // 8) * 8 * self.threads)
        return min(by_registers, max(THREADS // self.threads, 1), SHARED // max(self.shared, 1))


def nvcc() -> str | None:
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    return next(
        filter(None, (shutil.which("nvcc", path=f"{home}/bin") for home in homes)), shutil.which("nvcc")
    )


def disassembler() -> str | None:
    """NVIDIA's nvdisasm: of the CUDA toolkit, or of PyPI's nvidia-cuda-nvdisasm."""
    package = importlib.util.find_spec("nvidia")
    folders = list(package.submodule_search_locations or ()) if package else []
    return shutil.which("nvdisasm") or next(
        (str(path) for folder in folders for path in Path(folder).glob("**/bin/nvdisasm")), None
    )


def instructions(cubin: Path) -> dict[str, frozenset[str]]:
    """What the machine code of each function is made of."""
    command = [disassembler() or "nvdisasm", "-c", str(cubin)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, *parts = _FUNCTION.split(text)
    return {
        name: frozenset(_INSTRUCTION.findall(code))
        for name, code in zip(parts[::2], parts[1::2], strict=True)
    }


def compiled(source: Path, architectures: tuple[int, ...] = ARCHITECTURES) -> list[Use]:
    """What the kernels of a file take; RuntimeError with nvcc's words where it warns or fails."""
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc() or "nvcc", *FLAGS, *targets, "-Xptxas", "-v", "--keep", "--keep-dir", folder]
        command += ["-c", str(source), "-o", f"{folder}/{source.stem}.o"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{source.name}: {done.stdout}{done.stderr}")
        ptx = "\n".join(path.read_text() for path in Path(folder).glob("*.ptx"))
        cubins = Path(folder).glob("*.cubin") if disassembler() else ()
        code = {int(path.stem.rpartition("_")[2]): instructions(path) for path in cubins}
    uses = parsed(done.stdout + done.stderr, bounds(ptx))
    return [
        use._replace(
            kernel=f"{source.name}: {name}",
            instructions=code.get(use.architecture, {}).get(use.kernel, frozenset()),
        )
        for use, name in zip(uses, readable(uses), strict=True)
    ]


def bounds(ptx: str) -> dict[str, int]:
    """The most threads that a block of each kernel may have, where its __launch_bounds__ says so."""
    found = {}
    for name, directives in _BOUNDS.findall(ptx):
        if match := _MAXIMUM.search(directives):
            x, y, z = (int(n or 1) for n in match.groups())
            found[name] = x * y * z
    return found


def parsed(report: str, threads: dict[str, int]) -> list[Use]:
    """The report of ptxas -v."""
    uses = []
    entry: tuple[str, int] | None = None
    spilled = 0
    for line in report.splitlines():
        if match := _ENTRY.search(line):
            entry, spilled = (match[1], int(match[2])), 0
        elif entry and (match := _SPILLS.search(line)):
            spilled = int(match[2]) + int(match[3])
        elif entry and (match := _USED.search(line)):
            name, architecture = entry
            uses.append(
                Use(name, architecture, int(match[1]), int(match[2] or 0), spilled, threads.get(name, 0))
            )
            entry = None
    return uses


def readable(uses: list[Use]) -> list[str]:
    """The kernels' names as in the sources, without parameters and namespaces."""
    names = "\n".join(use.kernel for use in uses)
    listing = subprocess.run(["c++filt"], input=names, capture_output=True, text=True, check=True).stdout
    return [_shortened(line) for line in listing.splitlines()]


def _shortened(name: str) -> str:
    name = (
        name.replace("(anonymous namespace)::", "")
        .replace("tilefuse::cuda::", "")
        .replace("tilefuse::device::", "")
    )
    depth = 0
    for i, letter in enumerate(name):  # up to the parameters: a parenthesis outside of template arguments
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            name = name[:i]
            break
    return name.removeprefix("void ").replace("tilefuse::", "")


def summary(uses: list[Use]) -> dict[str, dict[str, int]]:
    """By kernel, over all architectures: what `resources.json` holds."""
    table: dict[str, dict[str, int]] = {}
    for kernel in sorted({use.kernel for use in uses}):
        of_it = [use for use in uses if use.kernel == kernel and use.threads]
        if of_it:
            table[kernel] = {
                "threads": max(use.threads for use in of_it),
                "registers": max(use.registers for use in of_it),
                "shared": max(use.shared for use in of_it),
                "blocks": min(use.blocks for use in of_it),
            }
    return table


def problems(uses: list[Use], record: dict[str, dict[str, int]]) -> list[str]:
    """What is wrong with these kernels, a line each."""
    found = []
    for use in uses:
        where = f"{use.kernel} for sm_{use.architecture}"
        if use.spilled:
            found.append(f"{where} spills {use.spilled} bytes of registers")
        if not use.threads:
            found.append(f"{where} has no __launch_bounds__")
        elif use.kernel not in record:
            found.append(f"{where} is not in {RECORD.name}: run tools/kernel_resources.py --write")
        elif use.blocks < record[use.kernel]["blocks"]:
            found.append(
                f"{where} takes {use.registers} registers a thread and {use.shared} bytes of shared memory: "
                f"{use.blocks} blocks of {use.threads} threads on a multiprocessor, "
                f"{record[use.kernel]['blocks']} recorded"
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.cu")
    parser.add_argument("--architectures", nargs="+", type=int, default=ARCHITECTURES, metavar="N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if nvcc() is None:
        print("there is no nvcc in CUDA_HOME or PATH")
        return 2
    sources = options.files or SOURCES
    with ThreadPoolExecutor(options.jobs) as pool:
        uses = [
            use
            for uses_of_file in pool.map(lambda s: compiled(s, tuple(options.architectures)), sources)
            for use in uses_of_file
        ]
    table = summary(uses)
    if options.write:
        given = {source.name for source in sources}
        recorded = json.loads(RECORD.read_text()) if options.files else {}
        others = {kernel: use for kernel, use in recorded.items() if kernel.partition(":")[0] not in given}
        RECORD.write_text(json.dumps(dict(sorted({**others, **table}.items())), indent=1) + "\n")
    for kernel, use in table.items():
        print(
            f"{use['registers']:4} registers {use['shared']:6} B shared {use['threads']:5} threads  {kernel}"
        )
    found = problems(uses, json.loads(RECORD.read_text()) if RECORD.exists() else {})
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
