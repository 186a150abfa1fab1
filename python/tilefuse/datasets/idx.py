"""Reading IDX files, the format of MNIST.

A file is two zero bytes, one byte that names the element type (8: uint8), one byte with the number of axes,
each axis's length as a big-endian 32-bit integer, then the elements in C order. See "The MNIST database of
handwritten digits", LeCun, Cortes, Burges, http://yann.lecun.com/exdb/mnist/, section "File formats". It
may be gzipped.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

_UINT8 = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str], *, axes: int) -> np.ndarray:
    """Read a file of unsigned bytes in the IDX format, plain or gzipped.

    Parameters
    ----------
    path : str or path
        The file; whether it is gzipped is seen from its first bytes, not its name.
    axes : int
        The number of axes that the array must have: 3 for images, 1 for labels.

    Returns
    -------
    array : uint8 array

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is another kind of file, has another number of axes, is cut short or goes on after its end.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "labels"
    >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
    >>> read_idx(file, axes=1)
    array([5, 0, 4], dtype=uint8)
    """
    path = Path(path)
    data = _contents(path)
    if len(data) < 4 or data[0] or data[1]:
        raise ValueError(
            f"{path} is no IDX file: it begins with the bytes {data[:4].hex(' ') or '(none)'}, where an "
            f"IDX file of {axes} axes of unsigned bytes begins with 00 00 08 {axes:02x}. "
            "Put the right file in its place."
        )
    if data[2] != _UINT8 or data[3] != axes:
        raise ValueError(
            f"{path} is an IDX file of element type 0x{data[2]:02x} with {data[3]} axes; expected type "
            f"0x08 (unsigned bytes) with {axes}. Are the files of images and of labels exchanged?"
        )
    header = 4 + 4 * axes
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4))
    expected = header + math.prod(shape)
    if len(data) < header or len(data) != expected:
        what = "is cut short" if len(data) < max(header, expected) else "goes on after its end"
        raise ValueError(
            f"{path} {what}: its header promises an array of shape {shape}, {expected} bytes with the "
            f"header, but it holds {len(data)}. Copy or download the file again."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


def _contents(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    if raw[:2] != _GZIP_MAGIC:
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path} is a damaged or cut-off gzip file of {len(raw)} bytes ({error}). "
            "Copy or download the file again."
        ) from error
