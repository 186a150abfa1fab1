"""What holds for the whole process: threads, device, precision, the root of all seeds."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import os
import platform
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import _device
from ._config import suggestion
from ._device import DeviceError as DeviceError

# The names of precisions; of all but "float64", arrays are of float32.
_PRECISIONS = ("float32", "ieee", "bfloat16", "float64")
PRECISIONS_ON_CUDA = ("split", "tf32", "float16")


class _Settings:
    """The mutable part of this module, in one place."""

    precision = "float32"
    root_seed = int.from_bytes(os.urandom(8), "little")
    draws = itertools.count()
    lock = threading.Lock()


def set_num_threads(n: int) -> None:
    """Use `n` threads for every kernel, and at most `n` for a model's steps, from now on.

    Steps that are faster with fewer take fewer. The results' bits do not depend on it.

    Parameters
    ----------
    n : int
        At least 1. More than the machine has cores is allowed and slow.

    Raises
    ------
    TypeError
        `n` is not an integer.
    ValueError
        `n` is less than 1.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.set_num_threads(1)
    >>> tilefuse.get_num_threads()
    1
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"set_num_threads takes an integer, got {n!r} of type {type(n).__name__}.")
    if n < 1:
        raise ValueError(f"set_num_threads takes an integer of at least 1, got {n}.")
    from . import _core

    _core.set_num_threads(int(n))


def get_num_threads() -> int:
    """Return the number of threads that kernels use.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.get_num_threads() >= 1
    True
    """
    from . import _core

    return int(_core.get_num_threads())


def set_device(device: str) -> str:
    """Choose the device that models are compiled for, and return its name.

    A model stays where its weights were made: it is trained and used there, whichever device is chosen later.
    To move one, save it and load it.

    Parameters
    ----------
    device : str
        ``"cpu"``; ``"cuda"`` or, of several GPUs, ``"cuda:1"``; ``"simt"``, the CUDA kernels executed on the
        CPU, for tests; or ``"auto"``, which takes the best device there is and prints which one that was.

    Returns
    -------
    str
        The device in use from now on.

    Raises
    ------
    tilefuse.DeviceError
        The device can't be used: it was not built, or there is no driver or GPU. The message says which.
    ValueError
        No device has that name.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.set_device("cpu")
    'cpu'
    """
    if not isinstance(device, str):
        raise TypeError(
            f"set_device takes a name such as 'cpu', got {device!r} of type {type(device).__name__}."
        )
    kind, _, index = device.partition(":")
    known = device in ("cpu", "simt", "auto") or (kind == "cuda" and (index.isdigit() or device == "cuda"))
    if not known:
        names = ("cpu", "auto", "cuda", "cuda:0", "simt")
        raise ValueError(f"Unknown device {device!r}. {suggestion(device, names)}")
    if device == "auto":
        device, why = _device.best()
        print(f"tilefuse: device 'auto' is {device!r}" + (f" ({why})" if why else ""))
    _device.use(device)
    return device


def get_device() -> str:
    """Return the name of the device in use.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.get_device()
    'cpu'
    """
    return _device.current()


def set_precision(precision: str) -> None:
    """Choose the arithmetic of layers and models made from now on.

    Parameters
    ----------
    precision : str
        ``"float32"`` (default); ``"ieee"``, float32 by multiply-adds alone; ``"bfloat16"``, whose products
        round their operands to bfloat16, while sums and weights are float32; ``"float64"``, for gradient
        checks. On CUDA devices also ``"tf32"`` and ``"float16"``, likewise, and ``"split"``: see
        `ops.matmul`.

    Raises
    ------
    ValueError
        The device in use has no such precision; the message lists those that it has.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.set_precision("float64")
    >>> tilefuse.Variable([1.0]).dtype
    dtype('float64')
    >>> tilefuse.set_precision("float32")
    """
    available = precisions(_device.current())
    if precision not in available:
        why = (
            ": it exists on CUDA devices only, call set_device first"
            if precision in PRECISIONS_ON_CUDA
            else ""
        )
        names = ", ".join(map(repr, available))
        raise ValueError(f"Precision {precision!r} is not available here{why}. Available: {names}.")
    _Settings.precision = precision


def get_precision() -> str:
    """Return the precision set by `set_precision`.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.get_precision()
    'float32'
    """
    return _Settings.precision


def default_dtype() -> np.dtype[Any]:
    """Return the dtype of arrays under the current precision."""
    return np.dtype("float64" if _Settings.precision == "float64" else "float32")


def precisions(device: str) -> tuple[str, ...]:
    """Return the names of the precisions that a device has."""
    return _PRECISIONS if device == "cpu" else _PRECISIONS + PRECISIONS_ON_CUDA


def seed(n: int) -> None:
    """Make all that is random from now on (initial weights, shuffling, dropout) follow from `n`.

    Parameters
    ----------
    n : int
        Not negative.

    Examples
    --------
    >>> import numpy as np, tilefuse
    >>> def draw():
    ...     tilefuse.seed(7)
    ...     return tilefuse.initializers.GlorotUniform()((2, 2))
    >>> bool(np.array_equal(draw(), draw()))
    True
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"seed takes an integer, got {n!r} of type {type(n).__name__}.")
    if n < 0:
        raise ValueError(f"seed takes an integer of at least 0, got {n}.")
    with _Settings.lock:
        _Settings.root_seed = int(n)
        _Settings.draws = itertools.count()


#: A root seed and its draws, in place of the process's.
_scope: contextvars.ContextVar[tuple[int, Iterator[int]] | None] = contextvars.ContextVar(
    "seeds", default=None
)


@contextlib.contextmanager
def seeded(n: int | None) -> Iterator[None]:
    """Let all that this thread makes inside the block follow from `n`, and nothing else; None: as outside."""
    token = _scope.set(_scope.get() if n is None else (n, itertools.count()))
    try:
        yield
    finally:
        _scope.reset(token)


def next_seed() -> int:
    """Return a new seed below 2**63: the next of the sequence that `seed` started."""
    with _Settings.lock:
        root, draws = _scope.get() or (_Settings.root_seed, _Settings.draws)
        entropy = [root, next(draws)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(key: int, counter: int = 0) -> np.random.Generator:
    """Return a counter-based generator; its draws depend on `key` and `counter` alone."""
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, counter]))


def processor() -> str:
    """Return the processor's name, as Linux tells it; "unknown" where it does not."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print what tilefuse runs on: version, processor, instruction set, threads, device, precision, build.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dict instead.

    Returns
    -------
    dict or None

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.show_config("dicts")["device"]
    'cpu'
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"show_config takes mode 'stdout' or 'dicts', got {mode!r}.")
    from . import __version__, _core

    config: dict[str, Any] = {
        "tilefuse": __version__,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": processor(),
        "device": get_device(),
        "precision": get_precision(),
        "threads": get_num_threads(),
        "instruction set": _core.isa(),
        "available instruction sets": list(_core.available_isas()),
        "build": dict(_core.build_info()),
    }
    if mode == "dicts":
        return config
    for name, value in config.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}={item}" for key, item in value.items())
        elif isinstance(value, list):
            value = ", ".join(value)
        print(f"{name:<27}{value}")
    return None
