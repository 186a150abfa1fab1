"""Batches from iterators, which `fit`, `evaluate` and `predict` take in place of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

import numpy as np

T = TypeVar("T")

_END = object()
_ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__cuda_array_interface__", "__dlpack__")


def is_stream(x: Any) -> bool:
    """Return whether `x` gives batches, and is no array, list or tuple of samples."""
    if isinstance(x, (list, tuple, str, bytes)) or not hasattr(x, "__iter__"):
        return False
    return not any(hasattr(x, protocol) for protocol in _ARRAY_PROTOCOLS)


class Stream(Generic[T]):
    """The batches of an iterable or iterator; each iteration takes one epoch.

    Parameters
    ----------
    source : iterable
        One that can be iterated over again and again, or an iterator.
    steps : int, optional
        Batches an epoch. The next epoch goes on where one ends, and an iterable starts again at its end.
        Without it, an epoch is one pass, and an iterator must have a length.
    argument : str
        What the caller calls `steps`.
    convert : callable
        Is applied to each batch.

    Raises
    ------
    ValueError
        It cannot be known when an epoch ends.
    """

    def __init__(self, source: Any, steps: int | None, argument: str, convert: Callable[[Any], T]) -> None:
        if steps is not None and (not isinstance(steps, (int, np.integer)) or steps < 1):
            raise ValueError(f"{argument} must be an integer of at least 1, got {steps!r}.")
        self._source, self._argument, self._convert = source, argument, convert
        self._running: Iterator[Any] | None = iter(source)
        self._repeatable = self._running is not source
        self._counted = steps is not None or not self._repeatable
        self.steps = steps if steps is not None or not hasattr(source, "__len__") else len(source)
        if self._counted and self.steps is None:
            raise ValueError(
                f"A {type(source).__name__} can be run through only once and does not say how many batches "
                f"it has: give {argument}, the number of batches to take."
            )

    def __iter__(self) -> Iterator[T]:
        taken = 0
        for batch in self._counted_batches() if self._counted else self._one_pass():
            taken += 1
            yield self._convert(batch)
        if not taken:
            raise ValueError(f"The {type(self._source).__name__} gave no batch; at least one is needed.")

    def map(self, function: Callable[[T], T]) -> Self:
        """Apply `function` to each batch, too."""
        convert = self._convert
        self._convert = lambda batch: function(convert(batch))
        return self

    def close(self) -> None:
        """End the iteration under way, and with it its threads. An iterator is left to its owner."""
        if self._repeatable:
            running, self._running = self._running, None
            if running is not None and hasattr(running, "close"):
                running.close()

    def _one_pass(self) -> Iterator[Any]:
        yield from self._current()
        self._running = None

    def _counted_batches(self) -> Iterator[Any]:
        for taken in range(self.steps or 0):
            batch = next(self._current(), _END)
            if batch is _END and self._repeatable:
                self._running = None
                batch = next(self._current(), _END)
            if batch is _END:
                raise ValueError(
                    f"The {type(self._source).__name__} ended after {taken} of the {self.steps} batches that "
                    f"this epoch needs. Give a smaller {self._argument}, fewer epochs, or one that goes on."
                )
            yield batch

    def _current(self) -> Iterator[Any]:
        if self._running is None:
            self._running = iter(self._source)
        return self._running


def labelled(batch: Any) -> tuple[Any, ...]:
    """Return a batch to train on or to evaluate, as (x, y) or (x, y, sample_weight).

    Raises
    ------
    ValueError
        It is something else.
    """
    if isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
        return tuple(batch)
    parts = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    raise ValueError(
        f"Each batch must be (x, y) or (x, y, sample_weight), got a {type(batch).__name__}{parts}. Images "
        "without labels, class_mode=None, are for predict."
    )


def unlabelled(batch: Any) -> Any:
    """Return the samples of a batch, which may come with labels."""
    return batch[0] if isinstance(batch, (tuple, list)) else batch
