"""Images from a folder with a sub-folder for each class, and Keras's ImageDataGenerator."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._config import suggestion
from ..utils import to_categorical
from .augmentation import Augmentation
from .image_batches import ImageArrays, ImageBatches, work_ahead
from .image_files import SUFFIXES, ImageError, check_interpolation, decode, image_shape, listed, pillow

_CLASS_MODES = ("categorical", "binary", "sparse", "input", None)
_SUBSETS = ("training", "validation")
# Of images that a folder keeps in memory: 8000 of 150 x 150 RGB pixels.
CACHE_MIB = 512


class ImageFolder(ImageBatches):
    """Batches of the images in a folder, which has a sub-folder for each class.

    Iterating takes one epoch; `Model.fit`, `evaluate` and `predict` take it in place of arrays. Threads read,
    resize and change the images of the next batches while the caller trains. The order and the changes
    follow from `seed` and the number of the epoch, whatever the number of threads. `next` goes on without
    end, and ``folder[i]`` is batch i of the epoch that comes next.

    Sub-folders of a class's folder belong to it, and names that begin with a dot are left out. Images are
    turned upright as their EXIF data say, what is transparent shows its colour, those of 16 bits are scaled
    to 0 to 255, of those with several frames the first is taken, and large JPEGs are decoded at a half, a
    quarter or an eighth of their size where that is enough.

    Parameters
    ----------
    path : str or path
    image_size : (int, int) or int
        Height and width that all images are resized to; one number is both.
    batch_size : int
        The last batch may be smaller.
    color_mode : {"rgb", "grayscale"}
        3 channels or 1.
    class_mode : {"categorical", "binary", "sparse", "input", None}
        What the labels are: one-hot float32 [n, classes], 0 or 1 in float32 [n], class numbers in int32 [n],
        the images themselves, or none: then a batch is the images alone. The last two need no sub-folders.
    classes : sequence of str, optional
        The sub-folders to read, in the order of their numbers; by default all, sorted.
    shuffle : bool
        Whether each epoch has a new order; else that of `filenames`.
    seed : int, optional
        By default drawn, so that it follows from `tilefuse.seed`.
    rescale : float, optional
        The pixels, from 0 to 255, are multiplied by it, for instance 1/255.
    validation_split : float
        The fraction of each class, the first of its files, that is the subset "validation".
    subset : {"training", "validation"}, optional
        Which part of the split.
    interpolation : {"bilinear", "nearest", "bicubic", "lanczos", "box", "hamming"}
        How images are resized. Those that change images are always bilinear.
    follow_links : bool
        Whether links to folders are followed.
    workers : int, optional
        Threads; by default as many as there are cores.
    on_error : {"raise", "skip"}
        "raise": when an image cannot be read, all of them are looked at, and the error names those that
        cannot. "skip": they are all read once now, a warning names those that cannot, and they are left out.
    cache_mib : int
        So many MiB of images, in uint8 and resized, are kept from the first epoch for the next ones, and the
        others are read again in each. 0 keeps none, for instance when the files change.
    **augmentation
        Arguments of `Augmentation`: rotation_range, width_shift_range, height_shift_range, brightness_range,
        shear_range, zoom_range, channel_shift_range, fill_mode, cval, horizontal_flip, vertical_flip,
        preprocessing_function.

    Attributes
    ----------
    class_names : list of str
    class_indices : dict of str to int
        The number of each class.
    num_classes : int
    samples : int
        The number of images.
    filenames, filepaths : list of str
        Of each image, in `path` and in full.
    classes : int32 array [samples]
        The class number of each image.
    epoch : int
        The number of the epoch that the next iteration takes. May be set.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is no such folder.
    ValueError
        There are no images, the classes don't fit `class_mode`, or an argument makes no sense.
    ImageError
        Images cannot be read; raised while iterating.
    ImportError
        Pillow is not installed.

    Examples
    --------
    >>> import tempfile, tilefuse
    >>> from tilefuse.datasets import ImageFolder, write_image_folder
    >>> (x, y), _ = tilefuse.datasets.load_digits_sample()
    >>> path = write_image_folder(tempfile.mkdtemp(), x[:50], y[:50])
    >>> digits = ImageFolder(path, (28, 28), 16, color_mode="grayscale", rescale=1 / 255, rotation_range=10)
    >>> len(digits), digits.samples, digits.class_names[:3]
    (4, 50, ['0', '1', '2'])
    >>> for images, labels in digits:
    ...     print(images.shape, labels.shape)
    (16, 28, 28, 1) (16, 10)
    (16, 28, 28, 1) (16, 10)
    (16, 28, 28, 1) (16, 10)
    (2, 28, 28, 1) (2, 10)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        image_size: int | tuple[int, int],
        batch_size: int = 32,
        *,
        color_mode: str = "rgb",
        class_mode: str | None = "categorical",
        classes: Sequence[str] | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        rescale: float | None = None,
        validation_split: float = 0.0,
        subset: str | None = None,
        interpolation: str = "bilinear",
        follow_links: bool = False,
        workers: int | None = None,
        on_error: str = "raise",
        cache_mib: int = CACHE_MIB,
        **augmentation: Any,
    ) -> None:
        pillow()
        shape = image_shape("image_size", image_size, color_mode)
        check_interpolation(interpolation)
        _one_of("class_mode", class_mode, _CLASS_MODES)
        _one_of("on_error", on_error, ("raise", "skip"))
        part = _part(validation_split, subset)
        self.path, self.class_mode, self.interpolation = Path(path), class_mode, interpolation
        found, self.class_names = _found(self.path, classes, class_mode, follow_links)
        files = [(file, number) for number, group in enumerate(found) for file in group[part(len(group))]]
        if not files:
            raise ValueError(
                f"The subset {subset!r} of {self.path} is empty: validation_split is {validation_split!r}, "
                f"and the classes have {', '.join(str(len(group)) for group in found)} images."
            )
        self._set_files(files)
        self._kept: dict[str, np.ndarray] = {}
        self._room = _mebibytes(cache_mib) << 20
        changes = Augmentation.of({"rescale": rescale, **augmentation}, type(self).__name__)
        super().__init__(len(files), shape, batch_size, changes, shuffle, seed, workers)
        if on_error == "skip" and (unreadable := self.unreadable()):
            self._leave_out(unreadable)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def class_indices(self) -> dict[str, int]:
        """The number of each class."""
        return {name: number for number, name in enumerate(self.class_names)}

    @property
    def filepaths(self) -> list[str]:
        """The path of each image."""
        return [str(self.path / name) for name in self.filenames]

    def unreadable(self) -> dict[str, str]:
        """Read all images once, and return what is wrong with those that cannot be read, by name."""

        def look(sample: int) -> None:
            try:
                self._pixels(sample)
            except ImageError as error:
                wrong[sample] = error.files[self.filenames[sample]]

        wrong: dict[int, str] = {}
        jobs = ((None, [lambda sample=sample: look(sample)]) for sample in range(self.samples))
        for _ in work_ahead(jobs, self.workers, ahead=4 * self.workers):
            pass
        return {self.filenames[sample]: wrong[sample] for sample in sorted(wrong)}

    def __repr__(self) -> str:
        return (
            f"<ImageFolder {str(self.path)!r}: {self.samples} images of {self.num_classes} classes, "
            f"{len(self)} batches>"
        )

    def _set_files(self, files: Sequence[tuple[str, int]]) -> None:
        self.filenames = [name for name, _ in files]
        self.classes = np.array([number for _, number in files], np.int32)
        self.samples = len(files)

    def _leave_out(self, unreadable: dict[str, str]) -> None:
        rest = [file for file in zip(self.filenames, self.classes, strict=True) if file[0] not in unreadable]
        if not rest:
            raise ImageError(unreadable)
        warnings.warn(
            f"{self.path}: left out {listed('image', unreadable)} that cannot be read.", stacklevel=3
        )
        self._set_files(rest)

    def _pixels(self, sample: int) -> np.ndarray:
        name = self.filenames[sample]
        pixels = self._kept.get(name)
        if pixels is None:
            try:
                pixels = decode(self.path / name, self.image_shape, self.interpolation)
            except ImageError as error:
                (reason,) = error.files.values()
                raise ImageError({name: reason}) from error
            if self._room >= pixels.nbytes:  # without a lock: threads may keep an image too many
                self._room -= pixels.nbytes
                self._kept[name] = pixels
        return pixels

    def _made(self, epoch: int, batches: range) -> Iterator[Any]:
        try:
            yield from super()._made(epoch, batches)
        except ImageError as first:
            raise ImageError(self.unreadable() or first.files) from first

    def _batch(self, x: np.ndarray, samples: np.ndarray) -> Any:
        labels = self.classes[samples]
        if self.class_mode is None:
            return x
        if self.class_mode == "input":
            return x, x
        if self.class_mode == "categorical":
            return x, to_categorical(labels, self.num_classes)
        return x, labels if self.class_mode == "sparse" else labels.astype(np.float32)


