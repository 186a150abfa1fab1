"""What holds for every op: the processor's modes, threads, and each instruction set."""

import os
import subprocess
import sys

import numpy as np
import pytest
from tilefuse import _core

# A few fixed problems against the reference, in a process of its own; prints the instruction set that ran.
PROBE = """
import numpy as np
import tilefuse
from tilefuse import ops, reference as ref
from helpers.arrays import integers, normal
from helpers.compare import assert_close, assert_same

rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    a, b, bias = integers(rng, (37, 300), dtype), integers(rng, (300, 65), dtype), integers(rng, (65,), dtype)
    y = ops.dense(a, b, bias, "relu")
    assert_same(ops.matmul(a, b), a @ b)
    assert_same(y, ref.dense(a, b, bias, "relu"))
    dy = integers(rng, y.shape, dtype)
    gradients = ops.dense_backward(dy, a, b, y, "relu"), ref.dense_backward(dy, a, b, y, "relu")
    for actual, expected in zip(*gradients):
        assert_same(actual, expected)
    x = normal(rng, (13, 37), dtype)
    exact = ref.softmax(x.astype(np.float64))
    assert_close(ops.softmax(x), exact, magnitude=5 * exact, terms=37)
    w, g, m, v = ([normal(rng, (67,), dtype) ** 2] for _ in range(4))
    exact = [[z.astype(np.float64) for z in zs] for zs in (w, g, m, v)]
    ref.adam_step(*exact, step=3)
    ops.adam_step(w, g, m, v, step=3)
    assert_close(w[0], exact[0][0], magnitude=np.abs(exact[0][0]) + 1)
    assert (ops.dropout(x, 0.5)[1] == ref.dropout(x, 0.5)[1]).all()
print(tilefuse._core.isa())
"""


@pytest.mark.parametrize("isa", _core.available_isas())
def test_each_instruction_set(isa):
    tests = os.path.dirname(os.path.dirname(__file__))
    path = os.pathsep.join([tests, *filter(None, sys.path)])
    env = {**os.environ, "TILEFUSE_ISA": isa, "PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", PROBE], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == isa


def test_unknown_instruction_set():
    env = {**os.environ, "TILEFUSE_ISA": "mmx"}
    run = subprocess.run(
        [sys.executable, "-c", "import tilefuse; tilefuse._core.isa()"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "mmx" in run.stderr
    assert "baseline" in run.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_denormals_of_the_caller_are_kept(ops, set_num_threads, threads):
    """Kernels flush denormals to zero; the mode of the thread that calls them is restored."""
    set_num_threads(threads)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 300)).astype(np.float32)
    w, g, m, v = ([x.copy()] for _ in range(4))
    small = np.full(3, 1e-40, np.float32)

    def denormals_live():
        return bool((small * np.float32(1) != 0).all() and np.float32(1e-30) * np.float32(1e-10) != 0)

    assert denormals_live()
    for call in (
        lambda: ops.matmul(x, x),
        lambda: ops.dense_backward(x, x, x, x, "relu"),
        lambda: ops.gelu(x),
        lambda: ops.softmax(x),
        lambda: ops.mean_squared_error(x, x),
        lambda: ops.dropout(x, 0.5),
        lambda: ops.adam_step(w, g, m, [np.abs(v[0])], step=1),
        lambda: ops.clip_by_norm(g, 1.0),
    ):
        call()
        assert denormals_live()


def test_denormal_inputs_count_as_zero_or_as_themselves(ops):
    x = np.full((4, 64), 1e-41, np.float32)
    assert (np.abs(ops.matmul(x, x.T)) <= 1e-38).all()
    assert (np.abs(ops.relu(x)) <= 1e-40).all()


def test_ops_run_in_python_threads(ops):
    """Several Python threads may call ops at once; each gets its own result."""
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(1)
    arrays = [rng.integers(-4, 5, (60, 70)).astype(np.float32) for _ in range(8)]

    def work(a):
        return [ops.matmul(a, a, transpose_b=True) for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        for a, results in zip(arrays, pool.map(work, arrays), strict=True):
            for result in results:
                assert (result == a @ a.T).all()
