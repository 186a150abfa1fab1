"""Dense layers with bias and activation, forward and backward: [batch, inputs] to [batch, outputs]."""

from _backends import Backend, shapes

LAYERS = shapes((32, 784, 128), (128, 784, 64), (128, 784, 512))


@LAYERS
def test_dense(backend: Backend, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    x, w, b = backend.normal(m, k), backend.normal(k, n), backend.normal(n)
    backend.time(lambda: backend.ops.dense(x, w, b, "relu"), flops=2 * m * n * k)


@LAYERS
def test_dense_backward(backend: Backend, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    x, w, b, dy = backend.normal(m, k), backend.normal(k, n), backend.normal(n), backend.normal(m, n)
    y = backend.ops.dense(x, w, b, "relu")
    backend.time(lambda: backend.ops.dense_backward(dy, x, w, y, "relu"), flops=4 * m * n * k)
