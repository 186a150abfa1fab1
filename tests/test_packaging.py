"""What holds the package together besides code: versions, files, and commands that the documents promise."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilefuse
from tilefuse import _core

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("python/tilefuse/**/*.md")]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def distribution() -> metadata.Distribution:
    """The installed package; there is none where tilefuse is imported from its sources."""
    try:
        return metadata.distribution("tilefuse")
    except metadata.PackageNotFoundError:
        pytest.skip("tilefuse is not installed")


def test_one_version() -> None:
    version = tilefuse.__version__
    assert PROJECT["version"] == version
    assert _core.build_info()["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_package_is_typed_and_has_its_data() -> None:
    package = Path(tilefuse.__file__).parent
    for name in ("py.typed", "_core.pyi", "datasets/digits_sample/README.md"):
        assert (package / name).is_file(), name


def test_installed_package(distribution: metadata.Distribution) -> None:
    assert distribution.version == tilefuse.__version__
    (entry,) = distribution.entry_points.select(group="console_scripts")
    assert (entry.name, entry.value) == ("tilefuse", "tilefuse.cli:main")
    assert distribution.metadata["License-Expression"] == "BSD-3-Clause"


def test_size_of_the_installed_package(distribution: metadata.Distribution) -> None:
    if "wide" in _core.available_isas():
        pytest.skip("built with TILEFUSE_EMULATE_AVX512: no package for users")
    # The executor of CUDA kernels is for tests.
    files = [file for file in distribution.files or [] if not file.name.startswith("_simt")]
    sizes = {str(file): Path(file.locate()).stat().st_size for file in files}
    assert 1e6 < sum(sizes.values()) < 60e6, sizes


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_python_in_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_num_threads: Callable[[int], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in blocks(README, "python"):
        exec(compile(code, "README.md", "exec"), names)
    assert Path("curves.png").exists()
    model = tilefuse.load_model("digits.safetensors")
    assert model.count_params() == 101_770
    set_num_threads(2)
    model.fit(np.zeros((32, 28, 28)), np.zeros(32), verbose=0)
    (printed,) = (text for text in blocks(README, "text") if text.startswith("Program:"))
    assert str(model.program) == printed


def test_extras_in_documents_exist() -> None:
    extras = set(PROJECT["optional-dependencies"])
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for named in re.findall(r'pip install .*"\.\[([a-z,]+)\]"', path.read_text()):
            assert set(named.split(",")) <= extras


def test_commands_in_readme_are_there() -> None:
    """Each script that is named exists, and each tilefuse command has its options."""
    text = "\n".join(blocks(README, "sh"))
    for script in re.findall(r"python (benchmarks/\S+)", text):
        assert (ROOT / script).is_file()
    for command, rest in re.findall(r"^tilefuse (\w+)(.*)$", text, re.MULTILINE):
        usage = [sys.executable, "-m", "tilefuse", command, "--help"]
        help_text = subprocess.run(usage, capture_output=True, text=True, check=True).stdout
        for option in re.findall(r"--\w+", rest):
            assert option in help_text


def test_no_family_lacks_a_companion() -> None:
    """A family has the same name among the functions, the reference, the tests and the benchmarks."""
    families = {path.stem for path in (ROOT / "python/tilefuse/ops").glob("[a-z]*.py")}
    assert families
    for family in families:
        for companion in (
            f"python/tilefuse/reference/{family}.py",
            f"tests/ops/test_{family}.py",
            f"benchmarks/test_{family}.py",
        ):
            assert (ROOT / companion).is_file(), companion


def test_sources_are_portable() -> None:
    """Nothing is built for the machine at hand only, nor against the rules of floating-point arithmetic."""
    for path in [ROOT / "CMakeLists.txt", *ROOT.glob("csrc/**/CMakeLists.txt")]:
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        assert not re.search(r"-march=native|-ffast-math|-Ofast", "\n".join(lines))
