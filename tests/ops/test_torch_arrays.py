"""PyTorch's tensors on the CPU: in without a copy, out as tensors, directly and through Python."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.calls import DIRECT, DY, B, W, X, as_tuple, each, of_dtype
from helpers.compare import assert_same, assert_same_bits
from helpers.memory import growth
from tilefuse import ops
from tilefuse import reference as ref

torch = pytest.importorskip("torch", reason="these arrays are PyTorch's")
pytestmark = pytest.mark.skipif(
    not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"), reason="PyTorch 2.10 has the table of functions"
)


@pytest.fixture(autouse=True)
def on_the_cpu() -> Iterator[None]:
    before = tilefuse.get_device()
    tilefuse.set_device("cpu")
    yield
    tilefuse.set_device(before)


def tensors(values: Any) -> Any:
    return each(values, torch.tensor)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("name", DIRECT)
def test_results_are_tensors_with_numpy_s_bits(name: str, direct: bool) -> None:
    op = getattr(ops, name)
    if not direct:
        op = op.__wrapped__
    for dtype in ("f", "d"):
        arrays, options = (of_dtype(given, dtype) for given in DIRECT[name])
        results = as_tuple(op(*tensors(arrays), **tensors(options)))
        expected = as_tuple(op(*arrays, **options))
        for result, right in zip(results, expected, strict=True):
            assert type(result) is torch.Tensor
            assert result.is_contiguous()
            assert not result.requires_grad
            assert_same_bits(result.numpy(), right)


@pytest.mark.parametrize("name", DIRECT)
def test_calls_with_numpy_s_arrays_beside(name: str) -> None:
    args, options = DIRECT[name]
    arrays = [i for i, a in enumerate(args) if isinstance(a, np.ndarray)]
    for which in arrays[:2]:
        given = [tensors(a) if i == which else a for i, a in enumerate(args)]
        for result in as_tuple(getattr(ops, name)(*given, **options)):
            assert type(result) is torch.Tensor


@pytest.mark.parametrize("op", [ops.matmul, ops.matmul.__wrapped__])
def test_layouts(op: Any) -> None:
    a = torch.tensor(X)
    wide = torch.zeros(14, 10)
    wide[::2, ::2] = a
    for x in (a, wide[::2, ::2], a.T.contiguous().T, torch.tensor(X[:1]).expand(7, 5)):
        assert_same(op(x, torch.tensor(W)).numpy(), x.numpy() @ W)
        assert_same(op(x.T, torch.tensor(W), transpose_a=True).numpy(), x.numpy() @ W)
        assert_same(ops.relu(x).numpy(), ref.relu(x.numpy()))
    assert ops.matmul(torch.zeros(0, 5), torch.tensor(W)).shape == (0, 3)
    assert_same(ops.matmul(torch.zeros(7, 0), torch.zeros(0, 3)).numpy(), np.zeros((7, 3)))
    assert_same(ops.relu(torch.tensor(-3.0)).numpy(), np.zeros((), "f"))
    assert_same(op(a.reshape(7, 1, 1, 5), torch.tensor(W)).numpy(), X.reshape(7, 1, 1, 5) @ W)
    deep = a.reshape((1,) * 8 + (7, 5))
    assert ops.relu(deep).shape == deep.shape


@pytest.mark.parametrize("op", [ops.matmul, ops.matmul.__wrapped__])
def test_out(op: Any) -> None:
    memory = torch.full((9, 6), 7.0)
    out = memory[:7, 2:5]
    assert op(torch.tensor(X), torch.tensor(W), out=out, beta=2.0) is out
    assert_same(out.numpy(), X @ W + 14)
    memory[:7, 2:5] = 7
    assert bool((memory == 7).all())
    square = torch.tensor(W[:3])
    expected = W[:3] @ W[:3]
    assert op(square, square, out=square) is square
    assert_same(square.numpy(), expected)


def test_bfloat16() -> None:
    pytest.importorskip("ml_dtypes", reason="NumPy knows no bfloat16 without it")
    a, b = torch.tensor(X).bfloat16(), torch.tensor(W).bfloat16()
    for op, options in itertools.product([ops.matmul, ops.matmul.__wrapped__], [{}, {"activation": "relu"}]):
        y = op(a, b, **options)
        assert y.dtype == torch.bfloat16
        exact = X @ W
        assert torch.equal(y, torch.tensor(exact if not options else np.maximum(exact, 0)).bfloat16())
        out = torch.empty(7, 3)
        assert op(a, b, out=out, bias=torch.tensor(B)) is out
        assert_same(out.numpy(), X @ W + B)
        half = torch.empty(7, 3, dtype=torch.bfloat16)
        assert op(a, b, out=half, bias=torch.tensor(B).bfloat16()) is half
        assert torch.equal(half, torch.tensor(X @ W + B).bfloat16())
    with pytest.raises(TypeError, match="x has dtype bfloat16; expected float32 or float64"):
        ops.relu(a)


def test_tensors_that_autograd_records() -> None:
    w = torch.nn.Parameter(torch.tensor(W))
    x = torch.tensor(X, requires_grad=True)
    for call in (
        lambda: ops.matmul(torch.tensor(X), w),
        lambda: ops.relu(x),
        lambda: ops.sgd_step([w], [torch.tensor(W)]),
        lambda: ops.matmul(torch.tensor(X), torch.tensor(W), out=torch.zeros(7, 3, requires_grad=True)),
    ):
        with pytest.raises(TypeError, match=r"tilefuse.interop.torch, pass .detach\(\) of it, or.*no_grad"):
            call()
    assert_same(ops.matmul(torch.tensor(X), w.detach()).numpy(), X @ W)
    for guard in (torch.no_grad(), torch.inference_mode()):
        with guard:
            y = ops.matmul(x, w)
            assert_same(y.numpy(), X @ W)
            assert_same(ops.matmul.__wrapped__(x, w).numpy(), X @ W)
            assert type(y) is torch.Tensor
    with torch.no_grad():
        ops.sgd_step([w], [torch.tensor(W)], learning_rate=1.0)
        assert_same(w.detach().numpy(), 0 * W)
    linear = torch.relu(ops.matmul(x.detach(), w.detach()).requires_grad_())
    linear.sum().backward()  # what comes out is a tensor like any other


def test_optimizers_and_clipping_in_place() -> None:
    w, m, v = torch.tensor(W), torch.zeros(5, 3), torch.zeros(5, 3)
    expected = [W.copy(), np.zeros_like(W), np.zeros_like(W)]
    ops.adam_step([w], [torch.ones(5, 3)], [m], [v], step=1)
    ops.adam_step([expected[0]], [np.ones_like(W)], [expected[1]], [expected[2]], step=1)
    for tensor, right in zip((w, m, v), expected, strict=True):
        assert_same_bits(tensor.numpy(), right)
    g = torch.tensor(DY)
    norm = ops.clip_by_global_norm([g], 1.0)
    assert norm == pytest.approx(np.linalg.norm(DY))
    assert float(g.norm()) == pytest.approx(1)
    with pytest.raises(ValueError, match="not contiguous"):
        ops.sgd_step([w.T], [w.T])
    mean, variance = torch.zeros(5), torch.ones(5)
    ops.batch_norm(torch.tensor(X), None, None, mean, variance, training=True, momentum=0.0)
    np.testing.assert_allclose(mean, X.mean(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(2, dtype=torch.float16), "dtype float16; expected float32 or float64"),
        (lambda: torch.zeros(2, dtype=torch.int64), "dtype int64; expected float32 or float64"),
        (lambda: torch.zeros(2, device="meta"), "x is a Tensor whose memory can't be used"),
        (lambda: torch.zeros(2, 2).to_sparse(), "x is a Tensor whose memory can't be used"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj().imag, r"pass .resolve_neg\(\) of it"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj().imag[:1], r"pass .resolve_neg\(\) of it"),
        (lambda: torch._neg_view(torch.ones(3)), r"pass .resolve_neg\(\) of it"),
    ],
)
def test_what_cannot_be_used(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ops.relu(make())
    with pytest.raises(TypeError, match="float16" if "float16" in message else message.replace("x ", "a ")):
        ops.matmul(make(), torch.zeros(2, 2))


def test_inside_of_transforms() -> None:
    with pytest.raises(TypeError, match="whose memory can't be used"):
        torch.vmap(ops.relu)(torch.zeros(2, 3))


def test_memory_is_freed_and_outlives_its_source() -> None:
    for op in (ops.relu, ops.relu.__wrapped__):
        x = torch.tensor(X)
        y = op(x)
        part = y[3:]
        del x, y
        gc.collect()
        junk = [torch.full((7, 5), 9.0) for _ in range(100)]
        assert_same(part.numpy(), ref.relu(X)[3:])
        del junk
    thread = threading.Thread(target=list.clear, args=([ops.relu.__wrapped__(torch.tensor(X))],))
    thread.start()
    thread.join()


def test_a_tape_sees_calls_with_tensors() -> None:
    x, w = torch.tensor(X), torch.tensor(W)
    with tilefuse.GradientTape() as tape:
        y = ops.relu(ops.matmul(x, w))
    dw = tape.gradient(y, w)
    assert type(dw) is torch.Tensor
    assert_same(dw.numpy(), X.T @ (X @ W > 0))


@pytest.mark.parametrize("name", ["relu", "add", "matmul"])
def test_no_memory_but_the_result_s(name: str) -> None:
    x, y, out = (torch.ones(4096, 4096) for _ in range(3))
    size = x.nbytes
    op = getattr(ops, name)
    if name == "matmul":
        given: tuple[Any, ...] = (x[:, :64], x[:64])
    else:
        given = (x,) if name == "relu" else (x, y)
    for call in (op, op.__wrapped__):
        call(*given)
        assert 0.9 < growth(lambda call=call: call(*given)) / size < 1.1
    if name == "matmul":
        assert growth(lambda: ops.matmul(*given, out=out)) / size < 0.1
    assert growth(lambda: (ops.sgd_step([x], [y]), ops.clip_by_value([y], 0.5))) / size < 0.1
    assert growth(lambda: ops.relu(x.T)) / size > 1.9  # a documented copy: seen here


def test_models_take_tensors() -> None:
    model = tilefuse.Sequential([tilefuse.Input((5,)), tilefuse.layers.Dense(2)])
    assert_same(model.predict(torch.tensor(X)), model.predict(X))
    model.compile("sgd", "mean_squared_error")
    assert model.evaluate(torch.tensor(X), torch.tensor(X[:, :2]), verbose=0) == pytest.approx(
        model.evaluate(X, X[:, :2], verbose=0)
    )
    with pytest.raises(TypeError, match=r"x must be an array.*pass .detach\(\) of it"):
        model.predict(torch.tensor(X, requires_grad=True))


@pytest.mark.parametrize("m", [2**29, 2**61, 2**62])
def test_results_that_no_memory_holds(m: int) -> None:
    with pytest.raises(MemoryError):
        ops.matmul(torch.empty(m, 0), torch.empty(0, 2**30))
