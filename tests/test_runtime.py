"""Settings of the process, and what importing the package costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tilefuse
from tilefuse import layers


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    threads = tilefuse.get_num_threads()
    yield
    tilefuse.set_num_threads(threads)
    tilefuse.set_precision("float32")


def in_a_new_process(code: str, timeout: float | None = None) -> Any:
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout)
    return json.loads(result.stdout)


def test_threads() -> None:
    tilefuse.set_num_threads(3)
    assert tilefuse.get_num_threads() == 3
    with pytest.raises(ValueError, match="at least 1, got 0"):
        tilefuse.set_num_threads(0)
    with pytest.raises(TypeError, match="takes an integer, got 'two'"):
        tilefuse.set_num_threads("two")  # type: ignore[arg-type]


def test_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert tilefuse.set_device("cpu") == "cpu"
    chosen = tilefuse.set_device("auto")
    assert f"'auto' is {chosen!r}" in capsys.readouterr().out
    assert tilefuse.get_device() == chosen
    tilefuse.set_device("cpu")
    with pytest.raises(ValueError, match="Did you mean 'cuda"):
        tilefuse.set_device("cuda:x")
    with pytest.raises(ValueError, match="Unknown device 'gpu'"):
        tilefuse.set_device("gpu")
    assert tilefuse.get_device() == "cpu"


def test_precision() -> None:
    dtypes = {"float64": np.float64, "ieee": np.float32, "bfloat16": np.float32, "float32": np.float32}
    for precision, dtype in dtypes.items():
        tilefuse.set_precision(precision)
        assert tilefuse.get_precision() == precision
        assert layers.Dense(2).dtype == dtype
    with pytest.raises(ValueError, match=r"CUDA devices only, call set_device.*Available: 'float32', 'ieee'"):
        tilefuse.set_precision("tf32")
    with pytest.raises(ValueError, match="'single' is not available here"):
        tilefuse.set_precision("single")


def test_seed() -> None:
    def draw() -> list[np.ndarray]:
        tilefuse.seed(12)
        model = tilefuse.Sequential([tilefuse.Input((3,)), layers.Dense(4), layers.Dense(2)])
        return model.get_weights()

    for u, v in zip(draw(), draw(), strict=True):
        np.testing.assert_array_equal(u, v)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        tilefuse.seed(-1)
    with pytest.raises(TypeError, match="takes an integer"):
        tilefuse.seed("now")  # type: ignore[arg-type]


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    config = tilefuse.show_config("dicts")
    assert config is not None
    assert config["tilefuse"] == tilefuse.__version__
    assert config["instruction set"] in config["available instruction sets"]
    assert tilefuse.show_config() is None
    text = capsys.readouterr().out
    for name in ("tilefuse", "numpy", "processor", "threads", "precision", "build"):
        assert name in text
    with pytest.raises(ValueError, match="'stdout' or 'dicts'"):
        tilefuse.show_config("json")


def test_import_is_light() -> None:
    """Nothing beyond NumPy and a few modules of Python's own, and no thread (in time: 0.05 to 0.1 s)."""
    code = """
import json, os, sys
import numpy
before = set(sys.modules)
import tilefuse
threads = len(os.listdir("/proc/self/task"))
print(json.dumps([threads, sorted({m.partition(".")[0] for m in set(sys.modules) - before})]))
"""
    before = in_a_new_process("import json, os, numpy; print(json.dumps(len(os.listdir('/proc/self/task'))))")
    threads, modules = in_a_new_process(code)
    assert threads == before
    assert set(modules) - sys.stdlib_module_names <= {"tilefuse", "numpy"}


def test_a_program_is_printed_while_another_thread_trains_it() -> None:
    # The run holds the program and takes the GIL for each report: whoever waits for it must not hold that.
    printed = in_a_new_process(
        """
import json, threading
import numpy as np
import tilefuse
from tilefuse import layers

model = tilefuse.Sequential([layers.Input((64,)), layers.Dense(256, "relu"), layers.Dense(10)])
model.compile("adam", tilefuse.losses.SparseCategoricalCrossentropy(from_logits=True))
x, y = np.ones((4096, 64), "float32"), np.zeros(4096, "int32")
model.fit(x[:32], y[:32], batch_size=32, verbose=0)
training = threading.Thread(target=lambda: model.fit(x, y, batch_size=32, epochs=5, verbose=0))
training.start()
printed = []
while training.is_alive():
    printed.append(len(repr(model.program)) + len(model.program.stages) + model.program.bytes)
training.join()
print(json.dumps(len(printed) > 0 and len(set(printed)) == 1))
""",
        timeout=60,
    )
    assert printed is True


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tilefuse.nothing  # noqa: B018
    assert tilefuse.datasets.__name__ == "tilefuse.datasets"


def test_variable() -> None:
    v = tilefuse.Variable([[1.0, 2.0]], name="w")
    array = v.value
    v.assign([[3.0, 4.0]])
    assert v.value is array
    assert (v.shape, v.dtype, v.ndim, v.size, len(v)) == ((1, 2), np.float32, 2, 2, 1)
    assert np.asarray(v) is array
    assert np.array(v, dtype=np.float64).dtype == np.float64
    v.numpy()[0, 0] = 9
    assert array[0, 0] == 3
    assert repr(v) == "<Variable w, shape=(1, 2), dtype=float32, trainable=True>"
    with pytest.raises(ValueError, match=r"'w' has shape \(1, 2\); got a value of shape \(2,\)"):
        v.assign([1.0, 2.0])
