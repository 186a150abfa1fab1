"""Programs of the executor (csrc/simt) and these tests' kernels, compiled as they are needed.

What was compiled is kept in pytest's cache, for as long as its sources stay the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
EXECUTOR = sorted((CSRC / "simt").glob("*.cpp"))

COMMON = [
    *("-std=gnu++20", "-O2", "-g1", "-fPIC", "-ffp-contract=off", "-Wno-psabi"),
    *("-DTILEFUSE_SIMT", "-DTILEFUSE_ISA=device", f"-I{CSRC}", f"-I{CSRC / 'include'}"),
]
if platform.machine() in ("x86_64", "AMD64"):
    COMMON.append("-march=x86-64-v3")
CHECKED = ["-DTILEFUSE_SIMT_CHECKED"]
# As in csrc/simt/CMakeLists.txt.
INSTRUMENTED = [
    *("-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0", "-fno-optimize-sibling-calls"),
    *("-fno-tree-vectorize", "-fno-tree-loop-distribute-patterns", "-fno-store-merging", "-fno-ipa-icf"),
]

# Runs the program with these arguments, in this order of threads; gives what it prints.
Program = Callable[[Sequence[str], str], str]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compile_program(name: str, build: str, folder: Path) -> Path:
    """`name`.cu and `name`_*.cu with the executor, "plain" or "checked"; compiled where that is not done."""
    folder.mkdir(parents=True, exist_ok=True)
    checked = build == "checked"
    headers = [HERE / "harness.h", *(CSRC / "cuda").glob("*.*h")]
    headers += [
        path for folder in ("simt", "common", "include/tilefuse") for path in (CSRC / folder).glob("*.h")
    ]
    headers.sort()
    shared = hashlib.sha256(b"".join(path.read_bytes() for path in headers))

    def compile_one(source: Path) -> Path:
        flags = COMMON + (CHECKED if checked else [])
        if checked and source.suffix == ".cu":
            flags = flags + INSTRUMENTED
        key = shared.copy()
        text = source.read_bytes()
        key.update(" ".join(flags).encode() + text)
        for included in re.findall(rb'^#include "(cuda/\w+\.cu)"', text, re.MULTILINE):
            key.update((CSRC / included.decode()).read_bytes())
        result = folder / f"{source.stem}-{build}-{key.hexdigest()[:16]}.o"
        if not result.exists():
            partial = result.with_suffix(".partial")
            command = ["g++", *flags, "-x", "c++", "-c", str(source), "-o", str(partial)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            partial.rename(result)
        return result

    with locked(folder / f"{build}.lock"):
        with ThreadPoolExecutor(2) as pool:
            sources = [HERE / f"{name}.cu", *HERE.glob(f"{name}_*.cu"), *EXECUTOR]
            objects = list(pool.map(compile_one, sources))
        linked = hashlib.sha256(" ".join(map(str, objects)).encode()).hexdigest()[:16]
        program = folder / f"{name}-{build}-{linked}"
        if not program.exists():
            partial = program.with_suffix(".partial")
            subprocess.run(["g++", "-o", str(partial), *map(str, objects), "-ldl"], check=True)
            partial.rename(program)
        for made in (program, *objects):
            for old in folder.glob(f"{made.name.rsplit('-', 1)[0]}-*"):
                if old.name[-18:] != made.name[-18:] and old.suffix == made.suffix:
                    old.unlink()
    return program


@pytest.fixture(scope="session")
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Program]:
    """``compiled("kernels", "plain")``: a function that runs this program."""
    if not shutil.which("g++"):
        pytest.skip("the executor's tests compile kernels, and g++ is missing")
    if not EXECUTOR:
        pytest.skip(f"the executor's tests need its sources, which are not in {CSRC}")
    cache = getattr(request.config, "cache", None)  # pytest -p no:cacheprovider
    folder = Path(cache.mkdir("simt")) if cache else tmp_path_factory.mktemp("simt")
    programs: dict[tuple[str, str], Path] = {}

    def get(name: str, build: str) -> Program:
        if (name, build) not in programs:
            programs[name, build] = compile_program(name, build, folder)
        path = programs[name, build]

        def run(arguments: Sequence[str], order: str = "forward") -> str:
            command, environment = [str(path), *arguments], {**os.environ, "TILEFUSE_SIMT_ORDER": order}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        return run

    return get
