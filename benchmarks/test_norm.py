"""Normalisation: batch norm of images, layer and RMS norm of rows."""

from _backends import Backend, shapes

IMAGES = shapes((32 * 28 * 28, 64), (32 * 7 * 7, 512))
ROWS = shapes((128, 256), (4096, 768))


@IMAGES
def test_batch_norm(backend: Backend, shape: tuple[int, int]) -> None:
    x, gamma, beta = backend.normal(*shape), backend.normal(shape[1]), backend.normal(shape[1])
    backend.time(
        lambda: backend.ops.batch_norm(x, gamma, beta, None, None, training=True), bytes_moved=3 * x.nbytes
    )


@IMAGES
def test_batch_norm_backward(backend: Backend, shape: tuple[int, int]) -> None:
    x, dy, gamma = backend.normal(*shape), backend.normal(*shape), backend.normal(shape[1])
    _, mean, inv_std = backend.ops.batch_norm(x, gamma, None, None, None, training=True)
    backend.time(
        lambda: backend.ops.batch_norm_backward(dy, x, gamma, mean, inv_std), bytes_moved=5 * x.nbytes
    )


@ROWS
def test_layer_norm(backend: Backend, shape: tuple[int, int]) -> None:
    x, gamma, beta = backend.normal(*shape), backend.normal(shape[1]), backend.normal(shape[1])
    backend.time(lambda: backend.ops.layer_norm(x, gamma, beta), bytes_moved=2 * x.nbytes)


@ROWS
def test_rms_norm(backend: Backend, shape: tuple[int, int]) -> None:
    x, gamma = backend.normal(*shape), backend.normal(shape[1])
    backend.time(lambda: backend.ops.rms_norm(x, gamma), bytes_moved=2 * x.nbytes)
