"""Random changes of images, so that a network sees each one anew in every epoch.

Arguments and their meaning are those of Keras. What happens to an image follows from a row of random numbers
that the caller draws, so that it does not matter which thread applies them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._config import parameters, suggestion

# How many random numbers `Augmentation.apply` takes for an image.
DRAWS = 10
_FILL_MODES = ("nearest", "constant", "reflect", "wrap")
_BRIGHTEST = 255.0
# Coordinates that leave the image by less are rounding errors.
_TOLERANCE = 1e-6

Matrix = tuple[float, float, float, float, float, float]


class _Change(NamedTuple):
    """One draw: where each pixel comes from, and what happens to its value."""

    matrix: Matrix
    steps: tuple[int, int]  # of rows and columns: -1 reverses them, where nothing is resampled
    shift: float
    gain: float


class Augmentation:
    """What is done to the pixels of each image: random changes, then a function of yours, then `rescale`.

    Rotation, shifts, shear and zoom are one affine map and the image is resampled once, bilinearly. Without
    arguments nothing is changed.

    Parameters
    ----------
    rotation_range : float or (float, float)
        Degrees: between ``-r`` and ``r``, or between two. Positive turns clockwise.
    width_shift_range, height_shift_range : float, int or sequence of float
        A float below 1 is a fraction of the image, a larger one pixels. An int n means a whole number of
        pixels between ``-n`` and ``n``, both excluded. A sequence holds the shifts to choose from, each with
        either sign.
    brightness_range : (float, float), optional
        The pixels are multiplied by a number between these.
    shear_range : float
        Degrees, between ``-s`` and ``s``.
    zoom_range : float or (float, float)
        Between ``1 - z`` and ``1 + z``, or between two; height and width separately. Below 1 enlarges.
    channel_shift_range : float
        A number between ``-c`` and ``c`` is added to all pixels.
    fill_mode : {"nearest", "constant", "reflect", "wrap"}
        What lies around the image: its edge ``aaa|abcd|ddd``, `cval`, its mirror image ``cba|abcd|dcb``, or
        its repetition ``bcd|abcd|abc``.
    cval : float
        For "constant".
    horizontal_flip, vertical_flip : bool
        Whether half of the images are mirrored, left to right or upside down.
    preprocessing_function : callable, optional
        Is given the changed image, float32 [h, w, c] with values from 0 to 255, and returns another of that
        shape. It runs in several threads.
    rescale : float, optional
        The pixels are multiplied by it at the end.

    Raises
    ------
    ValueError
        An argument makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> out = np.empty((1, 3, 1), np.float32)
    >>> Augmentation(rescale=0.5).apply(np.array([[2, 4, 6]], np.uint8), np.zeros(DRAWS), out)
    >>> out.ravel()
    array([1., 2., 3.], dtype=float32)
    """

    def __init__(
        self,
        *,
        rotation_range: float | tuple[float, float] = 0,
        width_shift_range: float | Sequence[float] = 0,
        height_shift_range: float | Sequence[float] = 0,
        brightness_range: tuple[float, float] | None = None,
        shear_range: float = 0,
        zoom_range: float | tuple[float, float] = 0,
        channel_shift_range: float = 0,
        fill_mode: str = "nearest",
        cval: float = 0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        preprocessing_function: Callable[[np.ndarray], Any] | None = None,
        rescale: float | None = None,
    ) -> None:
        self.rotation = _interval("rotation_range", rotation_range, around=0)
        self.width_shift = _shifts("width_shift_range", width_shift_range)
        self.height_shift = _shifts("height_shift_range", height_shift_range)
        self.brightness = _interval(
            "brightness_range", (1, 1) if brightness_range is None else brightness_range, lowest=0
        )
        self.shear = _interval("shear_range", shear_range, around=0)
        self.zoom = _interval("zoom_range", zoom_range, around=1, lowest=_TOLERANCE)
        self.channel_shift = _interval("channel_shift_range", channel_shift_range, around=0)
        if fill_mode not in _FILL_MODES:
            raise ValueError(f"Unknown fill_mode {fill_mode!r}. {suggestion(fill_mode, _FILL_MODES)}")
        if not _is_number(cval):
            raise ValueError(f"cval must be a number, got {cval!r}.")
        self.fill_mode, self.cval = fill_mode, cval
        self.horizontal_flip, self.vertical_flip = bool(horizontal_flip), bool(vertical_flip)
        if preprocessing_function is not None and not callable(preprocessing_function):
            raise TypeError(
                "preprocessing_function must be a function of an image [h, w, c], got "
                f"{preprocessing_function!r} of type {type(preprocessing_function).__name__}."
            )
        self.preprocessing_function = preprocessing_function
        if rescale is not None and not _is_number(rescale):
            raise ValueError(f"rescale must be a number such as 1/255, or None; got {rescale!r}.")
        self.rescale = rescale

    @classmethod
    def of(cls, arguments: Mapping[str, Any], taker: str) -> Augmentation:
        """Return the augmentation with these arguments, which `taker` was called with.

        Raises
        ------
        TypeError
            One is not known.
        """
        known = parameters(cls)
        for name in arguments:
            if name not in known:
                raise TypeError(f"{taker} has no argument {name!r}. {suggestion(name, known)}")
        return cls(**arguments)

    def apply(self, pixels: np.ndarray, draws: np.ndarray, out: np.ndarray) -> None:
        """Write an image, changed as the random numbers `draws` say, to `out`.

        Parameters
        ----------
        pixels : array [h, w] or [h, w, c]
            uint8 or floats. An image of another size than `out` is resized in the same resampling, which is
            good for enlarging. One without channels goes to all channels of `out`.
        draws : float array [DRAWS]
            From 0 to 1, 1 excluded.
        out : float32 array [height, width, c]
        """
        change = self._change(draws, pixels.shape[:2], out.shape[:2])
        if change.matrix != (1, 0, 0, 0, 1, 0) or pixels.shape[:2] != out.shape[:2]:
            pixels = self._resampled(pixels, change.matrix, out.shape[:2])
        pixels = pixels[:: change.steps[0], :: change.steps[1]]
        if pixels.ndim == 3:
            out[...] = pixels
        else:  # channel by channel is several times faster than NumPy's broadcasting
            pixels = pixels.astype(np.float32)
            for channel in range(out.shape[2]):
                out[..., channel] = pixels
        if change.shift:
            out += change.shift
        if change.gain != 1:
            out *= change.gain
        if change.shift or change.gain != 1:
            np.clip(out, 0, _BRIGHTEST, out=out)
        if self.preprocessing_function is not None:
            result = np.asarray(self.preprocessing_function(out))
            if result.shape != out.shape:
                raise ValueError(
                    f"preprocessing_function must return an image of the shape {out.shape} that it is given; "
                    f"it returned {result.shape}. The size of images is set by image_size or target_size."
                )
            out[...] = result
        if self.rescale is not None:
            out *= self.rescale

    def _change(self, draws: np.ndarray, source: tuple[int, ...], target: tuple[int, ...]) -> _Change:
        turn, down, right, lean, tall, wide, add, light, mirror, upset = draws.tolist()
        height, width = target
        angle, shear = math.radians(_at(self.rotation, turn)), math.radians(_at(self.shear, lean))
        zoom_y = _at(self.zoom, tall)
        zoom_x = zoom_y if self.zoom[0] == self.zoom[1] else _at(self.zoom, wide)
        # From a point of the result to where it comes from, both relative to the centre: zoom, shear, shift,
        # rotation. Keras composes them in this order.
        cos, sin = math.cos(angle), math.sin(angle)
        xx, xy = zoom_x * math.cos(angle + shear), zoom_y * sin
        yx, yy = -zoom_x * math.sin(angle + shear), zoom_y * cos
        shift_y, shift_x = self.height_shift(down, height), self.width_shift(right, width)
        x0 = sin * shift_y + cos * shift_x + (width - xx * width - xy * height) / 2
        y0 = cos * shift_y - sin * shift_x + (height - yx * width - yy * height) / 2
        upside_down, mirrored = self.vertical_flip and upset < 0.5, self.horizontal_flip and mirror < 0.5
        if source != target or (angle, shear, zoom_y, zoom_x, shift_y, shift_x) != (0, 0, 1, 1, 0, 0):
            # Resampling flips for nothing: as it goes through the result from its other side.
            if mirrored:
                xx, x0, yx, y0 = -xx, x0 + xx * width, -yx, y0 + yx * width
            if upside_down:
                xy, x0, yy, y0 = -xy, x0 + xy * height, -yy, y0 + yy * height
            upside_down = mirrored = False
        sy, sx = source[0] / height, source[1] / width
        # Rounded, so that right angles are exact: Pillow rounds the pixels of uint8 down.
        xx, xy, x0 = (round(sx * value, 12) for value in (xx, xy, x0))
        yx, yy, y0 = (round(sy * value, 12) for value in (yx, yy, y0))
        return _Change(
            (xx, xy, x0, yx, yy, y0),
            (-1 if upside_down else 1, -1 if mirrored else 1),
            _at(self.channel_shift, add),
            _at(self.brightness, light),
        )

    def _resampled(self, pixels: np.ndarray, matrix: Matrix, size: tuple[int, ...]) -> np.ndarray:
        if self.fill_mode != "constant":
            pixels, matrix = self._surrounded(pixels, matrix, size)
        if pixels.ndim == 2 or (pixels.dtype == np.uint8 and pixels.shape[2] == 3):
            return _transform(pixels, matrix, size, self.cval)
        channels = [_transform(channel, matrix, size, self.cval) for channel in np.moveaxis(pixels, 2, 0)]
        return np.stack(channels, axis=2)

    def _surrounded(
        self, pixels: np.ndarray, matrix: Matrix, size: tuple[int, ...]
    ) -> tuple[np.ndarray, Matrix]:
        """Return the image with as much around it as the matrix asks for, and the matrix that fits."""
        xx, xy, x0, yx, yy, y0 = matrix
        height, width = size
        left, columns = self._reach(x0, xx * width, xy * height, pixels.shape[1])
        top, rows = self._reach(y0, yx * width, yy * height, pixels.shape[0])
        if columns is not None:
            pixels = pixels.take(columns, axis=1)
        if rows is not None:  # last, since whole rows are copied faster
            pixels = pixels.take(rows, axis=0)
        return pixels, (xx, xy, x0 + left, yx, yy, y0 + top)

    def _reach(self, start: float, across: float, down: float, length: int) -> tuple[int, np.ndarray | None]:
        """Return how far one axis goes beyond 0, and the indices of what is there; None: all of the axis."""
        lowest = start + min(0, across) + min(0, down)
        highest = start + max(0, across) + max(0, down)
        if lowest >= -_TOLERANCE and highest <= length + _TOLERANCE:
            return 0, None
        # Half a pixel more, for the neighbours that bilinear interpolation takes in.
        before, after = max(0, math.ceil(0.5 - lowest)), max(0, math.ceil(0.5 + highest - length))
        index = np.arange(-before, length + after)
        if self.fill_mode == "nearest":
            return before, index.clip(0, length - 1)
        if self.fill_mode == "wrap":
            return before, index % length
        index %= 2 * length
        return before, np.minimum(index, 2 * length - 1 - index)


def _transform(pixels: np.ndarray, matrix: Matrix, size: tuple[int, ...], cval: float) -> np.ndarray:
    from PIL import Image

    if pixels.dtype != np.uint8:
        pixels = np.asarray(pixels, np.float32)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    value = float(cval) if pixels.dtype != np.uint8 else min(max(round(cval), 0), 255)
    fill = (value,) * pixels.shape[2] if pixels.ndim == 3 else value
    height, width = size
    turned = image.transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill
    )
    return np.asarray(turned)


def _at(interval: tuple[float, float], draw: float) -> float:
    return interval[0] + (interval[1] - interval[0]) * draw


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def _interval(
    name: str, value: Any, around: float | None = None, lowest: float = -math.inf
) -> tuple[float, float]:
    """Return `value` as an interval: it is one, or a distance from `around`."""
    if _is_number(value) and around is not None:
        value = (around - value, around + value)
    pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value))
    if not pair or not lowest <= value[0] <= value[1]:
        number = "" if around is None else "a number of at least 0" + (", below 1, " if around else " ")
        least = "" if lowest == -math.inf else " above 0" if lowest else " of at least 0"
        raise ValueError(
            f"{name} must be {number}{'or ' if number else ''}two numbers{least}, the lower one first; got "
            f"{value!r}."
        )
    return float(value[0]), float(value[1])


def _shifts(name: str, value: Any) -> Callable[[float, int], float]:
    """Return the function from a draw and the image's length to the shift in pixels."""
    if isinstance(value, (list, tuple, np.ndarray)) and len(value) and all(map(_is_number, value)):
        choices = [sign * shift for shift in value for sign in (1, -1)]
    elif isinstance(value, (int, np.integer)) and value >= 0:
        choices = list(range(min(0, 1 - value), max(1, value)))
    elif _is_number(value) and value >= 0:
        return lambda draw, length: _at((-value, value), draw) * (length if value < 1 else 1)
    else:
        raise ValueError(
            f"{name} must be a fraction of the image below 1, a number of pixels, or a list of them to "
            f"choose from; got {value!r}."
        )
    unit_is_image = isinstance(value, (list, tuple, np.ndarray)) and max(value) < 1
    return lambda draw, length: choices[int(draw * len(choices))] * (length if unit_is_image else 1)