class ImageDataGenerator:
    """Makes batches of randomly changed images, with Keras's names; `ImageFolder` is the direct way.

    In place of Keras's endless iterators it makes ones that iterate over one epoch at a time, and that `next`
    takes batches from without end.

    Parameters
    ----------
    validation_split : float
        The fraction of the images, the first ones, that is the subset "validation".
    workers : int, optional
        Threads that make the batches; by default as many as there are cores.
    cache_mib : int
        As of `ImageFolder`.
    **augmentation
        Arguments of `Augmentation`: rescale, rotation_range, width_shift_range, height_shift_range,
        brightness_range, shear_range, zoom_range, channel_shift_range, fill_mode, cval, horizontal_flip,
        vertical_flip, preprocessing_function.

    Raises
    ------
    TypeError
        An argument is not known, as featurewise_center and what else depends on the whole data set.
    ValueError
        An argument makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse.datasets import ImageDataGenerator
    >>> generator = ImageDataGenerator(rescale=1 / 255, horizontal_flip=True)
    >>> batches = generator.flow(np.zeros((5, 8, 8, 3), np.uint8), np.arange(5), batch_size=2)
    >>> [len(labels) for images, labels in batches]
    [2, 2, 1]
    """

    def __init__(
        self,
        *,
        validation_split: float = 0.0,
        workers: int | None = None,
        cache_mib: int = CACHE_MIB,
        **augmentation: Any,
    ) -> None:
        _check_split(validation_split)
        self.augmentation = Augmentation.of(augmentation, "ImageDataGenerator")
        self.validation_split, self.workers = validation_split, workers
        self.cache_mib = _mebibytes(cache_mib)
        self._arguments = augmentation

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        *,
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        on_error: str = "raise",
    ) -> ImageFolder:
        """Return the batches of a folder with a sub-folder for each class.

        Arguments, results and errors are those of `ImageFolder`, with ``directory`` and ``target_size`` for
        its ``path`` and ``image_size``. Without a `subset` all images are taken.
        """
        return ImageFolder(
            directory,
            target_size,
            batch_size,
            color_mode=color_mode,
            class_mode=class_mode,
            classes=classes,
            shuffle=shuffle,
            seed=seed,
            validation_split=0.0 if subset is None else self.validation_split,
            subset=subset,
            interpolation=interpolation,
            follow_links=follow_links,
            workers=self.workers,
            on_error=on_error,
            cache_mib=self.cache_mib,
            **self._arguments,
        )

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        *,
        subset: str | None = None,
    ) -> ImageArrays:
        """Return the batches of images in an array.

        Parameters
        ----------
        x : array [n, h, w, c]
        y : array [n, ...], optional
            Labels. Without them a batch is the images alone.
        batch_size, shuffle, seed
            As of `ImageFolder`.
        sample_weight : array [n], optional
        subset : {"training", "validation"}, optional
            The first images are those of "validation".

        Raises
        ------
        ValueError
            The arrays don't fit, or the subset is empty.
        """
        part = _part(0.0 if subset is None else self.validation_split, subset)(len(x))
        return ImageArrays(
            x[part],
            None if y is None else y[part],
            batch_size,
            augmentation=self.augmentation,
            shuffle=shuffle,
            sample_weight=None if sample_weight is None else sample_weight[part],
            seed=seed,
            workers=self.workers,
        )


