"""Arrays for tests: exact integers, awkward layouts, guarded outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

GUARD = -987654.0  # what the memory around a guarded array holds


def integers(
    rng: np.random.Generator, shape: Sequence[int], dtype: Any, low: int = -4, high: int = 4
) -> np.ndarray:
    """Whole numbers in [low, high], so small that sums of products are exact in float32."""
    return np.asarray(rng.integers(low, high + 1, size=shape), dtype=dtype)


def normal(rng: np.random.Generator, shape: Sequence[int], dtype: Any, scale: float = 1.0) -> np.ndarray:
    return np.asarray(scale * rng.standard_normal(shape), dtype=dtype)


def _contiguous(x: np.ndarray) -> np.ndarray:
    return x.copy()


def _transposed(x: np.ndarray) -> np.ndarray:
    """The same values, the last two axes swapped in memory."""
    return x.swapaxes(-1, -2).copy().swapaxes(-1, -2) if x.ndim > 1 else x.copy()


def _strided(x: np.ndarray) -> np.ndarray:
    """Every second column and every third row of a larger array that holds NaN elsewhere."""
    steps = (3, 2)[-x.ndim :] if x.ndim else ()
    kept = x.ndim - len(steps)
    shape = x.shape[:kept] + tuple(n * step for n, step in zip(x.shape[kept:], steps, strict=True))
    base = np.full(shape, np.nan, dtype=x.dtype)
    view = base[(..., *(slice(None, None, step) for step in steps))]
    view[...] = x
    return view


def _reversed(x: np.ndarray) -> np.ndarray:
    """Negative strides in every axis."""
    flip = (slice(None, None, -1),) * x.ndim
    return x[flip].copy()[flip]


def _offset(x: np.ndarray) -> np.ndarray:
    """Starts one element after a boundary of 64 bytes."""
    return _at_byte(x, x.itemsize)


def _misaligned(x: np.ndarray) -> np.ndarray:
    """Starts one byte after a boundary of 64 bytes."""
    return _at_byte(x, 1)


def _at_byte(x: np.ndarray, offset: int) -> np.ndarray:
    memory = np.zeros(x.nbytes + 128, dtype=np.uint8)
    start = -memory.ctypes.data % 64 + offset
    view = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def _read_only(x: np.ndarray) -> np.ndarray:
    view = x.copy()
    view.flags.writeable = False
    return view


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": _contiguous,
    "transposed": _transposed,
    "strided": _strided,
    "reversed": _reversed,
    "offset": _offset,
    "misaligned": _misaligned,
    "read-only": _read_only,
}


class Guarded:
    """An output array filled with NaN, inside memory filled with GUARD; `pad` elements lie between its rows.

    ``check()`` fails if anything but the array's own elements was written.
    """

    def __init__(self, shape: Sequence[int], dtype: Any, *, pad: int = 0, transposed: bool = False) -> None:
        shape = tuple(shape)
        stored = (*shape[:-2], shape[-1], shape[-2]) if transposed else shape
        padded = (*stored[:-1], stored[-1] + pad)
        size = int(np.prod(padded))
        ends = 37  # an odd number, so that rows start off the vectors' boundaries
        self._memory = np.full(size + 2 * ends, GUARD, dtype=dtype)
        view = self._memory[ends : ends + size].reshape(padded)[..., : stored[-1]]
        self.array = view.swapaxes(-1, -2) if transposed else view
        self.array[...] = np.nan

    def check(self) -> np.ndarray:
        """A copy of the array, after making sure that its surroundings are as they were."""
        result = self.array.copy()
        self.array[...] = GUARD
        touched = np.flatnonzero(self._memory != GUARD)
        self.array[...] = result
        assert touched.size == 0, f"wrote outside of the array, at elements {touched[:8] - 37} of its memory"
        return result
