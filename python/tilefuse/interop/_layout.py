"""The order of an image's elements where channels come first: in ONNX, and in PyTorch."""

from __future__ import annotations

import numpy as np

#: Height, width and channels.
Image = tuple[int, int, int]


def channels_first(rows: np.ndarray, image: Image) -> np.ndarray:
    """Return the rows [h * w * c, ...] that go with a flattened image in the order of [c, h, w]."""
    return np.moveaxis(rows.reshape(*image, *rows.shape[1:]), 2, 0).reshape(rows.shape)


def channels_last(rows: np.ndarray, image: Image) -> np.ndarray:
    """Return rows in the order of [c, h, w] in that of [h, w, c]: the inverse of `channels_first`."""
    height, width, channels = image
    return np.moveaxis(rows.reshape(channels, height, width, *rows.shape[1:]), 0, 2).reshape(rows.shape)
