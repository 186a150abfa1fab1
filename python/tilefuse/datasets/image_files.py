"""Image files, read and written with Pillow."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .._config import suggestion
from .augmentation import DRAWS, Augmentation

if TYPE_CHECKING:
    from PIL import Image

CHANNELS = {"rgb": 3, "grayscale": 1}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
# Modes of Pillow whose pixels have 16 bits.
_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class ImageError(ValueError):
    """Images that cannot be read.

    Attributes
    ----------
    files : dict of str to str
        What is wrong with each, by file name.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = dict(files)
        super().__init__(
            f"{listed('image', self.files)} cannot be read. Copy them again, remove them, or leave them out "
            "with on_error='skip'."
        )


def listed(what: str, files: Mapping[str, str]) -> str:
    """Return "2 images (a.png: cut short; b.png: no image)"."""
    plural = "" if len(files) == 1 else "s"
    names = "; ".join(f"{name}: {reason}" if reason else name for name, reason in files.items())
    return f"{len(files)} {what}{plural} ({names})"


def pillow() -> ModuleType:
    """Return Pillow's module Image.

    Raises
    ------
    ImportError
        Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('images need Pillow: pip install "tilefuse[images]"') from error
    return Image


def load_image(
    path: str | os.PathLike[str],
    image_size: int | tuple[int, int],
    color_mode: str = "rgb",
    rescale: float | None = None,
    *,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Return one image, made ready as `ImageFolder` does, for instance for `predict`.

    Parameters
    ----------
    path : str or path
    image_size : (int, int) or int
        Height and width of the result; one number is both.
    color_mode : {"rgb", "grayscale"}
        With 3 channels or with 1.
    rescale : float, optional
        The pixels, from 0 to 255, are multiplied by it: the same number as in training.
    interpolation : {"bilinear", "nearest", "bicubic", "lanczos", "box", "hamming"}

    Returns
    -------
    image : float32 array [h, w, c]

    Raises
    ------
    ImageError
        The file is missing, damaged, or no image.
    ImportError
        Pillow is not installed.

    Examples
    --------
    >>> import tempfile, tilefuse
    >>> from tilefuse.datasets import load_image, write_image_folder
    >>> (x, y), _ = tilefuse.datasets.load_digits_sample()
    >>> folder = write_image_folder(tempfile.mkdtemp(), x[:2], y[:2])
    >>> image = load_image(next(folder.glob("*/*.png")), (32, 32), "grayscale", rescale=1 / 255)
    >>> image.shape, image.dtype
    ((32, 32, 1), dtype('float32'))
    """
    shape = image_shape("image_size", image_size, color_mode)
    check_interpolation(interpolation)
    out = np.empty(shape, np.float32)
    Augmentation(rescale=rescale).apply(decode(path, shape, interpolation), np.zeros(DRAWS), out)
    return out