def _found(
    path: Path, classes: Sequence[str] | None, class_mode: str | None, follow_links: bool
) -> tuple[list[list[str]], list[str]]:
    """Return the names of each class's images, in `path`, and the names of the classes."""
    if not path.exists():
        raise FileNotFoundError(
            f"There is no folder {path} (in {Path.cwd()}). Give the path of one with images."
        )
    if not path.is_dir():
        raise NotADirectoryError(
            f"{path} is a file; expected a folder with a sub-folder of images for each class. Single files "
            "are read by load_image."
        )
    entries = sorted(entry for entry in os.listdir(path) if not entry.startswith("."))
    folders = [entry for entry in entries if (path / entry).is_dir()]
    names = _class_names(path, folders, classes, class_mode)
    foreign: list[str] = []
    if names:
        found = [_images(path, name, follow_links, foreign) for name in names]
        loose = [entry for entry in entries if entry not in folders]
    else:
        found, loose = [_images(path, "", follow_links, foreign)], []
    if not any(found):
        formats = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise ValueError(
            f"There are no images in {path}, in {len(folders)} sub-folders ({', '.join(folders) or 'none'}). "
            f"Expected files {formats} in a sub-folder for each class."
        )
    if empty := [name for name, group in zip(names, found, strict=False) if not group]:
        raise ValueError(
            f"{path}: there are no images in {', '.join(empty)}. Fill or remove these folders, or say which "
            f"ones are classes, classes={[name for name in names if name not in empty]}."
        )
    if ignored := dict.fromkeys(foreign, "") | dict.fromkeys(loose, "in no class's folder"):
        warnings.warn(
            f"{path}: ignored {listed('file', ignored)} that belong to no class or are no images.",
            stacklevel=3,
        )
    return found, names


