"""Make the sample of MNIST that ships with the package.

usage: make_digits_sample.py MNIST_FOLDER [OUTPUT_FOLDER]
Takes, of each digit, images evenly spread over the whole set, and keeps their order. The same input gives
the same bytes.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
from tilefuse.datasets import load_mnist

OUTPUT = Path(__file__).parents[1] / "python/tilefuse/datasets/digits_sample"


def choose(labels: np.ndarray, per_class: int) -> np.ndarray:
    """The numbers of the chosen samples, ascending."""
    chosen = []
    for digit in range(10):
        of_digit = np.flatnonzero(labels == digit)
        chosen.append(of_digit[np.arange(per_class) * len(of_digit) // per_class])
    return np.sort(np.concatenate(chosen))


def idx_bytes(array: np.ndarray) -> bytes:
    """A uint8 array in the IDX format, gzipped, with nothing in it that changes from run to run."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.tobytes(), 9, mtime=0)


def main() -> None:
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else OUTPUT
    splits = zip(("train", "t10k"), load_mnist(sys.argv[1]), (600, 100), strict=True)
    for prefix, (images, labels), per_class in splits:
        chosen = choose(labels, per_class)
        (output / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx_bytes(images[chosen]))
        (output / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx_bytes(labels[chosen]))


if __name__ == "__main__":
    main()
