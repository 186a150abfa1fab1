"""2-D convolutions and their gradients: layers of the examples, of ResNet-50 and of MobileNet.

They are some of those of `tilefuse bench conv`.
"""

import pytest
from _backends import Backend
from tilefuse._bench.conv import SWEEPS, Convolution

LAYERS = (
    "32x28x28x1 -> 32, 3x3",
    "32x13x13x32 -> 64, 3x3",
    "8x150x150x3 -> 32, 3x3",
    "4x28x28x128 -> 128, 3x3 pad 1",
    "8x28x28x128 -> 512, 1x1",
    "8x56x56x128 -> 128, 3x3 pad 1 groups 128",
)
SHAPES = {str(shape): shape for sweep in SWEEPS.values() for shape in sweep()}
layers = pytest.mark.parametrize("layer", [SHAPES[name] for name in LAYERS], ids=LAYERS)


@layers
def test_conv2d(backend: Backend, layer: Convolution) -> None:
    x, filters, _ = (backend.normal(*shape) for shape in layer.shapes)
    backend.time(lambda: backend.ops.conv2d(x, filters, **layer.options), flops=layer.operations)


@layers
def test_conv2d_backward(backend: Backend, layer: Convolution) -> None:
    x, filters, dy = (backend.normal(*shape) for shape in layer.shapes)
    backend.time(
        lambda: backend.ops.conv2d_backward(dy, x, filters, **layer.options), flops=2 * layer.operations
    )