def _class_names(
    path: Path, folders: list[str], classes: Sequence[str] | None, class_mode: str | None
) -> list[str]:
    names = folders if classes is None else list(classes)
    if missing := [name for name in names if name not in folders]:
        raise ValueError(
            f"{path} has no sub-folders {', '.join(missing)}, which classes names; it has "
            f"{', '.join(folders) or 'none'}."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"classes names a folder twice: {names}.")
    if class_mode in (None, "input"):
        return names
    if not names:
        raise ValueError(
            f"{path} has no sub-folders; expected one for each class, with its images. For images without "
            "labels use class_mode=None."
        )
    if class_mode == "binary" and len(names) != 2:
        raise ValueError(
            f"class_mode='binary' needs two classes; {path} has {len(names)} ({', '.join(names)}). Say which "
            "two with classes=[...], or use class_mode='sparse' or 'categorical'."
        )
    return names


def _images(path: Path, folder: str, follow_links: bool, foreign: list[str]) -> list[str]:
    """Return the names of the images in a folder and those in it, sorted; add the others' to `foreign`."""
    found: list[str] = []
    for place, folders, files in os.walk(path / folder, followlinks=follow_links):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            file = Path(place, name)
            group = found if file.suffix.lower() in SUFFIXES else foreign
            group.append(str(file.relative_to(path)))
    return found


def _part(validation_split: float, subset: str | None) -> Any:
    """Return the function from a number of samples to the slice that is the subset."""
    _check_split(validation_split)
    _one_of("subset", subset, (*_SUBSETS, None))
    if bool(validation_split) != (subset is not None):
        raise ValueError(
            f"validation_split and subset go together; got {validation_split!r} and {subset!r}. For instance "
            "validation_split=0.2 with subset='training' for one, subset='validation' for the other."
        )

    def part(samples: int) -> slice:
        at = int(samples * validation_split)
        return slice(0, at) if subset == "validation" else slice(at, samples)

    return part


def _check_split(validation_split: Any) -> None:
    if not isinstance(validation_split, (int, float)) or not 0 <= validation_split < 1:
        raise ValueError(f"validation_split must be at least 0 and less than 1, got {validation_split!r}.")


def _mebibytes(cache_mib: Any) -> int:
    if isinstance(cache_mib, bool) or not isinstance(cache_mib, (int, np.integer)) or cache_mib < 0:
        raise ValueError(f"cache_mib must be an integer of at least 0, got {cache_mib!r}.")
    return int(cache_mib)


def _one_of(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        hint = suggestion(value, [k for k in known if k]) if isinstance(value, str) else ""
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}. {hint}".rstrip()
        )
