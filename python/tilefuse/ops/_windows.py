"""Windows that slide over images: strides, dilation and padding, for convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Where the windows lie; each pair is of height and width."""

    out: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]  # padding at the top and the left


def pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """Return an int, or two, as two; ValueError unless they are positive integers."""
    both = (value, value) if isinstance(value, (int, np.integer)) else value
    if not (
        isinstance(both, Sequence)
        and len(both) == 2
        and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in both)
    ):
        raise ValueError(f"{name} is {value!r}; expected a positive integer, or two, of height and width")
    return int(both[0]), int(both[1])


def check_images(shape: tuple[int, ...]) -> None:
    """ValueError unless it is a shape of images x, [n, h, w, c]."""
    if len(shape) != 4:
        raise ValueError(
            f"x has shape {shape}; expected four axes, [n, h, w, c]: add the one that is missing, x[None] "
            "for a single image, x[..., None] for a single channel"
        )


def check_filters(shape: tuple[int, ...], images: tuple[int, ...], groups: int) -> None:
    """ValueError unless it is a shape of filters w for `images` of a shape, in so many groups."""
    if len(shape) != 4 or 0 in shape[:2]:
        raise ValueError(f"w has shape {shape}; expected four axes, [kernel_h, kernel_w, c / groups, f]")
    c, f = images[3], shape[3]
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or c % groups or f % groups:
        raise ValueError(f"groups is {groups!r}; expected a divisor of x's {c} channels and w's {f} filters")
    if shape[2] * groups != c:
        raise ValueError(
            f"w has shape {shape}, filters of {shape[2]} channels; expected {c // groups}, as x has shape "
            f"{images} and groups is {groups}"
        )


def windows(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: int | Sequence[int] = 1,
    padding: str | int | Sequence[Sequence[int]] = "valid",
    dilation: int | Sequence[int] = 1,
) -> Windows:
    """Return the windows of `kernel` elements over images of `size`.

    `padding` is "valid" (none), "same" (as many windows as strides fit in the image, and zeros on both
    sides, the odd one after it, as in TensorFlow), an int for all sides, or ((top, bottom), (left, right)).
    """
    try:
        return _remembered(size, kernel, strides, padding, dilation)
    except TypeError:  # lists have no hash
        return _windows(size, kernel, strides, padding, dilation)


def _windows(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: int | Sequence[int],
    padding: str | int | Sequence[Sequence[int]],
    dilation: int | Sequence[int],
) -> Windows:
    steps, spread = pair(strides, "strides"), pair(dilation, "dilation")
    reach = _reach(kernel, spread)
    sides = _sides(size, reach, steps, padding)
    out = tuple(
        max(0, (n + before + after - r) // s + 1)
        for n, (before, after), r, s in zip(size, sides, reach, steps, strict=True)
    )
    return Windows((out[0], out[1]), steps, spread, (sides[0][0], sides[1][0]))


_remembered = lru_cache(maxsize=256, typed=True)(_windows)  # 8 of the 13 us of a small convolution's call


def explicit_padding(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: str | int | Sequence[Sequence[int]],
    dilation: tuple[int, int] = (1, 1),
) -> list[tuple[int, int]]:
    """Return a padding as what it adds before and after, in height and width."""
    return _sides(size, _reach(kernel, dilation), strides, padding)


def _reach(kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, ...]:
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))


def _sides(
    size: tuple[int, int],
    reach: tuple[int, ...],
    strides: tuple[int, int],
    padding: str | int | Sequence[Sequence[int]],
) -> list[tuple[int, int]]:
    if isinstance(padding, str) and padding.lower() == "valid":
        return [(0, 0), (0, 0)]
    if isinstance(padding, str) and padding.lower() == "same":
        totals = [max(0, (-(-n // s) - 1) * s + r - n) for n, r, s in zip(size, reach, strides, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    if isinstance(padding, (int, np.integer)) and not isinstance(padding, bool):
        sides: object = ((padding, padding), (padding, padding))
    else:
        sides = padding
    if not (
        isinstance(sides, Sequence)
        and not isinstance(sides, str)
        and len(sides) == 2
        and all(
            isinstance(side, Sequence)
            and len(side) == 2
            and all(isinstance(n, (int, np.integer)) and n >= 0 for n in side)
            for side in sides
        )
    ):
        raise ValueError(
            f"padding is {padding!r}; expected 'valid', 'same', a non-negative integer or "
            "((top, bottom), (left, right))"
        )
    return [(int(before), int(after)) for before, after in sides]
