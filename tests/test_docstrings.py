"""The examples in docstrings run and give what they show."""

import doctest
import importlib
import pkgutil

import pytest
import tilefuse

MODULES = [
    module.name
    for module in pkgutil.walk_packages(tilefuse.__path__, "tilefuse.")
    if not module.name.endswith(("__main__", "._core", "._simt", "._simt_checked", "._cuda"))
]


# What the examples of a module need that tilefuse does not.
NEEDED = {
    "tilefuse.interop.keras": "keras",
    "tilefuse.interop.onnx": "onnx",
    "tilefuse.interop.sklearn": "sklearn",
    "tilefuse.interop.weights": "torch",
    "tilefuse.torch": "torch",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch, set_num_threads):  # the last undoes what an example sets
    needed = "torch" if name.startswith("tilefuse.interop.torch") else NEEDED.get(name)
    if needed:
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)  # for those that save files
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        pytest.skip(f"needs {missing.name}")
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
