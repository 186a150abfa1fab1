"""Matrix products, square and in the shapes of small networks."""

import pytest
import tilefuse
from _backends import Backend, shapes


@shapes((32, 784, 128), (128, 784, 512), (64, 64, 64), (256, 256, 256), (1024, 1024, 1024))
def test_matmul(backend: Backend, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = backend.normal(m, k), backend.normal(k, n)
    backend.time(lambda: backend.ops.matmul(a, b), flops=2 * m * n * k)


@shapes((128, 784, 512), (512, 512, 512))
@pytest.mark.parametrize("transposes", [(True, False), (False, True)], ids=["tn", "nt"])
def test_matmul_transposed(
    backend: Backend, shape: tuple[int, int, int], transposes: tuple[bool, bool]
) -> None:
    m, k, n = shape
    ta, tb = transposes
    a = backend.normal(k, m) if ta else backend.normal(m, k)
    b = backend.normal(n, k) if tb else backend.normal(k, n)
    backend.time(lambda: backend.ops.matmul(a, b, transpose_a=ta, transpose_b=tb), flops=2 * m * n * k)


@shapes((64, 32, 64, 32))
def test_matmul_batched(backend: Backend, shape: tuple[int, int, int, int]) -> None:
    batch, m, k, n = shape
    a, b = backend.normal(batch, m, k), backend.normal(batch, k, n)
    backend.time(lambda: backend.ops.matmul(a, b), flops=2 * batch * m * n * k)


@shapes((1024, 1024, 1024), (4096, 4096, 4096))
@pytest.mark.parametrize("precision", ["float32", "ieee", "split", "tf32", "bfloat16", "float16"])
def test_matmul_precision(backend: Backend, shape: tuple[int, int, int], precision: str) -> None:
    """On a GPU, beside CuPy's float32."""
    if not tilefuse.get_device().startswith("cuda"):
        pytest.skip("on CPUs: tilefuse bench matmul --precision")
    m, k, n = shape
    a, b = backend.normal(m, k), backend.normal(k, n)
    options = {"precision": precision} if backend.ops is tilefuse.ops else {}
    backend.time(lambda: backend.ops.matmul(a, b, **options), flops=2 * m * n * k)
