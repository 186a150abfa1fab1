"""What the examples train on: MNIST from files or a download, and a real sample of it in the package."""

from __future__ import annotations

from . import mnist
from .mnist import load_digits_sample, load_mnist

__all__ = ["load_digits_sample", "load_mnist", "mnist"]
