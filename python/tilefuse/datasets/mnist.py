"""MNIST: 70 000 handwritten digits of 28 x 28 grey values (LeCun, Cortes, Burges; CC BY-SA 3.0)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .idx import read_idx

Split = tuple[np.ndarray, np.ndarray]

URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
SHA256 = {
    "train-images-idx3-ubyte.gz": "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971",
    "train-labels-idx1-ubyte.gz": "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203",
    "t10k-images-idx3-ubyte.gz": "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
    "t10k-labels-idx1-ubyte.gz": "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
}
_SAMPLE = Path(__file__).parent / "digits_sample"


def load_mnist(path: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """All of MNIST, as Keras gives it.

    The four IDX files (``train-images-idx3-ubyte`` and so on, with or without ``.gz``) are read from
    `path`, or else from the folder that the environment variable ``TILEFUSE_DATA`` names, or a folder
    ``mnist`` in it. With neither, they are downloaded once (12 MB), checked against their SHA-256 sums and
    kept in the user's cache folder; that needs ``pip install "tilefuse[download]"``.

    Parameters
    ----------
    path : str or path, optional
        The folder with the files.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of uint8 arrays
        Images [60000, 28, 28] and [10000, 28, 28] with values from 0 to 255, labels [60000] and [10000]
        from 0 to 9.

    Raises
    ------
    FileNotFoundError
        If the folder or one of the files is missing.
    ValueError
        If a file is of another kind or cut short, if there are not as many labels as images, or if a
        download has the wrong checksum.
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the download fails.

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = load_mnist("data/mnist")  # doctest: +SKIP
    """
    source = path if path is not None else os.environ.get("TILEFUSE_DATA") or None
    if source is None:
        return _load(_downloaded)
    said_by = "path" if path is not None else "the environment variable TILEFUSE_DATA"
    return _load(_finder(Path(source), said_by))


def load_data(path: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """The same as :func:`load_mnist`, under the name it has in Keras: ``datasets.mnist.load_data()``."""
    return load_mnist(path)


def load_digits_sample() -> tuple[Split, Split]:
    """A real sample of MNIST that ships with the package: nothing to download.

    It holds 600 training and 100 test images of each digit, evenly spread over MNIST's own training and
    test sets.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of uint8 arrays
        Images [6000, 28, 28] and [1000, 28, 28] with values from 0 to 255, labels [6000] and [1000] from 0
        to 9.

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = load_digits_sample()
    >>> x_train.shape, x_test.shape, x_train.dtype
    ((6000, 28, 28), (1000, 28, 28), dtype('uint8'))
    """
    return _load(_finder(_SAMPLE, "the installed package"))


def _load(find: Callable[[str], Path]) -> tuple[Split, Split]:
    return _load_split(find, "train"), _load_split(find, "t10k")


def _load_split(find: Callable[[str], Path], prefix: str) -> Split:
    images_path, labels_path = find(f"{prefix}-images-idx3-ubyte.gz"), find(f"{prefix}-labels-idx1-ubyte.gz")
    images, labels = read_idx(images_path, axes=3), read_idx(labels_path, axes=1)
    if len(images) != len(labels):
        raise ValueError(
            f"{images_path} holds {len(images)} images but {labels_path} {len(labels)} labels; expected "
            "as many. Take both files from the same data set."
        )
    if images.shape[1:] != (28, 28):
        raise ValueError(
            f"{images_path} holds images of shape {images.shape[1:]}; those of MNIST are (28, 28)"
        )
    return images, labels


def _finder(folder: Path, said_by: str) -> Callable[[str], Path]:
    """A function from a file's name to where it lies in `folder`, plain or gzipped."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder} (from {said_by}). Expected a folder with the four MNIST files "
            f"{', '.join(SHA256)}; they are at {URL}"
        )

    def find(name: str) -> Path:
        for place in (folder, folder / "mnist"):
            for candidate in (place / name, place / name.removesuffix(".gz")):
                if candidate.is_file():
                    return candidate
        raise FileNotFoundError(
            f"{folder} (from {said_by}) has no file {name}, nor {name.removesuffix('.gz')} without gzip. "
            f"Expected the four MNIST files {', '.join(SHA256)}; they are at {URL}"
        )

    return find


def _downloaded(name: str) -> Path:
    """The file `name` in the user's cache, downloaded if it is not there or not whole."""
    mend = f"download the four files from {URL} yourself and pass their folder as path= or in TILEFUSE_DATA"
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f'downloading MNIST needs pooch: pip install "tilefuse[download]", or {mend}'
        ) from error
    cache = pooch.os_cache("tilefuse") / "mnist"
    try:
        return Path(pooch.retrieve(URL + name, known_hash=f"sha256:{SHA256[name]}", fname=name, path=cache))
    except ValueError as error:  # pooch's word for a wrong checksum; the bad file is not kept
        raise ValueError(
            f"{URL}{name} is not the file it should be: {error}. Try again, or {mend}."
        ) from error
    except Exception as error:  # requests' many errors, and those of the cache folder
        raise OSError(
            f"could not download {URL}{name} into {cache}: {error}. Try again, or {mend}."
        ) from error
