"""Sums of two arrays."""

from __future__ import annotations

from ._namespace import Array
from .activations import activate


def add(a: Array, b: Array, activation: str | None = None) -> Array:
    """``activation(a + b)``."""
    return activate(a + b, activation)
