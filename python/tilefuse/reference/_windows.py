"""Images and the windows that slide over them, one element of the windows at a time."""

from __future__ import annotations

from collections.abc import Iterator

from tilefuse.ops._windows import Windows

from ._namespace import Array, get_array_module


def padded(x: Array, kernel: tuple[int, int], place: Windows, value: float = 0) -> Array:
    """Return the images with all that the windows reach, `value` outside."""
    n, h, width, c = x.shape
    reach = [
        max(size + before, (out - 1) * s + (k - 1) * d + 1)
        for size, before, out, s, d, k in zip(
            (h, width), place.before, place.out, place.strides, place.dilation, kernel, strict=True
        )
    ]
    result = get_array_module(x).full((n, *reach, c), value, x.dtype)
    inner(result, x.shape, place)[...] = x
    return result


def inner(images: Array, shape: tuple[int, ...], place: Windows) -> Array:
    """Return the part of padded images that is not padding."""
    top, left = place.before
    return images[:, top : top + shape[1], left : left + shape[2], :]


def taps(kernel: tuple[int, int], place: Windows) -> Iterator[tuple[tuple[int, int], slice, slice]]:
    """Yield each element of a window, and the rows and columns of the padded images that it meets."""
    for p in range(kernel[0]):
        for q in range(kernel[1]):
            starts = p * place.dilation[0], q * place.dilation[1]
            rows, cols = (
                slice(start, start + (out - 1) * s + 1 if out else start, s)
                for start, out, s in zip(starts, place.out, place.strides, strict=True)
            )
            yield (p, q), rows, cols
