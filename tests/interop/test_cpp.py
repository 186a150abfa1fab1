"""A C++ project outside of the tree finds the installed library, links it and runs."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tilefuse

ROOT = Path(__file__).parents[2]
STATED = re.findall(r"cmake_minimum_required\(VERSION (\d+)\.(\d+)", (ROOT / "CMakeLists.txt").read_text())
OF_TILEFUSE = (int(STATED[0][0]), int(STATED[0][1]))


def cmake(least: tuple[int, int] = (3, 20)) -> str:
    """The cmake of this environment or, where it has none, of PATH, which may be too old."""
    candidates = [Path(sys.executable).parent / "cmake"]
    try:
        from cmake import CMAKE_BIN_DIR
    except ImportError:
        pass
    else:
        candidates.append(Path(CMAKE_BIN_DIR) / "cmake")
    found = next((str(path) for path in candidates if path.is_file()), shutil.which("cmake"))
    if found is None or shutil.which("g++") is None:
        pytest.skip("needs cmake and g++: pip install cmake, apt-get install g++")
    version = re.search(r"version (\d+)\.(\d+)", subprocess.check_output([found, "--version"], text=True))
    if version is None or tuple(map(int, version.groups())) < least:
        pytest.skip(f"needs cmake {least[0]}.{least[1]}: pip install cmake")
    return found


def run(*command: str | Path, **environment: str) -> str:
    command_line = [str(part) for part in command]
    done = subprocess.run(
        command_line, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_and_run(folder: Path, tilefuse_dir: str, linkage: str, isa: str) -> None:
    """The example, copied away from the tree, configured with nothing but the package's folder."""
    source, build = folder / "source", folder / "build"
    shutil.copytree(ROOT / "examples/cpp", source)
    options = [f"-Dtilefuse_DIR={tilefuse_dir}", f"-DSTATIC={'ON' if linkage == 'static' else 'OFF'}"]
    run(cmake(), "-S", source, "-B", build, "-DCMAKE_CXX_FLAGS=-Werror", *options)
    run(cmake(), "--build", build)
    libraries = run("ldd", build / "classify")
    assert ("libtilefuse.so" in libraries) == (linkage == "shared"), libraries
    printed = run(build / "classify", TILEFUSE_ISA=isa)
    assert re.match(rf"tilefuse \d+ on {isa}: gradient .* after training 0\.\d+\n", printed), printed


@pytest.mark.parametrize("linkage", ["shared", "static"])
def test_installed_package(linkage: str, tmp_path: Path) -> None:
    build_and_run(tmp_path, tilefuse.get_cmake_dir(), linkage, tilefuse._core.isa())


def test_project_in_c(tmp_path: Path) -> None:
    """Without C++ and OpenMP there is the shared library alone."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(plain LANGUAGES C)\n"
        f"find_package(tilefuse {tilefuse.__version__} CONFIG REQUIRED)\n"
        "add_executable(plain plain.c)\ntarget_link_libraries(plain PRIVATE tilefuse::tilefuse)\n"
    )
    (tmp_path / "plain.c").write_text(
        "#include <tilefuse/tilefuse.h>\nint main(void) { return tilefuse_version() != TILEFUSE_VERSION; }\n"
    )
    run(cmake(), "-S", tmp_path, "-B", tmp_path / "build", f"-Dtilefuse_DIR={tilefuse.get_cmake_dir()}")
    run(cmake(), "--build", tmp_path / "build")
    run(tmp_path / "build/plain")


def test_other_versions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(other LANGUAGES C)\n"
        "find_package(tilefuse 99 CONFIG REQUIRED)\n"
    )
    command = [
        cmake(),
        "-S",
        tmp_path,
        "-B",
        tmp_path / "build",
        f"-Dtilefuse_DIR={tilefuse.get_cmake_dir()}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"version: {tilefuse.__version__}" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-DTILEFUSE_ISAS=avx2;avx3"], "TILEFUSE_ISAS has 'avx3'; expected some of baseline"),
        (["-DTILEFUSE_ISAS=amx"], "TILEFUSE_ISAS has 'amx', which adds to 'avx512_bf16': add that too"),
        (["-DTILEFUSE_ISAS=avx2", "-DTILEFUSE_EMULATE_AVX512=ON"], "set TILEFUSE_ISAS to nothing"),
    ],
)
def test_instruction_sets_that_make_no_sense(options: list[str], says: str, tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("other processors have the baseline alone")
    command = [cmake(OF_TILEFUSE), "-S", str(ROOT), "-B", str(tmp_path), "-DTILEFUSE_PYTHON=OFF", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert says in re.sub(r"\s+", " ", done.stderr)


@pytest.mark.slow
def test_prefix_of_a_build_without_python(tmp_path: Path) -> None:
    build, prefix = tmp_path / "build", tmp_path / "prefix"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    run(
        cmake(OF_TILEFUSE),
        "-S",
        ROOT,
        "-B",
        build,
        *generator,
        *launcher,
        "-DTILEFUSE_PYTHON=OFF",
        "-DTILEFUSE_WERROR=ON",
        "-DTILEFUSE_ISAS=baseline",  # the others' kernels take minutes
    )
    run(cmake(OF_TILEFUSE), "--build", build, "-j", str(os.cpu_count()))
    run(cmake(OF_TILEFUSE), "--install", build, "--prefix", prefix)
    (config,) = prefix.glob("lib*/**/tilefuse-config.cmake")
    (soname,) = set(
        re.findall(r"SONAME.*\[(.*)\]", run("readelf", "-d", config.parents[2] / "libtilefuse.so"))
    )
    assert soname == "libtilefuse.so." + ".".join(tilefuse.__version__.split(".")[:2])
    for linkage in ("shared", "static"):
        build_and_run(tmp_path / linkage, str(config.parent), linkage, "baseline")