def write_image_folder(
    path: str | os.PathLike[str],
    images: Any,
    labels: Any,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write images as PNG files in a folder for each class, as `ImageFolder` reads them.

    Parameters
    ----------
    path : str or path
        The folder; it is made where it is missing. Files of the same names are replaced.
    images : uint8 array [n, h, w] or [n, h, w, c]
        Grey, or with 1, 3 or 4 channels.
    labels : array of integers [n]
    class_names : sequence of str, optional
        The folder of each label; by default the label itself. `ImageFolder` numbers the classes in the order
        of their names.

    Returns
    -------
    path : Path
        The files are ``path/class/number.png``, with the image's number in `images`.

    Raises
    ------
    TypeError
        The images are not of uint8, or the labels not integers.
    ValueError
        The shapes don't fit, or a label has no name.

    Examples
    --------
    >>> import tempfile
    >>> (x, y), _ = load_digits_sample()  # doctest: +SKIP
    >>> write_image_folder("digits", x, y)  # doctest: +SKIP
    """
    pixels, classes = np.asarray(images), np.asarray(labels)
    if pixels.dtype != np.uint8 or classes.dtype.kind not in "iu":
        raise TypeError(
            f"images must be of uint8, from 0 to 255, and labels integers; got {pixels.dtype} and "
            f"{classes.dtype}. Convert them with astype."
        )
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 3 and not (pixels.ndim == 4 and pixels.shape[3] in (3, 4)):
        raise ValueError(
            f"images must be [n, h, w] or [n, h, w, c] with 1, 3 or 4 channels; got {pixels.shape}."
        )
    if classes.shape != pixels.shape[:1]:
        raise ValueError(f"labels must have the shape ({len(pixels)},), one an image; got {classes.shape}.")
    names = {int(label): str(label) for label in np.unique(classes)}
    if class_names is not None:
        if names and not 0 <= min(names) <= max(names) < len(class_names):
            raise ValueError(
                f"class_names has {len(class_names)} names, for the labels 0 to {len(class_names) - 1}; the "
                f"labels are from {min(names)} to {max(names)}. Give a name for each."
            )
        names = dict(enumerate(class_names))
    folder, digits = Path(path), max(5, len(str(len(pixels))))
    for name in names.values():
        (folder / name).mkdir(parents=True, exist_ok=True)
    module = pillow()
    for number, (image, label) in enumerate(zip(pixels, classes.tolist(), strict=True)):
        module.fromarray(image).save(folder / names[label] / f"{number:0{digits}}.png")
    return folder


def decode(path: str | os.PathLike[str], shape: tuple[int, int, int], interpolation: str) -> np.ndarray:
    """Return the pixels of an image file as [h, w], or [h, w, 3] where it has colours and the shape too.

    Values are from 0 to 255, in uint8 or, of images with 16 bits, in float32. An image that is to be enlarged
    bilinearly keeps its size: `Augmentation.apply` does that together with all else.

    Raises
    ------
    ImageError
        The file is missing, damaged, or no image.
    """
    module = pillow()
    try:
        with module.open(path) as image:
            return np.asarray(_sized(_converted(image, shape), shape, interpolation))
    except _errors(module) as error:
        raise ImageError({os.fspath(path): _reason(error)}) from error


def _converted(image: Image.Image, shape: tuple[int, int, int]) -> Image.Image:
    """Return the image upright, in mode L, F (16 bits) or, where channels are wanted and there are, RGB."""
    from PIL import Image, ImageOps

    grey = shape[2] == 1
    # JPEG decoders skip what a small image does not need; the image may yet have to be turned.
    image.draft("L" if grey else "RGB", (max(shape[:2]),) * 2)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _SIXTEEN_BITS:
        return Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(257))
    if image.mode in ("F", "L"):
        return image
    if image.mode == "P":  # Pillow warns when transparent colours are converted any other way
        image = image.convert("RGBA")
    return image.convert("L" if grey or image.mode in ("1", "LA", "La") else "RGB")


def _sized(image: Image.Image, shape: tuple[int, int, int], interpolation: str) -> Image.Image:
    height, width = shape[:2]
    enlarged = image.width <= width and image.height <= height
    if image.size == (width, height) or (enlarged and interpolation == "bilinear"):
        image.load()
        return image
    return image.resize((width, height), pillow().Resampling[interpolation.upper()])


def _errors(module: ModuleType) -> tuple[type[Exception], ...]:
    """Return what Pillow raises for files that are damaged or no images."""
    return (
        OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError,
        struct.error, zlib.error, module.DecompressionBombError,
    )  # fmt: skip


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if type(error).__name__ == "UnidentifiedImageError":
        return "no image that Pillow knows"
    return str(error) or type(error).__name__


def image_shape(name: str, size: Any, color_mode: str) -> tuple[int, int, int]:
    """Return (height, width, channels), checked."""
    if color_mode not in CHANNELS:
        raise ValueError(f"Unknown color_mode {color_mode!r}. {suggestion(color_mode, CHANNELS)}")
    pair = (size, size) if isinstance(size, (int, np.integer)) else size
    if not (
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and all(isinstance(n, (int, np.integer)) and n >= 1 for n in pair)
    ):
        raise ValueError(f"{name} must be (height, width), integers of at least 1; got {size!r}.")
    return int(pair[0]), int(pair[1]), CHANNELS[color_mode]


def check_interpolation(interpolation: str) -> None:
    """Raise ValueError if there is no such interpolation."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"Unknown interpolation {interpolation!r}. {suggestion(interpolation, INTERPOLATIONS)}"
        )
