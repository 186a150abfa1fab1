"""Layers, one file a family."""

from .._config import lookup
from .base import Layer
from .conv import Conv2D, DepthwiseConv2D
from .core import Activation, Dense, Dropout
from .merging import Add
from .norm import BatchNormalization, LayerNormalization, RMSNormalization
from .pool import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from .reshaping import Flatten, Reshape
from .symbol import Input, Symbol

__all__ = [
    "Activation",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Input",
    "Layer",
    "LayerNormalization",
    "MaxPooling2D",
    "RMSNormalization",
    "Reshape",
    "Symbol",
    "from_config",
]

_CLASSES: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Activation,
        Add,
        AveragePooling2D,
        BatchNormalization,
        Conv2D,
        Dense,
        DepthwiseConv2D,
        Dropout,
        Flatten,
        GlobalAveragePooling2D,
        GlobalMaxPooling2D,
        LayerNormalization,
        MaxPooling2D,
        RMSNormalization,
        Reshape,
    )
}


def from_config(config: object) -> Layer:
    """Return the layer that `tilefuse.Sequential.get_config` wrote down as ``{"class_name", "config"}``."""
    return lookup("layer", config, Layer, _CLASSES)
