"""Dropout from a counter-based generator: the mask is a function of seed, step and the element's index."""

from __future__ import annotations

import math
from typing import Any

from ._namespace import Array, get_array_module

LOW32 = 0xFFFFFFFF


def dropout(x: Array, rate: float, *, seed: int = 0, step: int = 0) -> tuple[Array, Array]:
    """Zeroes each element with probability `rate` and scales the others by ``1 / (1 - rate)``.

    Parameters
    ----------
    x : array
    rate : float in [0, 1)
    seed, step : int in [0, 2**64)
        Equal ones give equal masks.

    Returns
    -------
    y : array
    mask : bool array
        True where the element was kept.
    """
    mask = dropout_mask(math.prod(x.shape), rate, seed=seed, step=step, xp=get_array_module(x)).reshape(
        x.shape
    )
    return dropout_backward(x, mask, rate), mask


def dropout_backward(dy: Array, mask: Array, rate: float) -> Array:
    """``dy / (1 - rate)`` where `mask` is true, else zero."""
    xp = get_array_module(dy)
    return xp.where(mask, dy * (1 / (1 - rate)), xp.zeros_like(dy))


def dropout_mask(size: int, rate: float, *, seed: int, step: int, xp: Any) -> Array:
    """The mask of a tensor of `size` elements, flat, in C order.

    Elements come in groups of 64. The words of group g are the outputs of 16 counters from ``16 g`` on;
    element r of the group uses word ``r // 16`` of counter ``16 g + r % 16``, so that 16 (or 8, or 4)
    neighbours are made by one vector instruction.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    counter = xp.arange(-(-size // 64) * 16, dtype=xp.uint64)
    words = philox4x32(
        (counter & LOW32, counter >> 32, step & LOW32, step >> 32), (seed & LOW32, seed >> 32), xp=xp
    )  # [4, groups * 16]
    bits = words.reshape(4, -1, 16).transpose(1, 0, 2).reshape(-1)[:size]
    return bits >= math.floor(rate * 2.0**32)


def philox4x32(
    counter: tuple[Any, Any, Any, Any], key: tuple[int, int], *, xp: Any, rounds: int = 10
) -> Array:
    """The generator Philox4x32 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11, 2011.

    Parameters
    ----------
    counter : four uint64 arrays [n] (or numbers), each below 2**32
    key : two integers below 2**32

    Returns
    -------
    words : uint64 array [4, n], each below 2**32
    """
    zero = xp.zeros((), dtype=xp.uint64)
    c0, c1, c2, c3 = xp.broadcast_arrays(*(zero + xp.asarray(c, dtype=xp.uint64) for c in counter))
    k0, k1 = key
    for _ in range(rounds):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # 32 x 32 -> 64 bits
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & LOW32, (p0 >> 32) ^ c3 ^ k1, p0 & LOW32
        k0, k1 = (k0 + 0x9E3779B9) & LOW32, (k1 + 0xBB67AE85) & LOW32
    return xp.stack((c0, c1, c2, c3))
