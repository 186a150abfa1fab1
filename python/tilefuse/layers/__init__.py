"""Layers, one file a family."""

from .._config import lookup
from .base import Layer
from .core import Activation, Dense, Dropout, Input
from .reshaping import Flatten, Reshape

__all__ = ["Activation", "Dense", "Dropout", "Flatten", "Input", "Layer", "Reshape", "from_config"]

_CLASSES: dict[str, type[Layer]] = {
    cls.__name__: cls for cls in (Activation, Dense, Dropout, Flatten, Reshape)
}


def from_config(config: object) -> Layer:
    """Return the layer that `tilefuse.Sequential.get_config` wrote down as ``{"class_name", "config"}``."""
    return lookup("layer", config, Layer, _CLASSES)
