"""Reverse-mode differentiation of eager code: a tape records operations, and plays them back for gradients.

Everything that can be differentiated calls `record` once with its inputs, its output and a function from the
output's gradient to the inputs'. With no tape active that costs one look at a thread-local list.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _core
from .variables import Variable

Backward = Callable[[Any], Sequence[Any]]


class _Operation(NamedTuple):
    inputs: list[Any]
    output: Any
    backward: Backward


class _Tapes(threading.local):
    def __init__(self) -> None:
        self.active: list[GradientTape] = []


_tapes = _Tapes()


def _begin(tape: GradientTape) -> None:
    _tapes.active.append(tape)
    _core.record(1)


def _end(tape: GradientTape) -> None:
    _tapes.active.remove(tape)
    _core.record(-1)


def recording() -> bool:
    """Return whether a tape is active in this thread."""
    return bool(_tapes.active)


def record(inputs: Sequence[Any], output: Any, backward: Backward) -> None:
    """Write one operation on all active tapes.

    Parameters
    ----------
    inputs : sequence of arrays, Variables and None
        None where an optional input was not given.
    output : array
        A new object, none of `inputs`.
    backward : callable
        ``backward(dy)`` returns one gradient for each input, or None for those that have none.
    """
    if _tapes.active:
        operation = _Operation([_array(x) for x in inputs], output, backward)
        for tape in _tapes.active:
            tape._operations.append(operation)


class GradientTape:
    """Record what models, ops and losses compute inside the block, for `gradient`.

    All arrays are watched, not only variables. Plain NumPy arithmetic is not recorded: to add up losses, give
    `gradient` a list of them.

    Parameters
    ----------
    persistent : bool
        Keep the recording after the first `gradient`.
    watch_accessed_variables : bool
        As in TensorFlow; without effect, since everything is recorded.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> model = tilefuse.Sequential([tilefuse.Input((3,)), tilefuse.layers.Dense(1)])
    >>> loss_fn = tilefuse.losses.MeanSquaredError()
    >>> with tilefuse.GradientTape() as tape:
    ...     loss = loss_fn(np.zeros((4, 1)), model(np.ones((4, 3)), training=True))
    >>> [g.shape for g in tape.gradient(loss, model.trainable_variables)]
    [(3, 1), (1,)]
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        self._persistent = persistent
        self._operations: list[_Operation] = []
        self._spent = False

    def __enter__(self) -> GradientTape:
        if self in _tapes.active:
            raise RuntimeError("This tape is recording already; use another GradientTape inside it.")
        _begin(self)
        return self

    def __exit__(self, *error: object) -> None:
        _end(self)

    def watch(self, tensor: Any) -> None:
        """Do nothing: every array is watched. Here for programs written for TensorFlow."""

    def reset(self) -> None:
        """Forget what was recorded."""
        self._operations.clear()
        self._spent = False

    @contextlib.contextmanager
    def stop_recording(self) -> Iterator[None]:
        """Record nothing inside the block."""
        _end(self)
        try:
            yield
        finally:
            _begin(self)

    def gradient(self, target: Any, sources: Any, output_gradients: Any = None) -> Any:
        """Return the derivatives of `target` by `sources`.

        Parameters
        ----------
        target : array or list of arrays
            What a loss, a model or an op returned inside the block; the gradient of a list is that of its
            sum.
        sources : Variable, array, or list of them
        output_gradients : array or list of arrays, optional
            The gradient at `target`; ones by default.

        Returns
        -------
        array, or list of arrays like `sources`
            None for a source that `target` does not depend on.

        Raises
        ------
        ValueError
            `target` was not recorded on this tape.
        RuntimeError
            The tape was used up by an earlier call.
        """
        if self._spent:
            raise RuntimeError(
                "This tape was used already. GradientTape(persistent=True) can give gradients more "
                "than once; call its reset() before the next step."
            )
        operations = list(self._operations)
        targets = list(target) if isinstance(target, (list, tuple)) else [target]
        gradients = self._play_back(
            operations, _start(operations, targets, output_gradients), _as_list(sources)
        )
        if not self._persistent:
            self._spent = True
            self._operations.clear()
        found = [gradients.get(id(_array(source))) for source in _as_list(sources)]
        return found if isinstance(sources, (list, tuple)) else found[0]

    @staticmethod
    def _play_back(
        operations: list[_Operation], gradients: dict[int, Any], sources: list[Any]
    ) -> dict[int, Any]:
        needed = {id(_array(source)) for source in sources}
        for operation in operations:
            if any(id(x) in needed for x in operation.inputs):
                needed.add(id(operation.output))
        for operation in reversed(operations):
            dy = gradients.get(id(operation.output))
            if dy is None or id(operation.output) not in needed:
                continue
            for x, dx in zip(operation.inputs, operation.backward(dy), strict=True):
                if dx is not None and id(x) in needed:
                    gradients[id(x)] = gradients[id(x)] + dx if id(x) in gradients else dx
        return gradients


def _start(operations: list[_Operation], targets: list[Any], output_gradients: Any) -> dict[int, Any]:
    """Return the gradients at the targets, by the targets' identities."""
    outputs = {id(operation.output) for operation in operations}
    given = [None] * len(targets) if output_gradients is None else _as_list(output_gradients)
    start: dict[int, Any] = {}
    for target, dy in zip(targets, given, strict=True):
        if id(target) not in outputs:
            raise ValueError(
                f"The target (a {type(target).__name__} of shape {np.shape(target)}) was not recorded on "
                "this tape. It must be the very object that a loss, a model or an op of tilefuse returned "
                "inside the `with` block; NumPy arithmetic on it is not recorded. To add up losses, pass a "
                "list of them."
            )
        dy = np.ones_like(target) if dy is None else np.asarray(dy, target.dtype)
        start[id(target)] = start[id(target)] + dy if id(target) in start else dy
    return start


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _array(x: Any) -> Any:
    return x.value if isinstance(x, Variable) else x
