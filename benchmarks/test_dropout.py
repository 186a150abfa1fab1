"""Dropout, whose mask follows from a seed and the number of the step."""

from _backends import Backend, shapes

SIZES = shapes((32, 128), (1024, 1024))


@SIZES
def test_dropout(backend: Backend, shape: tuple[int, int]) -> None:
    x = backend.normal(*shape)
    backend.time(lambda: backend.ops.dropout(x, 0.2, seed=1, step=1), bytes_moved=2 * x.nbytes)


@SIZES
def test_dropout_backward(backend: Backend, shape: tuple[int, int]) -> None:
    x, dy = backend.normal(*shape), backend.normal(*shape)
    _, mask = backend.ops.dropout(x, 0.2, seed=1, step=1)
    backend.time(lambda: backend.ops.dropout_backward(dy, mask, 0.2), bytes_moved=2 * x.nbytes)
