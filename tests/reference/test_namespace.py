import subprocess
import sys
import types

import numpy as np
from tilefuse import ops, reference
from tilefuse.reference import get_array_module


def test_numpy_by_default():
    assert get_array_module() is np
    assert get_array_module(np.ones(1), None, 2.0) is np


def test_cupy_if_an_argument_is_cupys(monkeypatch):
    cupy = types.ModuleType("cupy")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    array = type("ndarray", (), {"__module__": "cupy"})()
    assert get_array_module(np.ones(1), array) is cupy


def test_importing_the_reference_does_not_import_cupy():
    code = "import sys, tilefuse.reference; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_op_has_a_reference():
    ours = set(reference.__all__) - {"get_array_module"}
    assert ours == set(ops.__all__)
