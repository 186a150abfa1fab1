"""Losses, each with its gradient in the same pass."""

from _backends import Backend, shapes


@shapes((32, 10), (128, 1000), (4096, 1000))
def test_softmax_cross_entropy(backend: Backend, shape: tuple[int, int]) -> None:
    logits, labels = backend.normal(*shape), backend.labels(*shape)
    backend.time(lambda: backend.ops.softmax_cross_entropy(logits, labels), bytes_moved=2 * logits.nbytes)


@shapes((128, 1), (4096, 100))
def test_sigmoid_binary_cross_entropy(backend: Backend, shape: tuple[int, int]) -> None:
    logits, labels = backend.normal(*shape), backend.zeros_and_ones(*shape)
    backend.time(
        lambda: backend.ops.sigmoid_binary_cross_entropy(logits, labels), bytes_moved=3 * logits.nbytes
    )


@shapes((128, 1), (4096, 100))
def test_mean_squared_error(backend: Backend, shape: tuple[int, int]) -> None:
    predicted, target = backend.normal(*shape), backend.normal(*shape)
    backend.time(lambda: backend.ops.mean_squared_error(predicted, target), bytes_moved=3 * predicted.nbytes)
