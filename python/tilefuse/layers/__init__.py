"""Layers, one file a family."""

from .._config import lookup
from .base import Layer
from .conv import Conv2D, DepthwiseConv2D
from .core import Activation, Dense, Dropout, Input
from .pool import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from .reshaping import Flatten, Reshape

__all__ = [
    "Activation",
    "AveragePooling2D",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Input",
    "Layer",
    "MaxPooling2D",
    "Reshape",
    "from_config",
]

_CLASSES: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Activation,
        AveragePooling2D,
        Conv2D,
        Dense,
        DepthwiseConv2D,
        Dropout,
        Flatten,
        GlobalAveragePooling2D,
        GlobalMaxPooling2D,
        MaxPooling2D,
        Reshape,
    )
}


def from_config(config: object) -> Layer:
    """Return the layer that `tilefuse.Sequential.get_config` wrote down as ``{"class_name", "config"}``."""
    return lookup("layer", config, Layer, _CLASSES)
