"""2-D convolutions and their gradients: layers of the examples, of ResNet-50 and of MobileNet."""

import pytest
from _backends import Backend

# images, height, width, channels, kernel, filters, strides, padding, groups
LAYERS = {
    "mnist-1": (32, 28, 28, 1, 3, 32, 1, "valid", 1),
    "mnist-2": (32, 13, 13, 32, 3, 64, 1, "valid", 1),
    "folder-1": (8, 150, 150, 3, 3, 32, 1, "valid", 1),
    "resnet-3x3": (8, 28, 28, 128, 3, 128, 1, "same", 1),
    "resnet-1x1": (8, 28, 28, 128, 1, 512, 1, "same", 1),
    "mobilenet-depthwise": (8, 56, 56, 128, 3, 128, 1, "same", 128),
}
layers = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())


@layers
def test_conv2d(backend: Backend, layer: tuple) -> None:
    n, h, w, c, k, f, strides, padding, groups = layer
    x, filters = backend.normal(n, h, w, c), backend.normal(k, k, c // groups, f)
    options = {"strides": strides, "padding": padding, "groups": groups}
    y = backend.ops.conv2d(x, filters, **options)
    backend.time(lambda: backend.ops.conv2d(x, filters, **options), flops=2 * y.size * k * k * c // groups)


@layers
def test_conv2d_backward(backend: Backend, layer: tuple) -> None:
    n, h, w, c, k, f, strides, padding, groups = layer
    x, filters = backend.normal(n, h, w, c), backend.normal(k, k, c // groups, f)
    options = {"strides": strides, "padding": padding, "groups": groups}
    dy = backend.normal(*backend.ops.conv2d(x, filters, **options).shape)
    backend.time(
        lambda: backend.ops.conv2d_backward(dy, x, filters, **options),
        flops=4 * dy.size * k * k * c // groups,
    )
