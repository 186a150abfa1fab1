"""The C API: what it exports, and what a C program sees of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tilefuse

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
HEADERS = sorted(path.name for path in (CSRC / "include/tilefuse").glob("*.h"))
CASES = ["null_arguments", "garbage", "zeros", "arguments", "workspace", "library"]
LANGUAGES = {"c": ["gcc", "-std=c11", "-Wstrict-prototypes"], "c++": ["g++", "-std=c++17"]}
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def include() -> Path:
    return Path(tilefuse.get_include())


def library() -> Path:
    return include().parent / "lib" / "libtilefuse.so"


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("gcc")
    binary = tmp_path_factory.mktemp("c_api") / "c_api"
    folders = ["-I", str(include()), "-I", str(CSRC), "-I", str(CSRC / "include")]
    link = ["-L", str(library().parent), "-ltilefuse", f"-Wl,-rpath,{library().parent}"]
    command = [*LANGUAGES["c"], *STRICT, "-O1", *folders, str(HERE / "c_api.c"), "-o", str(binary), *link]
    subprocess.run(command, check=True)
    return binary


@pytest.mark.parametrize("case", CASES)
def test_program(program: Path, case: str) -> None:
    done = subprocess.run([program, case], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_unavailable_instruction_set(program: Path) -> None:
    environment = {**os.environ, "TILEFUSE_ISA": "none"}
    done = subprocess.run(
        [program, "unavailable"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("header", HEADERS)
def test_header_by_itself(header: str, language: str, tmp_path: Path) -> None:
    need(LANGUAGES[language][0])
    source = tmp_path / "source"
    source.write_text(2 * f"#include <tilefuse/{header}>\n" + "extern int nothing;\n")
    folder = CSRC / "include"
    command = [*LANGUAGES[language], *STRICT, "-I", str(folder), "-fsyntax-only", "-x", language, str(source)]
    subprocess.run(command, check=True)


def test_installed_headers_are_those_of_the_cpu() -> None:
    installed = {path.name: path.read_bytes() for path in (include() / "tilefuse").iterdir()}
    assert installed == {
        name: (CSRC / "include/tilefuse" / name).read_bytes() for name in HEADERS if name != "mlp.h"
    }


def test_exports_are_the_registry_and_nothing_else() -> None:
    """The library has the functions that the header declares, two for each kernel, and no other symbol."""
    need("nm")
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", str(library())], capture_output=True, text=True, check=True
    ).stdout
    exported = {line.split()[-1] for line in listing.splitlines()}
    header = (CSRC / "include/tilefuse/tilefuse.h").read_text()
    declared = set(re.findall(r"^TILEFUSE_API .*?\b(tilefuse_\w+)\(", header, re.MULTILINE))
    registry = (CSRC / "common/registry.h").read_text().partition("CUDA devices have")[0]
    kernels = set(re.findall(r"kernel\((\w+)\)", registry)) - {"kernel"}
    general = {"last_error", "version", "isa", "get_num_threads", "set_num_threads"}
    names = kernels | {f"{kernel}_workspace" for kernel in kernels} | general
    assert len(kernels) >= 24
    assert exported == declared == {f"tilefuse_{name}" for name in names}
