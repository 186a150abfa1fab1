"""A weight: a NumPy array with a name, updated in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _device
from ._runtime import default_dtype


def copy_to(device: str, array: np.ndarray) -> np.ndarray:
    """Return a C-contiguous copy in memory that the device's kernels use in place, aligned to cache lines.

    (NumPy aligns to 16 bytes only: then every other 32-byte vector lies across two cache lines.)
    """
    with _device.using(device) as native:
        copy: np.ndarray = native.empty(array.shape, array.dtype)
    copy[...] = array
    return copy


class Variable:
    """An array that training changes.

    The array `value` stays the same object for the variable's life: optimizers, compiled programs and
    `assign` write into it. It lies in the memory of the device in use when the variable was made.

    Parameters
    ----------
    value : array_like
        Copied.
    name : str
    trainable : bool
    dtype : dtype, optional
        float32 or float64; follows `tilefuse.set_precision` by default.

    Examples
    --------
    >>> import tilefuse
    >>> v = tilefuse.Variable([1.0, 2.0], name="w")
    >>> v.assign([3.0, 4.0]).numpy()
    array([3., 4.], dtype=float32)
    """

    def __init__(self, value: Any, name: str = "variable", trainable: bool = True, dtype: Any = None) -> None:
        self.device = _device.current()
        self.value = copy_to(
            self.device, np.asarray(value, dtype=default_dtype() if dtype is None else dtype)
        )
        self.name = name
        self.path = name
        self.trainable = trainable

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's dtype."""
        return self.value.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.value.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.value.size

    def full(self, value: float) -> np.ndarray:
        """Return a new array of the variable's shape, dtype and device, filled with `value`."""
        return copy_to(self.device, np.full(self.shape, value, self.dtype))

    def numpy(self) -> np.ndarray:
        """Return a copy of the array."""
        return self.value.copy()

    def assign(self, value: Any) -> Variable:
        """Copy `value` into the array.

        Raises
        ------
        ValueError
            The shapes differ.
        """
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ValueError(
                f"Variable {self.path!r} has shape {self.shape}; got a value of shape {array.shape}."
            )
        self.value[...] = array
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is None and (dtype is None or np.dtype(dtype) == self.dtype):
            return self.value
        return np.array(self.value, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"<Variable {self.path}, shape={self.shape}, dtype={self.dtype}, trainable={self.trainable}>"
