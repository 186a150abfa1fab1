"""Comparisons. NaN equals NaN only in the same place, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_same(actual: Any, expected: Any) -> None:
    """Equal in shape and in every value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    wrong = ~((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    if wrong.any():
        raise AssertionError(_describe("values differ", wrong, actual, expected))


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Equal in shape, dtype and every bit."""
    actual, expected = np.ascontiguousarray(actual), np.ascontiguousarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.tobytes() != expected.tobytes():
        wrong = actual.view(f"u{actual.itemsize}") != expected.view(f"u{expected.itemsize}")
        raise AssertionError(_describe("bits differ", wrong, actual, expected))


def assert_close(
    actual: Any, exact: Any, *, magnitude: Any = None, terms: int = 1, slack: float = 4.0, flushed: Any = 4.0
) -> None:
    """Within rounding of a result known in float64.

    The error allowed is ``(slack + sqrt(terms)) * eps * magnitude``, and `flushed` times the smallest normal
    number, for denormals that count as zero. `terms` is how many rounded numbers went into a result and
    `magnitude` (by default the result itself) how large they were. NaN and infinities must be where the exact
    result, rounded to the dtype, has them.
    """
    actual, exact = np.asarray(actual), np.asarray(exact, dtype=np.float64)
    assert actual.dtype in (np.float32, np.float64), f"dtype {actual.dtype}"
    assert actual.shape == exact.shape, f"shape {actual.shape}, expected {exact.shape}"
    info = np.finfo(actual.dtype)
    with np.errstate(all="ignore"):
        size = np.abs(exact if magnitude is None else np.asarray(magnitude, dtype=np.float64))
        allowed = (slack + np.sqrt(terms)) * float(info.eps) * size + flushed * float(info.tiny)
        error = np.abs(actual.astype(np.float64) - exact)
        overflows = np.abs(exact) > float(info.max)
        rounded = np.where(overflows, np.copysign(np.inf, exact), exact)
        same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
        finite = np.isfinite(actual) & np.isfinite(rounded)
        wrong = ~(same | (finite & (error <= allowed)))
        worst = np.max(np.where(wrong & finite, error / allowed, 0.0), initial=0.0)
    if wrong.any():
        raise AssertionError(_describe(f"errors up to {worst:.3g} times the bound", wrong, actual, exact))


def _describe(what: str, wrong: np.ndarray, actual: np.ndarray, expected: np.ndarray) -> str:
    lines = [f"{what}: {np.count_nonzero(wrong)} of {wrong.size} elements, {actual.dtype} {actual.shape}"]
    for index in np.argwhere(wrong)[:5]:
        at = tuple(int(i) for i in index)
        lines.append(f"  at {at}: got {actual[at]!r}, expected {expected[at]!r}")
    return "\n".join(lines)
