"""What the examples train on: MNIST and a real sample of it in the package, and folders of images."""

from __future__ import annotations

from . import mnist
from .augmentation import Augmentation
from .image_files import ImageError, load_image, write_image_folder
from .images import ImageDataGenerator, ImageFolder
from .mnist import load_digits_sample, load_mnist

__all__ = [
    "Augmentation",
    "ImageDataGenerator",
    "ImageError",
    "ImageFolder",
    "load_digits_sample",
    "load_image",
    "load_mnist",
    "mnist",
    "write_image_folder",
]
